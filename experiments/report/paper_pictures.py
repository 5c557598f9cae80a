"""The figure of a paper that was measured again, from paper_figure.csv alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from experiments.analysis.histories import read_csv
from experiments.analysis.paper_figures import (
    BLOCK,
    MEASURED,
    PAPER_FIGURES,
    PREDICTED,
    Panel,
)
from experiments.analysis.runs import Run
from experiments.analysis.words import placement_words
from experiments.records.summary import Summary
from experiments.report import chart
from experiments.report.chart import Axis, Chart, Series, of_runs
from experiments.report.palette import (
    DASH_DOT,
    DASH_DOT_DOT,
    DASHED,
    DOTTED,
    GREY,
    Look,
    look_of,
    scale_of,
)

GUIDES = (DASHED, DOTTED, DASH_DOT, DASH_DOT_DOT)  # of what is predicted
FEW_TICKS = 8  # of an axis of depths, which are then those measured
ROOM = 1.06  # above the highest point, in heights of a linear scale

Frame = pd.DataFrame


def figures_of_papers(runs: Sequence[Run]) -> list[Callable[[], Chart | None]]:
    """Functions that make the figure of a paper, one for each that the runs measured."""
    measured = {
        str(run.setting("paper_figure.name")): run
        for run in reversed(runs)
        if run.setting("runner") == "paper_figure"
    }
    return [partial(figure_of_run, run) for run in measured.values()]


def figure_of_run(run: Run) -> Chart | None:
    """The figure of a paper that a run measured; None where its file is missing or torn."""
    points = read_csv(run.directory / "paper_figure.csv")
    return None if points.empty else paper_figure(points, run.summary)


def legends_of_papers(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The groups of a page's legend for the figures of papers among its charts: their lines."""
    return [
        {
            "title": f"Lines of {PAPER_FIGURES[chart.name].paper}",
            "entries": [
                {"key": label, "label": label, "look": look}
                for label, look in {
                    line.label: line.look for panel in chart.panels for line in panel.series
                }.items()
            ],
        }
        for chart in charts
        if chart.name in PAPER_FIGURES
    ]


def paper_figure(points: Frame, summary: Summary) -> Chart | None:
    """The paper's panels: medians and ranges over seeds, and in grey what is predicted.

    None of a figure that only another version knows.
    """
    name = str(points["figure"].iloc[0])
    return chart_of(name, points, summary) if name in PAPER_FIGURES else None


def chart_of(name: str, points: Frame, summary: Summary) -> Chart:
    """A figure from its points."""
    figure = PAPER_FIGURES[name]
    measured = points[points["kind"] == MEASURED]
    looks = looks_of(list(dict.fromkeys(measured["arm"])))
    predicted = dict.fromkeys(points.loc[points["kind"] == PREDICTED, "arm"])
    dashes = dict(zip(predicted, GUIDES, strict=False))
    panels = []
    for index, (key, panel) in enumerate(figure.panels.items()):
        of_panel = points[points["panel"] == key]
        series = measured_series(of_panel[of_panel["kind"] == MEASURED], looks)
        series += predicted_series(of_panel[of_panel["kind"] == PREDICTED], dashes)
        row, column = divmod(index, figure.columns)
        x, y = axes_of(panel, of_panel)
        panels.append(chart.Panel(series, row, column, panel.title, x, y))
    seeds = measured["seed"].nunique()
    spread = "One seed." if seeds == 1 else f"Median and range over {seeds} seeds."
    return Chart(
        name,
        f"{figure.paper}: {figure.title}",
        f"Coloured lines are measured, grey ones predicted by the paper. {spread}",
        f"In the paper, arXiv {figure.arxiv}, {figure.published}. Not as there: {figure.ours}.",
        summary.finding or figure.title,
        panels,
        Axis(panels[0].x.label if panels[0].x else ""),
        Axis(panels[0].y.label if panels[0].y else ""),
    )


def looks_of(arms: list[str]) -> dict[str, Look]:
    """Placements have their own look, and in another dash after a comma; blocks are on a scale."""
    blocks = [arm for arm in arms if arm.startswith(BLOCK)]
    return dict(zip(blocks, scale_of(len(blocks)), strict=True)) | {
        arm: look_of_arm(*arm.partition(",")[:2]) for arm in arms if arm not in blocks
    }


def look_of_arm(placement: str, comma: str) -> Look:
    """The look of a placement, or of another arm of it."""
    look = look_of(placement)
    if not comma:
        return look
    return replace(look, dash=DOTTED if look.dash == DASHED else DASHED, mark="^")


def words_of(arm: str) -> str:
    """An arm in the legend."""
    placement, comma, rest = arm.partition(",")
    return placement_words(placement) + comma + rest


def measured_series(points: Frame, looks: dict[str, Look]) -> list[Series]:
    """A line for each arm: its median over the seeds, and its range."""
    found = []
    for arm, of_arm in points.groupby("arm", sort=False):
        runs = [run.set_index("x")["value"] for _, run in of_arm.groupby("seed")]
        found.append(of_runs(words_of(str(arm)), looks[str(arm)], runs))
    return [series for series in found if series is not None]


def predicted_series(points: Frame, dashes: dict[str, tuple[float, ...]]) -> list[Series]:
    """A thin grey line for each prediction."""
    return [
        Series(
            str(label),
            Look(*GREY, dashes[str(label)], ""),
            of_label["x"].tolist(),
            of_label["value"].tolist(),
            width=1.5,
        )
        for label, of_label in points.groupby("arm", sort=False)
    ]


def axes_of(panel: Panel, points: Frame) -> tuple[Axis, Axis]:
    """The axes of a panel; a linear scale begins at 0, and each panel has its own."""
    xs = sorted(points["x"].unique())
    if panel.log_x and len(xs) > FEW_TICKS:
        xs = [x for x in xs if math.log2(x).is_integer() or x == xs[-1]]
    ticks = tuple((float(x), f"{x:g}") for x in xs) if len(xs) <= FEW_TICKS else ()
    x = Axis(panel.x, "log" if panel.log_x else "linear", whole=True, ticks=ticks)
    if panel.log_y:
        return x, Axis(panel.y, "log")
    return x, Axis(panel.y, limits=(0.0, ROOM * float(points["value"].max()) or 1.0))
