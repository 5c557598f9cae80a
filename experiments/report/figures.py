"""The report's figures, each with the words that say what it shows."""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.plots import COLOURS, DASHES, LEGEND, MARKS, log_if_wide, panels
from experiments.report.arms import RATE, Arm, Key, Layout, numbers, short, word_of
from experiments.report.histories import History
from experiments.report.numbers import Band, Fit, band, fit_power, middle
from experiments.report.tuning import Tuned, at_best, tune
from experiments.runs import Value

INK, PAPER = "#1b1e23", "#fffffe"  # stand for nothing else, so that a dark page can replace them
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
    "svg.hashsalt": "normscope",
}
ONE_PANEL, MANY_PANELS = (6.6, 4.0), (3.3, 2.7)
ONE_CROWDED, MANY_CROWDED = (8.6, 5.4), (4.6, 3.6)
MOST_COLUMNS = 4
HUES = COLOURS[:-1]  # without black, which stands for what is no arm
MOST_PANELS, MOST_ARMS = 12, 48  # of a figure with a panel for several arms, for each arm
MOST_MAPS, MOST_ROWS = 15, 4
MOST_TOLD = 8  # arms in a figure's words
WARMUP = "schedule.warmup_steps"
INSIDE = {  # what probes recorded: title, axis, in words
    "activation_rms": ("Activations by layer", "RMS of the stream after the block", "activation"),
    "update_ratio": ("Update ratios by layer", "norm(change) / norm(weights)", "update ratio"),
    "attention_entropy": (
        "Attention entropy by layer",
        "entropy / ln(visible tokens); 1 is uniform",
        "attention entropy",
    ),
}
LAST_INITIAL = ("grad_norm", "first_step", "last_block")
SCALED = (  # columns of a scaling figure: title, place in the summary
    ("last block, at initialisation", LAST_INITIAL),
    ("first block, at initialisation", ("grad_norm", "first_step", "first_block")),
    ("last block, at the end", ("grad_norm", "last_step", "last_block")),
    ("first block, at the end", ("grad_norm", "last_step", "first_block")),
)


