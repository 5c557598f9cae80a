"""Arms of a comparison: runs that differ by nothing but the seed, and how they are laid out."""

import itertools
import logging
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from experiments.analysis.histories import History
from experiments.analysis.numbers import median
from experiments.analysis.runs import Run, Value, sort_key, varying_settings
from gpt import ConfigError
from gpt.registry import choice_hint

log = logging.getLogger(__name__)

Key = tuple[Value, ...]
RATE = "optimizer.lr"

# A section in --by stands for its choice.
CHOICES = {"norm": "norm.placement", "init": "init.scheme", "data": "data.name"} | {
    section: f"{section}.name" for section in ("tokenizer", "optimizer", "schedule")
}


@dataclass
class Arm:
    """Runs that share the value of every factor."""

    key: Key
    label: str
    histories: list[History]

    def count(self, *statuses: str) -> int:
        return sum(history.run.status in statuses for history in self.histories)

    @property
    def stuck(self) -> int:
        return sum(history.run.is_stuck for history in self.histories)

    def final_losses(self) -> list[float]:
        """Validation loss at the end of each run that has one; infinite where it diverged."""
        losses = []
        for history in self.histories:
            if history.run.status == "diverged":
                losses.append(math.inf)
            elif history.run.status == "finished":
                loss = history.run.number("val_loss")
                losses += [] if loss is None else [loss]
        return losses

    def capped_losses(self) -> list[float]:
        """min(final, initial) of each run, and the initial loss of one that diverged."""
        losses = [history.capped_loss for history in self.histories]
        return [loss for loss in losses if loss is not None]

    def pooled(self) -> list[str]:
        """What differs between its runs beside the seed, as where `--by` names too little."""
        return varying_settings([history.run for history in self.histories])

    def median(self, *path: str) -> float:
        """Median over runs of a number of their summaries; nan where none has it."""
        numbers = [history.run.number(*path) for history in self.histories]
        return median([number for number in numbers if number is not None])


def label_value(name: str, value: Value) -> str:
    """A factor's value in a few words."""
    if name in ("norm.placement", "runner", "activation"):
        return str(value)
    return f"{short_name(name)} {format_value(value)}"


def format_value(value: Value) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def numeric(values: Sequence[Value]) -> list[float]:
    """Those of `values` that are numbers."""
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def short_name(name: str) -> str:
    """A setting's last name; its section's where the last says nothing."""
    section, _, last = name.rpartition(".")
    return section if last in ("name", "scheme") else last


def factors_of(runs: Sequence[Run], by: Sequence[str] | None) -> list[str]:
    """What tells arms apart: `by`, or every setting that varies.

    Raises ConfigError for a name that no setting has.
    """
    if by is None:
        return varying_settings(runs)
    names = []
    known = {name for run in runs for name in run.settings}
    for name in by:
        full = CHOICES.get(name, name)
        if full not in known:
            raise ConfigError("--by", name, choice_hint(name, known | set(CHOICES)))
        names.append(full)
    return names


def form_arms(histories: Sequence[History], factors: Sequence[str]) -> list[Arm]:
    """Runs grouped by their factors' values, in the order of these values."""
    groups: dict[Key, list[History]] = {}
    for history in histories:
        key = tuple(history.run.setting(name) for name in factors)
        groups.setdefault(key, []).append(history)
    arms = []
    for key in sorted(groups, key=lambda key: [sort_key(value) for value in key]):
        arms.append(Arm(key, label_of(factors, key, groups[key]), groups[key]))
    return arms


def label_of(names: Sequence[str], key: Key, histories: Sequence[History]) -> str:
    """Values in words; without any, the placement that all runs share."""
    label = ", ".join(label_value(n, v) for n, v in zip(names, key, strict=True))
    placements = {str(history.run.setting("norm.placement")) for history in histories}
    return label or (placements.pop() if len(placements) == 1 else "all runs")


class Layout:
    """Where arms stand in a figure: one factor is the colour, combinations of the rest are panels.

    What varies most visibly for the project's question, the placement, is the colour where it
    varies; else a factor of words, else one with few levels.
    """

    def __init__(self, arms: Sequence[Arm], factors: Sequence[str]) -> None:
        self.factors, self.by_key = list(factors), {arm.key: arm for arm in arms}
        levels = {
            name: sorted({arm.key[index] for arm in arms}, key=sort_key)
            for index, name in enumerate(factors)
        }
        self.levels = levels
        self.hue = min(factors, key=self._rank, default=None)
        self.hues: list[Value] = levels[self.hue] if self.hue else [None]
        self.rest = [name for name in factors if name != self.hue]
        combinations = itertools.product(*(levels[name] for name in self.rest))
        self.panels = [p for p in combinations if any(self.arm(p, hue) for hue in self.hues)]
        self.left_out = 0

    def thinned(self, most: int) -> "Layout":
        """With no more than `most` panels: inner levels are left out first."""
        other = copy(self)
        shown = {name: self.levels[name] for name in self.rest}
        while len(other.panels) > most and max(map(len, shown.values())) > 2:
            widest = max(shown, key=lambda name: len(shown[name]))
            shown[widest] = drop_middle(shown[widest])
            other.panels = [
                panel
                for panel in self.panels
                if all(v in shown[name] for name, v in zip(self.rest, panel, strict=True))
            ]
        other.panels = other.panels[:most]
        other.left_out = len(self.panels) - len(other.panels)
        return other

    def _rank(self, name: str) -> tuple[bool, bool, bool, int]:
        words = not any(isinstance(level, int | float) for level in self.levels[name])
        is_axis = name == RATE  # of its own figures
        return name != "norm.placement", is_axis, not words, len(self.levels[name])

    def arm(self, panel: Key, hue: Value) -> Arm | None:
        values = dict(zip(self.rest, panel, strict=True))
        if self.hue:
            values[self.hue] = hue
        return self.by_key.get(tuple(values[name] for name in self.factors))

    def title(self, panel: Key) -> str:
        return ", ".join(label_value(n, v) for n, v in zip(self.rest, panel, strict=True))

    def hue_label(self, hue: Value) -> str:
        return label_value(self.hue, hue) if self.hue else next(iter(self.by_key.values())).label

    def without(self, *names: str) -> "Layout":
        """Panels by the other factors alone: for figures that have `names` as an axis."""
        other = copy(self)
        other.rest = [name for name in self.rest if name not in names]
        places = [self.rest.index(name) for name in other.rest]
        other.panels = list(dict.fromkeys(tuple(p[i] for i in places) for p in self.panels))
        return other


def drop_middle(levels: list[Value]) -> list[Value]:
    """All but one of the inner levels, both ends kept."""
    middle_one = len(levels) // 2
    return levels[:middle_one] + levels[middle_one + 1 :]
