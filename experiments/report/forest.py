"""The forest plot of a board: each prediction on a small axis of its own.

Numbers of different units have no axis in common. What is claimed always lies at the same place:
a region between two bounds around the centre, the bound of a one-sided region at the centre, the 0
of a sign at the centre, and of a rate the shares 0 and 1 at the ends. An axis is linear, and as
long as its seeds, its interval and its region need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.analysis.verdicts import (
    CONTRADICTIONS,
    FAILS,
    HOLDS,
    INVALID,
    NO_EFFECT,
    NO_SOURCE,
    OPEN,
    OPPOSITE,
    RATE,
    SIGN,
)
from experiments.report.board import Board, BoardClaim, Row, bound_text
from experiments.report.drawing import INK, ReportFigure
from experiments.report.lettering import fold

ROOM = 1.12  # of an axis, times what it has to hold
APART = 0.16  # least distance of two tick labels, as a share of the axis
REGION, CONTROL, MARGIN = "#56B4E9", "0.6", "0.8"
# Beside the word, in a figure as on the page.
MARKS = {
    HOLDS: "\u2713",
    FAILS: "\u2717",
    OPPOSITE: "\u2194",
    NO_EFFECT: "=",
    OPEN: "\u2026",
    INVALID: "!",
    NO_SOURCE: "?",
}


COLOUR = {HOLDS: "#0072B2", **dict.fromkeys(CONTRADICTIONS, "#D55E00")}


@dataclass(frozen=True)
class Strip:
    """A prediction's axis. All places are shares of its length, from the left.

    region    what is claimed
    margin    effects that count as none; None without a margin
    interval  of the mean; None where there is none
    mean      None where it was not measured
    dots      the seeds of the verdict, and later ones; a rate has none, as it has only two values
    ticks     places with what is written there
    """

    region: tuple[float, float]
    margin: tuple[float, float] | None
    interval: tuple[float, float] | None
    mean: float | None
    dots: tuple[float, ...]
    later_dots: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def strip_of(row: Row) -> Strip:
    """The axis of a prediction and what lies on it."""
    dots = [] if row.kind == RATE else list(row.values)
    centre, reach = (0.5, 0.5) if row.kind == RATE else axis_of(row, dots)

    def place(value: float) -> float:
        """On the axis; what lies beyond an end, at that end."""
        return min(1.0, max(0.0, 0.5 + (value - centre) / (2 * ROOM * reach)))

    def places(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(place(value) for value in values if math.isfinite(value))

    low, high = region_of(row)
    has_interval = math.isfinite(row.ci_low) and math.isfinite(row.ci_high)
    return Strip(
        region=(place(low), place(high)),
        margin=(place(-row.margin), place(row.margin)) if row.margin else None,
        interval=(place(row.ci_low), place(row.ci_high)) if has_interval else None,
        mean=place(row.mean) if math.isfinite(row.mean) else None,
        dots=places(dots[: row.seeds]),
        later_dots=places(dots[row.seeds :]),
        ticks=ticks_of([(place(value), bound_text(value)) for value in bounds_of(row)]),
    )


def region_of(row: Row) -> tuple[float, float]:
    """What is claimed, in the number's own unit."""
    if row.kind == SIGN:
        return row.margin, math.inf
    return (0.5, 1.0) if row.is_paired else (row.low, row.high)


def bounds_of(row: Row) -> list[float]:
    """The values that are written below an axis."""
    if row.kind == SIGN:
        return [0.0, row.margin] if row.margin else [0.0]
    if row.kind == RATE:
        return sorted({0.0, *region_of(row), 1.0})
    return [bound for bound in region_of(row) if math.isfinite(bound)]


def axis_of(row: Row, dots: Sequence[float]) -> tuple[float, float]:
    """The value at the centre of an axis, and how far it has to reach to either side."""
    bounds = region_of(row)
    ends = [bound for bound in bounds if math.isfinite(bound)]
    centre = 0.0 if row.kind == SIGN else sum(ends) / max(1, len(ends))
    # A region between two bounds fills half of the axis at most; of a margin a fifth to each side.
    reach = ends[1] - ends[0] if len(ends) == 2 else 2.5 * row.margin
    held = [*dots, row.mean, row.ci_low, row.ci_high]
    reach = max([reach, *(abs(value - centre) for value in held if math.isfinite(value))])
    return centre, reach or 1.0


