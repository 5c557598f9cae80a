"""How long a training step takes under each placement: the rows of step_times.csv."""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.records.sink import read_rows
from gpt.checks import hints_of

CSV = "step_times.csv"
REFERENCE = "pre_ln"


@dataclass(frozen=True)
class StepTime:
    """A placement's training step over that of Pre-LN.

    ratio    of the two steps of a round: the median over the rounds, with its quartiles
    seconds  of the placement's step, the median
    tokens   of a step
    device   its name; threads are those of the CPU
    models   hash of what both steps compute
    """

    placement: str
    ratio: float
    ratio_low: float
    ratio_high: float
    seconds: float
    rounds: int
    layers: int
    width: int
    tokens: int
    precision: str
    device: str
    threads: int
    torch: str
    normscope: str
    models: str

    def fits(self, conditions: Mapping[str, Any]) -> bool:
        """Whether it was measured under these."""
        return all(getattr(self, name) == value for name, value in conditions.items())

    @property
    def text(self) -> str:
        """The ratio with its quartiles."""
        return f"{self.ratio:#.3g} ({self.ratio_low:#.3g} to {self.ratio_high:#.3g})"

    @property
    def setting(self) -> str:
        """What was timed, and on what."""
        return (
            f"{self.layers} blocks of width {self.width}, {self.tokens} tokens a step, "
            f"{self.precision}, on {self.device} with {self.threads} "
            f"thread{'' if self.threads == 1 else 's'}"
        )


def read_step_times(folder: Path) -> list[StepTime]:
    """Those that are stored in a folder; lines that are none, or torn, count as absent."""
    hints, found = hints_of(StepTime), []
    with suppress(FileNotFoundError), (folder / CSV).open(encoding="utf-8", newline="") as file:
        for line in read_rows(file):
            with suppress(KeyError, TypeError, ValueError):
                found.append(StepTime(**{name: kind(line[name]) for name, kind in hints.items()}))
    return found


def rows_of(times: Iterable[StepTime]) -> list[dict[str, Any]]:
    """The rows of step_times.csv."""
    return [dataclasses.asdict(time) for time in times]
