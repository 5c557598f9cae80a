"""Optimizers, with weight decay on matrices only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.settings.schema import OptimizerSettings
from gpt import ConfigError
from gpt.registry import Registry

OPTIMIZERS: Registry[Callable[[list[dict[str, Any]], OptimizerSettings], torch.optim.Optimizer]]
OPTIMIZERS = Registry("optimizer.name")
# Of the settings that not all optimizers have, those that each has.
OWN = {"adamw": ("betas",), "sgd": ("momentum",)}


@OPTIMIZERS("adamw")
def adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay. Loshchilov and Hutter 2017, arXiv 1711.05101."""
    assert settings.betas is not None
    beta_1, beta_2 = settings.betas
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(beta_1, beta_2), fused=True)


@OPTIMIZERS("sgd")
def sgd(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; unlike Adam it feels the gradient's scale."""
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum or 0.0, fused=True)


def check_own(settings: OptimizerSettings) -> None:
    """Raise ConfigError for a setting of other optimizers, or where the betas are not given."""
    own = OWN[settings.name]
    for name in sorted({name for names in OWN.values() for name in names}.difference(own)):
        if (value := getattr(settings, name)) is not None:
            others = " or ".join(f"optimizer={each}" for each in OWN if name in OWN[each])
            valid = f"optimizer={settings.name} has none; leave it null, or choose {others}"
            raise ConfigError(f"optimizer.{name}", value, valid)
    if "betas" in own and settings.betas is None:
        raise ConfigError("optimizer.betas", None, f"optimizer={settings.name} needs two numbers")


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The configured optimizer; norms, biases and other vectors are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[settings.name]([g for g in groups if g["params"]], settings)
