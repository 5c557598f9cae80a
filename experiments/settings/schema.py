"""What can be set: the schema of `conf/`, where each field states its bounds and its default.

A field without a default stands in a YAML file of conf/: it is what that choice is about. What
`gpt` describes (norm, init, the sizes of a model) is taken from there, so that no field stands
twice. Names that stand in tables of other packages are checked in experiments/jobs/check.py.
"""

import re
from dataclasses import dataclass, fields
from typing import Any

from gpt import Architecture, ConfigError, GPTConfig, InitConfig, NormConfig
from gpt.checks import check_fields, setting
from gpt.config import MOST_TOKENS, check_options
from gpt.count import MEASURES, matched
from gpt.registry import ACTIVATIONS, FAMILIES

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bf16", "fp16", "tf32", "float64")
WANDB_MODES = ("offline", "online", "disabled")
WANDB_DETAILS = ("summary", "full")
RERUNS = ("failed", "all")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Architecture):
    """model: the sizes, under the names that `gpt.GPTConfig` gives them.

    vocab_size  null: the tokenizer's
    weights     a directory as the Hub has it, config.json and safetensors, from which the weights
                are read, and what is not typed of `model`, `norm` and `activation`; null: drawn
    """

    vocab_size: int | None = setting(None, at_least=1, at_most=MOST_TOKENS)  # type: ignore[assignment]
    weights: str | None = setting(None, newer=True)


@dataclass(frozen=True)
class DataSettings:
    """data: the text and its split.

    name         see experiments/data/corpus.py
    path         of data=text: a UTF-8 file or a folder of them; of data=tokens: a .bin file or a
                 folder of them, see experiments/data/shards.py
    train_share  of the tokens, the first of them; the rest is for validation; without effect where
                 the names of such files say it
    """

    name: str
    path: str | None = None
    train_share: float = setting(0.9, above=0, below=1)
    cache_dir: str = setting("outputs/.cache", affects_results=False)


@dataclass(frozen=True)
class TokenizerSettings:
    """tokenizer: how the text becomes tokens, see experiments/data/tokenizer.py.

    path  of tokenizer=pretrained: a tokenizer.json, or a directory that has one
    """

    name: str
    path: str | None = setting(None, newer=True)


@dataclass(frozen=True)
class OptimizerSettings:
    """optimizer: see experiments/training/optimizer.py.

    weight_decay  on matrices only
    betas         of adamw, and of muon for what AdamW updates there
    momentum      of sgd and muon
    """

    name: str
    lr: float = setting(at_least=0)
    weight_decay: float = setting(at_least=0)
    betas: list[float] | None = None
    momentum: float | None = setting(None, at_least=0, at_most=1)


