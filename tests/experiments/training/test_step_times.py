"""What a step takes beside one of Pre-LN: the arithmetic, what is read again, what fails."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from configs import settings_of
from experiments.analysis.step_times import CSV, StepTime, read_step_times
from experiments.machine.turns import Step, Timed
from experiments.settings.schema import Settings
from experiments.training import step_times as timing
from experiments.training.step_times import measured, step_of, step_times

NAMES = ("pre_ln", "post_ln", "sandwich")
CPU = torch.device("cpu")


def models(*overrides: str) -> dict[str, Settings]:
    toy = ("model=micro", "model.emb_dim=8", "model.n_layers=2", "tokenizer=char", "device=cpu")
    return {name: settings_of(*toy, f"norm={name}", *overrides) for name in NAMES}


def timed(models: Mapping[str, Settings], folder: Path, rounds: int = 4) -> list[StepTime]:
    return step_times(models, rounds, folder, lambda done, note="": None)


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The placements that were measured: each found to take a twentieth longer."""
    found: list[str] = []

    def instead(pair: Mapping[str, Settings], rounds: int) -> dict[str, float]:
        assert next(iter(pair)) == "pre_ln"
        found.append([*pair][1])
        return {"ratio": 1.05, "ratio_low": 1.0, "ratio_high": 1.1, "seconds": 0.5}

    monkeypatch.setattr(timing, "measured", instead)
    return found


def test_each_is_measured_beside_pre_ln_once(tmp_path: Path, pairs: list[str]) -> None:
    first = timed(models(), tmp_path)
    assert pairs == ["post_ln", "sandwich"]
    assert [(time.placement, time.text) for time in first] == [
        ("post_ln", "1.05 (1.00 to 1.10)"),
        ("sandwich", "1.05 (1.00 to 1.10)"),
    ]
    assert timed(models(), tmp_path) == first == read_step_times(tmp_path)
    assert len(pairs) == 2
    assert timed(models("optimizer.lr=0.5", "seed=3", "trainer.steps=7"), tmp_path) == first
    assert len(pairs) == 2


@pytest.mark.parametrize("change", ["model.n_layers=3", "trainer.clip=1", "norm.kind=rms_norm"])
def test_other_steps_are_measured_anew(tmp_path: Path, pairs: list[str], change: str) -> None:
    timed(models(), tmp_path)
    timed(models(change), tmp_path)
    timed(models(), tmp_path, rounds=5)
    assert pairs == 3 * ["post_ln", "sandwich"]
    assert len(read_step_times(tmp_path)) == 6


def test_a_torn_line_is_measured_again(tmp_path: Path, pairs: list[str]) -> None:
    timed(models(), tmp_path)
    path = tmp_path / CSV
    path.write_text(path.read_text()[:-20])
    assert [time.placement for time in timed(models(), tmp_path)] == ["post_ln", "sandwich"]
    assert pairs == ["post_ln", "sandwich", "sandwich"]


def test_the_ratio_is_that_of_the_steps_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is ten times slower in one round changes no ratio."""

    def take(steps: Mapping[str, Step], found: Mapping[str, Timed], *others: Any) -> None:
        seconds: dict[str, Sequence[float]] = {"pre_ln": (1, 10, 2), "post_ln": (2, 30, 2)}
        for name in steps:
            found[name].seconds.extend(seconds[name])

    monkeypatch.setattr(timing, "take_turns", take)
    pair = {name: models()[name] for name in ("pre_ln", "post_ln")}
    assert measured(pair, 3) == {"ratio": 2, "ratio_low": 1.5, "ratio_high": 2.5, "seconds": 2}


def test_a_step_that_raises_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(settings: Settings, device: torch.device) -> Step:
        def step(number: int) -> None:
            if settings.norm.placement == "post_ln":
                raise MemoryError("no more")

        return step

    monkeypatch.setattr(timing, "step_of", broken)
    with caplog.at_level(logging.WARNING):
        assert [time.placement for time in timed(models(), tmp_path)] == ["sandwich"]
    assert "a step of norm=post_ln could not be timed: MemoryError: no more" in caplog.text


def test_what_is_timed_is_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves every parameter, and leaves no gradient for the next one to add to."""
    made = []

    def kept(*arguments: Any) -> Any:
        made.append(build(*arguments))
        return made[-1]

    build = timing.build_model
    monkeypatch.setattr(timing, "build_model", kept)
    step = step_of(models("trainer.clip=1")["post_ln"], CPU)
    before = [parameter.clone() for parameter in made[0].parameters()]
    step(0)
    after = list(made[0].parameters())
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert all(moved)
    assert all(parameter.grad is None for parameter in after)
