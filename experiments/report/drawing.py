"""How the report draws: colours, panels, legends, and the text below a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analysis.arms import Arm, Layout
from experiments.analysis.histories import BITS, Unit
from experiments.analysis.numbers import Band
from experiments.analysis.runs import Value
from experiments.analysis.tuning import MOST_NAMED
from experiments.analysis.words import setting_words
from experiments.report.style import LEGEND

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
MOST_DESCRIBED = 8  # arms in the text of a figure
LABEL_WIDTH = 60  # characters in a line of a legend
MOST_ENTRIES = 4  # lines of a legend for which a figure has room beside its panels

# Said wherever the loss of such a run counts.
DIVERGED = (
    "A run that diverged has no final loss; where a number is needed, it counts with its initial "
    "loss."
)
INCOMPARABLE = "Nats per token of different tokenizers or texts cannot be compared"


@dataclass
class ReportFigure:
    """A figure with its file name, its title, its caption, and its text for readers without it."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


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


def seeds_note(arms: Sequence[Arm], noun: str = "arm") -> str:
    """A sentence about how many runs a line is of; on a page of one arm without this word."""
    counts = sorted({len(arm.histories) for arm in arms})
    per_arm, of_each = (f" per {noun}", f" of each {noun}") if len(arms) > 1 else ("", "")
    if counts == [1]:
        return f"One run{per_arm}."
    if counts == [2]:
        return f"Both runs{of_each}."
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    of_two = "; of two runs both" if 2 in counts else ""
    return f"Median and range over {number} runs{per_arm}{of_two}."


def over_seeds(layout: Layout, and_more: str = "") -> str:
    """How the losses of several seeds are shown, as the end of a sentence."""
    counts = {len(arm.capped_losses()) for arm in layout.by_key.values()}
    parts = [f"the median{and_more} over the seeds"] if max(counts, default=0) > 2 else []
    parts += ["of two seeds both"] if 2 in counts else []
    return f": {', '.join(parts)}" if parts else ""


def unit_note(unit: Unit) -> str:
    """A sentence about losses of different tokens, where runs have such."""
    if not unit.comparable:
        return f" {INCOMPARABLE}."
    return " Tokens differ between runs: bits per byte of text." if unit is BITS else ""


def left_out_note(layout: Layout) -> str:
    """A sentence about the settings that a figure does not show."""
    if not layout.left_out:
        return ""
    of_all = f"{len(layout.left_out)} of {len(layout.left_out) + len(layout.panels)} settings"
    words = [
        ", ".join(map(setting_words, layout.panel_factors, panel)) for panel in layout.left_out
    ]
    more = [f"{len(words) - MOST_NAMED} more"] if len(words) > MOST_NAMED else []
    return f" Not shown, {of_all}: {'; '.join([*words[:MOST_NAMED], *more])}."


def name_extremes(described: Sequence[tuple[float, str]]) -> str:
    """The descriptions of arms; of many, those with the least and the greatest number."""
    if len(described) <= MOST_DESCRIBED:
        return "; ".join(text for _, text in described)
    ordered = sorted(described, key=lambda item: (math.isnan(item[0]), item[0]))
    measured = [text for number, text in ordered if not math.isnan(number)] or [ordered[0][1]]
    return f"of {len(described)}, the lowest is {measured[0]}; the highest {measured[-1]}"


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count} {word}" if count == 1 else f"{'no' if count == 0 else count} {word}s"
