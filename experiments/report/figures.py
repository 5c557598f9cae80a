"""The report's figures: what each says, how to read it, and its data."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd

from experiments.analysis.arms import RATE, Arm, Key, Layout, loss_rank, numeric
from experiments.analysis.histories import NATS, History
from experiments.analysis.numbers import loss_text, margin_of, median
from experiments.analysis.runs import NOT_FINITE, PLACEMENT, Value
from experiments.analysis.scaling import MOST_MISS, SCALED, Scaling, scalings
from experiments.analysis.titles import in_order, runs_of, shared
from experiments.analysis.tuning import layout_at_best, tune
from experiments.analysis.words import capital, join_words, noun_of, setting_words
from experiments.report.changes import what_each_step_changed
from experiments.report.chart import (
    WORSE,
    Axis,
    Cells,
    Chart,
    ColourScale,
    Limits,
    Panel,
    Reference,
    Series,
    edges,
    limits_of_y,
    number,
    of_runs,
    percentile_limits,
    roomy,
)
from experiments.report.drawing import (
    left_out_note,
    name_extremes,
    plural,
    seeds_note,
    unit_note,
)
from experiments.report.facets import (
    CROWDED,
    MOST_IN_ANSWER,
    MOST_PANELS,
    Facet,
    Grid,
    by_block,
    dash_of,
    each_alone,
    facets_of,
    fit_for_panels,
    frames_of,
    grid_of,
    key_of,
    keys_of,
    looks_of_levels,
    words_of,
)
from experiments.report.headings import (
    MEDIANS_FROM,
    Uneven,
    title_of_maps,
    title_of_statistic,
)
from experiments.report.palette import CATEGORIES, Look, look_of
from experiments.report.paper_pictures import figures_of_papers
from experiments.report.rates import ranking, rate_maps, rate_sensitivity
from experiments.report.style import loss_limits, on_scale
from normscope.stats import Statistic, described, drawn

GRAD_NORM = described("grad_norm")
STEP, BLOCK = Axis("step", whole=True), Axis("block", whole=True)
RATIO = Axis("last block / first block", "log")
MOST_POINTS = 150  # of a training curve
UNLEARNED = "did not learn"  # in the label of such runs
MOST_NAMED = 3  # arms in a heading
Table = TypeVar("Table", "pd.Series[float]", pd.DataFrame)

SAME = 0.01  # share by which values at a step may differ that are called the same

# How to read a statistic over the blocks.
READ = {
    "activation_rms": "A rising line: each block adds to the residual stream. A flat line: a norm "
    "sets the stream back to one size.",
    "attention_entropy": "1: attention is spread evenly over all tokens it may see. Near 0: it "
    "looks at a single token.",
    "expert_max_load": "1: every expert gets its equal share of tokens. Higher: one gets more.",
    "expert_entropy": "1: the experts share the tokens evenly. Lower: a few do most of the work.",
    "token_cosine": "1: the block's output is alike for all tokens, so it tells them apart no "
    "longer. 0: the tokens are unrelated.",
    "stream_kurtosis": "3: values are spread as in a normal distribution. Far more: a few values "
    "are huge.",
    "angular_distance": "How far a block turns the residual stream: 0 not at all, 0.5 by a right "
    "angle. Blocks that hardly turn it do little.",
    "update_ratio": "By what share of its size one update changes a block's weights.",
    "layer_drop": "How much the loss rises when this one block is left out. Near 0: the block does "
    "little.",
}


def answer(layout: Layout) -> Chart | None:
    """All arms in one view: their losses, and the gradient norm of their blocks.

    Where there are too many arms, each at its best learning rate; None where these are too many.
    """
    note, rates = "", {}
    if len(layout.by_key) > MOST_IN_ANSWER and len(tune(layout)) > 1:
        rates = {tuned.key: tuned.describe_best() for tuned in tune(layout) if tuned.losses}
        layout, note = layout_at_best(layout), " Each arm at its best learning rate."
    facets = [in_one_panel(facet, layout) for facet in facets_of(layout)]
    told = [with_rate(facet, rates) for facet in facets]
    if len(facets) > MOST_IN_ANSWER:
        return None
    losses = [series for facet in facets for series in loss_series(facet, layout)]
    tables = {facet.label: with_blocks(facet.arm) for facet in facets}
    most = most_uneven(told)
    frames = frames_of([t for each in tables.values() for t in each], len(facets), most.step)
    blocks = [s for f in facets for s in by_block(f, tables[f.label], frames)]
    if not losses or not blocks:
        return None
    named = {series.label: series for series in reversed(losses)}
    losses = [replace(s, name=s.label) if named.get(s.label) is s else s for s in losses]
    left = Panel(losses, 0, 0, "Loss", references=token_frequencies(facets, layout))
    right = Panel(
        blocks,
        *(0, 1, "Gradient norm by block"),
        BLOCK,
        Axis("gradient norm", "log"),
    )
    return Chart(
        "answer",
        f"{title_of_best(told, layout) if rates else title_of_losses(told, layout)}"
        f"{most.words('; ')}",
        "Loss: a lower curve has learned more. Gradient norm: a flat line gives every block the "
        "same gradient; move the slider to see it change.",
        f"{seeds_note([f.arm for f in facets])} Loss: line, training (a running median); dots, "
        f"validation. Gradient norms: {GRAD_NORM.axis}, before clipping.{note}"
        f"{unit_note(layout.unit)}",
        f"Loss against steps, and gradient norm by block. {ends_of(told)}",
        [left, right],
        STEP,
        replace(Axis(layout.unit.axis), limits=limits_of_losses(facets, layout)),
        widths=(3, 2),
        frame=most.step,
    )


def in_one_panel(facet: Facet, layout: Layout) -> Facet:
    """An arm where all share a panel: under its whole name, with a dash for each other setting."""
    has_dash = len(layout.panel_factors) == 1
    own = dash_of(layout, layout.panels[facet.panel])
    look = facet.look if has_dash else facet.look.varied(facet.panel - own)
    return replace(facet, name=facet.label, look=look)


def with_rate(facet: Facet, rates: Mapping[Key, str]) -> Facet:
    """An arm with its best learning rate in brackets behind its name, where it is among `rates`."""
    rate = rates.get(facet.arm.key)
    return replace(facet, label=f"{facet.label} ({rate})") if rate else facet


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


def title_of_losses(facets: Sequence[Facet], layout: Layout) -> str:
    """Which arm ends lowest, and which highest, where they differ beyond the range of the runs."""
    ends = [
        (end, facet.label, losses)
        for facet in facets
        if not math.isnan(end := median(losses := facet.arm.final_losses()))
    ]
    if not ends or not layout.unit.comparable:
        return "Loss, step by step"
    (_, best, low), (_, worst, high) = min(ends), max(ends)
    are_ranges = len(ends) > 1 and min(len(low), len(high)) > 1
    unit = layout.unit.name
    if are_ranges and min(high) <= max(low) and not any(math.inf in losses for *_, losses in ends):
        every = [loss for _, _, losses in ends for loss in losses]
        spread = ends_text([min(every), max(every)]).replace(" and ", " to ")
        shown = f"validation losses are {spread} {unit}"
        return f"No arm differs from the others beyond the runs' range: {shown}"
    margin = margin_of([losses for *_, losses in ends if math.inf not in losses])
    close = sum(end - min(ends)[0] <= margin for end, *_ in ends)
    words = f"{best} {end_words(low, f'ends at a validation loss of %s {unit}')}"
    highest = f", {worst} {end_words(high, 'at %s')}" if len(ends) > 1 else ""
    if close > 1 and len(ends) > 2:
        words = f"{close} of {len(ends)} arms end within {margin:.2f} {unit} of the lowest, "
        words += f"{ends_text(low)} ({best})"
        highest = f"; {worst} {end_words(high, 'ends at %s')}"
    words = capital(words + highest)
    counts = [(label, losses.count(math.inf), len(losses)) for _, label, losses in ends]
    # Of two runs both are shown, and of one; a median hides the others.
    gone = [f"{label} in {n} of {total}" for label, n, total in counts if 0 < n < total > 2]
    return words + (f"; diverged: {join_words(gone)}" if 0 < len(gone) <= MOST_NAMED else "")


def title_of_best(facets: Sequence[Facet], layout: Layout) -> str:
    """The same of arms at their best rates: of each placement the one that ends lowest."""
    if PLACEMENT not in layout.factors:
        return title_of_losses(facets, layout)
    place = layout.factors.index(PLACEMENT)
    best: dict[Value, Facet] = {}
    for facet in sorted(facets, key=lambda facet: loss_rank(facet.arm)):
        best.setdefault(facet.arm.key[place], facet)
    return f"Each placement at its best: {title_of_losses([*best.values()], layout)}"


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


def with_blocks(arm: Arm) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs that have them."""
    tables = [on_scale(history.blocks) for history in arm.histories if not history.blocks.empty]
    return [table.where(np.isfinite(table) & (table > 0)) for table in tables]


