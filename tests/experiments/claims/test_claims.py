"""Claims: the rule, each measurement at small budgets, what is written, and going on."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from scipy import stats

import run
from conftest import Cli
from experiments.analysis.runs import Run
from experiments.claims import CLAIMS, lab, measuring, training
from experiments.claims.claim import (
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Evidence,
    Prediction,
    Result,
    confidence,
    judge,
    log_slope,
    overall,
    slope,
)
from experiments.claims.lab import Budget, Lab
from experiments.jobs.check import checked_settings
from experiments.records.summary import CorpusSummary, Summary
from experiments.report import __main__ as report
from experiments.settings.compose import to_values
from gpt import PLACEMENTS

LITTLE = Budget(2, 2, 2, 64, (1, 2), (2, 16), 2, (4, 4), ("1e-3", "1e-2"), (1, 2), 3, 3)


@pytest.mark.parametrize(
    ("low", "high", "values", "verdict"),
    [
        (-0.05, 0.05, [0.0, 0.01, -0.01, 0.0], REPRODUCED),
        (-0.05, 0.05, [0.2, 0.21, 0.19], NOT_REPRODUCED),
        (-0.05, 0.05, [0.04, 0.05, 0.06], UNDECIDED),  # its interval crosses the bound
        (-0.05, 0.05, [0.0, 0.0], UNDECIDED),  # too few seeds
        (0.0, math.inf, [1.0, 1.1, math.nan], UNDECIDED),  # a failed run is not dropped
        (0.0, math.inf, [1.0, 1.1, math.inf], UNDECIDED),
        (-math.inf, 0.0, [1.0, 1.1, 0.9], NOT_REPRODUCED),
        (1.0, 1.0, [1.0, 1.0, 1.0], REPRODUCED),
        (-math.inf, math.inf, [1.0, 1.1, 0.9], ""),  # nothing was predicted
        (0.0, 1.0, [], UNDECIDED),
    ],
)
def test_the_rule(low: float, high: float, values: list[float], verdict: str) -> None:
    assert judge(Prediction("x", "", low, high), values).verdict == verdict


def test_a_claim_is_as_good_as_its_worst_prediction() -> None:
    def made(*verdicts: str) -> list[Result]:
        return [Result(Prediction("x"), 3, 0.0, 0.0, 0.0, verdict) for verdict in verdicts]

    assert overall(made(REPRODUCED, "")) == REPRODUCED
    assert overall(made(REPRODUCED, UNDECIDED)) == UNDECIDED
    assert overall(made(REPRODUCED, UNDECIDED, NOT_REPRODUCED)) == NOT_REPRODUCED
    assert overall(made("")) == UNDECIDED


def test_confidence_is_students() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    mean, low, high = confidence(values)
    test = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), test.low, test.high))


def test_slopes() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    assert slope(x, [3 * a**-0.5 for a in x]) == pytest.approx(-0.5)
    assert log_slope(x, [3 * math.exp(0.2 * a) for a in x]) == pytest.approx(0.2)
    assert math.isnan(log_slope(x, [1.0, 1.0, 0.0, 1.0]))


def test_each_claim_says_what_it_is() -> None:
    for claim in CLAIMS.values():
        assert any(prediction.has_bounds for prediction in claim.predictions), claim.name
        assert len({p.name for p in claim.predictions}) == len(claim.predictions)
        named = claim.source.arxiv + claim.source.where
        assert claim.own or re.search(r"\d{4}\.\d{4,5}", named)
        assert claim.own or claim.source.where
        assert all(p.text for p in claim.predictions if p.has_bounds)
        assert all(p.low < p.high for p in claim.predictions)
        for budget in lab.BUDGETS.values():
            assert "{" not in claim.setting.format(**budget.placeholders()).replace("W^{", "")


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small budgets, measured in this process."""
    for name in lab.BUDGETS:
        monkeypatch.setitem(lab.BUDGETS, name, LITTLE)
    monkeypatch.setattr(measuring, "usable_cores", lambda: 1)
    monkeypatch.setattr(measuring, "FOR_RUNS", ("",))  # toy sizes, which a user may not give


# Numbers whose order follows from the equations, with room for two seeds.
KNOWN = [
    ("post_ln: squared norm / d, mean over blocks", 1.4, 1.6),
    ("pre_ln: squared norm / d after block 32", 17, 49),
    ("pre_ln: first block / last block", 1.5, 10),
    ("pre_ln / ln_scaling: ratio of variances after block 32", 4, 20),
    ("peri_ln: exponent of growth", 0.9, 1.1),  # a norm's output has variance 1, per sublayer
    ("without: change of ln(gradient of the first layer) per layer", -3, -0.5),
    ("init=xavier: ln(post_ln / pre_ln)", 0.5, 3),
    ("init=gpt2: ln(post_ln / pre_ln)", -4, -1),
]
THEORY = [claim.name for claim in CLAIMS.values() if not claim.trains]