def ticks_of(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Ticks of which those too near to each other are written as one."""
    written: list[list[tuple[float, str]]] = []
    for tick in ticks:
        if written and tick[0] - written[-1][-1][0] < APART:
            written[-1].append(tick)
        else:
            written.append([tick])
    return tuple(
        (sum(place for place, _ in group) / len(group), ", ".join(text for _, text in group))
        for group in written
    )


# ---- The figure, for papers

WIDTH, LINE = 10.0, 0.155  # inches: of the figure, and from one line of text to the next
TICKS_BELOW = 0.62  # lines below the middle of an axis
AXIS = (0.40, 0.265)  # the left end of all axes and their length, as shares of the width
MEASURED, VERDICT = 0.68, 0.845  # the left ends of these columns
INDENT, LABEL = 0.015, 62  # of a prediction's label, and characters in a line of it
SECTION, CLAIM = 2.0, 1.9  # lines: of a heading, and of a claim beside its title and predictions
HEADING, SMALL, TINY = 9.5, 7.5, 6.0  # points


def draw_forest(board: Board) -> ReportFigure:
    """One row for each prediction, below its claim."""
    lines = 1.0 + sum(map(height_of, board.claims)) + SECTION * len(board.sections)
    figure = Figure(figsize=(WIDTH, lines * LINE))
    axis = figure.add_axes((0.01, 0.0, 0.98, 1.0))
    axis.set_axis_off()
    axis.set(xlim=(0, 1), ylim=(lines, 0))
    y = 1.0
    for heading, claims in board.sections:
        axis.text(0, y + 0.4, heading, fontsize=HEADING, fontweight="bold", va="center")
        y += SECTION
        for claim in claims:
            draw_claim(axis, y, claim)
            y += height_of(claim)
    caption = (
        "Each prediction on an axis of its own. Blue: what is claimed; grey: the same of a "
        "control, without which the test is invalid; hatched: effects that count as none. Line: "
        "the interval of the mean (of a rate, of the share) at the look at which the verdict fell, "
        "or at the last one. Dots: seeds, hollow where they came after the verdict."
    )
    verdicts = "; ".join(f"{claim.claim} {claim.verdict_text}" for claim in board.claims)
    alt = f"{board.counts}. {verdicts}."
    return ReportFigure("claims", board.counts, caption, alt, figure)


def height_of(claim: BoardClaim) -> float:
    """Of a claim in the figure, in lines."""
    titles = len(title_lines(claim))
    return titles + CLAIM + sum(row_height(row) for row in claim.judged)


def row_height(row: Row) -> float:
    """Of a prediction, in lines."""
    return max(2.3 if row.counted else 1.9, label_of(row).count("\n") + 1.4)


def label_of(row: Row) -> str:
    """The number and what is said of it."""
    label = f"{row.number}: {row.text}"
    return fold(f"control: {label}" if row.role == "control" else label, LABEL)


def title_lines(claim: BoardClaim) -> list[str]:
    """The title of a claim, as it stands above its predictions."""
    return fold(claim.title, 118).split("\n")


def draw_claim(axis: Axes, y: float, claim: BoardClaim) -> None:
    """The heading of a claim, and below it its predictions."""
    titles = title_lines(claim)
    mark = MARKS.get(claim.claim_verdict, "")
    axis.text(0, y, "\n".join(titles), fontsize=8.5, va="top", linespacing=1.15)
    axis.text(
        VERDICT,
        y,
        fold(f"{mark} {claim.verdict_text}", 22),
        fontsize=8.5,
        fontweight="bold",
        color=COLOUR.get(claim.claim_verdict, INK),
        va="top",
    )
    y += len(titles)
    evidence = f"{claim.evidence}, seeds {claim.seeds_text}"
    about = f"{claim.source}; {claim.setting_text}; {evidence}"
    axis.text(0, y + 0.1, about, fontsize=TINY + 0.5, va="top", alpha=0.75)
    y += 0.9
    for row in claim.judged:
        height = row_height(row)
        middle = y + height / 2 - 0.2
        axis.text(INDENT, middle, label_of(row), fontsize=SMALL, va="center", linespacing=1.1)
        draw_strip(axis, middle, row)
        measured = "\n".join(filter(None, (row.measured, row.counted)))
        axis.text(MEASURED, middle, measured, fontsize=SMALL, va="center")
        verdict = f"{MARKS[row.verdict]} {row.verdict} ({row.seeds})" if row.verdict else ""
        axis.text(VERDICT, middle, verdict, fontsize=SMALL, va="center")
        y += height


def draw_strip(axis: Axes, y: float, row: Row) -> None:
    """The axis of a prediction, around height y."""
    strip = strip_of(row)

    def x(place: float) -> float:
        return AXIS[0] + AXIS[1] * place

    def box(ends: tuple[float, float], **style: Any) -> None:
        width = AXIS[1] * (ends[1] - ends[0])
        axis.add_patch(Rectangle((x(ends[0]), y - 0.45), width, 0.9, linewidth=0, **style))

    box(strip.region, facecolor=CONTROL if row.role == "control" else REGION, alpha=0.4)
    if strip.margin:
        box(strip.margin, facecolor="none", edgecolor=MARGIN, hatch="////")
    axis.hlines(y + 0.45, x(0), x(1), color=INK, linewidth=0.5, alpha=0.6)
    for place, text in strip.ticks:
        axis.text(x(place), y + TICKS_BELOW, text, fontsize=TINY - 0.5, ha="center", va="top")
    for dots, fill in ((strip.dots, INK), (strip.later_dots, "none")):
        heights = [y + 0.2 + 0.16 * (index % 3 - 1) for index in range(len(dots))]
        style: Any = {"markerfacecolor": fill, "markeredgewidth": 0.5, "alpha": 0.55}
        axis.plot([*map(x, dots)], heights, "o", color=INK, markersize=2.0, **style)
    if strip.interval:
        low, high = map(x, strip.interval)
        axis.hlines(y - 0.2, low, high, color=INK, linewidth=1.6)
    if strip.mean is not None:
        axis.plot(x(strip.mean), y - 0.2, "D", color=INK, markersize=3.5)


def described(row: Row) -> str:
    """A strip in words."""
    counted = f", {row.counted}" if row.counted else ""
    return f"claimed {row.claimed}; measured {row.measured}{counted}; {row.verdict_text}"
