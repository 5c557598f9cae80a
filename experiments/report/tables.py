"""The report's tables: results and costs of each arm and each run."""

import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from experiments.analysis.arms import Arm, short_name
from experiments.analysis.histories import BITS, NATS
from experiments.analysis.numbers import loss_text, median, spread_text
from experiments.analysis.runs import LOSS_ROSE, NOT_FINITE, Run, Value, sort_key
from experiments.analysis.tuning import TunedArm

MB = 2**20
MOST_WRITTEN_OUT = 1e15  # larger numbers are shown with an exponent
DIVERGENCES = (NOT_FINITE, LOSS_ROSE)  # columns of counts


@dataclass(frozen=True)
class Cell:
    """A table's cell: the text that is shown, and the key that the page sorts by."""

    shown: str
    order: str


def number_cell(value: float | None, form: str = ",.4g") -> Cell:
    """A number; empty where it was not measured."""
    if value is None or math.isnan(value):
        return Cell("", "")
    if math.isinf(value):
        return Cell("infinite", repr(float(value)))
    if abs(value) >= MOST_WRITTEN_OUT:
        form = ".4g"
    return Cell(format(value, form), repr(float(value)))


def loss_cell(value: float | None) -> Cell:
    """A loss with three digits behind the point."""
    if value is None or math.isnan(value):
        return Cell("", "")
    return Cell(loss_text(value), repr(value))


def spread_cell(values: Sequence[float]) -> Cell:
    """The median and the range of values over seeds."""
    centre = median(values)
    if math.isnan(centre):
        return Cell("", "")
    return Cell(spread_text(values), repr(centre))


def text_cell(value: Value) -> Cell:
    """A setting's value."""
    text = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text, repr(float(value)) if is_number else text)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Table:
    """Column names and rows of cells; the first cell of a row is its heading."""

    columns: list[str]
    rows: list[list[Cell]]


# Columns beside every loss: its costs, as medians over runs, and what its placement chooses.
COSTS = ["parameters", "tokens", "training (s)", "peak memory (MB)"]
FIXED = ["init", "final norm"]


def cost_cells(arm: Arm | None) -> list[Cell]:
    """The cells of COSTS."""
    if arm is None:
        return [Cell("", "")] * len(COSTS)
    tokens = [history.tokens for history in arm.histories]
    return [
        number_cell(arm.median(lambda s: s.parameters), ",.0f"),
        number_cell(median([count for count in tokens if count is not None]), ",.0f"),
        number_cell(arm.median(lambda s: s.training_seconds), ",.1f"),
        number_cell(peak_memory(arm, "measured_bytes"), ",.1f"),
    ]


def fixed_cells(arms: Sequence[Arm]) -> list[list[Cell]]:
    """The cells of FIXED for each arm; empty where they are the same in all."""
    columns = [
        [join_distinct(h.run.summary.init for h in arm.histories) for arm in arms],
        [join_distinct(yes_or_no(h.run.summary.final_norm) for h in arm.histories) for arm in arms],
    ]
    shown = [texts if len(set(texts)) > 1 else [""] * len(arms) for texts in columns]
    return [[Cell(text, text) for text in row] for row in zip(*shown, strict=True)]


def join_distinct(texts: Iterable[str | None]) -> str:
    """The different texts with commas, without what was not recorded."""
    return ", ".join(dict.fromkeys(text for text in texts if text is not None))


def yes_or_no(value: bool | None) -> str | None:
    """A boolean as yes or no; None where it was not recorded."""
    return None if value is None else ("no", "yes")[value]


def best_table(tuned_arms: Sequence[TunedArm]) -> Table:
    """Each arm at its best learning rate, the least loss first; counts are of all its runs."""
    unit = next((tuned.all_runs().unit for tuned in tuned_arms), NATS)
    columns = [
        "arm",
        f"validation loss ({unit.name})",
        "best lr",
        "at the grid's edge",
        "seeds there",
        "LR sensitivity",
        "runs in all",
        *DIVERGENCES,
        "failed",
        "stuck",
        *COSTS,
        *FIXED,
    ]
    rates = sorted({rate for tuned in tuned_arms for rate in tuned.arms})
    fixed = fixed_cells([tuned.all_runs() for tuned in tuned_arms])
    rows = []
    for tuned, choices in zip(tuned_arms, fixed, strict=True):
        losses = [] if tuned.best is None else tuned.losses[tuned.best]
        edge = "yes" if tuned.at_edge else ""
        all_runs = tuned.all_runs()
        rows.append(
            [
                Cell(tuned.label, tuned.label),
                spread_cell(losses),
                text_cell(tuned.best),
                Cell(edge, edge),
                number_cell(len(losses), "d"),
                number_cell(tuned.sensitivity(rates), ".3f"),
                number_cell(len(all_runs.histories), "d"),
                *(number_cell(all_runs.diverged(how), "d") for how in DIVERGENCES),
                number_cell(all_runs.count("failed"), "d"),
                number_cell(all_runs.stuck, "d"),
                *cost_cells(None if tuned.best is None else tuned.arms[tuned.best]),
                *choices,
            ]
        )
    rows.sort(key=lambda row: float(row[1].order or math.inf))
    return without_empty(Table(columns, rows))


