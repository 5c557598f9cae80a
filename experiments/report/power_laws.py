"""Figures of how gradients grow with a size, such as the number of blocks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.analysis.arms import Layout, numeric
from experiments.analysis.runs import PLACEMENT
from experiments.analysis.scaling import MOST_MISS, SCALED, Scaling, scalings
from experiments.analysis.titles import in_order, runs_of, shared
from experiments.analysis.words import noun_of
from experiments.report.chart import (
    CROWDED,
    Axis,
    Chart,
    Panel,
    Series,
    limits_of_y,
    number,
)
from experiments.report.drawing import (
    left_out_note,
    name_extremes,
    plural,
)
from experiments.report.facets import (
    key_of,
    keys_of,
    looks_of_levels,
    words_of,
)
from experiments.report.palette import CATEGORIES, Look, look_of
from experiments.report.style import on_scale

UNLEARNED = "did not learn"  # in the label of such runs


def scaling(layout: Layout, factor: str) -> Chart | None:
    """Gradient norms against a swept number, log-log, with fitted slopes."""
    found = scalings(layout, factor)
    titles = [title for title in SCALED if any(s.quantity == title for s in found)]
    if not titles:
        return None
    rows = list(dict.fromkeys(s.panel for s in found))
    inner = layout.without(factor)
    has_colours = layout.colour_factor != factor
    looks = dict(zip(layout.colour_levels, looks_of_levels(layout), strict=True))
    if not has_colours:
        looks = {None: look_of_all(layout)}
    noun, order = noun_of(factor), in_order(layout.colour_factor or "", layout.colour_levels)
    found.sort(key=lambda s: order.index(s.level) if has_colours else 0)
    levels = {float(level): level for level in numeric(layout.levels[factor])}
    ticks = [number for number in levels if number > 0]
    panels = []
    for row, (panel, title) in enumerate(itertools.product(rows, titles)):
        inside = [s for s in found if (s.panel, s.quantity) == (panel, title)]
        keys = {s.level: keys_of(inner, panel, s.level) if has_colours else () for s in inside}
        series = [
            replace(
                one, keys=(*keys[s.level], *(key_of(factor, levels[x]) for x in at)) or ("all",)
            )
            for s in inside
            for one, at in scaling_series(s, looks[s.level])
        ]
        name = ", ".join(filter(None, [title, words_of(inner.panel_factors, panel)]))
        label = f"gradient norm, {title.partition(', ')[2]}"
        panels.append(
            Panel(series, *divmod(row, 2), f"{name}{exponents(inside)}", y=Axis(label, "log"))
        )
    fits = [
        [(s.fit.slope, f"{s.label}: {s.fit}") for s in found if s.fit and s.quantity == title]
        for title in titles
    ]
    slopes = [f"{t}, {name_extremes(each)}" for t, each in zip(titles, fits, strict=True) if each]
    return Chart(
        f"scaling_{factor.rpartition('.')[2]}",
        scaling_title(found, noun),
        "On these axes a power law is a straight line, and its slope is the exponent: -0.50 falls "
        "as one over the square root.",
        "Every run is a point; lines are least-squares fits in log-log. Above each panel are their "
        "exponents, beside a line, where there is room, with the 95 % confidence interval, "
        "assuming independent errors of equal spread."
        f"{misses_note(found)}{unlearned_note(found)}{left_out_note(inner)}",
        f"Gradient norms against {noun} on log scales. " + "; ".join(slopes) + ".",
        with_room_for_learned(panels),
        Axis(noun, "log", ticks=tuple((float(tick), f"{tick:g}") for tick in ticks)),
        Axis("gradient norm of a block", "log"),
    )


def exponents(found: Sequence[Scaling]) -> str:
    """The exponents of a panel after its title, where they are few enough to be read."""
    fits = [(s, f"{s.fit.slope:+z.2f}") for s in found if s.fit is not None]
    if not fits or len(fits) > CROWDED:
        return ""
    texts = [f"{slope} ({s.label})" if len(found) > 1 else slope for s, slope in fits]
    return f": exponent {', '.join(texts)}"


def misses_note(found: Sequence[Scaling]) -> str:
    """Which run is farthest from its line, and which lines are therefore no power laws."""
    misses = [(s.fit.miss, f"{s.label}, {s.quantity}") for s in found if s.fit is not None]
    if not misses:
        return ""
    miss, run = max(misses)
    note = f" The run farthest from its line ({run}) differs from it by a factor of {miss:,.3g}."
    return f"{note} A line that a run misses by more than {MOST_MISS:g} times is no power law."


def unlearned_note(found: Sequence[Scaling]) -> str:
    """How many runs are left out of the lines."""
    count = unlearned(found)
    if not count:
        return ""
    which = "the run" if count == 1 else f"the {count} runs"
    return (
        f" At the end of training the lines are without {which} that did not learn (crosses, or "
        "arrows where they are outside of a panel)."
    )


def unlearned(found: Sequence[Scaling]) -> int:
    """How many runs did not learn: each counts once, however many of its blocks are shown."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.quantity] = counts.get(each.quantity, 0) + len(each.unlearned)
    return max(counts.values(), default=0)


