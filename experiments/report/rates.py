"""The report's figures over learning rates."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analysis.arms import RATE, Arm, Key, Layout, label_value, numeric
from experiments.analysis.numbers import Band, median
from experiments.analysis.runs import Value
from experiments.analysis.tuning import Tuned, tune
from experiments.report.drawing import (
    HUES,
    INK,
    MOST_PANELS,
    PAPER,
    Drawn,
    Line,
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
)
from experiments.report.style import LEGEND, MARKS, panels

MOST_MAPS = 15
WARMUP = "schedule.warmup_steps"


def rate_maps(layout: Layout) -> Drawn | None:
    """Final validation loss over learning rate and warm-up, an arm a map, on one scale."""
    rates = numeric(layout.levels.get(RATE, []))
    warmups = numeric(layout.levels.get(WARMUP, []))
    if len(rates) < 2 or len(warmups) < 2:
        return None
    others = [name for name in layout.factors if name not in (RATE, WARMUP)]
    place = [layout.factors.index(name) for name in others]
    maps: dict[Key, dict[tuple[Value, Value], Arm]] = {}
    for arm in layout.by_key.values():
        values = dict(zip(layout.factors, arm.key, strict=True))
        key = tuple(arm.key[index] for index in place)
        maps.setdefault(key, {})[values[RATE], values[WARMUP]] = arm
    keys = list(maps)[:MOST_MAPS]
    medians = {
        key: np.array(
            [
                [
                    median(maps[key][r, w].capped_losses()) if (r, w) in maps[key] else np.nan
                    for w in warmups
                ]
                for r in rates
            ]
        )
        for key in keys
    }
    finite = np.concatenate([table[np.isfinite(table)] for table in medians.values()])
    if not finite.size:
        return None
    norm = Normalize(finite.min(), finite.max())
    columns = min(len(keys), 3)
    size = (max(3.4, 0.95 * len(warmups) + 0.9), max(2.8, 0.5 * len(rates) + 1.0))
    figure, axes = panels(math.ceil(len(keys) / columns), columns, size)
    notes, mesh = [], None
    for axis in axes[len(keys) :]:
        axis.set_visible(False)
    for axis, key in zip(axes, keys, strict=False):
        table = medians[key]
        axis.grid(False)
        axis.set_facecolor("0.6")
        mesh = axis.imshow(
            np.ma.masked_invalid(table), norm=norm, cmap="viridis", aspect="auto", origin="lower"
        )
        axis.set_xticks(range(len(warmups)), [f"{w:g}" for w in warmups])
        axis.set_yticks(range(len(rates)), [f"{r:g}" for r in rates])
        name = ", ".join(label_value(n, v) for n, v in zip(others, key, strict=True)) or "all runs"
        axis.set_title(name)
        best = None if np.isnan(table).all() else np.unravel_index(np.nanargmin(table), table.shape)
        for row, column in np.ndindex(table.shape):
            cell = maps[key].get((rates[row], warmups[column]))
            if cell is None:
                continue
            value = float(table[row, column])
            dark = np.isnan(value) or norm(value) < 0.55
            star = "*" if best == (row, column) else ""
            axis.text(
                column,
                row,
                cell_words(cell, value) + star,
                ha="center",
                va="center",
                fontsize=7.5,
                color="#ffffff" if dark else "#000000",
            )
        if best is not None:
            rate = rates[best[0]]
            edge = " (at the grid's edge)" if best[0] in (0, len(rates) - 1) else ""
            warm = f"{warmups[best[1]]} steps of warm-up"
            words = f"{name}: {table[best]:.3f} at lr {rate:g}{edge}, {warm}"
            notes.append((float(table[best]), words))
    if mesh is not None:
        figure.colorbar(mesh, ax=axes[: len(keys)], label="final validation loss (nats)")
    label_axes(axes[: len(keys)], "steps of warm-up", "learning rate")
    best_words = name_extremes(notes)
    caption = (
        "Seed median of min(final, initial) validation loss; a run that diverged counts with its "
        "initial loss. Shares of runs that diverged, failed or are stuck (no better than token "
        f"frequencies) stand in the cell. Best of each arm (*): {best_words}."
    )
    if len(maps) > len(keys):
        caption += f" {len(maps) - len(keys)} of {len(maps)} maps are left out."
    alt = f"Maps of the final validation loss over learning rate and warm-up. Best: {best_words}."
    return Drawn("lr_warmup_maps", "Learning rate and warm-up", caption, alt, figure)


def cell_words(arm: Arm, value: float) -> str:
    """A cell's median, and the share of runs that did not learn."""
    words = ["no loss" if math.isnan(value) else f"{value:.2f}"]
    counts = {
        "diverged": arm.count("diverged"),
        "failed": arm.count("failed"),
        "stuck": arm.stuck,
    }
    words += [f"{count}/{len(arm.histories)} {name}" for name, count in counts.items() if count]
    return "\n".join(words)


