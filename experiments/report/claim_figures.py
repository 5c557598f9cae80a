"""The figure of a claim: what was measured, and in it what was predicted."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from experiments.analysis.numbers import Band, fit_power
from experiments.analysis.words import placement_words
from experiments.report.board import BoardClaim
from experiments.report.drawing import (
    INK,
    LABEL_WIDTH,
    Line,
    ReportFigure,
    add_legend,
    draw_band,
    legend_key,
)
from experiments.report.lettering import fold, tick_text
from experiments.report.palette import CATEGORIES, Look, look_of
from experiments.report.style import label_short_log_scale, panels, whole_numbers
from gpt import PLACEMENTS

SIZE = (5.4, 3.7)  # inches: on a phone its words are still to be read
MANY_SEEDS, TAIL = 20, 0.05  # with so many seeds a band leaves out this share at each end
GUIDES: tuple[Any, ...] = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
FEW_TICKS = 8  # of a log axis, which are then the measured x

Frame = pd.DataFrame


def figure_of(claim: BoardClaim) -> ReportFigure | None:
    """Means and ranges over seeds against x, or each seed by arm, with what is predicted there."""
    if claim.points.empty or not (claim.points["kind"] == "point").any():
        return None
    of_kind = dict(list(claim.points.groupby("kind")))
    points, guides = of_kind["point"], of_kind.get("guide", claim.points.iloc[:0])
    figure, (axis,) = panels(1, 1, SIZE)
    first = points.iloc[0]
    arms = list(dict.fromkeys(points["arm"]))
    axis.set_ylabel(fold(first["y_name"], 40))
    if first["log_y"] == "True":
        axis.set_yscale("log")
    if points["x"].isna().all():
        draw_dots(axis, points, arms)
        keys = []
    else:
        axis.set_xlabel(first["x_name"])
        keys = draw_lines(axis, points, arms)
    keys += draw_guides(axis, guides)
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log" and high < 100 * low:
        label_short_log_scale(axis.yaxis)
    if keys:
        add_legend(figure, keys)
    seeds = points["seed"].nunique()
    if points["x"].isna().all():
        caption = f"Each of {seeds} seeds, and their mean."
    else:
        spread = "central 90 %" if seeds >= MANY_SEEDS else "range"
        caption = f"Mean and {spread} of {seeds} seeds."
    if len(guides):
        caption += " Dashes and grey: what is predicted."
    means = "; ".join(f"{in_words(arm)} {value:.3g}" for arm, value in last_means(points, arms))
    predicted = "; ".join(dict.fromkeys(guides["arm"])) or "nothing"
    alt = f"{first['y_name']}, mean at the right end: {means}. Drawn as predicted: {predicted}."
    return ReportFigure(claim.claim, claim.title, caption, alt, figure)


def placement_of(arm: str) -> str:
    """The placement with which an arm's name begins; empty where there is none."""
    head = arm.partition(",")[0]
    return head if head in PLACEMENTS else ""


def in_words(arm: str) -> str:
    """An arm's name with its placement as papers write it."""
    placement = placement_of(arm)
    return placement_words(placement) + arm.removeprefix(placement) if placement else arm


def looks_of_arms(arms: list[str]) -> list[Look]:
    """How each arm is drawn: in its placement's colour, in others where it names none."""
    placements = [placement_of(arm) for arm in arms]
    taken = {look_of(placement).light for placement in placements if placement}
    others = iter(look for look in CATEGORIES if look.light not in taken)
    return [
        look_of(placement).varied(placements[:index].count(placement))
        if placement
        else next(others)
        for index, placement in enumerate(placements)
    ]


def last_means(points: Frame, arms: list[str]) -> Iterator[tuple[str, float]]:
    """Each arm's mean at its greatest x."""
    for arm in arms:
        of_arm = points[points["arm"] == arm]
        last = of_arm if of_arm["x"].isna().all() else of_arm[of_arm["x"] == of_arm["x"].max()]
        yield arm, float(last["value"].mean())


def draw_dots(axis: Axes, points: Frame, arms: list[str]) -> None:
    """Draw a column of dots for each arm, with a dot for each seed and a line at the mean."""
    for x, (arm, look) in enumerate(zip(arms, looks_of_arms(arms), strict=True)):
        values = points.loc[points["arm"] == arm, "value"].to_numpy()
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(x + offsets, values, look.mark, color=look.light, markersize=5, alpha=0.75)
        axis.hlines(np.nanmean(values), x - 0.25, x + 0.25, color=INK, linewidth=1.4)
    width = max(10, 84 // len(arms))
    axis.set_xticks(range(len(arms)), [tick_text(in_words(arm), width) for arm in arms])
    axis.set_xlim(-0.6, len(arms) - 0.4)


def draw_lines(axis: Axes, points: Frame, arms: list[str]) -> list[Any]:
    """Draw a line for each arm; gives the legend's keys, on two log scales with the slopes."""
    xs = np.array(sorted(points["x"].dropna().unique()))
    log_x, log_y = (points[name].iloc[0] == "True" for name in ("log_x", "log_y"))
    if log_x:
        axis.set_xscale("log")
        if len(xs) <= FEW_TICKS:
            axis.set_xticks(xs, [f"{x:g}" for x in xs])
            axis.xaxis.set_minor_formatter(NullFormatter())
        elif xs[-1] < 100 * xs[0]:
            label_short_log_scale(axis.xaxis)
    elif (xs == xs.round()).all():
        whole_numbers(axis)
    keys = []
    for arm, look in zip(arms, looks_of_arms(arms), strict=True):
        line = Line(arm, fold(in_words(arm), LABEL_WIDTH), look.light, look.mark, look.linestyle)
        of_arm = points[points["arm"] == arm]
        groups = of_arm.groupby("x")["value"]
        tail = TAIL if of_arm["seed"].nunique() >= MANY_SEEDS else 0.0
        band = Band(groups.mean(), groups.quantile(tail), groups.quantile(1 - tail))
        draw_band(axis, band, line)
        fit = fit_power(of_arm["x"].tolist(), of_arm["value"].tolist()) if log_x and log_y else None
        label = line.label if fit is None else f"{line.label}, slope {fit.slope:+z.2f}"
        keys.append(legend_key(replace(line, label=label)))
    return keys


def draw_guides(axis: Axes, guides: Frame) -> list[Any]:
    """Draw lines and bands that are predicted; gives the legend's keys."""
    keys: list[Any] = []
    dashes = itertools.cycle(GUIDES)
    for label, guide in guides.groupby("arm", sort=False):
        text = fold(str(label), LABEL_WIDTH)
        x, low, high = (guide[name].to_numpy() for name in ("x", "value", "upper"))
        if np.isnan(x).all():  # across a figure whose arms stand side by side
            x, low, high = (np.resize(each, 2) for each in (axis.get_xlim(), low, high))
        if not np.isnan(high).all():
            axis.fill_between(x, low, high, color=INK, alpha=0.13, linewidth=0)
            keys.append(Patch(color=INK, alpha=0.13, label=text, linewidth=0))
            continue
        style: Any = {"color": INK, "linestyle": next(dashes), "linewidth": 1.2}
        axis.plot(x, low, **style)
        keys.append(Line2D([], [], label=text, **style))
    return keys
