"""Charts as pictures: PNG, SVG and PDF of the same data, colours and limits as on the page."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from experiments.machine.plotting import plain_matplotlib
from experiments.report.chart import (
    CROWDED,
    Axis,
    Cells,
    Chart,
    ColourScale,
    Corner,
    Panel,
    Reference,
    Region,
    Series,
    arrows,
    corner_of,
    edges,
    log_ticks,
    names,
    references,
    tick_words,
)
from experiments.report.lettering import fold, plain_text, tick_text, warnings_of_ours
from experiments.report.style import DPI, LEGEND

INK, SOFT = "#1b1e23", "#565d66"
EMPTY = "#ffffff"  # of a cell that was not measured: no colour of the scale, which has a grey
MAP = "cividis"
STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "normscope",  # the same ids in every run, so that files can be compared
}
SIZES = {1: (8.4, 4.2), 2: (5.2, 3.2), 3: (4.2, 2.9)}  # of a panel, by the number of columns
# Words inside a panel: a curve stops short of them.
HALO: Any = {"path_effects": [withStroke(linewidth=3, foreground="white")], "zorder": 6}
MOST_TICKS = 10  # of a log scale
MOST_MARKED = 16  # points of a line that has marks


def save_chart(chart: Chart, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write a chart into `folder` in each format; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{chart.name}.{kind}" for kind in formats]
    with plain_matplotlib(STYLE), warnings_of_ours(chart.name):
        figure = draw(chart)
        plain_text(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout takes long: compute it once for all formats
        for path in paths:
            metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
            figure.savefig(path, dpi=DPI, metadata=metadata)
    return paths


def draw(chart: Chart) -> Figure:
    """A chart as a figure of matplotlib, at the step of its slider; thin, see `thin_step`."""
    rows, columns = chart.shape
    width, height = SIZES[min(columns, max(SIZES))]
    figure = Figure(figsize=(width * columns, height * rows + 1.0), facecolor="white")
    figure.set_layout_engine("constrained")
    grid = figure.add_gridspec(rows, columns, width_ratios=chart.widths or None)
    axes = []
    for panel in chart.panels:
        axis = figure.add_subplot(grid[panel.row, panel.column])
        draw_panel(axis, chart, panel)
        axes.append(axis)
    if chart.colours:
        add_colour_bar(figure, axes, chart, chart.colours)
    title = "\n".join(textwrap.wrap(chart.title, int(9.5 * figure.get_figwidth())))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    add_legend(figure, chart)
    return figure


def draw_panel(axis: Axes, chart: Chart, panel: Panel) -> None:
    """All that is in one panel."""
    x, y = chart.axes(panel)
    for way, of_axis in (("x", x), ("y", y)):
        set_axis(axis, way, of_axis)
    axis.set_title(fold(chart.title_of(panel), 46 if chart.colours else 60))  # beside a colour bar
    for region in panel.regions:
        draw_region(axis, region)
    has_names = bool(names(panel, y))
    for reference in references(panel, y):
        is_named = has_names and reference.y is not None
        corner = corner_of(reference, panel, x, y)
        draw_reference(axis, reference, "" if is_named else reference.label, corner)
    if panel.cells and chart.colours:
        draw_cells(axis, panel.cells, chart.colours)
    else:
        axis.grid(True, alpha=0.25, linewidth=0.6)
    first, at = thin_step(chart), chart.at
    if at is not None and chart.follows(panel):
        axis.axvline(at, color=INK, linewidth=0.8, alpha=0.7)
    for series in panel.series:
        if series.frame in (None, at):
            draw_series(axis, series, 1.0)
        elif series.frame is not None and series.frame == first:
            draw_series(axis, series, 0.5)
    for name in names(panel, y):
        axis.annotate(
            fold(name.text, 44),
            (1, name.height),
            (6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=SOFT if name.series is None else panel.series[name.series].look.light,
            va="center",
            fontweight="normal" if name.series is None else "bold",
            fontsize=9,
        )
    draw_arrows(axis, chart, panel, x, y)


def set_axis(axis: Axes, way: str, of_axis: Axis) -> None:
    """Scale, limits, ticks and label of one axis."""
    scale = {"linthresh": least_tick(of_axis)} if of_axis.scale == "symlog" else {}
    getattr(axis, f"set_{way}scale")(of_axis.scale, **scale)
    getattr(axis, f"set_{way}lim")(of_axis.limits)
    getattr(axis, f"set_{way}label")(of_axis.label)
    ticker = getattr(axis, f"{way}axis")
    if of_axis.ticks:
        places, words = zip(*of_axis.ticks, strict=True)
        is_long = way == "x" and len(words) > 3 and max(map(len, words)) > 6
        more: Any = {"rotation": 50, "ha": "right"} if is_long else {}
        getattr(axis, f"set_{way}ticks")(places, [tick_text(word) for word in words], **more)
        axis.minorticks_off()
    elif of_axis.whole:
        ticker.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    elif of_axis.scale == "log" and of_axis.limits:
        ticker.set_major_locator(FixedLocator(log_ticks(of_axis.limits, MOST_TICKS)))
        ticker.set_major_formatter(lambda value, _: tick_words(value))
        ticker.set_minor_formatter(NullFormatter())


def least_tick(axis: Axis) -> float:
    """The least tick above 0: from there on a scale with a 0 is logarithmic."""
    return min((place for place, _ in axis.ticks if place > 0), default=1.0)


def draw_series(axis: Axes, series: Series, strength: float) -> None:
    """A series with its range; a weak one is thinner and paler."""
    look, x = series.look, np.array(series.x, dtype=float)
    style: dict[str, Any] = {"color": look.light, "alpha": strength}
    if series.kind == "bars":
        axis.bar(x, series.middle, width=0.76, **style)
        return
    is_line = series.kind != "dots"
    line: dict[str, Any] = {
        "linewidth": 0.8 * series.width * strength,
        "linestyle": look.linestyle if is_line else "",
        "drawstyle": "steps-post" if series.kind == "steps" else "default",
    }
    if not is_line or (series.kind == "line" and len(x) <= MOST_MARKED):
        line |= mark_style(series)
    if series.y:
        axis.plot(x, series.y, **style | line)
    else:
        for values in (series.low, series.high):
            axis.plot(x, values, **style | line | {"linewidth": 0.5 * line["linewidth"]})
    if series.low and is_line:
        band: dict[str, Any] = {"step": "post"} if series.kind == "steps" else {}
        band |= {"color": look.light, "alpha": 0.15 * strength, "lw": 0}
        axis.fill_between(x, series.low, series.high, **band)
    elif series.low:
        axis.vlines(x, series.low, series.high, color=look.light, alpha=0.8, linewidth=1)


def mark_style(series: Series) -> dict[str, Any]:
    """How points are drawn; large ones have a rim, which sets them off from a line's own."""
    size = series.width / 2 if series.kind == "dots" else 1.0
    rim = {"markeredgecolor": "white", "markeredgewidth": 1.0 if size > 1 else 0.0}
    size *= 1.5 if series.look.mark == "*" else 1.0  # most of a star's width is its points
    return {"marker": series.look.mark, "markersize": 4.5 * size, **rim}


