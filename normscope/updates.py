"""What an optimizer step does to the weights."""

import torch
from torch import Tensor

from normscope.gradients import ParameterNorms
from normscope.stats import Row


class UpdateProbe:
    """Per component, block and tensor W, what one optimizer step does to the weights.

    weight_norm   norm(W before)
    update_ratio  norm(W after - W before) / norm(W before); absent where that is 0

    Holds a copy of the parameters between `before` and `after`.
    """

    def __init__(self, norms: ParameterNorms) -> None:
        self.norms = norms
        self.old: list[Tensor] = []

    def before(self) -> None:
        self.old = [parameter.detach().clone() for parameter in self.norms.parameters]

    def after(self) -> list[Row]:
        new = [parameter.detach() for parameter in self.norms.parameters]
        weight_norms = self.norms.on_host(self.old)
        changes = self.norms.on_host(list(torch._foreach_sub(new, self.old)))
        self.old = []
        weights = self.norms.rows(weight_norms, "weight_norm", each=True)
        ratios = [
            Row(layer, component, "update_ratio", change / weight)
            for (layer, component, _, weight), (_, _, _, change) in zip(
                weights, self.norms.rows(changes, "change", each=True), strict=True
            )
            if weight > 0
        ]
        return weights + ratios
