"""The report's figures, each with a caption and a text for readers who do not see it."""

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.analysis.arms import Arm, Layout, numeric, short_name
from experiments.analysis.histories import NATS, History
from experiments.analysis.numbers import Band, band, median
from experiments.analysis.runs import NOT_FINITE
from experiments.analysis.scaling import MOST_ROWS, SCALED, Scaling, scalings
from experiments.report.changes import what_each_step_changed
from experiments.report.drawing import (
    INK,
    MOST_PANELS,
    ONE_CROWDED,
    ONE_PANEL,
    TITLE_WIDTH,
    AboveScale,
    Line,
    ReportFigure,
    add_legend,
    arms_with_data,
    draw_band,
    fit_for_panels,
    format_number,
    grid_cell,
    is_crowded,
    label_axes,
    left_out_note,
    legend_key,
    lines_of,
    name_extremes,
    plural,
    seeds_note,
    share_scales,
    side_by_side,
    small_multiples,
    title_panels,
    unit_note,
)
from experiments.report.lettering import fold
from experiments.report.rates import rate_maps, rate_sensitivity
from experiments.report.style import (
    COLOURS,
    GREATEST,
    LEAST,
    LEGEND,
    MARKS,
    log_if_wide,
    loss_limits,
    on_scale,
    panels,
    whole_numbers,
)
from normscope.stats import Statistic, described, drawn

GRAD_NORM = described("grad_norm")


def loss(layout: Layout) -> ReportFigure | None:
    """Validation and training loss of each arm, and the loss of token frequencies alone."""
    layout, unit = layout.thinned(MOST_PANELS), layout.unit
    shown = arms_with_data(layout, with_losses)
    if not shown:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes, x=True)
    # Training losses were recorded in nats alone.
    validation_only = is_crowded(layout) or unit.column != NATS.column
    lines, stopped, final = [], [], []
    for panel, line, arm, histories in shown:
        is_over = [history.run.divergence == NOT_FINITE for history in histories]
        values = band([history.losses(unit.column) for history in histories], is_over)
        draw_band(axes[panel], values, line)
        lines.append((axes[panel], line, arm, values.high))
        if not validation_only:
            smooth = [smoothed(history.losses("train_loss")) for history in histories]
            training = band(smooth, is_over).thinned().median
            axes[panel].plot(training.index, training, color=line.colour, alpha=0.45, linewidth=0.8)
            lines.append((axes[panel], line, arm, training))
        over = itertools.compress(histories, is_over)
        stopped += [(axes[panel], history, line) for history in over]
        final_loss = median(arm.final_losses())
        final.append((final_loss, f"{arm.label}: {format_number(final_loss)}"))
    histories_shown = [history for *_, histories in shown for history in histories]
    frequencies = frequency_losses(histories_shown) if unit.column == NATS.column else []
    for axis, value in itertools.product(axes, frequencies):
        axis.axhline(value, color=INK, linestyle=":", linewidth=1)
    curves = [history.losses(unit.column).tolist() for history in histories_shown]
    axes[0].set_ylim(*loss_limits(curves, frequencies))
    above = AboveScale()
    for axis, line, arm, curve in lines:
        above.mark(axis, arm.label, curve, line.colour)
    for axis, history, line in stopped:
        mark_divergence(axis, history, line)
    title_panels(axes, layout, "step (updates made)", unit.axis)
    whole_numbers(*axes)
    handles: list[Any] = [legend_key(line) for line in lines_of(layout)]
    if frequencies:
        handles.append(Line2D([], [], color=INK, linestyle=":", label="token frequencies alone"))
    if stopped:
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label="not finite"))
    add_legend(figure, [*handles, *above.handles()])
    kinds = "Thick with marks: validation; thin: training, a running median."
    if validation_only:
        kinds = "Validation loss only."
    caption = (
        f"{seeds_note([arm for _, _, arm, _ in shown])} {kinds} A run that was not finite counts "
        f"as infinite from then on ({plural(len(stopped), 'run')})."
        f"{above.note()}{unit_note(unit)}{left_out_note(layout)}"
    )
    alt = f"Loss against steps. Median validation loss at the end: {name_extremes(final)}."
    return ReportFigure("loss", "Loss", caption, alt, figure)


def with_losses(arm: Arm) -> list[History]:
    """The runs of an arm that have a validation loss."""
    return [history for history in arm.histories if not history.losses(arm.unit.column).empty]


def frequency_losses(histories: Sequence[History]) -> list[float]:
    """The validation losses of token frequencies alone, one for each corpus."""
    losses = {h.run.summary.corpus.unigram_validation_loss for h in histories}
    return sorted(filter(None, losses))


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


