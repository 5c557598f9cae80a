"""Hydra, made to read and merge the files of conf/ once for each choice, for the tests.

Of a composition's time nine tenths go into reading the files and the command's words, into the list
of the files that belong to the chosen options, and into their merging. None of it depends on what
was composed before, nor the list and the merging on the single values of a command, which are put
in afterwards.
"""

import dataclasses
import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import omegaconf
from hydra._internal import config_loader_impl as loader
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

import run

ConfigLoader = loader.ConfigLoaderImpl
parse = functools.lru_cache(1000)(omegaconf.base.parse)
list_files, merge = loader.create_defaults_list, ConfigLoader._compose_config_from_defaults_list
read_file, read_override = ConfigRepository.load_config, OverridesParser.parse_rule
map_choices = defaults_list._create_interpolation_map
lists: dict[str, DefaultsList] = {}
made: dict[Any, bytes] = {}


def compose_quickly() -> None:
    """From now on, in this process."""
    loader.create_defaults_list = create_defaults_list
    defaults_list._create_interpolation_map = create_interpolation_map
    ConfigLoader._compose_config_from_defaults_list = compose_config_from_defaults_list
    ConfigRepository.load_config = load_config
    OverridesParser.parse_rule = parse_rule
    # Each composition has the same references, whose parse trees are read alone.
    omegaconf.base.parse = omegaconf._utils.parse = parse


def once(key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, called once for a key: a copy, which may be changed.

    Pickle copies these many small objects several times as fast as `copy.deepcopy`.
    """
    if key not in made:
        made[key] = pickle.dumps(make())
    return pickle.loads(made[key])


def may_change(repo: IConfigRepository) -> bool:
    """Whether there are files among those to choose from that a test may have written."""
    return any(s.scheme() == "file" and s.path != run.CONF for s in repo.get_sources())


def create_defaults_list(
    repo: IConfigRepository, config_name: str, overrides_list: Sequence[Override], **how: Any
) -> DefaultsList:
    """By the choices among the overrides; the values come back with it."""
    if may_change(repo):
        return list_files(repo, config_name, overrides_list, **how)
    choices = [each for each in overrides_list if repo.group_exists(each.key_or_group)]
    values = [each for each in overrides_list if each not in choices]
    key = str((config_name, [each.input_line for each in choices], how))
    if key not in lists:
        lists[key] = list_files(repo, config_name, choices, **how)
    fixed = [each for each in values if not each.is_sweep_override()]
    of_choices = lists[key].config_overrides
    return dataclasses.replace(lists[key], config_overrides=[*of_choices, *fixed])


def create_interpolation_map(
    overrides: defaults_list.Overrides, children: Sequence[InputDefault], self_added: bool
) -> DictConfig:
    """What is chosen, where a file of the list has a name that depends on it."""
    if any(each.is_interpolation() for each in children if not each.is_self()):
        return map_choices(overrides, children, self_added)
    return OmegaConf.create()


def compose_config_from_defaults_list(
    self: loader.ConfigLoaderImpl, defaults: Sequence[ResultDefault], repo: IConfigRepository
) -> DictConfig:
    """A copy, which the values of a command may change."""
    if may_change(repo):
        return merge(self, defaults, repo)
    found: DictConfig = once(str(defaults), lambda: merge(self, defaults, repo))
    OmegaConf.clear_cache(found)  # in which the time of the first composition would be
    return found


def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    """A file, with the defaults that it names."""
    if may_change(self):
        return read_file(self, config_path)
    places = tuple(source.path for source in self.get_sources())
    found: ConfigResult | None = once((places, config_path), lambda: read_file(self, config_path))
    return found


def parse_rule(self: OverridesParser, text: str, rule: str) -> Any:
    """An argument of a command, or a part of one."""
    return once((rule, text), lambda: read_override(self, text, rule))
