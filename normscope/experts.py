"""How evenly a mixture of experts is used."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from normscope.stats import EACH_EXPERT, EXPERTS


@EXPERTS.measures(
    "expert_max_load",
    "E max(s)",
    "largest load of an expert",
    axis="largest share of an expert x experts; 1 is even",
    scale="linear",
    shows=(1.0,),
    drawn="feed_forward",
)
def expert_max_load(shares: Tensor) -> Tensor:
    """The largest share times the number of experts: 1 where all are used alike, at most E."""
    return shares.max() * len(shares)


@EXPERTS.measures(
    "expert_entropy",
    "-sum s ln s / ln E",
    "entropy of the experts' load",
    axis="entropy / ln E; 1 is even",
    scale="linear",
    shows=(0.0, 1.0),
    drawn="feed_forward",
)
def expert_entropy(shares: Tensor) -> Tensor | None:
    """From 0 (one expert gets all) to 1 (all alike); absent where there is one alone."""
    count = len(shares)
    return torch.special.entr(shares).sum() / math.log(count) if count > 1 else None


@EACH_EXPERT.measures("expert_load", "E s_e", "load of the expert; 1 is even")
def expert_load(share: Tensor, count: int) -> Tensor:
    """Its share times the number of experts."""
    return share * count


def load_of(module: nn.Module, x: Tensor) -> Tensor | None:
    """The share of the tokens' choices that falls on each expert, (E,); None where there are none.

    A module may offer `load(x)` beside its `router`, what it was called with being x.
    """
    has_experts = hasattr(module, "router") and hasattr(module, "load")
    return cast(Any, module).load(x).float() if has_experts else None
