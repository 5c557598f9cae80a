"""Arms of a comparison, and how they are laid out in a figure.

An arm, as in a clinical trial, is a group of runs that got the same treatment: they share the
values of all factors, which are the settings that vary, and differ in the seed alone.
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

from experiments.analysis.histories import NATS, History, Unit, in_common_unit
from experiments.analysis.numbers import median, number_text, spread_text
from experiments.analysis.runs import (
    CHANGE,
    LOSS_ROSE,
    MODEL,
    NOT_FINITE,
    PLACEMENT,
    UNFINISHED,
    Run,
    Value,
    sort_key,
    varying_settings,
)
from experiments.records.summary import Summary
from gpt import ConfigError
from gpt.registry import choice_hint

log = logging.getLogger(__name__)

Key = tuple[Value, ...]
RATE, WARMUP = "optimizer.lr", "schedule.warmup_steps"

# In --by, a section means the setting that names its choice.
CHOICES = {"norm": PLACEMENT, "init": "init.scheme", "data": "data.name"} | {
    section: f"{section}.name" for section in ("tokenizer", "optimizer", "schedule")
}


@dataclass
class Arm:
    """Runs that share the value of every factor.

    key    these values, in the order of the factors
    label  the values as text
    """

    key: Key
    label: str
    histories: list[History]

    def count(self, *statuses: str) -> int:
        return sum(history.run.status in statuses for history in self.histories)

    def diverged(self, how: str) -> int:
        """How many runs diverged in one way, NOT_FINITE or LOSS_ROSE."""
        return sum(history.run.divergence == how for history in self.histories)

    @property
    def stuck(self) -> int:
        return sum(history.run.is_stuck for history in self.histories)

    @property
    def learned(self) -> int:
        """How many finished with more than the frequencies of tokens."""
        return self.count("finished") - self.stuck

    @property
    def not_learned(self) -> int:
        """How many runs ended without learning: diverged, or stuck."""
        return self.count("diverged") + self.stuck

    @property
    def learned_text(self) -> str:
        """How many runs learned, of those that have ended; how many have not, where some have not.

        Empty where none has a loss.
        """
        open_runs = self.count(*UNFINISHED)
        ended = len(self.histories) - open_runs
        if not self.final_losses():
            return ""
        return f"{self.learned} of {ended}" + (f", {open_runs} not ended" if open_runs else "")

    @property
    def unit(self) -> Unit:
        """Of its losses."""
        return self.histories[0].unit if self.histories else NATS

    def final_losses(self, unit: Unit | None = None) -> list[float]:
        """Validation loss at the end of each run that has one; infinite where it diverged."""
        losses = [history.final_loss_in(unit or self.unit) for history in self.histories]
        return [loss for loss in losses if loss is not None]

    def capped_losses(self) -> list[float]:
        """min(final, initial) of each run, and the initial loss of one that diverged."""
        losses = [history.capped_loss for history in self.histories]
        return [loss for loss in losses if loss is not None and not math.isnan(loss)]

    def pooled_settings(self) -> list[str]:
        """Settings that differ between its runs: `--by` may name fewer than vary."""
        return varying_settings([history.run for history in self.histories])

    def median(self, value: Callable[[Summary], float | None]) -> float:
        """Median over runs of a value of their summaries; nan where none has it."""
        numbers = [value(history.run.summary) for history in self.histories]
        return median([number for number in numbers if number is not None])


def label_value(name: str, value: Value) -> str:
    """A factor's value with its name, where it needs one."""
    if name in (PLACEMENT, CHANGE, MODEL, "runner", "activation"):
        return str(value)
    return f"{short_name(name)} {format_value(value)}"


def format_value(value: Value) -> str:
    """A value as text: on and off for booleans."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def numeric(values: Sequence[Value]) -> list[float]:
    """Those of `values` that are numbers."""
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def short_name(name: str) -> str:
    """The last part of a setting's name; the section where that is just `name` or `scheme`."""
    section, _, last = name.rpartition(".")
    return section if last in ("name", "scheme") else last


def factors_of(runs: Sequence[Run], by: Sequence[str] | None) -> list[str]:
    """The settings that separate arms: `by`, or all that vary.

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
    """Runs grouped by the values of their factors, sorted by these values."""
    groups: dict[Key, list[History]] = {}
    for history in in_common_unit(histories):
        key = tuple(history.run.setting(name) for name in factors)
        groups.setdefault(key, []).append(history)
    arms = []
    for key in sorted(groups, key=lambda key: [sort_key(value) for value in key]):
        arms.append(Arm(key, label_of(factors, key, groups[key]), groups[key]))
    return arms


def label_of(names: Sequence[str], key: Key, histories: Sequence[History]) -> str:
    """The values of an arm as text; without factors, the placement that all runs share."""
    label = ", ".join(label_value(n, v) for n, v in zip(names, key, strict=True))
    placements = {str(history.run.setting(PLACEMENT)) for history in histories}
    return label or (placements.pop() if len(placements) == 1 else "all runs")


def arm_rows(arms: Sequence[Arm], most: int) -> list[dict[str, str]]:
    """What each arm came to, as text: its loss, how many runs learned, how many ended badly.

    Without any loss, as of init_gradients, the gradient norms and the parameters. A column in which
    nothing was counted is left out. Of more than `most` arms those with the lowest loss come first,
    where their losses can be compared.
    """
    if len(arms) > most and all(arm.unit.comparable for arm in arms):
        arms = sorted(arms, key=loss_rank)
    figures = loss_figures if any(arm.final_losses() for arm in arms) else start_figures
    rows = [{"arm": arm.label, **figures(arm), **bad_ends(arm)} for arm in arms]
    return [{name: row[name] for name in row if any(r[name] for r in rows)} for row in rows]


def loss_rank(arm: Arm) -> float:
    """A sort key: the median loss, infinite where there is none."""
    loss = median(arm.final_losses())
    return math.inf if math.isnan(loss) else loss


def loss_figures(arm: Arm) -> dict[str, str]:
    """What the runs of an arm learned."""
    loss = spread_text(arm.final_losses())
    return {f"validation loss ({arm.unit.name})": loss, "learned": arm.learned_text}


def start_figures(arm: Arm) -> dict[str, str]:
    """What was measured of an arm's models before any training."""
    first = arm.median(lambda s: s.grad_norm.first_step.first_block)
    last = arm.median(lambda s: s.grad_norm.first_step.last_block)
    return {
        "gradient norm, first block": number_text(first),
        "last block": number_text(last),
        "parameters": number_text(arm.median(lambda s: s.parameters), ",.0f"),
    }


