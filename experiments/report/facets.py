"""Which arm is in which panel of a chart, what it is called there, and how it looks."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.arms import RATE, Arm, Key, Layout, format_value
from experiments.analysis.runs import PLACEMENT, Run, Value
from experiments.analysis.titles import in_order
from experiments.analysis.tuning import layout_at_best, tune
from experiments.analysis.words import (
    join_words,
    noun_of,
    placement_words,
    setting_words,
    value_words,
)
from experiments.report.chart import Axis, Look, Series, of_runs
from experiments.report.drawing import left_out_note
from experiments.report.palette import DASHES, GREY, look_of, looks_of
from gpt import PLACEMENTS

MOST_PANELS = 12  # of a figure whose panels have several arms each
MOST_ARMS = 24  # of a figure with a panel for each arm
MOST_COLUMNS = 3
MOST_IN_ANSWER = 8  # arms whose curves lead a page
FAR = 1.25  # times the loss of token frequencies: worse than a model that knows these alone
MOST_SERIES = 600  # of a slider's steps together

STEP, BLOCK = Axis("step", whole=True), Axis("block", whole=True)


@dataclass(frozen=True)
class Facet:
    """An arm in a panel.

    name   of its colour: Post-LN
    label  of the arm: Post-LN without warm-up
    keys   by which the legend of a page switches it off
    """

    arm: Arm
    name: str
    label: str
    look: Look
    keys: tuple[str, ...]
    panel: int


@dataclass(frozen=True)
class Place:
    """Where a panel is in the grid of a chart, and its title there."""

    row: int
    column: int
    title: str


@dataclass(frozen=True)
class Grid:
    """The panels of a chart: their places, and the titles of its rows and columns."""

    places: list[Place]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def comparable(facets: Sequence[Facet]) -> list[Facet]:
    """The arms of which a run is not lost; all of them where there is none such.

    What a run measured while its values exploded says nothing about its placement beside others.
    """
    found = [f for f in facets if not all(is_lost(history.run) for history in f.arm.histories)]
    return found or [*facets]


def is_lost(run: Run) -> bool:
    """Whether a run diverged, or ended far above the loss of token frequencies alone."""
    loss, alone = run.summary.val_loss, run.summary.corpus.unigram_validation_loss
    is_far = loss is not None and alone is not None and loss > FAR * alone
    return run.status == "diverged" or (run.status == "finished" and is_far)


def lost_note(facets: Sequence[Facet]) -> str:
    """A sentence about the arms of which a heading does not speak, where there are some."""
    spoken_of = comparable(facets)
    silent = [facet.label for facet in facets if facet not in spoken_of]
    if not silent:
        return ""
    few = join_words(silent) if len(silent) < 3 else f"{len(silent)} arms"
    return (
        f" The heading does not speak of {few}, where every run diverged or ended far above the "
        "loss of token frequencies."
    )


def key_of(factor: str | None, level: Value) -> str:
    """The name by which a level is switched off."""
    return f"{factor}={level}"


def facets_of(layout: Layout, holds: Callable[[Arm], object] = bool) -> list[Facet]:
    """The arms of a layout of which `holds` is true, panel by panel."""
    found = []
    looks = looks_of_levels(layout)
    for index, panel in enumerate(layout.panels):
        for level in in_order(layout.colour_factor or "", layout.colour_levels):
            arm = layout.arm(panel, level)
            if arm is not None and holds(arm):
                look = looks[layout.colour_levels.index(level)].varied(dash_of(layout, panel))
                name, keys = name_of_level(layout, level, arm), keys_of(layout, panel, level)
                label = label_in_words(layout, panel, name)
                found.append(Facet(arm, name, label, look, keys, index))
    return found


def switched_by_rate(facets: Sequence[Facet]) -> list[Facet]:
    """Arms at their best learning rates: the legend switches each off also by its rate."""
    rates = [{history.run.settings.get(RATE) for history in f.arm.histories} for f in facets]
    return [
        replace(facet, keys=(*facet.keys, *(key_of(RATE, rate) for rate in own)))
        for facet, own in zip(facets, rates, strict=True)
    ]


def dashed_factor(layout: Layout) -> str | None:
    """The factor of which each level has a dash on the whole page; None: there is none.

    It is the only one that separates the panels, or the only one beside the learning rate: of that
    many figures show the best alone. Placements that share a colour have dashes of their own, which
    would be taken for those of each other.
    """
    names = [name for name in layout.panel_factors if name != RATE] or layout.panel_factors
    is_free = not any(look.dash for look in looks_of_levels(layout))
    return names[0] if len(names) == 1 and is_free else None


def dash_of(layout: Layout, panel: Key) -> int:
    """Which dash the arms of a panel have."""
    factor = dashed_factor(layout)
    if factor is None:
        return 0
    return layout.levels[factor].index(panel[layout.panel_factors.index(factor)])


def looks_of_levels(layout: Layout) -> list[Look]:
    """A look for each colour; of a placement its own, also where all runs have it.

    Placements that are not listed can have the same by chance: then the dashes differ.
    """
    if layout.colour_factor is None:
        return [look_of(next(iter(layout.by_key.values())).label)]
    looks: list[Look] = []
    for look in looks_of(layout.colour_factor, layout.colour_levels):
        variants = [look, *(look.varied(level) for level in range(1, len(DASHES)))]
        looks.append(next((variant for variant in variants if variant not in looks), look))
    return looks


def name_of_level(layout: Layout, level: Value, arm: Arm) -> str:
    """What a colour is called."""
    if layout.colour_factor is None:
        return placement_words(arm.label) if arm.label in PLACEMENTS else arm.label
    return value_words(layout.colour_factor, level)


def keys_of(layout: Layout, panel: Key, level: Value) -> tuple[str, ...]:
    """By what an arm is switched off: each of its levels."""
    panels = zip(layout.panel_factors, panel, strict=True)
    own = [(layout.colour_factor, level)] if layout.colour_factor else []
    return tuple(itertools.starmap(key_of, [*own, *panels])) or ("all",)


def label_in_words(layout: Layout, panel: Key, name: str) -> str:
    """An arm with all its levels."""
    others = list(itertools.starmap(setting_words, zip(layout.panel_factors, panel, strict=True)))
    if layout.colour_factor == PLACEMENT:
        return " ".join(filter(None, [name, ", ".join(others)]))
    return ", ".join([name, *others])


def grid_of(layout: Layout) -> Grid:
    """One factor's levels as columns and the others' as rows; one factor alone in two columns."""
    panels, factors = layout.panels, layout.panel_factors
    columns = [len({panel[i] for panel in panels}) for i in range(len(factors))]
    fitting = [i for i, count in enumerate(columns) if 1 < count <= MOST_COLUMNS]
    if len(factors) < 2 or not fitting:
        titles = [words_of(factors, panel) for panel in panels]
        titles = [
            ", ".join(filter(None, [title, not_run(layout, panel)]))
            for title, panel in zip(titles, panels, strict=True)
        ]
        return wrapped(titles, 2)
    across = min(fitting, key=lambda i: columns[i])
    columns_of = list(dict.fromkeys(panel[across] for panel in panels))
    rest = [panel[:across] + panel[across + 1 :] for panel in panels]
    rows_of = list(dict.fromkeys(rest))
    names = factors[:across] + factors[across + 1 :]
    places = [
        Place(rows_of.index(row), columns_of.index(panel[across]), not_run(layout, panel))
        for panel, row in zip(panels, rest, strict=True)
    ]
    return Grid(
        places,
        tuple(words_of(names, row) for row in rows_of),
        tuple(setting_words(factors[across], level) for level in columns_of),
    )


def not_run(layout: Layout, panel: Key) -> str:
    """Which colours have no run in a panel, where others have: `Pre-LN not run`.

    Empty of a panel that has a factor as its axis, and so several arms of each colour.
    """
    factor = layout.colour_factor or ""
    if {factor, *layout.panel_factors} < {*layout.factors}:
        return ""
    levels = in_order(factor, layout.colour_levels)
    missing = [level for level in levels if layout.arm(panel, level) is None]
    if not missing:
        return ""
    named = [value_words(factor, level) for level in missing]
    few = join_words(named) if len(named) < 3 else f"{len(named)} of {len(levels)}"
    return f"{few} not run"


def words_of(factors: Sequence[str], panel: Key) -> str:
    """The levels of a panel, in words."""
    return ", ".join(itertools.starmap(setting_words, zip(factors, panel, strict=True)))


def wrapped(titles: Sequence[str], columns: int) -> Grid:
    """Panels one after the other, in as many columns; an even number of few is not torn apart."""
    return Grid([Place(*divmod(i, columns), title) for i, title in enumerate(titles)])


def fit_for_panels(layout: Layout) -> tuple[Layout, str]:
    """The part of a layout that a figure with a panel for each arm can show, and a note about it.

    Where there are too many arms, each is shown at its best learning rate alone.
    """
    note = ""
    if len(layout.by_key) > MOST_ARMS and len(tune(layout)) > 1:
        best = layout_at_best(layout)
        note = f" Only the best learning rate of each arm, {len(best.by_key)} of "
        note += f"{len(layout.by_key)}."
        layout = best
    layout = layout.thinned(max(1, MOST_ARMS // len(layout.colour_levels)))
    return layout, note + left_out_note(layout) + not_run_note(layout)


def each_alone(facets: Sequence[Facet], layout: Layout) -> Grid:
    """A panel for each arm; with few colours these are the columns, if each panel has all."""
    colours = list(dict.fromkeys(facet.name for facet in facets))
    panels = list(dict.fromkeys(facet.panel for facet in facets))
    has_all = len(facets) == len(colours) * len(panels)
    if len(panels) < 2 or not 1 < len(colours) <= MOST_COLUMNS or not has_all:
        return wrapped([facet.label for facet in facets], 2 if len(facets) <= 6 else MOST_COLUMNS)
    return Grid([Place(panels.index(f.panel), colours.index(f.name), f.label) for f in facets])


def not_run_note(layout: Layout) -> str:
    """A sentence about the combinations that a figure with a panel for each arm leaves out."""
    missing = [
        label_in_words(layout, panel, value_words(layout.colour_factor or "", level))
        for panel in layout.panels
        for level in in_order(layout.colour_factor or "", layout.colour_levels)
        if layout.arm(panel, level) is None
    ]
    if not missing:
        return ""
    few = join_words(missing) if len(missing) < 3 else f"{len(missing)} combinations"
    return f" Not run: {few}."


def legend_of(layout: Layout) -> list[dict[str, Any]]:
    """The groups of a page's legend: the levels of each factor, the colours first."""
    factors = sorted(layout.factors, key=lambda name: name != layout.colour_factor)
    groups: list[dict[str, Any]] = []
    for factor in factors:
        levels = in_order(factor, layout.levels[factor])
        is_colour = factor == layout.colour_factor
        looks: Sequence[Look | None] = [None] * len(levels)
        if is_colour:
            by_level = dict(zip(layout.colour_levels, looks_of_levels(layout), strict=True))
            looks = [by_level[level] for level in levels]
        elif factor == dashed_factor(layout) and len(levels) <= len(DASHES):
            looks = [Look(*GREY).varied(layout.levels[factor].index(level)) for level in levels]
        entries = [
            {"key": key_of(factor, level), "label": level_text(factor, level), "look": look}
            for level, look in zip(levels, looks, strict=True)
        ]
        groups.append({"title": noun_of(factor).capitalize(), "entries": entries})
    return [group for group in groups if len(group["entries"]) > 1]