def results_table(arms: Sequence[Arm]) -> Table:
    """The results of each arm."""
    columns = [
        "arm",
        "runs",
        "finished",
        *DIVERGENCES,
        "failed",
        "stuck",
        "validation loss (nats)",
        "bits per byte",
        "training loss (nats)",
        *COSTS,
        "spikes",
        "clipped steps",
        "last block at init",
        "last block at end",
        "last / first at end",
        *FIXED,
    ]
    rows = []
    runs = [history.run for arm in arms for history in arm.histories]
    has_bits = any(run.summary.val_bits_per_byte is not None for run in runs)
    for arm, choices in zip(arms, fixed_cells(arms), strict=True):
        train = [h.run.summary.train_loss for h in arm.histories if h.run.status == "finished"]
        counts = [
            len(arm.histories),
            arm.count("finished"),
            *(arm.diverged(how) for how in DIVERGENCES),
            arm.count("failed"),
            arm.stuck,
        ]
        rows.append(
            [
                Cell(arm.label, arm.label),
                *(number_cell(count, "d") for count in counts),
                spread_cell(arm.final_losses(NATS)),
                spread_cell(arm.final_losses(BITS) if has_bits else []),
                spread_cell([loss for loss in train if loss is not None]),
                *cost_cells(arm),
                number_cell(arm.median(lambda s: s.spikes), "g"),
                number_cell(arm.median(lambda s: s.clip_share), ".0%"),
                number_cell(arm.median(lambda s: s.grad_norm.first_step.last_block)),
                number_cell(arm.median(lambda s: s.grad_norm.last_step.last_block)),
                number_cell(median(final_ratios(arm))),
                *choices,
            ]
        )
    return without_empty(Table(columns, rows))


def final_ratios(arm: Arm) -> list[float]:
    """Last block's gradient norm over the first's, at the last logged step of each run."""
    ends = [history.run.summary.grad_norm.last_step for history in arm.histories]
    return [
        end.last_block / end.first_block
        for end in ends
        if end.last_block is not None and end.first_block
    ]


def costs_table(arms: Sequence[Arm]) -> Table:
    """The costs of each arm that the table of results does not have: medians over its runs."""
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
                number_cell(arm.median(lambda s: s.peak_memory_mb), ",.1f"),
                number_cell(arm.median(lambda s: s.tokens_per_s), ",.0f"),
                number_cell(arm.median(lambda s: s.seconds), ",.1f"),
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
    """The table without columns in which nothing was measured."""
    filled = [
        index
        for index in range(len(table.columns))
        if index == 0 or any(row[index].shown for row in table.rows)
    ]
    columns = [table.columns[index] for index in filled]
    return Table(columns, [[row[index] for index in filled] for row in table.rows])


@dataclass(frozen=True)
class RunRow:
    """A run in the table of runs."""

    name: str
    address: str
    cells: list[Cell]
    is_bad: bool
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
        "bits per byte",
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
            if run.divergence == NOT_FINITE
            else loss_cell(run.summary.val_loss),
            loss_cell(run.summary.val_bits_per_byte),
            loss_cell(run.summary.train_loss),
            number_cell(run.summary.spikes, "g"),
            number_cell(run.summary.clip_share, ".0%"),
            number_cell(run.summary.grad_norm.first_step.last_block),
            number_cell(run.summary.grad_norm.last_step.last_block),
            number_cell(run.summary.seconds, ",.1f"),
        ]
        for run in runs
    ]
    table = without_empty(Table(columns, cells))
    rows = []
    for run, (name, *rest) in zip(runs, table.rows, strict=True):
        address = quote(os.path.relpath(run.directory, out).replace(os.sep, "/")) + "/"
        rows.append(RunRow(name.shown, address, rest, is_bad(run), run.reason, rerun_command(run)))
    return table.columns[1:], rows


def is_bad(run: Run) -> bool:
    """Whether a run ended without having learned anything."""
    return run.is_stuck or run.status in ("failed", "diverged")


def status_of(run: Run) -> str:
    """How a run ended, and whether it is stuck."""
    return "finished, stuck" if run.is_stuck else run.outcome


def rerun_command(run: Run) -> str:
    """The command that repeats a run; empty where its overrides were not recorded."""
    overrides = run.summary.overrides
    if overrides is None:
        return ""
    arguments = [item for item in overrides if not item.startswith("sweep.")]
    threads = (run.summary.versions or {}).get("threads")
    if threads and not any(item.startswith("threads=") for item in arguments):
        arguments.append(f"threads={threads}")  # with another number the last bits can differ
    return shlex.join(["python", "run.py", *arguments])