def gradients_by_layer(layout: Layout) -> Chart | None:
    """Gradient norm of each block, at the steps of a slider."""
    layout = layout.thinned(MOST_PANELS)
    facets, grid = facets_of(layout, with_blocks), grid_of(layout)
    if not facets:
        return None
    tables = {facet.keys: with_blocks(facet.arm) for facet in facets}
    most = most_uneven(facets)
    frames = frames_of([t for each in tables.values() for t in each], len(facets), most.step)
    panels, scale = scaled(
        blocks_panels(facets, grid, tables, frames),
        Axis("gradient norm", "log"),
        bool(grid.rows),
        titled(facets, most),
    )
    return Chart(
        "gradients_by_layer",
        most.words() or "Gradient norm by block",
        "A flat line: every block gets the same gradient. Move the slider to see how training "
        "changes it.",
        f"{GRAD_NORM.axis.capitalize()}, before clipping. {scale}"
        f"{seeds_note([f.arm for f in facets])}{left_out_note(layout)}",
        f"Gradient norm by block. Last block over the first at step {frames[-1]}: "
        f"{name_extremes(ratios_at(facets, frames[-1]))}.",
        panels,
        BLOCK,
        Axis("gradient norm", "log"),
        grid.rows,
        grid.columns,
        frame=most.step,
    )