def mark_divergence(axis: Axes, history: History, line: Line) -> None:
    """Draw a cross at a run's last finite training loss, at most at the upper edge of the panel."""
    losses = history.losses("train_loss")
    losses = losses[np.isfinite(losses)]
    if not losses.empty:
        height = min(float(losses.iloc[-1]), axis.get_ylim()[1])
        axis.plot(losses.index[-1], height, "x", color=line.colour, markersize=7, clip_on=False)


def stacked(tables: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, layers, and the median over runs (steps, layers) of tables of steps x layers."""
    steps = np.array(sorted(set().union(*(table.index for table in tables))))
    layers = np.array(sorted(set().union(*(table.columns for table in tables))))
    values = np.stack([t.reindex(index=steps, columns=layers).to_numpy() for t in tables])
    finite = np.isfinite(values)
    medians = np.full(values.shape[1:], np.nan)
    measured = finite.any(axis=0)  # nanmedian warns about columns without a number
    medians[measured] = np.nanmedian(np.where(finite, values, np.nan)[:, measured], axis=0)
    return steps, layers, medians


def with_blocks(arm: Arm) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs that have them."""
    return [on_scale(history.blocks) for history in arm.histories if not history.blocks.empty]


def gradients_by_layer(layout: Layout, arms: Sequence[Arm]) -> ReportFigure | None:
    """Gradient norm of each block at three steps, arms side by side on one scale."""
    if not any(map(with_blocks, arms)):
        return None
    layout, note = fit_for_panels(layout)
    figure, panels_of_arms = side_by_side(layout)
    axes = [axis for axis, _ in panels_of_arms]
    share_scales(axes)
    at_start, has_trained = [], False
    for axis, arm in panels_of_arms:
        tables = with_blocks(arm)
        if not tables:
            continue
        steps = np.array(sorted(set().union(*(table.index for table in tables))))
        three = dict.fromkeys(int(step) for step in (steps[0], steps[len(steps) // 2], steps[-1]))
        has_trained |= len(three) > 1
        for index, step in enumerate(three):
            rows = pd.DataFrame([table.loc[step] for table in tables if step in table.index])
            rows = rows.where(np.isfinite(rows) & (rows > 0))
            line = Line(step, f"step {step}", COLOURS[index], MARKS[index])
            draw_band(axis, Band(rows.median(), rows.min(), rows.max()), line)
            if index == 0 and rows.shape[1]:
                first, last = map(float, rows.median().iloc[[0, -1]])
                change = f"from {format_number(first)} to {format_number(last)}"
                at_start.append((last / first, f"{arm.label} {change}"))
    log_if_wide(*axes)
    label_axes(axes, "block", GRAD_NORM.axis)
    names = ["initialisation"]
    if has_trained:
        names = ["first logged step", "middle step", "last step"]
    add_legend(
        figure,
        [legend_key(Line(None, name, COLOURS[i], MARKS[i])) for i, name in enumerate(names)],
    )
    caption = f"Before clipping, on one scale. {seeds_note(arms)}{note}"
    alt = f"Gradient norm by block. First to last block at the start: {name_extremes(at_start)}."
    return ReportFigure("gradients_by_layer", GRAD_NORM.title, caption, alt, figure)


def gradient_maps(layout: Layout, arms: Sequence[Arm]) -> ReportFigure | None:
    """Gradient norm over layers and steps, every arm on one colour scale."""
    if not any(len(table) > 1 for arm in arms for table in with_blocks(arm)):
        return None
    layout, note = fit_for_panels(layout)
    figure, panels_of_arms = side_by_side(layout)
    axes = [axis for axis, _ in panels_of_arms]
    maps = {
        id(axis): stacked(tables) for axis, arm in panels_of_arms if (tables := with_blocks(arm))
    }
    values = np.concatenate(
        [medians[np.isfinite(medians) & (medians > 0)] for *_, medians in maps.values()]
    )
    if not values.size:
        return None
    norm = LogNorm(values.min(), values.max()) if values.min() < values.max() else None
    mesh = None
    for axis in axes:
        axis.grid(False)
        axis.set_facecolor("0.6")
        if id(axis) not in maps:
            continue
        steps, layers, medians = maps[id(axis)]
        mesh = axis.pcolormesh(
            edges(steps),
            np.append(layers, layers[-1] + 1) - 0.5,
            np.ma.masked_where(~(medians > 0), medians).T,
            norm=norm,
            cmap="viridis",
            rasterized=True,
        )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))
    if mesh is not None:
        rows = grid_cell(axes[0]).get_gridspec().nrows
        figure.colorbar(
            mesh,
            ax=axes,
            label=textwrap.fill(GRAD_NORM.axis, 27),
            aspect=20 * rows,  # as wide beside many rows as beside one
        )
    label_axes(axes, "step (updates made)", "block")
    caption = (
        "One colour scale for all arms; grey: not measured or not finite. "
        f"{seeds_note(arms, 'Median')}{note}"
    )
    alt = (
        f"Heat maps of the gradient norm by block and step for {plural(len(maps), 'arm')}, on one "
        f"scale from {format_number(float(values.min()))} to {format_number(float(values.max()))}."
    )
    return ReportFigure("gradient_maps", "Gradient norm through training", caption, alt, figure)


def edges(steps: np.ndarray) -> np.ndarray:
    """The edges of the map's columns: halfway between neighbouring steps."""
    inner = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - 0.5], inner, [steps[-1] + 0.5]])


