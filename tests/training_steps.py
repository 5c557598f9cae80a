"""Engines that take a training step in this process, without a run around them."""

import torch
from torch import Tensor

from configs import settings_of
from experiments.data.corpus import load_corpus
from experiments.machine.memory import PeakMeter
from experiments.training.build import untrained_model
from experiments.training.engine import Engine
from experiments.training.memory import StepMemory

CPU = torch.device("cpu")


def engine_of(*overrides: str) -> Engine:
    """What a run of these settings begins with."""
    settings = settings_of(*overrides)
    corpus = load_corpus(settings)
    model = untrained_model(settings, corpus, CPU)
    return Engine(model, corpus, settings, CPU, StepMemory(PeakMeter(CPU), {}, {}))


def step_of(engine: Engine, step: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a step, whose random draws are the same each time."""
    torch.manual_seed(step)
    engine.clear_gradients()
    loss, _ = engine.gradients(step)
    return loss, [p.grad.clone() for p in engine.model.parameters() if p.grad is not None]


def distances(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    """Of each pair of tensors, the norm of their difference over that of the second.

    0 where both are less than a millionth of all together, which is rounding: a shift of all keys
    has no gradient.
    """
    assert len(ours) == len(theirs)
    least = 1e-6 * torch.stack([each.norm() for each in theirs]).norm()
    pairs = zip(ours, theirs, strict=True)
    return [
        float((a - b).norm() / b.norm()) if max(a.norm(), b.norm()) > least else 0.0
        for a, b in pairs
    ]
