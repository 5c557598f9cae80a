"""What an optimizer step does to the weights."""

import torch
from torch import Tensor

from normscope.gradients import ParameterNorms
from normscope.stats import UPDATES, Row


@UPDATES.measures("weight_norm", "norm(W)", "norm of the weights")
def weight_norm(weight: float, change: float) -> float:
    """Norm of the weights before the step."""
    return weight


@UPDATES.measures(
    "update_ratio",
    "norm(W' - W) / norm(W)",
    "update ratio",
    title="Update ratios by layer",
    axis="norm(change) / norm(weights)",
    drawn="block",
)
def update_ratio(weight: float, change: float) -> float | None:
    """Norm of the change over that of the weights; absent where they are 0."""
    return change / weight if weight > 0 else None


class UpdateProbe:
    """The statistics of UPDATES per component, block and tensor.

    Holds a copy of the parameters between `before` and `after`.
    """

    def __init__(self, norms: ParameterNorms) -> None:
        self.norms = norms
        self.old: list[Tensor] = []

    def before(self) -> None:
        self.old = [parameter.detach().clone() for parameter in self.norms.parameters]

    def after(self) -> list[Row]:
        new = [parameter.detach() for parameter in self.norms.parameters]
        weights = self.norms.by_place(self.norms.on_host(self.old), each=True)
        moved = self.norms.on_host(list(torch._foreach_sub(new, self.old)))
        changes = self.norms.by_place(moved, each=True)
        self.old = []
        return UPDATES.rows({key: (weight, changes[key]) for key, weight in weights.items()})
