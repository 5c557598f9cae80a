"""The report as one self-contained HTML page."""

import base64
import hashlib
import io
import logging
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.console import one_line, printable
from experiments.plots import DPI
from experiments.report.arms import Arm, Layout, word_of
from experiments.report.figures import INK, PAPER, STYLE, Drawn, Maker, plural
from experiments.report.numbers import middle
from experiments.report.words import endings, headline
from experiments.runs import Run, Value, differing, in_order

log = logging.getLogger(__name__)

DARK_INK, DARK_PAPER = "#e8eaed", "#16191d"
MB = 2**20


@dataclass(frozen=True)
class Picture:
    """A figure as the page holds it: two data addresses, for light and dark."""

    name: str
    title: str
    caption: str
    alt: str
    light: str
    dark: str
    width: int
    files: list[str]


def draw_picture(make: Maker, folder: Path, formats: Sequence[str]) -> Picture | None:
    """Draw a figure and write it in each format; returns it for the page.

    None where its numbers are missing. What nobody foresaw in a file costs the figure and a
    warning, not the report.
    """
    try:
        with mpl.rc_context(STYLE):
            drawn = make()
            return None if drawn is None else save_picture(drawn, folder, formats)
    except OSError:
        raise
    except Exception as error:
        name = getattr(make, "func", make).__name__
        log.warning("figure %s is not drawn: %s", name, one_line(error))
        return None


def save_picture(drawn: Drawn, folder: Path, formats: Sequence[str]) -> Picture:
    """Write a figure in each format, under the report's style; returns it for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn.figure.set_dpi(DPI)
    drawn.figure.draw_without_rendering()
    drawn.figure.set_layout_engine("none")  # laid out once, for all formats
    buffer = io.BytesIO()
    drawn.figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    light = buffer.getvalue()
    files = []
    for kind in formats:
        path = folder / f"{drawn.name}.{kind}"
        if kind == "svg":
            path.write_bytes(light)
        else:
            metadata = {"CreationDate": None} if kind == "pdf" else None
            drawn.figure.savefig(path, dpi=DPI, facecolor="white", metadata=metadata)
        files.append(f"{folder.name}/{path.name}")
    dark = light.replace(INK.encode(), DARK_INK.encode()).replace(
        PAPER.encode(), DARK_PAPER.encode()
    )
    width = round(drawn.figure.get_figwidth() * 96)
    return Picture(
        drawn.name,
        drawn.title,
        drawn.caption,
        drawn.alt,
        data_address(light),
        data_address(dark),
        width,
        files,
    )


def data_address(svg: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is shown, and what it is sorted by."""

    shown: str
    order: str


def number_cell(value: float | None, form: str = ",.4g") -> Cell:
    """A number; empty where it was not measured."""
    if value is None or math.isnan(value):
        return Cell("", "")
    return Cell(format(value, form), repr(float(value)))


def spread_cell(values: Sequence[float]) -> Cell:
    """Median, and the range over seeds."""
    median = middle(values)
    if math.isnan(median):
        return Cell("", "")
    words = f"{median:.3f}"
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) > 1 and min(finite) < max(finite):
        words += f" ({min(finite):.3f} to {max(finite):.3f})"
    return Cell(words, repr(median))


def text_cell(value: Value) -> Cell:
    """A setting's value."""
    shown = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown, repr(float(value)) if number else shown)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Table:
    """Column names and rows of cells; the first column heads its row."""

    columns: list[str]
    rows: list[list[Cell]]


def results_table(arms: Sequence[Arm]) -> Table:
    """How each arm ended."""
    columns = [
        "arm",
        "runs",
        "finished",
        "diverged",
        "failed",
        "stuck",
        "validation loss (nats)",
        "training loss (nats)",
        "last block at init",
        "last block at end",
        "last / first at end",
    ]
    rows = []
    for arm in arms:
        train = [h.run.number("train_loss") for h in arm.histories if h.run.status == "finished"]
        counts = [
            len(arm.histories),
            arm.count("finished"),
            arm.count("diverged"),
            arm.count("failed"),
            arm.stuck,
        ]
        rows.append(
            [
                Cell(arm.label, arm.label),
                *(number_cell(count, "d") for count in counts),
                spread_cell(arm.final_losses()),
                spread_cell([loss for loss in train if loss is not None]),
                number_cell(arm.median("grad_norm", "first_step", "last_block")),
                number_cell(arm.median("grad_norm", "last_step", "last_block")),
                number_cell(middle(final_ratios(arm))),
            ]
        )
    return without_empty(Table(columns, rows))


def final_ratios(arm: Arm) -> list[float]:
    """Last block's gradient norm over the first's, at the last logged step of each run."""
    ends = [
        [h.run.number("grad_norm", "last_step", f"{end}_block") for end in ("last", "first")]
        for h in arm.histories
    ]
    return [last / first for last, first in ends if last is not None and first]


def costs_table(arms: Sequence[Arm]) -> Table:
    """What each arm costs: medians over its runs."""
    columns = [
        "arm",
        "parameters",
        "peak memory predicted (MB)",
        "peak memory measured (MB)",
        "peak of the process (MB)",
        "tokens per second",
        "training (s)",
        "whole run (s)",
    ]
    rows = []
    for arm in arms:
        rows.append(
            [
                Cell(arm.label, arm.label),
                number_cell(arm.median("parameters"), ",.0f"),
                number_cell(peak_memory(arm, "predicted_bytes"), ",.1f"),
                number_cell(peak_memory(arm, "measured_bytes"), ",.1f"),
                number_cell(arm.median("peak_memory_mb"), ",.1f"),
                number_cell(arm.median("tokens_per_s"), ",.0f"),
                number_cell(arm.median("training_seconds"), ",.1f"),
                number_cell(arm.median("seconds"), ",.1f"),
            ]
        )
    return without_empty(Table(columns, rows))


