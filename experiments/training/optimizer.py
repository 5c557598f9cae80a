"""Optimizers, with weight decay on matrices only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from experiments.settings.schema import OptimizerSettings
from experiments.training.muon import MuonAndAdamW
from gpt import GPT, ConfigError
from gpt.registry import Registry

OPTIMIZERS: Registry[Callable[[Any, OptimizerSettings], torch.optim.Optimizer]]  # of a model
OPTIMIZERS = Registry("optimizer.name")
# Of the settings that not all optimizers have, those that each has.
OWN = {"adamw": ("betas",), "sgd": ("momentum",), "muon": ("betas", "momentum")}


@OPTIMIZERS("adamw")
def adamw(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay. Loshchilov and Hutter 2017, arXiv 1711.05101."""
    groups = groups_of(list(model.parameters()), settings)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas_of(settings), fused=True)


@OPTIMIZERS("sgd")
def sgd(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; unlike Adam it feels the gradient's scale."""
    groups = groups_of(list(model.parameters()), settings)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum or 0.0, fused=True)


@OPTIMIZERS("muon")
def muon(model: GPT, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Muon for each matrix of the blocks, experts' and routers' among them; AdamW for the rest."""
    matrices = [weight.matrix for block in model.blocks for weight in block.weights()]
    storages = {matrix.untyped_storage()._cdata for matrix in matrices}
    hidden, others = list[nn.Parameter](), list[nn.Parameter]()
    for parameter in model.parameters():
        is_hidden = parameter.untyped_storage()._cdata in storages
        (hidden if is_hidden else others).append(parameter)
    group = {"params": hidden, "weight_decay": settings.weight_decay}
    momentum = settings.momentum or 0.0
    rest = groups_of(others, settings)
    return MuonAndAdamW(matrices, group, rest, settings.lr, betas_of(settings), momentum)


def check_own(settings: OptimizerSettings) -> None:
    """Raise ConfigError for a setting of other optimizers, and for one that does not work."""
    own = OWN[settings.name]
    for name in sorted({name for names in OWN.values() for name in names}.difference(own)):
        if (value := getattr(settings, name)) is not None:
            others = " or ".join(f"optimizer={each}" for each in OWN if name in OWN[each])
            valid = f"optimizer={settings.name} has none; leave it null, or choose {others}"
            raise ConfigError(f"optimizer.{name}", value, valid)
    if "betas" in own and settings.betas is None:
        raise ConfigError("optimizer.betas", None, f"optimizer={settings.name} needs two numbers")
    if settings.name == "muon" and settings.momentum == 1:
        valid = "must be below 1, or the mean of the gradients is never more than its start, 0"
        raise ConfigError("optimizer.momentum", settings.momentum, valid)


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The configured optimizer; norms, biases and other vectors are not decayed."""
    return OPTIMIZERS[settings.name](model, settings)


def betas_of(settings: OptimizerSettings) -> tuple[float, float]:
    """Those of Adam."""
    assert settings.betas is not None
    beta_1, beta_2 = settings.betas
    return beta_1, beta_2


def groups_of(
    parameters: Sequence[nn.Parameter], settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """Matrices, which are decayed, and vectors."""
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
