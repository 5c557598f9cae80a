"""The report's figures over learning rates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from experiments.analysis.arms import RATE, WARMUP, Arm, Key, Layout, label_value, numeric
from experiments.analysis.numbers import Band, loss_text, median
from experiments.analysis.runs import LOSS_ROSE, NOT_FINITE, Value
from experiments.analysis.tuning import TunedArm, tune
from experiments.report.drawing import (
    ARM_COLOURS,
    INK,
    MOST_PANELS,
    PAPER,
    TITLE_WIDTH,
    AboveScale,
    Line,
    ReportFigure,
    add_legend,
    draw_band,
    fit_for_panels,
    is_crowded,
    label_axes,
    left_out_note,
    lines_of,
    name_extremes,
    share_scales,
    side_by_side,
    small_multiples,
    unit_note,
)
from experiments.report.lettering import fold
from experiments.report.style import LEGEND, MARKS, loss_limits, panels

MOST_MAPS = 15
ENTRY_WIDTH = 34  # characters in a line of a legend within a panel


Cells = dict[tuple[Value, Value], Arm]  # arms by learning rate and warm-up


def rate_maps(layout: Layout) -> ReportFigure | None:
    """Final validation loss over learning rate and warm-up: a map for each arm, on one scale."""
    rates = numeric(layout.levels.get(RATE, []))
    warmups = numeric(layout.levels.get(WARMUP, []))
    if len(rates) < 2 or len(warmups) < 2:
        return None
    all_maps = cells_by_map(layout)
    maps = all_maps[:MOST_MAPS]
    tables = [median_losses(cells, rates, warmups) for _, cells in maps]
    finite = np.concatenate([table[np.isfinite(table)] for table in tables])
    if not finite.size:
        return None
    # Above the first losses that are alike, colours would show who starts where.
    top = loss_limits(starts_and_ends(layout))[1]
    norm = Normalize(finite.min(), max(finite.min(), min(finite.max(), top)))
    is_cut = bool(finite.max() > norm.vmax)
    columns = min(len(maps), 3)
    size = (max(3.4, 0.95 * len(warmups) + 0.9), max(2.8, 0.5 * len(rates) + 1.0))
    figure, axes = panels(math.ceil(len(maps) / columns), columns, size)
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    axes = axes[: len(maps)]
    best = []
    for axis, (name, cells), table in zip(axes, maps, tables, strict=True):
        mesh = draw_map(axis, table, norm, rates, warmups)
        axis.set_title(fold(name, TITLE_WIDTH))
        best_cell = find_least(table)
        for row, column in np.ndindex(table.shape):
            arm = cells.get((rates[row], warmups[column]))
            if arm is not None:
                loss = float(table[row, column])
                text = cell_text(arm, loss) + ("*" if best_cell == (row, column) else "")
                is_dark = math.isnan(loss) or norm(loss) < 0.55  # grey, or low on the colour map
                write_in_cell(axis, row, column, text, "#ffffff" if is_dark else "#000000")
        if best_cell is not None:
            row, column = best_cell
            edge = " (at the grid's edge)" if row in (0, len(rates) - 1) else ""
            setting = f"lr {rates[row]:g}{edge}, {warmups[column]} steps of warm-up"
            best.append(
                (float(table[best_cell]), f"{name}: {loss_text(table[best_cell])} at {setting}")
            )
    extend = "max" if is_cut else "neither"
    label = f"final validation loss ({layout.unit.name})"
    figure.colorbar(mesh, ax=axes, label=label, extend=extend)
    label_axes(axes, "steps of warm-up", "learning rate")
    extremes = name_extremes(best)
    caption = (
        "Seed median of min(final, initial) validation loss; a run that diverged counts with its "
        "initial loss. Below it the shares of runs that diverged (not finite, or the loss rose), "
        f"failed or are stuck (no better than token frequencies). Best of each arm (*): {extremes}."
        f"{unit_note(layout.unit)}"
    )
    if len(all_maps) > len(maps):
        caption += f" {len(all_maps) - len(maps)} of {len(all_maps)} maps are not shown."
    alt = f"Maps of the final validation loss over learning rate and warm-up. Best: {extremes}."
    return ReportFigure("lr_warmup_maps", "Learning rate and warm-up", caption, alt, figure)


def cells_by_map(layout: Layout) -> list[tuple[str, Cells]]:
    """The arms of each combination of the other factors, with its name."""
    others = [name for name in layout.factors if name not in (RATE, WARMUP)]
    maps: dict[Key, Cells] = {}
    for arm in layout.by_key.values():
        values = dict(zip(layout.factors, arm.key, strict=True))
        key = tuple(values[name] for name in others)
        maps.setdefault(key, {})[values[RATE], values[WARMUP]] = arm
    return [
        (", ".join(map(label_value, others, key)) or "all runs", cells)
        for key, cells in maps.items()
    ]


def median_losses(cells: Cells, rates: Sequence[float], warmups: Sequence[float]) -> np.ndarray:
    """Median losses (learning rates, warm-ups); nan where there are none."""
    return np.array(
        [
            [median(cells[r, w].capped_losses()) if (r, w) in cells else np.nan for w in warmups]
            for r in rates
        ]
    )


def find_least(table: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the least number; None without numbers."""
    if np.isnan(table).all():
        return None
    row, column = np.unravel_index(np.nanargmin(table), table.shape)
    return int(row), int(column)