Titled = set[tuple[tuple[str, ...], int | None]]


def titled(facets: Sequence[Facet], most: Uneven) -> Titled:
    """The keys and the frame of the series whose values a heading has."""
    keys = [facet.keys for facet in facets if most.label in ("", facet.label)]
    return {(key, frame) for key in keys for frame in (None, most.step)}


def scaled(
    panels: Sequence[Panel], axis: Axis, by_row: bool, shown: Titled
) -> tuple[list[Panel], str]:
    """Panels with scales that no single arm takes from the others, and a sentence about them.

    All share one scale, unless it is more than WORSE times as wide as one of them needs: then each
    row, or each panel, has its own.

    shown  series that leave no scale
    """
    groups: dict[int, list[Panel]] = {}
    for index, panel in enumerate(panels):
        groups.setdefault(panel.row if by_row else index, []).append(panel)

    def limits_of(group: Sequence[Panel]) -> Limits:
        values = [
            value
            for panel in group
            for series in panel.series
            if (series.keys, series.frame) in shown
            for value in series.middle
            if math.isfinite(value) and value > 0
        ]
        return limits_of_y(group, replace(axis, shows=(*axis.shows, *values)))

    limits, common = {place: limits_of(group) for place, group in groups.items()}, limits_of(panels)
    widths = [math.log(high / low) for low, high in limits.values()]
    if math.log(common[1] / common[0]) <= WORSE * min(widths):
        note = "" if len(panels) == 1 else "All panels have one scale. "
        return [replace(panel, y=replace(axis, limits=common)) for panel in panels], note
    note = f"Each {'row of panels' if by_row else 'panel'} has its own scale. "
    return [
        replace(panel, y=replace(axis, limits=limits[place]))
        for place, group in groups.items()
        for panel in group
    ], note


def blocks_panels(
    facets: Sequence[Facet],
    grid: Grid,
    tables: dict[tuple[str, ...], list[pd.DataFrame]],
    frames: Sequence[int],
) -> list[Panel]:
    """A panel for each place that has arms, each arm a series at each step.

    Where the numbers of blocks differ, each panel has as many blocks as its arms.
    """
    panels = [
        Panel(
            [s for f in inside for s in by_block(f, tables[f.keys], frames)],
            *(place.row, place.column, place.title),
        )
        for index, place in enumerate(grid.places)
        if (inside := [facet for facet in facets if facet.panel == index])
    ]
    blocks = [sorted({x for series in panel.series for x in series.x}) for panel in panels]
    if len({tuple(each) for each in blocks}) < 2:
        return panels
    return [
        replace(panel, x=replace(BLOCK, limits=roomy(each, "linear", 0.02)))
        for panel, each in zip(panels, blocks, strict=True)
    ]


