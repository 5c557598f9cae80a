"""How every picture looks: colours, marks, panels, scales."""

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

# Okabe and Ito's palette, which colour-blind readers can distinguish; each has its own mark, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osD^vPX"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
LEGEND: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none"}  # readable on top of lines
DPI = 150


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; returns its path."""
    path.parent.mkdir(exist_ok=True)
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


def log_if_wide(*axes: Axes) -> None:
    """Give all axes a log scale where their data spans more than a factor of five."""
    low = min(axis.dataLim.minposy for axis in axes)
    high = max(axis.dataLim.ymax for axis in axes)
    if not (math.isfinite(high) and 5 * low < high):
        return
    for axis in axes:
        axis.set_yscale("log")
        if high / low < 100:
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
