"""The report's figures over learning rates, and the map of all arms' losses."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.analysis.arms import RATE, WARMUP, Arm, Key, Layout, numeric
from experiments.analysis.numbers import CLOSE, loss_text, median
from experiments.analysis.runs import LOSS_ROSE, NOT_FINITE, PLACEMENT, Value
from experiments.analysis.titles import in_order
from experiments.analysis.tuning import TunedArm, describe_grids, name_some, tune
from experiments.analysis.words import join_words, noun_of, setting_words, value_words
from experiments.report.chart import CROWDED, Axis, Cells, Chart, ColourScale, Limits, Panel, Series
from experiments.report.drawing import (
    DIVERGED,
    MOST_DESCRIBED,
    left_out_note,
    name_extremes,
    over_seeds,
    seeds_note,
    unit_note,
)
from experiments.report.facets import (
    MOST_COLUMNS,
    MOST_IN_ANSWER,
    MOST_PANELS,
    dash_of,
    grid_of,
    key_of,
    looks_of_levels,
    name_of_level,
    words_of,
    wrapped,
)
from experiments.report.palette import CATEGORIES, Look
from experiments.report.style import loss_limits

MOST_MAPS = 15
MOST_ROWS = 24  # arms in a map whose rows they are
MOST_IN_TITLE = 5  # arms
MOST_LISTED = 3  # arms that a title names for one reason
WORTSMAN = "Wortsman et al. 2023, arXiv 2309.14322"
TIED = 0.01  # by how much LR sensitivities must differ in order not to be tied


@dataclass(frozen=True)
class RateMap:
    """The arms that differ in learning rate and warm-up alone: `arms` by these two."""

    name: str
    keys: tuple[str, ...]
    arms: dict[tuple[Value, Value], Arm]

    @property
    def has_learned(self) -> bool:
        """Whether a run learned anywhere: otherwise no cell is a best one."""
        return any(arm.learned for arm in self.arms.values())

    def losses(self, rates: Sequence[float], warmups: Sequence[float]) -> np.ndarray:
        """Median losses (learning rates, warm-ups); nan where there are none."""
        return np.array(
            [
                [
                    median(self.arms[r, w].capped_losses()) if (r, w) in self.arms else np.nan
                    for w in warmups
                ]
                for r in rates
            ]
        )


def rate_maps(layout: Layout) -> Chart | None:
    """Final validation loss over learning rate and warm-up: a map for each arm, on one scale."""
    rates = numeric(layout.levels.get(RATE, []))
    warmups = numeric(layout.levels.get(WARMUP, []))
    if len(rates) < 2 or len(warmups) < 2:
        return None
    all_maps = maps_of(layout)
    maps = all_maps[:MOST_MAPS]
    tables = [each.losses(rates, warmups) for each in maps]
    finite = np.concatenate([table[np.isfinite(table)] for table in tables])
    if not finite.size:
        return None
    limits, is_cut = colour_limits(finite, layout)
    best = [best_of(each, table, rates, warmups) for each, table in zip(maps, tables, strict=True)]
    grid = wrapped([each.name for each in maps], 2 if len(maps) <= 4 else MOST_COLUMNS)
    panels = [
        Panel((), place.row, place.column, place.title, cells=cells_of(each, table, rates, warmups))
        for place, each, table in zip(grid.places, maps, tables, strict=True)
    ]
    extremes = name_extremes([(loss, words) for found in best if found for loss, words in [found]])
    more = f" {len(all_maps) - len(maps)} of {len(all_maps)} maps are not shown."
    return Chart(
        "lr_warmup_maps",
        title_of_maps(maps, [found for found in best if found]),
        "Dark cells learn best, yellow ones worst. A wide dark area: the arm forgives a learning "
        "rate that is not the best. An asterisk marks each arm's best.",
        f"min(final, initial) validation loss{over_seeds(layout)}."
        f"{not_learned_note([arm for each in maps for arm in each.arms.values()])} Best of each "
        f"arm (*): {extremes or 'none learned'}."
        f"{unit_note(layout.unit)}"
        f"{more if len(all_maps) > len(maps) else ''}",
        "Maps of the final validation loss over learning rate and warm-up. Best: "
        f"{extremes or 'none learned'}.",
        panels,
        Axis("steps of warm-up", ticks=ticks_of(warmups)),
        Axis("learning rate", ticks=ticks_of(rates)),
        colours=ColourScale(
            f"final validation loss ({layout.unit.name})",
            limits,
            low="best",
            high=f"worst{', or above the scale' if is_cut else ''}",
        ),
    )


def ranking(layout: Layout) -> Chart | None:
    """Final validation loss of very many arms: a row for each, the best at the top.

    None where curves tell them apart, or `rate_maps` shows them.
    """
    if not is_ranked(layout):
        return None
    layout = layout.thinned(MOST_PANELS)
    arms = {
        level: [layout.arm(panel, level) for panel in layout.panels]
        for level in layout.colour_levels
    }
    best = {
        level: min(map(loss_of, filter(None, own)), default=math.inf) for level, own in arms.items()
    }
    levels = sorted((level for level in arms if best[level] < math.inf), key=best.__getitem__)
    if not levels:
        return None
    shown = levels[:MOST_ROWS][::-1]  # the best one is the last row, at the top
    table = [[loss_of(arm) if arm else math.nan for arm in arms[level]] for level in shown]
    limits, is_cut = limits_of_learned([arm for level in shown for arm in arms[level] if arm])
    names = [value_words(str(layout.colour_factor), level) for level in levels]
    losses = [best[level] for level in levels]
    cells = Cells(
        [*range(len(layout.panels))],
        [*range(len(shown))],
        table,
        [
            [in_a_row(arm, is_best_of(arm, arms[level])) if arm else "" for arm in arms[level]]
            for level in shown
        ],
        ("all",),
        [keys_of_panel(layout, panel) for panel in layout.panels],
        [(key_of(layout.colour_factor, level),) for level in shown],
    )
    described = [
        (loss, f"{name} {loss_text(loss)}") for loss, name in zip(losses, names, strict=True)
    ]
    every = [arm for own in arms.values() for arm in own if arm]
    noun = noun_of(str(layout.colour_factor))
    more = f" The last {len(levels) - len(shown)} of {len(levels)} are not shown."
    return Chart(
        "ranking",
        title_of_ranking(losses, names[0], layout.unit.name),
        f"A row is a {noun}, the lowest loss at the top. Dark cells learn best, yellow ones worst."
        f"{' An asterisk marks the best cell of a row.' if len(layout.panels) > 1 else ''}",
        f"{seeds_note(every, 'cell')} min(final, initial) validation loss{over_seeds(layout)}."
        f"{not_learned_note(every)}{sensitivities_note(layout)}"
        f"{more if len(levels) > len(shown) else ''}{unit_note(layout.unit)}"
        f"{left_out_note(layout)}",
        f"Map of the final validation loss of each {noun}: {name_extremes(described)}.",
        [Panel(cells=cells)],
        Axis(
            "",
            ticks=ticks_in_words(words_of(layout.panel_factors, panel) for panel in layout.panels),
        ),
        Axis("", ticks=ticks_in_words(names[: len(shown)][::-1])),
        colours=ColourScale(
            f"final validation loss ({layout.unit.name})",
            limits,
            low="best",
            high=f"worst{', or not all runs learned' if is_cut else ''}",
        ),
    )


def is_ranked(layout: Layout) -> bool:
    """Whether there are too many colours for curves, and no maps of learning rate and warm-up."""
    has_maps = all(len(numeric(layout.levels.get(name, []))) > 1 for name in (RATE, WARMUP))
    return len(layout.colour_levels) > MOST_IN_ANSWER and not has_maps


def not_learned_note(arms: Sequence[Arm]) -> str:
    """What the words in cells mean that have such: stuck, and diverged."""
    notes = []
    if any(arm.count("diverged") for arm in arms):
        notes.append(f"Diverged: not finite, or the loss rose. {DIVERGED}")
    if any(arm.stuck for arm in arms):
        notes.append("Stuck: no better than token frequencies.")
    return "".join(f" {note}" for note in notes)


def in_a_row(arm: Arm, is_best: bool = False) -> str:
    """A cell's words in one line, of one run without its share."""
    loss, *shares = cell_text(arm, median(arm.capped_losses())).split("\n")
    words = ", ".join([f"{loss}{'*' if is_best else ''}", *shares])
    return words.replace("1 of 1 ", "")


