"""The report's figures, each with the words that say what it shows."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.analysis.arms import Arm, Key, Layout, numeric, short_name
from experiments.analysis.histories import History
from experiments.analysis.numbers import Band, Fit, band, fit_power, median
from experiments.analysis.runs import Value
from experiments.report.drawing import (
    INK,
    MOST_PANELS,
    ONE_CROWDED,
    ONE_PANEL,
    Drawn,
    Line,
    add_legend,
    cells,
    draw_band,
    fit_for_panels,
    format_number,
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
)
from experiments.report.rates import rate_maps, rate_sensitivity
from experiments.report.style import COLOURS, LEGEND, MARKS, log_if_wide, panels

MOST_ROWS = 4  # of a scaling figure
INSIDE = {  # what probes recorded: title, axis, in words
    "activation_rms": ("Activations by layer", "RMS of the stream after the block", "activation"),
    "update_ratio": ("Update ratios by layer", "norm(change) / norm(weights)", "update ratio"),
    "attention_entropy": (
        "Attention entropy by layer",
        "entropy / ln(visible tokens); 1 is uniform",
        "attention entropy",
    ),
    "angular_distance": (
        "Angular distance by layer",
        "arccos(cosine) / pi between the block's input and output",
        "angular distance",
    ),
    "layer_drop": (
        "Loss without a layer",
        "rise of the validation loss without the block (nats)",
        "rise of the loss",
    ),
}
LINEAR = ("attention_entropy", "angular_distance", "layer_drop")  # may be 0, or below
LAST_INITIAL = ("grad_norm", "first_step", "last_block")
SCALED = (  # columns of a scaling figure: title, place in the summary
    ("last block, at initialisation", LAST_INITIAL),
    ("first block, at initialisation", ("grad_norm", "first_step", "first_block")),
    ("last block, at the end", ("grad_norm", "last_step", "last_block")),
    ("first block, at the end", ("grad_norm", "last_step", "first_block")),
)


def loss(layout: Layout) -> Drawn | None:
    """Validation and training loss of each arm, with what token frequencies alone reach."""
    layout = layout.thinned(MOST_PANELS)
    drawn = [
        (place, line, arm, [h for h in arm.histories if not h.losses("val_loss").empty])
        for place, _, line, arm in cells(layout)
    ]
    drawn = [item for item in drawn if item[3]]
    if not drawn:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes, x=True)
    tops, crosses, ends = [], [], []
    crowded = is_crowded(layout)
    for place, line, arm, histories in drawn:
        ended = [history.run.status == "diverged" for history in histories]
        values = band([history.losses("val_loss") for history in histories], ended)
        draw_band(axes[place], values, line)
        if not crowded:
            smooth = [smoothed(history.losses("train_loss")) for history in histories]
            thin = band(smooth, ended).drawn().median
            axes[place].plot(thin.index, thin, color=line.colour, alpha=0.45, linewidth=0.8)
        tops += [float(history.losses("val_loss").iloc[0]) for history in histories]
        gone = [history for history, end in zip(histories, ended, strict=True) if end]
        crosses += [(axes[place], history, line) for history in gone]
        end = median(arm.final_losses())
        ends.append((end, f"{arm.label}: {format_number(end)}"))
    frequencies = {
        h.run.number("corpus", "unigram_validation_loss") for *_, hs in drawn for h in hs
    }
    frequencies.discard(None)
    handles: list[Any] = [legend_key(line) for line in lines_of(layout)]
    for value in sorted(filter(None, frequencies))[:3]:
        tops.append(value)
        for axis in axes:
            axis.axhline(value, color=INK, linestyle=":", linewidth=1)
    if frequencies:
        handles.append(Line2D([], [], color=INK, linestyle=":", label="token frequencies alone"))
    if crosses:
        handles.append(
            Line2D([], [], color=INK, marker="x", linestyle="", label="a run that diverged")
        )
    finite = [top for top in tops if math.isfinite(top)]
    if finite:
        axes[0].set_ylim(top=1.05 * max(finite))
    for cross in crosses:
        mark_end(*cross)
    title_panels(axes, layout, "step (updates made)", "cross entropy (nats per token)")
    add_legend(figure, handles)
    shown = "Thick with marks: validation; thin: training, a running median."
    if crowded:
        shown = "Validation alone."
    caption = (
        f"{seeds_note([arm for _, _, arm, _ in drawn])} {shown} A run that diverged counts as "
        f"infinite from there on; {plural(len(crosses), 'run')} did.{left_out_note(layout)}"
    )
    alt = f"Loss against steps. Median validation loss at the end: {name_extremes(ends)}."
    return Drawn("loss", "Loss", caption, alt, figure)


def smoothed(series: pd.Series) -> pd.Series:
    """A running median over a twentieth of the steps; less, and as much to both sides, at the ends.

    So the first and the last value stand as they are.
    """
    half = max(1, len(series) // 40)
    smooth = series.rolling(2 * half + 1, center=True, min_periods=1).median()
    for place in range(min(half, len(series) // 2)):
        smooth.iloc[place] = series.iloc[: 2 * place + 1].median()
        smooth.iloc[-1 - place] = series.iloc[len(series) - 2 * place - 1 :].median()
    return smooth


def mark_end(axis: Axes, history: History, line: Line) -> None:
    """A cross where a run stopped being finite, at its last finite training loss.

    At the upper edge where that lies above it.
    """
    losses = history.losses("train_loss")
    losses = losses[np.isfinite(losses)]
    if not losses.empty:
        height = min(losses.iloc[-1], axis.get_ylim()[1])
        axis.plot(losses.index[-1], height, "x", color=line.colour, markersize=7, clip_on=False)


def stacked(tables: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, layers, and the median over runs (steps, layers) of tables of steps x layers."""
    steps = np.array(sorted(set().union(*(table.index for table in tables))))
    layers = np.array(sorted(set().union(*(table.columns for table in tables))))
    block = np.stack([t.reindex(index=steps, columns=layers).to_numpy() for t in tables])
    finite = np.isfinite(block)
    median = np.full(block.shape[1:], np.nan)
    known = finite.any(axis=0)
    median[known] = np.nanmedian(np.where(finite, block, np.nan)[:, known], axis=0)
    return steps, layers, median


