"""How the report draws: colours, panels, legends, and the text below a figure."""

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from experiments.analysis.arms import Arm, Layout
from experiments.analysis.histories import BITS, Unit
from experiments.analysis.numbers import Band, loss_text
from experiments.analysis.runs import Value
from experiments.analysis.tuning import layout_at_best, tune
from experiments.report.lettering import fold
from experiments.report.style import (
    COLOURS,
    DASHES,
    LEGEND,
    MARKS,
    mark_leaving,
    panels,
    whole_numbers,
)

# Used for nothing else: the dark variant of a figure replaces these two colours in its SVG.
INK, PAPER = "#1b1e23", "#fffffe"
STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "legend.facecolor": PAPER,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "svg.hashsalt": "normscope",  # the same ids in every run, so that files can be compared
}
ONE_PANEL, MANY_PANELS = (6.6, 4.0), (3.3, 2.7)
ONE_CROWDED, MANY_CROWDED = (8.6, 5.4), (4.6, 3.6)
MOST_COLUMNS = 4
ARM_COLOURS = COLOURS[:-1]  # without black, which is for lines that are no arm
MOST_PANELS = 12  # of a figure whose panels have several arms each
MOST_ARMS = 48  # of a figure with a panel for each arm
MOST_DESCRIBED = 8  # arms in the text of a figure
TITLE_WIDTH, LABEL_WIDTH = 42, 60  # characters in a line of a panel's title, and of a legend
MOST_ENTRIES = 4  # lines of a legend for which a figure has room beside its panels

INCOMPARABLE = "Nats per token of different tokenizers or texts cannot be compared"

T = TypeVar("T")


