"""Models in their precision, as a run begins with them."""

import torch

from experiments.data.corpus import Corpus
from experiments.settings.schema import Settings
from experiments.training.precision import check_precision
from experiments.training.weights import load_weights
from gpt import GPT, GPTConfig
from gpt.count import meta_model


def build_model(
    config: GPTConfig, settings: Settings, device: torch.device, resumed: bool = False
) -> GPT:
    """A new model in its precision, drawn in float32 whatever that is, or read from its weights.

    resumed  whether a checkpoint will fill it, so that nothing need be read
    """
    check_precision(settings.trainer.precision, device)
    double = settings.trainer.precision == "float64"
    if settings.model.weights is None or resumed:
        model = GPT(config).to(device)
        return model.double() if double else model
    model = empty_model(config, torch.float64 if double else torch.float32, device)
    load_weights(model, settings.model.weights)
    return model


def empty_model(config: GPTConfig, dtype: torch.dtype, device: torch.device) -> GPT:
    """A model in which nothing was drawn, for weights that are all read."""
    model = meta_model(config).to(dtype).to_empty(device=device)
    model.config = config  # with its own scheme
    model.tie()  # what is made anew is no longer shared
    return model


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