def gradient_ratio(layout: Layout) -> ReportFigure | None:
    """Last block's gradient norm over the first's, through training."""
    layout = layout.thinned(MOST_PANELS)
    shown = arms_with_data(
        layout, lambda arm: [t for t in with_blocks(arm) if len(t) > 1 and t.shape[1] > 1]
    )
    if not shown:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes, x=True)
    final = []
    for panel, line, arm, tables in shown:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratios = [table.iloc[:, -1] / table.iloc[:, 0] for table in tables]
        values = band([on_scale(ratio[np.isfinite(ratio) & (ratio > 0)]) for ratio in ratios])
        draw_band(axes[panel], values, line, most_marks=8)
        if not values.median.empty:
            final_ratio = float(values.median.iloc[-1])
            final.append((final_ratio, f"{arm.label} {format_number(final_ratio)}"))
    for axis in axes:
        axis.axhline(1, color=INK, linestyle=":", linewidth=1)
    log_if_wide(*axes)
    whole_numbers(*axes)
    title_panels(axes, layout, "step (updates made)", "last block / first block")
    add_legend(figure, [legend_key(line) for line in lines_of(layout)])
    caption = (
        "Above 1 the last block gets the larger gradient, below 1 the first. "
        f"{seeds_note([arm for _, _, arm, _ in shown])}{left_out_note(layout)}"
    )
    alt = "Gradient norm of the last block over the first's; at the last step: "
    alt += f"{name_extremes(final)}."
    return ReportFigure("gradient_ratio", "Last block against the first", caption, alt, figure)