def rate_sensitivity(layout: Layout) -> Drawn | None:
    """Final validation loss against the learning rate, the best and the LR sensitivity of each arm.

    A star is the best, hollow where it lies at the edge of the arm's own learning rates.
    """
    tuned = {one.key: one for one in tune(layout) if one.losses}
    if not tuned:
        return None
    rates = numeric(layout.levels[RATE])
    crowded = is_crowded(layout) and layout.hue != RATE
    place = own_panels if crowded else common_panels
    figure, placed, left_out = place(layout, tuned)
    axes = list(dict.fromkeys(axis for axis, *_ in placed))
    share_scales(axes, x=True)
    notes = []
    for axis, one, line in placed:
        for other in tuned.values() if crowded else ():
            axis.plot(list(other.medians), list(other.medians.values()), color="0.6", linewidth=0.5)
        low, high = ({rate: end(v) for rate, v in one.losses.items()} for end in (min, max))
        draw_band(axis, Band(*map(pd.Series, (one.medians, low, high))), line)
        if one.best is not None:
            mark = best_mark(line.colour, one.at_edge)
            axis.plot(one.best, one.medians[one.best], zorder=4, **mark)
        value = one.sensitivity(rates)
        entry = line.label
        if value is not None:
            notes.append((value, f"{one.label} {value:.2f}, best at {one.where()}"))
            entry += f": {value:.2f}"
        if crowded:
            axis.set_title(one.label, fontsize=8.5)
            words = "" if value is None else f"sensitivity {value:.2f}"
            axis.text(0.04, 0.96, words, transform=axis.transAxes, va="top", fontsize=8)
        else:
            axis.plot([], [], markersize=4, label=entry, **line.style)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        if not crowded:
            axis.legend(title="LR sensitivity", title_fontsize=8, fontsize=8, **LEGEND)
    label_axes(axes, "learning rate", "final validation loss (nats)")
    stars = [
        Line2D([], [], label=words, **best_mark(INK, at_edge))
        for at_edge, words in ((False, "best"), (True, "best, at the grid's edge"))
        if any(one.at_edge == at_edge for one in tuned.values())
    ]
    add_legend(figure, stars)
    words = name_extremes(notes) or "the grid is not complete"
    caption = (
        "Median and range over seeds of min(final, initial) validation loss; a star marks the "
        "least median, hollow at the grid's edge. LR sensitivity: its mean over the learning "
        "rates, less its best (Wortsman et al. 2023, arXiv 2309.14322)."
        f"{' Grey: the other arms.' if crowded else ''}{left_out}"
    )
    alt = f"Final validation loss against the learning rate. LR sensitivity: {words}."
    return Drawn("lr_sensitivity", "Sensitivity to the learning rate", caption, alt, figure)


Placed = tuple[Figure, list[tuple[Axes, Tuned, Line]], str]


def common_panels(layout: Layout, tuned: Mapping[Key, Tuned]) -> Placed:
    """A figure in which arms of all colours share a panel: where each stands, what is left out."""
    inner = layout.without(RATE).thinned(MOST_PANELS)
    figure, axes = small_multiples(inner)
    names = [name for name in layout.factors if name != RATE]
    one_line = layout.hue == RATE
    lines = [Line(None, "all runs", HUES[0], MARKS[0])] if one_line else lines_of(layout)
    placed = []
    for axis, panel in zip(axes, inner.panels, strict=True):
        axis.set_title(inner.title(panel))
        for line in lines:
            values = dict(zip(inner.rest, panel, strict=True)) | {layout.hue: line.hue}
            one = tuned.get(tuple(values[name] for name in names))
            if one is not None:
                placed.append((axis, one, line))
    return figure, placed, left_out_note(inner)


def own_panels(layout: Layout, tuned: Mapping[Key, Tuned]) -> Placed:
    """A figure with a panel for each arm."""
    shown, _ = fit_for_panels(layout)
    figure, axes = side_by_side(shown)
    place = shown.factors.index(layout.hue or "")
    lines = {line.hue: replace(line, band=0.18) for line in lines_of(layout)}
    placed = [(axis, tuned[arm.key], lines[arm.key[place]]) for axis, arm in axes]
    return figure, placed, left_out_note(shown)


def best_mark(colour: Any, at_edge: bool) -> dict[str, Any]:
    """A star; hollow at the grid's edge."""
    return {
        "marker": "*",
        "markersize": 13,
        "linestyle": "",
        "color": colour,
        "markerfacecolor": PAPER if at_edge else colour,
    }