@pytest.mark.long
@pytest.mark.pictures
def test_theory_claims_are_measured_and_written(
    cli: Cli, toy: tuple[str, ...], little: None
) -> None:
    """Every number that is predicted is measured, for each seed, and stands in the files."""
    arguments = [o for o in toy if o.startswith(("data", "wandb", "device"))]
    code, directory = cli("experiment=claims", f"claims.only='{','.join(THEORY)}'", *arguments)
    assert code == 0
    rows = pd.read_csv(directory / "claims.csv")
    assert list(dict.fromkeys(rows["claim"])) == THEORY
    measured = rows.set_index("number")["measured"]
    for number, low, high in KNOWN:
        assert low < measured[number] < high, number
    for _, row in rows.iterrows():
        seeds = 20 if row["claim"] == "shortcut" else 2
        assert row["seeds"] == seeds, row["number"]
        assert math.isfinite(row["measured"]), row["number"]
        assert row["command"].endswith(f"only={row['claim']} claims.budget=standard seed=0")
        assert (directory / row["figure"]).is_file()
        judged = not (np.isnan(row["predicted_low"]) and np.isnan(row["predicted_high"]))
        assert (row["verdict"] in (REPRODUCED, NOT_REPRODUCED, UNDECIDED)) == judged
    points = pd.read_csv(directory / "measurements.csv")
    assert set(points["claim"]) == set(THEORY)
    assert points["value"].notna().all()
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["claims"] == dict(zip(rows["claim"], rows["claim_verdict"], strict=True))
    page = (directory / "claims.html").read_text()
    board = (directory / "claims.md").read_text()
    for name in THEORY:
        assert f'id="{name}"' in page
        assert f"| `{name}` |" in board
    before = (directory / "claims.md").read_bytes()
    (directory / "claims.md").unlink()
    assert report.main([str(directory)]) == 0  # from the files alone
    assert (directory / "claims.md").read_bytes() == before


def test_the_depth_law_of_xiong(tmp_path: Path) -> None:
    """Theorem 1 in its own setting: exponents 0 and -1/2, at three depths and three seeds.

    Over ten seeds of five depths the spread of a seed's exponent is 0.03.
    """
    budget = dataclasses.replace(lab.BUDGETS["quick"], seeds=3, depths=(2, 8, 32))
    with initialize_config_dir(run.CONF, version_base="1.3"):
        surroundings = Lab(checked_settings(to_values(compose("config", []))))
        surroundings.budget = budget
        evidence = CLAIMS["depth_law"].measure(surroundings)
    for placement, expected in (("post_ln", 0.0), ("pre_ln", -0.5)):
        slopes = evidence.values[f"{placement}: slope in L"]
        assert np.mean(slopes) == pytest.approx(expected, abs=0.08)


