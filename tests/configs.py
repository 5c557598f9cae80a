"""Descriptions of models that differ from a given one by a few fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpt import GPTConfig


def changed(config: GPTConfig, changes: Mapping[str, Any]) -> GPTConfig:
    """`config` with other values for the fields named, such as `norm.kind`."""
    values = dataclasses.asdict(config)
    for name, value in changes.items():
        *sections, field = name.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[field] = value
    return GPTConfig.from_values(values)
