"""A published model's description, read from its directory into the settings of a run."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from experiments.machine.console import one_line
from experiments.machine.files import hide_home, typed_path
from experiments.settings.typed import names_of
from gpt import Architecture, ConfigError, GPTConfig
from gpt.config import put
from gpt.families import Family, family_of

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
OF_A_RUN = ".hydra"  # the folder of its settings
# What a typed choice of a placement leaves open, and the description then does not fill.
PLACEMENT = ("norm.placement", "norm.options", "norm.final")


def with_weights(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Composed settings with what `model.weights`, if there is one, says of the model.

    What the command line names stays as typed; so does how weights are drawn, which has no effect.
    The vocabulary is the model's own where the directory has one. Raises ConfigError.
    """
    directory = values["model"].get("weights")
    if directory is None or values["resume"] is not None:  # a resumed run has it in its settings
        return dict(values)
    names = names_of(overrides)
    for name in names:
        if name in ("model", "change", "match"):
            valid = f"leave it out: {directory}/{CONFIG} says which model it is"
            raise ConfigError(name, values_of(overrides, name), valid)
        if name.split(".")[0] == "init":
            valid = f"leave it out: the weights are read from {directory}, and not drawn"
            raise ConfigError(name, values_of(overrides, name), valid)
    typed = set(names)
    if "norm" in typed:
        typed = typed - {"norm"} | set(PLACEMENT)
    _, config = read_description(directory)
    model = {field.name for field in fields(Architecture)}
    found = dict(values)
    for name, value in asdict(config).items():
        if name in model:
            put_untyped(found, f"model.{name}", value, typed)
        elif name in ("norm", "activation"):
            put_untyped(found, name, value, typed)
    found["model"] = {**found["model"], "weights": absolute(directory)}
    if not {"tokenizer", "tokenizer.name"} & typed:
        put_untyped(found, "tokenizer", own_tokenizer(directory, typed), typed)
    return found


def values_of(overrides: Sequence[str], name: str) -> str:
    """The value that the command line gives the setting, the last counts."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides)[name]


def put_untyped(values: dict[str, Any], name: str, value: Any, typed: set[str]) -> None:
    """Set a dotted name in nested values, but for the parts of it that were typed."""
    if name in typed:
        return
    if isinstance(value, dict) and any(other.startswith(f"{name}.") for other in typed):
        for inner, part in value.items():
            put_untyped(values, f"{name}.{inner}", part, typed)
    else:
        put(values, name, value)


def own_tokenizer(directory: str, typed: set[str]) -> dict[str, Any]:
    """The settings of the directory's tokenizer; ConfigError where neither it nor a path is."""
    if "tokenizer.path" not in typed and not (typed_path(directory) / TOKENIZER).is_file():
        valid = f"{directory} has no {TOKENIZER}; say which it is, such as tokenizer=gpt2"
        raise ConfigError("tokenizer", None, valid)
    return {"name": "pretrained", "path": absolute(directory)}


def read_description(directory: str) -> tuple[Family, GPTConfig]:
    """The family and the description of the model in a directory. Raises ConfigError."""
    path = typed_path(directory) / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is not a table of names and values")
    except (OSError, ValueError, RecursionError) as error:
        valid = f"must be a directory with a {CONFIG} that can be read: {one_line(error)}"
        if isinstance(error, FileNotFoundError) and (path.parent / OF_A_RUN).is_dir():
            valid = "is a run's directory: experiment=export writes its model as the Hub has it"
        raise ConfigError("model.weights", directory, valid) from None
    try:
        family = family_of(values)
        return family, family.config(values)
    except ConfigError as error:
        raise ConfigError("model.weights", directory, f"its {error}") from None


def absolute(directory: str) -> str:
    """The path from the root, the home directory as ~, so that any folder will do to resume."""
    return str(hide_home(os.path.abspath(typed_path(directory))))
