"""What a claim's measurement uses: models from the config, batches, and training runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from hydra import compose
from torch import Tensor

from experiments.analysis.runs import Run
from experiments.data.corpus import Corpus, load_corpus
from experiments.jobs.check import checked_settings
from experiments.records.summary import summary_time
from experiments.settings.compose import to_values
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from gpt import GPT, GPTConfig

Arms = Mapping[str, Sequence[str]]  # overrides of an arm's training runs, by the arm's name


class Untrained(Exception):
    """A measurement needs training runs that are not there: (overrides, seed) of each."""

    def __init__(self, runs: Sequence[tuple[tuple[str, ...], int]]) -> None:
        super().__init__(f"{len(runs)} runs")
        self.runs = list(runs)


class Lab:
    """Gives measurements their models, batches and training runs.

    overrides  of the command that hold for every model and run, such as device=cpu
    trained    training runs by the arm's overrides and the seed
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        self.overrides = list(overrides)
        self.device = torch.device("cpu")  # mps has no float64
        self.trained: dict[tuple[tuple[str, ...], int], Run] = {}
        # Of the runs that were read: the seconds they took, and when the first of them ended.
        self.run_seconds, self.oldest_run = 0.0, math.inf
        self.composed: dict[tuple[str, ...], Settings] = {}
        self.corpora: dict[str, Corpus] = {}

    def runs(self, arms: Arms, seed: int) -> dict[str, Run]:
        """The run of each arm under a seed.

        A measurement may choose its next arms by what it finds, as a bisection does: it is called
        again when the runs it asked for are there. Raises Untrained until then.
        """
        wanted = {name: (tuple(overrides), seed) for name, overrides in arms.items()}
        missing = [run for run in wanted.values() if run not in self.trained]
        if missing:
            raise Untrained(missing)
        times = [summary_time(self.trained[run].directory) for run in wanted.values()]
        self.oldest_run = min([self.oldest_run, *(time / 1e9 for time in times if time)])
        self.run_seconds += sum(self.trained[run].summary.seconds or 0.0 for run in wanted.values())
        return {name: self.trained[run] for name, run in wanted.items()}

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
