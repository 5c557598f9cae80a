"""Gradient norms against a swept number, such as depth: a power law for each arm."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.analysis.arms import Arm, Key, Layout, numeric
from experiments.analysis.numbers import Fit, fit_power, median
from experiments.analysis.runs import PLACEMENT, Run, Value
from experiments.analysis.words import setting_words, value_words
from experiments.records.summary import Summary

MOST_ROWS = 4  # of panels in a scaling figure
MOST_MISS = 2.0  # the factor by which a run may differ from a line that is called a power law
LEAST_PLACES = 3  # different x of a power law: a line through two has no residual
SCALED: dict[str, Callable[[Summary], float | None]] = {  # columns of a scaling figure
    "last block, at initialisation": lambda summary: summary.grad_norm.first_step.last_block,
    "first block, at initialisation": lambda summary: summary.grad_norm.first_step.first_block,
    "last block, at the end": lambda summary: summary.grad_norm.last_step.last_block,
    "first block, at the end": lambda summary: summary.grad_norm.last_step.first_block,
}


@dataclass(frozen=True)
class Scaling:
    """One quantity against a swept number, for one colour and panel, with its power law.

    label           of the colour, and the panel where there are several
    unlearned       x and y of the runs that did not learn, at the end of training: what they have
                    there says nothing of the number, so the fit and `x` and `y` are without them
    """

    panel: Key
    level: Value
    label: str
    quantity: str
    x: list[float]
    y: list[float]
    fit: Fit | None
    unlearned: Sequence[tuple[float, float]] = ()

    @property
    def medians(self) -> dict[float, float]:
        """The median over runs at each x, in order."""
        points = list(zip(self.x, self.y, strict=True))
        return {at: median([y for x, y in points if x == at]) for at in sorted(set(self.x))}

    def ends(self) -> tuple[float, float]:
        """Medians at the lowest and the highest x."""
        values = list(self.medians.values())
        return values[0], values[-1]

    @property
    def is_straight(self) -> bool:
        """Whether the points are a line in log-log: no run is farther from it than MOST_MISS."""
        has_places = len(set(self.x)) >= LEAST_PLACES
        return self.fit is not None and has_places and self.fit.miss <= MOST_MISS

    @property
    def has_direction(self) -> bool:
        """Whether the interval of the exponent is without 0."""
        return self.fit is not None and (self.fit.low > 0 or self.fit.high < 0)

    @property
    def is_monotone(self) -> bool:
        """Whether the medians only rise, or only fall."""
        values = list(self.medians.values())
        return values in (sorted(values), sorted(values, reverse=True))


def scalings(layout: Layout, factor: str) -> list[Scaling]:
    """How each quantity of SCALED grows with `factor`; every run is a point.

    At the end of training only those that learned.
    """
    inner = layout.without(factor).thinned(MOST_ROWS)
    has_colours = layout.colour_factor != factor
    found = []
    for title, quantity in SCALED.items():
        for panel in inner.panels:
            for level in layout.colour_levels if has_colours else [None]:
                points = [
                    (float(number), value, history.run)
                    for number in numeric(layout.levels[factor])
                    for arm in matching(layout, inner, factor, panel, level, number)
                    for history in arm.histories
                    if (value := quantity(history.run.summary)) is not None and 0 < value < math.inf
                ]
                if len({x for x, *_ in points}) < 2:
                    continue
                counts = [point for point in points if not is_unlearned(point[2], title)]
                x, y = [x for x, *_ in counts], [y for _, y, _ in counts]
                rest = [(x, y) for x, y, run in points if is_unlearned(run, title)]
                label = label_of(layout if has_colours else None, inner, level, panel)
                found.append(Scaling(panel, level, label, title, x, y, fit_power(x, y), rest))
    return found


def is_unlearned(run: Run, quantity: str) -> bool:
    """Whether a quantity is of the end of a training in which the run did not learn."""
    return quantity.endswith("at the end") and (run.is_stuck or run.status != "finished")


def label_of(coloured: Layout | None, inner: Layout, level: Value, panel: Key) -> str:
    """A colour, where there are any, and a panel in words: Post-LN with 60 steps of warm-up."""
    settings = ", ".join(map(setting_words, inner.panel_factors, panel))
    if coloured is None or coloured.colour_factor is None:
        return settings or "all runs"
    colour = value_words(coloured.colour_factor, level)
    between = " " if coloured.colour_factor == PLACEMENT else ", "
    return between.join(filter(None, [colour, settings]))


def matching(
    layout: Layout, inner: Layout, factor: str, panel: Key, level: Value, number: Value
) -> list[Arm]:
    """The arm with these values, as a list; an empty list where there is none."""
    values = dict(zip(inner.panel_factors, panel, strict=True)) | {factor: number}
    if layout.colour_factor and layout.colour_factor != factor:
        values[layout.colour_factor] = level
    arm = layout.by_key.get(tuple(values[name] for name in layout.factors))
    return [arm] if arm else []
