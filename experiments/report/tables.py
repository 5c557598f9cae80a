"""The report's tables: results and costs of each arm and each run."""

import dataclasses
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from experiments.analysis.arms import Arm
from experiments.analysis.histories import BITS, NATS, History
from experiments.analysis.numbers import loss_text, median, spread_text
from experiments.analysis.runs import LOSS_ROSE, NOT_FINITE, PLACEMENT, Run, Value, sort_key
from experiments.analysis.tuning import TunedArm
from experiments.analysis.words import value_words
from experiments.report.palette import Look

MIB = 2**20
MOST_WRITTEN_OUT = 1e15  # larger numbers are shown with an exponent


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
    """The median and the range of values over seeds; two values as they are."""
    centre = median(values)
    if math.isnan(centre):
        return Cell("", "")
    if len(values) == 2:
        return Cell(" and ".join(loss_text(value) for value in sorted(values)), repr(centre))
    return Cell(spread_text(values), repr(centre))


def text_cell(value: Value) -> Cell:
    """A setting's value."""
    text = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text, repr(float(value)) if is_number else text)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Table:
    """Column names and rows of cells; the first cell of a row is its heading.

    main  the columns that are shown at first, beside the first one; the others are on demand
    same  names and values of what is the same in every row, and so is no column
    looks how each row's arm is drawn; empty where rows are no arms
    """

    columns: list[str]
    rows: list[list[Cell]]
    main: frozenset[str] = frozenset()
    same: tuple[tuple[str, str], ...] = ()
    looks: tuple[Look, ...] = ()

    def is_more(self, column: str) -> bool:
        """Whether a column is shown on demand alone."""
        return bool(self.main) and column != self.columns[0] and column not in self.main

    @property
    def has_more(self) -> bool:
        return any(map(self.is_more, self.columns))

    @property
    def same_text(self) -> str:
        """What is the same in every row, in words."""
        return "; ".join(f"{name} {value}" for name, value in self.same)


# What a placement chooses beside the norms.
FIXED = ["initialisation", "final norm"]


def fixed_cells(arm: Arm) -> list[Cell]:
    """The cells of FIXED."""
    summaries = [history.run.summary for history in arm.histories]
    texts = [
        join_distinct(summary.init for summary in summaries),
        join_distinct(yes_or_no(summary.final_norm) for summary in summaries),
    ]
    return [Cell(text, text) for text in texts]


def join_distinct(texts: Iterable[str | None]) -> str:
    """The different texts with commas, without what was not recorded."""
    return ", ".join(dict.fromkeys(text for text in texts if text is not None))


def yes_or_no(value: bool | None) -> str | None:
    """A boolean as yes or no; None where it was not recorded."""
    return None if value is None else ("no", "yes")[value]


LEARNED = "learned"
NORMS_AT_START = (
    "first block's gradient norm, at initialisation",
    "last block's gradient norm, at initialisation",
)
BAD_ENDS = (NOT_FINITE, LOSS_ROSE, "failed", "stuck")  # columns of counts


def learned_cell(arm: Arm, is_alone: bool = False) -> Cell:
    """How many of an arm's runs learned, of the only run whether; empty where none has a loss."""
    text = arm.learned_text
    if not text:
        return Cell("", "")
    share = arm.learned / len(arm.histories)
    return Cell(("yes" if arm.learned else "no") if is_alone else text, repr(share))


def bad_ends(arm: Arm) -> list[Cell]:
    """The cells of BAD_ENDS; empty where there was none."""
    counts = (
        arm.diverged(NOT_FINITE),
        arm.diverged(LOSS_ROSE),
        arm.count("failed"),
        arm.stuck,
    )
    return [number_cell(count or None, "d") for count in counts]