def with_room_for_learned(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with scales that their crosses, of runs that did not learn, do not decide."""
    learned = [
        replace(panel, series=kept)
        for panel in panels
        if (kept := [series for series in panel.series if UNLEARNED not in series.label])
    ]
    found = []
    for panel in panels:
        assert panel.y is not None
        beside = [other for other in learned if other.y == panel.y]
        limits = limits_of_y(beside, panel.y) if beside else None
        found.append(replace(panel, y=replace(panel.y, limits=limits)))
    return found


def look_of_all(layout: Layout) -> Look:
    """The look of the placement that all runs share."""
    placement = shared(runs_of([*layout.by_key.values()]), PLACEMENT)
    return CATEGORIES[0] if placement is None else look_of(str(placement))


def scaling_series(found: Scaling, look: Look) -> list[tuple[Series, list[float]]]:
    """The fitted line with its exponent, and the runs as points: at each x a series of its own.

    With each series the x at which alone it is: none of the line.
    """
    series: list[tuple[Series, list[float]]] = []
    if found.fit is not None:
        ends = np.array([min(found.x), max(found.x)])
        slope = f"{found.fit.slope:+z.2f}"
        if not math.isnan(found.fit.low):
            slope += f" ({found.fit.low:+z.2f}, {found.fit.high:+z.2f})"
        heights = on_scale(pd.Series(found.fit.at(ends)))
        line = Series(found.label, look, ends.tolist(), list(heights), name=slope, width=1.6)
        series.append((line, []))
    cross = replace(look, mark="P" if look.mark == "X" else "X")
    for label, looks, points in (
        (found.label, look, list(zip(found.x, found.y, strict=True))),
        (f"{found.label}, {UNLEARNED}", cross, found.unlearned),
    ):
        for at in sorted({x for x, _ in points}):
            heights = on_scale(pd.Series([y for x, y in points if x == at]))
            dots = Series(label, looks, [at] * len(heights), list(heights), kind="dots")
            series.append((dots, [at]))
    return series


def scaling_title(found: Sequence[Scaling], noun: str) -> str:
    """The steepest line whose exponent is known to be no 0: a power law, or from where to where.

    A law only where the points are a straight line.
    """
    laws = [(s, s.fit) for s in found if s.fit is not None and s.has_direction]
    if not laws:
        return f"Of no gradient norm it is known that it changes with the {noun}"
    steepest, fit = max(laws, key=lambda law: abs(law[1].slope))
    subject = f"{steepest.label}: the gradient norm of the {steepest.quantity},"
    count = unlearned(found)
    without = f"; {plural(count, 'run')} that did not learn left out at the end" if count else ""
    verb = "grows" if fit.slope > 0 else "falls"
    if not steepest.is_straight:
        (low, first), (high, last) = (list(steepest.medians.items())[end] for end in (0, -1))
        places = f"as the {noun} goes from {low:g} to {high:g}"
        return f"{subject} goes from {number(first)} to {number(last)} {places}{without}"
    return (
        f"{subject} {verb} as the power {fit.slope:+z.2f} of the {noun} (95 % interval "
        f"{fit.low:+z.2f} to {fit.high:+z.2f}){without}"
    )
