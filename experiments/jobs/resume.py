"""Resuming an earlier run: its settings, whether it can be resumed, and from which state.

A run's directory may come from a stranger: nothing in it is executed, and no reference in it, such
as to an environment variable, is resolved.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.machine.console import one_line
from experiments.machine.files import line_end_offset
from experiments.machine.limits import usable_cores
from experiments.records.directory import CONFIG_FOLDER
from experiments.settings.compose import SCHEMA, literal, to_values
from experiments.settings.identity import (
    content_sha256,
    flatten,
    result_settings,
    with_new_names,
)
from experiments.settings.schema import DataSettings, Settings
from experiments.settings.typed import names_of
from experiments.training.checkpoint import State, newest_state
from experiments.training.schedule import learning_rate
from gpt import ConfigError

log = logging.getLogger(__name__)

DAMAGED = ".damaged"  # added to the name of a checkpoint that cannot be used


class PlainLoader(yaml.SafeLoader):
    """Loads plain YAML: no tags that build objects, and no aliases.

    A few lines of nested aliases can expand to gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, except that an alias is an error."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def read_config(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings and the overrides of the run in `directory`.

    Raises ConfigError where a file is missing or cannot be one that a run wrote.
    """
    contents: list[Any] = []
    for name, kind in (("config", dict), ("overrides", list)):
        path = directory / CONFIG_FOLDER / f"{name}.yaml"
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
            if not isinstance(content, kind):
                raise ValueError(f"it does not hold a {kind.__name__}")
        except (FileNotFoundError, NotADirectoryError):
            valid = f"must be the directory of a run; it has no {CONFIG_FOLDER}/{path.name}"
            raise ConfigError("resume", str(directory), valid) from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            valid = f"its {CONFIG_FOLDER}/{path.name} cannot be read: {one_line(error)[:200]}"
            raise ConfigError("resume", str(directory), valid) from None
        contents.append(content)
    values = check_types(contents[0], directory, f"{CONFIG_FOLDER}/config.yaml")
    return values, [str(override) for override in contents[1]]


def check_types(values: dict[str, Any], directory: Path, file: str) -> dict[str, Any]:
    """The settings recorded in `file`, each of the type that the schema has.

    Names of version 0.4 are replaced, and a setting that it did not have takes its default: then
    there was no other choice. Raises ConfigError where one does not fit.
    """
    try:
        # OmegaConf would resolve ${...}, from environment variables too.
        typed = OmegaConf.merge(OmegaConf.structured(SCHEMA), literal(with_new_names(values)))
        return to_values(cast(DictConfig, typed))
    except (ConfigError, OmegaConfBaseException) as error:
        valid = f"its {file} does not fit this version: {str(error).splitlines()[0]}"
        raise ConfigError("resume", str(directory), valid) from None


def merge_overrides(
    stored: dict[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The settings of an earlier run, replaced by those that the command line names.

    norm=post_ln replaces the whole section `norm`, and experiment=... all settings. The place of
    the token cache always comes from the command line: it belongs to the machine, not to the run.
    """
    for deleted in (override for override in overrides if override.startswith("~")):
        valid = "a setting cannot be deleted when a run is resumed"
        raise ConfigError(deleted.lstrip("~").split("=", 1)[0], "~", valid)
    names = names_of(overrides)
    if "experiment" in names:
        return dict(composed)
    values = {**stored, "resume": composed["resume"], "sweep": composed["sweep"]}
    values["data"] = {**stored["data"], "cache_dir": composed["data"]["cache_dir"]}
    for name in names:
        *parents, last = name.split(".")
        target, source = values, composed
        for parent in parents:
            target[parent] = dict(target[parent])
            target, source = target[parent], source[parent]
        target[last] = source[last]
    return values


def check_text(data: DataSettings, path: str, sha256: str) -> None:
    """Raise ConfigError unless the text at `path` is the one with which the run began.

    Its content decides: it may lie anywhere.
    """
    try:
        found = content_sha256(dataclasses.asdict(data), path)
    except ConfigError as error:
        valid = f"{error.valid}; if the text has moved, give its place with data.path="
        raise ConfigError("data.path", path, valid) from None
    if found != sha256:
        raise ConfigError("data.path", path, "is not the text with which the run began")


def check_resumable(settings: Settings, stored: dict[str, Any], step: int) -> None:
    """Raise ConfigError unless a run with the `stored` settings, at `step`, can be resumed.

    Settings that cannot change a result may differ, and trainer.steps where every learning rate so
    far is the same under the new number of steps. Of the text see `check_text`.
    """
    new_values = dict(flatten(result_settings(dataclasses.asdict(settings))))
    old_values = dict(flatten(result_settings(stored)))
    for name in {**old_values, **new_values}:
        old, new = old_values.get(name), new_values.get(name)
        if old == new or name == "data.path":
            continue
        reason = "a different value would change its results"
        if name == "trainer.steps" and isinstance(old, int) and isinstance(new, int):
            reason = why_steps_are_fixed(settings, old, new, step)
        if reason:
            raise ConfigError(name, new, f"the run was started with {old!r}, and {reason}")


def why_steps_are_fixed(settings: Settings, old: int, new: int, done: int) -> str:
    """Why a run that has made `done` of `old` steps cannot have `new` steps; empty if it can."""
    schedule, peak = settings.schedule, settings.optimizer.lr
    if new < done:
        return f"it has made {done} steps already"
    for step in range(done):
        if learning_rate(schedule, peak, step, old) != learning_rate(schedule, peak, step, new):
            chosen = f"schedule={schedule.name}"
            return f"under {chosen} its learning rates depend on the number of steps"
    return ""


def load_newest_state(directory: Path) -> State | None:
    """The newest checkpoint that is whole and whose CSV rows exist; None where there is none.

    Damaged ones that are newer are renamed. Raises ConfigError where all are damaged.
    """

    def check_usable(state: State) -> None:
        try:
            for name, rows in state["records"]["rows"].items():
                line_end_offset(directory / name, rows + 1)
            dict(flatten(result_settings(state["settings"])))
            state["progress"], state["step"], state["versions"]["threads"]
        except (KeyError, TypeError, AttributeError, OSError) as error:
            raise ValueError(one_line(error)) from error

    try:
        state, damaged = newest_state(directory, check_usable)
    except FileNotFoundError:
        return None
    for path in damaged:
        os.replace(path, path.with_name(path.name + DAMAGED))
    return state | {"settings": check_types(state["settings"], directory, "checkpoint")}


def resumed_threads(settings: Settings, state: State | None) -> int | None:
    """How many threads a resumed run must use: as before, since their number changes last bits."""
    if settings.threads is not None or state is None:
        return settings.threads
    threads, cores = int(state["versions"]["threads"]), usable_cores()
    if threads > cores:
        log.warning(
            "the run was started with %d threads and is resumed with %d, the cores that it may "
            "use here: the last bits of its numbers can differ",
            threads,
            cores,
        )
    return min(threads, cores)
