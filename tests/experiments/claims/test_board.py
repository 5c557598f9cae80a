"""The board: which claims are looked at how often, on which seeds, and what is kept of it."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

import run
from conftest import Cli
from experiments.claims import CLAIMS, board, looks, registered
from experiments.claims.board import Board, Budget
from experiments.claims.claim import (
    GPT_LAW,
    OWN,
    TRAINING,
    UNREAD,
    AxisLabels,
    Claim,
    Evidence,
    Measure,
    Prediction,
    Source,
    law,
    level,
    shown,
    sign,
)
from experiments.claims.lab import Lab
from experiments.claims.looks import Looks, Seed
from experiments.claims.registered import CONFIRMATORY, EXPLORATORY, Registration, register
from experiments.claims.rule import FAILS, HOLDS, OPEN
from gpt import PLACEMENTS

PAPER = Source("A. Body 2020", "2002.00001", "Theorem 1")
calls: Counter[tuple[str, int]] = Counter()


def made(
    name: str,
    measure: Measure,
    *predictions: Prediction,
    block: str = GPT_LAW,
    source: Source = PAPER,
) -> Claim:
    return Claim(
        name=name,
        block=block,
        title=f"The claim {name}",
        source=source,
        statement="A statement.",
        setting="a setting",
        distance="same",
        predictions=predictions,
        axes=AxisLabels("y", "x", log_y=True),
        guides=(level("predicted", 1.0),),
        measure=measure,
    )


def seeded(name: str, mean: float) -> Measure:
    """A measurement of normal numbers around `mean`, with a deviation of 1."""

    def measure(lab: Lab, seed: int) -> Evidence:
        calls[name, seed] += 1
        value = mean + float(np.random.default_rng(seed).standard_normal())
        evidence = Evidence({"x": value, "beside": value**2})
        evidence.curve("arm", (1, 2), (math.exp(value), 2.0))
        return evidence

    return measure


def toy_arm(*overrides: str) -> tuple[str, ...]:
    return ("model=micro", "trainer.steps=1", "model.n_layers=1", *overrides)


def rates(lab: Lab, seed: int) -> Evidence:
    """A bisection: the second run depends on what the first gave."""
    calls["rates", seed] += 1
    first = lab.runs({"a": toy_arm("optimizer.lr=1e-3")}, seed)["a"]
    assert first.summary.status == "finished"
    second = lab.runs({"b": toy_arm(f"optimizer.lr={2 * first.summary.lr}")}, seed)["b"]
    return Evidence({"x": 2.0 + seed, "lr": float(second.summary.lr or 0)})


MADE = {
    claim.name: claim
    for claim in (
        made("clear", seeded("clear", 0.0), law("x", "around 0", -9, 9), shown("beside")),
        made("wrong", seeded("wrong", 9.0), law("x", "below 0", high=0.0)),
        made("faint", seeded("faint", 0.62), sign("x", "above 0")),
        made("none", seeded("none", 0.0), sign("x", "above 0"), source=OWN),
        made("rates", rates, sign("x", "above 0"), shown("lr"), block=TRAINING),
    )
}
THEORY = ["clear", "wrong", "faint", "none"]


@pytest.fixture(autouse=True)
def made_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made claims alone, measured in this process."""
    calls.clear()
    for name in list(CLAIMS):
        monkeypatch.delitem(CLAIMS, name)
    for name, claim in MADE.items():
        monkeypatch.setitem(CLAIMS, name, claim)
    monkeypatch.setattr(board, "workers_for", lambda *_: 1)
    monkeypatch.setattr(board, "write_page", lambda directory: None)


Measured = Callable[..., tuple[pd.DataFrame, Path]]


@pytest.fixture
def measured(cli: Cli, tmp_path: Path) -> Measured:
    """Run a board; gives claims.csv and the directory."""

    def call(*arguments: str) -> tuple[pd.DataFrame, Path]:
        kept = f"claims.runs={tmp_path}/kept"
        code, directory = cli("experiment=claims", kept, "wandb.mode=disabled", *arguments)
        assert code == 0
        return pd.read_csv(directory / "claims.csv"), directory

    return call