def of_several_blocks(facet: Facet) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs whose first block is not the last."""
    return [table for table in with_blocks(facet.arm) if table.shape[1] > 1]


def ratios_of(facet: Facet) -> pd.DataFrame:
    """Last block's gradient norm over the first's by step.

    Columns: `shown`, the ratio of the medians over the runs, which figures by block show; `low` and
    `high`, the ratios of the runs; `runs`, how many were measured. Two runs are shown themselves,
    not their median: of them `shown` is the ratio nearer to 1, which both reach, and 1 where they
    differ in direction.
    """
    tables = of_several_blocks(facet)
    if not tables:
        return pd.DataFrame(columns=["shown", "low", "high", "runs"], dtype=float)
    last, first = (pd.concat([t.iloc[:, end] for t in tables], axis=1) for end in (-1, 0))
    ratios = pd.concat([t.iloc[:, -1] / t.iloc[:, 0] for t in tables], axis=1).sort_index()
    low, high = ratios.min(axis=1), ratios.max(axis=1)
    shown = last.median(axis=1) / first.median(axis=1)
    if len(tables) == 2:
        shown = low.where(low > 1, high.where(high < 1, 1.0))
    table = pd.DataFrame({"shown": shown, "low": low, "high": high, "runs": len(tables)})
    return table.where(np.isfinite(table) & (table > 0)).dropna()


def ratios_at(facets: Sequence[Facet], step: int) -> list[tuple[float, str]]:
    """The ratio of each arm at a step, with words."""
    shown = [(ratios_of(facet)["shown"], facet.label) for facet in facets]
    ratios = [(float(each.get(step, math.nan)), label) for each, label in shown]
    return [(ratio, f"{label} {number(ratio)}") for ratio, label in ratios]


def most_uneven(facets: Sequence[Facet]) -> Uneven:
    """At which arm and step, of all steps, the last and the first block differ most."""
    found = []
    for facet in facets:
        ratios = ratios_of(facet)
        if not ratios.empty:
            step = np.abs(np.log(ratios["shown"])).idxmax()
            shown, low, high, runs = ratios.loc[step].tolist()
            label = facet.label if len(facets) > 1 else ""
            found.append(Uneven(shown, low, high, int(runs), label, int(step)))
    most = max(found, key=lambda each: abs(math.log(each.ratio)), default=Uneven())
    return replace(most, step=None) if 0.5 <= most.ratio <= 2 else most


def gradient_maps(layout: Layout) -> Chart | None:
    """Gradient norm over steps and blocks, every arm on one colour scale."""
    layout, note = fit_for_panels(layout)
    facets = facets_of(layout, lambda arm: [t for t in with_blocks(arm) if len(t) > 1])
    if not facets:
        return None
    facets = with_rates(facets, layout)
    tables = [medians_of(facet) for facet in facets]
    grid = each_alone(facets, layout)
    limits = colours_of_most(tables)
    beyond = [beyond_colours(table, limits) for table in tables]
    maps = [
        cells_of(table, facet.keys, step)
        for table, facet, (_, step) in zip(tables, facets, beyond, strict=True)
    ]
    of_most, for_arms = "", ""
    if len(maps) > 1:
        of_most, for_arms = " of most arms", f" for {plural(len(maps), 'arm')}"
    further = ""
    if any(words for words, _ in beyond):
        further = " A panel whose values go further says how far: they have the colour of that end."
    heights = [(edges(cells.y)[0], edges(cells.y)[-1]) for cells in maps]
    return Chart(
        "gradient_maps",
        title_of_maps(maps, facets),
        "Each row is a block, time runs to the right. One colour throughout: nothing changes. A "
        "dark row: that block gets little of the gradient.",
        f"Colours reach from the 1st to the 99th percentile{of_most}.{further} White: not measured "
        f"or not finite. {middle_note([f.arm for f in facets])}Before clipping. A block goes dark "
        f"that at the last step gets less than a tenth of what the largest one gets.{note}",
        f"Heat maps of the gradient norm by block and step{for_arms}, on a scale from "
        f"{number(limits[0])} to {number(limits[1])}.",
        [
            Panel(
                (),
                *(place.row, place.column, f"{place.title}{words}"),
                y=None if len(set(heights)) == 1 else replace(BLOCK, limits=height),
                cells=cells,
            )
            for place, cells, (words, _), height in zip(
                grid.places, maps, beyond, heights, strict=True
            )
        ],
        STEP,
        BLOCK,
        colours=ColourScale(GRAD_NORM.axis, limits, "log", "little gradient", "much gradient"),
    )


def with_rates(facets: Sequence[Facet], layout: Layout) -> list[Facet]:
    """Arms that are shown at their best learning rate alone, with that rate where it differs."""
    rates = [shared(runs_of([facet.arm]), RATE) for facet in facets]
    if RATE in layout.factors or len({*rates}) < 2:
        return [*facets]
    return [
        replace(facet, label=f"{facet.label} {setting_words(RATE, rate)}")
        for facet, rate in zip(facets, rates, strict=True)
    ]


def colours_of_most(tables: Sequence[pd.DataFrame]) -> Limits:
    """The ends of a colour scale that no arm takes from the others.

    Each arm needs its own percentiles. The scale begins with the narrowest one that holds half of
    the arms. Then those join, the nearest first, with which it is at most WORSE times as wide.
    """
    values = [table.to_numpy(dtype=float) for table in tables]
    needs = [percentile_limits(v, "log") for v in values if np.isfinite(v).any()]
    if not needs:
        return 1.0, 10.0

    def width(ends: Limits) -> float:
        return math.log(ends[1] / ends[0])

    def joined(one: Limits, other: Limits) -> Limits:
        return min(one[0], other[0]), max(one[1], other[1])

    def holds(ends: Limits) -> int:
        return sum(joined(ends, each) == ends for each in needs)

    pairs = itertools.product({low for low, _ in needs}, {high for _, high in needs})
    scales = [(low, high) for low, high in pairs if low < high]
    scale = min((s for s in scales if 2 * holds(s) >= len(needs)), key=width)
    most = WORSE * width(scale)
    for each in sorted(needs, key=lambda each: width(joined(scale, each))):
        if width(joined(scale, each)) <= most:
            scale = joined(scale, each)
    return scale


def beyond_colours(table: pd.DataFrame, limits: Limits) -> tuple[str, int | None]:
    """How far an arm goes that a colour scale does not hold, in words, and at which step."""
    values = table.to_numpy(dtype=float)
    shown = values[np.isfinite(values)]
    if not shown.size:
        return "", None
    low, high = percentile_limits(values, "log")
    below, above = limits[0] / low, high / limits[1]
    if max(below, above) <= 1:
        return "", None
    end = shown.min() if below > above else shown.max()
    step = table.index[np.flatnonzero((values == end).any(axis=1))[0]]
    ends = [(below, "down", shown.min()), (above, "up", shown.max())]
    texts = [f"{way} to {number(float(value))}" for factor, way, value in ends if factor > 1]
    return f": {' and '.join(texts)}", int(step)


def middle_note(arms: Sequence[Arm]) -> str:
    """What a cell shows, which has room for one number; empty of one run."""
    most = max(len(arm.histories) for arm in arms)
    if most == 1:
        return "One run per arm. " if len(arms) > 1 else ""
    of_each = " of each arm" if len(arms) > 1 else ""
    return f"{'Mean of two runs' if most == 2 else 'Median over the runs'}{of_each}. "


def medians_of(facet: Facet) -> pd.DataFrame:
    """The median gradient norm over runs by step and block, at every step."""
    tables = with_blocks(facet.arm)
    steps = sorted(set().union(*(table.index for table in tables)))
    layers = sorted(set().union(*(table.columns for table in tables)))
    values = np.stack([t.reindex(index=steps, columns=layers).to_numpy() for t in tables])
    medians = np.full(values.shape[1:], np.nan)
    measured = np.isfinite(values).any(axis=0)  # nanmedian warns about columns without a number
    medians[measured] = np.nanmedian(values[:, measured], axis=0)
    return pd.DataFrame(medians, index=steps, columns=layers)


def cells_of(medians: pd.DataFrame, keys: tuple[str, ...], step: int | None) -> Cells:
    """A map of an arm, thinned after its medians were taken; `step` stays, which a title has."""
    shown = thinned(medians, step)
    blocks = [float(layer) + 1 for layer in shown.columns]
    steps = [float(at) for at in shown.index]
    return Cells(steps, blocks, shown.to_numpy().T.tolist(), keys=keys)


def gradient_ratio(layout: Layout) -> Chart | None:
    """Last block's gradient norm over the first's, through training."""
    layout = layout.thinned(MOST_PANELS)
    facets = facets_of(
        layout, lambda arm: [t for t in with_blocks(arm) if len(t) > 1 and t.shape[1] > 1]
    )
    if not facets:
        return None
    grid, most = grid_of(layout), most_uneven(facets)
    panels = [
        Panel(
            [
                series
                for facet in facets
                if facet.panel == index
                if (series := ratio_series(facet, most.step)) is not None
            ],
            *(place.row, place.column, place.title),
            references=[Reference("equal", y=1.0)],
        )
        for index, place in enumerate(grid.places)
    ]
    panels, scale = scaled(panels, RATIO, bool(grid.rows), titled(facets, most))
    steps = sorted({int(step) for f in facets for t in with_blocks(f.arm) for step in t.index})
    return Chart(
        "gradient_ratio",
        most.words() or "Last block against the first",
        "Above 1 the last block gets the larger gradient, below 1 the first.",
        f"{scale}{ratio_note([f.arm for f in facets])}{left_out_note(layout)}",
        "Gradient norm of the last block over the first's; at the last step: "
        f"{name_extremes(ratios_at(facets, steps[-1]))}.",
        panels,
        STEP,
        RATIO,
        grid.rows,
        grid.columns,
    )


def ratio_note(arms: Sequence[Arm]) -> str:
    """What the lines are of, in a sentence."""
    if max(len(arm.histories) for arm in arms) < MEDIANS_FROM:
        return seeds_note(arms)
    return (
        "Line: the last block's median over the runs, divided by the first's; band: the range of "
        f"the ratios of single runs. {seeds_note(arms)}"
    )


def ratio_series(facet: Facet, step: int | None) -> Series | None:
    """The ratio of an arm by step, that of `step` among them: the one that a heading has."""
    tables = of_several_blocks(facet)
    ratios = [on_scale(table.iloc[:, -1] / table.iloc[:, 0]) for table in tables]
    curves = [ratio[np.isfinite(ratio) & (ratio > 0)] for ratio in ratios]
    # Runs of different lengths keep the same steps: at each the same runs are compared.
    steps = thinned(pd.concat(curves, axis=1).sort_index(), step).index
    shown = [curve[curve.index.isin(steps)] for curve in curves]
    series = of_runs(facet.name, facet.look, shown, keys=facet.keys)
    if series is None or series.runs < MEDIANS_FROM:
        return series
    medians = on_scale(ratios_of(facet)["shown"])
    return replace(series, y=medians.reindex([int(x) for x in series.x]).tolist())


def scaling(layout: Layout, factor: str) -> Chart | None:
    """Gradient norms against a swept number, log-log, with fitted slopes."""
    found = scalings(layout, factor)
    titles = [title for title in SCALED if any(s.quantity == title for s in found)]
    if not titles:
        return None
    rows = list(dict.fromkeys(s.panel for s in found))
    inner = layout.without(factor)
    has_colours = layout.colour_factor != factor
    looks = dict(zip(layout.colour_levels, looks_of_levels(layout), strict=True))
    if not has_colours:
        looks = {None: look_of_all(layout)}
    noun, order = noun_of(factor), in_order(layout.colour_factor or "", layout.colour_levels)
    found.sort(key=lambda s: order.index(s.level) if has_colours else 0)
    levels = {float(level): level for level in numeric(layout.levels[factor])}
    ticks = [number for number in levels if number > 0]
    panels = []
    for row, (panel, title) in enumerate(itertools.product(rows, titles)):
        inside = [s for s in found if (s.panel, s.quantity) == (panel, title)]
        keys = {s.level: keys_of(inner, panel, s.level) if has_colours else () for s in inside}
        series = [
            replace(
                one, keys=(*keys[s.level], *(key_of(factor, levels[x]) for x in at)) or ("all",)
            )
            for s in inside
            for one, at in scaling_series(s, looks[s.level])
        ]
        name = ", ".join(filter(None, [title, words_of(inner.panel_factors, panel)]))
        label = f"gradient norm, {title.partition(', ')[2]}"
        panels.append(
            Panel(series, *divmod(row, 2), f"{name}{exponents(inside)}", y=Axis(label, "log"))
        )
    fits = [
        [(s.fit.slope, f"{s.label}: {s.fit}") for s in found if s.fit and s.quantity == title]
        for title in titles
    ]
    slopes = [f"{t}, {name_extremes(each)}" for t, each in zip(titles, fits, strict=True) if each]
    return Chart(
        f"scaling_{factor.rpartition('.')[2]}",
        scaling_title(found, noun),
        "On these axes a power law is a straight line, and its slope is the exponent: -0.50 falls "
        "as one over the square root.",
        "Every run is a point; lines are least-squares fits in log-log. Above each panel are their "
        "exponents, beside a line, where there is room, with the 95 % confidence interval, "
        "assuming independent errors of equal spread."
        f"{misses_note(found)}{unlearned_note(found)}{left_out_note(inner)}",
        f"Gradient norms against {noun} on log scales. " + "; ".join(slopes) + ".",
        with_room_for_learned(panels),
        Axis(noun, "log", ticks=tuple((float(tick), f"{tick:g}") for tick in ticks)),
        Axis("gradient norm of a block", "log"),
    )


def exponents(found: Sequence[Scaling]) -> str:
    """The exponents of a panel after its title, where they are few enough to be read."""
    fits = [(s, f"{s.fit.slope:+z.2f}") for s in found if s.fit is not None]
    if not fits or len(fits) > CROWDED:
        return ""
    texts = [f"{slope} ({s.label})" if len(found) > 1 else slope for s, slope in fits]
    return f": exponent {', '.join(texts)}"


def misses_note(found: Sequence[Scaling]) -> str:
    """Which run is farthest from its line, and which lines are therefore no power laws."""
    misses = [(s.fit.miss, f"{s.label}, {s.quantity}") for s in found if s.fit is not None]
    if not misses:
        return ""
    miss, run = max(misses)
    note = f" The run farthest from its line ({run}) differs from it by a factor of {miss:,.3g}."
    return f"{note} With more than {MOST_MISS:g} a line is not called a power law."


def unlearned_note(found: Sequence[Scaling]) -> str:
    """How many runs are left out of the lines."""
    count = unlearned(found)
    if not count:
        return ""
    which = "the run" if count == 1 else f"the {count} runs"
    return (
        f" At the end of training the lines are without {which} that did not learn (crosses, or "
        "arrows where they are outside of a panel)."
    )


def unlearned(found: Sequence[Scaling]) -> int:
    """How many runs did not learn: each counts once, however many of its blocks are shown."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.quantity] = counts.get(each.quantity, 0) + len(each.unlearned)
    return max(counts.values(), default=0)


