"""The models of conf/model, composed outside of a command or within one."""

import contextlib

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from experiments.settings.compose import from_values, to_values
from experiments.settings.explain import CONF
from experiments.settings.schema import Settings
from gpt import GPTConfig


def settings_of_size(name: str) -> Settings:
    """The settings with model=NAME, all others at their defaults."""
    hydra = contextlib.nullcontext()
    if not GlobalHydra.instance().is_initialized():
        hydra = initialize_config_dir(CONF, version_base="1.3")  # type: ignore[assignment]
    with hydra:
        return from_values(to_values(compose("config", [f"model={name}"])))


def published_model(name: str) -> GPTConfig:
    """A model whose file names its vocabulary, as those of published models do."""
    settings = settings_of_size(name)
    assert settings.model.vocab_size is not None
    return settings.model_config(settings.model.vocab_size)
