"""A GPT whose norm placement is a choice. Pure PyTorch; knows nothing of experiments."""

from gpt.activation import ACTIVATIONS
from gpt.config import GPT_CONFIG_124M, GPTConfig
from gpt.generate import generate
from gpt.init import INITS
from gpt.model import GPT
from gpt.norm import NORMS
from gpt.parameters import parameter_table, places
from gpt.placement import PLACEMENTS
from gpt.registry import ConfigError
from gpt.shortcut import DeepShortcutNet

__all__ = [
    "ACTIVATIONS",
    "GPT",
    "GPTConfig",
    "GPT_CONFIG_124M",
    "INITS",
    "NORMS",
    "PLACEMENTS",
    "ConfigError",
    "DeepShortcutNet",
    "generate",
    "parameter_table",
    "places",
]
