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
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.histories import read_csv
from experiments.analysis.numbers import loss_text
from experiments.machine.console import one_line, print_error, print_line, terminal
from experiments.machine.plotting import plain_matplotlib
from experiments.records.summary import Summary, read_summary
from experiments.report.chart import Chart
from experiments.report.comparison import compare
from experiments.report.lettering import fold, tick_text, warnings_of_ours
from experiments.report.paper_pictures import paper_figure
from experiments.report.static import save_chart
from experiments.report.style import (
    COLOURS,
    DASHES,
    LEGEND,
    MARKS,
    log_if_wide,
    loss_limits,
    mark_leaving,
    new_figure,
    on_scale,
    save,
    styles,
    whole_numbers,
)
from gpt import ConfigError
from normscope.stats import described

log = logging.getLogger(__name__)

Frame = pd.DataFrame

TITLE_WIDTH = 80  # characters in a line
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


def title_of(summary: Summary) -> str:
    """What ran, in a few words."""
    if summary.placement is None:
        return fold(summary.runner or "", TITLE_WIDTH)
    words = [
        summary.placement,
        f"{summary.n_layers} x {summary.emb_dim}",
        "no norm" if summary.placement == "no_norm" else summary.norm,
        f"init {summary.init}",
        f"{summary.seeds} seeds" if summary.seeds else f"seed {summary.seed}",
        None if summary.warmup_steps is None else f"warm-up {summary.warmup_steps}",
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
    train = metrics.dropna(subset="train_loss")
    val = metrics.dropna(subset="val_loss")
    axis.plot(train["step"], train["train_loss"], color=COLOURS[0], alpha=0.35, linewidth=0.8)
    width = max(1, len(train) // 40) * 2 + 1
    smooth = train["train_loss"].rolling(width, center=True, min_periods=1).median()
    label = f"training (thick: running median of {width})"
    axis.plot(train["step"], smooth, color=COLOURS[0], label=label)
    axis.plot(val["step"], val["val_loss"], color=COLOURS[1], marker=MARKS[1], label="validation")
    levels = []
    for frequencies, style, part in (  # what a model reaches that knows nothing else
        (summary.corpus.unigram_entropy, "--", "whole text"),
        (summary.corpus.unigram_validation_loss, ":", "validation"),
    ):
        if frequencies is not None:
            text = f"token frequencies alone, {part} ({frequencies:.2f})"
            axis.axhline(frequencies, color="0.35", linestyle=style, linewidth=1, label=text)
            levels.append(frequencies)
    curves = [val["val_loss"].tolist(), train["train_loss"].tolist()]
    axis.set_ylim(*loss_limits(curves, levels))
    for name, curve, colour in (
        ("training", train.set_index("step")["train_loss"], COLOURS[0]),
        ("validation", val.set_index("step")["val_loss"], COLOURS[1]),
    ):
        height = mark_leaving(axis, curve, colour)
        if height is not None:
            text = f"{name} goes above the scale, to {loss_text(height, 0)}"
            axis.plot([], [], "^", color=colour, label=text)
    mark_divergence(axis, summary)
    whole_numbers(axis)
    axis.set(xlabel="step (updates made)", ylabel="cross entropy (nats per token)")
    axis.set_title(f"Loss\n{title_of(summary)}", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def of_blocks(gradients: Frame, stat: str, component: str = "block") -> Frame:
    """Layers as columns and steps as rows, of one statistic."""
    chosen = gradients[(gradients["stat"] == stat) & (gradients["component"] == component)]
    return on_scale(chosen.pivot(index="step", columns="layer", values="value"))


def gradient_by_layer(gradients: Frame, summary: Summary) -> Figure | None:
    """Gradient norm of each block at the first, middle and last logged step, spread if known."""
    table = of_blocks(gradients, "grad_norm")
    if table.empty:
        return None
    figure, (axis,) = new_figure()
    spread = of_blocks(gradients, "grad_norm_std")
    draw_layers(axis, table, spread)
    log_if_wide(axis)
    axis.set(xlabel="block", ylabel=described("grad_norm").axis)
    axis.set_title(f"Gradient norm by layer, before clipping\n{title_of(summary)}", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def draw_layers(axis: Axes, table: Frame, spread: Frame) -> None:
    """One line for each of the first, middle and last step of `table`."""
    steps = list(dict.fromkeys([table.index[0], table.index[len(table) // 2], table.index[-1]]))
    for step, (colour, mark, _) in zip(steps, styles(), strict=False):
        values = table.loc[step]
        finite = np.isfinite(values)
        label = f"step {step}" + ("" if finite.all() else f", {(~finite).sum()} not finite")
        axis.plot(values.index[finite], values[finite], color=colour, marker=mark, label=label)
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
        if not finite.all():  # such blocks stand as crosses at the top edge
            axis.plot(
                values.index[~finite],
                np.ones((~finite).sum()),
                "x",
                color=colour,
                clip_on=False,
                transform=axis.get_xaxis_transform(),
            )
    whole_numbers(axis)


def gradient_heatmap(gradients: Frame, summary: Summary) -> Figure | None:
    """Gradient norm of each block through training; cells that are not finite are grey."""
    table = of_blocks(gradients, "grad_norm")
    if len(table) < 2:
        return None
    figure, (axis,) = new_figure()
    axis.grid(False)
    values = table.to_numpy().T
    positive = values[np.isfinite(values) & (values > 0)]
    axis.set_facecolor("0.85")
    steps, layers = table.index.to_numpy(), table.columns.to_numpy()
    mesh = axis.pcolormesh(
        np.append(steps, steps[-1] + 1) - 0.5,
        np.append(layers, layers[-1] + 1) - 0.5,
        np.ma.masked_where(~np.isfinite(values) | (values <= 0), values),
        norm=LogNorm(positive.min(), positive.max()) if positive.size else None,
        cmap="cividis",
        rasterized=True,
    )
    figure.colorbar(mesh, label=described("grad_norm").axis)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    whole_numbers(axis)
    grey = "" if np.isfinite(values).all() else " (grey: not finite)"
    axis.set(xlabel="step (updates made)", ylabel="block")
    axis.set_title(f"Gradient norm through training{grey}\n{title_of(summary)}", fontsize=10)
    return figure


def activations_by_layer(gradients: Frame, summary: Summary) -> Figure | None:
    """RMS of the stream and of both branches, and the attention's entropy if known, by block."""
    rms = gradients[gradients["stat"] == "activation_rms"]
    if rms.empty:
        return None
    entropy = of_blocks(gradients, "attention_entropy", "attention")
    figure, (stream_axis, *more) = new_figure(columns=1 if entropy.empty else 2)
    steps = sorted(rms["step"].unique())
    lines = {"-": steps[0], "--": steps[-1]} if len(steps) > 1 else {"-": steps[0]}
    for line, step in lines.items():
        for index, component in enumerate(("input", "attention", "feed_forward", "output")):
            table = of_blocks(gradients, "activation_rms", component)
            stream_axis.plot(
                table.loc[step] if step in table.index else [],
                line,
                color=COLOURS[index],
                marker=MARKS[index],
                markersize=4,
                label=f"{component.replace('_', '-')}, step {step}",
            )
    log_if_wide(stream_axis)
    stream_axis.set(xlabel="block", ylabel="root mean square of the activations")
    stream_axis.set_title("Activations", fontsize=10)
    for axis in more:
        draw_layers(axis, entropy, Frame())
        axis.set(xlabel="block", ylabel=described("attention_entropy").axis, ylim=(0, 1.05))
        axis.set_title("Attention entropy", fontsize=10)
        axis.legend(**LEGEND)
    figure.legend(
        *stream_axis.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=4 if more else 2,  # as many as fit below the panels
        fontsize=8,
        handlelength=3.5,
        **LEGEND,
    )
    whole_numbers(stream_axis, *more)
    figure.suptitle(title_of(summary), fontsize=10)
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
    figure.suptitle(f"Depth mixing\n{title_of(summary)}", fontsize=10)
    return figure


def place_text(layer: int, part: str) -> str:
    """A state or a source in a few letters."""
    words = {"norm_shifts": "shifts", "final_norm": "head", "feed_forward": "F", "attention": "A"}
    name = words.get(part, part.replace("_", " "))
    return name if layer < 0 or part == "final_norm" else f"{layer} {name}"


def parameters(table: Frame, summary: Summary) -> Figure:
    """Parameters by component, summed over the blocks."""
    figure, (axis,) = new_figure()
    counts = table.groupby("component", sort=False)["parameters"].sum()
    names = [tick_text(name).replace("_", " ") for name in counts.index]
    bars = axis.barh(names, counts / 1e6, color=COLOURS[0])
    axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(False, axis="y")
    axis.set(xlabel="parameters (millions)")
    axis.set_title(f"{counts.sum():,} parameters\n{title_of(summary)}", fontsize=10)
    return figure


def model_sizes(table: Frame, summary: Summary) -> Figure:
    """Parameters of every size on a log scale, those that a token meets, and what is published."""
    figure, (axis,) = new_figure()
    figure.set_figheight(1.8 + 0.17 * len(table))
    place = pd.Series(range(len(table)), index=table.index)
    axis.hlines(place, table["active"], table["parameters"], color="0.75", linewidth=1, zorder=1)
    for name, (colour, mark, _) in zip(table["placement"].unique(), styles(), strict=False):
        chosen = table["placement"] == name
        axis.plot(
            table["parameters"][chosen], place[chosen], mark, color=colour, label=tick_text(name)
        )
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
    axis.set_title(f"{len(table)} sizes", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def memory(table: Frame, summary: Summary) -> Figure:
    """Predicted beside measured bytes of each kind."""
    figure, (axis,) = new_figure()
    place = np.arange(len(table))
    for index, column in enumerate(("predicted_bytes", "measured_bytes")):
        values = table[column] / 2**20
        bars = axis.bar(
            place + 0.4 * (index - 0.5),
            values,
            0.38,
            color=COLOURS[index],
            hatch="" if index == 0 else "//",
            edgecolor="white",
            label=column.removesuffix("_bytes"),
        )
        axis.bar_label(
            bars, ["" if math.isnan(v) else f"{v:,.0f}" for v in values], fontsize=8, padding=2
        )
    axis.set_xticks(place, [tick_text(kind) for kind in table["kind"]])
    axis.set(ylabel="memory (MB of 2^20 bytes)")
    axis.set_title(f"Memory of training\n{title_of(summary)}", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def shortcut(table: Frame, summary: Summary) -> Figure:
    """Mean absolute gradient of each layer, without and with shortcuts."""
    figure, (axis,) = new_figure()
    for arm, (colour, mark, _) in zip(table.columns[1:], styles(), strict=False):
        axis.plot(
            table["layer"], table[arm], color=colour, marker=mark, label=arm.replace("_", " ")
        )
    axis.set_yscale("log")
    whole_numbers(axis)
    axis.set(xlabel="layer", ylabel="mean absolute gradient of the weight")
    axis.set_title("What a shortcut does to the gradient", fontsize=10)
    axis.legend(**LEGEND)
    return figure


def activations(table: Frame, summary: Summary) -> Figure:
    """Each activation and its derivative."""
    figure, axes = new_figure(columns=2)
    for axis, column in zip(axes, ("value", "derivative"), strict=True):
        curves = table.groupby("activation", sort=False)
        dashes = itertools.cycle(DASHES)  # another for each: the curves lie upon each other
        for (name, curve), (colour, *_), dash in zip(curves, styles(), dashes, strict=False):
            axis.plot(curve["x"], curve[column], color=colour, linestyle=dash, label=name)
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
