"""The report's tables: what came out of each arm and run, and what it cost."""

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from experiments.analysis.arms import Arm, short_name
from experiments.analysis.numbers import median
from experiments.analysis.runs import Run, Value, sort_key
from experiments.analysis.tuning import Tuned

MB = 2**20


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is shown, and what it is sorted by."""

    shown: str
    order: str


def number_cell(value: float | None, form: str = ",.4g") -> Cell:
    """A number; empty where it was not measured."""
    if value is None or math.isnan(value):
        return Cell("", "")
    return Cell(format(value, form), repr(float(value)))


def spread_cell(values: Sequence[float]) -> Cell:
    """Median, and the range over seeds."""
    middle = median(values)
    if math.isnan(middle):
        return Cell("", "")
    words = f"{middle:.3f}"
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) > 1 and min(finite) < max(finite):
        words += f" ({min(finite):.3f} to {max(finite):.3f})"
    return Cell(words, repr(middle))


def text_cell(value: Value) -> Cell:
    """A setting's value."""
    shown = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown, repr(float(value)) if number else shown)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Table:
    """Column names and rows of cells; the first column heads its row."""

    columns: list[str]
    rows: list[list[Cell]]


# Beside every loss: what it cost, and what its placement fixes; medians over runs.
COSTS = ["parameters", "tokens", "training (s)", "peak memory (MB)"]
FIXED = {"init": "init", "final_norm": "final norm"}


def cost_cells(arm: Arm | None) -> list[Cell]:
    """The cells of COSTS."""
    if arm is None:
        return [Cell("", "")] * len(COSTS)
    tokens = [history.tokens for history in arm.histories]
    return [
        number_cell(arm.median("parameters"), ",.0f"),
        number_cell(median([count for count in tokens if count is not None]), ",.0f"),
        number_cell(arm.median("training_seconds"), ",.1f"),
        number_cell(peak_memory(arm, "measured_bytes"), ",.1f"),
    ]


def fixed_cells(arms: Sequence[Arm]) -> list[list[Cell]]:
    """The cells of FIXED for each arm; empty where they are the same in all."""
    columns = []
    for name in FIXED:
        words = [
            ", ".join(
                dict.fromkeys(
                    format_summary_value(h.run.summary[name])
                    for h in arm.histories
                    if name in h.run.summary
                )
            )
            for arm in arms
        ]
        columns.append(words if len(set(words)) > 1 else [""] * len(arms))
    return [[Cell(word, word) for word in row] for row in zip(*columns, strict=True)]