def keys_of_panel(layout: Layout, panel: Key) -> tuple[str, ...]:
    """By what the arms of a panel are switched off."""
    return tuple(map(key_of, layout.panel_factors, panel))


def is_best_of(arm: Arm, row: Sequence[Arm | None]) -> bool:
    """Whether an arm has the lowest loss of several in a row, and has learned."""
    losses = [loss_of(other) for other in row if other]
    return len(losses) > 1 and bool(arm.learned) and loss_of(arm) == min(losses)


def ticks_in_words(words: Iterable[str]) -> tuple[tuple[float, str], ...]:
    """Words at even distances."""
    return tuple((float(index), word) for index, word in enumerate(words))


def loss_of(arm: Arm) -> float:
    """The median loss; infinite where no run has one."""
    loss = median(arm.capped_losses())
    return math.inf if math.isnan(loss) else loss


def limits_of_learned(arms: Sequence[Arm]) -> tuple[Limits, bool]:
    """The ends of the losses of arms of which each run learned, and whether others are above.

    All that learned nothing may have one colour: nothing is to be told apart there.
    """
    learned = [loss_of(arm) for arm in arms if not arm.not_learned] or [*map(loss_of, arms)]
    low, high = min(learned), max(filter(math.isfinite, learned), default=min(learned))
    return (low, high if high > low else low + 1), any(loss_of(arm) > high for arm in arms)


