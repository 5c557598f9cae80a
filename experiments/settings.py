"""What can be set: the schema of `conf/`, and the way from Hydra's config to plain objects.

Every value stands in a YAML file; this module states types only. Fields without a default here
must be given there.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from gpt import ConfigError, GPTConfig
from gpt.checks import check_choice, check_number, check_whole
from gpt.registry import choice_hint

S = TypeVar("S")

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bf16", "float64")
WANDB_MODES = ("offline", "online", "disabled")
RERUNS = ("failed", "all")


@dataclass
class NormSettings:
    """norm: where the norms stand, and their kind."""

    placement: str = MISSING
    kind: str = MISSING
    eps: float = MISSING
    final: bool | None = MISSING
    qk: bool | None = MISSING
    fraction: float | None = MISSING  # this and below: parameters of single placements
    embedding_norm: bool | None = MISSING
    scale_start: float | None = MISSING


@dataclass
class ModelSettings:
    """model: the sizes, under the names that `gpt.GPTConfig` gives them."""

    vocab_size: int | None = MISSING  # null: the tokenizer's
    context_length: int = MISSING
    emb_dim: int = MISSING
    n_heads: int = MISSING
    n_layers: int = MISSING
    drop_rate: float = MISSING
    qkv_bias: bool = MISSING
    bias: bool = MISSING
    causal: bool = MISSING
    ff_ratio: float = MISSING
    tie_head: bool = MISSING


@dataclass
class InitSettings:
    """init: how the weights are drawn."""

    scheme: str = MISSING
    std: float = MISSING


@dataclass
class DataSettings:
    """data: the text and its split."""

    name: str = MISSING
    path: str | None = MISSING
    train_share: float = MISSING
    cache_dir: str = MISSING


@dataclass
class TokenizerSettings:
    """tokenizer: how the text becomes tokens."""

    name: str = MISSING


@dataclass
class OptimizerSettings:
    """optimizer: AdamW or SGD."""

    name: str = MISSING
    lr: float = MISSING
    weight_decay: float = MISSING
    betas: list[float] | None = MISSING
    momentum: float | None = MISSING


@dataclass
class ScheduleSettings:
    """schedule: the learning rate over the steps."""

    name: str = MISSING
    warmup_steps: int = MISSING
    final_ratio: float = MISSING


@dataclass
class TrainerSettings:
    """trainer: length, batch, precision, and how often to measure."""

    steps: int = MISSING
    batch_size: int = MISSING
    sequence_length: int | None = MISSING  # null: the model's context length
    accumulate: int = MISSING
    clip: float | None = MISSING  # null: off
    precision: str = MISSING
    eval_every: int = MISSING
    eval_tokens: int = MISSING  # at least one window
    probe_every: int | None = MISSING  # null: never
    probe_tokens: int = MISSING  # at least one window, at most a training batch
    end_probes: bool = MISSING  # those that cost too much for every probe
    log_every: int | None = MISSING  # null: 1, coarser where gradients.csv would exceed 50 MB
    checkpoint_every: int | None = MISSING  # null: at the end only
    keep: int = MISSING  # checkpoints, the newest among them
    keep_best: bool = MISSING  # the one with the least validation loss, too


@dataclass
class GenerateSettings:
    """generate: the text written after training, or from a checkpoint."""

    checkpoint: str | None = MISSING
    prompt: str | None = MISSING  # null: the first words of the validation text
    tokens: int = MISSING
    temperature: float = MISSING
    top_k: int | None = MISSING


@dataclass
class InitGradientsSettings:
    """init_gradients: how many draws."""

    seeds: int = MISSING
    batches: int = MISSING


@dataclass
class ClaimsSettings:
    """claims: which claims are measured, and how much for it."""

    budget: str = MISSING
    only: str | None = MISSING  # names with commas between; null: all that the budget allows
    runs: str = MISSING  # where training runs are kept, for the next time


@dataclass
class WandbSettings:
    """wandb: whether and where W&B records."""

    mode: str = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING  # null: none; in a sweep, the sweep's directory
    name: str | None = MISSING  # null: the run's directory
    tags: list[str] = MISSING


@dataclass
class SweepSettings:
    """sweep: which jobs of a grid run again."""

    rerun: str | None = MISSING  # null: those without an answer; failed: no others; all


@dataclass
class Settings:
    """Everything one run is told. Made by `from_hydra`, checked by `check`."""

    runner: str = MISSING
    seed: int = MISSING
    device: str = MISSING
    threads: int | None = MISSING  # null: all cores, one in a sweep
    resume: str | None = MISSING  # a run's directory, to go on there
    pictures: bool = MISSING
    activation: str = MISSING
    shortcut: bool = MISSING
    norm: NormSettings = MISSING
    model: ModelSettings = MISSING
    init: InitSettings = MISSING
    data: DataSettings = MISSING
    tokenizer: TokenizerSettings = MISSING
    optimizer: OptimizerSettings = MISSING
    schedule: ScheduleSettings = MISSING
    trainer: TrainerSettings = MISSING
    generate: GenerateSettings = MISSING
    init_gradients: InitGradientsSettings = MISSING
    claims: ClaimsSettings = MISSING
    wandb: WandbSettings = MISSING
    sweep: SweepSettings = MISSING

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The model's description, for a tokenizer of `vocab_size` tokens."""
        room = self.model.vocab_size
        if room is not None and room < vocab_size:
            raise ConfigError(
                "model.vocab_size", room, f"tokenizer={self.tokenizer.name} needs {vocab_size}"
            )
        sizes = dataclasses.asdict(self.model) | {
            "vocab_size": vocab_size if room is None else room
        }
        return GPTConfig(
            **sizes,
            placement=self.norm.placement,
            shortcut=self.shortcut,
            norm=self.norm.kind,
            norm_eps=self.norm.eps,
            final_norm=self.norm.final,
            qk_norm=self.norm.qk,
            fraction=self.norm.fraction,
            embedding_norm=self.norm.embedding_norm,
            scale_start=self.norm.scale_start,
            activation=self.activation,
            init=self.init.scheme,
            init_std=self.init.std,
        )

    @property
    def sequence_length(self) -> int:
        """Tokens per training window."""
        return self.trainer.sequence_length or self.model.context_length

    def digest(self) -> str:
        """sha256 of all that can change a result."""
        return digest(dataclasses.asdict(self))

    def check(self) -> None:
        """Raise ConfigError for a value out of bounds; tables are asked in experiments/check.py."""
        check_whole("seed", self.seed, at_least=0)
        if self.seed >= 2**63:
            raise ConfigError("seed", self.seed, "must be below 2^63")
        check_choice("device", self.device, DEVICES)
        check_choice("trainer.precision", self.trainer.precision, PRECISIONS)
        check_choice("wandb.mode", self.wandb.mode, WANDB_MODES)
        if self.sweep.rerun is not None:
            check_choice("sweep.rerun", self.sweep.rerun, RERUNS)
        if not 0 < self.data.train_share < 1:
            raise ConfigError("data.train_share", self.data.train_share, "must lie between 0 and 1")
        for field, value in (
            ("threads", self.threads),
            ("trainer.steps", self.trainer.steps),
            ("trainer.batch_size", self.trainer.batch_size),
            ("trainer.sequence_length", self.trainer.sequence_length),
            ("trainer.accumulate", self.trainer.accumulate),
            ("trainer.eval_every", self.trainer.eval_every),
            ("trainer.eval_tokens", self.trainer.eval_tokens),
            ("trainer.probe_every", self.trainer.probe_every),
            ("trainer.probe_tokens", self.trainer.probe_tokens),
            ("trainer.log_every", self.trainer.log_every),
            ("trainer.checkpoint_every", self.trainer.checkpoint_every),
            ("trainer.keep", self.trainer.keep),
            ("init_gradients.seeds", self.init_gradients.seeds),
            ("init_gradients.batches", self.init_gradients.batches),
            ("generate.top_k", self.generate.top_k),
        ):
            if value is not None:
                check_whole(field, value, at_least=1)
        check_whole("generate.tokens", self.generate.tokens, at_least=0)
        check_whole("schedule.warmup_steps", self.schedule.warmup_steps, at_least=0)
        check_number("schedule.final_ratio", self.schedule.final_ratio, 0.0, 1.0)
        check_number("optimizer.lr", self.optimizer.lr, 0.0)
        check_number("optimizer.weight_decay", self.optimizer.weight_decay, 0.0)
        check_number("generate.temperature", self.generate.temperature, 0.0)
        if self.optimizer.momentum is not None:
            check_number("optimizer.momentum", self.optimizer.momentum, 0.0, 1.0)
        betas = self.optimizer.betas
        if betas is not None and not (
            len(betas) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in betas)
        ):
            raise ConfigError("optimizer.betas", betas, "must be two numbers in [0, 1)")
        if self.trainer.clip is not None and not 0 < self.trainer.clip < float("inf"):
            raise ConfigError("trainer.clip", self.trainer.clip, "must be positive, or null")
        if self.sequence_length > self.model.context_length:
            raise ConfigError(
                "trainer.sequence_length",
                self.sequence_length,
                f"must be at most model.context_length={self.model.context_length}",
            )


