"""A GPT whose norm placement is a choice. Pure PyTorch; knows nothing of experiments."""

from gpt import activation, init, norm, placement, position  # noqa: F401  they fill the tables
from gpt.config import (
    GPT_CONFIG_124M,
    Architecture,
    AttentionConfig,
    FeedForwardConfig,
    GPTConfig,
    InitConfig,
    NormConfig,
    PositionConfig,
)
from gpt.count import parameter_count
from gpt.generate import generate
from gpt.model import GPT
from gpt.registry import ACTIVATIONS, INITS, NORMS, PLACEMENTS, POSITIONS, ConfigError
from gpt.shortcut import DeepShortcutNet

__all__ = [
    "ACTIVATIONS",
    "Architecture",
    "AttentionConfig",
    "FeedForwardConfig",
    "GPT",
    "GPTConfig",
    "GPT_CONFIG_124M",
    "INITS",
    "InitConfig",
    "NORMS",
    "NormConfig",
    "PLACEMENTS",
    "POSITIONS",
    "PositionConfig",
    "ConfigError",
    "DeepShortcutNet",
    "generate",
    "parameter_count",
]
