"""Claims: the rule, each measurement at small budgets, what is written, and going on."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from scipy import stats

import run
from conftest import Cli
from experiments.claims import CLAIMS, lab, measuring
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