def file_name(text: str) -> str:
    """`text` as part of a file name: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+|^\.+", "_", text)[:80]


ConfigStore.instance().store(name="schema", node=Settings)
OmegaConf.register_new_resolver("file_name", file_name, replace=True)
OmegaConf.register_new_resolver("first_of", lambda *given: next(filter(None, given)), replace=True)


def telling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of nested settings, those that can change a result: not the logging, not the caches."""
    unheard = ("wandb", "sweep", "resume", "pictures")
    kept = {k: value for k, value in values.items() if k not in unheard}
    silent = {
        "data": {"cache_dir"},
        "claims": {"runs"},
        "trainer": {"checkpoint_every", "keep", "keep_best"},
    }
    for section, names in silent.items():
        if isinstance(kept.get(section), dict):
            kept[section] = {k: v for k, v in kept[section].items() if k not in names}
    return kept


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the nested settings that can change a result."""
    return hashlib.sha256(json.dumps(telling(values), sort_keys=True).encode()).hexdigest()


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names and values; a list as its JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as nested dictionaries, each value resolved, the home directory as ~."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], without_home(values))


def without_home(value: Any) -> Any:
    """`value` with ~ for the home directory, which records need not tell, wherever it stands."""
    if isinstance(value, dict):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_home(item) for item in value]
    home = str(Path.home())
    if isinstance(value, str) and len(home) > 1:
        return re.sub(rf"(?<![\w/.-]){re.escape(home)}(?=/|$)", "~", value)
    return value


def from_plain(values: Mapping[str, Any]) -> Settings:
    """Checked settings from nested dictionaries."""
    settings = build(Settings, values)
    settings.check()
    return settings


def build(cls: type[S], values: Any, prefix: str = "") -> S:
    """An instance of the dataclass `cls` from nested dictionaries; unknown keys are refused."""
    types = get_type_hints(cls)
    for key in values:
        if key not in types:
            raise ConfigError(prefix + str(key), values[key], unknown_setting(prefix + str(key)))
    made = {
        key: build(types[key], value, f"{prefix}{key}.")
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
