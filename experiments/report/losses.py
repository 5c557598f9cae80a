"""Figures of losses, step by step, and the words for how arms end."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from experiments.analysis.arms import Arm, Layout, loss_rank
from experiments.analysis.histories import NATS, History
from experiments.analysis.numbers import loss_text, margin_of, median
from experiments.analysis.runs import NOT_FINITE, PLACEMENT, Value
from experiments.analysis.words import capital, join_words
from experiments.report.chart import (
    CROWDED,
    Axis,
    Chart,
    Panel,
    Reference,
    Series,
    number,
    of_runs,
)
from experiments.report.drawing import (
    left_out_note,
    name_extremes,
    plural,
    seeds_note,
    unit_note,
)
from experiments.report.facets import (
    MOST_PANELS,
    STEP,
    Facet,
    facets_of,
    grid_of,
)
from experiments.report.style import loss_limits

MOST_POINTS = 150  # of a training curve
MOST_NAMED = 3  # arms in a heading
Table = TypeVar("Table", "pd.Series[float]", pd.DataFrame)


def loss(layout: Layout) -> Chart | None:
    """Training and validation loss of each arm, and the loss of token frequencies alone."""
    layout = layout.thinned(MOST_PANELS)
    facets, grid = facets_of(layout, with_losses), grid_of(layout)
    if not facets:
        return None
    crowded = len(layout.colour_levels) > CROWDED
    references = token_frequencies(facets, layout)
    panels = [
        Panel(
            [s for f in facets if f.panel == index for s in loss_series(f, layout, crowded)],
            *(place.row, place.column, place.title),
            references=references,
        )
        for index, place in enumerate(grid.places)
    ]
    lines = "Line: training, a running median; dots: validation."
    notes = [seeds_note([f.arm for f in facets]), "Validation loss only." if crowded else lines]
    if over := sum(h.run.divergence == NOT_FINITE for f in facets for h in f.arm.histories):
        notes.append(f"{plural(over, 'run')} ended where the loss was no longer finite.")
    return Chart(
        "loss",
        title_of_losses(facets, layout),
        "A lower curve has learned more. A curve at the dotted line: that model knows only how "
        "frequent each token is.",
        f"{' '.join(notes)}{unit_note(layout.unit)}{left_out_note(layout)}",
        f"Loss against steps. {ends_of(facets)}",
        panels,
        STEP,
        replace(Axis(layout.unit.axis), limits=limits_of_losses(facets, layout)),
        grid.rows,
        grid.columns,
    )


def with_losses(arm: Arm) -> list[History]:
    """The runs of an arm that have a validation loss."""
    return [history for history in arm.histories if not history.losses(arm.unit.column).empty]


def loss_series(facet: Facet, layout: Layout, validation_only: bool = False) -> list[Series]:
    """Training and validation losses of an arm, and where its runs were not finite."""
    histories = with_losses(facet.arm)
    if not histories:
        return []
    is_over = [history.run.divergence == NOT_FINITE for history in histories]
    validation = of_runs(
        *(facet.name, facet.look),
        [history.losses(layout.unit.column) for history in histories],
        is_over,
        keys=facet.keys,
    )
    # Training losses were recorded in nats alone.
    has_training = not validation_only and layout.unit.column == NATS.column
    training = None
    if has_training:
        curves = [smoothed(history.losses("train_loss")) for history in histories]
        training = of_runs(facet.name, facet.look, [thinned(c) for c in curves], is_over)
    if training is not None:
        training = replace(training, keys=facet.keys)
        validation = validation and replace(validation, kind="dots")
    stopped = [at_last(h, facet) for h in itertools.compress(histories, is_over)]
    return [series for series in (training, validation, *stopped) if series is not None]


def smoothed(series: pd.Series) -> pd.Series:
    """A running median over a twentieth of the steps.

    Near the ends the window shrinks to the same width on both sides, so that the first and the
    last value are unchanged.
    """
    half = max(1, len(series) // 40)
    smooth = series.rolling(2 * half + 1, center=True, min_periods=1).median()
    for i in range(min(half, len(series) // 2)):
        smooth.iloc[i] = series.iloc[: 2 * i + 1].median()
        smooth.iloc[-1 - i] = series.iloc[len(series) - 2 * i - 1 :].median()
    return smooth


def thinned(table: Table, also: int | None = None) -> Table:
    """At most MOST_POINTS steps of a curve or a table, the first and the last among them.

    also  a step that stays
    """
    if len(table) <= MOST_POINTS:
        return table
    places = np.linspace(0, len(table) - 1, MOST_POINTS).round().astype(int)
    kept = np.isin(np.arange(len(table)), places) | (table.index == also)
    return table[kept]


def at_last(history: History, facet: Facet) -> Series | None:
    """A cross at a run's last finite training loss."""
    losses = history.losses("train_loss")
    losses = losses[np.isfinite(losses)]
    if losses.empty:
        return None
    cross = replace(facet.look, mark="X")
    return Series(
        "not finite", cross, [losses.index[-1]], [losses.iloc[-1]], kind="dots", keys=facet.keys
    )


