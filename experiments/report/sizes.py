"""What a page shows of models that were counted, and not trained: `experiment=parameters`."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments.analysis.arms import Arm
from experiments.analysis.histories import read_checked_csv
from experiments.analysis.words import times_text
from experiments.report.chart import Axis, Chart, Panel, Series
from experiments.report.palette import GREY, Look, categories
from experiments.report.tables import MIB, Cell, Table, compact, number_cell

RUNNER, FLOAT32_BYTES = "parameters", 4
MODELS = "all parameters"
OF_MODELS = Look(*GREY)  # a model is named below its bar: the colours are those of the parts


def are_sizes(arms: Sequence[Arm]) -> bool:
    """Whether all runs counted parameters alone."""
    return all(h.run.summary.runner == RUNNER for arm in arms for h in arm.histories)


def by_size(arms: Sequence[Arm]) -> list[Arm]:
    """The smallest model first."""
    return sorted(arms, key=parameters_of)


def parameters_of(arm: Arm) -> float:
    """How many a model has."""
    return arm.median(lambda summary: summary.parameters)


def setting_of(arm: Arm, name: str) -> Cell:
    """A number among a model's settings."""
    value = arm.histories[0].run.settings.get(name)
    return number_cell(value if isinstance(value, int | float) else None, ",.0f")


def sizes_table(arms: Sequence[Arm]) -> Table:
    """A row for each model: how deep and how wide it is, and what that comes to."""
    main = ["layers", "width", "heads", "parameters", "size in float32 (MiB)"]
    columns = ["model", *main, "active parameters", "MFLOPs per token, forward"]
    rows = [
        [
            Cell(arm.label, arm.label),
            setting_of(arm, "model.n_layers"),
            setting_of(arm, "model.emb_dim"),
            setting_of(arm, "model.n_heads"),
            number_cell(parameters_of(arm), ",.0f"),
            number_cell(parameters_of(arm) * FLOAT32_BYTES / MIB, ",.1f"),
            number_cell(arm.median(lambda s: s.active_parameters), ",.0f"),
            number_cell(arm.median(lambda s: s.flops_per_token) / 1e6, ",.0f"),
        ]
        for arm in arms
    ]
    return compact(Table(columns, rows, frozenset(main)), keep=frozenset())


def sizes_chart(arms: Sequence[Arm]) -> Chart | None:
    """The parameters of each model, and the share of each part; None without counts."""
    counts = {arm.label: counts_of(arm) for arm in arms}
    if any(parts.empty for parts in counts.values()):
        return None
    shares = pd.DataFrame(counts).fillna(0.0)  # a row for each part
    totals = shares.sum()
    shares = 100 * shares / totals
    places = [float(place) for place in range(len(arms))]
    bars = Series(MODELS, OF_MODELS, places, (totals / 1e6).tolist(), kind="bars")
    looks = [look for look in categories(len(shares) + 1) if look.light != OF_MODELS.light]
    parts = [
        Series(str(part), look, places, shares.loc[part].tolist())
        for part, look in zip(shares.index, looks, strict=False)
    ]
    ratio = times_text(totals.iloc[-1] / totals.iloc[0])
    title = f"{arms[0].label} has {totals.iloc[0]:,.0f} parameters"
    if len(arms) > 1:
        title = f"{arms[-1].label} has {ratio} as many parameters as {arms[0].label}"
    models = tuple(zip(places, counts, strict=True))
    described = "; ".join(f"{name} {total:,.0f}" for name, total in totals.items())
    return Chart(
        name="sizes",
        title=title,
        how_to_read="A line that rises: the larger the model, the larger the share of that part."
        if len(arms) > 1
        else "How much of the model each part is.",
        caption="Counted from the shapes of the weights; tied weights count once.",
        alt=f"Parameters of each model: {described}.",
        panels=[
            Panel([bars], 0, 0, "All parameters"),
            Panel(parts, 0, 1, "The share of each part", y=Axis("share (%)", limits=(-3.0, 100.0))),
        ],
        x=Axis("model", ticks=models, limits=(-0.6, len(arms) - 0.4)),
        y=Axis("parameters (millions)", limits=(0.0, 1.08 * totals.max() / 1e6)),
    )


def legend_of_sizes(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """The group of a page's legend for the parts of the models: the lines of their chart."""
    entries = [
        {"key": line.label, "label": line.label, "look": line.look}
        for chart in charts
        for line in chart.panels[1].series
    ]
    return [{"title": "Parts of a model", "entries": entries}] if entries else []


def counts_of(arm: Arm) -> "pd.Series[float]":
    """The parameters of each part of a model, over all blocks; empty where they are not known."""
    path = arm.histories[0].run.directory / "parameters.csv"
    table = read_checked_csv(path, ("layer", "component", "parameters"))
    if table.empty:
        return pd.Series(dtype=float)
    return table.groupby(table["component"].map(part_of), observed=True)["parameters"].sum()


def part_of(component: str) -> str:
    """The part of a model to which a component belongs, in words."""
    for part in ("embedding", "norm"):
        if part in component:
            return f"{part}s"
    return component.replace("_", "-")
