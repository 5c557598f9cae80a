"""Which device the work runs on, and models on it."""

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


def build_model(config: GPTConfig, settings: Settings, device: torch.device) -> GPT:
    """A new model in its precision: float64 where asked for; bf16 keeps its weights in float32."""
    wide = settings.trainer.precision == "float64"
    return GPT(config).to(device, torch.float64 if wide else torch.float32)
