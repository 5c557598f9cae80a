"""Which device the work runs on."""

import torch

from gpt import ConfigError


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
