"""From Hydra's config to values, once, and from values to settings, once."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from experiments.machine.files import hide_home, safe_file_name
from experiments.settings.schema import Settings
from gpt import ConfigError
from gpt.registry import choice_hint

S = TypeVar("S")

ConfigStore.instance().store(name="schema", node=Settings)
OmegaConf.register_new_resolver("file_name", safe_file_name, replace=True)
OmegaConf.register_new_resolver("first_of", lambda *given: next(filter(None, given)), replace=True)


def to_values(config: DictConfig) -> dict[str, Any]:
    """A composed config as nested dictionaries, each value resolved, the home directory as ~."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], hide_home(values))


def from_values(values: Mapping[str, Any]) -> Settings:
    """Checked settings from nested dictionaries."""
    settings = build_dataclass(Settings, values)
    settings.check()
    return settings


def build_dataclass(cls: type[S], values: Any, prefix: str = "") -> S:
    """An instance of the dataclass `cls` from nested dictionaries; unknown keys are refused."""
    types = get_type_hints(cls)
    for key in values:
        if key not in types:
            raise ConfigError(prefix + str(key), values[key], unknown_setting(prefix + str(key)))
    made = {
        key: build_dataclass(types[key], value, f"{prefix}{key}.")
        if dataclasses.is_dataclass(types[key])
        else value
        for key, value in values.items()
    }
    return cls(**made)


def unknown_setting(key: str) -> str:
    """What could have been meant by a key that does not exist."""
    *parents, _ = key.split(".")
    known = [name for name in setting_names() if name.split(".")[:-1] == parents]
    return "no such setting; " + choice_hint(key, known or setting_names())


def setting_names(cls: Any = Settings, prefix: str = "") -> list[str]:
    """Every setting's dotted name, sections first."""
    names = []
    for name, kind in get_type_hints(cls).items():
        names.append(prefix + name)
        if dataclasses.is_dataclass(kind):
            names += setting_names(kind, f"{prefix}{name}.")
    return names
