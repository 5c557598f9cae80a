"""What is measured of a model's parameters.

Each measurement is a row (layer, component, stat, value), with layer and component as in
`gpt.parameters.Place`; `block` stands for all parameters of a block, and the name of a parameter
inside its layer, such as `feed_forward.fc_out.weight`, for that tensor alone. The probes know
models; they know nothing of files.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from gpt import GPT
from gpt.weights import Place, places
from normscope.stats import Row


class ParameterNorms:
    """Frobenius norms of tensors that stand for the parameters, per component, block and tensor.

    ||G|| = sqrt(sum of squares), over all elements of all tensors that belong to the place. One
    fused call takes the norms of all tensors; they stay on the device until their copy on the
    host is asked for. `rows` takes that copy.
    """

    def __init__(self, model: GPT) -> None:
        self.places: list[Place] = list(places(model))
        self.parameters: list[nn.Parameter] = [place.parameter for place in self.places]
        keys: dict[tuple[int, str], list[int]] = {}
        for index, place in enumerate(self.places):
            keys.setdefault((place.layer, place.component), []).append(index)
            if 0 <= place.layer < len(model.blocks):
                keys.setdefault((place.layer, "block"), []).append(index)
        self.groups = keys
        self.tensors = {
            (place.layer, place.name.removeprefix(f"blocks.{place.layer}.")): [index]
            for index, place in enumerate(self.places)
        }
        sizes = np.array([parameter.numel() for parameter in self.parameters])
        both = keys | self.tensors
        self.counts = {key: int(sizes[members].sum()) for key, members in both.items()}

    @torch.no_grad()
    def measure(self, tensors: list[Tensor]) -> Tensor:
        """Norm of each tensor, (number of tensors,), on their device; float32 or wider."""
        dtype = torch.promote_types(tensors[0].dtype, torch.float32)
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=dtype))

    def gradients(self) -> Tensor:
        """Norm of each parameter's gradient, after accumulation and before clipping."""
        return self.measure(self._gradients())

    def gradients_on_host(self, norms: Tensor) -> Tensor:
        """Copy `norms`, as `gradients` gave them, to the host in float64.

        The gradients must still be there: where squares in float32 fell to zero or rose to
        infinity, the norm is taken again in float64.
        """
        return self._exact(norms.cpu().double(), self._gradients())

    def on_host(self, tensors: list[Tensor]) -> Tensor:
        """Norm of each tensor in float64 on the host."""
        return self._exact(self.measure(tensors).cpu().double(), tensors)

    def _gradients(self) -> list[Tensor]:
        # A parameter that had no part in the loss has a gradient of zero.
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self.parameters
        ]

    @staticmethod
    def _exact(norms: Tensor, tensors: list[Tensor]) -> Tensor:
        for index in torch.nonzero((norms == 0) | ~norms.isfinite()).flatten().tolist():
            norms[index] = tensors[index].detach().cpu().double().norm()
        return norms

    def of_losses(self, losses: Iterable[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Norms of the gradient of each of several losses, and those of the mean gradient.

        All in float64 on the host, (number of tensors,) each. The losses are asked for one by one;
        gradients that the parameters hold are left alone. The mean of the first is at least the
        second, and far above it where the losses pull in different directions.
        """
        means = [torch.zeros_like(parameter) for parameter in self.parameters]
        single: list[Tensor] = []
        for loss in losses:
            grads = list(torch.autograd.grad(loss, self.parameters, materialize_grads=True))
            single.append(self.on_host(grads))
            torch._foreach_add_(means, grads)
        torch._foreach_div_(means, len(single))
        return single, self.on_host(means)

    def rows(self, norms: Tensor, stat: str, each: bool = False) -> list[Row]:
        """The norm of each component and block: the root of its tensors' summed squares.

        each  whether the norm of each tensor follows
        """
        squares = norms.numpy() ** 2
        groups = self.groups | self.tensors if each else self.groups
        return [
            Row(layer, component, stat, math.sqrt(squares[members].sum()))
            for (layer, component), members in groups.items()
        ]

    def gradient_rows(self, norms: Tensor, each: bool = False) -> list[Row]:
        """Per component and block: `grad_norm`, and `grad_rms` = grad_norm / sqrt(count).

        The norm grows with the number of parameters; the root mean square does not.

        each  whether both of each tensor follow
        """
        rows = self.rows(norms, "grad_norm", each)
        rms = [
            Row(layer, component, "grad_rms", norm / math.sqrt(self.counts[layer, component]))
            for layer, component, _, norm in rows
        ]
        return rows + rms


def window_gradient_rows(norms: ParameterNorms, losses: Iterable[Tensor]) -> list[Row]:
    """Per component and block, of the mean losses of W single windows of T tokens:

    window_grad_norm       1/W sum_i ||g_i||, g_i the gradient of window i's loss
    mean_window_grad_norm  ||1/W sum_i g_i||, the gradient of the loss of all windows together

    The second is what Figure 3 of Xiong et al. 2020, arXiv 2002.04745, shows. Costs W forward and
    backward passes of one window, and memory for two sets of gradients.
    """
    single, mean = norms.of_losses(losses)
    rows = [norms.rows(each, "window_grad_norm") for each in single]
    return [
        row[0]._replace(value=float(np.mean([one.value for one in row])))
        for row in zip(*rows, strict=True)
    ] + norms.rows(mean, "mean_window_grad_norm")
