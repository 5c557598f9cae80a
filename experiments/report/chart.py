"""What a figure says, as data: one description that a page and a picture draw alike."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments.report.palette import Look
from experiments.report.style import GREATEST, LEAST

WORSE = 2.0  # a curve that widens a scale by this factor, against all others, may leave it
DECADES = 4.0  # up to which a log scale shows everything where there are few curves
CROWDED = 6  # curves in one panel; of more only what is most important is drawn
PERCENTILES = 1, 99  # of a heat map's values: the ends of its colour scale
LEAST_DECADES = math.log10(2)  # of a log scale: less would make a noise look like a law
# A letter's width, a line's height and its distance to a level, as parts of a small panel.
WIDE, TALL, ABOVE = 0.021, 0.06, 0.015
LABEL_GAP = 0.085  # between two labels beside their curves, in heights of a panel

Limits = tuple[float, float]
Scale = Literal["linear", "log", "symlog"]
Kind = Literal["line", "dots", "steps", "bars"]


@dataclass(frozen=True)
class Axis:
    """An axis. Panels with equal axes share one scale, and are zoomed together.

    limits  its ends; None: as the data ask, see `fitted`
    whole   counts steps or blocks: no tick is between two of them
    ticks   places with their words; empty: as the scale asks, see `log_ticks`
    shows   values that are always on it, such as a natural 0
    """

    label: str
    scale: Scale = "linear"
    limits: Limits | None = None
    whole: bool = False
    ticks: tuple[tuple[float, str], ...] = ()
    shows: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """One curve, or one set of points.

    label      what it is called; series of one label have one entry in a legend
    y          at each x the median over runs, or the only value; nan: not measured. Empty where
               two runs were measured: then `low` and `high` are their values
    low, high  the range over runs; empty: one run. Of two runs of which one has ended, `high` is
               nan
    runs       how many it is of
    keys       the names by which the legend of a page switches it off
    frame      the step at which it was measured, where a slider shows one step at a time
    name       words beside its end; empty: none
    width      of the line; of dots, in proportion, their size
    """

    label: str
    look: Look
    x: Sequence[float]
    y: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: Kind = "line"
    runs: int = 1
    keys: tuple[str, ...] = ()
    frame: int | None = None
    name: str = ""
    width: float = 2.0

    @property
    def middle(self) -> list[float]:
        """At each x: y, or half-way between the two values."""
        pairs = zip(self.low, self.high, strict=True)
        return list(self.y) or [
            low if math.isnan(high) else (low + high) / 2 for low, high in pairs
        ]

    @property
    def drawn(self) -> list[Sequence[float]]:
        """The heights of its lines: one, or those of two runs."""
        return [self.y] if self.y else [self.low, self.high]

    @property
    def shown(self) -> np.ndarray:
        """All values that count for a scale."""
        return np.array([*(self.y or [*self.low, *self.high])], dtype=float)

    @property
    def band(self) -> np.ndarray:
        """The ends of the range around a median."""
        return np.array([*self.low, *self.high] if self.y else [], dtype=float)


@dataclass(frozen=True)
class Cells:
    """A heat map. Row i of `values` and `texts` is at y[i].

    x, y            middles of the columns and rows; their edges are halfway between
    keys            by which the legend of a page switches it off
    x_keys, y_keys  by which its columns and rows are switched off; empty: they are not
    """

    x: Sequence[float]
    y: Sequence[float]
    values: Sequence[Sequence[float]]
    texts: Sequence[Sequence[str]] = ()
    keys: tuple[str, ...] = ()
    x_keys: Sequence[tuple[str, ...]] = ()
    y_keys: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Reference:
    """A thin line: through a whole panel at a height or a place, or from one point to another."""

    label: str
    y: float | None = None
    x: float | None = None
    points: tuple[tuple[float, float], tuple[float, float]] | None = None


@dataclass(frozen=True)
class Region:
    """A shaded part of a panel; None: up to its edge."""

    label: str
    x: tuple[float | None, float | None] = (None, None)
    y: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Panel:
    """One panel in the grid of a chart; axes that are None are the chart's."""

    series: Sequence[Series] = ()
    row: int = 0
    column: int = 0
    title: str = ""
    x: Axis | None = None
    y: Axis | None = None
    cells: Cells | None = None
    references: Sequence[Reference] = ()
    regions: Sequence[Region] = ()


