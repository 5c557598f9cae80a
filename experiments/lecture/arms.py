"""The step beyond the book: three training runs, with the norm before or after the sum."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose

from experiments.analysis.chapter import (
    arm_label,
    looked_at_steps,
    loss_words,
    ratio_words,
)
from experiments.analysis.histories import History
from experiments.analysis.lecture import RUNS, Check
from experiments.jobs.check import checked_settings
from experiments.jobs.launch import run
from experiments.machine.console import print_line, silenced
from experiments.machine.signals import SIGNAL_EXIT_BASE, Interrupted
from experiments.records.directory import locked, write_config
from experiments.records.summary import read_summary
from experiments.settings.compose import to_values
from experiments.settings.schema import Settings
from experiments.settings.typed import for_hydra, names_of
from gpt import ConfigError


def check_arms(settings: Settings, overrides: Sequence[str]) -> None:
    """Raise ConfigError for settings under which there would not be three different runs."""
    for name in names_of(overrides):
        if name == "norm" or name.startswith("norm.placement"):
            valid = "the lecture trains pre_ln and post_ln; leave it out"
            raise ConfigError(name, settings.norm.placement, valid)
    if settings.schedule.warmup_steps == 0:
        valid = "must be at least 1: Post-LN is trained with it and without"
        raise ConfigError("schedule.warmup_steps", 0, valid)


def train_arms(settings: Settings, overrides: Sequence[str], directory: Path) -> None:
    """Train Pre-LN without warm-up and Post-LN with it and without, each a run of its own."""
    warmup = settings.schedule.warmup_steps
    arms = (("pre_ln", 0), ("post_ln", warmup), ("post_ln", 0))
    print_line(f"\ntraining {len(arms)} runs of {settings.trainer.steps} steps")
    for norm, steps in arms:
        folder = directory / RUNS / f"{norm}-warmup{steps}"
        train([*overrides, f"norm={norm}", f"schedule.warmup_steps={steps}"], folder)


def train(overrides: Sequence[str], directory: Path) -> None:
    """One run, with the settings of the command but for those that differ.

    As a job of a sweep: on one thread, unless the command says more, and without a page.
    """
    own = [*overrides, "runner=train", "wandb.mode=disabled", "pictures=false"]
    values = to_values(compose("config", [*map(for_hydra, own)]))
    settings = checked_settings(values)
    directory.mkdir(parents=True)
    with locked(directory), silenced(bars=True):
        write_config(directory, values, own)
        code = run(settings, own, directory, in_sweep=True)
    if code > SIGNAL_EXIT_BASE:
        raise Interrupted(code - SIGNAL_EXIT_BASE)
    if code:
        raise RuntimeError(f"{directory.name}: {read_summary(directory).error}")


def arm_checks(arms: Sequence[History]) -> Iterator[Check]:
    """What the runs came to."""
    for arm in arms:
        what = f"validation loss (nats), {arm_label(arm)}"
        yield Check.alone("placement", what, loss_words(arm))
    frequencies = arms[0].run.summary.corpus.unigram_validation_loss
    what = "validation loss (nats) of token frequencies alone"
    yield Check.alone("placement", what, f"{frequencies:.3f}")
    for arm in arms:
        for step in dict.fromkeys(looked_at_steps(arm)):
            what = f"gradient norm, last block over first block, step {step}, {arm_label(arm)}"
            yield Check.alone("placement", what, ratio_words(arm, step))
