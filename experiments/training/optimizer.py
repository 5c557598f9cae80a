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


@OPTIMIZERS("adamw")
def adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay. Loshchilov and Hutter 2017, arXiv 1711.05101."""
    if settings.momentum is not None:
        valid = "optimizer=adamw has none; leave it null, or choose optimizer=sgd"
        raise ConfigError("optimizer.momentum", settings.momentum, valid)
    if settings.betas is None or len(settings.betas) != 2:
        raise ConfigError("optimizer.betas", settings.betas, "optimizer=adamw needs two numbers")
    beta_1, beta_2 = settings.betas
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(beta_1, beta_2), fused=True)


@OPTIMIZERS("sgd")
def sgd(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; unlike Adam it feels the gradient's scale."""
    if settings.betas is not None:
        raise ConfigError(
            "optimizer.betas", settings.betas, "optimizer=sgd has none; leave it null"
        )
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum or 0.0, fused=True)


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
