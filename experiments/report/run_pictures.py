"""Pictures of a run, drawn from the CSV files and the summary.json in its directory alone.

`python -m experiments.plots DIR` draws them again; with several directories it compares the runs
in one picture, see experiments.report.comparison.
"""

import argparse
import itertools
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.arms import WARMUP
from experiments.analysis.histories import read_csv
from experiments.analysis.numbers import loss_text
from experiments.analysis.words import NORM_WORDS, placement_words, setting_words
from experiments.machine.console import one_line, print_error, print_line, terminal
from experiments.machine.plotting import plain_matplotlib
from experiments.records.summary import Summary, read_summary
from experiments.report.chart import Chart
from experiments.report.comparison import compare
from experiments.report.lettering import fold, tick_text, warnings_of_ours
from experiments.report.palette import DASHES, categories, look_of, scale_of
from experiments.report.paper_pictures import paper_figure
from experiments.report.static import save_chart
from experiments.report.style import (
    LEGEND,
    log_if_wide,
    loss_limits,
    mark_height,
    new_figure,
    on_scale,
    panels,
    save,
    whole_numbers,
)
from gpt import ConfigError
from normscope.stats import described

log = logging.getLogger(__name__)

Frame = pd.DataFrame

TITLE_WIDTH = 85  # characters in a line
MOST_TICKS = 30  # of a matrix, in a panel


def draw_run(directory: Path) -> list[Path]:
    """Draw every picture whose files are there, into plots/; returns their paths."""
    drawn: list[Path] = []
    for name, file, draw in PICTURES:
        try:
            frame = read_csv(directory / f"{file}.csv")
            with plain_matplotlib(), warnings_of_ours(name):
                figure = None if frame.empty else draw(frame, summary=read_summary(directory))
                if isinstance(figure, Chart):
                    drawn += save_chart(figure, directory / "plots", ("png", "svg"))
                elif figure is not None:
                    drawn.append(save(figure, directory / "plots" / f"{name}.png"))
        except Exception as error:  # one picture less is no reason to lose the others, or the run
            log.warning("%s is not drawn: %s", name, one_line(error))
    return drawn


def titled(finding: str, summary: Summary) -> str:
    """A picture's title: what it shows, and below what ran."""
    return f"{fold(finding, TITLE_WIDTH)}\n{run_in_words(summary)}"


def run_in_words(summary: Summary) -> str:
    """What ran, in a few words: Post-LN, 8 x 128, LayerNorm, init xavier, seed 0."""
    if summary.placement is None:
        return fold(summary.runner or "", TITLE_WIDTH)
    words = [
        placement_words(summary.placement),
        f"{summary.n_layers} x {summary.emb_dim}",
        None
        if summary.placement == "no_norm"
        else NORM_WORDS.get(summary.norm or "", summary.norm),
        f"init {summary.init}",
        f"{summary.seeds} seeds" if summary.seeds else f"seed {summary.seed}",
        None if summary.warmup_steps is None else setting_words(WARMUP, summary.warmup_steps),
        "shortcut off" if summary.shortcut is False else None,
    ]
    return fold(", ".join(filter(None, words)), TITLE_WIDTH)


def mark_divergence(axis: Axes, summary: Summary) -> None:
    """A line where the loss or a gradient stopped being finite."""
    step = summary.diverged_at_step
    if step is not None:
        axis.axvline(step, color="black", linestyle=":", label=f"not finite at step {step}")


