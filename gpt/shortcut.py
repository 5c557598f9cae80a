"""The book's small network that shows what a shortcut does to the gradient."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from gpt.registry import ACTIVATIONS

BOOK_SIZES = (3, 3, 3, 3, 3, 1)


class DeepShortcutNet(nn.Module):
    """x <- phi(W x + b), plus x itself where shortcuts are on and the widths match.

    sizes  width before the first layer, then after each; maps (..., sizes[0]) to (..., sizes[-1])

    Raschka, Build a Large Language Model (From Scratch), chapter 4, with
    phi = GELU; He et al. 2015, arXiv 1512.03385, for the idea.
    """

    def __init__(
        self, sizes: Sequence[int] = BOOK_SIZES, shortcut: bool = True, activation: str = "gelu"
    ) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        linears = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairs)
        self.layers = cast(Sequence[nn.Linear], linears)
        self.adds_input = [shortcut and n_in == n_out for n_in, n_out in pairs]
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        for layer, adds_input in zip(self.layers, self.adds_input, strict=True):
            out = self.activation(layer(x))
            x = x + out if adds_input else out
        return x


def mean_abs_gradients(net: DeepShortcutNet, x: Tensor) -> list[float]:
    """Mean absolute gradient of each layer's weight, for the mean squared error against 0."""
    out = net(x)
    loss = nn.functional.mse_loss(out, torch.zeros_like(out))
    weights = [layer.weight for layer in net.layers]
    return [grad.abs().mean().item() for grad in torch.autograd.grad(loss, weights)]
