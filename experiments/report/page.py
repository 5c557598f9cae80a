"""The report as one self-contained HTML page."""

import base64
import hashlib
import io
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.analysis.arms import Arm, Layout
from experiments.analysis.runs import Run, differing_settings, sort_key
from experiments.analysis.tuning import describe_grids, tune
from experiments.machine.console import one_line, printable
from experiments.machine.plotting import plain_matplotlib
from experiments.report.changes import (
    FROM,
    TO,
    changes_table,
    descriptions,
    groups_of,
    has_changes,
    matched_in,
    models_table,
    not_said,
    sizes_of,
)
from experiments.report.drawing import INK, PAPER, STYLE, ReportFigure, plural, unit_note
from experiments.report.figures import Maker
from experiments.report.lettering import plain_text, warnings_of_ours
from experiments.report.style import DPI
from experiments.report.tables import (
    best_table,
    costs_table,
    results_table,
    runs_table,
)
from experiments.report.words import endings, headline

log = logging.getLogger(__name__)

DARK_INK, DARK_PAPER = "#e8eaed", "#16191d"


@dataclass(frozen=True)
class Picture:
    """A figure on the page, as two data: addresses of its SVG, for light and dark."""

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

    None where its data is missing, or, with a warning, where drawing it fails: unforeseen content
    of a file should cost one figure and not the report.
    """
    name = getattr(make, "func", make).__name__
    try:
        with plain_matplotlib(STYLE), warnings_of_ours(name):
            figure = make()
            return None if figure is None else save_picture(figure, folder, formats)
    except OSError:
        raise
    except Exception as error:
        log.warning("figure %s was not drawn: %s", name, one_line(error))
        return None


def save_picture(drawn: ReportFigure, folder: Path, formats: Sequence[str]) -> Picture:
    """Write a figure in each format; returns it for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = drawn.figure
    figure.set_dpi(DPI)
    plain_text(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout takes long: compute it once for all formats
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    light = buffer.getvalue()
    dark = light.replace(INK.encode(), DARK_INK.encode())
    dark = dark.replace(PAPER.encode(), DARK_PAPER.encode())
    files = []
    for kind in formats:
        path = folder / f"{drawn.name}.{kind}"
        if kind == "svg":
            path.write_bytes(light)
        else:
            metadata = {"CreationDate": None} if kind == "pdf" else None
            figure.savefig(path, dpi=DPI, facecolor="white", metadata=metadata)
        files.append(f"{folder.name}/{path.name}")
    return Picture(
        name=drawn.name,
        title=drawn.title,
        caption=drawn.caption,
        alt=drawn.alt,
        light=data_address(light),
        dark=data_address(dark),
        width=round(figure.get_figwidth() * 96),  # CSS pixels per inch
        files=files,
    )


def data_address(svg: bytes) -> str:
    """An SVG as a data: address."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def count_distinct(values: Iterable[object]) -> str:
    """The distinct values; where there are several, each with the number of its runs."""
    counts = Counter("not recorded" if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names and values of device, corpus and versions, with counts where runs differ."""
    rows = [
        ("device", count_distinct(run.summary.device for run in runs)),
        ("corpus", count_distinct(run.summary.corpus.name for run in runs)),
        ("corpus sha256", count_distinct(run.summary.corpus.sha256 for run in runs)),
    ]
    versions = [run.summary.versions or {} for run in runs]
    names = dict.fromkeys(name for of_run in versions for name in of_run)
    rows += [(name, count_distinct(of_run.get(name) for of_run in versions)) for name in names]
    return rows


def differences(runs: Sequence[Run], factors: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Settings that differ between runs: name, values, and whether it separates arms."""
    seeds = sorted({run.seed for run in runs}, key=sort_key)
    rows = [("seed", ", ".join("none" if seed is None else str(seed) for seed in seeds), False)]
    for name in differing_settings(runs):
        values = sorted({run.setting(name) for run in runs}, key=sort_key)
        texts = ["null" if value is None else str(value) for value in values]
        rows.append((name, ", ".join(texts), name in factors))
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
    """The page. The template engine escapes everything that comes from a run."""
    tuned = tune(layout)
    columns, rows = runs_table(runs, layout.factors, out)
    return render_template(
        "page.html.jinja",
        title=" and ".join(folder.resolve().name for folder in folders[:3]),
        more_folders=max(0, len(folders) - 3),
        headline=headline(layout, arms),
        endings=endings(arms),
        unfinished=plural(sum(run.status in ("running", "interrupted") for run in runs), "run"),
        has_unfinished=any(run.status in ("running", "interrupted") for run in runs),
        best=best_table(tuned) if tuned else None,
        tokens_note=unit_note(layout.unit),
        grids=describe_grids(tuned) if tuned else "",
        way=way_of(layout, arms) if has_changes(layout) else None,
        results=results_table(arms),
        costs=costs_table(arms),
        pictures=pictures,
        columns=columns,
        rows=rows,
        provenance=provenance(runs),
        differences=differences(runs, layout.factors),
        warnings=warnings,
    )


def way_of(layout: Layout, arms: Sequence[Arm]) -> dict[str, object]:
    """What the template shows of runs that go from one architecture to another."""
    return {
        "ends": (FROM[0], TO[0]),
        "models": models_table(),
        "table": changes_table(layout, arms),
        "matched": matched_in(groups_of(layout, arms)),
        "descriptions": descriptions(layout),
        "loss": layout.unit.axis,
        "sizes_of": sizes_of(layout, arms),
        "not_said": not_said(layout, arms),
    }


def render_template(template: str, own: str = "", **values: object) -> str:
    """A page: the template with its values, and with the style and the script of all pages.

    own  name of a style and a script that follow those
    """
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("style.css", "page.js", *([f"{own}.css", f"{own}.js"] if own else []))
    read = {name: read_part(environment, name) for name in names}
    style, script = ("".join(read[n] for n in names if n.endswith(end)) for end in ("css", "js"))
    return environment.get_template(template).render(
        **values,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(style),
        script=Markup(script),
        style_hash=content_hash(style),
        script_hash=content_hash(script),
    )


def read_part(environment: Environment, name: str) -> str:
    """A file of the template folder, unchanged."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def content_hash(text: str) -> str:
    """The hash by which a content security policy allows this inline text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
