"""What the headings of figures say: their findings, with numbers that the figures show."""

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.analysis.arms import Key
from experiments.analysis.words import join_words, three_digits
from experiments.report.chart import Cells, Series, number
from experiments.report.facets import Facet
from normscope.stats import Statistic

SMALL = 0.1  # share by which two values may differ that hardly do
DARK = 10  # a block is dark whose gradient is so many times smaller than the largest block's
MEDIANS_FROM = 3  # runs; of fewer a figure shows each
# By how many widths of the wider range the ranges of two arms must be apart, by the runs of an arm:
# of three arms without any difference, in six blocks, that happens to a pair in 5 figures of 100.
APART = {1: 0.0, 2: 10.0, 3: 1.5, 4: 0.5}
APART_OF_MORE = 0.2


@dataclass(frozen=True)
class Uneven:
    """Where the last and the first block's gradients differ most.

    ratio      of the last to the first, as a figure shows it; nan: none was measured
    low, high  the ratios of single runs
    runs       how many they are
    step       None: none was measured, or nowhere do they differ by more than a factor of two
    """

    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    runs: int = 1
    label: str = ""
    step: int | None = None

    def words(self, opening: str = "") -> str:
        """A finding after its opening; empty without a ratio."""
        if math.isnan(self.ratio):
            return ""
        words = f"{self.label}: {self.largest}" if self.label else self.largest
        if self.step is None:
            words = "the first and the last block get gradients within a factor of 2"
        return opening + words if opening else words[0].upper() + words[1:]

    @property
    def largest(self) -> str:
        """How many times as much the one block gets, at the step where they differ most."""
        larger, smaller = ("first", "last") if self.ratio < 1 else ("last", "first")
        low, shown, high = map(three_digits, self.ratios)
        times = f"{low} and {high}" if self.runs == 2 and low != high else shown
        of_runs = "median, " if self.runs >= MEDIANS_FROM else ""
        return (
            f"the {larger} block gets up to {times} times the {smaller}'s gradient "
            f"({of_runs}step {self.step})"
        )

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The lowest, the shown and the highest ratio of the larger to the smaller one."""
        if self.ratio < 1:
            return 1 / self.high, 1 / self.ratio, 1 / self.low
        return self.low, self.ratio, self.high

    @property
    def range_note(self) -> str:
        """A sentence about the single runs, of which `words` has the median; else empty."""
        if self.step is None or self.runs < MEDIANS_FROM:
            return ""
        low, _, high = map(three_digits, self.ratios)
        return f" Single runs at step {self.step}: {low} to {high} times."


def title_of_maps(maps: Sequence[Cells], facets: Sequence[Facet], highest: float) -> str:
    """Which blocks of which arm get least at the end, beside the block that gets most.

    highest  what the colours end at: no block is dark that gets more
    """
    ends = [end for cells, facet in zip(maps, facets, strict=True) for end in end_of(cells, facet)]
    if not ends:
        return "Gradient norm by block and step"
    shown = [end for end in ends if end.lowest < highest] or ends
    darkest = min(shown, key=lambda end: end.lowest / end.highest)
    if not darkest.dark:
        of_arm = "of its arm " if len(ends) > 1 else ""
        within = ", of the arms within the colours," if len(shown) < len(ends) else ""
        return (
            f"At the last step{within} no block gets less than a tenth of the largest gradient "
            f"{of_arm}(the lowest share is {number(darkest.lowest / darkest.highest)})"
        )
    where = f"{darkest.label}: " if len(facets) > 1 else ""
    least, most = (darkest.values.index(v) for v in (darkest.lowest, darkest.highest))
    words = (
        f"{where}{blocks_text(darkest.dark)} {'gets' if len(darkest.dark) == 1 else 'get'} less "
        "than a tenth of the largest gradient; "
        f"at step {darkest.step:g} block {darkest.blocks[least]:g} gets "
        f"{number(darkest.lowest)}, block {darkest.blocks[most]:g} {number(darkest.highest)}"
    )
    others = sum(bool(end.dark) for end in ends) - 1
    if others:
        words += f"; {others} more of {len(ends)} arms have such blocks"
    return words[0].upper() + words[1:]


@dataclass(frozen=True)
class End:
    """The right edge of a map: the last step with a number, and the value of each block there."""

    label: str
    step: float
    blocks: list[float]
    values: list[float]

    @property
    def lowest(self) -> float:
        return min(self.values)

    @property
    def highest(self) -> float:
        return max(self.values)

    @property
    def dark(self) -> list[float]:
        """The blocks that get less than a tenth of what the block gets that gets most."""
        pairs = zip(self.blocks, self.values, strict=True)
        return [block for block, value in pairs if value < self.highest / DARK]


def end_of(cells: Cells, facet: Facet) -> list[End]:
    """The right edge of a map, as a list; empty where it has no number above 0."""
    values = np.array(cells.values, dtype=float)
    is_there = np.isfinite(values) & (values > 0)
    steps = np.flatnonzero(is_there.any(axis=0))
    if not steps.size:
        return []
    last = int(steps[-1])
    is_shown = is_there[:, last]
    blocks = [block for block, is_one in zip(cells.y, is_shown, strict=True) if is_one]
    return [End(facet.label, cells.x[last], blocks, values[is_shown, last].tolist())]


def blocks_text(blocks: Sequence[float]) -> str:
    """Some blocks in order: block 1, blocks 1 to 4, blocks 1, 2 and 5."""
    if len(blocks) == 1:
        return f"block {blocks[0]:g}"
    if len(blocks) > 2 and blocks[-1] - blocks[0] == len(blocks) - 1:
        return f"blocks {blocks[0]:g} to {blocks[-1]:g}"
    return f"blocks {join_words([f'{block:g}' for block in blocks])}"


# Statistics over the blocks


@dataclass(frozen=True)
class Value:
    """What a figure shows of an arm in a block: the only value, two values, or median and range.

    key   the levels of the arm
    name  of its colour, which other arms may share
    """

    key: Key
    name: str
    label: str
    block: float
    shown: tuple[float, ...]
    low: float
    high: float
    runs: int

    @property
    def middle(self) -> float:
        return sum(self.shown) / len(self.shown)

    def rounded(self, largest: float) -> "Value":
        """With as many decimals as three digits of the largest value have: others are near 0."""
        decimals = 2 - math.floor(math.log10(largest)) if largest else 0
        low, high, *shown = (
            round(value, decimals) + 0.0 for value in (self.low, self.high, *self.shown)
        )
        return replace(self, shown=tuple(shown), low=low, high=high)

    def is_near(self, other: "Value") -> bool:
        """Whether one setting alone makes the difference."""
        return sum(map(operator.ne, self.key, other.key)) < 2

    def is_below(self, other: "Value") -> bool:
        """Whether the ranges of both are too far apart for chance."""
        widest = max(self.high - self.low, other.high - other.low)
        widths = APART.get(max(self.runs, other.runs), APART_OF_MORE)
        return other.low - self.high > widths * widest


def values_of(arm: Facet, series: Series) -> list[Value]:
    """An arm in each block in which it was measured."""
    found = []
    ends = zip(series.low or series.y, series.high or series.y, strict=True)
    for place, (low, high) in enumerate(ends):
        high = low if math.isnan(high) else high  # one of two runs has ended
        shown = (series.y[place],) if series.y else (low, high)
        if all(map(math.isfinite, shown)):
            where = arm.arm.key, arm.name, arm.label, series.x[place]
            found.append(Value(*where, shown, low, high, series.runs))
    return found


def title_of_statistic(
    statistic: Statistic, found: Sequence[tuple[Facet, Series]], frame: int
) -> str:
    """In which block two arms that are one setting apart differ most; of one arm, how blocks do.

    No difference is claimed that is small or within the range of the runs. Then the title has the
    range of all of them.
    """
    words = statistic.words.partition(";")[0]
    words = words[:1].upper() + words[1:]
    values = [value for facet, series in found for value in values_of(facet, series)]
    if not values:
        return f"{words} by block"
    is_log, largest = statistic.scale == "log", max(abs(value.middle) for value in values)
    if not is_log:
        values = [value.rounded(largest) for value in values]

    def apart(one: Value, other: Value) -> float:
        """Their difference as a share of the larger one, on a linear scale of the largest."""
        most = max(abs(one.middle), abs(other.middle)) if is_log else largest
        return abs(one.middle - other.middle) / (most or 1.0)

    compare = over_blocks if len(found) == 1 else between_arms
    return f"{words} at step {frame} {compare(values, apart)}"


def over_blocks(values: Sequence[Value], apart: Callable[[Value, Value], float]) -> str:
    """How the blocks of the only arm differ."""
    low, high = (end(values, key=lambda value: value.middle) for end in (min, max))
    if apart(low, high) <= SMALL:
        return f"is nearly the same in all blocks: {range_of(values)}"
    if not low.is_below(high):
        return f"is {range_of(values)}: so few runs do not tell the blocks apart"
    middles = [value.middle for value in values]
    if middles in (sorted(middles), sorted(middles, reverse=True)):
        verb = "rises" if middles[0] < middles[-1] else "falls"
        first, last = values[0], values[-1]
        return (
            f"{verb} from {shown_of([first])} in block {first.block:g} to {shown_of([last])} in "
            f"block {last.block:g}"
        )
    ends = []
    for end in (high, low):
        text = shown_of([end])
        blocks = [value.block for value in values if shown_of([value]) == text]
        ends.append(f"{blocks_text(blocks)} ({text})")
    return f"is highest in {ends[0]} and lowest in {ends[1]}"


def between_arms(values: Sequence[Value], apart: Callable[[Value, Value], float]) -> str:
    """In which block the arms differ most, and which of them are alike there."""
    blocks: dict[float, list[Value]] = {}
    for value in values:
        blocks.setdefault(value.block, []).append(value)
    pairs = [pair for inside in blocks.values() for pair in itertools.permutations(inside, 2)]
    if all(apart(*pair) <= SMALL for pair in pairs):
        return f"hardly differs between the arms: {range_of(values)}"
    distinct = [
        pair
        for pair in pairs
        if pair[0].is_near(pair[1]) and pair[0].is_below(pair[1]) and apart(*pair) > SMALL
    ]
    if not distinct:
        return f"is {range_of(values)}: so few runs do not tell the arms apart"
    pair = max(distinct, key=lambda pair: apart(*pair))
    block = blocks[pair[0].block]
    sides = [[value for value in block if apart(value, end) <= SMALL] for end in reversed(pair)]
    sides.sort(key=len)
    named = [f"{shown_of(side)} ({arms_text(side, block)})" for side in sides]
    if sum(map(len, sides)) == len(block) > 2:
        named[1] = f"{shown_of(sides[1])} ({of_the_rest(sides[1], block)})"
    return f"clearly differs in block {pair[0].block:g}: {' against '.join(named)}"


def of_the_rest(side: Sequence[Value], block: Sequence[Value]) -> str:
    """The names of all arms that were not named yet."""
    text = arms_text(side, block)
    is_short = len(side) == 1 or text.startswith("every")
    return text if is_short else f"the other {len(side)} arms"


def arms_text(side: Sequence[Value], block: Sequence[Value]) -> str:
    """The names of some of the arms in a block, in one word where they are all of a colour."""
    if len(side) > 1:
        alike = [value for value in block if value.name == side[0].name]
        if len(alike) == len(side) and all(value.name == side[0].name for value in side):
            return f"every {side[0].name} arm"
    if len(side) < 3:
        return join_words([value.label for value in side])
    return f"{len(side)} arms"


def shown_of(values: Sequence[Value]) -> str:
    """What a figure shows of some arms in a block, from the lowest to the highest."""
    shown = [number for value in values for number in value.shown]
    return between(min(shown), max(shown))


def range_of(values: Sequence[Value]) -> str:
    """The range over all runs and blocks."""
    return between(min(value.low for value in values), max(value.high for value in values))


def between(low: float, high: float) -> str:
    """A range; one number where both ends are the same as they are written."""
    ends = dict.fromkeys(map(number, (low, high)))
    return " to ".join(ends)