def scaling(layout: Layout, factor: str) -> ReportFigure | None:
    """Gradient norms against a swept number, log-log, with fitted slopes."""
    found = scalings(layout, factor)
    titles = [title for title in SCALED if any(s.quantity == title for s in found)]
    rows = list(dict.fromkeys(s.panel for s in found))
    if not titles:
        return None
    has_one_line = layout.colour_factor == factor
    crowded = is_crowded(layout) and not has_one_line
    size = (3.6, 4.6) if crowded else (3.3, 3.2)
    if len(titles) == 1:
        size = ONE_CROWDED if crowded else ONE_PANEL
    figure, axes = panels(len(rows), len(titles), size)
    for moment in ("initialisation", "end"):  # they differ too much for one scale
        share_scales(
            [axis for index, axis in enumerate(axes) if moment in titles[index % len(titles)]]
        )
    inner = layout.without(factor).thinned(MOST_ROWS)
    styles = [Line(None, "all runs", COLOURS[0], MARKS[0])] if has_one_line else lines_of(layout)
    for index, axis in enumerate(axes):
        panel, title = rows[index // len(titles)], titles[index % len(titles)]
        panel_title = inner.panel_title(panel)
        axis.set_title(f"{title}\n{fold(panel_title, TITLE_WIDTH)}".rstrip())
        axis.set_xscale("log")
        axis.set_yscale("log")
        for line in styles:
            for s in found:
                is_of_line = has_one_line or s.level == line.level
                if (s.panel, s.quantity) != (panel, title) or not is_of_line:
                    continue
                points = np.clip(s.y, LEAST, GREATEST)
                axis.plot(s.x, points, line.mark, color=line.colour, markersize=4, alpha=0.6)
                if s.fit is not None:
                    ends = np.array([min(s.x), max(s.x)])
                    label = f"{s.fit.slope:+z.2f}"
                    if not (crowded or math.isnan(s.fit.low)):
                        label += f" ({s.fit.low:+z.2f}, {s.fit.high:+z.2f})"
                    style = line.style | {"markersize": 3.5}
                    heights = np.clip(s.fit.at(ends), LEAST, GREATEST)
                    axis.plot(ends, heights, linewidth=1.4, label=label, **style)
        ticks = [number for number in numeric(layout.levels[factor]) if number > 0]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        if axis.get_legend_handles_labels()[0]:
            axis.legend(
                title="slope" if crowded else "slope (95 %)",
                title_fontsize=8,
                fontsize=7 if crowded else 8,
                ncols=3 if crowded else 1,
                loc="upper left",
                **LEGEND,
            )
        axis.tick_params(labelleft=True)
        low, high = span([s for s in found if s.quantity.split()[-1] == title.split()[-1]])
        room = (high / low) ** 0.75  # for the panel's legend
        axis.set_ylim(low / 1.3, min(high * 1.3 * room, 1e50 * GREATEST))
    name = short_name(factor)
    label_axes(axes, name, "gradient norm of a block")
    add_legend(figure, [legend_key(line) for line in styles])
    caption = (
        "Every run is a point; lines are least-squares fits in log-log, each with its slope"
        + ("." if crowded else " and, in brackets, the slope's 95 % confidence interval, assuming ")
        + ("" if crowded else "independent errors of equal spread.")
    )
    misses = [(s.fit.miss, f"{s.label}, {s.quantity}") for s in found if s.fit is not None]
    if misses:
        miss, run = max(misses)
        caption += f" The run farthest from its line ({run}) differs from it by a factor of "
        caption += f"{miss:,.3g}."
    caption += left_out_note(inner)
    fits = [
        [(s.fit.slope, f"{s.label}: {s.fit}") for s in found if s.fit and s.quantity == title]
        for title in titles
    ]
    slopes = [
        f"{title}, {name_extremes(described)}"
        for title, described in zip(titles, fits, strict=True)
        if described
    ]
    alt = f"Gradient norms against {name} on log scales. " + "; ".join(slopes) + "."
    return ReportFigure(f"scaling_{name}", f"Scaling with {name}", caption, alt, figure)


def span(found: Sequence[Scaling]) -> tuple[float, float]:
    """The least and the greatest value among the points and the ends of the lines."""
    values = [y for s in found for y in s.y]
    for s in found:
        if s.fit is not None:
            values += s.fit.at(np.array([min(s.x), max(s.x)])).tolist()
    shown = [min(max(value, LEAST), GREATEST) for value in values]
    return min(shown), max(shown)


def inside(layout: Layout, statistic: Statistic) -> ReportFigure | None:
    """A probed statistic by layer, at the first and the last probe."""
    stat = statistic.name

    def probed(arm: Arm) -> list[pd.DataFrame]:
        return [on_scale(h.probes[stat]) for h in arm.histories if stat in h.probes]

    whole = layout
    layout = whole.where(lambda arm: bool(probed(arm)))
    without = len(whole.panels) - len(layout.panels)
    layout = layout.thinned(MOST_PANELS)
    shown = arms_with_data(layout, probed)
    if not shown:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes)
    at_last_probe = []
    probed_once = all(len(table) == 1 for *_, tables in shown for table in tables)
    last_only = probed_once or is_crowded(layout)
    probes: dict[int, Any] = {-1: {}} if last_only else {0: {"linestyle": "--"}, -1: {}}
    for panel, line, arm, tables in shown:
        for row, style in probes.items():
            rows = pd.DataFrame([table.iloc[row] for table in tables])
            rows = rows.where(np.isfinite(rows))
            values = Band(rows.median(), rows.min(), rows.max())
            draw_band(axes[panel], values, line, **style)
        if not values.median.empty:
            first, last = map(float, values.median.iloc[[0, -1]])
            change = f"from {format_number(first)} to {format_number(last)}"
            at_last_probe.append((last, f"{arm.label} {change}"))
    whole_numbers(*axes)
    if statistic.scale == "log":
        log_if_wide(*axes)
    title_panels(axes, layout, "block", statistic.axis)
    handles = [legend_key(line) for line in lines_of(layout)]
    if not last_only:
        handles += [
            Line2D([], [], color=INK, linestyle="--", label="first probe"),
            Line2D([], [], color=INK, label="last probe"),
        ]
    add_legend(figure, handles)
    caption = f"{seeds_note([arm for _, _, arm, _ in shown])}{left_out_note(layout)}"
    if without:
        caption += f" {without} of {len(whole.panels)} panels have nothing to measure and are "
        caption += "left out."
    if last_only:
        caption += " Measured at the end only." if probed_once else " Only the last probe is shown."
    alt = (
        f"{statistic.title}. First to last block at the last probe, {statistic.words}: "
        f"{name_extremes(at_last_probe)}."
    )
    return ReportFigure(stat, statistic.title, caption, alt, figure)


Maker = Callable[[], ReportFigure | None]


def makers(layout: Layout, arms: Sequence[Arm]) -> list[Maker]:
    """Functions that draw a figure, in the order of the page; None where its data is missing."""
    sizes = [
        name
        for name in layout.factors
        if name.startswith("model.") and len(numeric(layout.levels[name])) > 1
    ]
    return [
        partial(what_each_step_changed, layout, arms),
        partial(loss, layout),
        partial(gradients_by_layer, layout, arms),
        partial(gradient_maps, layout, arms),
        partial(gradient_ratio, layout),
        *(partial(scaling, layout, name) for name in sizes),
        partial(rate_maps, layout),
        partial(rate_sensitivity, layout),
        *(partial(inside, layout, statistic) for statistic in drawn()),
    ]
