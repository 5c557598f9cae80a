"""Kinds of norm. Each maps (..., width) to the same shape, feature by feature scaled.

A kind is a module class made from (width, eps), whose trainable scale, where it has one, is called
`weight`. By its class a norm is recognised wherever it stands.
"""

import torch
import torch.nn.functional as F
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


@NORMS("zero_centred_rms_norm")
class ZeroCentredRMSNorm(nn.Module):
    """(1 + g) x / sqrt(mean(x^2) + eps), so that weight decay draws the scale to 1, not to 0.

    g starts at 0. Gemma Team 2024, arXiv 2403.08295, whose code computes it in float32 whatever
    the type of x, as here; float64 stays.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        scale = 1 + self.weight.to(wide.dtype)
        return F.rms_norm(wide, self.weight.shape, scale, self.eps).to(x.dtype)


@NORMS("gain_free_rms_norm")
class GainFreeRMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps): no parameter at all.

    Zhang and Sennrich 2019, arXiv 1910.07467, for the norm; OLMo, arXiv 2402.00838, for leaving
    out the gain.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps, elementwise_affine=False)


@NORMS("dyt")
class DynamicTanh(nn.Module):
    """g tanh(a x) + b: elementwise, with no statistics of x at all; eps has no part in it.

    The scalar a starts at 0.5, scale g at 1, shift b at 0. Zhu et al. 2025, arXiv 2503.10622.
    """

    reads_eps = False

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.slope * x) + self.bias


@NORMS("derf")
class DynamicErf(DynamicTanh):
    """g erf(a x + s) + b: elementwise as dyt; eps has no part in it.

    The scalars a and s start at 0.5 and 0, scale g at 1, shift b at 0. Chen et al. 2025, arXiv
    2512.10938.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.offset = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.erf(self.slope * x + self.offset) + self.bias


def make_norm(config: GPTConfig, width: int, present: bool = True) -> nn.Module:
    """A norm of the configured kind, or the identity where there is to be none."""
    return NORMS[config.norm.kind](width, config.norm.eps) if present else nn.Identity()


def start_gain(norm: nn.Module, gain: float) -> None:
    """Let a norm's scale start at `gain`."""
    stored = gain - 1 if isinstance(norm, ZeroCentredRMSNorm) else gain
    nn.init.constant_(norm.get_parameter("weight"), stored)