def bad_ends(arm: Arm) -> dict[str, str]:
    """How many runs of an arm diverged in which way and failed; empty where none did."""
    diverged = {f"diverged ({how})": arm.diverged(how) for how in (NOT_FINITE, LOSS_ROSE)}
    counts = {**diverged, "failed": arm.count("failed")}
    return {name: str(count or "") for name, count in counts.items()}


class Layout:
    """Where arms stand in a figure: one factor is the colour, the other factors make the panels.

    factors         names of the settings that vary
    levels          the values of each factor, sorted
    colour_factor   the factor whose values are colours; None without factors
    colour_levels   its values
    panel_factors   the other factors
    panels          their combinations that have at least one arm
    left_out        the panels that `thinned` has removed
    """

    def __init__(self, arms: Sequence[Arm], factors: Sequence[str]) -> None:
        self.factors, self.by_key = list(factors), {arm.key: arm for arm in arms}
        self.levels = {
            name: sorted({arm.key[index] for arm in arms}, key=sort_key)
            for index, name in enumerate(factors)
        }
        self.colour_factor = min(factors, key=self._colour_rank, default=None)
        self.colour_levels: list[Value] = [None]
        if self.colour_factor:
            self.colour_levels = self.levels[self.colour_factor]
        self.panel_factors = [name for name in factors if name != self.colour_factor]
        combinations = itertools.product(*(self.levels[name] for name in self.panel_factors))
        self.panels = [p for p in combinations if any(self.arm(p, c) for c in self.colour_levels)]
        self.left_out: list[Key] = []

    @property
    def unit(self) -> Unit:
        """In what the losses of its arms are compared."""
        return next((arm.unit for arm in self.by_key.values()), NATS)

    def _colour_rank(self, name: str) -> tuple[bool, bool, bool, int]:
        """Sort key of factors: the first becomes the colour.

        The placement comes first, since it is the question of the project and lines in one panel
        compare best. The learning rate comes last, since it is an axis in figures of its own. Then
        text before numbers: categories need colours, numbers can be read from panel titles. Then
        the factor with the fewest levels, since only about six colours can be told apart.
        """
        is_text = not any(isinstance(level, int | float) for level in self.levels[name])
        return name != PLACEMENT, name == RATE, not is_text, len(self.levels[name])

    def arm(self, panel: Key, level: Value) -> Arm | None:
        """The arm of a panel and a colour; None where there are no such runs."""
        values = dict(zip(self.panel_factors, panel, strict=True))
        if self.colour_factor:
            values[self.colour_factor] = level
        return self.by_key.get(tuple(values[name] for name in self.factors))

    def without(self, *names: str) -> "Layout":
        """The layout without `names` as panel factors, for figures that have them as an axis."""
        other = copy(self)
        other.panel_factors = [name for name in self.panel_factors if name not in names]
        indices = [self.panel_factors.index(name) for name in other.panel_factors]
        other.panels = list(dict.fromkeys(tuple(p[i] for i in indices) for p in self.panels))
        return other

    def where(self, holds: Callable[[Arm], bool]) -> "Layout":
        """The layout with the panels of which an arm has what is asked for."""
        other = copy(self)
        pairs = itertools.product(self.panels, self.colour_levels)
        arms = [(panel, self.arm(panel, level)) for panel, level in pairs]
        other.panels = list(dict.fromkeys(p for p, arm in arms if arm is not None and holds(arm)))
        return other

    def thinned(self, most: int) -> "Layout":
        """The layout with at most `most` panels.

        Inner levels are left out first: the ends of a range show a trend best.
        """
        other = copy(self)
        levels = {name: self.levels[name] for name in self.panel_factors}
        while len(other.panels) > most and max(map(len, levels.values())) > 2:
            longest = max(levels, key=lambda name: len(levels[name]))
            levels[longest] = drop_middle(levels[longest])
            other.panels = [
                panel
                for panel in self.panels
                if all(v in levels[n] for n, v in zip(self.panel_factors, panel, strict=True))
            ]
        other.panels = other.panels[:most]
        other.left_out = [panel for panel in self.panels if panel not in other.panels]
        return other


def drop_middle(levels: list[Value]) -> list[Value]:
    """`levels` without the one in the middle."""
    middle = len(levels) // 2
    return levels[:middle] + levels[middle + 1 :]
