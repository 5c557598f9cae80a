"""Settings and descriptions of models that differ from given ones by a few fields."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import run
from experiments.data.tokenizer import TOKENIZERS
from experiments.jobs.check import checked_settings
from experiments.settings.compose import to_values
from experiments.settings.schema import Settings
from gpt import GPT, GPTConfig
from gpt.config import put

# Tokenizers that are made from a text, not read from a file.
FITTED = [name for name in TOKENIZERS if name not in ("pretrained", "ids")]
SMALL = GPTConfig(11, 8, 12, 3, 4, qkv_bias=True)


def changed(config: GPTConfig, changes: Mapping[str, Any]) -> GPTConfig:
    """`config` with other values for the fields named, such as `norm.kind`."""
    values = dataclasses.asdict(config)
    for name, value in changes.items():
        put(values, name, value)
    return GPTConfig.from_values(values)


@functools.cache
def settings_of(*overrides: str) -> Settings:
    """What `python run.py OVERRIDES` runs with."""
    with initialize_config_dir(run.CONF, version_base="1.3"):
        return checked_settings(to_values(compose("config", list(overrides))))


def small_model(changes: Mapping[str, Any], seed: int = 0) -> GPT:
    """A model of four small blocks in float64."""
    torch.manual_seed(seed)
    return GPT(changed(SMALL, changes)).double()
