"""Values from a config become checked Settings here, once for each run.

The names that a setting may have are in the tables of several packages (data, training, runners).
This module may import all of them, which the settings themselves must not.
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments.analysis.paper_figures import PAPER_FIGURES
from experiments.data.corpus import CORPORA
from experiments.data.tokenizer import TOKENIZERS
from experiments.runner import runner_names
from experiments.settings.compose import from_values
from experiments.settings.identity import defaults
from experiments.settings.schema import Settings, as_typed_in
from experiments.settings.shards import SHARDS, shards_of
from experiments.settings.weights import read_description
from experiments.training.optimizer import OPTIMIZERS, check_own
from experiments.training.schedule import SCHEDULES
from experiments.training.weights import check_fit
from gpt import ConfigError
from gpt.checks import check_choice
from gpt.needs import unmet


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
    check_choice("paper_figure.name", settings.paper_figure.name, PAPER_FIGURES)
    check_own(settings.optimizer)
    check_choice("schedule.name", settings.schedule.name, SCHEDULES)
    return settings


def check_weights(settings: Settings) -> None:
    """Raise ConfigError where a run would begin with weights that its model has no place for.

    Counting parameters needs none.
    """
    directory = settings.model.weights
    if directory is not None and settings.runner != "parameters":
        _, trained = read_description(directory)
        vocab_size = settings.model.vocab_size or trained.vocab_size
        check_fit(settings.model_config(vocab_size), trained, directory)


def check_effects(runs: Sequence[Settings], typed: Collection[str]) -> None:
    """Raise ConfigError for a setting that has no effect in any of a command's runs.

    typed  names of the settings on the command line, of all jobs where it is a sweep

    What a size brings may lose its effect by what is typed, or by a change that adds to it or takes
    away: `model=gpt_oss_20b model.position.kind=learned` is that size with learned positions.
    """
    found = [dict(without_effect(settings, typed)) for settings in runs]
    for name, (value, needed) in found[0].items() if found else ():
        if all(name in others for others in found):
            raise ConfigError(name, value, f"has no effect: it needs {needed}")


def without_effect(
    settings: Settings, typed: Collection[str]
) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Names of settings that say something, and have no effect; their values, and their needs.

    What is typed says something unless it is off; what a file has, unless it is the default.
    """
    config = settings.described(settings.model.vocab_size or 1)
    values, usual = asdict(settings), defaults()
    needs = unmet(config) | unmet_elsewhere(settings)
    of_files = settings.change is None and settings.model.weights is None
    for name, needed in ((as_typed_in(name), as_typed_in(words)) for name, words in needs.items()):
        value = inside(values, name)
        is_usual = value == inside(usual, name)
        if name in typed:
            says_something = bool(value) or not is_usual
        else:
            says_something = of_files and not is_usual and not is_decided(needed, typed)
        if says_something:
            yield name, (value, needed)


def unmet_elsewhere(settings: Settings) -> dict[str, str]:
    """What the settings lack for others to have an effect, of those outside the model."""
    data, needs = settings.data, dict[str, str]()
    if settings.model.weights is not None:
        needs |= dict.fromkeys(("init.std", "init.embedding_std"), "model.weights=null")
    if settings.match:
        needs["feed_forward.ratio"] = "match=null"
    if data.name not in ("text", SHARDS):
        needs["data.path"] = f"data=text or data={SHARDS}"
    elif data.name == SHARDS and len(shards_of(data.path)) > 1:
        needs["data.train_share"] = "files that do not say by their names which are for training"
    if not settings.trainer.mixing:
        needs["trainer.mixing_every"] = "trainer.mixing=true"
    if settings.generate.temperature == 0:
        needs |= dict.fromkeys(("generate.top_k", "generate.top_p"), "generate.temperature above 0")
    return needs


def inside(values: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name in nested values."""
    return functools.reduce(lambda part, key: part[key], name.split("."), values)


def is_decided(needed: str, typed: Collection[str]) -> bool:
    """Whether what decides over a setting's effect is typed, or the choice that it is a part of.

    A placement may bring the initialisation of its paper.
    """
    decides = needed.split("=")[0].split(" ")[0]
    chosen = {*typed, "init"} if "norm" in typed else {*typed}
    return any(f"{decides}.".startswith(f"{name}.") for name in chosen - {"model"})