@dataclass
class ReportFigure:
    """A figure with its file name, its title, its caption, and its text for readers without it."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def colours(levels: Sequence[Value]) -> list[Any]:
    """A colour for each level: a colour scale for many numbers, else distinct colours."""
    if len(levels) > 4 and all(isinstance(level, int | float) for level in levels):
        # The ends of the map are left out: they are too close to the page, dark or light.
        return [mpl.colormaps["viridis"](x) for x in np.linspace(0.05, 0.85, len(levels))]
    return [ARM_COLOURS[index % len(ARM_COLOURS)] for index in range(len(levels))]


@dataclass(frozen=True)
class Line:
    """How the runs of one level of the colour factor are drawn."""

    level: Value
    label: str
    colour: Any
    mark: str
    dash: Any = "-"
    fill: Any = None  # of the mark; None: the colour
    band: float = 0.18  # opacity of the range over seeds

    @property
    def style(self) -> dict[str, Any]:
        return {
            "color": self.colour,
            "marker": self.mark,
            "linestyle": self.dash,
            "markerfacecolor": self.fill or self.colour,
        }


def lines_of(layout: Layout) -> list[Line]:
    """One line style for each level of the colour factor."""
    levels = layout.colour_levels
    return lines_for(levels, [layout.colour_label(level) for level in levels])


def lines_for(levels: Sequence[Value], labels: Sequence[str]) -> list[Line]:
    """One line style for each level.

    Six colours with seven marks make 42 different pairs; where colours repeat, the dashes differ
    too, and every second time the marks are hollow.
    """
    lines = []
    for index, (level, colour) in enumerate(zip(levels, colours(levels), strict=True)):
        repeat = index // len(ARM_COLOURS) if colour in ARM_COLOURS else 0
        line = Line(
            level,
            fold(labels[index], LABEL_WIDTH),
            colour,
            MARKS[index % len(MARKS)],
            DASHES[repeat % len(DASHES)],
            PAPER if repeat % 2 else None,
            0.06 if len(levels) > len(ARM_COLOURS) else 0.18,
        )
        lines.append(line)
    return lines


def is_crowded(layout: Layout) -> bool:
    """Whether a panel has more lines than there are colours.

    Then panels are drawn larger, and each line with fewer details.
    """
    return len(layout.colour_levels) > len(ARM_COLOURS)


def small_multiples(layout: Layout) -> tuple[Figure, list[Axes]]:
    """A figure with one axis for each panel; axes without a panel are hidden."""
    count = len(layout.panels)
    if is_crowded(layout):
        columns = min(count, 2 if count <= 4 else 3)
        size = ONE_CROWDED if count == 1 else MANY_CROWDED
    else:
        columns = min(count, MOST_COLUMNS)
        size = ONE_PANEL if count == 1 else MANY_PANELS
    rows = math.ceil(count / columns)
    figure, axes = panels(rows, columns, size)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def side_by_side(layout: Layout) -> tuple[Figure, list[tuple[Axes, Arm]]]:
    """A panel for each arm; with few colours, the arms of one colour form a column."""
    arms = [
        (panel, line, layout.arm(panel, line.level))
        for panel in layout.panels
        for line in lines_of(layout)
    ]
    in_rows = len(layout.panels) > 1 and len(layout.colour_levels) <= MOST_COLUMNS
    columns = len(layout.colour_levels) if in_rows else min(len(arms), MOST_COLUMNS)
    if in_rows and 2 * columns <= MOST_COLUMNS:  # two panels of the layout in one row
        columns *= 2
    rows = math.ceil(len(arms) / columns)
    figure, axes = panels(rows, columns, ONE_PANEL if len(arms) == 1 else MANY_PANELS)
    axes_with_arms = []
    for axis, (_, _, arm) in zip(axes[: len(arms)], arms, strict=True):
        if arm is None:
            axis.set_visible(False)
        else:
            axis.set_title(fold(arm.label, TITLE_WIDTH), fontsize=8.5)
            whole_numbers(axis)
            axes_with_arms.append((axis, arm))
    for axis in axes[len(arms) :]:
        axis.set_visible(False)
    return figure, axes_with_arms


def fit_for_panels(layout: Layout) -> tuple[Layout, str]:
    """The part of a layout that a figure with a panel for each arm can show, and a note about it.

    Where there are too many arms, each is shown at its best learning rate alone.
    """
    is_large = is_crowded(layout) or len(layout.by_key) > MOST_ARMS
    note = ""
    if is_large and len(tune(layout)) > 1:
        best = layout_at_best(layout)
        note = f" Only the best learning rate of each arm, {len(best.by_key)} of "
        note += f"{len(layout.by_key)}."
        layout = best
    layout = layout.thinned(max(1, MOST_ARMS // len(layout.colour_levels)))
    return layout, note + left_out_note(layout)


def share_scales(axes: Sequence[Axes], x: bool = False) -> None:
    """Give all panels one y scale, and with `x` one x scale; numbers stand left of each row."""
    for axis in axes[1:]:
        axis.sharey(axes[0])
        if x:
            axis.sharex(axes[0])
        if not grid_cell(axis).is_first_col():
            axis.tick_params(which="both", labelleft=False)


def grid_cell(axis: Axes) -> SubplotSpec:
    """The cell of a panel in the grid of its figure."""
    cell = axis.get_subplotspec()
    assert cell is not None
    return cell


def label_axes(axes: Sequence[Axes], x: str, y: str) -> None:
    """Label the y axis at the left of each row and the x axis below each column."""
    visible = [axis for axis in axes if axis.get_visible()]
    lowest = {grid_cell(axis).colspan.start: axis for axis in visible}  # the last row wins
    for axis in visible:
        if grid_cell(axis).is_first_col():
            axis.set_ylabel(textwrap.fill(y, 27))
    for axis in lowest.values():
        axis.set_xlabel(x)


def title_panels(axes: Sequence[Axes], layout: Layout, x: str, y: str) -> None:
    """Give each panel its title, and label the axes."""
    for axis, panel in zip(axes, layout.panels, strict=True):
        axis.set_title(fold(layout.panel_title(panel), TITLE_WIDTH))
    label_axes(axes, x, y)


def add_legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend above all panels, at the left: a narrow screen shows that part first."""
    columns = legend_columns(figure, handles)
    entries = math.ceil(sum(label.count("\n") + 1 for label in map(label_of, handles)) / columns)
    more = max(0, entries - MOST_ENTRIES) * 1.5 * STYLE["legend.fontsize"] / 72
    figure.set_figheight(figure.get_figheight() + more)
    figure.legend(
        handles=list(handles), loc="outside upper left", ncols=columns, handlelength=3, **LEGEND
    )


def label_of(handle: Any) -> str:
    """What a legend says of a handle."""
    return str(handle.get_label())


