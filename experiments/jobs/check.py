"""The door: values from a config become settings once, every name in them known.

Names live in tables all over the house, so this stands above all of them and is asked once.
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
from gpt.checks import check_choice


def checked_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from nested values. Raises ConfigError for the first that no run could use."""
    settings = from_values(values)
    check_choice("runner", settings.runner, runner_names())
    check_choice("data.name", settings.data.name, CORPORA)
    check_choice("tokenizer.name", settings.tokenizer.name, TOKENIZERS)
    check_choice("optimizer.name", settings.optimizer.name, OPTIMIZERS)
    check_choice("schedule.name", settings.schedule.name, SCHEDULES)
    return settings
