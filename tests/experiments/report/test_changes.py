"""From GPT-2 to GPT-OSS: what each step is, that steps are matched, and what their page says."""

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from configs import settings_of
from conftest import ROOT, Sweep
from experiments.analysis.arms import Arm, Layout, factors_of, form_arms
from experiments.analysis.histories import History
from experiments.analysis.runs import Run, find_runs
from experiments.records.summary import CorpusSummary, Summary
from experiments.report import write_report
from experiments.report.changes import (
    NO_DIFFERENCE,
    changes_table,
    described,
    descriptions,
    groups_of,
    matched_in,
    not_said,
    sizes_of,
    what_each_step_changed,
)
from experiments.settings.identity import flatten
from experiments.settings.sizes import published_model
from gpt import ConfigError, GPTConfig, YarnConfig
from gpt.count import MEASURES, matched

FOLDER = ROOT / "conf" / "change"
CHANGES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "none")
EXPERIMENT = yaml.safe_load((ROOT / "conf" / "experiment" / "gpt2_to_gpt_oss.yaml").read_text())
SIZES = {
    "vocab_size",
    "context_length",
    "emb_dim",
    "n_heads",
    "n_layers",
    "attention.kv_heads",
    "attention.head_dim",
    "attention.windows",
    "feed_forward.dim",
    "experts.count",
    "experts.active",
    "experts.balance_loss",
    "init.scheme",
}


def model_of(change: str, *overrides: str) -> GPTConfig:
    return settings_of(f"change={change}", *overrides).model_config(100)


def parts_of(config: GPTConfig) -> dict[str, Any]:
    """Everything but sizes, and YaRN, which needs a longer context than the first."""
    values = dataclasses.asdict(dataclasses.replace(config, vocab_size=1))
    values["position"]["yarn"] = dataclasses.asdict(YarnConfig())
    return {name: value for name, value in flatten(values) if name not in SIZES}


def test_the_sweep_takes_every_step_in_order() -> None:
    params = EXPERIMENT["hydra"]["sweeper"]["params"]
    assert params["change"].split(",") == CHANGES
    assert (params["norm"], params["seed"]) == ("pre_ln,post_ln", "0,1,2")
    for before, name in pairwise(CHANGES):
        values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
        assert values["defaults"] == [before, "_self_"]
        assert values["change"] == name


def test_each_step_is_one_change() -> None:
    """Fields of the model that differ from the step before; the last is all that is left."""
    configs = [dict(flatten(dataclasses.asdict(model_of(change)))) for change in CHANGES]
    changed = [
        {name for name in after if after[name] != before.get(name)}
        for before, after in pairwise(configs)
    ]
    assert changed == [
        {"norm.kind"},
        {"activation", "feed_forward.gated"},
        {"position.kind"},
        {"qkv_bias", "bias"},
        {"drop_rate"},
        {"attention.kv_heads"},
        {"attention.windows"},
        {"attention.sinks"},
        {"experts.count", "experts.active", "experts.balance_loss"},
        {
            "activation",
            "qkv_bias",
            "bias",
            "tie_head",
            "position.bases",
            "feed_forward.clamp",
            "feed_forward.offset",
        },
    ]


def test_the_first_step_has_the_parts_of_gpt2() -> None:
    assert parts_of(model_of(CHANGES[0])) == parts_of(model_of("none", "model=gpt2_124m"))


def test_the_last_step_has_the_parts_of_gpt_oss() -> None:
    assert parts_of(model_of(CHANGES[-1])) == parts_of(model_of("none", "model=gpt_oss_20b"))