def draw_cells(axis: Axes, cells: Cells, colours: ColourScale) -> None:
    """A heat map with the words in its cells; what was not measured is white."""
    values = np.ma.masked_invalid(np.array(cells.values, dtype=float))
    axis.set_facecolor(EMPTY)
    norm = norm_of(colours)
    axis.pcolormesh(
        edges(cells.x), edges(cells.y), values, norm=norm, cmap=MAP, rasterized=values.size > 100
    )
    for (row, column), value in np.ndenumerate(values):
        if cells.texts:
            is_light = value is np.ma.masked or norm(value) > 0.55
            axis.text(
                cells.x[column],
                cells.y[row],
                cells.texts[row][column],
                ha="center",
                va="center",
                fontsize=9,
                color="#000000" if is_light else "#ffffff",
            )


def norm_of(colours: ColourScale) -> Normalize:
    """How values become colours."""
    return (LogNorm if colours.scale == "log" else Normalize)(*colours.limits, clip=True)


def add_colour_bar(
    figure: Figure, axes: Sequence[Axes], chart: Chart, colours: ColourScale
) -> None:
    """One colour bar for all panels, with what its ends mean; pointed where a value is beyond."""
    values = np.concatenate([np.ravel(p.cells.values) for p in chart.panels if p.cells])
    (low, high), shown = colours.limits, values[np.isfinite(values)]
    ends = {(True, True): "both", (True, False): "min", (False, True): "max"}
    extend = ends.get((bool((shown < low).any()), bool((shown > high).any())), "neither")
    label = colours.label
    if colours.low or colours.high:
        label += f": dark {colours.low}, yellow {colours.high}"
    scale = ScalarMappable(norm_of(colours), MAP)
    ticks: Any = {}
    if colours.scale == "log":
        ticks["ticks"] = FixedLocator(log_ticks(colours.limits, MOST_TICKS))
        ticks["format"] = FuncFormatter(lambda value, _: tick_words(value))
    figure.colorbar(scale, ax=list(axes), label=fold(label, 46), extend=extend, aspect=30, **ticks)


