"""How every picture looks: colours, marks, panels, scales."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from experiments.analysis.numbers import loss_text
from experiments.report.lettering import plain_text, warnings_of_ours

LEGEND: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none"}  # readable on top of lines
DPI = 150
SIMILAR_STARTS = 2.0  # losses that start higher than the least start by this factor leave a figure
LEAST, GREATEST = 1e-150, 1e150  # sizes that a scale shows, whose quotients are numbers, too


Numbers = TypeVar("Numbers", pd.DataFrame, "pd.Series[float]")


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; returns its path."""
    path.parent.mkdir(exist_ok=True)
    with warnings_of_ours(path.stem):
        plain_text(figure)
        figure.savefig(path, dpi=DPI)
    return path


def new_figure(columns: int = 1, rows: int = 1, width: float = 6.4) -> tuple[Figure, list[Axes]]:
    """A figure and its axes in the style of a run's pictures."""
    return panels(rows, columns, (width * (1 if columns == 1 else 0.8), 4.2))


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns panels, each of `size` in inches, and its axes row by row."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(True, alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def whole_numbers(*axes: Axes) -> None:
    """Steps and blocks are counted: no tick stands between two of them."""
    for axis in axes:
        locator = MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10))
        axis.xaxis.set_major_locator(locator)


def on_scale(values: Numbers) -> Numbers:
    """Numbers with those of a size beyond the scale's ends at these ends; zeros stay zeros."""
    numbers: Any = values
    ends = numbers.abs().clip(LEAST, GREATEST) * np.sign(numbers)
    shown: Numbers = ends.where(np.isfinite(numbers), numbers)
    return shown


def within_scale(values: Iterable[float]) -> list[float]:
    """Those that a linear scale can show."""
    return [float(value) for value in values if abs(value) <= GREATEST]


def loss_limits(
    curves: Iterable[Sequence[float]], levels: Iterable[float] = ()
) -> tuple[float, float]:
    """The part of the scale that holds the losses which can be compared.

    It ends at the highest start of a curve that ends no higher than it starts; of these starts,
    those beyond SIMILAR_STARTS times the least are left out. What is above it, or diverges, would
    squeeze all others into a line. Where no curve falls, it holds them whole. Never below 0.

    curves  losses in the order of their steps
    levels  heights of horizontal lines, which are shown if they are not above all others
    """
    levels = list(levels)
    finite = [values for curve in curves if (values := within_scale(curve))]
    starts = [curve[0] for curve in finite if curve[-1] <= curve[0]]
    if starts:
        most = SIMILAR_STARTS * min(starts)
        shown = [value for value in [*starts, *within_scale(levels)] if value <= most]
        top = max(shown, default=min(starts))
    else:
        top = max(itertools.chain(*finite, within_scale(levels)), default=1.0)
    top = 1.05 * top if top > 0 else 1.0
    low = min((v for v in itertools.chain(*finite, levels) if v <= top), default=0.0)
    return max(0.0, low - 0.05 * (top - low)), top


def mark_leaving(axis: Axes, curve: pd.Series, colour: Any) -> float | None:
    """Mark with a triangle where a curve leaves a panel at its top; gives how high it goes."""
    top = axis.get_ylim()[1]
    above = curve[np.isfinite(curve) & (curve > top)]
    if above.empty:
        return None
    axis.plot(above.index[0], top, "^", color=colour, markersize=6, clip_on=False, zorder=5)
    return float(above.max())


def mark_height(axis: Axes, curve: pd.Series, colour: str) -> None:
    """Mark where losses leave a panel, and write how high they go."""
    height = mark_leaving(axis, curve, colour)
    if height is not None:
        step = (curve == height).idxmax()
        style: dict[str, Any] = {"fontsize": 7, "color": colour, "textcoords": "offset points"}
        words = f"to {loss_text(height, 1 if height < 100 else 0)}"
        axis.annotate(words, (step, axis.get_ylim()[1]), (4, -8), **style)


def log_if_wide(*axes: Axes) -> None:
    """Give all axes a log scale where their data spans more than a factor of five."""
    filled = [axis.dataLim for axis in axes if math.isfinite(axis.dataLim.ymax)]
    low = min((limits.minposy for limits in filled), default=math.inf)
    high = max((limits.ymax for limits in filled), default=math.inf)
    if not 5 * low < high:
        return
    for axis in axes:
        axis.set_yscale("log")
        if high / low < 100:
            label_short_log_scale(axis.yaxis)


def label_short_log_scale(scale: Axis) -> None:
    """Numbers as they are spoken, between the powers of ten as well: of these it has one or two."""
    scale.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    scale.set_major_formatter("{x:g}")
    scale.set_minor_formatter("{x:g}")
