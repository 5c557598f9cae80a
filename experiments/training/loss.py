"""The training loss, and what it should be before training."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.training.precision import PRODUCTS
from gpt import GPT, GPTConfig, head_loss
from normscope.streams import evaluating

log = logging.getLogger(__name__)

# Nats by which the loss of a model as initialised may be above ln V. Logits of variance s^2, drawn
# independently, cost s^2 / 2, and the schemes here draw s^2 below 2 where a norm precedes the head.
START_MARGIN = 3.0
LARGE_STREAM = 3.0  # a root mean square that no norm leaves behind


def language_model_loss(
    model: GPT,
    tokens: Tensor,
    targets: Tensor,
    precision: str,
    features: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean cross entropy in nats of targets (B, T) given tokens (B, T).

    precision  as `trainer.precision`: bf16 and fp16 are those of matrix products under autocast,
               the softmax taken in float32; with all others the model's own
    features   of the model, compiled; None: as they are
    """
    dtype = PRODUCTS.get(precision)
    with torch.autocast(tokens.device.type, dtype, enabled=dtype is not None):
        read = (features or model.features)(tokens)
    head = model.head
    return head_loss(read, head.weight, targets, head.bias, dtype, compiled=features is not None)


def uniform_loss(model: GPT) -> float:
    """ln V: the loss in nats of a model that gives each of V tokens the same probability."""
    return math.log(model.config.vocab_size)


def warn_of_high_start(model: GPT, loss: float, tokens: Tensor) -> None:
    """Say where the loss of a model as initialised is far above ln V, and why.

    tokens  (B, T), of which the head's input is measured
    """
    if loss > uniform_loss(model) + START_MARGIN:
        log.warning(
            "the loss starts at %.3g nats, where a model that knows nothing has ln V = %.3g; %s",
            loss,
            uniform_loss(model),
            "; ".join(causes_of_high_start(model, tokens)),
        )


@torch.no_grad()
def causes_of_high_start(model: GPT, tokens: Tensor) -> list[str]:
    """What makes the logits large, with what would mend it."""
    config, weight, causes = model.config, model.head.weight, []
    with evaluating(model):
        read = model.features(tokens.to(weight.device)).float()
    size, spread = (float(part.square().mean().sqrt()) for part in (read, weight.float()))
    if not size < LARGE_STREAM:
        remedy = "" if config.norm.final else ": norm.final=true puts a norm before the head"
        causes.append(f"the head reads a stream of root mean square {size:.3g}{remedy}")
    if config.tie_head:
        causes.append(
            f"the head is tied to embeddings of root mean square {spread:.2g}, as "
            f"{drawn_by(config)} draws them: model.tie_head=false unties it, "
            "init.embedding_std=0.02 draws smaller ones"
        )
    elif not causes:
        causes.append(f"the head's weights have a root mean square of {spread:.2g}")
    return causes


def drawn_by(config: GPTConfig) -> str:
    """The setting that decides with which standard deviation embeddings are drawn."""
    own = config.init.embedding_std
    return f"init={config.init.scheme}" if own is None else f"init.embedding_std={own:g}"