@pytest.mark.parametrize("sizes", [{}, {"emb_dim": 64, "n_layers": 6}], ids=["nano", "micro"])
@pytest.mark.parametrize("by", MEASURES)
def test_steps_are_matched(by: str, sizes: dict[str, int]) -> None:
    configs = [dataclasses.replace(model_of(change), **sizes) for change in CHANGES]
    values = [MEASURES[by](matched(config, by)) for config in configs]
    assert values == pytest.approx([MEASURES[by](configs[0])] * len(CHANGES), rel=0.02)
    set_so = settings_of(f"change={CHANGES[2]}", f"match={by}").model_config(100)
    assert set_so == matched(model_of(CHANGES[2]), by)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("match=size", "match='size' is not valid: .*flops, parameters"),
        ("model.n_layers=0", "match='flops' is not valid: chooses the width of blocks"),
        ("model.feed_forward.dim=9", "match='flops' is not valid: chooses the width, and"),
    ],
)
def test_what_cannot_be_matched_is_said(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of("match=flops", override)


@pytest.mark.long
def test_a_sweep_of_changes_skips_what_has_run_and_has_a_page(
    sweep: Sweep,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("experiment=gpt2_to_gpt_oss", "seed=0", "trainer.steps=1")
    arguments += ("trainer.eval_every=9", "trainer.end_probes=false", "norm=post_ln")
    assert sweep(*arguments, "change=00_gpt2,08_sinks")[0] == 0
    code, folder = sweep(*arguments, "change=00_gpt2,08_sinks,09_experts")
    assert code == 0
    assert "3 jobs in" in (said := capfd.readouterr().out)
    assert "1 to run, 2 skipped" in said
    assert factors_of(find_runs(folder), None) == ["change"]
    table = pd.read_csv(folder / "runs.csv").set_index("change")
    matched = table["parameters"].to_numpy()
    assert matched == pytest.approx([matched[0]] * 3, rel=0.1)  # of a toy, with few widths
    experts, sinks = table.loc["09_experts"], table.loc["08_sinks"]
    assert experts["active_parameters"] < 0.9 * sinks["active_parameters"]
    gradients = pd.read_csv(next(folder.glob("post_ln-change09*")) / "gradients.csv")
    loads = gradients[gradients["stat"] == "expert_load"]
    assert set(loads["component"]) == {f"feed_forward.expert_{e}" for e in range(8)}
    assert loads.groupby(["step", "layer"])["value"].mean().to_numpy() == pytest.approx(1)

    monkeypatch.setattr(
        "experiments.report.makers",
        lambda layout, arms: [partial(what_each_step_changed, layout, arms)],
    )
    page = write_report([folder], tmp_path / "page", formats=["png"])
    text = page.read_text()
    assert (page.parent / "figures" / "changes.png").stat().st_size > 10_000
    for words in (
        "GPT-2 XL (2019)",
        "1,557,611,200",
        "20,914,757,184",
        "3,608,307,264",
        "4 of 32 for a token",
        "64 of width 64, 8 of keys and values; 64 x 64 = 4,096 is wider than the embedding",
        "Eight experts for a dense feed-forward layer",
        "128 tokens and all, in alternate layers",
        "are those of post_ln",
        "What this cannot say",
        "All steps have the same number of parameters (match=parameters)",
    ):
        assert words in text, words


FACTORS = ["change", "norm.placement"]
SIZES_BY_STEP = {"00_gpt2": (1000, 50.0), "08_sinks": (1010, 60.0), "09_experts": (990, 24.0)}


def made_up(
    change: str, loss: float, seed: int = 0, placement: str = "pre_ln", lr: float = 0.1
) -> History:
    """A run that finished; one with a loss of 3 has learned no more than token frequencies."""
    parameters, flops = SIZES_BY_STEP.get(change, (1000, 50.0))
    settings = {
        "change": change,
        "match": "parameters",
        "norm": {"placement": placement},
        "optimizer": {"lr": lr},
        "tokenizer": {"name": "char"},
        "model": {"experts": {"count": 8 * (change >= "09")}},
    }
    corpus = CorpusSummary(train_tokens=1000, unigram_validation_loss=3.0)
    summary = Summary(
        status="finished",
        seed=seed,
        settings=settings,
        corpus=corpus,
        tokens=900,
        val_loss=loss,
        initial_val_loss=4.0,
        parameters=parameters,
        flops_per_token=flops,
        ff_dim=len(placement),
    )
    return History(Run(Path(), summary))


def way(*histories: History) -> tuple[Layout, list[Arm]]:
    arms = form_arms(histories, FACTORS)
    return Layout(arms, FACTORS), arms


def column(name: str, *histories: History) -> list[str]:
    """A column of the table by step, as shown."""
    table = changes_table(*way(*histories))
    return [row[table.columns.index(name)].shown for row in table.rows]


def test_a_difference_is_that_from_the_step_before_or_is_left_out() -> None:
    steps = {"00_gpt2": 2.0, "08_sinks": 1.9, "09_experts": 1.8, "10_gpt_oss": 1.85}
    shown = column("over the step before, pre_ln", *(made_up(*step) for step in steps.items()))
    assert shown == ["", "", "-0.100", "+0.050"]


def test_there_is_no_difference_where_a_run_did_not_learn() -> None:
    runs = [made_up("08_sinks", 2.0), made_up("09_experts", 2.1), made_up("10_gpt_oss", 2.999)]
    dash = NO_DIFFERENCE.shown
    assert column("over the step before, pre_ln", *runs) == ["", "+0.100", dash]
    runs += [made_up("08_sinks", 3.1, seed=1)]
    assert column("over the step before, pre_ln", *runs) == ["", dash, dash]


def test_losses_come_with_their_range_and_seeds_right_after_the_change() -> None:
    runs = [made_up("08_sinks", 2.0 + seed / 10, seed) for seed in range(3)]
    runs.append(made_up("09_experts", 1.5))
    assert column("loss, pre_ln", *runs) == ["2.100 (2.000 to 2.200), 3 seeds", "1.500, 1 seed"]
    assert changes_table(*way(*runs)).columns[:2] == ["change", "loss, pre_ln"]


def test_sizes_are_said_to_be_those_of_the_placement_that_they_are_of() -> None:
    runs = [made_up(change, 2.0, 0, norm) for change in SIZES_BY_STEP for norm in ("a", "bb")]
    assert sizes_of(*way(*runs)) == "a"
    table = changes_table(*way(*runs))
    assert ("feed-forward width", "1") in table.same
    del runs[-2]
    assert sizes_of(*way(*runs)) == "the first of a, bb that has the step"
    assert column("feed-forward width", *runs) == ["1", "1", "2"]


def test_every_change_is_described_by_the_head_of_its_file() -> None:
    words = descriptions(way(*(made_up(change, 2.0) for change in [*CHANGES, "11_own"]))[0])
    assert [name for name, _ in words] == [change[3:].replace("_", " ") for change in CHANGES]
    assert all(text.endswith(".") and "@package" not in text for _, text in words)
    for part in ("biases back", "untied head", "150,000", "1.702", "at 7", "1 added to the up"):
        assert part in words[-1][1]


def test_how_far_matched_steps_are_apart_is_computed() -> None:
    said = matched_in(groups_of(*way(*(made_up(change, 2.0) for change in SIZES_BY_STEP))))
    assert "number of parameters (match=parameters), at most 2.02% apart:" in said


def test_what_cannot_be_said_is_true_of_the_runs() -> None:
    runs = [made_up(change, 2.0) for change in SIZES_BY_STEP]
    said = " ".join(not_said(*way(*runs)))
    assert "0.98 times the parameters and 0.40 times the FLOPs per token of sinks (pre_ln)" in said
    assert "Every step has the same learning rate" in said
    assert "reads less than the whole text" in said
    assert "compare steps only where jobs ran one at a time" in said
    assert "(50,257 tokens in GPT-2, 201,088 in GPT-OSS): all steps read the tokens of tok" in said
    runs.append(made_up("00_gpt2", 2.0, lr=0.2))
    runs[0].run.summary.tokens = 1000
    other = " ".join(not_said(*way(*runs)))
    assert "learning rate" not in other
    assert "Dropout" not in other
    assert "times the parameters" not in " ".join(not_said(*way(*runs[:2])))


def test_both_models_are_counted_in_a_text_of_the_same_length() -> None:
    gpt2, gpt_oss = (described(published_model(m), 1024) for m in ("gpt2_1558m", "gpt_oss_20b"))
    memory = "keys and values of 1,024 tokens, in bf16"
    # 48 layers of 1,600, and 12 of each kind, of 512, in two bytes
    assert gpt2[memory] == f"{2 * 48 * 1600 * 1024 * 2 / 2**20:,.1f} MiB"
    assert gpt_oss[memory] == f"{2 * 512 * 12 * (1024 + 128) * 2 / 2**20:,.1f} MiB"
    operations = "forward pass in a text of 1,024 tokens"
    assert gpt2[operations] == gpt2["forward pass in a text of its context"]
    assert gpt_oss[operations] != gpt_oss["forward pass in a text of its context"]
    assert gpt_oss["biases"] == gpt2["biases"] == "all linear layers but the head"
    assert gpt_oss["feed-forward"] == (
        "SwiGLU with x sigmoid(1.702 x), clamped at 7, 1 added to the up projection; "
        "2,880 wide, each expert"
    )
