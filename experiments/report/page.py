"""The report as one self-contained HTML page."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.analysis.arms import RATE, Arm, Layout
from experiments.analysis.findings import held_equal, next_command, title_of, verdict_of
from experiments.analysis.next_steps import shown_by
from experiments.analysis.runs import PLACEMENT, UNFINISHED, Run, differing_settings, sort_key
from experiments.analysis.tuning import TunedArm, describe_grids, tune
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
from experiments.report.chart import Chart
from experiments.report.drawing import DIVERGED, plural, unit_note
from experiments.report.facets import facets_of, legend_of
from experiments.report.failure import failure_of
from experiments.report.interactive import embedded, library
from experiments.report.palette import Look
from experiments.report.paper_pictures import legends_of_papers
from experiments.report.picture import Shown
from experiments.report.sizes import are_sizes, legend_of_sizes, sizes_table
from experiments.report.tables import (
    arm_words,
    best_table,
    costs_table,
    results_table,
    runs_table,
)
from experiments.report.words import endings
from normscope.stats import drawn


def count_distinct(values: Iterable[object]) -> str:
    """The distinct values; where there are several, each with the number of its runs."""
    counts = Counter("not recorded" if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def provenance(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Names and values of device, corpus and versions, with counts where runs differ.

    Without what no run recorded, such as the text of models that were only counted.
    """
    versions = [run.summary.versions or {} for run in runs]
    names = dict.fromkeys(name for of_run in versions for name in of_run)
    values: dict[str, list[object]] = {
        "device": [run.summary.device for run in runs],
        "corpus": [run.summary.corpus.name for run in runs],
        **{name: [of_run.get(name) for of_run in versions] for name in names},
        "corpus sha256": [run.summary.corpus.sha256 for run in runs],
    }
    return [(name, count_distinct(each)) for name, each in values.items() if any(each)]


def differences(runs: Sequence[Run], factors: Sequence[str]) -> list[tuple[str, str, str]]:
    """Settings that differ between runs: name, values, and whether it separates arms."""
    seeds = sorted({run.seed for run in runs}, key=sort_key)
    texts = ["none" if seed is None else str(seed) for seed in seeds]
    rows = [("seed", ", ".join(texts), "no")] if len(texts) > 1 else []
    for name in differing_settings(runs):
        values = sorted({run.setting(name) for run in runs}, key=sort_key)
        texts = ["null" if value is None else str(value) for value in values]
        rows.append((name, ", ".join(texts), "yes" if name in factors else "no"))
    return rows


@dataclass(frozen=True)
class Topic:
    """Figures that are folded together: their heading, what it says beside it, and they."""

    name: str
    title: str
    summary: str
    shown: list[Shown]


LEADS = ("lr_warmup_maps", "ranking", "answer", "changes")  # figures that are not folded away
RATES = ("lr_warmup_maps", "lr_sensitivity")
TOPICS = {  # by name: the title, and what is in it
    "training": ("Training, step by step", "losses and gradients"),
    "rates": ("Learning rates and warm-up", "where each arm learns"),
    "probes": ("What the probes saw", "activations, attention, updates"),
}


def topics_of(shown: Sequence[Shown]) -> list[Topic]:
    """The figures by topic, in the order of the page."""
    probed = {statistic.name for statistic in drawn()}
    groups: dict[str, list[Shown]] = {name: [] for name in TOPICS}
    for item in shown:
        is_rates, is_probed = item.name in RATES, item.name in probed
        groups["rates" if is_rates else "probes" if is_probed else "training"].append(item)
    return [Topic(name, *TOPICS[name], of_topic) for name, of_topic in groups.items() if of_topic]


