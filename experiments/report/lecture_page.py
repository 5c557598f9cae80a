"""The page about a lecture. It needs only the lecture's CSV files and its summary.json."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.analysis.chapter import (
    STEPS,
    arm_label,
    looked_at_steps,
    loss_words,
    ratio_words,
    start_words,
)
from experiments.analysis.histories import History
from experiments.analysis.lecture import Lecture, read_lecture
from experiments.analysis.runs import PLACEMENT, Run
from experiments.machine.files import hide_home, write_atomically
from experiments.report.chart import Axis, Chart, Panel, Reference, Series
from experiments.report.page import provenance, render_template
from experiments.report.palette import Look, categories, look_of
from experiments.report.static import save_chart

FORMATS = ("png", "svg")
MOST_STEPS = 25  # of the slider


def write_lecture_page(directory: Path) -> Path:
    """Draw the charts and write lecture.html; returns its path.

    Raises ConfigError for files that are not of a lecture.
    """
    lecture, folder = read_lecture(directory), directory / "figures"
    charts = charts_of(lecture)
    files = {
        chart.name: [f"{folder.name}/{path.name}" for path in save_chart(chart, folder, FORMATS)]
        for chart in charts
    }
    page = render_page(lecture, charts, files, Run.read(directory))
    written = directory / "lecture.html"
    write_atomically(written, hide_home(page).encode())
    return written


def render_page(
    lecture: Lecture, charts: list[Chart], files: dict[str, list[str]], run: Run
) -> str:
    """The page. The template engine escapes everything that comes from the files.

    charts  of the steps whose names they have
    """
    return render_template(
        "lecture.html.jinja",
        charts,
        lecture=lecture,
        steps=[(step, step.title(lecture)) for step in STEPS],
        figures={chart.name: chart for chart in charts},
        keys={chart.name: key_of(chart) for chart in charts},
        files=files,
        sizes=lecture.tables["gpt2_sizes"].to_dict("records"),
        arms=[arm_row(arm) for arm in lecture.arms],
        frequencies=lecture.arms[0].run.summary.corpus.unigram_validation_loss,
        provenance=provenance([run]),
    )


def arm_row(arm: History) -> tuple[str, str, list[tuple[int, str]]]:
    """A training run: its label, its loss, and at each step looked at the ratio of gradients."""
    ratios = [(step, ratio_words(arm, step)) for step in looked_at_steps(arm)]
    return arm_label(arm), loss_words(arm), ratios


def key_of(chart: Chart) -> dict[str, Look]:
    """The looks of a chart's series by their labels."""
    return {series.label: series.look for panel in chart.panels for series in panel.series}


def charts_of(lecture: Lecture) -> list[Chart]:
    """A chart for each step that has one."""
    return [layer_norm(lecture), gelu(lecture), shortcut(lecture), placement(lecture)]


def layer_norm(lecture: Lecture) -> Chart:
    """Two rows before and after the norm, on one scale."""
    table = lecture.tables["layer_norm"]
    panels = []
    for column, when in enumerate(("before", "after")):
        rows = table.groupby("row")
        means = " and ".join(f"{mean:z.2f}" for mean in rows[when].mean())
        series = [
            Series(f"row {row}", look, values["feature"].tolist(), values[when].tolist())
            for (row, values), look in zip(rows, categories(rows.ngroups), strict=True)
        ]
        panels.append(Panel(series, 0, column, f"{when.capitalize()}: means {means}"))
    return Chart(
        "layer_norm",
        "Two rows before and after LayerNorm",
        "Compare the height of each row with 0, and how far its points spread.",
        "torch.randn(2, 5) from the book's seed; gain 1 and shift 0, as at the start of training.",
        "Five values of each of two rows, before the norm and after it.",
        panels,
        Axis("feature", whole=True),
        Axis("value"),
    )


