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
    weights  (B, heads, T, T) after it, of sum 1: over what the tokens get where a sink takes a part
    causal   whether token t sees the tokens 1 .. t, or all
    window   where it is causal, how many tokens it sees at most, itself among them; 0: all
    """

    logits: Tensor | None
    weights: Tensor
    causal: bool
    window: int = 0


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
    shows=(0.0, 1.0),
    drawn="attention",
)
def attention_entropy(scores: Scores) -> Tensor:
    """See `relative_entropy`."""
    return relative_entropy(scores.weights.float(), scores.causal, scores.window)


def relative_entropy(weights: Tensor, causal: bool, window: int = 0) -> Tensor:
    """Mean over heads and rows of -sum p ln p / ln(visible), of weights (..., T, T).

    From 0 (one token) to 1 (uniform). Where the attention is causal, row t = 1 .. T sees t tokens,
    or with a window min(t, window), and the first, which sees one, is left out; elsewhere every row
    sees T. nan where no row sees two: T or the window is 1.
    """
    length = weights.shape[-1]
    entropy = torch.special.entr(weights).sum(dim=-1)
    if not causal:
        return (entropy / math.log(length)).mean()
    visible = torch.arange(1, length + 1, device=weights.device).clamp(max=window or length)
    return (entropy / visible.log())[..., 1:].mean()


def scores_of(
    module: nn.Module, x: Tensor, options: Mapping[str, Any], output: Any
) -> Scores | None:
    """What an attention module computed on its way from x to `output`; None: not to be known.

    A module may offer `scores(x)`, logits and weights, with `causal`, and with `window` and `sinks`
    where it has them: weights of which a sink took a part are divided by their sum. Those of
    transformers give
    their weights beside their output (unless a fused kernel computed them) and take a mask among
    their options, which must leave all tokens visible, or those before and at each.
    """
    if hasattr(module, "scores") and hasattr(module, "causal"):
        logits, weights = cast(Any, module).scores(x)
        if getattr(module, "sinks", None) is not None:
            tiny = torch.finfo(weights.dtype).tiny  # all may go to the sink
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(tiny)
        return Scores(logits, weights, bool(module.causal), getattr(module, "window", 0))
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