@dataclass
class Drawn:
    """A figure with its name as a file, its title, and what it shows in words."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def colours(hues: Sequence[Value]) -> list[Any]:
    """A colour for each level: a scale for many numbers, else distinct ones."""
    if len(hues) > 4 and all(isinstance(hue, int | float) for hue in hues):
        return [mpl.colormaps["viridis"](place) for place in np.linspace(0.05, 0.85, len(hues))]
    return [HUES[index % len(HUES)] for index in range(len(hues))]


@dataclass(frozen=True)
class Line:
    """How the runs of one level are drawn."""

    hue: Value
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


def lines_of(layout: Layout) -> list[Line]:
    """One line style for each level: where colours come again, dashes and hollow marks differ.

    Six colours and seven marks make 42 pairs.
    """
    lines = []
    for index, (hue, colour) in enumerate(zip(layout.hues, colours(layout.hues), strict=True)):
        turn = index // len(HUES) if colour in HUES else 0
        line = Line(
            hue,
            layout.hue_label(hue),
            colour,
            MARKS[index % len(MARKS)],
            DASHES[turn % len(DASHES)],
            PAPER if turn % 2 else None,
            0.06 if is_crowded(layout) else 0.18,
        )
        lines.append(line)
    return lines


def is_crowded(layout: Layout) -> bool:
    """Whether a panel holds more lines than there are colours: it is larger and shows less each."""
    return len(layout.hues) > len(HUES)


def small_multiples(layout: Layout) -> tuple[Figure, list[Axes]]:
    """Axes for the panels, on one scale; those left over are hidden."""
    count = len(layout.panels)
    if is_crowded(layout):
        columns = min(count, 2 if count <= 4 else 3)
        size = ONE_CROWDED if count == 1 else MANY_CROWDED
    else:
        columns = min(count, MOST_COLUMNS)
        size = ONE_PANEL if count == 1 else MANY_PANELS
    rows = math.ceil(count / columns)
    figure, axes = panels(rows, columns, size)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def share(axes: Sequence[Axes], x: bool = False) -> None:
    """One scale for all panels; numbers at the left of each row alone."""
    for axis in axes[1:]:
        axis.sharey(axes[0])
        if x:
            axis.sharex(axes[0])
        if not place_of(axis).is_first_col():
            axis.tick_params(which="both", labelleft=False)


def place_of(axis: Axes) -> SubplotSpec:
    """Where a panel stands in its figure."""
    place = axis.get_subplotspec()
    assert place is not None
    return place


def label(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels at the left of each row and below each column."""
    shown = [axis for axis in axes if axis.get_visible()]
    lowest = {place_of(axis).colspan.start: axis for axis in shown}  # rows come in order
    for axis in shown:
        if place_of(axis).is_first_col():
            axis.set_ylabel(textwrap.fill(y, 27))
    for axis in lowest.values():
        axis.set_xlabel(x)


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend above all panels, at the left, where a narrow screen starts."""
    columns = legend_columns(figure, handles)
    figure.legend(
        handles=list(handles), loc="outside upper left", ncols=columns, handlelength=3, **LEGEND
    )


def legend_columns(figure: Figure, handles: Sequence[Any]) -> int:
    """As many as fit beside each other: four at most, in a narrow figure three."""
    lengths = [len(str(handle.get_label())) for handle in handles]
    em = STYLE["legend.fontsize"] / 72
    for columns in range(4 if figure.get_figwidth() > 8 else 3, 1, -1):
        parts = np.array_split(lengths, columns)  # as matplotlib fills them
        letters = sum(0.6 * max(part, default=0) for part in parts)
        if (letters + 6.5 * columns) * em < figure.get_figwidth():
            return columns
    return 1


def key_of(line: Line) -> Line2D:
    """A legend entry."""
    return Line2D([], [], markersize=4, label=line.label, **line.style)


def draw_band(axis: Axes, values: Band, line: Line, most_marks: int = 20, **style: Any) -> None:
    """Median as a line and the range over seeds as a band."""
    kept = values.drawn()
    if kept.median.empty:
        return
    steps = kept.median.index.to_numpy(dtype=float)
    every = max(1, len(steps) // most_marks)
    axis.plot(
        steps,
        kept.median,
        markersize=3.5,
        markevery=every,
        linewidth=1.4,
        **line.style | style,
    )
    if (kept.low < kept.high).any():
        axis.fill_between(
            steps,
            kept.low.to_numpy(),
            kept.high.to_numpy(),
            color=line.colour,
            alpha=line.band,
            lw=0,
        )


def cells(layout: Layout) -> Iterator[tuple[int, Key, Line, Arm]]:
    """Each arm with the number of its panel."""
    for place, panel in enumerate(layout.panels):
        for line in lines_of(layout):
            arm = layout.arm(panel, line.hue)
            if arm is not None:
                yield place, panel, line, arm


def seeds_note(arms: Sequence[Arm]) -> str:
    """How many runs a median is over."""
    counts = sorted({len(arm.histories) for arm in arms})
    if counts == [1]:
        return "One run per arm."
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Median and range over {many} runs per arm."


def left_out_note(layout: Layout) -> str:
    """What a figure with too many panels does not show."""
    if not layout.left_out:
        return ""
    return f" {layout.left_out} of {layout.left_out + len(layout.panels)} panels are left out."


def fit_for_panels(layout: Layout) -> tuple[Layout, str]:
    """For a figure with a panel for each arm: what it shows of the layout, and what it leaves out.

    Of too many arms that have several learning rates, each is shown at its best.
    """
    many = is_crowded(layout) or len(layout.by_key) > MOST_ARMS
    note = ""
    if many and len(tune(layout)) > 1:
        shown = at_best(layout)
        note = f" Each arm at its best learning rate alone, {len(shown.by_key)} of "
        note += f"{len(layout.by_key)}."
        layout = shown
    layout = layout.thinned(max(1, MOST_ARMS // len(layout.hues)))
    return layout, note + left_out_note(layout)


def extremes(said: Sequence[tuple[float, str]]) -> str:
    """What a figure shows of each arm, in words; of many, the least and the greatest."""
    if len(said) <= MOST_TOLD:
        return "; ".join(words for _, words in said)
    ordered = sorted(said, key=lambda item: (math.isnan(item[0]), item[0]))
    known = [words for number, words in ordered if not math.isnan(number)] or [ordered[0][1]]
    return f"of {len(said)}, the least is {known[0]}; the greatest {known[-1]}"


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
    share(axes, x=True)
    tops, crosses, ends = [], [], []
    crowded = is_crowded(layout)
    for place, line, arm, histories in drawn:
        ended = [history.run.status == "diverged" for history in histories]
        values = band([history.losses("val_loss") for history in histories], ended)
        draw_band(axes[place], values, line)
        if not crowded:
            smooth = [smoothed(history.losses("train_loss")) for history in histories]
            median = band(smooth, ended).drawn().median
            axes[place].plot(median.index, median, color=line.colour, alpha=0.45, linewidth=0.8)
        tops += [float(history.losses("val_loss").iloc[0]) for history in histories]
        gone = [history for history, end in zip(histories, ended, strict=True) if end]
        crosses += [(axes[place], history, line) for history in gone]
        end = middle(arm.final_losses())
        ends.append((end, f"{arm.label}: {told(end)}"))
    frequencies = {
        h.run.number("corpus", "unigram_validation_loss") for *_, hs in drawn for h in hs
    }
    frequencies.discard(None)
    handles: list[Any] = [key_of(line) for line in lines_of(layout)]
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
    finish(axes, layout, "step (updates made)", "cross entropy (nats per token)")
    legend(figure, handles)
    shown = "Thick with marks: validation; thin: training, a running median."
    if crowded:
        shown = "Validation alone."
    caption = (
        f"{seeds_note([arm for _, _, arm, _ in drawn])} {shown} A run that diverged counts as "
        f"infinite from there on; {plural(len(crosses), 'run')} did.{left_out_note(layout)}"
    )
    alt = f"Loss against steps. Median validation loss at the end: {extremes(ends)}."
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


def finish(axes: Sequence[Axes], layout: Layout, x: str, y: str) -> None:
    """Titles of panels, and labels for all of them."""
    for axis, panel in zip(axes, layout.panels, strict=False):
        axis.set_title(layout.title(panel))
    label(axes, x, y)


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


def side_by_side(layout: Layout) -> tuple[Figure, list[tuple[Axes, Arm]]]:
    """A panel for each arm: one colour's arms below each other, where there are few colours."""
    arms = [
        (panel, line, layout.arm(panel, line.hue))
        for panel in layout.panels
        for line in lines_of(layout)
    ]
    in_rows = len(layout.panels) > 1 and len(layout.hues) <= MOST_COLUMNS
    columns = len(layout.hues) if in_rows else min(len(arms), MOST_COLUMNS)
    if in_rows and 2 * columns <= MOST_COLUMNS:  # two rows of the grid beside each other
        columns *= 2
    rows = math.ceil(len(arms) / columns)
    figure, axes = panels(rows, columns, ONE_PANEL if len(arms) == 1 else MANY_PANELS)
    placed = []
    for axis, (_, _, arm) in zip(axes, arms, strict=False):
        if arm is None:
            axis.set_visible(False)
        else:
            axis.set_title(arm.label, fontsize=8.5)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            placed.append((axis, arm))
    for axis in axes[len(arms) :]:
        axis.set_visible(False)
    return figure, placed