def gelu(lecture: Lecture) -> Chart:
    """GELU and ReLU with their derivatives."""
    table = lecture.tables["activations"]

    def panel(column: int, name: str, title: str) -> Panel:
        curves = [table[table["activation"] == activation] for activation in ("gelu", "relu")]
        series = [
            Series(label, look, curve["x"].tolist(), curve[name].tolist())
            for label, look, curve in zip(("GELU", "ReLU"), categories(2), curves, strict=True)
        ]
        return Panel(series, 0, column, title, y=Axis(name))

    return Chart(
        "gelu",
        "GELU and ReLU with their derivatives",
        "The slope is what the gradient is multiplied by on its way back.",
        "The derivatives are PyTorch's own.",
        "Curves of GELU and ReLU, and of their derivatives, from -4 to 4.",
        [panel(0, "value", "What comes out"), panel(1, "derivative", "Its slope")],
        Axis("x", limits=(-4.0, 4.0)),
        Axis("value"),
    )


def shortcut(lecture: Lecture) -> Chart:
    """Mean absolute gradient of each layer's weight, layers counted from 1."""
    table = lecture.tables["shortcut"]
    layers = (table["layer"] + 1).tolist()
    looks = reversed(categories(2))
    series = [
        Series(f"{arm.replace('_', ' ')}s", look, layers, table[arm].tolist())
        for arm, look in zip(table.columns[1:], looks, strict=True)
    ]
    return Chart(
        "shortcut",
        "The gradient of each layer, with and without shortcuts",
        "Read from right to left, as the gradient travels. The scale is logarithmic: equal "
        "distances are equal factors.",
        "Mean of the absolute gradient over each layer's weight; input (1, 0, -1), target 0.",
        "Gradients of five layers, on a logarithmic scale, with and without shortcuts.",
        [Panel(series)],
        Axis("layer, from the input", whole=True),
        Axis("mean absolute gradient", "log"),
    )


def looked_at(lecture: Lecture) -> Iterator[tuple[History, str, Look]]:
    """Each run with its label and look: the colour is the placement's, warm-up is dashed."""
    for arm in lecture.arms:
        look = look_of(str(arm.run.setting(PLACEMENT)))
        warmup = arm.run.setting("schedule.warmup_steps")
        yield arm, arm_label(arm), look.varied(1) if warmup else look


def placement(lecture: Lecture) -> Chart:
    """Losses of the three runs, and each block's gradient at one step of a slider."""
    losses = [
        Series(label, look, [float(x) for x in curve.index], curve.tolist())
        for arm, label, look in looked_at(lecture)
        for curve in (arm.losses("train_loss"),)
    ]
    frequencies = lecture.arms[0].run.summary.corpus.unigram_validation_loss
    title = "Training loss; dotted: that of token frequencies alone"  # curves cross words beside it
    steps = [int(step) for step in lecture.arms[0].blocks.index]

    def blocks_at(step: int) -> Iterator[Series]:
        for arm, label, look in looked_at(lecture):
            if step in arm.blocks.index:
                (norms,) = arm.blocks.loc[[step]].to_numpy().tolist()
                yield Series(label, look, range(1, len(norms) + 1), norms)

    return Chart(
        "placement",
        "Loss, and the gradient of each block",
        "Loss: lower is better. Gradient norm: pull the slider to step 0, move it on, and watch "
        f"the first blocks. {start_words(lecture.arms)}".rstrip(),
        "Gradient norms of all parameters of a block, before the step's update.",
        "Training losses of three runs, and their gradient norms by block.",
        [
            Panel(losses, 0, 0, title, references=[Reference("", y=frequencies)]),
            Panel(
                slide(steps, MOST_STEPS, blocks_at),
                0,
                1,
                "Gradient norm by block",
                x=Axis("block", whole=True),
                y=Axis("gradient norm", "log"),
            ),
        ],
        Axis("step", whole=True),
        Axis("loss (nats per token)"),
        widths=(3, 2),
    )


def slide(steps: Sequence[int], most: int, at: Callable[[int], Iterable[Series]]) -> list[Series]:
    """The series of a slider: those of at most `most` steps, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    return [replace(series, frame=steps[index]) for index in chosen for series in at(steps[index])]
