"""What can be set: the schema of `conf/`.

Every value stands in a YAML file; this module states types only. Fields without a default here
must be given there.
"""

import dataclasses
from dataclasses import dataclass

from omegaconf import MISSING

from experiments.settings.identity import digest
from gpt import (
    AttentionConfig,
    ConfigError,
    FeedForwardConfig,
    GPTConfig,
    InitConfig,
    NormConfig,
)
from gpt.checks import Valid, check_choice, check_number

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bf16", "float64")
WANDB_MODES = ("offline", "online", "disabled")
RERUNS = ("failed", "all")
SHARE, NOT_NEGATIVE = Valid(at_least=0, at_most=1), Valid(at_least=0)


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
        model, norm = self.model, self.norm
        options = {
            "fraction": norm.fraction,
            "embedding_norm": norm.embedding_norm,
            "scale_start": norm.scale_start,
        }
        return GPTConfig(
            vocab_size=vocab_size if room is None else room,
            context_length=model.context_length,
            emb_dim=model.emb_dim,
            n_heads=model.n_heads,
            n_layers=model.n_layers,
            drop_rate=model.drop_rate,
            qkv_bias=model.qkv_bias,
            bias=model.bias,
            tie_head=model.tie_head,
            shortcut=self.shortcut,
            norm=NormConfig(
                norm.placement,
                norm.kind,
                norm.eps,
                norm.final,
                norm.qk,
                {name: value for name, value in options.items() if value is not None},
            ),
            attention=AttentionConfig(model.causal),
            feed_forward=FeedForwardConfig(self.activation, model.ff_ratio),
            init=InitConfig(self.init.scheme, self.init.std),
        )

    @property
    def sequence_length(self) -> int:
        """Tokens per training window."""
        return self.trainer.sequence_length or self.model.context_length

    def digest(self) -> str:
        """sha256 of all that can change a result."""
        return digest(dataclasses.asdict(self))

    def check(self) -> None:
        """Raise ConfigError for a value out of bounds; names: experiments/jobs/check.py."""
        check_number("seed", self.seed, int, Valid(at_least=0))
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
                check_number(field, value, int, Valid(at_least=1))
        check_number("generate.tokens", self.generate.tokens, int, Valid(at_least=0))
        check_number("schedule.warmup_steps", self.schedule.warmup_steps, int, Valid(at_least=0))
        check_number("schedule.final_ratio", self.schedule.final_ratio, float, SHARE)
        check_number("optimizer.lr", self.optimizer.lr, float, NOT_NEGATIVE)
        check_number("optimizer.weight_decay", self.optimizer.weight_decay, float, NOT_NEGATIVE)
        check_number("generate.temperature", self.generate.temperature, float, NOT_NEGATIVE)
        if self.optimizer.momentum is not None:
            check_number("optimizer.momentum", self.optimizer.momentum, float, SHARE)
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
