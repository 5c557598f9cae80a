"""What a page says of models that were counted, and not trained: `experiment=parameters`."""

from collections.abc import Sequence

from experiments.analysis.arms import Arm
from experiments.report.palette import Look
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


def sizes_table(arms: Sequence[Arm], looks: Sequence[Look] = ()) -> Table:
    """A row for each model: how deep and how wide it is, and what that comes to."""
    columns = ["model", "parameters", "size in float32 (MiB)", "layers", "width", "heads"]
    columns += ["active parameters", "MFLOPs per token, forward"]
    rows = [
        [
            Cell(arm.label, arm.label),
            number_cell(parameters_of(arm), ",.0f"),
            number_cell(parameters_of(arm) * FLOAT32_BYTES / MIB, ",.1f"),
            setting_of(arm, "model.n_layers"),
            setting_of(arm, "model.emb_dim"),
            setting_of(arm, "model.n_heads"),
            number_cell(arm.median(lambda s: s.active_parameters), ",.0f"),
            number_cell(arm.median(lambda s: s.flops_per_token) / 1e6, ",.0f"),
        ]
        for arm in arms
    ]
    return compact(Table(columns, rows, frozenset(columns[1:6]), looks=tuple(looks)))


def sizes_title(arms: Sequence[Arm]) -> str:
    """What is on the page."""
    if len(arms) == 1:
        return f"The size of {arms[0].label}"
    return f"The sizes of {len(arms)} models"


def sizes_sentence(arms: Sequence[Arm]) -> str:
    """How many parameters the model has, or the smallest and the largest."""
    counts = [f"{arm.label} has {parameters_of(arm):,.0f} parameters" for arm in by_size(arms)]
    if len(arms) == 1:
        return f"{counts[0]}."
    smallest, *_, largest = map(parameters_of, by_size(arms))
    return f"{counts[0]}; {counts[-1]}, {largest / smallest:.3g} times as many."
