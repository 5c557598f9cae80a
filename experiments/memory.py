"""Memory: what a training step should take, and what it takes."""

import contextlib
import ctypes
import gc
import logging
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.console import megabytes
from experiments.device import precision_of
from experiments.loss import language_model_loss
from experiments.optimizer import make_optimizer
from experiments.settings import Settings
from gpt import GPT, GPTConfig

log = logging.getLogger(__name__)

MB = 2**20


def tensor_bytes(tensors: Iterator[Tensor]) -> int:
    """Bytes of the storages behind the tensors, each storage once."""
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors
    }
    return sum(storages.values())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    return tensor_bytes(
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


@contextmanager
def saved_activations(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Count what autograd keeps for the backward pass: yields a function that gives the bytes.

    Each storage counts once, however many operations keep it. Parameters and token ids do not
    count.
    """
    kept: dict[int, int] = {}
    holds: list[Tensor] = []  # a freed storage's address could be given to another
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and tensor.dtype != torch.long:
            kept[storage._cdata] = storage.nbytes()
            holds.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(kept.values())
    holds.clear()


def predict(settings: Settings, config: GPTConfig) -> dict[str, int]:
    """Bytes that a training step should take, by kind, without allocating the model.

    The model is built and run forward on tensors that have shapes but no data. The peak is that
    of a step after the first, in which the optimizer's state exists: parameters, state, and the
    larger of two moments: the start of the backward pass (activations, the gradients of the
    logits and of the head, or those accumulated so far) and its end (all gradients). What the
    allocator and the kernels' scratch space take on top is not in it.
    """
    trainer = settings.trainer
    shape = (trainer.batch_size, settings.sequence_length)
    with FakeTensorMode(allow_non_fake_inputs=True), precision_of(settings):
        model = GPT(config)
        tokens = torch.zeros(shape, dtype=torch.long)
        with saved_activations(model) as activation_bytes:
            language_model_loss(model, tokens, tokens, trainer.precision)
            activations = activation_bytes()
        parameters = tensor_bytes(iter(model.parameters()))
        optimizer = make_optimizer(model, settings.optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = optimizer_bytes(optimizer)
    gradients = parameters
    # The gradients of the log-probabilities and, computed from them, of the logits.
    size = model.head.weight.element_size()
    logit_gradients = 2 * shape[0] * shape[1] * config.vocab_size * size
    head_gradient = config.vocab_size * config.emb_dim * size
    held = gradients if trainer.accumulate > 1 else head_gradient
    peak = parameters + state + max(gradients, held + activations + logit_gradients)
    return {
        "parameters": parameters,
        "gradients": gradients,
        "optimizer": state,
        "activations": activations,
        "peak": peak,
    }


class OutOfMemory(Exception):
    """An allocation failed."""


@contextmanager
def enough_memory(predicted: dict[str, int]) -> Iterator[None]:
    """Within: an allocation that fails raises OutOfMemory, which says what would need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        no_room = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not no_room and "alloc" not in str(error):  # of the CPU's allocator, a RuntimeError
            raise
        parts = ", ".join(f"{kind} {megabytes(count)}" for kind, count in predicted.items())
        raise OutOfMemory(
            f"out of memory; predicted for a step: {parts}. Lower trainer.batch_size (and raise "
            "trainer.accumulate), trainer.sequence_length or the model's size"
        ) from error


def warn_of_little_memory(device: torch.device, predicted: dict[str, int]) -> None:
    """Warn where a step is predicted to take more memory than is free."""
    if device.type == "cuda":
        free: int | None = torch.cuda.mem_get_info(device)[0]
    else:
        free = _meminfo().get("MemAvailable")
    if free is not None and predicted["peak"] > free:
        log.warning(
            "a step is predicted to take %s, and %s are free",
            megabytes(predicted["peak"]),
            megabytes(free),
        )


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