def legend_columns(figure: Figure, handles: Sequence[Any]) -> int:
    """As many columns as fit side by side: four at most, in a narrow figure three.

    A letter is taken as 0.6 em wide, and a key with its spaces as 6.5 em.
    """
    lengths = [max(map(len, label_of(handle).split("\n"))) for handle in handles]
    em = STYLE["legend.fontsize"] / 72  # in inches
    for columns in range(4 if figure.get_figwidth() > 8 else 3, 1, -1):
        parts = np.array_split(lengths, columns)  # matplotlib fills column after column
        label_width = sum(0.6 * max(part, default=0) for part in parts)
        if (label_width + 6.5 * columns) * em < figure.get_figwidth():
            return columns
    return 1


def legend_key(line: Line) -> Line2D:
    """A legend entry."""
    return Line2D([], [], markersize=4, label=line.label, **line.style)


def draw_band(axis: Axes, values: Band, line: Line, most_marks: int = 20, **style: Any) -> None:
    """Draw the median as a line and the range over seeds as a band."""
    values = values.thinned()
    if values.median.empty:
        return
    steps = values.median.index.to_numpy(dtype=float)
    axis.plot(
        steps,
        values.median,
        markersize=3.5,
        markevery=max(1, len(steps) // most_marks),
        linewidth=1.4,
        **line.style | style,
    )
    if (values.low < values.high).any():
        axis.fill_between(
            steps,
            values.low.to_numpy(),
            values.high.to_numpy(),
            color=line.colour,
            alpha=line.band,
            lw=0,
        )


def arms_with_data(
    layout: Layout, data_of: Callable[[Arm], list[T]]
) -> list[tuple[int, Line, Arm, list[T]]]:
    """Each arm with data: the index of its panel, its line style, the arm, and its runs' data."""
    cells = itertools.product(enumerate(layout.panels), lines_of(layout))
    arms = [(index, line, layout.arm(panel, line.level)) for (index, panel), line in cells]
    return [
        (index, line, arm, data)
        for index, line, arm in arms
        if arm is not None and (data := data_of(arm))
    ]


def seeds_note(arms: Sequence[Arm], shown: str = "Median and range") -> str:
    """A sentence about how many runs what is `shown` is of."""
    counts = sorted({len(arm.histories) for arm in arms})
    if counts == [1]:
        return "One run per arm."
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{shown} over {number} runs per arm."


def unit_note(unit: Unit) -> str:
    """A sentence about losses of different tokens, where runs have such."""
    if not unit.comparable:
        return f" {INCOMPARABLE}."
    return " Tokens differ between runs: bits per byte of text." if unit is BITS else ""


def left_out_note(layout: Layout) -> str:
    """A sentence about the panels that a figure does not show."""
    if not layout.left_out:
        return ""
    return f" {layout.left_out} of {layout.left_out + len(layout.panels)} panels are not shown."


def name_extremes(described: Sequence[tuple[float, str]]) -> str:
    """The descriptions of arms; of many, those with the least and the greatest number."""
    if len(described) <= MOST_DESCRIBED:
        return "; ".join(text for _, text in described)
    ordered = sorted(described, key=lambda item: (math.isnan(item[0]), item[0]))
    measured = [text for number, text in ordered if not math.isnan(number)] or [ordered[0][1]]
    return f"of {len(described)}, the least is {measured[0]}; the greatest {measured[-1]}"


def format_number(value: float) -> str:
    """A number with three digits, or why there is none."""
    if math.isnan(value):
        return "not measured"
    return "infinite" if math.isinf(value) else f"{value:z.3g}"


class AboveScale:
    """The curves that leave a figure at its top, and how high each goes."""

    def __init__(self) -> None:
        self.highest: dict[str, float] = {}  # by the arm's label

    def mark(self, axis: Axes, label: str, curve: pd.Series, colour: Any) -> None:
        """Mark where the curve leaves the panel, if it does."""
        height = mark_leaving(axis, curve, colour)
        if height is not None:
            self.highest[label] = max(height, self.highest.get(label, height))

    def handles(self) -> list[Line2D]:
        """The legend's entry for the marks."""
        if not self.highest:
            return []
        label = "goes above the scale"
        return [Line2D([], [], color=INK, marker="^", linestyle="", markersize=6, label=label)]

    def note(self) -> str:
        """A sentence that says how high they go."""
        if not self.highest:
            return ""
        described = [
            (height, f"{label} {loss_text(height, 0)}") for label, height in self.highest.items()
        ]
        return f" Above the scale, at the most: {name_extremes(described)}."


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count} {word}" if count == 1 else f"{'no' if count == 0 else count} {word}s"
