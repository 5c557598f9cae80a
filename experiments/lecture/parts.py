"""The parts of the chapter that are tables of their own: a norm, activations, shortcuts."""

import torch
from torch import Tensor

from experiments.records.sink import Table
from gpt import ACTIVATIONS, DeepShortcutNet
from gpt.shortcut import mean_abs_gradients

REACH, POINTS = 4.0, 401  # from -4 to 4 in steps of 0.02
ARMS = {"without_shortcut": False, "with_shortcut": True}


def norm_table(before: Tensor, after: Tensor) -> Table:
    """Rows (R, width) before and after a norm, a value each; row and feature are counted from 1."""
    return [
        {"row": row, "feature": feature, "before": x, "after": y}
        for row, pair in enumerate(zip(before.tolist(), after.tolist(), strict=True), start=1)
        for feature, (x, y) in enumerate(zip(*pair, strict=True), start=1)
    ]


def activation_table() -> list[dict[str, float | str]]:
    """Value and derivative of every activation: what the gradient is multiplied by."""
    x = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64, requires_grad=True)
    table: list[dict[str, float | str]] = []
    for name, activation in ACTIVATIONS.items():
        y = activation(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        table += [
            {"activation": name, "x": a, "value": b, "derivative": c}
            for a, b, c in zip(x.tolist(), y.tolist(), slope.tolist(), strict=True)
        ]
    return table


def shortcut_table(seed: int, activation: str = "gelu") -> list[dict[str, float]]:
    """Mean absolute gradient of each layer's weight, without and with shortcuts.

    Input (1, 0, -1), target 0, mean squared error; both networks start from the same seed.
    Raschka, Build a Large Language Model (From Scratch), chapter 4.
    """
    gradients = {}
    for arm, on in ARMS.items():
        torch.manual_seed(seed)
        net = DeepShortcutNet(shortcut=on, activation=activation)
        gradients[arm] = mean_abs_gradients(net, torch.tensor([[1.0, 0.0, -1.0]]))
    return [
        {"layer": layer, **{arm: gradients[arm][layer] for arm in ARMS}}
        for layer in range(len(gradients["with_shortcut"]))
    ]
