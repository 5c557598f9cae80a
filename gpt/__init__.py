"""A GPT whose norm placement is a choice. Pure PyTorch; knows nothing of experiments."""

from gpt import (  # noqa: F401  they fill the tables
    activation,
    families,
    init,
    norm,
    parallel,
    placement,
    position,
)
from gpt.config import (
    GPT_CONFIG_124M,
    Architecture,
    AttentionConfig,
    EmbeddingConfig,
    ExpertsConfig,
    FeedForwardConfig,
    GPTConfig,
    InitConfig,
    NormConfig,
    ParallelConfig,
    PositionConfig,
    YarnConfig,
)
from gpt.count import (
    active_parameter_count,
    cached_values,
    flops_per_token,
    parameter_count,
)
from gpt.generate import generate
from gpt.loss import head_loss
from gpt.model import GPT
from gpt.registry import ACTIVATIONS, INITS, NORMS, PARALLEL, PLACEMENTS, POSITIONS, ConfigError
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
    "EmbeddingConfig",
    "ExpertsConfig",
    "ParallelConfig",
    "YarnConfig",
    "PARALLEL",
    "active_parameter_count",
    "cached_values",
    "flops_per_token",
    "ConfigError",
    "DeepShortcutNet",
    "generate",
    "head_loss",
    "parameter_count",
]