def with_blocks(arm: Arm) -> list[pd.DataFrame]:
    """Gradient norms by block of the runs that have them."""
    return [history.blocks for history in arm.histories if not history.blocks.empty]


def gradients_by_layer(layout: Layout, arms: Sequence[Arm]) -> Drawn | None:
    """Gradient norm of each block at initialisation and later, arms side by side on one scale."""
    if not any(map(with_blocks, arms)):
        return None
    layout, left_out = fit_for_panels(layout)
    figure, placed = side_by_side(layout)
    share([axis for axis, _ in placed])
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
                ends.append((last / first, f"{arm.label} from {told(first)} to {told(last)}"))
    log_if_wide(*(axis for axis, _ in placed))
    label([axis for axis, _ in placed], "block", "gradient norm of the block's parameters")
    names = ("the first logged step", "the middle", "the last") if trained else ("initialisation",)
    legend(
        figure,
        [key_of(Line(None, name, COLOURS[i], MARKS[i])) for i, name in enumerate(names)],
    )
    caption = f"Before clipping, on one scale. {seeds_note(arms)}{left_out}"
    alt = f"Gradient norm by block. First to last block at the start: {extremes(ends)}."
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
    label([axis for axis, _ in placed], "step (updates made)", "block")
    caption = (
        f"One colour scale for all arms; grey: not measured or not finite. {seeds_note(arms)}"
        f"{left_out}"
    )
    alt = (
        f"Heat maps of the gradient norm by block and step for {plural(len(maps), 'arm')}, on one "
        f"scale from {told(float(values.min()))} to {told(float(values.max()))}."
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
    share(axes, x=True)
    ends = []
    for place, line, arm, tables in drawn:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [table.iloc[:, -1] / table.iloc[:, 0] for table in tables]
        values = band([ratio[np.isfinite(ratio) & (ratio > 0)] for ratio in ratios])
        draw_band(axes[place], values, line, most_marks=8)
        if not values.median.empty:
            end = float(values.median.iloc[-1])
            ends.append((end, f"{arm.label} {told(end)}"))
    for axis in axes:
        axis.axhline(1, color=INK, linestyle=":", linewidth=1)
    log_if_wide(*axes)
    finish(axes, layout, "step (updates made)", "last block / first block")
    legend(figure, [key_of(line) for line in lines_of(layout)])
    caption = (
        "Above 1 the last block gets the larger gradient, below 1 the first. "
        f"{seeds_note([arm for _, _, arm, _ in drawn])}{left_out_note(layout)}"
    )
    alt = f"Gradient norm of the last block over the first's; at the last step: {extremes(ends)}."
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
        return middle(by[0]), middle(by[1])


def scalings(layout: Layout, factor: str) -> list[Scaling]:
    """How each quantity of SCALED grows with `factor`; every run is a point."""
    inner = layout.without(factor).thinned(MOST_ROWS)
    found = []
    for title, path in SCALED:
        for panel in inner.panels:
            for hue in layout.hues if layout.hue != factor else [None]:
                points = [
                    (float(level), value)
                    for level in numbers(layout.levels[factor])
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
    figure, axes = panels(len(rows), len(titles), size if len(titles) > 1 else ONE_CROWDED)
    for moment in ("initialisation", "end"):  # each on its own scale
        share([axis for index, axis in enumerate(axes) if moment in titles[index % len(titles)]])
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
        ticks = numbers(layout.levels[factor])
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
    word = word_of(factor)
    label(axes, word, "gradient norm of a block")
    legend(figure, [key_of(line) for line in styles])
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
        f"{title}, {extremes(each)}" for title, each in zip(titles, fits, strict=True) if each
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


def rate_maps(layout: Layout) -> Drawn | None:
    """Final validation loss over learning rate and warm-up, an arm a map, on one scale."""
    rates = numbers(layout.levels.get(RATE, []))
    warmups = numbers(layout.levels.get(WARMUP, []))
    if len(rates) < 2 or len(warmups) < 2:
        return None
    others = [name for name in layout.factors if name not in (RATE, WARMUP)]
    place = [layout.factors.index(name) for name in others]
    maps: dict[Key, dict[tuple[Value, Value], Arm]] = {}
    for arm in layout.by_key.values():
        values = dict(zip(layout.factors, arm.key, strict=True))
        key = tuple(arm.key[index] for index in place)
        maps.setdefault(key, {})[values[RATE], values[WARMUP]] = arm
    keys = list(maps)[:MOST_MAPS]
    medians = {
        key: np.array(
            [
                [
                    middle(maps[key][r, w].capped_losses()) if (r, w) in maps[key] else np.nan
                    for w in warmups
                ]
                for r in rates
            ]
        )
        for key in keys
    }
    finite = np.concatenate([table[np.isfinite(table)] for table in medians.values()])
    if not finite.size:
        return None
    norm = Normalize(finite.min(), finite.max())
    columns = min(len(keys), 3)
    size = (max(3.4, 0.95 * len(warmups) + 0.9), max(2.8, 0.5 * len(rates) + 1.0))
    figure, axes = panels(math.ceil(len(keys) / columns), columns, size)
    notes, mesh = [], None
    for axis in axes[len(keys) :]:
        axis.set_visible(False)
    for axis, key in zip(axes, keys, strict=False):
        table = medians[key]
        axis.grid(False)
        axis.set_facecolor("0.6")
        mesh = axis.imshow(
            np.ma.masked_invalid(table), norm=norm, cmap="viridis", aspect="auto", origin="lower"
        )
        axis.set_xticks(range(len(warmups)), [f"{w:g}" for w in warmups])
        axis.set_yticks(range(len(rates)), [f"{r:g}" for r in rates])
        name = ", ".join(short(n, v) for n, v in zip(others, key, strict=True)) or "all runs"
        axis.set_title(name)
        best = None if np.isnan(table).all() else np.unravel_index(np.nanargmin(table), table.shape)
        for row, column in np.ndindex(table.shape):
            cell = maps[key].get((rates[row], warmups[column]))
            if cell is None:
                continue
            value = float(table[row, column])
            dark = np.isnan(value) or norm(value) < 0.55
            star = "*" if best == (row, column) else ""
            axis.text(
                column,
                row,
                cell_words(cell, value) + star,
                ha="center",
                va="center",
                fontsize=7.5,
                color="#ffffff" if dark else "#000000",
            )
        if best is not None:
            rate = rates[best[0]]
            edge = " (at the grid's edge)" if best[0] in (0, len(rates) - 1) else ""
            warm = f"{warmups[best[1]]} steps of warm-up"
            words = f"{name}: {table[best]:.3f} at lr {rate:g}{edge}, {warm}"
            notes.append((float(table[best]), words))
    if mesh is not None:
        figure.colorbar(mesh, ax=axes[: len(keys)], label="final validation loss (nats)")
    label(axes[: len(keys)], "steps of warm-up", "learning rate")
    best_words = extremes(notes)
    caption = (
        "Seed median of min(final, initial) validation loss; a run that diverged counts with its "
        "initial loss. Shares of runs that diverged, failed or are stuck (no better than token "
        f"frequencies) stand in the cell. Best of each arm (*): {best_words}."
    )
    if len(maps) > len(keys):
        caption += f" {len(maps) - len(keys)} of {len(maps)} maps are left out."
    alt = f"Maps of the final validation loss over learning rate and warm-up. Best: {best_words}."
    return Drawn("lr_warmup_maps", "Learning rate and warm-up", caption, alt, figure)


def cell_words(arm: Arm, value: float) -> str:
    """A cell's median, and the share of runs that did not learn."""
    words = ["no loss" if math.isnan(value) else f"{value:.2f}"]
    counts = {
        "diverged": arm.count("diverged"),
        "failed": arm.count("failed"),
        "stuck": arm.stuck,
    }
    words += [f"{count}/{len(arm.histories)} {name}" for name, count in counts.items() if count]
    return "\n".join(words)


def rate_sensitivity(layout: Layout) -> Drawn | None:
    """Final validation loss against the learning rate, the best and the LR sensitivity of each arm.

    A star is the best, hollow where it lies at the edge of the arm's own learning rates.
    """
    tuned = {one.key: one for one in tune(layout) if one.losses}
    if not tuned:
        return None
    rates = numbers(layout.levels[RATE])
    crowded = is_crowded(layout) and layout.hue != RATE
    place = own_panels if crowded else common_panels
    figure, placed, left_out = place(layout, tuned)
    axes = list(dict.fromkeys(axis for axis, *_ in placed))
    share(axes, x=True)
    notes = []
    for axis, one, line in placed:
        for other in tuned.values() if crowded else ():
            axis.plot(list(other.medians), list(other.medians.values()), color="0.6", linewidth=0.5)
        low, high = ({rate: end(v) for rate, v in one.losses.items()} for end in (min, max))
        draw_band(axis, Band(*map(pd.Series, (one.medians, low, high))), line)
        if one.best is not None:
            mark = best_mark(line.colour, one.at_edge)
            axis.plot(one.best, one.medians[one.best], zorder=4, **mark)
        value = one.sensitivity(rates)
        entry = line.label
        if value is not None:
            notes.append((value, f"{one.label} {value:.2f}, best at {one.where()}"))
            entry += f": {value:.2f}"
        if crowded:
            axis.set_title(one.label, fontsize=8.5)
            words = "" if value is None else f"sensitivity {value:.2f}"
            axis.text(0.04, 0.96, words, transform=axis.transAxes, va="top", fontsize=8)
        else:
            axis.plot([], [], markersize=4, label=entry, **line.style)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        if not crowded:
            axis.legend(title="LR sensitivity", title_fontsize=8, fontsize=8, **LEGEND)
    label(axes, "learning rate", "final validation loss (nats)")
    stars = [
        Line2D([], [], label=words, **best_mark(INK, at_edge))
        for at_edge, words in ((False, "best"), (True, "best, at the grid's edge"))
        if any(one.at_edge == at_edge for one in tuned.values())
    ]
    legend(figure, stars)
    words = extremes(notes) or "the grid is not complete"
    caption = (
        "Median and range over seeds of min(final, initial) validation loss; a star marks the "
        "least median, hollow at the grid's edge. LR sensitivity: its mean over the learning "
        "rates, less its best (Wortsman et al. 2023, arXiv 2309.14322)."
        f"{' Grey: the other arms.' if crowded else ''}{left_out}"
    )
    alt = f"Final validation loss against the learning rate. LR sensitivity: {words}."
    return Drawn("lr_sensitivity", "Sensitivity to the learning rate", caption, alt, figure)


Placed = tuple[Figure, list[tuple[Axes, Tuned, Line]], str]


def common_panels(layout: Layout, tuned: Mapping[Key, Tuned]) -> Placed:
    """A figure in which arms of all colours share a panel: where each stands, what is left out."""
    inner = layout.without(RATE).thinned(MOST_PANELS)
    figure, axes = small_multiples(inner)
    names = [name for name in layout.factors if name != RATE]
    one_line = layout.hue == RATE
    lines = [Line(None, "all runs", HUES[0], MARKS[0])] if one_line else lines_of(layout)
    placed = []
    for axis, panel in zip(axes, inner.panels, strict=True):
        axis.set_title(inner.title(panel))
        for line in lines:
            values = dict(zip(inner.rest, panel, strict=True)) | {layout.hue: line.hue}
            one = tuned.get(tuple(values[name] for name in names))
            if one is not None:
                placed.append((axis, one, line))
    return figure, placed, left_out_note(inner)


def own_panels(layout: Layout, tuned: Mapping[Key, Tuned]) -> Placed:
    """A figure with a panel for each arm."""
    shown, _ = fit_for_panels(layout)
    figure, axes = side_by_side(shown)
    place = shown.factors.index(layout.hue or "")
    lines = {line.hue: replace(line, band=0.18) for line in lines_of(layout)}
    placed = [(axis, tuned[arm.key], lines[arm.key[place]]) for axis, arm in axes]
    return figure, placed, left_out_note(shown)


def best_mark(colour: Any, at_edge: bool) -> dict[str, Any]:
    """A star; hollow at the grid's edge."""
    return {
        "marker": "*",
        "markersize": 13,
        "linestyle": "",
        "color": colour,
        "markerfacecolor": PAPER if at_edge else colour,
    }


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
    share(axes)
    ends = []
    crowded = is_crowded(layout)
    probes: dict[int, Any] = {-1: {}} if crowded else {0: {"linestyle": "--"}, -1: {}}
    for place, line, arm, tables in drawn:
        for row, style in probes.items():
            rows = pd.DataFrame([table.iloc[row] for table in tables])
            rows = rows.where(np.isfinite(rows))
            values = Band(rows.median(), rows.min(), rows.max())
            draw_band(axes[place], values, line, **style)
        if not values.median.empty:
            first, last = values.median.iloc[[0, -1]]
            ends.append((last, f"{arm.label} from {told(first)} to {told(last)}"))
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if stat != "attention_entropy":
        log_if_wide(*axes)
    finish(axes, layout, "block", axis_label)
    handles = [key_of(line) for line in lines_of(layout)]
    if not crowded:
        handles += [
            Line2D([], [], color=INK, linestyle="--", label="first probe"),
            Line2D([], [], color=INK, label="last probe"),
        ]
    legend(figure, handles)
    caption = f"{seeds_note([arm for _, _, arm, _ in drawn])}{left_out_note(layout)}"
    caption += " The last probe alone." if crowded else ""
    alt = f"{title}. First to last block at the last probe, {word}: {extremes(ends)}."
    return Drawn(stat, title, caption, alt, figure)


def told(value: float) -> str:
    """A number in words."""
    if math.isnan(value):
        return "not measured"
    return "infinite" if math.isinf(value) else f"{value:.3g}"


def plural(count: int, word: str) -> str:
    """A count with its word."""
    return f"{count} {word}" if count == 1 else f"{'no' if count == 0 else count} {word}s"


Maker = Callable[[], Drawn | None]


def makers(layout: Layout, arms: Sequence[Arm]) -> list[Maker]:
    """What draws each figure, in the order of the page; None where the numbers are missing."""
    sizes = [
        name
        for name in layout.factors
        if name.startswith("model.") and len(numbers(layout.levels[name])) > 1
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
