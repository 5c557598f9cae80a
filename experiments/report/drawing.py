"""How the report draws: colours, panels, legends, and the words beside a figure."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.analysis.arms import Arm, Key, Layout
from experiments.analysis.numbers import Band
from experiments.analysis.runs import Value
from experiments.analysis.tuning import at_best, tune
from experiments.report.style import COLOURS, DASHES, LEGEND, MARKS, panels

INK, PAPER = "#1b1e23", "#fffffe"  # stand for nothing else, so that a dark page can replace them
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
    "svg.hashsalt": "normscope",
}
ONE_PANEL, MANY_PANELS = (6.6, 4.0), (3.3, 2.7)
ONE_CROWDED, MANY_CROWDED = (8.6, 5.4), (4.6, 3.6)
MOST_COLUMNS = 4
HUES = COLOURS[:-1]  # without black, which stands for what is no arm
MOST_PANELS, MOST_ARMS = 12, 48  # of a figure with a panel for several arms, for each arm
MOST_TOLD = 8  # arms in a figure's words


@dataclass
class Drawn:
    """A figure with its name as a file, its title, and what it shows in words."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def colours(hues: Sequence[Value]) -> list[Any]:
    """A colour for each level: a scale for many numbers, else distinct ones."""
    if len(hues) > 4 and all(isinstance(hue, int | float) for hue in hues):
        return [mpl.colormaps["viridis"](place) for place in np.linspace(0.05, 0.85, len(hues))]
    return [HUES[index % len(HUES)] for index in range(len(hues))]


@dataclass(frozen=True)
class Line:
    """How the runs of one level are drawn."""

    hue: Value
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
    """One line style for each level: where colours come again, dashes and hollow marks differ.

    Six colours and seven marks make 42 pairs.
    """
    return lines_for(layout.hues, [layout.hue_label(hue) for hue in layout.hues])


def lines_for(hues: Sequence[Value], labels: Sequence[str]) -> list[Line]:
    """One line style for each level, as above."""
    lines = []
    for index, (hue, colour) in enumerate(zip(hues, colours(hues), strict=True)):
        turn = index // len(HUES) if colour in HUES else 0
        line = Line(
            hue,
            labels[index],
            colour,
            MARKS[index % len(MARKS)],
            DASHES[turn % len(DASHES)],
            PAPER if turn % 2 else None,
            0.06 if len(hues) > len(HUES) else 0.18,
        )
        lines.append(line)
    return lines


def is_crowded(layout: Layout) -> bool:
    """Whether a panel holds more lines than there are colours: it is larger and shows less each."""
    return len(layout.hues) > len(HUES)


def small_multiples(layout: Layout) -> tuple[Figure, list[Axes]]:
    """Axes for the panels, on one scale; those left over are hidden."""
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
    """A panel for each arm: one colour's arms below each other, where there are few colours."""
    arms = [
        (panel, line, layout.arm(panel, line.hue))
        for panel in layout.panels
        for line in lines_of(layout)
    ]
    in_rows = len(layout.panels) > 1 and len(layout.hues) <= MOST_COLUMNS
    columns = len(layout.hues) if in_rows else min(len(arms), MOST_COLUMNS)
    if in_rows and 2 * columns <= MOST_COLUMNS:  # two rows of the grid beside each other
        columns *= 2
    rows = math.ceil(len(arms) / columns)
    figure, axes = panels(rows, columns, ONE_PANEL if len(arms) == 1 else MANY_PANELS)
    placed = []
    for axis, (_, _, arm) in zip(axes, arms, strict=False):
        if arm is None:
            axis.set_visible(False)
        else:
            axis.set_title(arm.label, fontsize=8.5)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            placed.append((axis, arm))
    for axis in axes[len(arms) :]:
        axis.set_visible(False)
    return figure, placed


