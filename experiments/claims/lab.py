"""What a claim's measurement uses: models from the config, batches, and training runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from hydra import compose
from torch import Tensor

from experiments.analysis.runs import Run
from experiments.claims.claim import CLAIMS
from experiments.data.corpus import Corpus, load_corpus
from experiments.jobs.check import checked_settings
from experiments.settings.compose import to_values
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from gpt import GPT, GPTConfig


@dataclass(frozen=True)
class Budget:
    """How much is measured.

    seeds         number of seeds at initialisation in the theory's setting
    few           the same in other settings
    many          the same where seeds differ much
    width         emb_dim in the theory's setting
    depths        n_layers in the theory's setting
    gpt_depths    n_layers of a GPT at initialisation
    runs          number of seeds of each training arm; 0 leaves training claims out
    steps         of a training run: for the warm-up claim, and for all others. Warm-up, where there
                  is any, takes a third of them
    rates         learning rates of the claim about sensitivity
    rate_depths   n_layers of that claim: the fewer, the more
    probed_depth  n_layers of the trained models that end probes measure
    deep          n_layers of the claims about training without warm-up
    """

    seeds: int
    few: int
    many: int
    width: int
    depths: tuple[int, ...]
    gpt_depths: tuple[int, ...]
    runs: int
    steps: tuple[int, int]
    rates: tuple[str, ...]
    rate_depths: tuple[int, int]
    probed_depth: int
    deep: int

    def placeholders(self) -> dict[str, object]:
        """Values of the {placeholders} in the settings of claims."""
        return {
            "width": self.width,
            "warm_up_steps": self.steps[0],
            "steps": self.steps[1],
            "rates": ", ".join(self.rates),
            "fewer": self.rate_depths[0],
            "more": self.rate_depths[1],
            "inside": self.probed_depth,
            "third": self.probed_depth // 3,
            "deep": self.deep,
        }


DEPTHS = (2, 4, 8, 16, 32)
STANDARD = Budget(
    seeds=10,
    few=5,
    many=20,
    width=256,
    depths=DEPTHS,
    gpt_depths=DEPTHS,
    runs=3,
    steps=(300, 200),
    rates=("3e-3", "1e-2", "3e-2", "1e-1"),
    rate_depths=(2, 4),
    probed_depth=8,
    deep=12,
)
BUDGETS = {
    "quick": replace(STANDARD, many=10, width=128, gpt_depths=DEPTHS[:-1], runs=0),
    "standard": STANDARD,
    "full": Budget(
        seeds=30,
        few=10,
        many=100,
        width=256,
        depths=(*DEPTHS, 64),
        gpt_depths=(*DEPTHS, 64),
        runs=5,
        steps=(1000, 1000),
        rates=("3e-4", "1e-3", *STANDARD.rates, "3e-1"),
        rate_depths=(6, 12),
        probed_depth=16,
        deep=24,
    ),
}


class Lab:
    """Gives measurements their models, batches and training runs.

    base       settings of the command: budget and first seed of the claims
    overrides  of the command that hold for every model and run, such as device=cpu
    runs       of the arms of training claims, by the arm's overrides; in the order of the seeds
    """

    def __init__(self, settings: Settings, overrides: Sequence[str] = ()) -> None:
        self.base, self.overrides = settings, list(overrides)
        self.budget = BUDGETS[settings.claims.budget]
        self.device = torch.device("cpu")  # mps has no float64
        self.runs: Mapping[tuple[str, ...], list[Run]] = {}
        self.composed: dict[tuple[str, ...], Settings] = {}
        self.corpora: dict[str, Corpus] = {}

    def first_seeds(self, count: int) -> range:
        """`count` seeds from the command's seed on.

        Commands whose seeds lie closer together than that share some of them: what was measured
        under a seed must stay what it was, so they are not spread.
        """
        return range(self.base.seed, self.base.seed + count)

    @property
    def seeds(self) -> range:
        return self.first_seeds(self.budget.seeds)

    @property
    def few_seeds(self) -> range:
        return self.first_seeds(self.budget.few)

    @property
    def many_seeds(self) -> range:
        return self.first_seeds(self.budget.many)

    @property
    def run_seeds(self) -> range:
        return self.first_seeds(self.budget.runs)

    def arms(self, claim: str) -> dict[str, list[Run]]:
        """The runs of each arm of a claim, in the order of their seeds."""
        arms_of = CLAIMS[claim].arms
        assert arms_of is not None
        arms = arms_of(self.budget)
        return {arm: self.runs[tuple(overrides)] for arm, overrides in arms.items()}

    def settings(self, *overrides: str) -> Settings:
        """The settings of `python run.py OVERRIDES`."""
        if overrides not in self.composed:
            values = to_values(compose("config", [*self.overrides, *overrides]))
            self.composed[overrides] = checked_settings(values)
        return self.composed[overrides]

    def model(self, settings: Settings, seed: int, n_layers: int) -> GPT:
        """The model of `settings` with `n_layers` blocks, initialised from `seed`."""
        config = replace(self.config(settings), n_layers=n_layers)
        torch.manual_seed(seed)
        return build_model(config, settings, self.device)

    def corpus(self, settings: Settings) -> Corpus:
        """The corpus under the tokenizer of `settings`, loaded once."""
        name = settings.tokenizer.name
        if name not in self.corpora:
            self.corpora[name] = load_corpus(settings)
        return self.corpora[name]

    def config(self, settings: Settings) -> GPTConfig:
        """The model's config, with the tokenizer's vocabulary size where none is set."""
        vocab_size = settings.model.vocab_size
        if vocab_size is None:
            vocab_size = self.corpus(settings).tokenizer.vocab_size
        return settings.model_config(vocab_size)

    def text_batch(
        self, settings: Settings, seed: int, windows: int, step: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Tokens and targets (windows, T) of the corpus."""
        corpus = self.corpus(settings)
        tokens, targets = corpus.batch(seed, step, windows, settings.sequence_length)
        return tokens.to(self.device), targets.to(self.device)

    def random_batch(self, settings: Settings, seed: int, windows: int) -> tuple[Tensor, Tensor]:
        """Random tokens, distinct within a window, and random targets, (windows, T).

        With Gaussian token embeddings and position embeddings of 0, distinct tokens make the
        inputs of a window independent Gaussians, as the theory has them.
        """
        random = torch.Generator().manual_seed(seed)
        config = self.config(settings)
        length = settings.sequence_length
        rows = [
            torch.randperm(config.vocab_size, generator=random)[:length] for _ in range(windows)
        ]
        targets = torch.randint(0, config.vocab_size, (windows, length), generator=random)
        return torch.stack(rows).to(self.device), targets.to(self.device)


def placed(placement: str) -> list[str]:
    """The overrides that choose a placement; peri_ln as it was measured, with its optional norm."""
    options = ["norm.options.embedding_norm=true"] if placement == "peri_ln" else []
    return [f"norm={placement}", *options]
