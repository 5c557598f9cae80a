"""What a page shows of models that were counted, and not trained: `experiment=parameters`."""

from collections.abc import Sequence

import pandas as pd

from experiments.analysis.arms import Arm
from experiments.analysis.findings import times_text
from experiments.analysis.histories import read_checked_csv
from experiments.report.chart import Axis, Chart, Panel, Series
from experiments.report.palette import Look, categories
from experiments.report.tables import MIB, Cell, Table, compact, number_cell

RUNNER, FLOAT32_BYTES = "parameters", 4


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


def sizes_table(arms: Sequence[Arm], looks: Sequence[Look]) -> Table:
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
    return compact(Table(columns, rows, frozenset(main), looks=tuple(looks)), keep=frozenset())


def sizes_chart(arms: Sequence[Arm], looks: Sequence[Look]) -> Chart | None:
    """The parameters of each model, and the share of each part; None without counts."""
    counts = {arm.label: counts_of(arm) for arm in arms}
    if any(parts.empty for parts in counts.values()):
        return None
    shares = pd.DataFrame(counts).fillna(0.0)  # a row for each part
    totals = shares.sum()
    shares = 100 * shares / totals
    places = [float(place) for place in range(len(arms))]
    bars = [
        Series(arm.label, look, [place], [totals[arm.label] / 1e6], kind="bars", keys=(arm.label,))
        for arm, look, place in zip(arms, looks, places, strict=True)
    ]
    parts = [
        Series(str(part), look, places, shares.loc[part].tolist(), name=str(part))
        for part, look in zip(shares.index, categories(len(shares)), strict=True)
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
        how_to_read="Left: all parameters of each model. Right: the share of each part in them.",
        caption="Counted from the shapes of the weights; tied weights count once.",
        alt=f"Parameters of each model: {described}.",
        panels=[
            Panel(bars, 0, 0, "All parameters"),
            Panel(parts, 0, 1, "Where they are", y=Axis("share (%)", limits=(0.0, 100.0))),
        ],
        x=Axis("model", ticks=models, limits=(-0.6, len(arms) - 0.4)),
        y=Axis("parameters (millions)", limits=(0.0, 1.08 * totals.max() / 1e6)),
    )


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