def title_of_ranking(best: Sequence[float], name: str, unit: str) -> str:
    """How many arms end close to the best."""
    close = sum(loss <= best[0] + CLOSE for loss in best)
    return (
        f"{close} of {len(best)} end within {CLOSE:g} {unit} of the lowest validation loss, "
        f"{loss_text(best[0])} ({name})"
    )


def ticks_of(levels: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Levels at even distances."""
    return ticks_in_words(f"{level:g}" for level in levels)


def colour_limits(finite: np.ndarray, layout: Layout) -> tuple[Limits, bool]:
    """The ends of the colour scale, and whether a loss is above it.

    Above the first losses that are alike, colours would show who starts where.
    """
    low, high = float(finite.min()), float(finite.max())
    top = max(low, min(high, loss_limits(starts_and_ends(layout))[1]))
    return (low, top if top > low else low + 1), high > top


def maps_of(layout: Layout) -> list[RateMap]:
    """The arms of each combination of the other factors."""
    others = [name for name in layout.factors if name not in (RATE, WARMUP)]
    maps: dict[Key, dict[tuple[Value, Value], Arm]] = {}
    for arm in layout.by_key.values():
        values = dict(zip(layout.factors, arm.key, strict=True))
        key = tuple(values[name] for name in others)
        maps.setdefault(key, {})[values[RATE], values[WARMUP]] = arm
    first = others.index(PLACEMENT) if PLACEMENT in others else None
    keys = list(maps)
    if first is not None:
        order = in_order(PLACEMENT, list(dict.fromkeys(key[first] for key in keys)))
        keys.sort(key=lambda key: order.index(key[first]))
    return [
        RateMap(
            ", ".join(map(value_words, others, key)) or "all runs",
            tuple(map(key_of, others, key)) or ("all",),
            maps[key],
        )
        for key in keys
    ]


def best_of(
    of_map: RateMap, table: np.ndarray, rates: Sequence[float], warmups: Sequence[float]
) -> tuple[float, str] | None:
    """The least loss of a map and where it is; None without numbers."""
    place = find_least(table)
    if place is None or not of_map.has_learned:
        return None
    row, column = place
    edge = " (at the grid's edge)" if row in (0, len(rates) - 1) else ""
    setting = f"lr {rates[row]:g}{edge}, {warmups[column]:g} steps of warm-up"
    loss = float(table[place])
    return loss, f"{of_map.name}: {loss_text(loss)} at {setting}"


def find_least(table: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the least number; None without numbers."""
    if np.isnan(table).all():
        return None
    row, column = np.unravel_index(np.nanargmin(table), table.shape)
    return int(row), int(column)


def title_of_maps(maps: Sequence[RateMap], best: Sequence[tuple[float, str]]) -> str:
    """In how many cells each of the arms learns, and the best of all."""
    shares = []
    for each in maps:
        learns = [arm for arm in each.arms.values() if arm.learned and not arm.not_learned]
        count = f"{len(learns)} of {len(each.arms)}"
        shares.append((len(learns) / len(each.arms), f"{each.name} in {count}"))
    if len({share for share, _ in shares}) > 1:
        shares.sort(key=lambda item: -item[0])
        words = [each for _, each in shares]
        if len(words) > MOST_IN_TITLE:
            words = [words[0], f"{len(words) - 2} more between", words[-1]]
        return f"Settings of learning rate and warm-up in which all runs learn: {'; '.join(words)}"
    return f"Best of all: {min(best)[1]}" if best else "No run learned at any learning rate"


def cells_of(
    of_map: RateMap, table: np.ndarray, rates: Sequence[float], warmups: Sequence[float]
) -> Cells:
    """A map with its words."""
    best = find_least(table) if of_map.has_learned else None
    texts = [
        [
            cell_text(of_map.arms[rate, warmup], float(table[row, column]))
            + ("*" if best == (row, column) else "")
            if (rate, warmup) in of_map.arms
            else ""
            for column, warmup in enumerate(warmups)
        ]
        for row, rate in enumerate(rates)
    ]
    places = range(len(warmups)), range(len(rates))
    return Cells(
        *([*places[0]], [*places[1]], table.tolist(), texts, of_map.keys),
        [(key_of(WARMUP, warmup),) for warmup in warmups],
        [(key_of(RATE, rate),) for rate in rates],
    )


def starts_and_ends(layout: Layout) -> list[list[float]]:
    """The first and the last loss of each run that has both; the last as the figures count it."""
    histories = [history for arm in layout.by_key.values() for history in arm.histories]
    pairs = [(history.initial_loss, history.capped_loss) for history in histories]
    return [[a, b] for a, b in pairs if a is not None and b is not None]


def cell_text(arm: Arm, value: float) -> str:
    """A cell's loss, of two runs both, and the shares of runs that did not learn."""
    losses = arm.final_losses()
    text = "no loss" if math.isnan(value) else loss_text(value, 2)
    if len(losses) == 2:
        text = " and ".join(loss_text(loss, 2) for loss in sorted(losses))
    elif math.isinf(median(losses)):
        text = loss_text(math.inf)
    counts = {
        NOT_FINITE: arm.diverged(NOT_FINITE),
        LOSS_ROSE: arm.diverged(LOSS_ROSE),
        "failed": arm.count("failed"),
        "stuck": arm.stuck,
    }
    total = len(arm.histories)
    return "\n".join([text, *(f"{n} of {total} {name}" for name, n in counts.items() if n)])


@dataclass(frozen=True)
class Curve:
    """An arm over its learning rates, and how it is drawn."""

    tuned: TunedArm
    name: str
    label: str
    look: Look
    keys: tuple[str, ...]
    panel: int

    @property
    def sensitivity(self) -> float | None:
        """Over its own learning rates."""
        return self.tuned.sensitivity(sorted(self.tuned.losses))

    @property
    def is_steady(self) -> bool:
        """Whether every run that ended has learned, at every learning rate."""
        return self.tuned.has_learned and not self.tuned.failing


def rate_sensitivity(layout: Layout) -> Chart | None:
    """Final validation loss against the learning rate, the best and the LR sensitivity of each arm.

    A star marks the best, a cross where that is at the edge of the arm's own learning rates. None
    where `ranking` has all of that in a row for each arm.
    """
    curves = curves_of(layout)
    if not curves or (len(curves) > MOST_IN_ANSWER and is_ranked(layout)):
        return None
    rates = numeric(layout.levels[RATE])
    inner = layout.without(RATE).thinned(MOST_PANELS)
    grid = grid_of(inner)
    if len(curves) > CROWDED and len(inner.panels) == 1:  # many arms: each beside all others
        curves = [replace(curve, panel=index) for index, curve in enumerate(curves)]
        grid = wrapped([curve.label for curve in curves], MOST_COLUMNS)
    panels = [
        Panel(
            sorted(
                (series for curve in curves if curve.panel == index for series in series_of(curve)),
                key=lambda series: series.kind == "dots",  # on top of every line
            ),
            *(place.row, place.column, place.title),
        )
        for index, place in enumerate(grid.places)
    ]
    return Chart(
        "lr_sensitivity",
        title_of_sensitivity(curves, rates, layout.unit.name),
        "A flat curve: the learning rate hardly matters. A narrow valley: it must be chosen well.",
        f"min(final, initial) validation loss{over_seeds(layout, ' and the range')}. {DIVERGED} A "
        "star marks the lowest, a plus where it is at the edge of the arm's learning rates: a "
        "better one may be outside. LR sensitivity: the mean over the learning rates minus the "
        f"best ({WORTSMAN}): {sensitivities(curves, layout.unit.name)}."
        f"{failing_note(curves)}{unequal_grids(curves, rates)}{unit_note(layout.unit)}"
        f"{left_out_note(inner)}",
        "Final validation loss against the learning rate. LR sensitivity: "
        f"{sensitivities(curves, layout.unit.name)}.",
        [panel for panel in panels if panel.series],
        rate_axis(rates),
        Axis(f"final validation loss ({layout.unit.name})", limits=limits_of(layout, curves)),
        grid.rows,
        grid.columns,
    )


def curves_of(layout: Layout) -> list[Curve]:
    """Each arm that has losses at several learning rates, in the panel of its other settings."""
    tuned_by_key = {tuned.key: tuned for tuned in tune(layout) if tuned.losses}
    inner = layout.without(RATE).thinned(MOST_PANELS)
    names = [name for name in layout.factors if name != RATE]
    has_colours = layout.colour_factor not in (RATE, None)
    levels = layout.colour_levels if has_colours else [None]
    looks = looks_of_levels(layout) if has_colours else [CATEGORIES[0]]
    curves = []
    for index, panel in enumerate(inner.panels):
        for level, look in zip(levels, looks, strict=True):
            values = dict(zip(inner.panel_factors, panel, strict=True))
            values |= {str(layout.colour_factor): level} if has_colours else {}
            tuned = tuned_by_key.get(tuple(values[name] for name in names))
            if tuned is None:
                continue
            arm = next(iter(tuned.arms.values()))
            name = name_of_level(layout, level, arm) if has_colours else tuned.label
            others = [setting_words(n, v) for n, v in values.items() if n != layout.colour_factor]
            joint = " " if layout.colour_factor == PLACEMENT else ", "
            label = joint.join(filter(None, [name, ", ".join(others)])) if has_colours else name
            keys = tuple(key_of(n, v) for n, v in values.items()) or ("all",)
            dashed = look.varied(dash_of(inner, panel))
            curves.append(Curve(tuned, name, label, dashed, keys, index))
    return curves


def series_of(curve: Curve) -> list[Series]:
    """The losses by learning rate, and a mark at the best."""
    tuned = curve.tuned
    rates = sorted(tuned.losses)
    most = max(len(losses) for losses in tuned.losses.values())
    low, high = ([end(tuned.losses[rate]) for rate in rates] for end in (min, max))
    middle = [tuned.medians[rate] for rate in rates]
    values = {"y": middle, "low": low, "high": high} if most > 2 else {"low": low, "high": high}
    if most == 1:
        values = {"y": middle}
    line = replace(
        Series(curve.name, curve.look, rates, runs=most, keys=curve.keys),
        **values,  # type: ignore[arg-type]
    )
    if tuned.best is None or not tuned.has_learned:
        return [line]
    words = "best, at the edge of its rates" if tuned.at_edge else "best"
    star = replace(curve.look, mark="P" if tuned.at_edge else "*")
    mark = Series(words, star, [tuned.best], [tuned.medians[tuned.best]], kind="dots")
    return [line, replace(mark, keys=curve.keys, width=6.0)]


def rate_axis(rates: Sequence[float]) -> Axis:
    """Learning rates on a log scale; a rate of 0 is as far from the least as that from 0."""
    ticks = tuple((rate, f"{rate:g}") for rate in rates)
    return Axis("learning rate", "log" if min(rates) > 0 else "symlog", ticks=ticks)


def limits_of(layout: Layout, curves: Sequence[Curve]) -> Limits:
    """The part of the scale in which the losses can be compared: of arms that learned, if any."""
    limit = loss_limits(starts_and_ends(layout))[1]
    learned = [curve for curve in curves if curve.tuned.has_learned] or curves
    medians = [
        loss
        for curve in learned
        for rate, loss in curve.tuned.medians.items()
        if not has_diverged(curve.tuned.arms[rate])
    ]
    return loss_limits([], [loss for loss in medians if loss <= limit])


def has_diverged(arm: Arm) -> bool:
    """Whether all its runs diverged, so that its loss is the initial one."""
    return arm.count("diverged") == len(arm.histories)


def valued(curves: Sequence[Curve]) -> list[tuple[float, Curve]]:
    """The arms that have an LR sensitivity, after it."""
    found = ((curve.sensitivity, curve) for curve in curves)
    return [(value, curve) for value, curve in found if value is not None]


def sensitivities(curves: Sequence[Curve], unit: str) -> str:
    """The number of each arm that has one; of many arms, of those that always learned."""
    found = valued(curves)
    if len(found) > MOST_DESCRIBED:
        found = valued([curve for curve in curves if curve.is_steady]) or found
    described = []
    for value, curve in found:
        text = f"{curve.label} {loss_text(value, 2)} {unit}, best at {curve.tuned.describe_best()}"
        described.append((value, text if curve.is_steady else f"{text}, not all runs learned"))
    return name_extremes(described) or "not measured"


def sensitivities_note(layout: Layout) -> str:
    """A sentence about the LR sensitivity of arms that have several learning rates."""
    curves = curves_of(layout)
    if not curves:
        return ""
    found = sensitivities(curves, layout.unit.name)
    return (
        f" LR sensitivity, the mean over the learning rates minus the best ({WORTSMAN}): {found}."
    )


def failing_note(curves: Sequence[Curve]) -> str:
    """A sentence about the arms of which a run did not learn, and at which learning rates."""
    failing = [
        f"{curve.label} at lr {', '.join(f'{rate:g}' for rate in curve.tuned.failing)}"
        for curve in curves
        if curve.tuned.failing
    ]
    return f" Runs did not learn: {name_some(failing)}." if failing else ""


def unequal_grids(curves: Sequence[Curve], rates: Sequence[float]) -> str:
    """That arms had other learning rates, where they did."""
    if have_all(curves, rates):
        return ""
    grids = describe_grids([replace(curve.tuned, label=curve.label) for curve in curves])
    return f" Each is over the arm's own learning rates, so they are not comparable. {grids}"


def have_all(curves: Sequence[Curve], rates: Sequence[float]) -> bool:
    """Whether every arm has a loss at every learning rate."""
    return all(set(curve.tuned.losses) == set(rates) for curve in curves)


def title_of_sensitivity(curves: Sequence[Curve], rates: Sequence[float], unit: str) -> str:
    """Which arms did not always learn; which of the others depends most on the learning rate.

    A median can hide a run that did not learn, so its arm has no place in the order. Nor has one
    that is best at the edge of its learning rates: it may depend on them more than it seems.
    """
    parts = failing_words(curves)
    if not have_all(curves, rates):
        parts.append("LR sensitivity is not compared, since the arms' learning rates differ")
    elif steady := [curve for curve in curves if curve.is_steady]:
        parts.append(("of the others, " if parts else "") + "; ".join(order_of(steady, unit)))
    title = "; ".join(parts) or "Loss against the learning rate"
    return title[0].upper() + title[1:]


def failing_words(curves: Sequence[Curve]) -> list[str]:
    """Which arms never learned, and of which only some runs did."""
    never = [curve for curve in curves if curve.tuned.failing and not curve.tuned.has_learned]
    some = [curve for curve in curves if curve.tuned.failing and curve.tuned.has_learned]
    return [
        *([f"{grouped(never, curves)} never learned"] if never else []),
        *([f"some runs of {grouped(some, curves)} did not learn"] if some else []),
    ]


def grouped(some: Sequence[Curve], curves: Sequence[Curve]) -> str:
    """The names of some of the arms; all of one colour as one: every Post-LN arm."""
    own, total = (Counter(curve.name for curve in group) for group in (some, curves))
    return list_arms(
        f"every {curve.name} arm" if own[curve.name] == total[curve.name] > 1 else curve.label
        for curve in some
    )


def list_arms(names: Iterable[str]) -> str:
    """Each name once, of many their number."""
    distinct = [*dict.fromkeys(names)]
    return join_words(distinct) if len(distinct) <= MOST_LISTED else f"{len(distinct)} arms"


def order_of(curves: Sequence[Curve], unit: str) -> list[str]:
    """Which arms depend most and which least on the learning rate; within TIED they are tied.

    Those that are best at the edge of their learning rates are named apart.
    """
    found = [(value, curve) for value, curve in valued(curves) if not curve.tuned.at_edge]
    at_edge = [curve for curve in curves if curve.tuned.at_edge]
    parts = [compared(found, unit)] if found else []
    return [*parts, edge_words(at_edge, bool(found))] if at_edge else parts


def edge_words(at_edge: Sequence[Curve], are_some: bool) -> str:
    """That arms are best at the edge of their learning rates: some of all, or all."""
    who = list_arms(curve.label for curve in at_edge)
    if not are_some and len(at_edge) > 1:
        who = "both" if len(at_edge) == 2 else "all"
    rates = {curve.tuned.best for curve in at_edge}
    where = f" (lr {rates.pop():g})" if len(rates) == 1 else ""
    verb = "is" if len(at_edge) == 1 else "are"
    return (
        f"{who} {verb} best at the grid's edge{where}, so a wider grid must tell how much the "
        "learning rate matters"
    )


def compared(found: Sequence[tuple[float, Curve]], unit: str) -> str:
    """Which of some arms depend most and which least on the learning rate."""
    low, high = (end(value for value, _ in found) for end in (min, max))
    most = [(value, curve) for value, curve in found if high - value < TIED]
    least = [(value, curve) for value, curve in found if value - low < TIED]
    if len(found) == 1:
        return f"{found[0][1].label} is on average {span(found, unit)} above its best"
    if len(most) == len(found):
        how = f"alike ({span(found, unit)} above the best on average)"
        return f"{arms_in(found)} depend on the learning rate {how}"
    return (
        f"{arms_in(most)} depend{'' if most[1:] else 's'} most on the learning rate "
        f"({span(most, unit)} above the best on average), {arms_in(least)} least "
        f"({span(least, unit)})"
    )


def arms_in(found: Sequence[tuple[float, Curve]]) -> str:
    """The names of arms."""
    return list_arms(curve.label for _, curve in found)


def span(found: Sequence[tuple[float, Curve]], unit: str) -> str:
    """A number of one arm, or the range in which several are tied."""
    ends = (loss_text(end(value for value, _ in found), 2) for end in (min, max))
    return f"{'tied at ' if found[1:] else ''}{' to '.join(dict.fromkeys(ends))} {unit}"
