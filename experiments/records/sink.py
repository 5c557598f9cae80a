"""What a sink takes: single values by step, values by layer and by pairs of them, whole tables."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.machine.console import printable
from experiments.records.summary import Summary
from experiments.settings.schema import Settings
from normscope.mixing import MixingRow
from normscope.stats import Row

Value = float | int | str | None
Metrics = Mapping[str, float | int | None]
Table = Sequence[Mapping[str, Value]]

METRIC_COLUMNS = (
    "step",
    "tokens",
    "train_loss",
    "val_loss",
    "val_bits_per_byte",
    "lr",
    "grad_norm",
    "clip_factor",
    "tokens_per_s",
    "memory_mb",
    "balance_loss",
)
GRADIENT_COLUMNS = ("step", "layer", "component", "stat", "value")
MIXING_COLUMNS = ("step", *MixingRow._fields)


class Sink(Protocol):
    """Takes what a run records. `step` is the number of updates made before the measurement.

    Made when the first record comes, and then open; `records` is what a checkpoint kept of all
    sinks, empty in a new run, and whatever was recorded after it is to be forgotten.
    """

    def __init__(self, directory: Path, settings: Settings, records: Mapping[str, Any]) -> None: ...

    @staticmethod
    def is_wanted(settings: Settings) -> bool:
        """Whether a run with these settings has this sink."""
        ...

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None: ...

    def mixing(self, step: int, rows: Sequence[MixingRow]) -> None: ...

    def table(self, name: str, table: Table) -> None: ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, under names of the sink's own; it is on the disk by then."""
        ...

    def finish(self, summary: Summary, pictures: Sequence[Path]) -> None: ...


def format_cell(value: Value) -> str:
    """As it stands in a CSV file: a text as `escape_cell` has it, anything else as `shown_cell`."""
    return escape_cell(value) if isinstance(value, str) else shown_cell(value)


def shown_cell(value: Value) -> str:
    """As a reader sees it: empty where not measured, nine digits, enough for float32."""
    if value is None:
        return ""
    return format(value, ".9g") if isinstance(value, float) else str(value)


FORMULA = r"'*[=+\-@]"  # begins what a spreadsheet would compute, guarded or not
GUARD = rf"^'(?={FORMULA})"


def escape_cell(text: str) -> str:
    """`text` for a cell that a spreadsheet shows and does not compute, on one line.

    A leading ' makes it text (OWASP, "CSV Injection"). `read_cell` takes it away again.
    """
    shown = printable(text).replace("\n", "\\n")
    return f"'{shown}" if re.match(FORMULA, shown) else shown


def read_cell(cell: str) -> str:
    """The text of a cell of a CSV file, without the guard that `escape_cell` gave it."""
    return re.sub(GUARD, "", cell)


def read_rows(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows of an open CSV file, texts as `read_cell` has them; None where a row ends early."""
    for row in csv.DictReader(file):
        yield {
            name: read_cell(cell) if isinstance(cell, str) else cell for name, cell in row.items()
        }