def level_text(factor: str, level: Value) -> str:
    """A level below the name of its factor: a number needs no other words."""
    is_number = isinstance(level, int | float) and not isinstance(level, bool)
    return format_value(level) if is_number else value_words(factor, level)


def frames_of(tables: Sequence[pd.DataFrame], series: int, also: int | None = None) -> list[int]:
    """The steps of a slider: those that most tables have, fewer where there are many series.

    The first and the last are among them, and the step `also` in place of its neighbour.
    """
    counts = pd.Series([step for table in tables for step in table.index]).value_counts()
    steps = sorted(int(step) for step in counts[counts >= len(tables) / 2].index)
    most = max(2, min(12, MOST_SERIES // max(1, series)))
    places = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    shown = [steps[place] for place in places]
    if also is None or also in shown:
        return shown
    nearest = min(shown[1:-1], key=lambda step: abs(step - also), default=None)
    return sorted({*shown, also} - {nearest})


def by_block(
    facet: Facet, tables: Sequence[pd.DataFrame], frames: Sequence[int]
) -> Iterator[Series]:
    """A statistic over the blocks, counted from 1, at each step of a slider."""
    for frame in frames:
        measured = [table for table in tables if frame in table.index]
        rows = [pd.Series(t.loc[frame].to_numpy(), index=np.array(t.columns) + 1) for t in measured]
        where: Any = {"keys": facet.keys, "frame": frame}
        if rows and (series := of_runs(facet.name, facet.look, rows, **where)) is not None:
            yield series
