"""How many parameters a model has, without making it."""

import torch

from gpt.config import GPTConfig
from gpt.model import GPT


def parameter_count(config: GPTConfig) -> int:
    """How many parameters the model has, a tied weight once; nothing of their size is allocated."""
    with torch.device("meta"):
        model = GPT(config)
    return sum(parameter.numel() for parameter in model.parameters())