@dataclass(frozen=True)
class ColourScale:
    """What the colours of all heat maps in a chart mean.

    low, high  words at its ends, such as which one is good
    """

    label: str
    limits: Limits
    scale: Scale = "linear"
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure.

    name         of its files, and its address on a page
    title        what it shows: its finding
    how_to_read  one line
    caption      how it was measured
    alt          for readers who do not see it
    rows         titles of the rows of its grid; empty: they have none
    columns      titles of the columns
    widths       of the columns, in parts; empty: all alike
    frame        the step at which its slider is at first; None: the last
    """

    name: str
    title: str
    how_to_read: str
    caption: str
    alt: str
    panels: Sequence[Panel]
    x: Axis
    y: Axis
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    colours: ColourScale | None = None
    widths: Sequence[float] = ()
    frame: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its grid."""
        return (
            1 + max(panel.row for panel in self.panels),
            1 + max(panel.column for panel in self.panels),
        )

    @property
    def frames(self) -> list[int]:
        """The steps of its slider, in order."""
        of_series = {series.frame for panel in self.panels for series in panel.series}
        return sorted(frame for frame in of_series if frame is not None)

    @property
    def at(self) -> int | None:
        """The step at which its slider is at first; None: it has no slider."""
        return self.frames[-1] if self.frame is None and self.frames else self.frame

    def follows(self, panel: Panel) -> bool:
        """Whether a panel runs over the steps of the slider, which moves the panels beside it."""
        is_still = all(series.frame is None for series in panel.series)
        return bool(self.frames) and is_still and (panel.x or self.x).label == "step"

    def title_of(self, panel: Panel) -> str:
        """Its own title and those of its row and column."""
        of_row = self.rows[panel.row] if self.rows else ""
        of_column = self.columns[panel.column] if self.columns else ""
        title = ", ".join(filter(None, [of_row, of_column, panel.title]))
        return title[:1].upper() + title[1:]

    def axes(self, panel: Panel) -> tuple[Axis, Axis]:
        """The axes of a panel with their limits."""
        x, y = panel.x or self.x, panel.y or self.y
        sharing_x = [p for p in self.panels if (p.x or self.x) == x]
        sharing_y = [p for p in self.panels if (p.y or self.y) == y]
        return (
            dataclasses.replace(x, limits=x.limits or limits_of_x(sharing_x, x)),
            dataclasses.replace(y, limits=y.limits or limits_of_y(sharing_y, y)),
        )


def limits_of_x(panels: Sequence[Panel], axis: Axis) -> Limits:
    """All that the panels have, with a little room for points, bars and whole cells."""
    cells = [panel.cells for panel in panels if panel.cells is not None]
    if cells:
        ends = [edge for c in cells for edge in edges(c.x)]
        return min(ends), max(ends)
    places = [x for panel in panels for series in panel.series for x in series.x]
    return roomy([*places, *(x for x, _ in axis.ticks)], axis.scale, 0.02)


def limits_of_y(panels: Sequence[Panel], axis: Axis) -> Limits:
    """What one bad curve does not decide alone, with the references of finite height."""
    cells = [panel.cells for panel in panels if panel.cells is not None]
    if cells:
        ends = [edge for c in cells for edge in edges(c.y)]
        return min(ends), max(ends)
    curves: dict[tuple[int, int, object], list[np.ndarray]] = {}
    for panel in panels:
        for index, series in enumerate(panel.series):
            # Of an arm all steps of a slider together: without one alone the others would stay.
            name = (panel.row, panel.column, series.keys or index)
            curves.setdefault(name, []).append(series.shown)
    is_crowd = max(Counter(name[:2] for name in curves).values(), default=0) > CROWDED
    lines = fitted([np.concatenate(values) for values in curves.values()], axis.scale, is_crowd)
    heights = widened(lines, [s.band for panel in panels for s in panel.series], axis.scale)
    levels = [r.y for panel in panels for r in panel.references if r.y is not None]
    shown = [*heights, *levels, *axis.shows, *(y for y, _ in axis.ticks)]
    return roomy(of_least_width(shown, axis.scale), axis.scale, 0.05)


