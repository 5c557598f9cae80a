"""What attention looks at."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from normscope.stats import ATTENTION


class Scores(NamedTuple):
    """Of one attention module and one input.

    logits   (B, heads, T, T) before the softmax, -inf where not visible; None: not known
    weights  (B, heads, T, T) after it
    causal   whether token t sees the tokens 1 .. t, or all
    """

    logits: Tensor | None
    weights: Tensor
    causal: bool


@ATTENTION.measures("attention_max_logit", "max of the logits before the softmax", "largest logit")
def attention_max_logit(scores: Scores) -> Tensor | None:
    """The largest logit; absent where the logits are not known."""
    return None if scores.logits is None else scores.logits.float().max()


@ATTENTION.measures(
    "attention_entropy",
    "mean over heads and rows of -sum p ln p / ln(visible tokens)",
    "attention entropy",
    axis="entropy / ln(visible tokens); 1 is uniform",
    scale="linear",
    drawn="attention",
)
def attention_entropy(scores: Scores) -> Tensor:
    """See `relative_entropy`."""
    return relative_entropy(scores.weights.float(), scores.causal)


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


def scores_of(
    module: nn.Module, x: Tensor, options: Mapping[str, Any], output: Any
) -> Scores | None:
    """What an attention module computed on its way from x to `output`; None: not to be known.

    A module may offer `scores(x)`, logits and weights, with `causal`. Those of transformers give
    their weights beside their output (unless a fused kernel computed them) and take a mask among
    their options, which must leave all tokens visible, or those before and at each.
    """
    if hasattr(module, "scores") and hasattr(module, "causal"):
        logits, weights = cast(Any, module).scores(x)
        return Scores(logits, weights, bool(module.causal))
    weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
    if not isinstance(weights, Tensor) or weights.ndim != 4 or "attention_mask" not in options:
        return None
    mask = options["attention_mask"]
    if mask is None:
        return Scores(None, weights, causal=False)
    visible = mask if mask.dtype == torch.bool else mask == 0
    if visible.all():
        return Scores(None, weights, causal=False)
    causal = torch.equal(visible, torch.ones_like(visible).tril())
    return Scores(None, weights, causal=True) if causal else None
