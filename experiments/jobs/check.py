"""Values from a config become checked Settings here, once for each run.

The names that a setting may have are in the tables of several packages (data, training, runners).
This module may import all of them, which the settings themselves must not.
"""

from collections.abc import Mapping
from typing import Any

from experiments.data.corpus import CORPORA
from experiments.data.tokenizer import TOKENIZERS
from experiments.runner import runner_names
from experiments.settings.compose import from_values
from experiments.settings.schema import Settings
from experiments.training.optimizer import OPTIMIZERS
from experiments.training.schedule import SCHEDULES
from gpt import ConfigError
from gpt.checks import check_choice


def checked_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from nested values. Raises ConfigError for the first value that is not valid."""
    settings = from_values(values)
    check_choice("runner", settings.runner, runner_names())
    check_choice("data.name", settings.data.name, CORPORA)
    check_choice("tokenizer.name", settings.tokenizer.name, TOKENIZERS)
    if settings.tokenizer.path is not None and settings.tokenizer.name != "pretrained":
        valid = f"belongs to tokenizer=pretrained, and tokenizer={settings.tokenizer.name}"
        raise ConfigError("tokenizer.path", settings.tokenizer.path, valid)
    check_choice("optimizer.name", settings.optimizer.name, OPTIMIZERS)
    check_choice("schedule.name", settings.schedule.name, SCHEDULES)
    return settings
