"""The CSV files of a run, which may be complete, cut off in the middle of a line, or missing."""

import io
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from experiments.analysis.runs import COMPLETED, UNKNOWN, Run
from experiments.machine.console import one_line
from experiments.records.sink import GRADIENT_COLUMNS, GUARD
from normscope.stats import drawn

log = logging.getLogger(__name__)

Frame = pd.DataFrame

MOST_STEPS = 400  # drawn of one run; more could not be seen
MOST_PROBES = 12  # of one statistic by layer, through which a reader moves one by one
TEXTS = ("component", "stat", "kind", "source")  # columns
LONGEST_LINE = 10_000  # bytes in a line of a CSV file; ours have under 200


@dataclass(frozen=True)
class Unit:
    """In what validation losses are compared.

    name        as it stands behind a number
    axis        of a figure
    column      of metrics.csv
    comparable  whether the losses of all runs can be compared in it
    """

    name: str
    axis: str
    column: str
    comparable: bool = True


NATS = Unit("nats", "cross entropy (nats per token)", "val_loss")
BITS = Unit("bits per byte", "validation loss (bits per byte)", "val_bits_per_byte")


@dataclass
class History:
    """A run with its measurements.

    metrics   one row per logged step
    blocks    gradient norm of each block: steps as rows, layers as columns
    probes    by stat: steps as rows, layers as columns
    memory    predicted and measured bytes by kind
    unit      of the three losses below
    """

    run: Run
    metrics: Frame = field(default_factory=Frame)
    blocks: Frame = field(default_factory=Frame)
    probes: dict[str, Frame] = field(default_factory=dict)
    memory: Frame = field(default_factory=Frame)
    unit: Unit = NATS

    @property
    def initial_loss(self) -> float | None:
        """Validation loss of the model as initialised."""
        if self.unit is not BITS:
            return self.run.summary.initial_val_loss
        return next(iter(self.losses(BITS.column)), None)

    @property
    def final_loss(self) -> float | None:
        return self.final_loss_in(self.unit)

    def final_loss_in(self, unit: Unit) -> float | None:
        """Validation loss of a run that finished; infinite where it diverged."""
        if self.run.status == "diverged":
            return math.inf
        summary = self.run.summary
        loss = summary.val_bits_per_byte if unit is BITS else summary.val_loss
        return loss if self.run.status == "finished" else None

    @property
    def capped_loss(self) -> float | None:
        """min(final, initial) validation loss; the initial one of a run that diverged."""
        final, initial = self.final_loss, self.initial_loss
        if final is None or initial is None or math.isnan(initial):
            return final
        return min(final, initial)

    @property
    def tokens(self) -> float | None:
        """Tokens trained on; for runs of older versions, those until the last logged step."""
        recorded = self.run.summary.tokens
        if recorded is None and "tokens" in self.metrics and len(self.metrics):
            return float(self.metrics["tokens"].iloc[-1])
        return recorded

    def losses(self, name: str) -> pd.Series:
        """A loss by step, where it was measured."""
        if name not in self.metrics:
            return pd.Series(dtype=float)
        return self.metrics.set_index("step")[name].dropna()


def read_history(run: Run) -> History:
    """Read a run's CSV files. A file that cannot be read costs a warning and is left out."""
    metrics = read_checked_csv(run.directory / "metrics.csv", ("step",))
    gradients = read_gradients(run)
    history = History(run, metrics)
    if run.status == "finished" and run.summary.val_loss is not None:
        for name in ("metrics.csv", "gradients.csv"):
            if not (run.directory / name).is_file():
                log.warning("%s is missing", run.directory / name)
    if not gradients.empty:
        history.blocks = thin_out(by_layer(gradients, "grad_norm", "block"))
        for statistic in drawn():
            table = by_layer(gradients, statistic.name, str(statistic.drawn))
            if not table.empty:
                history.probes[statistic.name] = thin_out(table, MOST_PROBES)
    memory = read_checked_csv(run.directory / "memory.csv", ("kind", "predicted_bytes"))
    if not memory.empty:
        history.memory = memory.set_index("kind")
    return history


