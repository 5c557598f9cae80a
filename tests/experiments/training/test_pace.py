"""Whether a run that has become slow is found, once, and one slow row is not."""

import itertools
import logging
from collections.abc import Iterable

import pytest

from conftest import Cli
from experiments.training import tally
from experiments.training.pace import ROWS, SECONDS, Pace


def slumps(rows: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is said of rows of speed and seconds."""
    pace = Pace()
    return [found for row in rows if (found := pace.slump(*row))]


def test_a_run_that_slows_down_to_less_than_a_third_is_named_once() -> None:
    usual, slow = [(6000.0, 0.1)] * 500, [(1999.0, 0.3)] * 500
    assert slumps([*usual, *slow, *usual, *slow]) == [(6000.0, 1999.0)]
    assert slumps([*usual, *[(2000.0, 0.3)] * 500]) == []


def test_one_slow_row_says_nothing() -> None:
    """As of a step in which a laptop was suspended for a day, and of the first, which loads."""
    usual = [(6000.0, 0.1)] * 500
    assert slumps([(1.0, 100.0), *usual, (0.001, 86400.0), *usual]) == []


def test_rows_that_take_long_are_judged_by_their_number() -> None:
    usual, slow = [(600.0, 20.0)] * ROWS, [(100.0, 120.0)] * ROWS
    assert slumps([*usual, *slow]) == [(600.0, 100.0)]
    assert slumps([*usual, *slow[1:]]) == []


def test_rows_that_take_a_moment_are_judged_by_their_time() -> None:
    """A millisecond's step is slowed by anything: what counts is whether it lasts."""
    usual, slow = [(6000.0, 0.001)] * 20_000, [(100.0, 0.06)] * 100
    assert slumps([*usual, *slow]) == []
    assert len(slow) * slow[0][1] < SECONDS


def test_a_run_that_is_slow_from_the_start_has_nothing_to_compare_with() -> None:
    assert slumps([(10.0, 1.0)] * 1000) == []


def test_a_run_says_that_it_has_become_slow(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a clock on which each of its readings takes longer from the 100th on."""
    readings = itertools.count()
    monkeypatch.setattr(
        tally.time, "perf_counter", lambda: (n := next(readings)) + 9.0 * max(0, n - 100)
    )
    few = ("trainer.steps=60", "trainer.eval_every=60", "trainer.probe_every=60")
    code, _ = cli(*toy, *few, "trainer.log_every=1", "trainer.end_probes=false")
    assert code == 0
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    said = [text for text in said if "slowed" in text]
    assert len(said) == 1
    assert "from 16 to 2 tokens/s" in said[0]  # two windows of 16 tokens in two readings' time
    assert "threads=1" in said[0]
