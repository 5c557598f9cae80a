"""Charts on a page: their data for templates/charts.js, which draws them with Vega."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import vl_convert
from markupsafe import Markup

from experiments.report.chart import (
    Axis,
    Cells,
    Chart,
    Panel,
    Series,
    arrows,
    corner_of,
    edges,
    names,
    references,
)

DIGITS = 5  # of a number on a page; more could not be seen


@cache
def library() -> Markup:
    """Vega's script, which runs without `eval`; ready for an inline script."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(script.replace("</script", "<\\/script"))


def embedded(charts: Sequence[Chart]) -> Markup:
    """The data of a page's charts as JSON for an inline script, whatever words are in it."""
    text = json.dumps(
        {chart.name: described(chart) for chart in charts}, allow_nan=False, separators=(",", ":")
    )
    for letter in "<>&":  # all else that could end a script is escaped by json
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def described(chart: Chart) -> dict[str, Any]:
    """A chart in the terms of charts.js. Numbers have DIGITS digits; null: not finite."""
    return {
        "shape": chart.shape,
        "widths": list(chart.widths),
        "frames": chart.frames,
        "frame": chart.at,
        "colours": chart.colours and asdict(chart.colours),
        "panels": [panel_of(chart, panel) for panel in chart.panels],
    }


def panel_of(chart: Chart, panel: Panel) -> dict[str, Any]:
    """A panel with its axes, its series, and what is at its edges."""
    x, y = chart.axes(panel)
    return {
        "title": chart.title_of(panel),
        "row": panel.row,
        "column": panel.column,
        "x": axis_of(x),
        "y": axis_of(y),
        "series": [series_of(series) for series in panel.series],
        "cells": panel.cells and cells_of(panel.cells),
        "references": [
            asdict(reference) | asdict(corner_of(reference, panel, x, y))
            for reference in references(panel, y)
        ],
        "regions": [asdict(region) for region in panel.regions],
        "arrows": [asdict(arrow) for arrow in arrows(panel, x, y)],
        "names": [asdict(name) for name in names(panel, y)],
        "follows": chart.follows(panel),
    }


def axis_of(axis: Axis) -> dict[str, Any]:
    """An axis; its ticks as two lists."""
    return {
        "label": axis.label,
        "scale": axis.scale,
        "limits": axis.limits,
        "whole": axis.whole,
        "ticks": [place for place, _ in axis.ticks],
        "words": [words for _, words in axis.ticks],
    }


def series_of(series: Series) -> dict[str, Any]:
    """A series, with its columns of numbers."""
    return {
        "label": series.label,
        "name": series.name,
        "light": series.look.light,
        "dark": series.look.dark,
        "dash": series.look.dash,
        "mark": series.look.mark,
        "kind": series.kind,
        "keys": series.keys or (series.label,),
        "frame": series.frame,
        "runs": series.runs,
        "width": series.width,
        "x": numbers(series.x),
        "y": numbers(series.y),
        "low": numbers(series.low),
        "high": numbers(series.high),
    }


def cells_of(cells: Cells) -> dict[str, Any]:
    """A heat map: the edges of its columns and rows, and its rows of values."""
    return {
        "x": numbers(cells.x),
        "y": numbers(cells.y),
        "x_edges": numbers(edges(cells.x)),
        "y_edges": numbers(edges(cells.y)),
        "values": [numbers(row) for row in cells.values],
        "texts": cells.texts,
        "keys": cells.keys,
        "x_keys": list(cells.x_keys) or [()] * len(cells.x),
        "y_keys": list(cells.y_keys) or [()] * len(cells.y),
    }


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers with DIGITS digits; None for what JSON has no number for."""
    return [shortened(float(value)) if math.isfinite(value) else None for value in values]


def shortened(value: float) -> float:
    """A number with DIGITS digits, as an integer where it is one: 120 is shorter than 120.0."""
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
