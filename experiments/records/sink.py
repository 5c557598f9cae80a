"""What a sink takes: single values by step, values by layer, whole tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.machine.console import printable
from normscope.stats import Row

Value = float | int | str | None
Metrics = Mapping[str, float | int | None]
Table = Sequence[Mapping[str, Value]]


METRIC_COLUMNS = (
    "step",
    "tokens",
    "train_loss",
    "val_loss",
    "lr",
    "grad_norm",
    "clip_factor",
    "tokens_per_s",
    "memory_mb",
)


GRADIENT_COLUMNS = ("step", "layer", "component", "stat", "value")


class Sink(Protocol):
    """Takes what a run records. `step` is the number of updates made before the measurement."""

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None: ...

    def table(self, name: str, table: Table) -> None: ...

    def finish(self, summary: Mapping[str, Any], pictures: Sequence[Path]) -> None: ...


def format_cell(value: Value) -> str:
    """As it stands in a CSV file: empty where not measured, nine digits, enough for float32."""
    if value is None:
        return ""
    if isinstance(value, str):
        return escape_cell(value)
    return format(value, ".9g") if isinstance(value, float) else str(value)


def escape_cell(text: str) -> str:
    """`text` for a cell that a spreadsheet shows and does not compute, on one line.

    A leading ' tells spreadsheets so (OWASP, "CSV Injection").
    """
    shown = printable(text).replace("\n", "\\n")
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
