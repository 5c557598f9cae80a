"""Recorded runs: found and read by their summary.json, compared by their settings."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.records.summary import Summary, read_summary
from experiments.settings.identity import (
    SEEDS,
    defaults,
    flatten,
    newer_options,
    with_new_names,
)

log = logging.getLogger(__name__)

Value = str | float | int | bool | None
UNKNOWN = "unknown"
PLACEMENT = "norm.placement"
CHANGE = "change"  # names all that a file of conf/change sets
MODEL = "model"  # names all that a file of conf/model sets, see `name_models`
TIED = ("norm", "init")  # sections that a placement's YAML file may set
DERIVED_SIZES = ("model.vocab_size", "model.context_length")  # a size is named by its depth
COMPLETED = ("finished", "diverged")  # statuses of a run that has its result
UNFINISHED = ("running", "interrupted")  # of one that has not ended
STUCK_TOLERANCE = 0.01  # as a share of the loss of token frequencies
NOT_FINITE, LOSS_ROSE = "not finite", "loss rose"  # how a run diverged
# Nats by which a final loss is above the initial one where the loss rose: e times less probability
# for each token. A run that merely learns nothing ends at its initial loss, or below it.
RISE_MARGIN = 1.0

# Summaries of version 0.1.0 have no settings: which key has which setting.
KEYS_BEFORE_0_2 = {
    "runner": "runner",
    "placement": "norm.placement",
    "norm": "norm.kind",
    "shortcut": "shortcut",
    "activation": "activation",
    "init": "init.scheme",
    "n_layers": "model.n_layers",
    "emb_dim": "model.emb_dim",
    "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
    "warmup_steps": "schedule.warmup_steps",
    "steps": "trainer.steps",
}


@dataclass
class Run:
    """A run's directory, its summary, and its settings by dotted name."""

    directory: Path
    summary: Summary
    settings: dict[str, Value] = field(init=False)

    @classmethod
    def read(cls, directory: Path) -> "Run":
        """The run in `directory`; with an empty summary where there is none."""
        return cls(directory, read_summary(directory))

    def __post_init__(self) -> None:
        recorded = self.summary.settings
        if recorded is not None:
            named = with_new_names(recorded)
            self.settings = dict(flatten(named))
            for name, value in newer_options(named.get("norm") or {}).items():
                self.settings.setdefault(f"norm.options.{name}", value)
        else:
            found = {name: getattr(self.summary, key) for key, name in KEYS_BEFORE_0_2.items()}
            self.settings = {name: value for name, value in found.items() if value is not None}

    def setting(self, name: str) -> Value:
        """A setting by its dotted name; UNKNOWN where the run did not record it."""
        return self.settings.get(name, UNKNOWN)

    @property
    def divergence(self) -> str | None:
        """How it diverged, NOT_FINITE or LOSS_ROSE; None where it did not.

        Computed where it was not recorded: up to version 0.5 diverged meant not finite, and a run
        whose loss rose was called finished.
        """
        if self.summary.status == "diverged":
            return self.summary.divergence or NOT_FINITE
        losses = self.summary.initial_val_loss, self.summary.val_loss
        return LOSS_ROSE if self.summary.status == "finished" and loss_rose(*losses) else None

    @property
    def status(self) -> str:
        return "diverged" if self.divergence else self.summary.status or UNKNOWN

    @property
    def outcome(self) -> str:
        """The status, and of a run that diverged how it did."""
        return f"{self.status} ({self.divergence})" if self.divergence else self.status

    @property
    def made_all_steps(self) -> bool:
        """Whether it trained to its end, where it was measured and saved."""
        return self.status == "finished" or self.divergence == LOSS_ROSE

    @property
    def seed(self) -> int | None:
        return self.summary.seed

    @property
    def drawn_seeds(self) -> tuple[int, int] | None:
        """The first seed from which it drew weights, and how many follow it; None if unknown."""
        summary = self.summary
        first = summary.seed if summary.first_seed is None else summary.first_seed
        return None if first is None else (first, summary.seeds or 1)

    @property
    def reason(self) -> str:
        """Why it failed or diverged; empty where it did not."""
        if self.divergence == LOSS_ROSE and not self.summary.reason:  # of an older version
            return describe_rise(self.summary)
        return self.summary.error or self.summary.reason or ""

    @property
    def is_stuck(self) -> bool:
        """Whether it finished without learning.

        Computed from its losses, since older versions did not record it.
        """
        frequencies = self.summary.corpus.unigram_validation_loss
        return self.status == "finished" and is_stuck(self.summary.val_loss, frequencies)


