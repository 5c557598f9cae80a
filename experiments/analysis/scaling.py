"""Gradient norms against a swept number, such as depth: a power law for each arm."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from experiments.analysis.arms import Arm, Key, Layout, numeric
from experiments.analysis.numbers import Fit, fit_power, median
from experiments.analysis.runs import PLACEMENT, Value
from experiments.analysis.words import setting_words, value_words
from experiments.records.summary import Summary

MOST_ROWS = 4  # of panels in a scaling figure
SCALED: dict[str, Callable[[Summary], float | None]] = {  # columns of a scaling figure
    "last block, at initialisation": lambda summary: summary.grad_norm.first_step.last_block,
    "first block, at initialisation": lambda summary: summary.grad_norm.first_step.first_block,
    "last block, at the end": lambda summary: summary.grad_norm.last_step.last_block,
    "first block, at the end": lambda summary: summary.grad_norm.last_step.first_block,
}


@dataclass(frozen=True)
class Scaling:
    """A power law of one quantity in a swept number, for one colour and panel."""

    panel: Key
    level: Value
    label: str  # of the colour, and the panel where there are several
    quantity: str
    x: list[float]
    y: list[float]
    fit: Fit | None

    def ends(self) -> tuple[float, float]:
        """Medians at the least and the greatest x."""
        points = list(zip(self.x, self.y, strict=True))
        at_least = [y for x, y in points if x == min(self.x)]
        at_most = [y for x, y in points if x == max(self.x)]
        return median(at_least), median(at_most)


def scalings(layout: Layout, factor: str) -> list[Scaling]:
    """How each quantity of SCALED grows with `factor`; every run is a point."""
    inner = layout.without(factor).thinned(MOST_ROWS)
    has_colours = layout.colour_factor != factor
    found = []
    for title, quantity in SCALED.items():
        for panel in inner.panels:
            for level in layout.colour_levels if has_colours else [None]:
                points = [
                    (float(number), value)
                    for number in numeric(layout.levels[factor])
                    for arm in matching(layout, inner, factor, panel, level, number)
                    for history in arm.histories
                    if (value := quantity(history.run.summary)) is not None and 0 < value < math.inf
                ]
                if len({x for x, _ in points}) < 2:
                    continue
                x, y = (list(values) for values in zip(*points, strict=True))
                label = label_of(layout if has_colours else None, inner, level, panel)
                found.append(Scaling(panel, level, label, title, x, y, fit_power(x, y)))
    return found


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