def peak_memory(arm: Arm, column: str) -> float:
    """Median over runs of the peak in memory.csv, in MB; nan where it was not measured."""
    peaks = []
    for history in arm.histories:
        if "peak" in history.memory.index and column in history.memory:
            peaks += history.memory.loc[["peak"], column].dropna().tolist()
    return middle(peaks) / MB


def without_empty(table: Table) -> Table:
    """Without columns in which nothing was measured."""
    kept = [
        index
        for index in range(len(table.columns))
        if index == 0 or any(row[index].shown for row in table.rows)
    ]
    columns = [table.columns[index] for index in kept]
    return Table(columns, [[row[index] for index in kept] for row in table.rows])


@dataclass(frozen=True)
class RunRow:
    """A run in the table of runs."""

    name: str
    address: str
    cells: list[Cell]
    status: str
    reason: str
    command: str


def runs_table(
    runs: Sequence[Run], factors: Sequence[str], out: Path
) -> tuple[list[str], list[RunRow]]:
    """Column names after the run's name, and a row for each run."""
    columns = [
        *map(word_of, factors),
        "seed",
        "status",
        "validation loss",
        "training loss",
        "last block at init",
        "last block at end",
        "seconds",
    ]
    rows = []
    for run in sorted(runs, key=lambda r: [in_order(r.setting(n)) for n in [*factors, "seed"]]):
        status = "finished, stuck" if run.is_stuck else run.status
        cells = [
            *(text_cell(run.setting(name)) for name in factors),
            text_cell(run.seed),
            Cell(status, status),
            Cell("infinite", "inf")
            if run.status == "diverged"
            else number_cell(run.number("val_loss"), ".3f"),
            number_cell(run.number("train_loss"), ".3f"),
            number_cell(run.number("grad_norm", "first_step", "last_block")),
            number_cell(run.number("grad_norm", "last_step", "last_block")),
            number_cell(run.number("seconds"), ",.1f"),
        ]
        address = quote(os.path.relpath(run.directory, out).replace(os.sep, "/")) + "/"
        name = run.directory.name
        rows.append(RunRow(name, address, cells, status, run.reason, command(run)))
    return columns, rows


def command(run: Run) -> str:
    """What runs it again; empty where that was not recorded."""
    overrides = run.summary.get("overrides")
    if not isinstance(overrides, list):
        return ""
    kept = [str(item) for item in overrides if not str(item).startswith("sweep.")]
    threads = part(run, "versions", "threads")
    if threads and not any(item.startswith("threads=") for item in kept):
        kept.append(f"threads={threads}")  # without which the last bits may differ
    return shlex.join(["python", "run.py", *kept])


def counted(values: Iterable[object]) -> str:
    """Distinct values, each with its number where there are several."""
    counts = Counter("not recorded" if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Versions, device and corpus: name and value, with counts where runs disagree."""
    rows = [
        ("device", counted(run.summary.get("device") for run in runs)),
        ("corpus", counted(part(run, "corpus", "name") for run in runs)),
        ("corpus sha256", counted(part(run, "corpus", "sha256") for run in runs)),
    ]
    names = dict.fromkeys(
        name for run in runs for name in run.summary.get("versions") or {} if isinstance(name, str)
    )
    rows += [(name, counted(part(run, "versions", name) for run in runs)) for name in names]
    return rows


def part(run: Run, section: str, name: str) -> Any:
    """A value of a section of the summary; None where it is absent."""
    values = run.summary.get(section)
    return values.get(name) if isinstance(values, dict) else None


def differences(runs: Sequence[Run], factors: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Settings that differ between runs: name, values, and whether it tells arms apart."""
    seeds = sorted({run.seed for run in runs}, key=in_order)
    rows = [("seed", ", ".join("none" if seed is None else str(seed) for seed in seeds), False)]
    for name in differing(runs):
        values = sorted({run.setting(name) for run in runs}, key=in_order)
        shown = ["not recorded" if value is None else str(value) for value in values]
        rows.append((name, ", ".join(shown), name in factors))
    return rows


def render(
    folders: Sequence[Path],
    out: Path,
    runs: Sequence[Run],
    arms: Sequence[Arm],
    layout: Layout,
    pictures: Sequence[Picture],
    warnings: Sequence[str],
) -> str:
    """The page. Everything that comes from a run is escaped by the template engine."""
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns, rows = runs_table(runs, layout.factors, out)
    parts = {name: read_part(environment, name) for name in ("style.css", "page.js")}
    return environment.get_template("page.html.jinja").render(
        title=" and ".join(folder.resolve().name for folder in folders[:3]),
        more_folders=max(0, len(folders) - 3),
        headline=headline(layout, arms),
        endings=endings(arms),
        unfinished=plural(sum(run.status in ("running", "interrupted") for run in runs), "run"),
        has_unfinished=any(run.status in ("running", "interrupted") for run in runs),
        results=results_table(arms),
        costs=costs_table(arms),
        pictures=pictures,
        columns=columns,
        rows=rows,
        provenance=provenance(runs),
        differences=differences(runs, layout.factors),
        warnings=warnings,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(parts["style.css"]),
        script=Markup(parts["page.js"]),
        style_hash=content_hash(parts["style.css"]),
        script_hash=content_hash(parts["page.js"]),
    )


def read_part(environment: Environment, name: str) -> str:
    """A file beside the template, as it stands."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def content_hash(text: str) -> str:
    """What a content security policy calls this inline text by."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