def with_blocks(arm: Arm) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs that have them."""
    return [history.blocks for history in arm.histories if not history.blocks.empty]


def gradients_by_layer(layout: Layout, arms: Sequence[Arm]) -> Drawn | None:
    """Gradient norm of each block at initialisation and later, arms side by side on one scale."""
    if not any(map(with_blocks, arms)):
        return None
    layout, left_out = fit_for_panels(layout)
    figure, placed = side_by_side(layout)
    share_scales([axis for axis, _ in placed])
    ends, trained = [], False
    for axis, arm in placed:
        tables = with_blocks(arm)
        if not tables:
            continue
        steps = np.array(sorted(set().union(*(table.index for table in tables))))
        chosen = dict.fromkeys(int(step) for step in (steps[0], steps[len(steps) // 2], steps[-1]))
        trained |= len(chosen) > 1
        for index, step in enumerate(chosen):
            rows = pd.DataFrame([table.loc[step] for table in tables if step in table.index])
            rows = rows.where(np.isfinite(rows) & (rows > 0))
            line = Line(step, f"step {step}", COLOURS[index], MARKS[index])
            draw_band(axis, Band(rows.median(), rows.min(), rows.max()), line)
            if index == 0 and rows.shape[1]:
                first, last = rows.median().iloc[[0, -1]]
                ends.append(
                    (
                        last / first,
                        f"{arm.label} from {format_number(first)} to {format_number(last)}",
                    )
                )
    log_if_wide(*(axis for axis, _ in placed))
    label_axes([axis for axis, _ in placed], "block", "gradient norm of the block's parameters")
    names = ("the first logged step", "the middle", "the last") if trained else ("initialisation",)
    add_legend(
        figure,
        [legend_key(Line(None, name, COLOURS[i], MARKS[i])) for i, name in enumerate(names)],
    )
    caption = f"Before clipping, on one scale. {seeds_note(arms)}{left_out}"
    alt = f"Gradient norm by block. First to last block at the start: {name_extremes(ends)}."
    return Drawn("gradients_by_layer", "Gradient norm by layer", caption, alt, figure)


def gradient_maps(layout: Layout, arms: Sequence[Arm]) -> Drawn | None:
    """Gradient norm over layers and steps, every arm on one colour scale."""
    if not any(len(table) > 1 for arm in arms for table in with_blocks(arm)):
        return None
    layout, left_out = fit_for_panels(layout)
    figure, placed = side_by_side(layout)
    maps = {id(axis): stacked(tables) for axis, arm in placed if (tables := with_blocks(arm))}
    values = np.concatenate(
        [median[np.isfinite(median) & (median > 0)] for *_, median in maps.values()]
    )
    norm = (
        LogNorm(values.min(), values.max()) if values.size and values.min() < values.max() else None
    )
    mesh = None
    for axis, _ in placed:
        axis.grid(False)
        axis.set_facecolor("0.6")
        if id(axis) not in maps:
            continue
        steps, layers, median = maps[id(axis)]
        mesh = axis.pcolormesh(
            edges(steps),
            np.append(layers, layers[-1] + 1) - 0.5,
            np.ma.masked_where(~(median > 0), median).T,
            norm=norm,
            cmap="viridis",
            rasterized=True,
        )
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if mesh is not None:
        figure.colorbar(
            mesh,
            ax=[axis for axis, _ in placed],
            label=textwrap.fill("gradient norm of the block's parameters", 27),
        )
    label_axes([axis for axis, _ in placed], "step (updates made)", "block")
    caption = (
        f"One colour scale for all arms; grey: not measured or not finite. {seeds_note(arms)}"
        f"{left_out}"
    )
    alt = (
        f"Heat maps of the gradient norm by block and step for {plural(len(maps), 'arm')}, on one "
        f"scale from {format_number(float(values.min()))} to {format_number(float(values.max()))}."
    )
    return Drawn("gradient_maps", "Gradient norm through training", caption, alt, figure)


def edges(steps: np.ndarray) -> np.ndarray:
    """Borders of cells around `steps`."""
    inner = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[steps[0] - 0.5], inner, [steps[-1] + 0.5]])


def gradient_ratio(layout: Layout) -> Drawn | None:
    """Last block's gradient norm over the first's, through training."""
    layout = layout.thinned(MOST_PANELS)
    drawn = [
        (place, line, arm, [t for t in with_blocks(arm) if len(t) > 1 and t.shape[1] > 1])
        for place, _, line, arm in cells(layout)
    ]
    drawn = [item for item in drawn if item[3]]
    if not drawn:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes, x=True)
    ends = []
    for place, line, arm, tables in drawn:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [table.iloc[:, -1] / table.iloc[:, 0] for table in tables]
        values = band([ratio[np.isfinite(ratio) & (ratio > 0)] for ratio in ratios])
        draw_band(axes[place], values, line, most_marks=8)
        if not values.median.empty:
            end = float(values.median.iloc[-1])
            ends.append((end, f"{arm.label} {format_number(end)}"))
    for axis in axes:
        axis.axhline(1, color=INK, linestyle=":", linewidth=1)
    log_if_wide(*axes)
    title_panels(axes, layout, "step (updates made)", "last block / first block")
    add_legend(figure, [legend_key(line) for line in lines_of(layout)])
    caption = (
        "Above 1 the last block gets the larger gradient, below 1 the first. "
        f"{seeds_note([arm for _, _, arm, _ in drawn])}{left_out_note(layout)}"
    )
    alt = "Gradient norm of the last block over the first's; at the last step: "
    alt += f"{name_extremes(ends)}."
    return Drawn("gradient_ratio", "Last block against the first", caption, alt, figure)


@dataclass(frozen=True)
class Scaling:
    """A power law of one quantity in a swept number, for one colour and panel."""

    panel: Key
    hue: Value
    label: str  # of the colour, and the panel where there are several
    quantity: str
    x: list[float]
    y: list[float]
    fit: Fit | None

    def ends(self) -> tuple[float, float]:
        """Medians at the least and the greatest x."""
        least, most = min(self.x), max(self.x)
        by = [[b for a, b in zip(self.x, self.y, strict=True) if a == x] for x in (least, most)]
        return median(by[0]), median(by[1])


def scalings(layout: Layout, factor: str) -> list[Scaling]:
    """How each quantity of SCALED grows with `factor`; every run is a point."""
    inner = layout.without(factor).thinned(MOST_ROWS)
    found = []
    for title, path in SCALED:
        for panel in inner.panels:
            for hue in layout.hues if layout.hue != factor else [None]:
                points = [
                    (float(level), value)
                    for level in numeric(layout.levels[factor])
                    for arm in matching(layout, inner, factor, panel, hue, level)
                    for history in arm.histories
                    if (value := history.run.number(*path)) is not None and 0 < value < math.inf
                ]
                if len({x for x, _ in points}) < 2:
                    continue
                x, y = (list(values) for values in zip(*points, strict=True))
                words = [layout.hue_label(hue) if layout.hue != factor else "", inner.title(panel)]
                arms = ", ".join(filter(None, words)) or "all runs"
                found.append(Scaling(panel, hue, arms, title, x, y, fit_power(x, y)))
    return found


def matching(
    layout: Layout, inner: Layout, factor: str, panel: Key, hue: Value, level: Value
) -> list[Arm]:
    """The arm with these values."""
    values = dict(zip(inner.rest, panel, strict=True)) | {factor: level}
    if layout.hue and layout.hue != factor:
        values[layout.hue] = hue
    arm = layout.by_key.get(tuple(values[name] for name in layout.factors))
    return [arm] if arm else []


def scaling(layout: Layout, factor: str) -> Drawn | None:
    """Gradient norms against a swept number, log-log, with fitted slopes."""
    found = scalings(layout, factor)
    titles = [title for title, _ in SCALED if any(s.quantity == title for s in found)]
    rows = list(dict.fromkeys(s.panel for s in found))
    if not titles:
        return None
    one_line = layout.hue == factor
    crowded = is_crowded(layout) and not one_line
    size = (3.6, 4.6) if crowded else (3.3, 3.2)
    if len(titles) == 1:
        size = ONE_CROWDED if crowded else ONE_PANEL
    figure, axes = panels(len(rows), len(titles), size)
    for moment in ("initialisation", "end"):  # each on its own scale
        share_scales(
            [axis for index, axis in enumerate(axes) if moment in titles[index % len(titles)]]
        )
    inner = layout.without(factor).thinned(MOST_ROWS)
    styles = [Line(None, "all runs", COLOURS[0], MARKS[0])] if one_line else lines_of(layout)
    for index, axis in enumerate(axes):
        panel, title = rows[index // len(titles)], titles[index % len(titles)]
        above = inner.title(panel)
        axis.set_title(title + (f"\n{above}" if above else ""))
        axis.set_xscale("log")
        axis.set_yscale("log")
        for line in styles:
            for s in found:
                if (s.panel, s.quantity) != (panel, title) or (not one_line and s.hue != line.hue):
                    continue
                axis.plot(s.x, s.y, line.mark, color=line.colour, markersize=4, alpha=0.6)
                if s.fit is not None:
                    ends = np.array([min(s.x), max(s.x)])
                    words = f"{s.fit.slope:+.2f}"
                    if not (crowded or math.isnan(s.fit.low)):
                        words += f" ({s.fit.low:+.2f}, {s.fit.high:+.2f})"
                    style = line.style | {"markersize": 3.5}
                    axis.plot(ends, s.fit.at(ends), linewidth=1.4, label=words, **style)
        ticks = numeric(layout.levels[factor])
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
        axis.set_ylim(low / 1.3, high * 1.3 * (high / low) ** 0.75)  # room for the slopes above
    word = short_name(factor)
    label_axes(axes, word, "gradient norm of a block")
    add_legend(figure, [legend_key(line) for line in styles])
    caption = (
        "Every run is a point; lines are least-squares fits in log-log, each with its slope"
        + ("." if crowded else " and, in brackets, the slope's 95 % confidence interval, under ")
        + ("" if crowded else "independent errors of equal spread.")
    )
    misses = [(s.fit.miss, f"{s.label}, {s.quantity}") for s in found if s.fit is not None]
    if misses:
        miss, where = max(misses)
        caption += f" The run farthest from its line ({where}) lies a factor of {miss:,.3g} off it."
    caption += left_out_note(inner)
    fits = [
        [(s.fit.slope, f"{s.label}: {s.fit}") for s in found if s.fit and s.quantity == title]
        for title in titles
    ]
    told_fits = [
        f"{title}, {name_extremes(each)}" for title, each in zip(titles, fits, strict=True) if each
    ]
    alt = f"Gradient norms against {word} on log scales. " + "; ".join(told_fits) + "."
    return Drawn(f"scaling_{word}", f"Scaling with {word}", caption, alt, figure)


def span(found: Sequence[Scaling]) -> tuple[float, float]:
    """The least and the greatest value among points and ends of lines."""
    values = [y for s in found for y in s.y]
    for s in found:
        if s.fit is not None:
            values += s.fit.at(np.array([min(s.x), max(s.x)])).tolist()
    return min(values), max(values)


def inside(layout: Layout, stat: str) -> Drawn | None:
    """What a probe recorded, by layer, at the first and the last probe."""
    title, axis_label, word = INSIDE[stat]
    layout = layout.thinned(MOST_PANELS)
    drawn = [
        (place, line, arm, [h.probes[stat] for h in arm.histories if stat in h.probes])
        for place, _, line, arm in cells(layout)
    ]
    drawn = [item for item in drawn if item[3]]
    if not drawn:
        return None
    figure, axes = small_multiples(layout)
    share_scales(axes)
    ends = []
    once = all(len(table) == 1 for *_, tables in drawn for table in tables)
    last_alone = once or is_crowded(layout)
    probes: dict[int, Any] = {-1: {}} if last_alone else {0: {"linestyle": "--"}, -1: {}}
    for place, line, arm, tables in drawn:
        for row, style in probes.items():
            rows = pd.DataFrame([table.iloc[row] for table in tables])
            rows = rows.where(np.isfinite(rows))
            values = Band(rows.median(), rows.min(), rows.max())
            draw_band(axes[place], values, line, **style)
        if not values.median.empty:
            first, last = values.median.iloc[[0, -1]]
            ends.append((last, f"{arm.label} from {format_number(first)} to {format_number(last)}"))
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if stat not in LINEAR:
        log_if_wide(*axes)
    title_panels(axes, layout, "block", axis_label)
    handles = [legend_key(line) for line in lines_of(layout)]
    if not last_alone:
        handles += [
            Line2D([], [], color=INK, linestyle="--", label="first probe"),
            Line2D([], [], color=INK, label="last probe"),
        ]
    add_legend(figure, handles)
    caption = f"{seeds_note([arm for _, _, arm, _ in drawn])}{left_out_note(layout)}"
    caption += " At the end alone." if once else " The last probe alone." if last_alone else ""
    alt = f"{title}. First to last block at the last probe, {word}: {name_extremes(ends)}."
    return Drawn(stat, title, caption, alt, figure)


Maker = Callable[[], Drawn | None]


def makers(layout: Layout, arms: Sequence[Arm]) -> list[Maker]:
    """What draws each figure, in the order of the page; None where the numbers are missing."""
    sizes = [
        name
        for name in layout.factors
        if name.startswith("model.") and len(numeric(layout.levels[name])) > 1
    ]
    return [
        partial(loss, layout),
        partial(gradients_by_layer, layout, arms),
        partial(gradient_maps, layout, arms),
        partial(gradient_ratio, layout),
        *(partial(scaling, layout, name) for name in sizes),
        partial(rate_maps, layout),
        partial(rate_sensitivity, layout),
        *(partial(inside, layout, stat) for stat in INSIDE),
    ]