@dataclass(frozen=True)
class ScheduleSettings:
    """schedule: the learning rate over the steps, see experiments/training/schedule.py.

    warmup_steps  Post-LN does not learn with much less than the default, see the README
    final_ratio   of the last rate to the peak
    """

    name: str
    warmup_steps: int = setting(200, at_least=0)
    final_ratio: float = setting(0.1, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """trainer: length, batch, precision, and how often to measure.

    steps             updates
    batch_size        windows per step and accumulation part
    sequence_length   tokens per window; null: the model's context length
    accumulate        parts of which each step's gradient is the mean
    clip              largest total gradient norm; null: off, so that gradients are seen as they are
    precision         float32; bf16, fp16 or tf32 for matrix products alone; or float64. Under fp16
                      the loss is scaled, and probes are taken in float32
    compile           whether PyTorch's compiler makes the step's kernels: minutes once, then faster
                      on a GPU; see docs/performance.md
    activation_checkpointing  keep each block's input alone and compute the rest again in the
                      backward pass: less memory, about a third more time, the same numbers
    eval_every        steps between two evaluations
    eval_tokens       of the validation part, the same each time; at least one window
    probe_every       steps between two probes (activations, weights, updates, gradients per
                      tensor); null: never
    probe_tokens      of the validation part, the same each time; at least one window, at most a
                      training batch
    end_probes        once, at the end: loss without each block, gradients of single windows
    mixing            before the first step and at the end: how much of the stream each sublayer
                      wrote, into mixing.csv
    mixing_every      steps between two more of these in between; null: none
    log_every         steps between two rows; null: every step, coarser where gradients.csv would
                      exceed 50 MB
    checkpoint_every  steps between two checkpoints; null: at the end only
    keep              checkpoints, the newest among them
    keep_best         also best.pt, with the least validation loss
    """

    steps: int = setting(at_least=1)
    batch_size: int = setting(at_least=1, at_most=1_000_000)
    sequence_length: int | None = setting(None, at_least=1)
    accumulate: int = setting(1, at_least=1, at_most=1_000_000)
    clip: float | None = setting(None, above=0)
    precision: str = setting("float32", choices=PRECISIONS)
    compile: bool = setting(False, newer=True)
    activation_checkpointing: bool = setting(False, newer=True)
    eval_every: int = setting(at_least=1)
    eval_tokens: int = setting(at_least=1, at_most=MOST_TOKENS)
    probe_every: int | None = setting(at_least=1)
    probe_tokens: int = setting(512, at_least=1)
    end_probes: bool = True
    mixing: bool = setting(False, newer=True)
    mixing_every: int | None = setting(None, at_least=1, newer=True)
    log_every: int | None = setting(None, at_least=1)
    checkpoint_every: int | None = setting(at_least=1, affects_results=False)
    keep: int = setting(2, at_least=1, affects_results=False)
    keep_best: bool = setting(False, affects_results=False)

    @property
    def rows(self) -> int:
        """Windows of one step."""
        return self.batch_size * self.accumulate


@dataclass(frozen=True)
class GenerateSettings:
    """generate: the text written after training, or from a checkpoint.

    checkpoint   of experiment=generate: a run's directory or its checkpoint.pt; null: an untrained
                 model as the other settings describe it
    prompt       null: the first words of the validation text
    tokens       to write
    temperature  0: the most likely token each time
    top_k        draw among the k most likely tokens; null: among all
    top_p        among these the fewest of the most likely that have this probability together, at
                 the temperature; null: all
    """

    checkpoint: str | None = None
    prompt: str | None = None
    tokens: int = setting(60, at_least=0)
    temperature: float = setting(0.8, at_least=0)
    top_k: int | None = setting(50, at_least=1)
    top_p: float | None = setting(None, above=0, at_most=1, newer=True)


@dataclass(frozen=True)
class ExportSettings:
    """export: a run's model as a directory that other libraries read, see docs/running.md.

    checkpoint  a run's directory or its checkpoint.pt
    family      the Hub's `model_type` to write it as; null: the one that it fits
    dtype       of the numbers in the files
    """

    checkpoint: str | None = setting(None, newer=True)
    family: str | None = setting(None, choices=FAMILIES, newer=True)
    dtype: str = setting("float32", choices=("float32", "bfloat16", "float16"), newer=True)


@dataclass(frozen=True)
class InitGradientsSettings:
    """init_gradients: how many draws of the weights, and batches for each."""

    seeds: int = setting(5, at_least=1)
    batches: int = setting(4, at_least=1)


@dataclass(frozen=True)
class PaperFigureSettings:
    """paper_figure: a published figure that is measured again, see docs/sweeps.md.

    name     which
    seeds    draws of every model
    batches  that a gradient is averaged over
    depths   numbers of blocks, where the figure is about the depth
    """

    name: str = setting("xiong_figure_3", newer=True)
    seeds: int = setting(3, at_least=1, newer=True)
    batches: int = setting(8, at_least=1, newer=True)
    depths: list[int] = setting(factory=lambda: [6, 8, 10, 12, 14], at_least=1, newer=True)


@dataclass(frozen=True)
class ClaimsSettings:
    """claims: which claims are measured, and how much.

    budget      how many looks: quick, standard or full; see experiments/claims/board.py
    only        names with commas between; null: all that the budget allows
    first_seed  null: each claim's registered seeds; with others its measurement is exploratory
    runs        where looks and training runs are kept, which are not repeated the next time
    """

    budget: str = "standard"
    only: str | None = None
    first_seed: int | None = setting(None, at_least=0, newer=True)
    runs: str = setting("outputs/claims", affects_results=False)


@dataclass(frozen=True)
class AtlasSettings:
    """atlas: which placements the atlas shows, and where it keeps what it measured.

    only    names with commas between; null: all
    runs    runs and times that are there are not measured again
    rounds  in each of which a placement and Pre-LN take a step, to compare their times; 0: none
    timed   what the models that are timed are given beside the settings of the runs: these are so
            small that calls take most of a step
    """

    only: str | None = setting(None, newer=True)
    runs: str = setting("outputs/atlas", affects_results=False)
    rounds: int = setting(10, at_least=0, at_most=1000, affects_results=False)
    timed: list[str] = setting(factory=list, affects_results=False)


@dataclass(frozen=True)
class WandbSettings:
    """wandb: whether and where W&B records.

    detail  summary: at most 60 names, in sections, of some blocks; full: all that the catalogue has
            followed, 1,000 names and more, as version 0.5.0 logged them
    group   null: none; in a sweep, the job's values without its seed, so that a group is an arm
    name    null: the run's directory
    tags    in a sweep, the sweep's directory and the job's choices are added
    """

    mode: str = setting("offline", choices=WANDB_MODES)
    detail: str = setting("summary", choices=WANDB_DETAILS)
    project: str = "normscope"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = setting(factory=list)


@dataclass(frozen=True)
class SweepSettings:
    """sweep: which jobs of a grid run again, and what they leave.

    rerun             null: those that neither finished nor diverged; failed: those that failed and
                      no others; all: every job
    keep_checkpoints  whether a job that finished or diverged keeps its checkpoints; one that can
                      go on always does
    """

    rerun: str | None = setting(None, choices=RERUNS)
    keep_checkpoints: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that one run is given.

    change    what conf/change adds to the model; null: nothing
    match     parameters or flops: let the feed-forward layers be as wide as a GPT-2 of these sizes
              has as many parameters, or as many operations for each token; null: as set
    threads   of the CPU; null: all cores, and one in a sweep, so that a parallel one agrees
    resume    the directory of a run to continue
    pictures  drawn at the end; `python -m experiments.plots DIR` draws them at any time
    """

    runner: str
    seed: int = setting(0, at_least=0, at_most=2**63 - 1)
    device: str = setting("auto", choices=DEVICES)
    threads: int | None = setting(None, at_least=1, at_most=1024)
    resume: str | None = setting(None, affects_results=False)
    pictures: bool = setting(True, affects_results=False)
    activation: str = setting("gelu", choices=ACTIVATIONS)
    shortcut: bool = True
    change: str | None = setting(None, newer=True)
    match: str | None = setting(None, choices=MEASURES, newer=True)
    norm: NormConfig
    model: ModelSettings
    init: InitConfig
    data: DataSettings
    tokenizer: TokenizerSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    trainer: TrainerSettings
    generate: GenerateSettings = GenerateSettings()
    export: ExportSettings = ExportSettings()
    init_gradients: InitGradientsSettings = InitGradientsSettings()
    paper_figure: PaperFigureSettings = setting(factory=PaperFigureSettings, newer=True)
    claims: ClaimsSettings = ClaimsSettings()
    atlas: AtlasSettings = AtlasSettings()
    wandb: WandbSettings = setting(factory=WandbSettings, affects_results=False)
    sweep: SweepSettings = setting(SweepSettings(), affects_results=False)

    def check(self) -> None:
        """Raise ConfigError for the first value that no run could use."""
        check_fields(self)
        check_options(self.norm)
        betas = self.optimizer.betas
        if betas is not None and not (
            len(betas) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in betas)
        ):
            raise ConfigError("optimizer.betas", betas, "must be two numbers in [0, 1)")
        if self.sequence_length > self.model.context_length:
            valid = f"must be at most model.context_length={self.model.context_length}"
            raise ConfigError("trainer.sequence_length", self.sequence_length, valid)
        self.model_config(self.model.vocab_size or 1)

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The model's description, for a tokenizer of `vocab_size` tokens."""
        config = self.described(vocab_size)
        try:
            return config if self.match is None else matched(config, self.match)
        except ConfigError as error:
            raise under_typed_names(error) from None

    def described(self, vocab_size: int) -> GPTConfig:
        """The same before `match` chooses a width."""
        configured = self.model.vocab_size
        if configured is not None and configured < vocab_size:
            valid = f"tokenizer={self.tokenizer.name} needs {vocab_size}"
            raise ConfigError("model.vocab_size", configured, valid)
        sizes: dict[str, Any] = {f.name: getattr(self.model, f.name) for f in fields(Architecture)}
        sizes["vocab_size"] = configured or vocab_size
        chosen = {f.name: getattr(self, f.name) for f in fields(GPTConfig) if f.name not in sizes}
        try:
            return GPTConfig(**sizes, **chosen)
        except ConfigError as error:
            raise under_typed_names(error) from None

    @property
    def sequence_length(self) -> int:
        """Tokens per training window."""
        return self.trainer.sequence_length or self.model.context_length


MODEL = "|".join(field.name for field in fields(Architecture))


def under_typed_names(error: ConfigError) -> ConfigError:
    """An error of a model's description, its fields as they are typed."""
    return ConfigError(as_typed_in(error.field), error.value, as_typed_in(error.valid))


def as_typed_in(words: str) -> str:
    """`words` with `model.` before those fields of GPTConfig that are typed with it."""
    return re.sub(rf"(?<![\w.])(?=({MODEL})($|=|\.\w| of | above ))", "model.", words)
