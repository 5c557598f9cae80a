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
from experiments.analysis.arms import factors_of
from experiments.analysis.runs import find_runs
from experiments.report import write_report
from experiments.report.changes import what_each_step_changed
from experiments.settings.identity import flatten
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
        "64 of width 64, 8 of keys and values",
        "What this cannot say",
        "All steps have the same number of parameters (match=parameters)",
    ):
        assert words in text, words