def is_stuck(val_loss: float | None, frequencies: float | None) -> bool:
    """Whether a final loss is that of a model that learned no more than token frequencies.

    That is above 99 % of `frequencies`, the validation loss of token frequencies alone. False where
    either was not measured.
    """
    if val_loss is None or frequencies is None:
        return False
    return val_loss > (1 - STUCK_TOLERANCE) * frequencies


def loss_rose(initial: float | None, final: float | None) -> bool:
    """Whether a final validation loss is more than RISE_MARGIN above the initial one."""
    return initial is not None and final is not None and final > initial + RISE_MARGIN


def describe_rise(summary: Summary) -> str:
    """The losses of a run whose loss rose, in words."""
    initial, final = (
        f"{loss:,.0f}" if loss is not None and 1e3 <= loss < 1e6 else f"{loss:.3g}"
        for loss in (summary.initial_val_loss, summary.val_loss)
    )
    return f"validation loss rose from {initial} to {final} nats"


def find_runs(folder: Path) -> list[Run]:
    """Every run in `folder` or below it, in the order of their paths."""
    directories = [folder] if (folder / "summary.json").is_file() else []
    directories += sorted(
        path.parent
        for path in folder.glob("*/**/summary.json")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and "wandb" not in path.relative_to(folder).parts
    )
    runs = [Run.read(directory) for directory in directories]
    runs = [run for run in runs if run.summary != Summary()]
    name_texts(runs)
    for run in runs:
        if run.summary.settings is None:
            path = run.directory / "summary.json"
            log.warning("%s is from an older version: few of its settings are known", path)
    return runs


def runs_in(folders: Sequence[Path]) -> list[Run]:
    """The runs of several folders, each once; a folder without any costs a warning."""
    runs: dict[Path, Run] = {}
    for folder in folders:
        found = find_runs(folder)
        if not found:
            log.warning("%s holds no runs", folder)
        runs |= {run.directory.resolve(): run for run in found}
    name_texts(list(runs.values()))  # across the folders
    return once_each(list(runs.values()))


def once_each(runs: Sequence[Run]) -> list[Run]:
    """The runs without repetitions: two runs of equal settings and seed would count as two seeds.

    The first completed one is used; a warning names the others.
    """
    used: dict[object, Run] = {}
    usual = dict(flatten(defaults()))
    for run in sorted(runs, key=lambda run: run.status not in COMPLETED):
        key = identity_of(run, usual)
        first = used.setdefault(key, run)
        if first is not run:
            log.warning("%s repeats %s and is left out", run.directory, first.directory)
    return [run for run in runs if any(run is other for other in used.values())]


def identity_of(run: Run, usual: Mapping[str, object]) -> object:
    """What repetitions of a run share: all settings but the usual, of which 0.4 lacked some.

    The hash of version 0.4 is another, since settings had other names. Runs that recorded no
    settings are distinguished by their hash, those without one by their directory.
    """
    if run.summary.settings_sha256 is None:
        return run.directory
    if run.summary.settings is None:
        return run.summary.settings_sha256
    return frozenset((n, v) for n, v in run.settings.items() if n not in usual or usual[n] != v)


def warn_of_shared_seeds(runs: Sequence[Run]) -> None:
    """Warn of runs that differ in their seed alone and drew the same weights all the same."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        settings = frozenset((name, v) for name, v in run.settings.items() if name != "seed")
        group = groups.setdefault(settings, [])
        for other in group:
            if share_seeds(run.drawn_seeds, other.drawn_seeds):
                text = "%s and %s drew models from the same seeds: they are not independent"
                log.warning(text, run.directory, other.directory)
                break
        group.append(run)


def share_seeds(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two blocks of seeds, a first one and their number, overlap modulo SEEDS."""
    if one is None or other is None:
        return False
    return (other[0] - one[0]) % SEEDS < one[1] or (one[0] - other[0]) % SEEDS < other[1]


def name_texts(runs: Sequence[Run]) -> None:
    """Let data.path be equal in runs on equal texts, and differ where the texts differ.

    The content decides: of several paths of one text the first stands for all, and where a file was
    changed between two runs, the second text's name has the beginning of its sha256.
    """
    names: dict[str, str] = {}  # by sha256
    for run in runs:
        path, sha256 = run.settings.get("data.path"), run.summary.corpus.sha256
        if path is not None and sha256 is not None:
            name = str(path) if path not in names.values() else f"{path} ({sha256[:8]})"
            run.settings["data.path"] = names.setdefault(sha256, name)


