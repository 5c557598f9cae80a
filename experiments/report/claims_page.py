"""The page about claims. It needs only claims.csv, measurements.csv and summary.json."""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.analysis.histories import read_csv
from experiments.analysis.numbers import Band, fit_power
from experiments.analysis.runs import Run
from experiments.machine.files import hide_home, write_atomically
from experiments.report.drawing import (
    INK,
    ONE_PANEL,
    ReportFigure,
    draw_band,
    legend_key,
    lines_for,
)
from experiments.report.page import Picture, draw_picture, provenance, render_template
from experiments.report.style import COLOURS, log_if_wide, panels

FORMATS = ("png", "svg")
MANY_SEEDS, TAIL = 20, 0.05  # with so many seeds a band leaves out this share at each end
GEOMETRIC = 1.4  # least ratio of neighbours on an axis that is drawn on a log scale

Frame = pd.DataFrame


def write_claims_page(directory: Path) -> Path:
    """Draw a figure for each claim and write claims.html and claims.md; returns the page's path."""
    rows = read_csv(directory / "claims.csv")
    points = read_csv(directory / "measurements.csv")
    claims = [group for _, group in rows.groupby("claim", sort=False)]
    pictures: dict[str, Picture] = {}
    for group in claims:
        first = group.iloc[0]
        measured = points if points.empty else points[points["claim"] == first["claim"]]
        picture = draw_picture(partial(figure_of, first, measured), directory / "figures", FORMATS)
        if picture is not None:
            pictures[first["claim"]] = picture
    run = Run.read(directory)
    page = render_template(
        "claims.html.jinja",
        budget=run.summary.budget or "",
        claims=[
            claim_context(group, pictures.get(str(group.iloc[0]["claim"]))) for group in claims
        ],
        counts=count_verdicts(rows),
        provenance=provenance([run]),
    )
    path = directory / "claims.html"
    write_atomically(path, hide_home(page).encode())
    write_atomically(directory / "claims.md", scoreboard(claims).encode())
    return path


def count_verdicts(rows: Frame) -> str:
    """How many claims have each verdict."""
    verdicts = rows.drop_duplicates("claim")["claim_verdict"].value_counts()
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def claim_context(group: Frame, picture: Picture | None) -> dict[str, object]:
    """The values of a claim that the template shows."""
    first = {str(k): v for k, v in group.iloc[0].items()}
    numbers = [
        {
            "number": row["number"],
            "prediction": "" if is_absent(row["prediction"]) else row["prediction"],
            "measured": format_measured(row),
            "seeds": row["seeds"],
            "verdict": "no prediction" if is_absent(row["verdict"]) else row["verdict"],
        }
        for _, row in group.iterrows()
    ]
    texts = {name: "" if is_absent(value) else value for name, value in first.items()}
    return {**texts, "numbers": numbers, "picture": picture, "sources": sources(first)}


def sources(row: dict[str, object]) -> list[tuple[str, str]]:
    """arXiv numbers with their addresses."""
    cell = row["arxiv"]
    numbers = [] if is_absent(cell) else str(cell).removeprefix("arXiv ").split("; ")
    return [(number, f"https://arxiv.org/abs/{number}") for number in numbers]


