"""Which device the work runs on, and models on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.settings import Settings
from gpt import GPT, ConfigError, GPTConfig


def pick_device(wanted: str) -> torch.device:
    """The wanted device; `auto` takes cuda, else mps, else cpu. ConfigError where it is absent."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, here in present.items() if here)
    if not present[wanted]:
        here = ", ".join(["auto", *(name for name, there in present.items() if there)])
        raise ConfigError("device", wanted, f"this machine has none; choose from: {here}")
    return torch.device(wanted)


@contextmanager
def precision_of(settings: Settings) -> Iterator[None]:
    """Within: new parameters are float64 where asked for; under bf16 they stay in float32."""
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