def best_table(tuned_arms: Sequence[TunedArm], looks: Sequence[Look] = ()) -> Table:
    """Each arm at its best learning rate, the lowest loss first; counts are of all its runs."""
    unit = next((tuned.all_runs().unit for tuned in tuned_arms), NATS)
    loss = f"validation loss ({unit.name})"
    columns = [
        "arm",
        loss,
        "best learning rate",
        LEARNED,
        "seeds at the best rate",
        "LR sensitivity",
        *BAD_ENDS,
        *FIXED,
    ]
    rates = sorted({rate for tuned in tuned_arms for rate in tuned.arms})
    rows = []
    for tuned in tuned_arms:
        losses = [] if tuned.best is None else tuned.arms[tuned.best].final_losses()
        all_runs = tuned.all_runs()
        rows.append(
            [
                Cell(tuned.label, tuned.label),
                spread_cell(losses),
                rate_cell(tuned),
                learned_cell(all_runs),
                number_cell(len(losses), "d"),
                number_cell(tuned.sensitivity(rates), ".3f"),
                *bad_ends(all_runs),
                *fixed_cells(all_runs),
            ]
        )
    order = sorted(range(len(rows)), key=lambda index: float(rows[index][1].order or math.inf))
    main = frozenset((loss, "best learning rate", LEARNED))
    looks = [looks[index] for index in order if looks]
    return compact(Table(columns, [rows[index] for index in order], main, looks=tuple(looks)))


def rate_cell(tuned: TunedArm) -> Cell:
    """The best learning rate, and whether it is at the edge of those that were tried."""
    cell = text_cell(tuned.best)
    return dataclasses.replace(cell, shown=f"{cell.shown} (edge)") if tuned.at_edge else cell


def results_table(arms: Sequence[Arm], looks: Sequence[Look] = ()) -> Table:
    """What each arm came to; without losses, the gradients at initialisation."""
    loss = "bits per byte" if any(arm.unit is BITS for arm in arms) else "validation loss (nats)"
    columns = [
        "arm",
        "validation loss (nats)",
        "bits per byte",
        LEARNED,
        *BAD_ENDS,
        "training loss (nats)",
        "spikes",
        "clipped steps",
        *NORMS_AT_START,
        "first block's gradient norm, at the end",
        "last block's gradient norm, at the end",
        "last over first, at the end",
        *FIXED,
    ]
    has_bits = any(h.run.summary.val_bits_per_byte is not None for a in arms for h in a.histories)
    is_alone = sum(len(arm.histories) for arm in arms) == 1
    rows = []
    for arm in arms:
        train = [h.run.summary.train_loss for h in arm.histories if h.run.status == "finished"]
        rows.append(
            [
                Cell(arm.label, arm.label),
                spread_cell(arm.final_losses(NATS)),
                spread_cell(arm.final_losses(BITS) if has_bits else []),
                learned_cell(arm, is_alone),
                *bad_ends(arm),
                spread_cell([loss for loss in train if loss is not None]),
                number_cell(arm.median(lambda s: s.spikes), "g"),
                number_cell(arm.median(lambda s: s.clip_share), ".0%"),
                number_cell(arm.median(lambda s: s.grad_norm.first_step.first_block)),
                number_cell(arm.median(lambda s: s.grad_norm.first_step.last_block)),
                number_cell(arm.median(lambda s: s.grad_norm.last_step.first_block)),
                number_cell(arm.median(lambda s: s.grad_norm.last_step.last_block)),
                number_cell(final_ratio(arm)),
                *fixed_cells(arm),
            ]
        )
    main = (loss, LEARNED) if any(arm.final_losses() for arm in arms) else NORMS_AT_START
    return compact(Table(columns, rows, frozenset(main), looks=tuple(looks)))


def final_ratio(arm: Arm) -> float | None:
    """Last block's gradient norm over the first's, of the medians that the table shows."""
    first = arm.median(lambda s: s.grad_norm.last_step.first_block)
    return arm.median(lambda s: s.grad_norm.last_step.last_block) / first if first else None


def costs_table(arms: Sequence[Arm], looks: Sequence[Look] = ()) -> Table:
    """What each arm cost: medians over its runs.

    The measured peak of memory is in memory.csv alone: of the jobs of one process, the first one's
    holds what the libraries allocate once.
    """
    columns = [
        "arm",
        "parameters",
        "tokens",
        "peak memory of a step, predicted (MiB)",
        "tokens per second",
        "training (s)",
        "whole run (s)",
    ]
    rows = []
    for arm in arms:
        tokens = [history.tokens for history in arm.histories]
        rows.append(
            [
                Cell(arm.label, arm.label),
                number_cell(arm.median(lambda s: s.parameters), ",.0f"),
                number_cell(median([count for count in tokens if count is not None]), ",.0f"),
                number_cell(predicted_peak(arm), ",.1f"),
                number_cell(arm.median(lambda s: s.tokens_per_s), ",.0f"),
                number_cell(arm.median(lambda s: s.training_seconds), ",.1f"),
                number_cell(arm.median(lambda s: s.seconds), ",.1f"),
            ]
        )
    return compact(Table(columns, rows, looks=tuple(looks)))


