"""What attention looks at."""

import math

import torch
from torch import Tensor


def relative_entropy(weights: Tensor, causal: bool) -> Tensor:
    """Mean over heads and rows of -sum p ln p / ln(visible), of weights (..., T, T).

    From 0 (one token) to 1 (uniform). Where the attention is causal, row t = 1 .. T sees t tokens,
    and the first, which sees one, is left out; elsewhere every row sees T. nan when T is 1.
    """
    length = weights.shape[-1]
    entropy = torch.special.entr(weights).sum(dim=-1)
    if not causal:
        return (entropy / math.log(length)).mean()
    visible = torch.arange(1, length + 1, device=weights.device)
    return (entropy / visible.log())[..., 1:].mean()