def draw_region(axis: Axes, region: Region) -> None:
    """A shaded part with its words at its top."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    x0, x1 = (end if at is None else at for at, end in zip(region.x, (left, right), strict=True))
    y0, y1 = (end if at is None else at for at, end in zip(region.y, (bottom, top), strict=True))
    axis.fill_between([x0, x1], y0, y1, color="#0063b4", alpha=0.12, lw=0)
    axis.annotate(
        region.label, (x0, y1), (4, -11), textcoords="offset points", color=SOFT, size=9, **HALO
    )


def draw_reference(axis: Axes, reference: Reference, words: str, corner: Corner) -> None:
    """A thin dotted line with its words."""
    is_right = corner.is_right or reference.points is not None
    style: dict[str, Any] = {"color": SOFT, "linestyle": ":", "linewidth": 1.1}
    if reference.points:
        axis.plot(*zip(*reference.points, strict=True), **style)
        at, ends = reference.points[1], axis.transData
    elif reference.y is not None:
        axis.axhline(reference.y, **style)
        at, ends = (float(is_right), reference.y), axis.get_yaxis_transform()
    else:
        assert reference.x is not None
        axis.axvline(reference.x, **style)
        at, ends = (reference.x, 0.95), axis.get_xaxis_transform()
    axis.annotate(
        words,
        at,
        (-4 if is_right else 4, -3 if corner.is_below else 3),
        xycoords=ends,
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top" if corner.is_below else "baseline",
        color=SOFT,
        fontsize=9,
        **HALO,
    )


def draw_arrows(axis: Axes, chart: Chart, panel: Panel, x: Axis, y: Axis) -> None:
    """Arrows where series leave the panel, with how far they go."""
    for arrow in arrows(panel, x, y):
        series = panel.series[arrow.series]
        if series.frame not in (None, chart.at):
            continue
        colour, edge = series.look.light, 1.0 if arrow.is_up else 0.0
        axis.plot(
            arrow.x,
            edge,
            "^" if arrow.is_up else "v",
            color=colour,
            markersize=6,
            clip_on=False,
            zorder=5,
            transform=axis.get_xaxis_transform(),
        )
        axis.annotate(
            arrow.text,
            (arrow.x, edge),
            (7, (-9 - 11 * arrow.level) if arrow.is_up else (4 + 11 * arrow.level)),
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            **HALO,
        )


def thin_step(chart: Chart) -> int | None:
    """The first step of a slider, which is drawn beside that of the heading; None: in a crowd."""
    labels = {series.label for panel in chart.panels for series in panel.series}
    is_other = len(chart.frames) > 1 and chart.at != chart.frames[0]
    return chart.frames[0] if is_other and len(labels) <= CROWDED else None


def add_legend(figure: Figure, chart: Chart) -> None:
    """One entry for each label, and what is pale where a slider's first step is drawn, too."""
    by_label = {s.label: s for panel in reversed(chart.panels) for s in reversed(panel.series)}
    shown = dict.fromkeys(s.label for panel in chart.panels for s in panel.series)
    handles = [legend_key(by_label[label]) for label in shown]
    if (first := thin_step(chart)) is not None:
        thin = f"thin: step {first}"
        handles += [
            Line2D([], [], color=INK, linewidth=0.8, alpha=0.5, label=thin),
            Line2D([], [], color=INK, linewidth=1.6, label=f"thick: step {chart.at}"),
        ]
    if not handles:
        return
    widest = max(len(str(handle.get_label())) for handle in handles) + 7
    columns = max(1, min(len(handles), int(13.5 * figure.get_figwidth() / widest)))
    lines = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + 0.18 * lines)
    figure.legend(
        handles=handles, loc="outside lower left", ncols=columns, handlelength=3, **LEGEND
    )


def legend_key(series: Series) -> Line2D:
    """An entry of the legend."""
    look = series.look
    return Line2D(
        [],
        [],
        color=look.light,
        linestyle="" if series.kind == "dots" else look.linestyle,
        marker=look.mark,
        markersize=4.5,
        label=fold(series.label, 60),
    )
