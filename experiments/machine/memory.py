"""The memory of this process and of the machine, as the system reports it."""

import atexit
import contextlib
import ctypes
import functools
import gc
import sys
from pathlib import Path

import torch

from experiments.machine.limits import memory_left

MIB = 2**20


class PeakMeter:
    """Measures peak memory: of the GPU's allocator, or of the whole process on a CPU.

    Made before the model, and after what else a run loads. Only Linux can reset a process's
    recorded peak; elsewhere `rise` is None, which means not measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.highest_before: int | None = None
        gc.collect()
        spare_libraries()
        self.restart()
        self.highest_before = None

    def restart(self) -> None:
        """Measure `rise` from now on."""
        self.highest_before = self.highest()
        # Free memory that the C library keeps would be used again without a rise.
        # Only glibc has malloc_trim, and Windows no library without a name.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            else:
                Path("/proc/self/clear_refs").write_bytes(b"5")  # resets VmHWM, see man 5 proc
            self.start = self._current()
        except OSError:
            self.start = None

    def rise(self) -> int | None:
        """Peak bytes above those at `restart`; None where they cannot be measured."""
        peak = self._peak()
        return None if self.start is None or peak is None else peak - self.start

    def highest(self) -> int | None:
        """Peak bytes of the run so far; on a CPU they include the libraries.

        None where the system does not report them.
        """
        peaks = [peak for peak in (self.highest_before, self._peak()) if peak is not None]
        return max(peaks, default=None)

    def _current(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _proc_status().get("VmRSS")

    def _peak(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory()
        recorded = _proc_status().get("VmHWM")
        return _resource_peak() if recorded is None else recorded


@functools.cache
def spare_libraries() -> None:
    """Let collections leave out what is there the first time: nothing of libraries becomes garbage.

    To look through all of them takes longer than a short job of a sweep trains.
    """
    gc.freeze()
    atexit.register(gc.unfreeze)  # the last collection closes files that nobody closed


def free_memory(device: torch.device) -> int | None:
    """Free bytes of the device, or that a container's limit leaves; None where nothing says so."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = (_meminfo().get("MemAvailable"), memory_left())
    return min((room for room in rooms if room is not None), default=None)


def _resource_peak() -> int | None:
    """Peak bytes of this process by the C library; None where there is none, as on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kB


def in_mb(count: int | None) -> float | None:
    """Bytes in MiB; None stays None."""
    return None if count is None else count / MIB


def _proc_status() -> dict[str, int]:
    """Memory of this process in bytes by name; empty where the system does not report it."""
    return _read_sizes(Path("/proc/self/status"))


def _meminfo() -> dict[str, int]:
    """Memory of the machine in bytes by name; empty where the system does not report it."""
    return _read_sizes(Path("/proc/meminfo"))


def _read_sizes(path: Path) -> dict[str, int]:
    """Bytes by name, from the lines `name: count kB` of a file; empty where it is absent."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in fields}
