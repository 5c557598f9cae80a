"""Going on with an earlier run: what it was told, whether it may go on, and from which state.

A run's directory may come from anybody: nothing that stands in it is executed or looked up.
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
from experiments.records.directory import CONFIG_FOLDER
from experiments.settings.compose import SCHEMA, to_values
from experiments.settings.identity import flatten, result_settings, with_new_names
from experiments.settings.schema import Settings
from experiments.training.checkpoint import State, newest_state
from experiments.training.schedule import learning_rate
from gpt import ConfigError

log = logging.getLogger(__name__)

DAMAGED = ".damaged"  # is added to the name of a checkpoint that could not be used


class PlainLoader(yaml.SafeLoader):
    """Reads YAML without tags that make objects and without aliases, which can grow endlessly."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, for nodes that stand where they are used."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def read_config(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings and the overrides of the run in `directory`.

    Raises ConfigError where they are not there, or cannot be those of a run.
    """
    contents: list[Any] = []
    for name, kind in (("config", dict), ("overrides", list)):
        path = directory / CONFIG_FOLDER / f"{name}.yaml"
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
            if not isinstance(content, kind):
                raise ValueError(f"it holds no {kind.__name__}")
        except (FileNotFoundError, NotADirectoryError):
            valid = f"must be the directory of a run; it has no {CONFIG_FOLDER}/{path.name}"
            raise ConfigError("resume", str(directory), valid) from None
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            valid = f"its {CONFIG_FOLDER}/{path.name} cannot be read: {one_line(error)[:200]}"
            raise ConfigError("resume", str(directory), valid) from None
        contents.append(content)
    return check_types(contents[0], directory), [str(override) for override in contents[1]]


def check_types(values: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Recorded settings, each of the kind that the schema wants; ConfigError otherwise."""
    if "${" in str(values):  # would be resolved, from the environment for one
        raise ConfigError(
            "resume", str(directory), f"its {CONFIG_FOLDER}/config.yaml refers to something"
        )
    try:
        typed = OmegaConf.merge(OmegaConf.structured(SCHEMA), with_new_names(values))
        return to_values(cast(DictConfig, typed))
    except OmegaConfBaseException as error:
        valid = (
            f"its {CONFIG_FOLDER}/config.yaml is not of this version: {str(error).splitlines()[0]}"
        )
        raise ConfigError("resume", str(directory), valid) from None


def merge_overrides(
    stored: dict[str, Any], composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """The settings of an earlier run with those that the command line names besides.

    A section, as in norm=post_ln, is taken whole; after experiment=... all of the command line.
    Where the token cache is, the earlier run does not say.
    """
    names = [override.lstrip("+").split("=", 1)[0] for override in overrides]
    if "experiment" in names:
        return dict(composed)
    values = {**stored, "resume": composed["resume"], "sweep": composed["sweep"]}
    values["data"] = {**stored["data"], "cache_dir": composed["data"]["cache_dir"]}
    for name in names:
        *parents, last = name.split(".")
        there, here = values, composed
        for parent in parents:
            there[parent] = dict(there[parent])
            there, here = there[parent], here[parent]
        there[last] = here[last]
    return values


def check_resumable(settings: Settings, stored: dict[str, Any], step: int) -> None:
    """Raise ConfigError unless a run with the `stored` settings, at `step`, can go on under these.

    What cannot change a result may differ, and trainer.steps where every learning rate so far is
    the same under the new number of steps.
    """
    told = dict(flatten(result_settings(dataclasses.asdict(settings))))
    before = dict(flatten(result_settings(with_new_names(stored))))
    for name in {**before, **told}:
        old, new = before.get(name), told.get(name)
        if old == new:
            continue
        reason = "cannot change when a run goes on"
        if name == "trainer.steps" and isinstance(old, int) and isinstance(new, int):
            schedule, peak = settings.schedule, settings.optimizer.lr
            if new < step:
                reason = f"{step} are done already"
            elif all(
                learning_rate(schedule, peak, done, old) == learning_rate(schedule, peak, done, new)
                for done in range(step)
            ):
                continue
            else:
                reason = f"cannot change under schedule={schedule.name}, whose rates depend on it"
        raise ConfigError(name, new, f"was {old!r} in this run and {reason}")


def load_newest_state(directory: Path) -> State | None:
    """The newest checkpoint that is sound and whose rows are there; None where there is none.

    Damaged ones newer than it are renamed. Raises ConfigError where all are damaged.
    """

    def sound(state: State) -> None:
        try:
            for name, rows in state["records"]["rows"].items():
                line_end_offset(directory / name, rows + 1)
            dict(flatten(result_settings(state["settings"])))
            state["progress"], state["step"], state["versions"]["threads"]
        except (KeyError, TypeError, AttributeError, OSError) as error:
            raise ValueError(one_line(error)) from error

    try:
        state, damaged = newest_state(directory, sound)
    except FileNotFoundError:
        return None
    for path in damaged:
        os.replace(path, path.with_name(path.name + DAMAGED))
    return state


def resumed_threads(settings: Settings, state: State | None) -> int | None:
    """How many threads a run must go on with, since their number changes the last bits."""
    if settings.threads is not None or state is None:
        return settings.threads
    before, cores = int(state["versions"]["threads"]), os.cpu_count() or 1
    if before > cores:
        log.warning("the run began on %d threads and goes on with %d", before, cores)
    return min(before, cores)