def fitted(
    curves: Iterable[np.ndarray], scale: Scale = "linear", is_crowd: bool = False
) -> list[float]:
    """The ends of a scale that holds the curves, but for those that would squeeze the others.

    Curves are left out together where the narrowest scale without them is more than WORSE times
    narrower for each of them, such as one that explodes and one that vanishes. At least half of
    them and two stay. A log scale of few DECADES holds everything, unless there is a crowd.
    """
    spans = [span for curve in curves if (span := span_of(curve, scale)) is not None]
    scales = narrowest(spans)
    count = len(spans)
    fewest = count - max(0, min(count // 2, count - 2))
    holds_all = 0.0 if is_crowd or scale != "log" else DECADES
    while count and width_of(scales[count]) > holds_all:
        fewer = [
            some
            for some in range(count - 1, fewest - 1, -1)
            if 0 < WORSE ** (count - some) * width_of(scales[some]) < width_of(scales[count])
        ]
        if not fewer:
            break
        count = fewer[0]
    return from_scale(scales[count], scale) if spans else []


def narrowest(spans: Sequence[Limits]) -> dict[int, Limits]:
    """For each number of spans the narrowest scale that holds so many."""
    found: dict[int, Limits] = {}
    for low in sorted({low for low, _ in spans}):
        inside = sorted(high for lowest, high in spans if lowest >= low)
        for count, high in enumerate(inside, 1):
            if count not in found or high - low < width_of(found[count]):
                found[count] = low, high
    return found


def widened(lines: Sequence[float], bands: Iterable[np.ndarray], scale: Scale) -> Sequence[float]:
    """The ends of a scale that holds the lines, moved out to those of the bands around them.

    The nearest ends first, as long as the lines keep their share of the scale: 1 / WORSE.
    """
    span = span_of(np.array(lines), scale)
    if span is None:
        return lines
    low, high = span
    most = WORSE * max(high - low, LEAST_DECADES if scale == "log" else 0.0)
    spans = [of_band for band in bands if (of_band := span_of(band, scale)) is not None]
    ends = [end for of_band in spans for end in of_band]
    for end in sorted(ends, key=lambda end: max(span[0] - end, end - span[1])):
        if max(high, end) - min(low, end) <= most:
            low, high = min(low, end), max(high, end)
    return from_scale([low, high], scale)


def of_least_width(values: Sequence[float], scale: Scale) -> list[float]:
    """The values, on a log scale with ends around them that are LEAST_DECADES apart."""
    span = span_of(np.array(values), scale)
    if span is None or scale != "log":
        return [*values]
    middle, half = sum(span) / 2, max(span[1] - span[0], LEAST_DECADES) / 2
    return from_scale([middle - half, middle + half], scale)


def from_scale(ends: Sequence[float], scale: Scale) -> list[float]:
    """Numbers of which a log scale has the logarithms."""
    return [10**end for end in ends] if scale == "log" else [*ends]


def span_of(curve: np.ndarray, scale: Scale) -> Limits | None:
    """The least and the greatest number of a curve, on a log scale their logarithms."""
    shown = curve[np.isfinite(curve) & (np.abs(curve) <= GREATEST)]
    if scale == "log":
        shown = np.log10(shown[shown >= LEAST])
    return (float(shown.min()), float(shown.max())) if shown.size else None


def width_of(ends: Limits) -> float:
    """How much of a scale is between two ends."""
    return ends[1] - ends[0]


def roomy(values: Iterable[float], scale: Scale, room: float) -> Limits:
    """The ends of a scale that holds all values, and a part of it more at either end."""
    shown = [v for v in values if math.isfinite(v) and (scale != "log" or v > 0)]
    low, high = min(shown, default=1.0), max(shown, default=1.0)
    if scale == "log":
        decades = max(math.log10(high / low), 0.3)
        return low / 10 ** (room * decades), high * 10 ** (room * decades)
    width = (high - low) or abs(high) or 1.0
    return low - room * width, high + room * width


def percentile_limits(values: np.ndarray, scale: Scale) -> Limits:
    """The ends of a colour scale: PERCENTILES of the values that it can show."""
    shown = values[np.isfinite(values) & (values >= LEAST if scale == "log" else True)]
    shown = shown[np.abs(shown) <= GREATEST]
    if not shown.size:
        return 1.0, 10.0
    low, high = (float(np.percentile(shown, q, method="nearest")) for q in PERCENTILES)
    return (low, high) if low < high else roomy([low], scale, 0.5)


def edges(places: Sequence[float]) -> list[float]:
    """The edges of cells: halfway between neighbours, and as far outside at both ends."""
    at = np.asarray(places, dtype=float)
    if len(at) == 1:
        return [at[0] - 0.5, at[0] + 0.5]
    inner = (at[1:] + at[:-1]) / 2
    return [2 * at[0] - inner[0], *inner.tolist(), 2 * at[-1] - inner[-1]]


@dataclass(frozen=True)
class Arrow:
    """Where a series is farthest outside its panel: `text` says its number there.

    size      its distance from 0, on a log scale from 1
    of_range  its line stays inside: the range around it leaves
    level     from 0: arrows beside each other have their texts at different heights
    """

    series: int
    x: float
    is_up: bool
    text: str
    size: float
    of_range: bool
    level: int = 0


def arrows(panel: Panel, x: Axis, y: Axis) -> list[Arrow]:
    """An arrow for each arm that leaves a panel, at the top and at the bottom.

    A line that leaves counts before a range that does, and the farthest before the others. In a
    crowd it is named.
    """
    is_crowd = len({series.label for series in panel.series}) > CROWDED
    by_arm: dict[object, list[Arrow]] = {}
    for index, series in enumerate(panel.series):
        for is_up in (True, False):
            if arrow := arrow_of(index, series, y, is_up):
                arm = (series.keys or series.label, series.frame, is_up)
                by_arm.setdefault(arm, []).append(arrow)
    at_once: dict[int | None, list[Arrow]] = {}  # a slider shows the arrows of one step
    for each in by_arm.values():
        arrow = max(each, key=lambda arrow: (not arrow.of_range, arrow.size))
        if is_crowd:
            name = panel.series[arrow.series].label
            arrow = dataclasses.replace(arrow, text=f"{name} {arrow.text}")
        at_once.setdefault(panel.series[arrow.series].frame, []).append(arrow)
    return [arrow for found in at_once.values() for arrow in stacked(found, x)]


def arrow_of(index: int, series: Series, axis: Axis, is_up: bool) -> Arrow | None:
    """Where a series is farthest beyond one end of an axis, and its value there."""
    assert axis.limits is not None
    ends = series.high if is_up else series.low
    for of_range, values in ((False, series.y or ends), (True, ends)):
        beyond = is_beyond(values, axis, is_up)
        if not beyond.any():
            continue
        sign = 1 if is_up else -1
        at = int(np.where(beyond, sign * np.array(values, dtype=float), -np.inf).argmax())
        farthest = float(values[at])
        size = abs(math.log(farthest)) if axis.scale == "log" else abs(farthest)
        text = f"{'range ' if of_range else ''}to {number(farthest)}"
        return Arrow(index, float(series.x[at]), is_up, text, size, of_range)
    return None


def is_beyond(values: Sequence[float], axis: Axis, is_up: bool) -> np.ndarray:
    """Which values are beyond an end of an axis, and could be on it."""
    assert axis.limits is not None
    found = np.array(values, dtype=float)
    with np.errstate(invalid="ignore"):
        beyond = found > axis.limits[1] if is_up else found < axis.limits[0]
    return beyond & np.isfinite(found) & (found > 0 if axis.scale == "log" else True)


def stacked(found: Sequence[Arrow], axis: Axis) -> list[Arrow]:
    """The arrows, each on the first level that has room for its text."""
    placed: list[Arrow] = []
    for arrow in found:
        level = 0
        while any(
            other.level == level
            and other.is_up == arrow.is_up
            and abs(part(other.x, axis) - part(arrow.x, axis)) < 0.16
            for other in placed
        ):
            level += 1
        placed.append(dataclasses.replace(arrow, level=level))
    return placed


def part(value: float, axis: Axis) -> float:
    """Where a value is on an axis, from 0 to 1."""
    assert axis.limits is not None
    low, high = axis.limits
    if axis.scale == "log":
        low, high, value = math.log10(low), math.log10(high), math.log10(max(value, LEAST))
    return (value - low) / (high - low)


@dataclass(frozen=True)
class Name:
    """Words at the right of a panel.

    height  from 0 to 1
    series  whose they are; None: of a reference
    """

    text: str
    height: float
    series: int | None = None


def names(panel: Panel, y: Axis) -> list[Name]:
    """The names of series at their ends, and where there are any, those of references.

    They keep a gap, and move up or down for it as little as their order allows.
    """
    found = [
        Name(series.name, part(last, y), index)
        for index, series in enumerate(panel.series)
        if series.name and (last := last_finite(series.middle)) is not None
    ]
    if found:
        found += [Name(r.label, part(r.y, y)) for r in references(panel, y) if r.y is not None]
    found.sort(key=lambda name: name.height)
    gap = min(LABEL_GAP, 1 / max(1, len(found) - 1))
    floor, heights = 0.0, []
    for name in found:
        heights.append(max(min(name.height, 1.0), floor))
        floor = heights[-1] + gap
    ceiling = 1.0
    for place in reversed(range(len(found))):
        heights[place] = min(heights[place], ceiling)
        ceiling = heights[place] - gap
    return [dataclasses.replace(n, height=h) for n, h in zip(found, heights, strict=True)]


@dataclass(frozen=True)
class Corner:
    """Where the words of a level are: at which end of it, and on which side."""

    is_right: bool = False
    is_below: bool = False


def corner_of(reference: Reference, panel: Panel, x: Axis, y: Axis) -> Corner:
    """The corner in which the fewest curves cross a level's words; of equal ones the first."""
    if reference.y is None:
        return Corner()
    width, height = min(0.9, WIDE * len(reference.label)), part(reference.y, y)
    points = [outline(values, s, x, y) for s in panel.series for values in s.drawn]

    def crossed(corner: Corner) -> int:
        left = 1 - width if corner.is_right else 0.0
        bottom = height - ABOVE - TALL if corner.is_below else height + ABOVE
        if not 0 <= bottom <= 1 - TALL:
            return sum(map(len, points)) + 1
        inside = ((p >= (left, bottom)) & (p <= (left + width, bottom + TALL)) for p in points)
        return sum(int(each.all(axis=1).sum()) for each in inside)

    return min(itertools.starmap(Corner, itertools.product((False, True), repeat=2)), key=crossed)


def outline(values: Sequence[float], series: Series, x: Axis, y: Axis) -> np.ndarray:
    """Points of a series, dense along its lines, as parts of both axes, (points, 2)."""
    places = [(part(a, x), part(b, y)) for a, b in zip(series.x, values, strict=True)]
    found = np.array([place for place in places if np.isfinite(place).all()]).reshape(-1, 2)
    if series.kind != "line" or len(found) < 2:
        return found
    at = np.linspace(0, len(found) - 1, 20 * len(found))
    return np.column_stack([np.interp(at, range(len(found)), found[:, i]) for i in (0, 1)])


def references(panel: Panel, y: Axis) -> list[Reference]:
    """Those of a panel's references that are inside it."""
    return [r for r in panel.references if r.y is None or 0 <= part(r.y, y) <= 1]


def last_finite(values: Sequence[float]) -> float | None:
    """The last number that is one."""
    return next((value for value in reversed(values) if math.isfinite(value)), None)


def of_runs(
    label: str,
    look: Look,
    runs: Sequence["pd.Series[float]"],
    is_over: Sequence[bool] = (),
    **more: Any,
) -> Series | None:
    """A series over runs: the only value, the two values, or the median and the range.

    is_over  for each run, whether it diverged: then it counts as infinite after its last value.
             Without that the median would improve where the worst run ends

    None without any number.
    """
    table = pd.concat(list(runs), axis=1, keys=range(len(runs))).sort_index()
    for column in itertools.compress(range(len(runs)), is_over):
        last = table[column].last_valid_index()
        table.loc[table.index > last if last is not None else slice(None), column] = np.inf
    finite = table.where(np.isfinite(table))
    has_any = finite.notna().any(axis=1)
    table, finite = table[has_any], finite[has_any]
    if table.empty:
        return None
    with np.errstate(invalid="ignore"):  # inf - inf, where half of the runs are infinite, is nan
        middle = table.median(axis=1).tolist()
    low, high = finite.min(axis=1), finite.max(axis=1)
    values: dict[str, Any] = {"y": middle, "low": low.tolist(), "high": high.tolist()}
    if table.shape[1] == 1:
        values = {"y": middle}
    elif table.shape[1] == 2:
        has_both = finite.notna().all(axis=1)
        values = {"low": low.tolist(), "high": high.where(has_both).tolist()}
    places = [float(place) for place in table.index]
    return dataclasses.replace(Series(label, look, places, **values, runs=table.shape[1]), **more)


def log_ticks(limits: Limits, most: int) -> list[float]:
    """The ticks of a logarithmic scale, evenly dense, so that none seems to be missing.

    1, 2 and 5 in every decade. Where these are more than `most`, powers of ten, all or every
    second, third ...; where they are fewer than three, round numbers at equal distances.
    """
    low, high = limits
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    ticks = [tick for tick in every if low <= tick <= high]
    if len(ticks) < 3:
        return round_numbers(low, high)
    if len(ticks) <= most:
        return ticks
    powers = [tick for tick in every[::3] if low <= tick <= high]
    return powers[:: math.ceil(len(powers) / most)]


def round_numbers(low: float, high: float) -> list[float]:
    """Two to seven multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    counts = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{count * step:.12g}") for count in counts]


def tick_words(value: float) -> str:
    """The number at a tick of a log scale."""
    return f"{value:,.12g}" if 1e-4 <= value < 1e5 else number(value)


def number(value: float) -> str:
    """A number with three digits, as it is spoken."""
    if not math.isfinite(value):
        return "infinite" if math.isinf(value) else "not measured"
    size = abs(value)
    if size and not 1e-4 <= size < 1e5:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1e3 else f"{value:.3g}"
