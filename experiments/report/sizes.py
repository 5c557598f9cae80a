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