def token_frequencies(facets: Sequence[Facet], layout: Layout) -> list[Reference]:
    """The validation losses of token frequencies alone, one for each corpus."""
    runs = [history.run for facet in facets for history in facet.arm.histories]
    losses = {run.summary.corpus.unigram_validation_loss for run in runs}
    shown = sorted(filter(None, losses)) if layout.unit.column == NATS.column else []
    return [Reference("token frequencies alone", y=level) for level in shown]


def limits_of_losses(facets: Sequence[Facet], layout: Layout) -> tuple[float, float]:
    """The part of the scale in which the losses can be compared."""
    histories = [history for facet in facets for history in facet.arm.histories]
    levels = [reference.y or 0.0 for reference in token_frequencies(facets, layout)]
    return loss_limits([h.losses(layout.unit.column).tolist() for h in histories], levels)


def title_of_losses(facets: Sequence[Facet], layout: Layout, noun: str = "") -> str:
    """Where few arms end, or the lowest and the highest of more, beyond the range of the runs.

    noun  what the arms are; empty: as the layout asks
    """
    ends = [
        (end, facet.label, losses)
        for facet in facets
        if not math.isnan(end := median(losses := facet.arm.final_losses()))
    ]
    if not ends or not layout.unit.comparable:
        return "Loss, step by step"
    ends.sort()
    (_, best, low), (_, worst, high) = ends[0], ends[-1]
    are_ranges = len(ends) > 1 and min(len(low), len(high)) > 1
    unit = layout.unit.name
    if are_ranges and min(high) <= max(low) and not any(math.inf in losses for *_, losses in ends):
        every = [loss for _, _, losses in ends for loss in losses]
        spread = ends_text([min(every), max(every)]).replace(" and ", " to ")
        shown = f"validation losses are {spread} {unit}"
        return f"No arm differs from the others beyond the runs' range: {shown}"
    margin = margin_of([losses for *_, losses in ends if math.inf not in losses])
    close = sum(end - ends[0][0] <= margin for end, *_ in ends)
    words = f"{best} {end_words(low, f'ends at a validation loss of %s {unit}')}"
    named = ends[1:] if len(ends) <= MOST_NAMED else ends[-1:]
    words += "".join(f", {label} {end_words(losses, 'at %s')}" for _, label, losses in named)
    if close > 1 and len(ends) > MOST_NAMED:
        words = f"{close} of {len(ends)} {noun or noun_of_arms(layout)} end within {margin:.2f} "
        words += f"{unit} of the lowest, {ends_text(low)} ({best}); "
        words += f"{worst} {end_words(high, 'ends at %s')}"
    words = f"Of what is shown here, {words}" if layout.left_out else capital(words)
    counts = [(label, losses.count(math.inf), len(losses)) for _, label, losses in ends]
    # Of two runs both are shown, and of one; a median hides the others.
    gone = [f"{label} in {n} of {total}" for label, n, total in counts if 0 < n < total > 2]
    return words + (f"; diverged: {join_words(gone)}" if 0 < len(gone) <= MOST_NAMED else "")


def title_of_best(facets: Sequence[Facet], layout: Layout) -> str:
    """The same of arms at their best rates: of each placement the one that ends lowest.

    Where some were not run with the settings of the others, the best of each are no fair pair.
    """
    place = layout.factors.index(PLACEMENT) if PLACEMENT in layout.factors else None
    if place is None or not is_whole(layout):
        return title_of_losses(facets, layout)
    best: dict[Value, Facet] = {}
    for facet in sorted(facets, key=lambda facet: loss_rank(facet.arm)):
        best.setdefault(facet.arm.key[place], facet)
    words = title_of_losses([*best.values()], layout, "placements")
    return f"Each placement at its best: {words}"


def is_whole(layout: Layout) -> bool:
    """Whether each combination of the levels was run."""
    return len(layout.by_key) == math.prod(map(len, layout.levels.values()))


def noun_of_arms(layout: Layout) -> str:
    """What the arms of a layout are; placements at a rate are no more than the one or the other."""
    if layout.factors == [PLACEMENT]:
        return "placements"
    return "arms" if len(layout.factors) < 2 else "combinations"


def end_words(losses: Sequence[float], form: str) -> str:
    """The losses in a sentence; of runs that diverged this word alone."""
    text = ends_text(losses)
    return text if text == loss_text(math.inf) else form % text


def ends_text(losses: Sequence[float]) -> str:
    """The losses of one or two runs, the median of more."""
    shown = sorted(losses) if len(losses) < 3 else [median(losses)]
    return " and ".join(dict.fromkeys(loss_text(loss, 2) for loss in shown))


def ends_of(facets: Sequence[Facet]) -> str:
    """The losses at the end, for readers who do not see them."""
    ends = [(median(f.arm.final_losses()), f.label) for f in facets]
    words = [
        (end, f"{label}: {loss_text(end) if math.isinf(end) else number(end)}")
        for end, label in ends
    ]
    is_median = any(len(f.arm.final_losses()) > 1 for f in facets)
    of_what = "Median validation loss" if is_median else "Validation loss"
    return f"{of_what} at the end: {name_extremes(words)}."