def test_training_claims_share_runs_and_skip_them(
    cli: Cli, toy: tuple[str, ...], little: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("model", "trainer.steps", "schedule", "init", "tokenizer")
    arguments = [o for o in toy if not o.startswith(own)] + [f"claims.runs={tmp_path}/kept"]
    arguments = [*arguments, "model.emb_dim=16", "model.n_heads=2", "model.context_length=16"]
    code, first = cli("experiment=claims", "claims.only=idle_layers", *arguments)
    assert code == 0
    assert "4 jobs" in capsys.readouterr().out
    code, second = cli(
        "experiment=claims", "claims.only='idle_layers,variance_training'", *arguments
    )
    assert code == 0
    assert re.search(r"8 jobs .*4 to run, 4 skipped", capsys.readouterr().out)
    rows = [pd.read_csv(d / "claims.csv").query("claim == 'idle_layers'") for d in (first, second)]
    pd.testing.assert_series_equal(rows[0]["measured"], rows[1]["measured"])
    assert rows[0]["measured"].notna().all()
    jobs = sorted(path.name for path in (tmp_path / "kept").iterdir() if path.is_dir())
    assert len(jobs) == 8
    summary = json.loads((tmp_path / "kept" / jobs[0] / "summary.json").read_text())
    assert "trainer.end_probes=true" in summary["overrides"]
    assert not (tmp_path / "kept" / "report.html").exists()


FREQUENCIES = 3.0


def made_runs(surroundings: Lab, name: str, loss_of: Any) -> None:
    """Give the lab finished runs of a claim's arms, with `loss_of(arm)` as their losses."""
    arms = CLAIMS[name].arms
    assert arms is not None
    surroundings.runs = {
        tuple(overrides): [
            Run(
                Path("nowhere"),
                Summary(
                    status="finished",
                    seed=seed,
                    val_loss=loss_of(arm) + 0.001 * seed,
                    initial_val_loss=4.5,
                    corpus=CorpusSummary(unigram_validation_loss=FREQUENCIES),
                ),
            )
            for seed in surroundings.run_seeds
        ]
        for arm, overrides in arms(surroundings.budget).items()
    }


@pytest.fixture
def surroundings() -> Lab:
    with initialize_config_dir(run.CONF, version_base="1.3"):
        return Lab(checked_settings(to_values(compose("config", ["claims.budget=standard"]))))


@pytest.mark.parametrize(
    ("name", "loss_of", "verdict"),
    [
        ("warm_up", {"post_ln, no warm-up": 3.0}, REPRODUCED),
        ("warm_up", {}, NOT_REPRODUCED),  # post_ln learns without
        ("warm_up", {"post_ln, no warm-up": 3.0, "post_ln, warm-up": 3.0}, NOT_REPRODUCED),
        ("deepnorm_trains", {"post_ln": 3.0}, REPRODUCED),
        ("deepnorm_trains", {"post_ln": 3.0, "deepnorm": 3.0}, NOT_REPRODUCED),
        ("init_trains", {"post_ln": 3.0}, REPRODUCED),
        ("init_trains", {"post_ln": 3.0, "post_ln, init=gpt2": 2.99}, NOT_REPRODUCED),
    ],
)
def test_losses_become_verdicts(
    surroundings: Lab, name: str, loss_of: dict[str, float], verdict: str
) -> None:
    made_runs(surroundings, name, lambda arm: loss_of.get(arm, 2.2))
    evidence = CLAIMS[name].measure(surroundings)
    assert overall(measuring.results_of(CLAIMS[name], evidence)) == verdict


def test_sensitivities(surroundings: Lab) -> None:
    """A mean over the grid of min(final, initial) less the best, by hand."""
    made_runs(surroundings, "lr_sensitivity", lambda arm: 2.0 + ("no warm-up" in arm))
    last = surroundings.budget.rates[-1]
    for overrides, group in surroundings.runs.items():
        if f"optimizer.lr={last}" in overrides and "norm.qk=true" not in overrides:
            for one in group:
                one.summary.status, one.summary.val_loss = "diverged", None
    evidence = CLAIMS["lr_sensitivity"].measure(surroundings)
    count = len(surroundings.budget.rates)
    expected = (4.5 - 2.0) / count  # a run that diverged counts with its initial loss
    assert evidence.values["sensitivity of more blocks with warm-up"] == pytest.approx(
        [expected - 0.001 * seed / count for seed in range(3)]
    )
    assert evidence.values["QK-norm: without less with"] == pytest.approx(
        [expected - 0.001 * seed / count for seed in range(3)]
    )
    assert evidence.values["warm-up: without less with"] == pytest.approx([-1.0 / count] * 3)


def test_a_failed_run_leaves_its_claim_undecided(surroundings: Lab) -> None:
    made_runs(surroundings, "warm_up", lambda arm: 3.0 if arm == "post_ln, no warm-up" else 2.2)
    next(iter(surroundings.runs.values()))[0].summary = Summary(status="failed", seed=0)
    evidence = CLAIMS["warm_up"].measure(surroundings)
    assert overall(measuring.results_of(CLAIMS["warm_up"], evidence)) == UNDECIDED


def test_what_is_read_of_a_run(surroundings: Lab, tmp_path: Path) -> None:
    """Thirds, ratios and signs, from a made gradients.csv with known answers."""
    layers = range(surroundings.budget.probed_depth)

    def made(name: str, values: dict[tuple[str, str], list[float]], status: str) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            {"step": step, "layer": layer, "component": component, "stat": stat, "value": value}
            for (component, stat), given in values.items()
            for step in (0, 200)
            for layer, value in enumerate(given)
        ]
        pd.DataFrame(rows).to_csv(folder / "gradients.csv", index=False)
        return Run(folder, Summary(seed=0, status=status))

    def values(rate: float, variance: float) -> dict[tuple[str, str], list[float]]:
        return {
            ("block", "layer_drop"): [rate**layer for layer in layers],
            ("block", "angular_distance"): [0.1 * rate**layer for layer in layers],
            ("output", "activation_variance"): [variance * (layer + 1) for layer in layers],
            ("feed_forward.fc_out.weight", "grad_norm"): [rate**layer for layer in layers],
        }

    runs = {
        "pre_ln": made("pre", values(0.5, 8.0), "finished"),
        "post_ln": made("post", values(2.0, 1.0), "finished"),
        "ln_scaling": made("scaled", values(0.5, 2.0), "finished"),
        "peri_ln": made("peri", values(0.5, 2.0), "diverged"),
        "normformer": made("former", values(0.75, 2.0), "finished"),
    }
    arms = training.inside_arms(surroundings.budget)
    surroundings.runs = {tuple(arms[name]): [run] for name, run in runs.items()}
    found: dict[str, list[float]] = {}
    for name in ("idle_layers", "variance_training", "normformer"):
        found |= CLAIMS[name].measure(surroundings).values
    last = len(layers) - 1
    early, late = (1 + 0.5) / 2, (0.5 ** (last - 1) + 0.5**last) / 2
    expected = {
        "pre_ln: loss by dropping, first less last blocks (nats)": early - late,
        "pre_ln: angular distance, first less last blocks": 0.1 * (early - late),
        "post_ln: loss by dropping, first less last blocks (nats)": 1.5 - 1.5 * 2.0 ** (last - 1),
        "ln(pre_ln / ln_scaling), last block": math.log(4),
        "ln(pre_ln / peri_ln), last block": math.nan,  # it did not finish
        "pre_ln: ln(first block / last block)": last * math.log(2),
        "pre_ln less normformer: |ln(first block / last block)|": last * math.log(1.5),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx([value], nan_ok=True), name


def test_a_reference_that_learnt_nothing_leaves_its_claim_undecided(surroundings: Lab) -> None:
    made_runs(surroundings, "deepnorm_trains", lambda arm: {"deepnorm": 2.2}.get(arm, 4.0))
    evidence = CLAIMS["deepnorm_trains"].measure(surroundings)
    assert overall(measuring.results_of(CLAIMS["deepnorm_trains"], evidence)) == UNDECIDED


def test_a_claim_that_cannot_be_measured_costs_no_other(
    cli: Cli, little: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(lab: Lab) -> Evidence:
        raise RuntimeError("made to fail")

    monkeypatch.setitem(
        CLAIMS, "depth_law", dataclasses.replace(CLAIMS["depth_law"], measure=fails)
    )
    only = "claims.only='depth_law,shortcut'"
    code, directory = cli("experiment=claims", only, "wandb.mode=disabled")
    assert code == 0
    assert "depth_law was not measured: made to fail" in caplog.text
    rows = pd.read_csv(directory / "claims.csv")
    verdicts = dict(zip(rows["claim"], rows["claim_verdict"], strict=True))
    assert verdicts["depth_law"] == UNDECIDED
    assert rows.query("claim == 'shortcut'")["measured"].notna().all()
    code, directory = cli("experiment=claims", "claims.only=depth_law", "wandb.mode=disabled")
    assert code == 0  # with nothing measured at all, the page still says so
    assert "not measured" in (directory / "claims.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("claims.budget=quik",), "claims.budget='quik' is not valid: did you mean 'quick'?"),
        (
            ("claims.only=depthlaw",),
            "claims.only='depthlaw' is not valid: did you mean 'depth_law'",
        ),
        (("claims.only=warm_up", "claims.budget=quick"), "warm_up needs training: claims.budget="),
        (("optimizer.lr=1",), "optimizer.lr='1' is not valid: each claim fixes its own setting"),
    ],
)
def test_what_cannot_be_measured_is_said(
    cli: Cli, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    code, _ = cli("experiment=claims", "wandb.mode=disabled", *arguments)
    assert code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_grid_of_placements_names_them_all() -> None:
    with initialize_config_dir(run.CONF, version_base="1.3"):
        config = compose("config", ["experiment=placements"], return_hydra_config=True)
    assert set(config.hydra.sweeper.params.norm.split(",")) == set(PLACEMENTS)


@pytest.mark.long
def test_runs_in_processes_of_their_own(
    cli: Cli,
    toy: tuple[str, ...],
    little: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two workers: all jobs end, no process is reported lost, and the environment is as before."""
    monkeypatch.setattr(measuring, "usable_cores", lambda: 2)
    before = dict(os.environ)
    own = ("model", "trainer.steps", "schedule", "init", "tokenizer")
    arguments = [o for o in toy if not o.startswith(own)] + [f"claims.runs={tmp_path}/kept"]
    arguments = [*arguments, "model.emb_dim=16", "model.n_heads=2", "model.context_length=16"]
    code, directory = cli("experiment=claims", "claims.only=warm_up", *arguments)
    assert code == 0
    assert "lost" not in caplog.text
    assert len(pd.read_csv(directory / "claims.csv")) == 3
    assert list(pd.read_csv(tmp_path / "kept/runs.csv")["status"]) == ["finished"] * 8
    assert dict(os.environ) == before


@pytest.mark.long
def test_theory_in_processes_of_their_own_equals_theory_here(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("experiment=claims", "claims.budget=quick", "wandb.mode=disabled")
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(measuring, "usable_cores", lambda cores=cores: cores)
        code, directory = cli(*arguments, "claims.only='shortcut,hidden_norm'")
        assert code == 0
        found.append((directory / "measurements.csv").read_bytes())
    assert found[0] == found[1]
