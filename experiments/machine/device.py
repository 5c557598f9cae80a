"""What the work runs on: a device, and so many threads of the CPU."""

import logging
import os
import platform
from pathlib import Path

import torch

from experiments.machine.limits import usable_cores
from gpt import ConfigError

log = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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


def device_name(device: torch.device) -> str:
    """The GPU's, or the processor's as far as the system says."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def threads_within_quota() -> int | None:
    """The cores that may be used, where PyTorch by itself would start more threads; else None.

    PyTorch knows the process's affinity, but not a container's quota of processor time. What the
    user set by an environment variable stays.
    """
    cores = usable_cores()
    is_set = any(name in os.environ for name in THREAD_VARIABLES)
    return cores if not is_set and torch.get_num_threads() > cores else None


def warn_of_many_threads() -> None:
    """Warn where there are more threads than cores to run them."""
    threads, cores = torch.get_num_threads(), usable_cores()
    if threads > cores:
        log.warning(
            "%d threads compute on %d cores and wait for each other; threads=%d is faster",
            threads,
            cores,
            cores,
        )