def verdicts(rows: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """The verdict of each claim, and its seeds."""
    first = rows.drop_duplicates("claim")
    return {row["claim"]: (row["claim_verdict"], row["seeds"]) for _, row in first.iterrows()}


def test_budgets_nest_and_no_seed_is_measured_twice(measured: Measured) -> None:
    quick, _ = measured("claims.budget=quick")
    found = verdicts(quick)
    assert found["clear"] == (HOLDS, 6)
    assert found["wrong"] == (FAILS, 6)
    assert found["none"] == (OPEN, 12)
    assert "rates" not in found
    full, directory = measured("claims.budget=full", f"claims.only='{','.join(THEORY)}'")
    again = verdicts(full)
    assert again["clear"] == found["clear"]
    assert again["faint"][0] == HOLDS
    assert again["none"] == (OPEN, 48)
    assert max(calls.values()) == 1
    beside = full.query("claim == 'clear' and number == 'beside'").iloc[0]
    assert math.isnan(beside["look"])
    assert beside["role"] == "shown"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["claims"] == {name: word for name, (word, _) in again.items()}


def test_what_is_written_can_be_computed_again(measured: Measured) -> None:
    rows, directory = measured("claims.only=faint", "claims.budget=quick")
    points = pd.read_csv(directory / "measurements.csv")
    numbers = points[points["kind"] == "number"]
    (row,) = rows.to_dict("records")
    assert list(numbers["seed"]) == list(range(row["seeds"]))
    assert row["measured"] == pytest.approx(numbers["value"].mean())
    assert row["sd"] == pytest.approx(numbers["value"].std())
    assert row["ci_low"] < row["measured"] < row["ci_high"]
    guides = points[points["kind"] == "guide"]
    assert list(guides["x"]) == [1, 2]
    assert set(guides["value"]) == {1.0}
    assert set(points["log_y"]) == {True}
    assert row["kind"] == "sign"
    assert row["margin"] == 0
    assert row["evidence"] == EXPLORATORY  # nothing is registered
    assert row["command"].startswith("python run.py experiment=claims claims.only=faint")
    assert len(row["hash"]) == 64


def test_a_board_that_was_stopped_goes_on(measured: Measured, tmp_path: Path) -> None:
    """What was measured is in the file at once; a line that was cut is measured again."""

    measured("claims.only=clear", "claims.budget=quick")
    (file,) = (tmp_path / "kept" / "looks").iterdir()
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    file.write_text("".join(lines[:3]) + lines[3][:20])
    calls.clear()
    rows, _ = measured("claims.only=clear", "claims.budget=quick")
    assert verdicts(rows) == {"clear": (HOLDS, 6)}
    assert sorted(seed for _, seed in calls) == [3, 4, 5]
    calls.clear()
    measured("claims.only=clear", "claims.budget=quick")
    assert not calls
    rows, _ = measured("claims.only=clear", "claims.budget=quick", "sweep.rerun=all")
    assert calls["clear", 0] == 1


def test_a_seed_is_kept_as_it_was_measured(tmp_path: Path) -> None:
    evidence = Evidence({"x": 1 / 3, "y": math.nan})
    evidence.curve("arm", (1.0, math.nan), (0.1, math.inf))
    seed = Seed.made_now(7, evidence, 1.5)
    again = Seed.read(seed.line())
    assert again.evidence.values["x"] == 1 / 3
    assert math.isnan(again.evidence.values["y"])
    assert again.evidence.points[0].value == 0.1
    assert dataclasses.replace(again, evidence=evidence) == seed


def test_training_runs_are_asked_for_step_by_step_and_shared(
    measured: Measured,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(board, "FOR_RUNS", ("",))  # toy sizes, which a user may not give
    twin = dataclasses.replace(MADE["rates"], name="twin")
    monkeypatch.setitem(CLAIMS, "twin", twin)
    monkeypatch.setattr(board, "LOOKS", (2,))
    for module in (looks, registered):
        monkeypatch.setattr(module, "LOOKS", (2,))
    fixed = ("model", "trainer.steps", "optimizer")
    arguments = [o for o in toy if not o.startswith((*fixed, "wandb"))]
    rows, _ = measured("claims.only='rates,twin'", *arguments)
    assert set(rows.query("number == 'lr'")["measured"]) == {0.002}
    kept = [path for path in (tmp_path / "kept").iterdir() if path.name != "looks"]
    assert len([path for path in kept if path.is_dir()]) == 4  # two rates, two seeds
    assert "4 to run" not in capsys.readouterr().out
    assert not (tmp_path / "kept" / "report.html").exists()
    seconds = rows.query("claim == 'rates'")["seconds"].iloc[0]
    assert seconds > 0


@pytest.fixture
def made_looks(tmp_path: Path) -> Callable[..., Looks]:
    """The looks at a claim with so many seeds of so many seconds each."""

    def call(name: str, seeds: int, seconds: float = 1.0) -> Looks:
        of_claim = Looks(MADE[name], tmp_path, 0, fresh=True)
        for seed in range(seeds):
            evidence = Evidence() if name == "rates" else MADE[name].measure(Lab(), seed)
            of_claim.add(Seed.made_now(seed, evidence, seconds))
        return of_claim

    return call


def board_of(chosen: Sequence[Looks], tmp_path: Path) -> Board:
    with initialize_config_dir(run.CONF, version_base="1.3"):
        settings = Lab().settings()
    return Board(chosen, settings, [], tmp_path, workers=1, threads=1)


def test_time_goes_where_it_may_decide(made_looks: Callable[..., Looks], tmp_path: Path) -> None:
    """The first look at all; then what may close at its next look, the cheapest first."""
    new, faint, none = made_looks("wrong", 0), made_looks("faint", 6), made_looks("none", 6)
    assert not none.may_close
    any_time = Budget(trains=True, looks=48, minutes=1e9)
    assert board_of([none, faint, new], tmp_path).choose(any_time) == [new]
    assert board_of([none, faint], tmp_path).choose(any_time)[-1] is (
        none if faint.may_close else faint
    )
    no_time = Budget(trains=True, looks=48, minutes=0)
    assert board_of([none, faint, new], tmp_path).choose(no_time) == [new]
    assert board_of([none, faint], tmp_path).choose(no_time) == []
    dear = made_looks("none", 6, seconds=100.0)
    ten_minutes = Budget(trains=True, looks=48, minutes=9.9)
    assert board_of([dear, none], tmp_path).choose(ten_minutes) == [none]
    decided = made_looks("clear", 6)
    assert board_of([decided], tmp_path).choose(any_time) == []
    last = Budget(trains=True, looks=6)
    assert board_of([none], tmp_path).choose(last) == []


def test_a_claim_whose_source_nobody_read_gets_no_verdict(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = dataclasses.replace(PAPER, read=UNREAD)
    monkeypatch.setitem(CLAIMS, "none", dataclasses.replace(MADE["none"], source=source))
    rows, _ = measured("claims.only='none,clear'", "claims.budget=quick")
    assert verdicts(rows)["none"] == ("source not read", 6)


def test_a_claim_that_cannot_be_measured_costs_no_other(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(lab: Lab, seed: int) -> Evidence:
        raise RuntimeError("made to fail")

    monkeypatch.setitem(CLAIMS, "wrong", dataclasses.replace(MADE["wrong"], measure=fails))
    rows, _ = measured("claims.only='wrong,clear'", "claims.budget=quick")
    assert verdicts(rows) == {"wrong": (OPEN, 0), "clear": (HOLDS, 6)}
    assert caplog.text.count("wrong was not measured: made to fail") == 1
    assert rows.query("claim == 'wrong'")["measured"].isna().all()


REGISTERED = "2026-01-01T00:00:00+00:00"


def registration(claim: Claim, **changes: object) -> Registration:
    entry = Registration(claim.hash, 1, REGISTERED, "abc")
    return dataclasses.replace(entry, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "first_seed", "stamp", "seeds"),
    [
        ({}, None, CONFIRMATORY, (1000, 1047)),
        ({}, 1000, CONFIRMATORY, (1000, 1047)),  # the same seeds, typed
        ({}, 0, EXPLORATORY, (0, 47)),
        ({"block": 3}, None, CONFIRMATORY, (1200, 1247)),
        ({"hash": "changed"}, None, EXPLORATORY, (1000, 1047)),
        ({"time": "2999-01-01T00:00:00+00:00"}, None, EXPLORATORY, (1000, 1047)),
    ],
)
def test_only_what_was_registered_before_confirms(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, object],
    first_seed: int | None,
    stamp: str,
    seeds: tuple[int, int],
) -> None:
    claim = MADE["clear"]
    entries = {claim.name: [registration(claim, **changes)]}
    monkeypatch.setattr(registered, "registrations", lambda: entries)
    of_claim = Looks(claim, tmp_path, first_seed, fresh=False)
    of_claim.add(Seed.made_now(of_claim.seeds[0], Evidence({"x": 0.0}), 1.0))
    assert of_claim.stamp == stamp
    assert (of_claim.seeds[0], of_claim.seeds[-1]) == seeds


def test_a_changed_claim_moves_to_seeds_that_nobody_has_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "registered.json"
    claims = [MADE["clear"], MADE["wrong"]]
    known: dict[str, list[Registration]] = {}
    monkeypatch.setattr(registered, "registrations", lambda: known)
    assert {e.block for e in register(claims, {}, file, "abc").values()} == {1}
    assert register(claims, {}, file, "def") == {}  # nothing changed
    changed = dataclasses.replace(MADE["clear"], predictions=(law("x", "near 0", -1, 1),))
    new = register([changed, MADE["wrong"]], {"clear": "holds (n = 6)"}, file, "def")
    assert set(new) == {"clear"}
    assert new["clear"].seeds[0] == 1100
    content = json.loads(file.read_text())
    assert [entry["result"] for entry in content["clear"]] == ["holds (n = 6)", ""]
    assert content["wrong"][0]["commit"] == "abc"


def test_the_file_of_registrations_is_sound() -> None:
    """Blocks are used once, in their order, and every hash is one."""
    for name, entries in registered.registrations().items():
        assert [entry.block for entry in entries] == list(range(1, len(entries) + 1)), name
        assert all(len(entry.hash) == 64 for entry in entries), name
        assert sorted(entry.time for entry in entries) == [entry.time for entry in entries]


def test_a_hash_sees_what_is_registered_and_no_more() -> None:
    claim = MADE["clear"]
    assert claim.hash == dataclasses.replace(claim, title="Another", meaning="Much").hash
    assert claim.hash != dataclasses.replace(claim, setting="another").hash
    margin = (*claim.predictions[:1], sign("beside", "", margin=0.1))
    assert claim.hash != dataclasses.replace(claim, predictions=margin).hash
    assert claim.hash != dataclasses.replace(claim, measure=rates).hash
    before, after, changed = (
        dataclasses.replace(claim, measure=f) for f in (remarked, remarked_later, remarked_twice)
    )
    assert before.hash == after.hash
    assert before.hash != changed.hash


def remark(text: str) -> Callable[[Measure], Measure]:
    """A decorator that holds what is written after a measurement, as `claim` does."""
    return lambda measure: measure


@remark("")
def remarked(lab: Lab, seed: int) -> Evidence:
    """Before."""
    return Evidence({"x": 1.0})


@remark("It came out.")
def remarked_later(lab: Lab, seed: int) -> Evidence:
    """After."""
    return Evidence({"x": 1.0})


@remark("")
def remarked_twice(lab: Lab, seed: int) -> Evidence:
    """Before."""
    return Evidence({"x": 2.0})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("claims.budget=quik",), "claims.budget='quik' is not valid: did you mean 'quick'?"),
        (("claims.only=cleer",), "claims.only='cleer' is not valid: did you mean 'clear'"),
        (("claims.only=rates", "claims.budget=quick"), "rates needs training: claims.budget="),
        (("claims.first_seed=-1",), "claims.first_seed=-1 is not valid"),
        (("seed=3",), "seed='3' is not valid: each claim has its own seeds"),
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
