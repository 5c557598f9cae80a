"""How many parameters a model has, without making it."""

import torch

from gpt.config import GPTConfig
from gpt.model import GPT


def parameter_count(config: GPTConfig) -> int:
    """How many parameters the model has, a tied weight once; nothing of their size is allocated."""
    return sum(parameter.numel() for parameter in meta_model(config).parameters())


def active_parameter_count(config: GPTConfig) -> int:
    """How many of them one token meets on its way to the logits.

    Of the experts those that it is sent to; a table of embeddings, of which it reads one row, only
    where the head multiplies by it.
    """
    active, model = 0, meta_model(config)
    for name, parameter in model.named_parameters():
        if ".feed_forward.fc_" in name and config.experts.count:
            active += parameter.numel() * config.experts.active // config.experts.count
        elif config.tie_head or name != "token_embedding.weight":
            active += parameter.numel() * ("position_embedding" not in name)
    return active


def meta_model(config: GPTConfig) -> GPT:
    """The model with parameters that have shapes and no values."""
    with torch.device("meta"):
        return GPT(config)
