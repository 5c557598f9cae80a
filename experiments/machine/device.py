"""Which device the work runs on."""

import torch

from gpt import ConfigError


def pick_device(wanted: str) -> torch.device:
    """The wanted device; `auto` takes cuda, else mps, else cpu. ConfigError if it is absent."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, is_available in available.items() if is_available)
    if not available[wanted]:
        usable = ["auto", *(name for name, is_available in available.items() if is_available)]
        valid = f"this machine has none; choose from: {', '.join(usable)}"
        raise ConfigError("device", wanted, valid)
    return torch.device(wanted)
