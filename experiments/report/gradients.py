"""Figures of the gradients of blocks: by block, through training, last against first."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.analysis.arms import RATE, Arm, Layout
from experiments.analysis.titles import runs_of, shared
from experiments.analysis.words import setting_words
from experiments.report.chart import (
    CROWDED,
    DECADES,
    WORSE,
    Axis,
    Cells,
    Chart,
    ColourScale,
    Limits,
    Panel,
    Reference,
    Series,
    edges,
    limits_of_y,
    number,
    of_runs,
    percentile_limits,
    roomy,
)
from experiments.report.drawing import (
    left_out_note,
    name_extremes,
    plural,
    seeds_note,
)
from experiments.report.facets import (
    BLOCK,
    MOST_PANELS,
    STEP,
    Facet,
    Grid,
    by_block,
    comparable,
    each_alone,
    facets_of,
    fit_for_panels,
    frames_of,
    grid_of,
    lost_note,
    switched_by_rate,
)
from experiments.report.headings import (
    MEDIANS_FROM,
    Uneven,
    title_of_maps,
)
from experiments.report.losses import thinned
from experiments.report.style import on_scale
from normscope.stats import described

GRAD_NORM = described("grad_norm")
RATIO = Axis("last block / first block", "log")


def with_blocks(arm: Arm) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs that have them."""
    tables = [on_scale(history.blocks) for history in arm.histories if not history.blocks.empty]
    return [table.where(np.isfinite(table) & (table > 0)) for table in tables]


def gradients_by_layer(layout: Layout) -> Chart | None:
    """Gradient norm of each block, at the steps of a slider."""
    layout = layout.thinned(MOST_PANELS)
    facets, grid = facets_of(layout, with_blocks), grid_of(layout)
    if not facets:
        return None
    tables = {facet.keys: with_blocks(facet.arm) for facet in facets}
    most = most_uneven(facets)
    frames = frames_of([t for each in tables.values() for t in each], len(facets), most.step)
    panels, scale = scaled(
        blocks_panels(facets, grid, tables, frames),
        Axis("gradient norm", "log"),
        bool(grid.rows),
        titled(facets, most),
    )
    return Chart(
        "gradients_by_layer",
        most.words() or "Gradient norm by block",
        "A flat line: every block gets the same gradient. Move the slider to see how training "
        "changes it.",
        f"{GRAD_NORM.axis.capitalize()}, before clipping. {scale}"
        f"{seeds_note([f.arm for f in facets])}{most.range_note}{lost_note(facets)}"
        f"{left_out_note(layout)}",
        f"Gradient norm by block. Last block over the first at step {frames[-1]}: "
        f"{name_extremes(ratios_at(facets, frames[-1]))}.",
        panels,
        BLOCK,
        Axis("gradient norm", "log"),
        grid.rows,
        grid.columns,
        frame=most.step,
    )


Titled = set[tuple[tuple[str, ...], int | None]]


def titled(facets: Sequence[Facet], most: Uneven) -> Titled:
    """The keys and the frame of the series whose values a heading has."""
    keys = [facet.keys for facet in facets if most.label in ("", facet.label)]
    return {(key, frame) for key in keys for frame in (None, most.step)}


def scaled(
    panels: Sequence[Panel], axis: Axis, by_row: bool, shown: Titled
) -> tuple[list[Panel], str]:
    """Panels with scales that no single arm takes from the others, and a sentence about them.

    All share one scale, unless it is more than WORSE times as wide as one of them needs: then each
    row, or each panel, has its own.

    shown  series that leave no scale
    """
    groups: dict[int, list[Panel]] = {}
    for index, panel in enumerate(panels):
        groups.setdefault(panel.row if by_row else index, []).append(panel)

    def limits_of(group: Sequence[Panel]) -> Limits:
        values = [
            value
            for panel in group
            for series in panel.series
            if (series.keys, series.frame) in shown
            for value in series.middle
            if math.isfinite(value) and value > 0
        ]
        return limits_of_y(group, replace(axis, shows=(*axis.shows, *values)))

    limits, common = {place: limits_of(group) for place, group in groups.items()}, limits_of(panels)
    widths = [math.log(high / low) for low, high in limits.values()]
    if math.log(common[1] / common[0]) <= WORSE * min(widths):
        note = "" if len(panels) == 1 else "All panels have one scale. "
        return [replace(panel, y=replace(axis, limits=common)) for panel in panels], note
    note = f"Each {'row of panels' if by_row else 'panel'} has its own scale. "
    return [
        replace(panel, y=replace(axis, limits=limits[place]))
        for place, group in groups.items()
        for panel in group
    ], note


