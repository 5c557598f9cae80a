"""The page about a lecture. It needs only the lecture's CSV files and its summary.json."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.analysis.chapter import LATER, STEPS, arm_label, step_near
from experiments.analysis.histories import History
from experiments.analysis.lecture import Lecture, read_lecture
from experiments.analysis.runs import Run
from experiments.machine.files import hide_home, write_atomically
from experiments.report.drawing import ReportFigure
from experiments.report.figures import Maker
from experiments.report.page import Picture, draw_picture, provenance, render_template
from experiments.report.style import COLOURS, DASHES, LEGEND, MARKS, panels, whole_numbers

FORMATS = ("png", "svg")
PANEL = (4.4, 3.1)  # inches: two beside each other on a laptop, one on a phone
BLUE, VERMILION = COLOURS[:2]


def write_lecture_page(directory: Path) -> Path:
    """Draw the figures and write lecture.html; returns its path.

    Raises ConfigError for files that are not of a lecture.
    """
    lecture, folder = read_lecture(directory), directory / "figures"
    drawn = {
        step: [p for make in makers if (p := draw_picture(make, folder, FORMATS)) is not None]
        for step, makers in figures_of(lecture).items()
    }
    page = render_page(lecture, drawn, Run.read(directory))
    path = directory / "lecture.html"
    write_atomically(path, hide_home(page).encode())
    return path


def render_page(lecture: Lecture, drawn: dict[str, list[Picture]], run: Run) -> str:
    """The page. The template engine escapes everything that comes from the files."""
    return render_template(
        "lecture.html.jinja",
        lecture=lecture,
        steps=[(step, step.title(lecture)) for step in STEPS],
        drawn=drawn,
        sizes=lecture.tables["gpt2_sizes"].to_dict("records"),
        provenance=provenance([run]),
    )


def figures_of(lecture: Lecture) -> dict[str, Sequence[Maker]]:
    """What draws each step's figures, one panel each."""
    return {
        "layer_norm": [partial(layer_norm, lecture, when) for when in ("before", "after")],
        "gelu": [partial(activation, lecture, column) for column in ("value", "derivative")],
        "shortcut": [partial(shortcut, lecture)],
        "placement": [
            partial(losses, lecture),
            *(partial(gradients, lecture, step) for step in (0, LATER)),
        ],
    }


def figure(name: str, title: str, alt: str) -> tuple[ReportFigure, Axes]:
    """A figure of one panel, whose title is what it shows."""
    made, (axis,) = panels(1, 1, PANEL)
    axis.set_title(title)
    return ReportFigure(name, title, title, alt, made), axis


def layer_norm(lecture: Lecture, when: str) -> ReportFigure:
    """The rows before or after the norm, on one scale, each with its mean."""
    table = lecture.tables["layer_norm"]
    means = table.groupby("row")[when].mean()
    shown = " and ".join(f"{mean:z.2f}" for mean in means)
    drawn, axis = figure(f"layer_norm_{when}", f"{when.capitalize()}: means {shown}", "Two rows")
    for (row, values), colour, mark in zip(table.groupby("row"), COLOURS, MARKS, strict=False):
        axis.plot(values["feature"], values[when], color=colour, marker=mark, label=f"row {row}")
        axis.axhline(means[row], color=colour, linestyle="--", linewidth=0.8)
    every = table[["before", "after"]].to_numpy()
    axis.set(xlabel="feature", ylabel="value", ylim=(every.min() - 0.2, every.max() + 0.2))
    whole_numbers(axis)
    axis.legend(**LEGEND)
    return drawn


def activation(lecture: Lecture, column: str) -> ReportFigure:
    """GELU and ReLU, or their derivatives."""
    words = {"value": "What comes out", "derivative": "What the gradient is multiplied by"}
    drawn, axis = figure(f"gelu_{column}", words[column], f"{column} of GELU and ReLU from -4 to 4")
    table = lecture.tables["activations"]
    for name, colour, dash in (("gelu", BLUE, "-"), ("relu", VERMILION, DASHES[1])):
        curve = table[table["activation"] == name]
        label = "GELU" if name == "gelu" else "ReLU"
        axis.plot(curve["x"], curve[column], color=colour, linestyle=dash, label=label)
    axis.set(xlabel="x", ylabel=column, xlim=(-4, 4))
    axis.legend(**LEGEND)
    return drawn


def shortcut(lecture: Lecture) -> ReportFigure:
    """Mean absolute gradient of each layer's weight, layers counted from 1."""
    table = lecture.tables["shortcut"]
    title = "Mean absolute gradient of each layer's weight"
    drawn, axis = figure("shortcut", title, "Five layers with and without shortcuts, log scale")
    for arm, colour, mark in zip(table.columns[1:], (VERMILION, BLUE), "so", strict=True):
        label = arm.replace("_", " ") + "s"
        axis.plot(table["layer"] + 1, table[arm], color=colour, marker=mark, label=label)
    axis.set(xlabel="layer, from the input", ylabel="gradient", yscale="log")
    whole_numbers(axis)
    axis.legend(**LEGEND)
    return drawn


def lines_of(lecture: Lecture) -> Iterator[tuple[History, dict[str, Any]]]:
    """Each run with its line: the colour is the placement's, dashes are without warm-up."""
    for arm in lecture.arms:
        is_pre = arm.run.summary.placement == "pre_ln"
        dash = "-" if is_pre or arm.run.summary.warmup_steps else DASHES[1]
        colour = BLUE if is_pre else VERMILION
        yield arm, {"color": colour, "linestyle": dash, "label": arm_label(arm)}


def losses(lecture: Lecture) -> ReportFigure:
    """Training losses, and what token frequencies alone give."""
    drawn, axis = figure("placement_loss", "Training loss", "Three losses by step")
    for arm, line in lines_of(lecture):
        curve = arm.losses("train_loss")
        axis.plot(curve.index, curve, linewidth=1.2, **line)
    frequencies = lecture.arms[0].run.summary.corpus.unigram_validation_loss
    if frequencies is not None:
        axis.axhline(frequencies, color="0.5", linewidth=0.8, label="token frequencies alone")
    axis.set(xlabel="step", ylabel="nats per token")
    whole_numbers(axis)
    axis.legend(fontsize=7.5, **LEGEND)
    return drawn


def gradients(lecture: Lecture, wanted: int) -> ReportFigure | None:
    """Gradient norm of each block at a step, blocks counted from 1."""
    step = step_near(lecture.arms[0], wanted)
    title = "Gradient of each block " + ("at initialisation" if step == 0 else f"at step {step}")
    drawn, axis = figure(f"placement_gradient_{step}", title, "Gradient norms by block, log scale")
    for arm, line in lines_of(lecture):
        blocks = arm.blocks.loc[step]
        axis.plot(blocks.index + 1, blocks, marker="o", markersize=4, **line)
    low = min(float(np.nanmin(arm.blocks.loc[step_near(arm, LATER)])) for arm in lecture.arms)
    high = max(float(np.nanmax(arm.blocks.iloc[0])) for arm in lecture.arms)
    axis.set(xlabel="block", ylabel="gradient norm", yscale="log", ylim=(low / 2, high * 2))
    whole_numbers(axis)
    return drawn