def loss(metrics: Frame, summary: Summary) -> Figure:
    """Training and validation loss, with the loss of a model that knows only frequencies."""
    figure, (axis,) = new_figure()
    train, val = (metrics.set_index("step")[f"{part}_loss"].dropna() for part in ("train", "val"))
    look = look_of(summary.placement or "")
    axis.plot(train, color=look.light, alpha=0.35, linewidth=0.8)
    width = max(1, len(train) // 40) * 2 + 1
    smooth = train.rolling(width, center=True, min_periods=1).median()
    axis.plot(smooth, color=look.light, label=f"training (thick: running median of {width})")
    axis.plot(val, look.mark, label="validation", color=look.light, markerfacecolor="white")
    level = summary.corpus.unigram_validation_loss
    if level is None:  # of a run whose validation tokens are not known
        level = summary.corpus.unigram_entropy
    if level is not None:
        text = f"token frequencies alone ({level:.2f})"
        axis.axhline(level, color="0.35", linestyle="--", linewidth=1, label=text)
    axis.set_ylim(*loss_limits([val.tolist(), train.tolist()], [] if level is None else [level]))
    mark_height(axis, pd.concat([train, val]).sort_index(), look.light)
    mark_divergence(axis, summary)
    whole_numbers(axis)
    axis.set(xlabel="step (updates made)", ylabel="cross entropy (nats per token)")
    axis.set_title(titled(loss_in_words(val, level), summary), fontsize=10)
    axis.legend(**LEGEND)
    return figure


def loss_in_words(val: "pd.Series[float]", level: float | None) -> str:
    """What was learnt, in a title."""
    if val.empty:
        return "Loss"
    beside = "" if level is None else f"; token frequencies alone have {level:.2f}"
    return f"Validation loss {loss_text(val.iloc[-1], 2)} at step {val.index[-1]}{beside}"


def of_blocks(gradients: Frame, stat: str, component: str = "block") -> Frame:
    """Blocks, counted from 1, as columns and steps as rows, of one statistic."""
    chosen = gradients[(gradients["stat"] == stat) & (gradients["component"] == component)]
    table = chosen.pivot(index="step", columns="layer", values="value")
    return on_scale(table.rename(columns=lambda layer: layer + 1))


def gradient_by_layer(gradients: Frame, summary: Summary) -> Figure | None:
    """Gradient norm of each block at the first, middle and last logged step, spread if known."""
    table = of_blocks(gradients, "grad_norm")
    if table.empty:
        return None
    figure, (axis,) = new_figure()
    spread = of_blocks(gradients, "grad_norm_std")
    draw_layers(axis, table, spread)
    log_if_wide(axis)
    axis.set(xlabel="block", ylabel=f"{described('grad_norm').axis},\nbefore clipping")
    axis.set_title(titled(ratios_in_words(table), summary), fontsize=10)
    axis.legend(**LEGEND)
    return figure


def ratios_in_words(table: Frame) -> str:
    """How much more gradient the last block gets than the first, in a title."""
    ratios = last_over_first(table)
    shown = [f"{ratios[step]:.2g} at step {step}" for step in steps_shown(table) if step in ratios]
    return f"Last block's gradient / first's: {', '.join(shown) or 'not finite'}"


def last_over_first(table: Frame) -> "pd.Series[float]":
    """The last block's value over the first's by step, where it is finite and not 0."""
    ratios = table.iloc[:, -1] / table.iloc[:, 0]
    return ratios[np.isfinite(ratios) & (ratios > 0)]


def steps_shown(table: Frame) -> list[int]:
    """The first, the middle and the last step of a table."""
    return list(dict.fromkeys(table.index[[0, len(table) // 2, -1]]))


def draw_layers(axis: Axes, table: Frame, spread: Frame) -> None:
    """One line for each of `steps_shown`."""
    steps = steps_shown(table)
    for step, look in zip(steps, scale_of(len(steps)), strict=True):
        values, colour = table.loc[step], look.light
        finite = np.isfinite(values)
        label = f"step {step}" + ("" if finite.all() else f", {(~finite).sum()} not finite")
        axis.plot(values.index[finite], values[finite], color=colour, marker=look.mark, label=label)
        if step in spread.index:
            deviation = spread.loc[step]
            axis.fill_between(
                values.index,
                values - deviation,
                values + deviation,
                color=colour,
                alpha=0.2,
                label="one standard deviation over seeds",
            )
        if not finite.all():  # such blocks are crosses at the top edge
            axis.plot(
                values.index[~finite],
                np.ones((~finite).sum()),
                "x",
                color=colour,
                clip_on=False,
                transform=axis.get_xaxis_transform(),
            )
    whole_numbers(axis)


def ends_of_colours(values: np.ndarray) -> np.ndarray:
    """The 1st and the 99th percentile; a bar of colours computes powers three times as far."""
    return np.clip(np.percentile(values, (1, 99)), 1e-100, 1e100)


def gradient_heatmap(gradients: Frame, summary: Summary) -> Figure | None:
    """Gradient norm of each block through training; cells without a colour are white.

    The colours end at the 1st and the 99th percentile, or one spike would leave no colour for what
    lies between the other steps.
    """
    table = of_blocks(gradients, "grad_norm")
    if len(table) < 2:
        return None
    figure, (axis,) = new_figure()
    axis.grid(False)
    values = table.to_numpy().T
    positive = values[np.isfinite(values) & (values > 0)]
    steps, blocks = table.index.to_numpy(), table.columns.to_numpy()
    mesh = axis.pcolormesh(
        np.append(steps, steps[-1] + 1) - 0.5,
        np.append(blocks, blocks[-1] + 1) - 0.5,
        np.ma.masked_where(~np.isfinite(values) | (values <= 0), values),
        norm=LogNorm(*ends_of_colours(positive)) if positive.size else None,
        cmap="cividis",
        rasterized=True,
    )
    label = f"{described('grad_norm').axis}\n(colours: 1st to 99th percentile)"
    figure.colorbar(mesh, label=label, extend="both")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    whole_numbers(axis)
    axis.set(xlabel="step (updates made)", ylabel="block")
    white = "" if positive.size == values.size else " (white: 0 or not finite)"
    axis.set_title(titled(f"{peak_in_words(table)}{white}", summary), fontsize=10)
    return figure


def peak_in_words(table: Frame) -> str:
    """When the last block's gradient was largest beside the first's, in a title."""
    ratios = last_over_first(table)
    if ratios.empty:
        return "Gradient norm through training"
    return (
        f"Last block's gradient / first's: at most {ratios.max():,.3g}, at step {ratios.idxmax()}"
    )


def activations_by_layer(gradients: Frame, summary: Summary) -> Figure | None:
    """RMS of the stream and of both branches, and the attention's entropy if known, by block."""
    before = of_blocks(gradients, "activation_rms", "input").iloc[:, :1]
    after = of_blocks(gradients, "activation_rms", "output")
    if after.empty:
        return None
    stream = pd.concat([before.rename(columns={1: 0}), after], axis=1)
    tables = {
        "Stream after the block (0: what enters block 1)": stream,
        "What attention writes": of_blocks(gradients, "activation_rms", "attention"),
        "What the feed-forward layers write": of_blocks(
            gradients, "activation_rms", "feed_forward"
        ),
        "Attention entropy": of_blocks(gradients, "attention_entropy", "attention"),
    }
    shown = {title: table for title, table in tables.items() if not table.empty}
    figure, axes = panels(2, 2, (4.8, 3.2))
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, (title, table) in zip(axes, shown.items(), strict=False):
        draw_layers(axis, table, Frame())
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="block")
        if title == "Attention entropy":
            axis.set(ylabel="1: uniform, 0: one token", ylim=(0, 1.05))
        else:
            axis.set(ylabel="root mean square")
            log_if_wide(axis)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, **LEGEND
    )
    ends = [f"{stream.loc[step].iloc[-1]:.3g} at step {step}" for step in steps_shown(stream)]
    finding = f"Stream after the last block: RMS {', '.join(ends)}"
    figure.suptitle(titled(finding, summary), fontsize=10)
    return figure


def mixing(table: Frame, summary: Summary) -> Figure | None:
    """Each state's share of each source, at the first and the last step measured."""
    shares = table[table["stat"] == "mixing_share"]
    if shares.empty:
        return None
    if "sum_1" in set(shares["component"]):  # after each sublayer; else after each block
        shares = shares[shares["component"] != "output"]
    steps = list(dict.fromkeys([shares["step"].min(), shares["step"].max()]))
    figure, axes = new_figure(columns=len(steps))
    for axis, step in zip(axes, steps, strict=True):
        rows = shares[shares["step"] == step]
        states, sources = (
            pd.MultiIndex.from_frame(rows[columns]).unique().sort_values()
            for columns in (["layer", "component"], ["source_layer", "source"])
        )
        values = rows.pivot(
            index=["layer", "component"], columns=["source_layer", "source"], values="value"
        ).loc[states, sources]
        axis.grid(False)
        axis.set_facecolor("0.85")
        mesh = axis.imshow(
            np.ma.masked_invalid(values.to_numpy()).clip(0, 1),
            norm=PowerNorm(0.5, 0, 1),
            cmap="cividis",
            aspect="auto",
        )
        for ticks, places in ((axis.set_xticks, sources), (axis.set_yticks, states)):
            names = [place_text(layer, part) for layer, part in places.tolist()]
            apart = 1 + len(names) // MOST_TICKS
            ticks(range(0, len(names), apart), names[::apart], fontsize=7)
        axis.tick_params(axis="x", rotation=90)
        axis.set(xlabel="written by", ylabel="state")
        axis.set_title(f"step {step}", fontsize=10)
    figure.colorbar(mesh, ax=axes, label="share of the state; below 0 as 0")
    figure.suptitle(titled("What each sublayer wrote of each state", summary), fontsize=10)
    return figure


def place_text(layer: int, part: str) -> str:
    """A state or a source in a few letters: its block, counted from 1, and the part."""
    words = {"norm_shifts": "shifts", "final_norm": "head", "feed_forward": "F", "attention": "A"}
    name = words.get(part, part.replace("_", " "))
    return name if layer < 0 or part == "final_norm" else f"{layer + 1} {name}"


def parameters(table: Frame, summary: Summary) -> Figure:
    """Parameters by component, summed over the blocks."""
    figure, (axis,) = new_figure()
    counts = table.groupby("component", sort=False)["parameters"].sum()
    names = [tick_text(name).replace("_", " ") for name in counts.index]
    bars = axis.barh(names, counts / 1e6, color=look_of(summary.placement or "").light)
    axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(False, axis="y")
    axis.set(xlabel="parameters (millions)")
    axis.set_title(titled(f"{counts.sum():,} parameters", summary), fontsize=10)
    return figure


def model_sizes(table: Frame, summary: Summary) -> Figure:
    """Parameters of every size on a log scale, those that a token meets, and what is published."""
    figure, (axis,) = new_figure()
    figure.set_figheight(1.8 + 0.17 * len(table))
    place = pd.Series(range(len(table)), index=table.index)
    axis.hlines(place, table["active"], table["parameters"], color="0.75", linewidth=1, zorder=1)
    for name in table["placement"].unique():
        chosen = table["placement"] == name
        colour, mark = look_of(name).light, look_of(name).mark
        label = tick_text(placement_words(name))
        axis.plot(table["parameters"][chosen], place[chosen], mark, color=colour, label=label)
        axis.plot(table["active"][chosen], place[chosen], "|", color=colour, markersize=7)
    axis.plot([], [], "|", color="0.35", label="active: met by one token")
    for equal, label, colour in (
        ("yes", "published, equal", "0.2"),
        ("no", "published, another", "red"),
    ):
        chosen = table["equal"] == equal
        if chosen.any():
            (ring,) = axis.plot(table["published"][chosen], place[chosen], "o", label=label)
            ring.set(markersize=10, markerfacecolor="none", color=colour)
    axis.set_yticks(place, [tick_text(name) for name in table["model"]], fontsize=8)
    axis.set_xscale("log")
    axis.grid(True, axis="x")
    axis.set_ylim(-0.8, len(table) - 0.2)
    axis.set(xlabel="parameters")
    least, most = table["parameters"].min(), table["parameters"].max()
    axis.set_title(f"{len(table)} sizes, {least:,} to {most:,} parameters", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def memory(table: Frame, summary: Summary) -> Figure:
    """Predicted beside measured bytes of each kind."""
    figure, (axis,) = new_figure()
    place = np.arange(len(table))
    columns = ("predicted_bytes", "measured_bytes")
    for index, (column, look) in enumerate(zip(columns, categories(2), strict=True)):
        values = table[column] / 2**20
        bars = axis.bar(
            place + 0.4 * (index - 0.5),
            values,
            0.38,
            color=look.light,
            hatch="" if index == 0 else "//",
            edgecolor="white",
            label=column.removesuffix("_bytes"),
        )
        axis.bar_label(
            bars, ["" if math.isnan(v) else f"{v:,.0f}" for v in values], fontsize=8, padding=2
        )
    axis.set_xticks(place, [tick_text(kind) for kind in table["kind"]])
    axis.set(ylabel="memory (MiB)")
    axis.set_title(titled("Memory of a training step", summary), fontsize=10)
    axis.legend(**LEGEND)
    return figure


def shortcut(table: Frame, summary: Summary) -> Figure:
    """Mean absolute gradient of each layer, without and with shortcuts."""
    figure, (axis,) = new_figure()
    arms = {name.replace("_", " "): table[name] for name in table.columns[1:]}
    for (name, values), look in zip(arms.items(), categories(len(arms)), strict=True):
        style = {"color": look.light, "marker": look.mark, "linestyle": look.linestyle}
        axis.plot(table["layer"] + 1, values, label=name, **style)
    axis.set_yscale("log")
    whole_numbers(axis)
    axis.set(xlabel="layer", ylabel="mean absolute gradient of the weight")
    first, *_, last = arms
    gain = arms[last].iloc[0] / arms[first].iloc[0]
    axis.set_title(f"Gradient of layer 1, {last} / {first}: {gain:,.0f}", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def activations(table: Frame, summary: Summary) -> Figure:
    """Each activation and its derivative."""
    figure, axes = new_figure(columns=2)
    curves = dict(tuple(table.groupby("activation", sort=False)))
    dashes = itertools.cycle(DASHES[:5])  # another for each: the curves lie upon each other
    looks = [replace(look, dash=next(dashes)) for look in categories(len(curves))]
    for axis, column in zip(axes, ("value", "derivative"), strict=True):
        for (name, curve), look in zip(curves.items(), looks, strict=True):
            axis.plot(
                curve["x"], curve[column], color=look.light, linestyle=look.linestyle, label=name
            )
        axis.set(xlabel="x", ylabel=column, xlim=(-4, 4))
        axis.set_title(
            "Activation" if column == "value" else "Derivative: the gradient's factor", fontsize=10
        )
    axes[0].set_ylim(-0.5, 4)
    axes[1].set_ylim(-0.25, 2)
    axes[0].legend(**LEGEND)
    return figure


# Name, the CSV file it needs, and how it is drawn.
PICTURES: tuple[tuple[str, str, Callable[..., Figure | Chart | None]], ...] = (
    ("loss", "metrics", loss),
    ("gradient_by_layer", "gradients", gradient_by_layer),
    ("gradient_heatmap", "gradients", gradient_heatmap),
    ("activations_by_layer", "gradients", activations_by_layer),
    ("mixing", "mixing", mixing),
    ("parameters", "parameters", parameters),
    ("model_sizes", "model_sizes", model_sizes),
    ("memory", "memory", memory),
    ("shortcut", "shortcut", shortcut),
    ("activations", "activations", activations),
    ("paper_figure", "paper_figure", paper_figure),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: see the module's docstring. Returns the exit code."""
    with terminal():
        return draw_again(arguments)


def draw_again(arguments: Sequence[str] | None) -> int:
    """Draw what the arguments name; returns the exit code. Bad input gives one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plots", description=__doc__)
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="of a run")
    parser.add_argument("--out", type=Path, help="of a comparison (default: comparison.png)")
    options = parser.parse_args(arguments)
    for directory in options.directories:
        if not any((directory / f"{file}.csv").is_file() for _, file, _ in PICTURES):
            print_error(f"error: {directory}: must be a run directory with CSV files")
            return 1
    if len(options.directories) == 1 and options.out:
        print_error("error: --out is for several directories")
        return 1
    if len(options.directories) == 1:
        drawn = draw_run(options.directories[0])
    else:
        try:
            drawn = [compare(options.directories, options.out or Path("comparison.png"))]
        except (ConfigError, OSError) as error:
            print_error(f"error: {one_line(error)}")
            return 1
    for path in drawn:
        print_line(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