def blocks_panels(
    facets: Sequence[Facet],
    grid: Grid,
    tables: dict[tuple[str, ...], list[pd.DataFrame]],
    frames: Sequence[int],
) -> list[Panel]:
    """A panel for each place that has arms, each arm a series at each step.

    Where the numbers of blocks differ, each panel has as many blocks as its arms.
    """
    panels = [
        Panel(
            [s for f in inside for s in by_block(f, tables[f.keys], frames)],
            *(place.row, place.column, place.title),
        )
        for index, place in enumerate(grid.places)
        if (inside := [facet for facet in facets if facet.panel == index])
    ]
    blocks = [sorted({x for series in panel.series for x in series.x}) for panel in panels]
    if len({tuple(each) for each in blocks}) < 2:
        return panels
    return [
        replace(panel, x=replace(BLOCK, limits=roomy(each, "linear", 0.02)))
        for panel, each in zip(panels, blocks, strict=True)
    ]


def of_several_blocks(facet: Facet) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs whose first block is not the last."""
    return [table for table in with_blocks(facet.arm) if table.shape[1] > 1]


def ratios_of(facet: Facet) -> pd.DataFrame:
    """Last block's gradient norm over the first's by step.

    Columns: `shown`, the ratio of the medians over the runs, which figures by block show; `low` and
    `high`, the ratios of the runs; `runs`, how many were measured. Two runs are shown themselves,
    not their median: of them `shown` is the ratio nearer to 1, which both reach, and 1 where they
    differ in direction.
    """
    tables = of_several_blocks(facet)
    if not tables:
        return pd.DataFrame(columns=["shown", "low", "high", "runs"], dtype=float)
    last, first = (pd.concat([t.iloc[:, end] for t in tables], axis=1) for end in (-1, 0))
    ratios = pd.concat([t.iloc[:, -1] / t.iloc[:, 0] for t in tables], axis=1).sort_index()
    low, high = ratios.min(axis=1), ratios.max(axis=1)
    shown = last.median(axis=1) / first.median(axis=1)
    if len(tables) == 2:
        shown = low.where(low > 1, high.where(high < 1, 1.0))
    table = pd.DataFrame({"shown": shown, "low": low, "high": high, "runs": len(tables)})
    return table.where(np.isfinite(table) & (table > 0)).dropna()


def ratios_at(facets: Sequence[Facet], step: int) -> list[tuple[float, str]]:
    """The ratio of each arm at a step, with words."""
    shown = [(ratios_of(facet)["shown"], facet.label) for facet in facets]
    ratios = [(float(each.get(step, math.nan)), label) for each, label in shown]
    return [(ratio, f"{label} {number(ratio)}") for ratio, label in ratios]


def most_uneven(facets: Sequence[Facet]) -> Uneven:
    """At which arm and step, of all steps, the last and the first block differ most.

    Arms that are lost count only among such.
    """
    found = []
    for facet in comparable(facets):
        ratios = ratios_of(facet)
        if not ratios.empty:
            step = np.abs(np.log(ratios["shown"])).idxmax()
            shown, low, high, runs = ratios.loc[step].tolist()
            label = facet.label if len(facets) > 1 else ""
            found.append(Uneven(shown, low, high, int(runs), label, int(step)))
    most = max(found, key=lambda each: abs(math.log(each.ratio)), default=Uneven())
    return replace(most, step=None) if 0.5 <= most.ratio <= 2 else most


def gradient_maps(layout: Layout) -> Chart | None:
    """Gradient norm over steps and blocks, every arm on one colour scale."""
    layout, note = fit_for_panels(layout)
    facets = facets_of(layout, lambda arm: [t for t in with_blocks(arm) if len(t) > 1])
    if not facets:
        return None
    facets = with_rates(facets, layout)
    tables = [medians_of(with_blocks(facet.arm)) for facet in facets]
    grid = each_alone(facets, layout)
    limits = colours_of_most(tables)
    beyond = [beyond_colours(table, limits) for table in tables]
    maps = [
        cells_of(table, facet.keys, step)
        for table, facet, (_, step) in zip(tables, facets, beyond, strict=True)
    ]
    of_most, for_arms = "", ""
    if len(maps) > 1:
        of_most, for_arms = " of most arms", f" for {plural(len(maps), 'arm')}"
    further = ""
    if any(words for words, _ in beyond):
        further = " A panel whose values go further says how far: they have the colour of that end."
    heights = [(edges(cells.y)[0], edges(cells.y)[-1]) for cells in maps]
    return Chart(
        "gradient_maps",
        title_of_maps(maps, facets, limits[1]),
        "Each row is a block, time runs to the right. One colour throughout: nothing changes. A "
        "dark row among brighter ones: that block gets little of the gradient.",
        f"Colours reach from the 1st to the 99th percentile{of_most}.{further} Empty: not measured "
        f"or not finite. {middle_note([f.arm for f in facets])}Before clipping.{note}",
        f"Heat maps of the gradient norm by block and step{for_arms}, on a scale from "
        f"{number(limits[0])} to {number(limits[1])}.",
        [
            Panel(
                (),
                *(place.row, place.column, f"{place.title}{words}"),
                y=None if len(set(heights)) == 1 else replace(BLOCK, limits=height),
                cells=cells,
            )
            for place, cells, (words, _), height in zip(
                grid.places, maps, beyond, heights, strict=True
            )
        ],
        STEP,
        BLOCK,
        colours=ColourScale(GRAD_NORM.axis, limits, "log", "little gradient", "much gradient"),
    )


def with_rates(facets: Sequence[Facet], layout: Layout) -> list[Facet]:
    """Arms that are shown at their best learning rate alone, with that rate where it differs."""
    rates = [shared(runs_of([facet.arm]), RATE) for facet in facets]
    if RATE in layout.factors or len({*rates}) < 2:
        return [*facets]
    return [
        replace(facet, label=f"{facet.label} {setting_words(RATE, rate)}")
        for facet, rate in zip(switched_by_rate(facets), rates, strict=True)
    ]


def colours_of_most(tables: Sequence[pd.DataFrame]) -> Limits:
    """The ends of a colour scale that no arm takes from the others.

    Each arm needs its own percentiles. The scale begins with the narrowest one that holds half of
    the arms. Then those join, the nearest first, with which it is at most WORSE times as wide, or
    has few DECADES where there are few arms.
    """
    values = [table.to_numpy(dtype=float) for table in tables]
    needs = [percentile_limits(v, "log") for v in values if np.isfinite(v).any()]
    if not needs:
        return 1.0, 10.0

    def width(ends: Limits) -> float:
        return math.log(ends[1] / ends[0])

    def joined(one: Limits, other: Limits) -> Limits:
        return min(one[0], other[0]), max(one[1], other[1])

    def holds(ends: Limits) -> int:
        return sum(joined(ends, each) == ends for each in needs)

    pairs = itertools.product({low for low, _ in needs}, {high for _, high in needs})
    scales = [(low, high) for low, high in pairs if low < high]
    scale = min((s for s in scales if 2 * holds(s) >= len(needs)), key=width)
    most = WORSE * width(scale)
    if len(needs) <= CROWDED:
        most = max(most, DECADES * math.log(10))
    for each in sorted(needs, key=lambda each: width(joined(scale, each))):
        if width(joined(scale, each)) <= most:
            scale = joined(scale, each)
    return scale


def beyond_colours(table: pd.DataFrame, limits: Limits) -> tuple[str, int | None]:
    """How far an arm goes that a colour scale does not hold, in words, and at which step."""
    values = table.to_numpy(dtype=float)
    shown = values[np.isfinite(values)]
    if not shown.size:
        return "", None
    low, high = percentile_limits(values, "log")
    below, above = limits[0] / low, high / limits[1]
    if max(below, above) <= 1:
        return "", None
    end = shown.min() if below > above else shown.max()
    step = table.index[np.flatnonzero((values == end).any(axis=1))[0]]
    ends = [(below, "down", shown.min()), (above, "up", shown.max())]
    texts = [f"{way} to {number(float(value))}" for factor, way, value in ends if factor > 1]
    return f": {' and '.join(texts)}", int(step)


def middle_note(arms: Sequence[Arm]) -> str:
    """What a cell shows, which has room for one number; empty of one run."""
    most = max(len(arm.histories) for arm in arms)
    if most == 1:
        return "One run per arm. " if len(arms) > 1 else ""
    of_each = " of each arm" if len(arms) > 1 else ""
    return f"{'Mean of two runs' if most == 2 else 'Median over the runs'}{of_each}. "


def medians_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The median over the runs that were measured, by step and block; runs may differ in both."""
    steps = sorted(set().union(*(table.index for table in tables)))
    layers = sorted(set().union(*(table.columns for table in tables)))
    values = np.stack([t.reindex(index=steps, columns=layers).to_numpy() for t in tables])
    medians = np.full(values.shape[1:], np.nan)
    measured = np.isfinite(values).any(axis=0)  # nanmedian warns about columns without a number
    medians[measured] = np.nanmedian(values[:, measured], axis=0)
    return pd.DataFrame(medians, index=steps, columns=layers)


