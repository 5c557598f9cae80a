"""The runners. Importing this package enters each in `experiments.runner.RUNNERS`."""

from experiments.runner import RUNNERS, Outcome
from experiments.runners import (
    activations,
    claims,
    generate,
    init_gradients,
    memory,
    parameters,
    shortcut,
    train,
)

__all__ = [
    "RUNNERS",
    "Outcome",
    "activations",
    "claims",
    "generate",
    "init_gradients",
    "memory",
    "parameters",
    "shortcut",
    "train",
]
