"""Writing text, one token at a time."""

import torch
from torch import Tensor

from gpt.checks import Valid, check_value
from gpt.model import GPT
from gpt.registry import ConfigError


@torch.no_grad()
def generate(
    model: GPT,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> Tensor:
    """Continue each row of `tokens` (B, T) by max_new_tokens: (B, T + max_new_tokens).

    temperature  0 takes the most likely token (greedy); otherwise logits are divided by it and
                 the next token is drawn from their softmax
    top_k        draw among the k most likely tokens only
    seed         of the draws; the global random state is neither read nor changed when given

    The model sees the last context_length tokens. It runs in eval mode and is left as it was.
    Raises ConfigError for an empty prompt or an option out of range.
    """
    check_value("max_new_tokens", max_new_tokens, int, Valid(at_least=0))
    check_value("temperature", temperature, float, Valid(at_least=0))
    if top_k is not None:
        check_value("top_k", top_k, int, Valid(at_least=1))
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ConfigError("tokens", list(tokens.shape), "must be (B, T) with T of at least 1")
    random = None
    if seed is not None:
        random = torch.Generator(device=tokens.device).manual_seed(seed)
    was_training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            logits = model(tokens[:, -model.config.context_length :])[:, -1]  # (B, vocab_size)
            tokens = torch.cat([tokens, _choose(logits, temperature, top_k, random)], dim=1)
    finally:
        model.train(was_training)
    return tokens


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, random: torch.Generator | None
) -> Tensor:
    """The next token of each row, (B, 1), from logits (B, vocab_size)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, float("-inf")).scatter(-1, kept.indices, kept.values)
    # A temperature that the logits' type does not have would divide by zero or infinity.
    limits = torch.finfo(logits.dtype)
    temperature = min(max(temperature, limits.tiny), limits.max)
    # The largest logit as zero, so that no temperature makes it infinite.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=random)
