"""Models in their precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
