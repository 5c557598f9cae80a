"""Hydra, made to read and merge the files of conf/ once for each choice, for the tests.

Of the 70 ms of a composition 55 go into the list of the files that belong to the chosen options and
into their merging. Neither depends on the single values of a command, which are put in afterwards.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import omegaconf
from hydra._internal import config_loader_impl as loader
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

import run

ConfigLoader = loader.ConfigLoaderImpl
parse = functools.lru_cache(1000)(omegaconf.base.parse)
list_files, merge = loader.create_defaults_list, ConfigLoader._compose_config_from_defaults_list
lists: dict[str, DefaultsList] = {}
merged: dict[str, DictConfig] = {}


def compose_quickly() -> None:
    """From now on, in this process."""
    loader.create_defaults_list = create_defaults_list
    ConfigLoader._compose_config_from_defaults_list = compose_config_from_defaults_list
    # Each composition has the same references, whose parse trees are read alone.
    omegaconf.base.parse = omegaconf._utils.parse = parse


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


def compose_config_from_defaults_list(
    self: loader.ConfigLoaderImpl, defaults: Sequence[ResultDefault], repo: IConfigRepository
) -> DictConfig:
    """A copy, which the values of a command may change."""
    if may_change(repo):
        return merge(self, defaults, repo)
    key = str(defaults)
    if key not in merged:
        merged[key] = merge(self, defaults, repo)
    found = copy.deepcopy(merged[key])
    OmegaConf.clear_cache(found)  # in which the time of the first composition would be
    return found
