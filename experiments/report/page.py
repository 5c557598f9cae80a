"""The report as one self-contained HTML page."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.analysis.arms import Arm, Layout
from experiments.analysis.runs import Run, differing_settings, sort_key
from experiments.analysis.tuning import describe_grids, tune
from experiments.machine.console import printable
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
from experiments.report.drawing import plural, unit_note
from experiments.report.picture import Picture
from experiments.report.tables import (
    best_table,
    costs_table,
    results_table,
    runs_table,
)
from experiments.report.words import endings, headline


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


def render_template(template: str, **values: object) -> str:
    """A page: the template with its values, and with the style and the script of all pages."""
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {name: read_part(environment, name) for name in ("style.css", "page.js")}
    return environment.get_template(template).render(
        **values,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(parts["style.css"]),
        script=Markup(parts["page.js"]),
        style_hash=content_hash(parts["style.css"]),
        script_hash=content_hash(parts["page.js"]),
    )


def read_part(environment: Environment, name: str) -> str:
    """A file of the template folder, unchanged."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def content_hash(text: str) -> str:
    """The hash by which a content security policy allows this inline text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
