"""Kinds of norm. Each maps (..., width) to the same shape, feature by feature scaled.

A kind is a module class made from (width, eps), whose trainable scale is called `weight`. By its
class a norm is recognised wherever it stands.
"""

import torch
from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.registry import NORMS


@NORMS("layer_norm")
class LayerNorm(nn.LayerNorm):
    """g (x - mean(x)) / sqrt(var(x) + eps) + b, with the biased variance over the features.

    Scale g starts at 1, shift b at 0. Ba et al. 2016, arXiv 1607.06450.
    """


@NORMS("rms_norm")
class RMSNorm(nn.RMSNorm):
    """g x / sqrt(mean(x^2) + eps); no centring and no shift.

    Scale g starts at 1. Zhang and Sennrich 2019, arXiv 1910.07467.
    """


@NORMS("dyt")
class DynamicTanh(nn.Module):
    """g tanh(a x) + b: elementwise, with no statistics of x at all; eps has no part in it.

    The scalar a starts at 0.5, scale g at 1, shift b at 0. Zhu et al. 2025, arXiv 2503.10622.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.slope * x) + self.bias


def make_norm(config: GPTConfig, width: int, present: bool = True) -> nn.Module:
    """A norm of the configured kind, or the identity where there is to be none."""
    return NORMS[config.norm.kind](width, config.norm.eps) if present else nn.Identity()