def draw_map(
    axis: Axes,
    table: np.ndarray,
    norm: Normalize,
    rates: Sequence[float],
    warmups: Sequence[float],
) -> AxesImage:
    """Draw one map; cells without a number are grey."""
    axis.grid(False)
    axis.set_facecolor("0.6")
    axis.set_xticks(range(len(warmups)), [f"{w:g}" for w in warmups])
    axis.set_yticks(range(len(rates)), [f"{r:g}" for r in rates])
    return axis.imshow(
        np.ma.masked_invalid(table), norm=norm, cmap="viridis", aspect="auto", origin="lower"
    )


def starts_and_ends(layout: Layout) -> list[list[float]]:
    """The first and the last loss of each run that has both; the last as the figures count it."""
    histories = [history for arm in layout.by_key.values() for history in arm.histories]
    pairs = [(history.initial_loss, history.capped_loss) for history in histories]
    return [[a, b] for a, b in pairs if a is not None and b is not None]


def write_in_cell(axis: Axes, row: int, column: int, text: str, colour: str) -> None:
    """Write into the middle of a cell."""
    axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)


def cell_text(arm: Arm, value: float) -> str:
    """A cell's median, and the shares of runs that did not learn."""
    lines = ["no loss" if math.isnan(value) else loss_text(value, 2)]
    counts = {
        NOT_FINITE: arm.diverged(NOT_FINITE),
        LOSS_ROSE: arm.diverged(LOSS_ROSE),
        "failed": arm.count("failed"),
        "stuck": arm.stuck,
    }
    lines += [f"{count}/{len(arm.histories)} {name}" for name, count in counts.items() if count]
    return "\n".join(lines)