def fit_for_panels(layout: Layout) -> tuple[Layout, str]:
    """For a figure with a panel for each arm: what it shows of the layout, and what it leaves out.

    Of too many arms that have several learning rates, each is shown at its best.
    """
    many = is_crowded(layout) or len(layout.by_key) > MOST_ARMS
    note = ""
    if many and len(tune(layout)) > 1:
        shown = at_best(layout)
        note = f" Each arm at its best learning rate alone, {len(shown.by_key)} of "
        note += f"{len(layout.by_key)}."
        layout = shown
    layout = layout.thinned(max(1, MOST_ARMS // len(layout.hues)))
    return layout, note + left_out_note(layout)


def share_scales(axes: Sequence[Axes], x: bool = False) -> None:
    """One scale for all panels; numbers at the left of each row alone."""
    for axis in axes[1:]:
        axis.sharey(axes[0])
        if x:
            axis.sharex(axes[0])
        if not place_of(axis).is_first_col():
            axis.tick_params(which="both", labelleft=False)


def place_of(axis: Axes) -> SubplotSpec:
    """Where a panel stands in its figure."""
    place = axis.get_subplotspec()
    assert place is not None
    return place


def label_axes(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels at the left of each row and below each column."""
    shown = [axis for axis in axes if axis.get_visible()]
    lowest = {place_of(axis).colspan.start: axis for axis in shown}  # rows come in order
    for axis in shown:
        if place_of(axis).is_first_col():
            axis.set_ylabel(textwrap.fill(y, 27))
    for axis in lowest.values():
        axis.set_xlabel(x)


def title_panels(axes: Sequence[Axes], layout: Layout, x: str, y: str) -> None:
    """Titles of panels, and labels for all of them."""
    for axis, panel in zip(axes, layout.panels, strict=False):
        axis.set_title(layout.title(panel))
    label_axes(axes, x, y)


def add_legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend above all panels, at the left, where a narrow screen starts."""
    columns = legend_columns(figure, handles)
    figure.legend(
        handles=list(handles), loc="outside upper left", ncols=columns, handlelength=3, **LEGEND
    )


def legend_columns(figure: Figure, handles: Sequence[Any]) -> int:
    """As many as fit beside each other: four at most, in a narrow figure three."""
    lengths = [len(str(handle.get_label())) for handle in handles]
    em = STYLE["legend.fontsize"] / 72
    for columns in range(4 if figure.get_figwidth() > 8 else 3, 1, -1):
        parts = np.array_split(lengths, columns)  # as matplotlib fills them
        letters = sum(0.6 * max(part, default=0) for part in parts)
        if (letters + 6.5 * columns) * em < figure.get_figwidth():
            return columns
    return 1


def legend_key(line: Line) -> Line2D:
    """A legend entry."""
    return Line2D([], [], markersize=4, label=line.label, **line.style)


def draw_band(axis: Axes, values: Band, line: Line, most_marks: int = 20, **style: Any) -> None:
    """Median as a line and the range over seeds as a band."""
    kept = values.drawn()
    if kept.median.empty:
        return
    steps = kept.median.index.to_numpy(dtype=float)
    every = max(1, len(steps) // most_marks)
    axis.plot(
        steps,
        kept.median,
        markersize=3.5,
        markevery=every,
        linewidth=1.4,
        **line.style | style,
    )
    if (kept.low < kept.high).any():
        axis.fill_between(
            steps,
            kept.low.to_numpy(),
            kept.high.to_numpy(),
            color=line.colour,
            alpha=line.band,
            lw=0,
        )


def cells(layout: Layout) -> Iterator[tuple[int, Key, Line, Arm]]:
    """Each arm with the number of its panel."""
    for place, panel in enumerate(layout.panels):
        for line in lines_of(layout):
            arm = layout.arm(panel, line.hue)
            if arm is not None:
                yield place, panel, line, arm


def seeds_note(arms: Sequence[Arm]) -> str:
    """How many runs a median is over."""
    counts = sorted({len(arm.histories) for arm in arms})
    if counts == [1]:
        return "One run per arm."
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Median and range over {many} runs per arm."


def left_out_note(layout: Layout) -> str:
    """What a figure with too many panels does not show."""
    if not layout.left_out:
        return ""
    return f" {layout.left_out} of {layout.left_out + len(layout.panels)} panels are left out."


def name_extremes(said: Sequence[tuple[float, str]]) -> str:
    """What a figure shows of each arm, in words; of many, the least and the greatest."""
    if len(said) <= MOST_TOLD:
        return "; ".join(words for _, words in said)
    ordered = sorted(said, key=lambda item: (math.isnan(item[0]), item[0]))
    known = [words for number, words in ordered if not math.isnan(number)] or [ordered[0][1]]
    return f"of {len(said)}, the least is {known[0]}; the greatest {known[-1]}"


def format_number(value: float) -> str:
    """A number in words."""
    if math.isnan(value):
        return "not measured"
    return "infinite" if math.isinf(value) else f"{value:.3g}"


def plural(count: int, word: str) -> str:
    """A count with its word."""
    return f"{count} {word}" if count == 1 else f"{'no' if count == 0 else count} {word}s"