def is_absent(value: object) -> bool:
    """Whether a cell is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def format_measured(row: "pd.Series[float]") -> str:
    """The mean with its confidence interval, rounded to a tenth of half the interval."""
    mean, low, high = (float(row[name]) for name in ("measured", "ci_low", "ci_high"))
    if math.isnan(mean):
        return "not measured"
    if math.isnan(low) or low == high:
        return f"{mean:.3g}"
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    return f"{mean:.{places}f} ({low:.{places}f} to {high:.{places}f})"


def scoreboard(claims: list[Frame]) -> str:
    """A Markdown table with a row per claim, and in it the numbers that were predicted."""
    lines = ["| claim | source | measured (95 % interval); predicted | seeds | verdict |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for group in claims:
        predicted = group[group["verdict"].notna()]
        first = predicted.iloc[0]
        numbers = [
            f"{row['number']} {format_measured(row)}; {row['prediction']}"
            for _, row in predicted.iterrows()
        ]
        source = ", ".join(str(first[n]) for n in ("paper", "where") if not is_absent(first[n]))
        cells = [f"`{first['claim']}`", source, "<br>".join(numbers)]
        cells += [str(first["seeds"]), str(first["claim_verdict"])]
        lines.append(f"| {' | '.join(escaped(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def escaped(cell: str) -> str:
    """`cell` for a Markdown table, where a bar would end the cell."""
    return cell.replace("|", r"\|")


def figure_of(row: "pd.Series[str]", points: Frame) -> ReportFigure | None:
    """A claim's points: medians and ranges over seeds against x, or each seed by arm."""
    if points.empty:
        return None
    figure, (axis,) = panels(1, 1, ONE_PANEL)
    lines = points[points["seed"].isna()]
    points = points[points["seed"].notna()]
    arms = list(dict.fromkeys(points["arm"]))
    axis.set_ylabel(textwrap.fill(str(points["y_name"].iloc[0]), 40))
    if points["x"].isna().all():
        draw_dots(axis, points, arms)
    else:
        draw_lines(figure, axis, points, arms)
    for _, line in lines.iterrows():
        axis.axhline(line["value"], color=INK, linestyle=":", linewidth=1)
        axis.annotate(
            line["arm"],
            (1, line["value"]),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    seeds = points["seed"].nunique()
    spread = "central 90 %" if seeds >= MANY_SEEDS else "range"
    caption = f"Setting: {row['setting']}. Each of {seeds} seeds, or their median and {spread}."
    medians = "; ".join(f"{arm} {value:.3g}" for arm, value in last_medians(points, arms))
    alt = f"{row['title']}. {points['y_name'].iloc[0]}, median at the right end: {medians}."
    return ReportFigure(str(row["claim"]), str(row["title"]), caption, alt, figure)


def last_medians(points: Frame, arms: list[str]) -> Iterator[tuple[str, float]]:
    """Each arm's median at its greatest x."""
    for arm in arms:
        of_arm = points[points["arm"] == arm]
        last = of_arm if of_arm["x"].isna().all() else of_arm[of_arm["x"] == of_arm["x"].max()]
        yield arm, float(last["value"].median())


def draw_dots(axis: Axes, points: Frame, arms: list[str]) -> None:
    """Draw a column of dots for each arm, with a dot for each seed and a line at the median."""
    for x, arm in enumerate(arms):
        values = points.loc[points["arm"] == arm, "value"].to_numpy()
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(x + offsets, values, "o", color=COLOURS[0], markersize=5, alpha=0.75)
        axis.hlines(np.median(values), x - 0.25, x + 0.25, color=INK, linewidth=1.4)
    axis.set_xticks(
        range(len(arms)),
        [textwrap.fill(arm, 14, break_on_hyphens=False).replace("$", r"\$") for arm in arms],
    )
    axis.set_xlim(-0.6, len(arms) - 0.4)


def draw_lines(figure: Figure, axis: Axes, points: Frame, arms: list[str]) -> None:
    """Draw a line for each arm. On two log scales the legend has the exponent of a power law."""
    xs = np.array(sorted(points["x"].dropna().unique()))
    geometric = len(xs) > 1 and xs[0] > 0 and (xs[1:] / xs[:-1]).min() >= GEOMETRIC
    axis.set_xlabel(str(points["x_name"].iloc[0]))
    lines = lines_for(arms, arms)
    for line in lines:
        of_arm = points[points["arm"] == line.level]
        groups = of_arm.groupby("x")["value"]
        tail = TAIL if len(of_arm["seed"].unique()) >= MANY_SEEDS else 0.0
        draw_band(
            axis, Band(groups.median(), groups.quantile(tail), groups.quantile(1 - tail)), line
        )
    log_if_wide(axis)
    log_y = axis.get_yscale() == "log"
    keys = []
    for line in lines:
        of_arm = points[points["arm"] == line.level]
        fit = None
        if geometric and log_y:
            fit = fit_power(of_arm["x"].tolist(), of_arm["value"].tolist())
        label = line.label if fit is None else f"{line.label} ({fit.slope:+.2f})"
        keys.append(legend_key(replace(line, label=label)))
    if geometric:
        axis.set_xscale("log")
        axis.set_xticks(xs, [f"{x:g}" for x in xs])
        axis.xaxis.set_minor_locator(NullLocator())
    figure.legend(
        handles=keys,
        loc="outside upper left",
        ncols=1 if max(map(len, arms)) > 24 else 2,
        title="slope in log-log in brackets" if geometric and log_y else None,
        title_fontsize=8,
        fontsize=8,
        frameon=False,
    )
