"""The training loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt import GPT


def language_model_loss(model: GPT, tokens: Tensor, targets: Tensor, precision: str) -> Tensor:
    """Mean cross entropy in nats of targets (B, T) given tokens (B, T).

    precision  the model's own; bf16 for matrix products under autocast, the loss taken in float32
    """
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(tokens)  # (B, T, vocab_size)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
