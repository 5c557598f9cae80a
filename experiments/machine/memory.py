"""The process's memory, as the system tells it."""

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch
from torch import nn

MB = 2**20


class PeakMeter:
    """How high memory rises: of the GPU's allocator, or of the whole process on a CPU.

    Made before the model, it takes the memory then as its ground, with what earlier jobs of the
    process left given back and what the first step loads already there. A process's recorded peak
    can be reset on Linux alone; elsewhere `rise` is None, for it was not measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.highest_before = 0
        load_kernels(device)
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # glibc alone
            ctypes.CDLL(None).malloc_trim(0)
        self.ground = self._now()
        self.restart()
        self.highest_before = 0

    def restart(self) -> None:
        """Let `rise` forget what was before."""
        self.highest_before = self.highest()
        try:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            else:
                Path("/proc/self/clear_refs").write_text("5")
            self.restarted = self.ground is not None
        except OSError:
            self.restarted = False

    def rise(self) -> int | None:
        """Highest bytes above the ground since `restart`; None where they cannot be measured."""
        if self.ground is None or not self.restarted:
            return None
        return self._peak() - self.ground

    def highest(self) -> int:
        """Highest bytes of the run so far, on a CPU with the libraries' own."""
        return max(self.highest_before, self._peak())

    def _now(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _proc_status().get("VmRSS")

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory()
        recorded = _proc_status().get("VmHWM")
        if recorded is not None:
            return recorded
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def free_memory(device: torch.device) -> int | None:
    """Bytes that nobody uses; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _meminfo().get("MemAvailable")


def load_kernels(device: torch.device) -> None:
    """One step of a model of three parameters, which loads what every first step loads."""
    layer = nn.Linear(2, 1, device=device)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 2, device=device)).sum().backward()
    optimizer.step()


def _proc_status() -> dict[str, int]:
    """Memory of this process in bytes; empty where the system does not tell."""
    return _kilobytes(Path("/proc/self/status"))


def _meminfo() -> dict[str, int]:
    """Memory of the machine in bytes; empty where the system does not tell."""
    return _kilobytes(Path("/proc/meminfo"))


def _kilobytes(path: Path) -> dict[str, int]:
    """The lines `name: count kB` of a file, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in fields}
