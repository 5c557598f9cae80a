"""What is measured of the gradients of parameters."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from normscope.anatomy import Anatomy, Place
from normscope.stats import GRADIENTS, UNTRAINED, WINDOWS, Row

XIONG_FIGURE_3 = "Xiong et al. 2020, arXiv 2002.04745, Figure 3"


@GRADIENTS.measures(
    "grad_norm",
    "norm(G)",
    "gradient norm",
    axis="gradient norm of the block's parameters",
)
def grad_norm(norm: float, count: int) -> float:
    """Frobenius norm; it grows with the number of parameters."""
    return norm


@GRADIENTS.measures("grad_rms", "norm(G) / sqrt(n)", "root mean square of the gradient")
def grad_rms(norm: float, count: int) -> float:
    """Root mean square, which does not grow with the number of parameters."""
    return norm / math.sqrt(count)


@WINDOWS.measures("window_grad_norm", "1/W sum_i norm(g_i)", "mean norm of a window's gradient")
def window_grad_norm(norms: list[float], norm_of_mean: float) -> float:
    """Mean of the norms."""
    return sum(norms) / len(norms)


@WINDOWS.measures(
    "mean_window_grad_norm",
    "norm(1/W sum_i g_i)",
    "norm of the gradient of all windows together",
    source=XIONG_FIGURE_3,
)
def mean_window_grad_norm(norms: list[float], norm_of_mean: float) -> float:
    """Norm of the mean."""
    return norm_of_mean


UNTRAINED.describe(
    "mean_grad_norm",
    "norm(1/B sum_b G_b), G_b of batch b = 1 .. B",
    "norm of the gradient averaged over batches (experiment=init_gradients)",
    source=XIONG_FIGURE_3,
)
for name in ("grad_norm", "grad_rms", "mean_grad_norm"):
    UNTRAINED.describe(
        f"{name}_std",
        f"standard deviation of {name}",
        "sample standard deviation over seeds (experiment=init_gradients); absent with one seed",
    )
UNTRAINED.describe(
    "mean_abs_grad",
    "sum abs(G) / n, G of a layer's weight",
    "mean absolute gradient of the book's network (experiment=shortcut)",
    of=("without_shortcut", "with_shortcut"),
    source="Raschka, Build a Large Language Model (From Scratch), chapter 4",
)


class ParameterNorms:
    """Frobenius norms of tensors that stand for the parameters, per component, block and tensor.

    ||G|| = sqrt(sum of squares), over all elements of all tensors that belong to the place. One
    fused call takes the norms of all tensors; they stay on the device until their copy on the
    host is asked for. `rows` takes that copy.

    Parameters that need no gradient when this is built are left out.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        places = [place for place in anatomy.places() if place.parameter.requires_grad]
        self.places: list[Place] = places
        self.parameters: list[nn.Parameter] = [place.parameter for place in places]
        self.groups: dict[tuple[int, str], list[int]] = {}
        for index, place in enumerate(places):
            self.groups.setdefault((place.layer, place.component), []).append(index)
            if 0 <= place.layer < len(anatomy.blocks):
                self.groups.setdefault((place.layer, "block"), []).append(index)
        self.tensors = {(place.layer, place.tensor): [i] for i, place in enumerate(places)}
        self.counts = {
            key: sum(self.parameters[index].numel() for index in members)
            for key, members in (self.groups | self.tensors).items()
        }

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

    def by_place(self, norms: Tensor, each: bool = False) -> dict[tuple[int, str], float]:
        """The norm of each component and block: the root of its tensors' summed squares.

        each  whether the norm of each tensor follows
        """
        squares = [norm * norm for norm in norms.tolist()]
        groups = self.groups | self.tensors if each else self.groups
        return {
            key: math.sqrt(sum(squares[index] for index in members))
            for key, members in groups.items()
        }

    def rows(self, norms: Tensor, stat: str, each: bool = False) -> list[Row]:
        """As `by_place`, in rows."""
        return [Row(*key, stat, norm) for key, norm in self.by_place(norms, each).items()]

    def gradient_rows(self, norms: Tensor, each: bool = False) -> list[Row]:
        """The statistics of GRADIENTS per component and block, of norms on the host.

        each  whether those of each tensor follow
        """
        by_place = self.by_place(norms, each)
        return GRADIENTS.rows({key: (norm, self.counts[key]) for key, norm in by_place.items()})


def window_gradient_rows(norms: ParameterNorms, losses: Iterable[Tensor]) -> list[Row]:
    """The statistics of WINDOWS per component and block, of the mean losses of single windows.

    Costs a forward and backward pass of each window, and memory for two sets of gradients.
    """
    single, mean = norms.of_losses(losses)
    if not single:
        return []
    windows = [norms.by_place(each) for each in single]
    of_mean = norms.by_place(mean)
    return WINDOWS.rows(
        {key: ([window[key] for window in windows], norm) for key, norm in of_mean.items()}
    )