def with_room_for_learned(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with scales that their crosses, of runs that did not learn, do not decide."""
    learned = [
        replace(panel, series=kept)
        for panel in panels
        if (kept := [series for series in panel.series if UNLEARNED not in series.label])
    ]
    found = []
    for panel in panels:
        assert panel.y is not None
        beside = [other for other in learned if other.y == panel.y]
        limits = limits_of_y(beside, panel.y) if beside else None
        found.append(replace(panel, y=replace(panel.y, limits=limits)))
    return found


def look_of_all(layout: Layout) -> Look:
    """The look of the placement that all runs share."""
    placement = shared(runs_of([*layout.by_key.values()]), PLACEMENT)
    return CATEGORIES[0] if placement is None else look_of(str(placement))


def scaling_series(found: Scaling, look: Look) -> list[tuple[Series, list[float]]]:
    """The fitted line with its exponent, and the runs as points: at each x a series of its own.

    With each series the x at which alone it is: none of the line.
    """
    series: list[tuple[Series, list[float]]] = []
    if found.fit is not None:
        ends = np.array([min(found.x), max(found.x)])
        slope = f"{found.fit.slope:+z.2f}"
        if not math.isnan(found.fit.low):
            slope += f" ({found.fit.low:+z.2f}, {found.fit.high:+z.2f})"
        heights = on_scale(pd.Series(found.fit.at(ends)))
        line = Series(found.label, look, ends.tolist(), list(heights), name=slope, width=1.6)
        series.append((line, []))
    cross = replace(look, mark="P" if look.mark == "X" else "X")
    for label, looks, points in (
        (found.label, look, list(zip(found.x, found.y, strict=True))),
        (f"{found.label}, {UNLEARNED}", cross, found.unlearned),
    ):
        for at in sorted({x for x, _ in points}):
            heights = on_scale(pd.Series([y for x, y in points if x == at]))
            dots = Series(label, looks, [at] * len(heights), list(heights), kind="dots")
            series.append((dots, [at]))
    return series


def scaling_title(found: Sequence[Scaling], noun: str) -> str:
    """The steepest line whose exponent is known to be no 0: a power law, or from where to where.

    A law only where the points are a straight line.
    """
    laws = [(s, s.fit) for s in found if s.fit is not None and s.has_direction]
    if not laws:
        return f"Of no gradient norm it is known that it changes with the {noun}"
    steepest, fit = max(laws, key=lambda law: abs(law[1].slope))
    subject = f"{steepest.label}: the gradient norm of the {steepest.quantity},"
    count = unlearned(found)
    without = f"; {plural(count, 'run')} that did not learn left out at the end" if count else ""
    verb = "grows" if fit.slope > 0 else "falls"
    if not steepest.is_straight:
        (low, first), (high, last) = (list(steepest.medians.items())[end] for end in (0, -1))
        places = f"as the {noun} goes from {low:g} to {high:g}"
        return f"{subject} goes from {number(first)} to {number(last)} {places}{without}"
    return (
        f"{subject} {verb} as the power {fit.slope:+z.2f} of the {noun} (95 % interval "
        f"{fit.low:+z.2f} to {fit.high:+z.2f}){without}"
    )


def inside(layout: Layout, statistic: Statistic) -> Chart | None:
    """A probed statistic over the blocks, at the probes of a slider."""

    def probed(arm: Arm) -> list[pd.DataFrame]:
        tables = [h.probes[statistic.name] for h in arm.histories if statistic.name in h.probes]
        return [on_scale(table.where(np.isfinite(table))) for table in tables]

    whole, layout = layout, layout.where(lambda arm: bool(probed(arm)))
    without = len(whole.panels) - len(layout.panels)
    layout = layout.thinned(MOST_PANELS)
    facets, grid = facets_of(layout, probed), grid_of(layout)
    if not facets:
        return None
    tables = {facet.keys: probed(facet.arm) for facet in facets}
    frames = frames_of([t for each in tables.values() for t in each], len(facets))
    note = ""
    if len(frames) > 1 and are_alike(facets, tables, frames[0]):
        note = f" At step {frames[0]} all arms have the same values, which are not shown."
        frames = frames[1:]
    if len(frames) == 1:
        note += f" Measured at step {frames[0]}."
    if without:
        note += f" {without} of {len(whole.panels)} panels have nothing to measure and are "
        note += "left out."
    panels = blocks_panels(facets, grid, tables, frames)
    ends = ends_by_block(panels, facets, frames[-1])
    return Chart(
        statistic.name,
        title_of_statistic(statistic, last_series(panels, facets, frames[-1]), frames[-1]),
        READ.get(statistic.name, "One point for each block; the first block is on the left."),
        f"{statistic.axis}. {seeds_note([f.arm for f in facets])}{left_out_note(layout)}{note}",
        f"{statistic.title}. First to last block at step {frames[-1]}, {statistic.words}: "
        f"{name_extremes(ends)}.",
        panels,
        BLOCK,
        Axis(statistic.words.partition(";")[0], statistic.scale, shows=statistic.shows),
        grid.rows,
        grid.columns,
    )


def are_alike(
    facets: Sequence[Facet], tables: dict[tuple[str, ...], list[pd.DataFrame]], step: int
) -> bool:
    """Whether several arms have the same values at a step, within SAME."""
    rows = [[t.loc[step].to_numpy() for t in tables[f.keys] if step in t.index] for f in facets]
    means = [np.mean(each, axis=0) for each in rows if each]
    if len(means) < 2 or len({len(mean) for mean in means}) > 1:
        return False
    return all(bool(np.allclose(mean, means[0], rtol=SAME, atol=0)) for mean in means[1:])


def last_series(
    panels: Sequence[Panel], facets: Sequence[Facet], frame: int
) -> list[tuple[Facet, Series]]:
    """Each arm with its series at a step."""
    by_keys = {s.keys: s for panel in panels for s in panel.series if s.frame == frame}
    return [(facet, by_keys[facet.keys]) for facet in facets if facet.keys in by_keys]


def ends_by_block(
    panels: Sequence[Panel], facets: Sequence[Facet], frame: int
) -> list[tuple[float, str]]:
    """First and last block of each arm at a step, with words."""
    return [
        (s.middle[-1], f"{f.label} from {number(s.middle[0])} to {number(s.middle[-1])}")
        for f, s in last_series(panels, facets, frame)
    ]


Maker = Callable[[], Chart | None]


def makers(layout: Layout, arms: Sequence[Arm]) -> list[Maker]:
    """Functions that make a figure, in the order of the page; None where its data is missing.

    Where learning rates vary, the page begins with them: no other figure has all arms fairly.
    """
    sizes = [
        name
        for name in layout.factors
        if name.startswith("model.") and len(numeric(layout.levels[name])) > 1
    ]
    return [
        *figures_of_papers([history.run for arm in arms for history in arm.histories]),
        partial(rate_maps, layout),
        partial(ranking, layout),
        partial(answer, layout),
        partial(what_each_step_changed, layout, arms),
        partial(loss, layout),
        partial(gradients_by_layer, layout),
        partial(gradient_maps, layout),
        partial(gradient_ratio, layout),
        *(partial(scaling, layout, name) for name in sizes),
        partial(rate_sensitivity, layout),
        *(partial(inside, layout, statistic) for statistic in drawn()),
    ]