def read_gradients(run: Run) -> Frame:
    """What a run measured by layer; an empty table where its file is missing or not what it was."""
    return read_checked_csv(run.directory / "gradients.csv", GRADIENT_COLUMNS)


def in_common_unit(histories: Sequence[History]) -> list[History]:
    """The runs with their losses in one unit.

    That is nats per token where all runs have the same tokens. Those of other tokenizers or texts
    are of other size: such runs are compared in bits per byte, where all of them recorded it.
    """
    runs = [history.run for history in histories if history.run.status in COMPLETED]
    tokenizers = {run.setting("tokenizer.name") for run in runs} - {UNKNOWN}
    texts = {run.summary.corpus.sha256 for run in runs} - {None}
    unit = NATS
    if len(tokenizers) > 1 or len(texts) > 1:
        bits = [run.summary.val_bits_per_byte for run in runs if run.status == "finished"]
        unit = replace(NATS, comparable=False) if None in bits else BITS
    return [replace(history, unit=unit) for history in histories]


def read_checked_csv(path: Path, columns: tuple[str, ...]) -> Frame:
    """A CSV file that must have `columns`; an empty table where it is missing or has others.

    A last line without a line end was still being written, and is left out. A cell that should be a
    number and is not becomes nan.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Frame()
    except OSError as error:
        log.warning("%s is left out: %s", path, one_line(error))
        return Frame()
    complete, line_end, incomplete = content.rpartition(b"\n")
    if incomplete:
        log.warning("%s: its last line is incomplete and is left out", path)
    texts = {name: "category" for name in columns if name in TEXTS}
    try:
        frame = parse_csv(io.BytesIO(complete + line_end), dtype=texts)
    except (ValueError, pd.errors.ParserWarning) as error:  # its parser errors are ValueErrors
        log.warning("%s is left out: %s", path, one_line(error))
        return Frame()
    missing = [name for name in columns if name not in frame]
    if missing:
        log.warning("%s is left out: it has no column %s", path, ", ".join(missing))
        return Frame()
    for name in frame.columns:
        if name not in texts and not pd.api.types.is_numeric_dtype(frame[name]):
            numbers = pd.to_numeric(frame[name], errors="coerce")
            bad = int((numbers.isna() & frame[name].notna()).sum())
            if bad:
                counts = bad, len(frame), name
                log.warning("%s: %d of %d cells in column %s are not numbers", path, *counts)
            frame[name] = numbers
    return frame.dropna(subset=[name for name in ("step", "layer") if name in columns])


def by_layer(gradients: Frame, stat: str, component: str) -> Frame:
    """One statistic with steps as rows and layers as columns; of repeated rows the last counts."""
    chosen = gradients[(gradients["stat"] == stat) & (gradients["component"] == component)]
    chosen = chosen.drop_duplicates(["step", "layer"], keep="last")
    return chosen.pivot(index="step", columns="layer", values="value").astype(np.float64)


def thin_out(table: Frame, most: int = MOST_STEPS) -> Frame:
    """At most so many rows, evenly spread, including the first and the last."""
    if len(table) <= most:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, most).round().astype(int)]


def read_csv(path: Path) -> Frame:
    """A CSV file, in which an empty cell (not measured) is nan; an empty table without a file."""
    try:
        with path.open("rb") as file:
            return parse_csv(file)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return Frame()


def parse_csv(file: BinaryIO, **options: Any) -> Frame:
    """A table from an open CSV file, texts as `read_cell` has them.

    Raises ValueError for a file that no run can have written.
    """
    if any(len(line) > LONGEST_LINE for line in file):  # pandas takes 1 s for 10^5 columns
        raise ValueError(f"one of its lines is longer than {LONGEST_LINE:,} bytes")
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        table = pd.read_csv(file, encoding="utf-8", index_col=False, **options)
    texts = table.select_dtypes(exclude=["number", "bool", "category"]).columns
    table[texts] = table[texts].replace(GUARD, "", regex=True)
    return table