def predicted_peak(arm: Arm) -> float:
    """Median over runs of a training step's peak as predicted in memory.csv, in MiB."""
    return median(
        [peak for history in arm.histories if (peak := predicted_mib(history)) is not None]
    )


def predicted_mib(history: History) -> float | None:
    """Peak of a training step as predicted without running it, in MiB; None where it was not."""
    if "peak" not in history.memory.index:
        return None
    return float(history.memory.loc["peak", "predicted_bytes"]) / MIB  # type: ignore[arg-type]


def compact(table: Table, keep: frozenset[str] | None = None) -> Table:
    """The table without columns that say nothing.

    That is those in which nothing was measured, and of several rows those that count nothing or
    have one value, which becomes a note.

    keep  columns that stay even so; None: the main ones
    """
    columns, same = [0], []
    for index, name in enumerate(table.columns[1:], start=1):
        values = [row[index].shown for row in table.rows]
        is_kept = name in (table.main if keep is None else keep)
        if len(table.rows) > 1 and len(set(values)) == 1 and not is_kept:
            if values[0] not in ("", "0"):
                same.append((name, values[0]))
        elif any(values):
            columns.append(index)
    return dataclasses.replace(
        table,
        columns=[table.columns[index] for index in columns],
        rows=[[row[index] for index in columns] for row in table.rows],
        same=tuple(same),
    )


@dataclass(frozen=True)
class RunRow:
    """What the table of runs shows of a run beside its cells.

    address  of its directory, from the page
    """

    address: str
    is_bad: bool
    reason: str
    command: str


def runs_table(
    arms: Sequence[Arm], looks: Sequence[Look], factors: Sequence[str], out: Path
) -> tuple[Table, list[RunRow]]:
    """A row for each run, named by what distinguishes it; the runs of an arm by their seeds."""
    loss = "validation loss"
    columns = [
        "run",
        "status",
        loss,
        "bits per byte",
        "training loss",
        "spikes",
        "clipped steps",
        "last block's gradient norm, at initialisation",
        "last block's gradient norm, at the end",
        "seconds",
        "directory",
    ]
    runs, looks_of_runs = [], []
    for index, arm in enumerate(arms):
        of_arm = sorted((h.run for h in arm.histories), key=lambda run: sort_key(run.seed))
        runs += of_arm
        looks_of_runs += [*looks[index : index + 1]] * len(of_arm)
    cells = [
        [
            Cell(run_label(run, factors), f"{index:06}"),
            Cell(status_of(run), status_of(run)),
            loss_cell(math.inf if run.divergence else run.summary.val_loss),
            loss_cell(run.summary.val_bits_per_byte),
            loss_cell(run.summary.train_loss),
            number_cell(run.summary.spikes, "g"),
            number_cell(run.summary.clip_share, ".0%"),
            number_cell(run.summary.grad_norm.first_step.last_block),
            number_cell(run.summary.grad_norm.last_step.last_block),
            number_cell(run.summary.seconds, ",.1f"),
            Cell(run.directory.name, run.directory.name),
        ]
        for index, run in enumerate(runs)
    ]
    rows = [
        RunRow(
            quote(os.path.relpath(run.directory, out).replace(os.sep, "/")) + "/",
            is_bad(run),
            run.reason,
            rerun_command(run),
        )
        for run in runs
    ]
    table = Table(columns, cells, frozenset(("status", loss)), looks=tuple(looks_of_runs))
    return compact(table, keep=frozenset((loss,))), rows


def arm_words(arm: Arm, factors: Sequence[str]) -> str:
    """The values of an arm in words; its label where it has no factors."""
    return ", ".join(map(value_words, factors, arm.key)) or value_words(PLACEMENT, arm.label)


def run_label(run: Run, factors: Sequence[str]) -> str:
    """The values of the factors, and the seed; the directory's name where nothing is known."""
    words = [value_words(name, run.setting(name)) for name in factors]
    words += [] if run.seed is None else [f"seed {run.seed}"]
    return ", ".join(words) or run.directory.name


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
