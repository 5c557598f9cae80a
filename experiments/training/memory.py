"""What a training step should take in memory, and what its tensors do take."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.machine.console import megabytes
from experiments.machine.device import pick_device
from experiments.machine.memory import PeakMeter, free_memory
from experiments.settings.schema import Settings
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer
from experiments.training.precision import PRODUCTS, parameter_precision
from gpt import GPT, GPTConfig
from gpt.loss import chunk_size

log = logging.getLogger(__name__)


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
    alive: list[Tensor] = []  # a freed storage's address could be given to another
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and tensor.dtype != torch.long:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor.detach()  # with its graph it would keep alive what keeps it, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(kept.values())
    alive.clear()


def predict(settings: Settings, config: GPTConfig) -> dict[str, int]:
    """Bytes that a training step should take, by kind, without allocating the model.

    The model is built and run forward on tensors that have shapes but no data. The peak is that
    of a step after the first, in which the optimizer's state exists: parameters, state, and the
    larger of two moments: the end of the forward pass (activations, with the gradient of the head
    among them, a chunk of logits, and what was accumulated so far) and that of the backward pass
    (all gradients). Where blocks are computed again, the activations of the largest come on top of
    their inputs. What the allocator and the kernels' scratch space take on top is not in it, nor
    what a compiler saves.
    """
    trainer = settings.trainer
    with FakeTensorMode(allow_non_fake_inputs=True), parameter_precision(settings):
        model = GPT(config)
        activations, of_block = kept_bytes(model, settings)
        parameters, state = lasting_bytes(model, settings)
    gradients = parameters
    accumulated = gradients if trainer.accumulate > 1 else 0
    passing = max(logits_bytes(model, settings), of_block)
    peak = parameters + state + max(gradients, accumulated + activations + passing)
    return {
        "parameters": parameters,
        "gradients": gradients,
        "optimizer": state,
        "activations": activations,
        "peak": peak,
    }


def kept_bytes(model: GPT, settings: Settings) -> tuple[int, int]:
    """Bytes kept by a forward pass, and, where blocks are computed again, by one such block."""
    trainer = settings.trainer
    tokens = torch.zeros(trainer.batch_size, settings.sequence_length, dtype=torch.long)

    def kept(recomputes: bool, parts: Sequence[nn.Module] = ()) -> tuple[int, list[int]]:
        model.recomputes, marks = recomputes, list[int]()
        with saved_activations(model) as activation_bytes:

            def mark(*_: object) -> None:
                marks.append(activation_bytes())

            hooks = [part.register_forward_pre_hook(mark) for part in parts]
            hooks += [part.register_forward_hook(mark) for part in parts]
            language_model_loss(model, tokens, tokens, trainer.precision)
            for hook in hooks:
                hook.remove()
            return activation_bytes(), marks

    if not trainer.activation_checkpointing:
        return kept(False)[0], 0
    _, marks = kept(False, list(model.blocks))
    largest = max(
        (after - before for before, after in zip(marks[::2], marks[1::2], strict=True)), default=0
    )
    return kept(True)[0], largest


def logits_bytes(model: GPT, settings: Settings) -> int:
    """Bytes of the logits that `gpt.head_loss` holds at once, under autocast in two types."""
    trainer = settings.trainer
    rows = min(
        trainer.batch_size * settings.sequence_length, chunk_size(pick_device(settings.device))
    )
    size = model.head.weight.element_size()
    if dtype := PRODUCTS.get(trainer.precision):
        size += dtype.itemsize
    return rows * len(model.head.weight) * size


def lasting_bytes(model: GPT, settings: Settings) -> tuple[int, int]:
    """Bytes of a new model's parameters, and of the optimizer's state after a step."""
    optimizer = make_optimizer(model, settings.optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return tensor_bytes(iter(model.parameters())), optimizer_bytes(optimizer)


class StepMemory:
    """Bytes that the first two steps take, beside what `predict` says of each kind.

    Parameters, activations (of its first part), gradients and the optimizer's state are those of
    the first step, whose update makes that state; the peak is that of the second step, during which
    all of them are there: parameters and state, and the rise of the process's or the device's
    memory. So what libraries keep from their first call on, in whichever job of a process that is,
    does not count: equal jobs measure equal.

    meter      of the process or the device
    predicted  bytes by kind
    measured   bytes by kind, filled in as the steps go by; None where they cannot be measured
    """

    def __init__(
        self, meter: PeakMeter, predicted: dict[str, int], measured: dict[str, int | None]
    ) -> None:
        self.meter, self.predicted, self.measured = meter, predicted, measured

    def before(self, step: int) -> None:
        """Of a step: let the peak be that of the second step alone."""
        if step == 1:
            self.meter.restart()

    @contextmanager
    def of_forward(self, step: int, model: nn.Module) -> Iterator[None]:
        """Within: the forward pass of a part of a step; of the first, the activations count."""
        if step > 0 or "activations" in self.measured:
            yield
            return
        with saved_activations(model) as activation_bytes:
            yield
            self.measured["activations"] = activation_bytes()

    def after_backward(self, step: int, model: nn.Module) -> None:
        """Of a step, when all gradients are there."""
        if step == 0:
            parameters = list(model.parameters())
            self.measured["parameters"] = tensor_bytes(iter(parameters))
            self.measured["gradients"] = tensor_bytes(
                p.grad for p in parameters if p.grad is not None
            )

    def after_update(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Of a step, when the optimizer's state is there."""
        if step == 0:
            self.measured["optimizer"] = optimizer_bytes(optimizer)
        if step == 1:
            there = sum(self.measured[kind] or 0 for kind in ("parameters", "optimizer"))
            rise = self.meter.rise()
            self.measured["peak"] = None if rise is None else there + rise

    def table(self) -> list[dict[str, str | int | None]]:
        """Rows of kind, predicted_bytes, measured_bytes."""
        return [
            {
                "kind": kind,
                "predicted_bytes": count,
                "measured_bytes": self.measured.get(kind),
            }
            for kind, count in self.predicted.items()
        ]


class OutOfMemory(Exception):
    """An allocation failed."""


@contextmanager
def explain_out_of_memory(predicted: dict[str, int]) -> Iterator[None]:
    """Within: an allocation that fails raises OutOfMemory, which says what would need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_typed and "alloc" not in str(error):  # of the CPU's allocator, a RuntimeError
            raise
        parts = ", ".join(f"{kind} {megabytes(count)}" for kind, count in predicted.items())
        raise OutOfMemory(
            f"out of memory; predicted for a step: {parts}. Lower trainer.batch_size (and raise "
            "trainer.accumulate), trainer.sequence_length or the model's size"
        ) from error


def warn_of_little_memory(device: torch.device, predicted: dict[str, int]) -> None:
    """Warn where a step is predicted to take more memory than is free."""
    free = free_memory(device)
    if free is not None and predicted["peak"] > free:
        log.warning(
            "a step is predicted to take %s, and %s are free",
            megabytes(predicted["peak"]),
            megabytes(free),
        )