def name_models(runs: Sequence[Run]) -> None:
    """Let MODEL be a setting of runs that chose different models by name, as model=gpt2_124m."""
    names = [model_name(run) for run in runs]
    if None not in names and len(set(names)) > 1:
        for run, name in zip(runs, names, strict=True):
            run.settings = {MODEL: name, **run.settings}


def model_name(run: Run) -> str | None:
    """The file of conf/model that the command chose; None where it chose none."""
    chosen = [item for item in run.summary.overrides or [] if item.startswith(f"{MODEL}=")]
    return chosen[-1].partition("=")[2] if chosen else None


def needs_run(directory: Path, rerun: str | None) -> bool:
    """Whether a job of a sweep must run, by the status that its directory has.

    rerun  sweep.rerun: None runs what has not finished or diverged; failed runs failed jobs only
    """
    status = read_summary(directory).status
    if rerun == "failed":
        return status == "failed"
    return rerun == "all" or status not in COMPLETED


def varying_settings(runs: Sequence[Run]) -> list[str]:
    """Names of the settings that differ between runs, without seed and text generation.

    Within a section, a setting that another one determines is left out: of optimizer=adamw,sgd only
    the name is listed, not the learning rate that each sets. The same holds for an initialisation
    that the placement determines, and for all that a change or a named model does.
    """
    varying: list[str] = []
    names = differing_settings(runs)
    for name in sorted(names, key=lambda name: name in DERIVED_SIZES):
        section = name.rpartition(".")[0]
        determining = [v for v in varying if section and v.rpartition(".")[0] == section]
        determining += [v for v in (CHANGE, MODEL) if v in names and name not in (v, CHANGE, MODEL)]
        if section in TIED and PLACEMENT in names and name != PLACEMENT:
            determining.append(PLACEMENT)
        if not any(is_determined_by(runs, name, other) for other in determining):
            varying.append(name)
    return varying


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Names of all settings that differ between runs, without seed and text generation.

    Runs that did not record a setting, as those of older versions, do not count as different.
    """
    return [
        name
        for name in dict.fromkeys(name for run in runs for name in run.settings)
        if name != "seed"
        and not name.startswith("generate.")
        and len({run.settings[name] for run in runs if name in run.settings}) > 1
    ]


def is_determined_by(runs: Sequence[Run], name: str, other: str) -> bool:
    """Whether runs with the same value of `other` always have the same value of `name`."""
    pairs = {(run.setting(other), run.setting(name)) for run in runs}
    return len(pairs) == len({first for first, _ in pairs})


def result_columns(summary: Summary) -> dict[str, Value]:
    """What a run came to, flat: the columns of runs.csv after its settings and its status."""
    first, last = summary.grad_norm.first_step, summary.grad_norm.last_step
    return {
        "init": summary.init,
        "final_norm": summary.final_norm,
        "steps": summary.steps,
        "tokens": summary.tokens,
        "diverged_at_step": summary.diverged_at_step,
        "train_loss": summary.train_loss,
        "val_loss": summary.val_loss,
        "val_bits_per_byte": summary.val_bits_per_byte,
        "initial_val_loss": summary.initial_val_loss,
        "unigram_validation_loss": summary.corpus.unigram_validation_loss,
        "stuck": summary.stuck,
        "spikes": summary.spikes,
        "clip_share": summary.clip_share,
        "grad_norm_first_block_initial": first.first_block,
        "grad_norm_last_block_initial": first.last_block,
        "grad_norm_first_block_final": last.first_block,
        "grad_norm_last_block_final": last.last_block,
        "parameters": summary.parameters,
        "peak_memory_mb": summary.peak_memory_mb,
        "tokens_per_s": summary.tokens_per_s,
        "training_seconds": summary.training_seconds,
        "seconds": summary.seconds,
        "active_parameters": summary.active_parameters,
        "ff_dim": summary.ff_dim,
        "flops_per_token": summary.flops_per_token,
        "cache_bytes": summary.cache_bytes,
    }


def sort_key(value: Value) -> tuple[int, float, str]:
    """A sort key: absent values first, then numbers by size, then text, numbers in it by size."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, re.sub(r"\d+", lambda number: number[0].zfill(9), str(value)))
