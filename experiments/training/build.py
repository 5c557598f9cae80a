"""Models in their precision, as a run begins with them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.data.corpus import Corpus
from experiments.settings.schema import Settings
from gpt import GPT, ConfigError, GPTConfig


@contextmanager
def precision_of(settings: Settings) -> Iterator[None]:
    """Within: new parameters have the run's precision; under bf16 that is float32, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if settings.trainer.precision == "float64" else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_model(config: GPTConfig, settings: Settings, device: torch.device) -> GPT:
    """A new model in its precision, drawn in float32 whatever that is."""
    model = GPT(config).to(device)
    if settings.trainer.precision != "float64":
        return model
    if device.type == "mps":
        raise ConfigError("trainer.precision", "float64", "an Apple GPU has none; device=cpu does")
    return model.double()


def profile_model(model: GPT, corpus: Corpus, settings: Settings) -> None:
    """Let the placement set what it sets from data, on the first part of the first batch."""
    trainer = settings.trainer
    tokens, _ = corpus.batch(settings.seed, 0, trainer.rows, settings.sequence_length)
    model.profile(tokens[: trainer.batch_size].to(model.head.weight.device))


def untrained_model(settings: Settings, corpus: Corpus, device: torch.device) -> GPT:
    """The model that a run of these settings begins with."""
    torch.manual_seed(settings.seed)
    model = build_model(settings.model_config(corpus.tokenizer.vocab_size), settings, device)
    profile_model(model, corpus, settings)
    return model