def cells_of(medians: pd.DataFrame, keys: tuple[str, ...], step: int | None) -> Cells:
    """A map of an arm, thinned after its medians were taken; `step` stays, which a title has."""
    shown = thinned(medians, step)
    blocks = [float(layer) + 1 for layer in shown.columns]
    steps = [float(at) for at in shown.index]
    return Cells(steps, blocks, shown.to_numpy().T.tolist(), keys=keys)


def gradient_ratio(layout: Layout) -> Chart | None:
    """Last block's gradient norm over the first's, through training."""
    layout = layout.thinned(MOST_PANELS)
    facets = facets_of(
        layout, lambda arm: [t for t in with_blocks(arm) if len(t) > 1 and t.shape[1] > 1]
    )
    if not facets:
        return None
    grid, most = grid_of(layout), most_uneven(facets)
    panels = [
        Panel(
            [
                series
                for facet in facets
                if facet.panel == index
                if (series := ratio_series(facet, most.step)) is not None
            ],
            *(place.row, place.column, place.title),
            references=[Reference("equal", y=1.0)],
        )
        for index, place in enumerate(grid.places)
    ]
    panels, scale = scaled(panels, RATIO, bool(grid.rows), titled(facets, most))
    steps = sorted({int(step) for f in facets for t in with_blocks(f.arm) for step in t.index})
    return Chart(
        "gradient_ratio",
        most.words() or "Last block against the first",
        "Above 1 the last block gets the larger gradient, below 1 the first.",
        f"{scale}{ratio_note([f.arm for f in facets])}{most.range_note}{lost_note(facets)}"
        f"{left_out_note(layout)}",
        "Gradient norm of the last block over the first's; at the last step: "
        f"{name_extremes(ratios_at(facets, steps[-1]))}.",
        panels,
        STEP,
        RATIO,
        grid.rows,
        grid.columns,
    )


def ratio_note(arms: Sequence[Arm]) -> str:
    """What the lines are of, in a sentence."""
    if max(len(arm.histories) for arm in arms) < MEDIANS_FROM:
        return seeds_note(arms)
    return (
        "Line: the last block's median over the runs, divided by the first's; band: the range of "
        f"the ratios of single runs. {seeds_note(arms)}"
    )


def ratio_series(facet: Facet, step: int | None) -> Series | None:
    """The ratio of an arm by step, that of `step` among them: the one that a heading has."""
    tables = of_several_blocks(facet)
    ratios = [on_scale(table.iloc[:, -1] / table.iloc[:, 0]) for table in tables]
    curves = [ratio[np.isfinite(ratio) & (ratio > 0)] for ratio in ratios]
    # Runs of different lengths keep the same steps: at each the same runs are compared.
    steps = thinned(pd.concat(curves, axis=1).sort_index(), step).index
    shown = [curve[curve.index.isin(steps)] for curve in curves]
    series = of_runs(facet.name, facet.look, shown, keys=facet.keys)
    if series is None or series.runs < MEDIANS_FROM:
        return series
    medians = on_scale(ratios_of(facet)["shown"])
    return replace(series, y=medians.reindex([int(x) for x in series.x]).tolist())
