"""What experiment=lecture recorded: numbers beside the notes', tables, and three training runs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from experiments.analysis.histories import Frame, History, read_csv, read_history
from experiments.analysis.runs import PLACEMENT, Run, find_runs
from experiments.records.sink import read_rows
from gpt import ConfigError

TABLES = ("layer_norm", "activations", "shortcut", "gpt2_sizes")
RUNS = "runs"


@dataclass(frozen=True)
class Check:
    """A number of a step as the notes print it, beside the one computed here, as texts.

    tolerance  the largest difference, `relative` where it is a share
    equal      yes, differs, or empty where the notes print none
    source     the section of the book, and what the number depends on
    """

    step: str
    what: str
    notes: str
    here: str
    tolerance: str
    equal: str
    source: str

    @classmethod
    def alone(cls, step: str, what: str, here: str) -> "Check":
        """A number that the notes do not print."""
        return cls(step, what, "", here, "", "", "")


@dataclass
class Lecture:
    """The record of a lecture, which grows while it is computed.

    checks  the rows of lecture.csv
    tables  the other tables by name
    arms    the training runs: Pre-LN, then Post-LN with warm-up and without
    """

    checks: list[Check] = field(default_factory=list)
    tables: dict[str, Frame] = field(default_factory=dict)
    arms: list[History] = field(default_factory=list)

    def of(self, step: str) -> list[Check]:
        """The numbers of a step."""
        return [check for check in self.checks if check.step == step]

    def here(self, step: str, what: str) -> str:
        """A number as it was computed here."""
        (check,) = (check for check in self.of(step) if check.what == what)
        return check.here

    @property
    def compared(self) -> list[Check]:
        """The numbers that the notes print."""
        return [check for check in self.checks if check.equal]

    @property
    def different(self) -> list[Check]:
        """Those of them that came out otherwise."""
        return [check for check in self.compared if check.equal != "yes"]

    def rows(self) -> list[dict[str, str]]:
        """The rows of lecture.csv."""
        return [asdict(check) for check in self.checks]


def read_lecture(directory: Path) -> Lecture:
    """The lecture in a run's directory. Raises ConfigError for files that are not of one."""
    path = directory / "lecture.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            checks = [Check(**row) for row in read_rows(file)]
    except (OSError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "DIR", str(directory), f"must have the lecture.csv of one: {error}"
        ) from None
    tables = {name: read_csv(directory / f"{name}.csv") for name in TABLES}
    return Lecture(checks, tables, list(read_arms(directory / RUNS)))


def read_arms(folder: Path) -> Iterator[History]:
    """The training runs, in the order of a lecture."""
    for run in sorted(find_runs(folder), key=place_of):
        yield read_history(run)


def place_of(run: Run) -> tuple[bool, int]:
    """Where a run comes in the order: Pre-LN first, then those with warm-up."""
    return run.setting(PLACEMENT) != "pre_ln", -cast(int, run.setting("schedule.warmup_steps"))