def render(
    out: Path,
    runs: Sequence[Run],
    arms: Sequence[Arm],
    layout: Layout,
    shown: Sequence[Shown],
    warnings: Sequence[str],
) -> str:
    """The page. The template engine escapes everything that comes from a run."""
    tuned, sizes = tuned_in_words(layout), are_sizes(arms)
    named, looks = in_words(layout, arms)
    if sizes:
        looks = []  # models are named where they are drawn
    results = sizes_table(named) if sizes else results_table(named, looks)
    charts = [item.chart for item in shown]
    legend = legend_of_sizes(charts) if sizes else legend_of(layout) + legends_of_papers(charts)
    runs_of_arms, rows = runs_table(named, looks, layout.factors, out)
    leads = [item for item in shown if item.name in LEADS] or shown[:1]
    unfinished = sum(run.status in UNFINISHED for run in runs)
    next_one = next_command(layout, arms)
    return render_template(
        "page.html.jinja",
        charts,
        legend=legend,
        title=title_of(layout, arms),
        verdict=verdict_of(layout, arms),
        held_equal="" if sizes else held_equal(layout, arms),
        next_command=next_one,
        next_shows=shown_by(next_one),
        endings=endings(named),
        unfinished=plural(unfinished, "run") if unfinished else "",
        leads=leads,
        topics=topics_of([item for item in shown if item not in leads]),
        failure=failure_of(layout),
        drawn={item.name for item in shown},
        best=best_table(*tuned) if tuned else None,
        tuned_noun="placement" if {*layout.factors} == {PLACEMENT, RATE} else "arm",
        diverged=DIVERGED if any(arm.count("diverged") for arm in arms) else "",
        tokens_note=unit_note(layout.unit),
        grids=describe_grids(tuned[0]) if tuned else "",
        way=way_of(layout, arms) if has_changes(layout) else None,
        are_sizes=sizes,
        has_losses=any(arm.final_losses() for arm in arms),
        results=results,
        costs=costs_table(named, looks),
        runs=runs_of_arms,
        run_rows=rows,
        plots=plots_of(runs, out),
        provenance=provenance(runs),
        differences=differences(runs, layout.factors),
        warnings=warnings,
    )


def plots_of(runs: Sequence[Run], out: Path) -> list[str]:
    """The pictures of the run whose page this is, relative to the page; of several runs none."""
    return [f"plots/{path.name}" for path in sorted((out / "plots").glob("*.png"))] * (
        len(runs) == 1
    )


def in_words(layout: Layout, arms: Sequence[Arm]) -> tuple[list[Arm], list[Look]]:
    """The arms as a person reads them: labels of words, and how each is drawn."""
    named = [replace(arm, label=arm_words(arm, layout.factors)) for arm in arms]
    return named, looks_of_arms(layout, arms)


def tuned_in_words(layout: Layout) -> tuple[list[TunedArm], list[Look]] | None:
    """The same of the arms over all learning rates; None where these do not vary."""
    tuned = tune(layout)
    if not tuned:
        return None
    arms = [each.all_runs() for each in tuned]
    named, looks = in_words(Layout(arms, [name for name in layout.factors if name != RATE]), arms)
    return [replace(each, label=arm.label) for each, arm in zip(tuned, named, strict=True)], looks


def looks_of_arms(layout: Layout, arms: Sequence[Arm]) -> list[Look]:
    """How each arm is drawn, in tables as in figures."""
    looks = {facet.arm.key: facet.look for facet in facets_of(layout)}
    return [looks[arm.key] for arm in arms]


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


def render_template(
    template: str, charts: Sequence[Chart] = (), own: str = "", **values: object
) -> str:
    """A page: the template with its values, and with the style and the script of all pages.

    With charts also their data, the library that draws them, and the script that asks it to.

    own  name of a style and a script that follow those of all pages
    """
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    of_own = [f"{own}.css", f"{own}.js"] if own else []
    styles = ("style.css", "charts.css", *of_own[:1])
    style = "".join(read_part(environment, name) for name in styles)
    scripts = [read_part(environment, name) for name in ("page.js", *of_own[1:])]
    if charts:
        scripts += [library(), read_part(environment, "charts.js")]
    return environment.get_template(template).render(
        **values,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        style=Markup(style),
        charts_data=embedded(charts) if charts else None,
        scripts=list(map(Markup, scripts)),
        style_hash=content_hash(style),
        script_hashes=" ".join(map(content_hash, scripts)),
    )


def read_part(environment: Environment, name: str) -> str:
    """A file of the template folder, unchanged."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def content_hash(text: str) -> str:
    """The hash by which a content security policy allows this inline text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
