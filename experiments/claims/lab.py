"""What a claim's measurement works with: models from the config, batches, and training runs."""

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

    seeds     at initialisation in the setting of the theory
    few       at initialisation elsewhere
    many      where one seed tells little
    width     emb_dim in the setting of the theory
    depths    n_layers there
    blocks    n_layers of a GPT at initialisation
    runs      seeds of each training arm; 0 leaves training claims out
    steps     of a training run of the warm-up claim, and of the others; a third of them is the
              warm-up, where there is one
    rates     learning rates of the sensitivity's grid
    grid      n_layers of that grid: the fewer, the more
    inside    n_layers of trained models that are looked into
    deep      n_layers without warm-up
    """

    seeds: int
    few: int
    many: int
    width: int
    depths: tuple[int, ...]
    blocks: tuple[int, ...]
    runs: int
    steps: tuple[int, int]
    rates: tuple[str, ...]
    grid: tuple[int, int]
    inside: int
    deep: int

    def words(self) -> dict[str, object]:
        """What the descriptions of settings name."""
        return {
            "width": self.width,
            "warm_up_steps": self.steps[0],
            "steps": self.steps[1],
            "rates": ", ".join(self.rates),
            "fewer": self.grid[0],
            "more": self.grid[1],
            "inside": self.inside,
            "third": self.inside // 3,
            "deep": self.deep,
        }


DEPTHS = (2, 4, 8, 16, 32)
STANDARD = Budget(
    seeds=10,
    few=5,
    many=20,
    width=256,
    depths=DEPTHS,
    blocks=DEPTHS,
    runs=3,
    steps=(300, 200),
    rates=("3e-3", "1e-2", "3e-2", "1e-1"),
    grid=(2, 4),
    inside=8,
    deep=12,
)
BUDGETS = {
    "quick": replace(STANDARD, many=10, width=128, blocks=DEPTHS[:-1], runs=0),
    "standard": STANDARD,
    "full": Budget(
        seeds=30,
        few=10,
        many=100,
        width=256,
        depths=(*DEPTHS, 64),
        blocks=(*DEPTHS, 64),
        runs=5,
        steps=(1000, 1000),
        rates=("3e-4", "1e-3", *STANDARD.rates, "3e-1"),
        grid=(6, 12),
        inside=16,
        deep=24,
    ),
}


class Lab:
    """A measurement's surroundings.

    base  settings of the claims themselves: budget and seed
    told  overrides of the command that hold for every model and run, such as device=cpu
    runs  of the arms of training claims, by the arm's overrides; in the order of the seeds
    """

    def __init__(self, settings: Settings, told: Sequence[str] = ()) -> None:
        self.base, self.told, self.first_seed = settings, list(told), settings.seed
        self.budget = BUDGETS[settings.claims.budget]
        self.device = torch.device("cpu")  # for float64, which not every device has
        self.runs: Mapping[tuple[str, ...], list[Run]] = {}
        self.composed: dict[tuple[str, ...], Settings] = {}
        self.corpora: dict[str, Corpus] = {}

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.budget.seeds)

    @property
    def few_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.budget.few)

    @property
    def many_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.budget.many)

    @property
    def run_seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.budget.runs)

    def arms(self, claim: str) -> dict[str, list[Run]]:
        """The runs of each arm of a claim, in the order of their seeds."""
        of_budget = CLAIMS[claim].arms
        assert of_budget is not None
        return {arm: self.runs[tuple(told)] for arm, told in of_budget(self.budget).items()}

    def settings(self, *overrides: str) -> Settings:
        """What `python run.py OVERRIDES` would run with."""
        if overrides not in self.composed:
            values = to_values(compose("config", [*self.told, *overrides]))
            self.composed[overrides] = checked_settings(values)
        return self.composed[overrides]

    def model(self, settings: Settings, seed: int, n_layers: int) -> GPT:
        """The model of `settings` as initialised from `seed`, with `n_layers` blocks."""
        config = replace(self.config(settings), n_layers=n_layers)
        torch.manual_seed(seed)
        return build_model(config, settings, self.device)

    def corpus(self, settings: Settings) -> Corpus:
        """The text, read once."""
        key = settings.tokenizer.name
        if key not in self.corpora:
            self.corpora[key] = load_corpus(settings)
        return self.corpora[key]

    def config(self, settings: Settings) -> GPTConfig:
        """The model's description."""
        room = settings.model.vocab_size
        return settings.model_config(
            self.corpus(settings).tokenizer.vocab_size if room is None else room
        )

    def text_batch(
        self, settings: Settings, seed: int, windows: int, step: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Tokens and targets (windows, T) of the corpus."""
        corpus = self.corpus(settings)
        tokens, targets = corpus.batch(seed, step, windows, settings.sequence_length)
        return tokens.to(self.device), targets.to(self.device)

    def random_batch(self, settings: Settings, seed: int, windows: int) -> tuple[Tensor, Tensor]:
        """Tokens of which none stands twice in a window, and random targets, (windows, T).

        Where position embeddings are 0 and token embeddings Gaussian, so are the inputs, and
        independent within a window.
        """
        random = torch.Generator().manual_seed(seed)
        config = self.config(settings)
        length = settings.sequence_length
        rows = [
            torch.randperm(config.vocab_size, generator=random)[:length] for _ in range(windows)
        ]
        targets = torch.randint(0, config.vocab_size, (windows, length), generator=random)
        return torch.stack(rows).to(self.device), targets.to(self.device)
