"""Kinds of norm. Each maps (..., emb_dim) to the same shape, feature by feature scaled."""

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from gpt.registry import Registry

Norm: TypeAlias = nn.Module
NORMS: Registry[Callable[[int, float], Norm]] = Registry("norm")
NORM_TYPES: tuple[type[nn.Module], ...] = (nn.LayerNorm, nn.RMSNorm)


@NORMS("layer_norm")
def layer_norm(dim: int, eps: float) -> Norm:
    """g (x - mean(x)) / sqrt(var(x) + eps) + b, with the biased variance over the features.

    Scale g starts at 1, shift b at 0. Ba et al. 2016, arXiv 1607.06450.
    """
    return nn.LayerNorm(dim, eps=eps)


@NORMS("rms_norm")
def rms_norm(dim: int, eps: float) -> Norm:
    """g x / sqrt(mean(x^2) + eps); no centring and no shift.

    Scale g starts at 1. Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    return nn.RMSNorm(dim, eps=eps)