def format_summary_value(value: object) -> str:
    """A value of a summary; whether something is there as a word."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def best_table(tuned: Sequence[Tuned]) -> Table:
    """Each arm at its best learning rate, the least loss first; counts are of all its runs."""
    columns = [
        "arm",
        "validation loss (nats)",
        "best lr",
        "at the grid's edge",
        "seeds there",
        "LR sensitivity",
        "runs in all",
        "diverged",
        "failed",
        "stuck",
        *COSTS,
        *FIXED.values(),
    ]
    rates = sorted({rate for one in tuned for rate in one.arms})
    fixed = fixed_cells([one.together() for one in tuned])
    rows = []
    for one, choices in zip(tuned, fixed, strict=True):
        losses = [] if one.best is None else one.losses[one.best]
        edge = "yes" if one.at_edge else ""
        every = one.together()
        rows.append(
            [
                Cell(one.label, one.label),
                spread_cell(losses),
                text_cell(one.best),
                Cell(edge, edge),
                number_cell(len(losses), "d"),
                number_cell(one.sensitivity(rates), ".3f"),
                number_cell(len(every.histories), "d"),
                number_cell(every.count("diverged"), "d"),
                number_cell(every.count("failed"), "d"),
                number_cell(every.stuck, "d"),
                *cost_cells(None if one.best is None else one.arms[one.best]),
                *choices,
            ]
        )
    rows.sort(key=lambda row: float(row[1].order or math.inf))
    return without_empty(Table(columns, rows))


def results_table(arms: Sequence[Arm]) -> Table:
    """How each arm ended."""
    columns = [
        "arm",
        "runs",
        "finished",
        "diverged",
        "failed",
        "stuck",
        "validation loss (nats)",
        "training loss (nats)",
        *COSTS,
        "spikes",
        "clipped steps",
        "last block at init",
        "last block at end",
        "last / first at end",
        *FIXED.values(),
    ]
    rows = []
    for arm, choices in zip(arms, fixed_cells(arms), strict=True):
        train = [h.run.number("train_loss") for h in arm.histories if h.run.status == "finished"]
        counts = [
            len(arm.histories),
            arm.count("finished"),
            arm.count("diverged"),
            arm.count("failed"),
            arm.stuck,
        ]
        rows.append(
            [
                Cell(arm.label, arm.label),
                *(number_cell(count, "d") for count in counts),
                spread_cell(arm.final_losses()),
                spread_cell([loss for loss in train if loss is not None]),
                *cost_cells(arm),
                number_cell(arm.median("spikes"), "g"),
                number_cell(arm.median("clip_share"), ".0%"),
                number_cell(arm.median("grad_norm", "first_step", "last_block")),
                number_cell(arm.median("grad_norm", "last_step", "last_block")),
                number_cell(median(final_ratios(arm))),
                *choices,
            ]
        )
    return without_empty(Table(columns, rows))


def final_ratios(arm: Arm) -> list[float]:
    """Last block's gradient norm over the first's, at the last logged step of each run."""
    ends = [
        [h.run.number("grad_norm", "last_step", f"{end}_block") for end in ("last", "first")]
        for h in arm.histories
    ]
    return [last / first for last, first in ends if last is not None and first]


def costs_table(arms: Sequence[Arm]) -> Table:
    """What each arm costs besides what stands beside its loss: medians over its runs."""
    columns = [
        "arm",
        "peak memory predicted (MB)",
        "peak of the process (MB)",
        "tokens per second",
        "whole run (s)",
    ]
    rows = []
    for arm in arms:
        rows.append(
            [
                Cell(arm.label, arm.label),
                number_cell(peak_memory(arm, "predicted_bytes"), ",.1f"),
                number_cell(arm.median("peak_memory_mb"), ",.1f"),
                number_cell(arm.median("tokens_per_s"), ",.0f"),
                number_cell(arm.median("seconds"), ",.1f"),
            ]
        )
    return without_empty(Table(columns, rows))


def peak_memory(arm: Arm, column: str) -> float:
    """Median over runs of the peak in memory.csv, in MB; nan where it was not measured."""
    peaks = []
    for history in arm.histories:
        if "peak" in history.memory.index and column in history.memory:
            peaks += history.memory.loc[["peak"], column].dropna().tolist()
    return median(peaks) / MB


def without_empty(table: Table) -> Table:
    """Without columns in which nothing was measured."""
    kept = [
        index
        for index in range(len(table.columns))
        if index == 0 or any(row[index].shown for row in table.rows)
    ]
    columns = [table.columns[index] for index in kept]
    return Table(columns, [[row[index] for index in kept] for row in table.rows])


@dataclass(frozen=True)
class RunRow:
    """A run in the table of runs."""

    name: str
    address: str
    cells: list[Cell]
    status: str
    reason: str
    command: str


def runs_table(
    runs: Sequence[Run], factors: Sequence[str], out: Path
) -> tuple[list[str], list[RunRow]]:
    """Column names after the run's name, and a row for each run."""
    columns = [
        "run",
        *map(short_name, factors),
        "seed",
        "status",
        "validation loss",
        "training loss",
        "spikes",
        "clipped steps",
        "last block at init",
        "last block at end",
        "seconds",
    ]
    runs = sorted(runs, key=lambda r: [sort_key(r.setting(n)) for n in [*factors, "seed"]])
    cells = [
        [
            Cell(run.directory.name, run.directory.name),
            *(text_cell(run.setting(name)) for name in factors),
            text_cell(run.seed),
            Cell(status_of(run), status_of(run)),
            Cell("infinite", "inf")
            if run.status == "diverged"
            else number_cell(run.number("val_loss"), ".3f"),
            number_cell(run.number("train_loss"), ".3f"),
            number_cell(run.number("spikes"), "g"),
            number_cell(run.number("clip_share"), ".0%"),
            number_cell(run.number("grad_norm", "first_step", "last_block")),
            number_cell(run.number("grad_norm", "last_step", "last_block")),
            number_cell(run.number("seconds"), ",.1f"),
        ]
        for run in runs
    ]
    table = without_empty(Table(columns, cells))
    rows = []
    for run, (name, *rest) in zip(runs, table.rows, strict=True):
        address = quote(os.path.relpath(run.directory, out).replace(os.sep, "/")) + "/"
        rows.append(
            RunRow(name.shown, address, rest, status_of(run), run.reason, rerun_command(run))
        )
    return table.columns[1:], rows


def status_of(run: Run) -> str:
    """How a run ended."""
    return "finished, stuck" if run.is_stuck else run.status


def rerun_command(run: Run) -> str:
    """What runs it again; empty where that was not recorded."""
    overrides = run.summary.get("overrides")
    if not isinstance(overrides, list):
        return ""
    kept = [str(item) for item in overrides if not str(item).startswith("sweep.")]
    threads = summary_part(run, "versions", "threads")
    if threads and not any(item.startswith("threads=") for item in kept):
        kept.append(f"threads={threads}")  # without which the last bits may differ
    return shlex.join(["python", "run.py", *kept])


def summary_part(run: Run, section: str, name: str) -> Any:
    """A value of a section of the summary; None where it is absent."""
    values = run.summary.get(section)
    return values.get(name) if isinstance(values, dict) else None