def rate_sensitivity(layout: Layout) -> ReportFigure | None:
    """Final validation loss against the learning rate, the best and the LR sensitivity of each arm.

    A star marks the best; a hollow one is at the edge of the arm's own learning rates.
    """
    tuned_by_key = {tuned.key: tuned for tuned in tune(layout) if tuned.losses}
    if not tuned_by_key:
        return None
    rates = numeric(layout.levels[RATE])
    crowded = is_crowded(layout) and layout.colour_factor != RATE
    draw_panels = own_panels if crowded else common_panels
    figure, curves, note = draw_panels(layout, tuned_by_key)
    axes = list(dict.fromkeys(axis for axis, *_ in curves))
    share_scales(axes, x=True)
    described = []
    for axis, tuned, line in curves:
        if crowded:
            draw_all_medians(axis, tuned_by_key.values())
        low = {rate: min(losses) for rate, losses in tuned.losses.items()}
        high = {rate: max(losses) for rate, losses in tuned.losses.items()}
        draw_band(axis, Band(*map(pd.Series, (tuned.medians, low, high))), line)
        if tuned.best is not None:
            mark = best_mark(line.colour, tuned.at_edge)
            axis.plot(tuned.best, tuned.medians[tuned.best], zorder=4, **mark)
        value = tuned.sensitivity(rates)
        entry = line.label
        if value is not None:
            best = tuned.describe_best()
            described.append((value, f"{tuned.label} {loss_text(value, 2)}, best at {best}"))
            entry += f": {loss_text(value, 2)}"
        if crowded:
            axis.set_title(fold(tuned.label, TITLE_WIDTH), fontsize=8.5)
            text = "" if value is None else f"sensitivity {loss_text(value, 2)}"
            axis.text(0.04, 0.96, text, transform=axis.transAxes, va="top", fontsize=8)
        else:
            label = fold(entry, ENTRY_WIDTH)
            axis.plot([], [], markersize=4, label=label, **line.style)
    limit = loss_limits(starts_and_ends(layout))[1]
    medians = [loss for _, tuned, _ in curves for loss in tuned.medians.values()]
    axes[0].set_ylim(*loss_limits([], [loss for loss in medians if loss <= limit]))
    above = AboveScale()
    for axis, tuned, line in curves:
        above.mark(axis, tuned.label, pd.Series(tuned.medians), line.colour)
    for axis in axes:
        if min(rates) > 0:
            axis.set_xscale("log")
        else:  # a rate of 0 stands as far from the least as that from 0
            axis.set_xscale("symlog", linthresh=min(rate for rate in rates if rate > 0))
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        if not crowded:
            axis.legend(title="LR sensitivity", title_fontsize=8, fontsize=8, **LEGEND)
    label_axes(axes, "learning rate", f"final validation loss ({layout.unit.name})")
    stars = [
        Line2D([], [], label=label, **best_mark(INK, at_edge))
        for at_edge, label in ((False, "best"), (True, "best, at the grid's edge"))
        if any(tuned.at_edge == at_edge for tuned in tuned_by_key.values())
    ]
    add_legend(figure, [*stars, *above.handles()])
    extremes = name_extremes(described) or "not known, since runs are missing"
    caption = (
        "Median and range over seeds of min(final, initial) validation loss; a star marks the "
        "least median, hollow at the grid's edge. LR sensitivity: its mean over the learning "
        "rates, minus the best (Wortsman et al. 2023, arXiv 2309.14322)."
        f"{' Grey: the other arms.' if crowded else ''}{above.note()}{unit_note(layout.unit)}{note}"
    )
    alt = f"Final validation loss against the learning rate. LR sensitivity: {extremes}."
    return ReportFigure("lr_sensitivity", "Sensitivity to the learning rate", caption, alt, figure)


def draw_all_medians(axis: Axes, tuned_arms: Iterable[TunedArm]) -> None:
    """Draw the medians of all arms as thin grey lines, to compare one with."""
    for tuned in tuned_arms:
        axis.plot(list(tuned.medians), list(tuned.medians.values()), color="0.6", linewidth=0.5)


# A figure, its curves (the panel, the arm, how it is drawn), and a note on what is not shown.
RateFigure = tuple[Figure, list[tuple[Axes, TunedArm, Line]], str]


def common_panels(layout: Layout, tuned_by_key: Mapping[Key, TunedArm]) -> RateFigure:
    """A figure in which arms of all colours share a panel."""
    inner = layout.without(RATE).thinned(MOST_PANELS)
    figure, axes = small_multiples(inner)
    names = [name for name in layout.factors if name != RATE]
    colour_factor = layout.colour_factor
    lines = lines_of(layout)
    if colour_factor == RATE:
        lines = [Line(None, "all runs", ARM_COLOURS[0], MARKS[0])]
    curves = []
    for axis, panel in zip(axes, inner.panels, strict=True):
        axis.set_title(fold(inner.panel_title(panel), TITLE_WIDTH))
        for line in lines:
            values = dict(zip(inner.panel_factors, panel, strict=True))
            values |= {layout.colour_factor: line.level} if layout.colour_factor else {}
            tuned = tuned_by_key.get(tuple(values[name] for name in names))
            if tuned is not None:
                curves.append((axis, tuned, line))
    return figure, curves, left_out_note(inner)


def own_panels(layout: Layout, tuned_by_key: Mapping[Key, TunedArm]) -> RateFigure:
    """A figure with a panel for each arm."""
    best, _ = fit_for_panels(layout)
    figure, panels_of_arms = side_by_side(best)
    colour_index = best.factors.index(layout.colour_factor or "")
    lines = {line.level: replace(line, band=0.18) for line in lines_of(layout)}
    curves = [
        (axis, tuned_by_key[arm.key], lines[arm.key[colour_index]]) for axis, arm in panels_of_arms
    ]
    return figure, curves, left_out_note(best)


def best_mark(colour: Any, at_edge: bool) -> dict[str, Any]:
    """The style of a star; a hollow one at the grid's edge."""
    return {
        "marker": "*",
        "markersize": 13,
        "linestyle": "",
        "color": colour,
        "markerfacecolor": PAPER if at_edge else colour,
    }
