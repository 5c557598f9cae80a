"""Boards of claims whose measurements are made up, so that every verdict is known."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from experiments.claims import board
from experiments.claims.claim import (
    GPT_LAW,
    OWN,
    THEOREM,
    TRAINING,
    UNREAD,
    AxisLabels,
    Claim,
    Evidence,
    Point,
    Prediction,
    Source,
    band,
    control,
    law,
    level,
    paired_rate,
    power,
    rate,
    shown,
    sign,
)
from experiments.claims.lab import Lab
from experiments.claims.looks import Looks, Seed
from experiments.records.sink import format_cell
from experiments.records.summary import CorpusSummary, Summary

HOSTILE = "<script>alert(1)</script> & | \"'"
PAPER = Source("A. Body et al. 2020", "2001.00001", "Theorem 1")
XS = (2, 4, 8, 16)


def around(mean: float, sd: float, count: int) -> list[float]:
    """Numbers of exactly this mean and deviation, the same at every look."""
    raw = np.resize([-1.0, 1.0], count)
    return list(mean + sd * raw / raw.std(ddof=1))


def shares(ones: int, count: int) -> list[float]:
    return [1.0] * ones + [0.0] * (count - ones)


def unmeasured(lab: Lab, seed: int) -> Evidence:
    """Stands for a measurement; nobody calls it."""
    raise NotImplementedError


def made(
    name: str,
    title: str,
    values: Mapping[Prediction, Sequence[float]],
    *,
    block: str = THEOREM,
    source: Source = PAPER,
    distance: str = "same",
    curves: Mapping[str, float] | None = None,
    **more: Any,
) -> tuple[Claim, dict[str, Sequence[float]], Mapping[str, float]]:
    """A claim, the numbers of its predictions seed by seed, and the exponents of its arms."""
    log = bool(curves)
    fields = {
        "statement": f"The statement of {name}.",
        "setting": "width 64",
        "axes": AxisLabels("gradient norm", "blocks L" if log else "", log_x=log, log_y=log),
        "guides": tuple(power(f"slope {p:g}", p, arm) for arm, p in (curves or {}).items()),
        "meaning": f"What follows from {name}.",
        "measure": unmeasured,
    }
    claim = Claim(
        name=name,
        block=block,
        title=title,
        source=source,
        distance=distance,
        predictions=tuple(values),
        **fields | more,
    )
    return claim, {p.name: v for p, v in values.items()}, curves or {}


def looks_of(
    claim: Claim, numbers: Mapping[str, Sequence[float]], curves: Mapping[str, float]
) -> Looks:
    """Every number measured, and points: power laws, or one value of each of two arms."""
    looks = Looks(claim, Path("unwritten"), 0, fresh=True)
    for seed in range(min(map(len, numbers.values()))):
        noise = 1 + 0.1 * math.sin(seed)
        points = [
            Point(arm, float(x), noise * (x / XS[0]) ** exponent)
            for arm, exponent in curves.items()
            for x in XS
        ]
        points = points or [Point("one", math.nan, noise), Point("other $", math.nan, 2 * noise)]
        evidence = Evidence({name: v[seed] for name, v in numbers.items()}, points)
        looks.measured[seed] = Seed(seed, evidence, 0.5, "2026-01-01T00:00:00+00:00")
    return looks


def every_verdict() -> list[Looks]:
    """Eleven claims: of each verdict one at least, of every kind, in every block."""
    slope = law("slope in L", "0, within 0.05", -0.05, 0.05)
    fails = law("loss gained (nats)", "no worse by 0.05", low=-0.05)
    grows = control(sign("no_norm: slope", "without norms it grows", 1.0))
    cases = [
        made(
            "law_holds",
            "A law that holds",
            {slope: around(0.01, 0.01, 12), grows: around(6, 0.1, 12)},
            curves={"post_ln": 0.0, "pre_ln": -0.5},
        ),
        made(
            "closes",
            f"A claim with {HOSTILE} in its title",
            {law("number", "1, within 0.5", 0.5, 1.5): around(1.4, 0.2, 12)},
            guides=(level("predicted", 1.0), band("allowed", lambda x: 0.5, lambda x: 1.5)),
            remark=f"Remarks may hold {HOSTILE}, too.",
        ),
        made(
            "never_closes",
            "A claim that 48 seeds would not decide",
            {sign("effect", "above 0"): around(0.0, 1.0, 6)},
        ),
        made(
            "law_fails",
            "A law that does not hold in a GPT",
            {slope: around(0.24, 0.02, 6), shown("beside"): around(3, 1, 6)},
            block=GPT_LAW,
            distance="other architecture",
            curves={"post_ln": 0.24},
        ),
        made(
            "opposite",
            "An effect that goes the other way",
            {sign("effect", "above 0", 0.1): around(-0.5, 0.1, 6)},
            block=GPT_LAW,
            distance="scaled down",
        ),
        made(
            "no_effect",
            "An effect too small to matter",
            {sign("effect", "above 0", 0.1): around(0.01, 0.02, 6)},
            block=GPT_LAW,
        ),
        made(
            "rates_hold",
            "More runs learn with warm-up",
            {
                paired_rate("warm-up alone learns", "of seeds that differ, more than half"): [
                    *([1.0] * 11),
                    0.0,
                ],
                rate("pre_ln: share that learns", "at least 0.5", low=0.5): shares(12, 12),
                fails: around(0.02, 0.01, 12),
            },
            block=TRAINING,
            distance="scaled down",
        ),
        made(
            "invalid",
            "A test that shows nothing",
            {slope: around(0.0, 0.01, 6), grows: around(0.0, 0.1, 6)},
            block=TRAINING,
        ),
        made(
            "unread",
            "A claim of a paper that nobody could open",
            {slope: around(0.0, 0.01, 6)},
            block=TRAINING,
            source=Source("C. Losed 2021", "2101.00001", read=UNREAD),
        ),
        made("own_holds", "A finding of our own", {slope: around(0.0, 0.01, 6)}, source=OWN),
        made(
            "own_fails",
            "A finding that was none",
            {slope: around(0.3, 0.01, 6)},
            source=OWN,
            block=GPT_LAW,
        ),
    ]
    return [looks_of(*case) for case in cases]


# Claims that the made board shows as registered.
REGISTERED = {"law_holds", "law_fails"}


def write_board(directory: Path, boards: Sequence[Looks] | None = None) -> Path:
    """claims.csv, measurements.csv and summary.json as a run leaves them; gives the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    every = every_verdict() if boards is None else boards
    settings: Any = SimpleNamespace(claims=SimpleNamespace(first_seed=None))
    rows = [row for looks in every for row in board.rows_of(looks, settings)]
    for row in rows:
        if row["claim"] in REGISTERED:
            row |= {
                "evidence": "confirmatory",
                "registered": "2026-01-01T00:00:00+00:00",
                "registered_commit": "abc123",
                "earlier": "2025-12-01: open after 48 seeds",
            }
    write_table(directory / "claims.csv", rows)
    points = [row for looks in every for row in board.point_rows(looks)]
    if points:
        write_table(directory / "measurements.csv", points)
    summary = Summary(status="finished", runner="claims", budget="full", device="cpu")
    summary.corpus = CorpusSummary("kjv", "0" * 64)
    summary.versions = {"torch": "2.13.0", "normscope": "0.6.0"}
    summary.write(directory)
    return directory


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table as experiments.records.sinks writes it."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows([format_cell(value) for value in row.values()] for row in rows)
