"""Initialisation schemes: a choice of its own, tied to no placement.

Each scheme takes a freshly built model, whose parameters PyTorch has already drawn, and redraws
what it defines, in the order in which the model lists its parameters.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpt.registry import Registry

if TYPE_CHECKING:
    from gpt.model import GPT

INITS: Registry[Callable[["GPT"], None]] = Registry("init")


@INITS("torch")
def torch_default(model: "GPT") -> None:
    """PyTorch's own: embeddings N(0, 1); linear weights and biases U(-k, k), k = 1/sqrt(n_in)."""


@INITS("gpt2")
@torch.no_grad()
def gpt2(model: "GPT") -> None:
    """Embeddings and linear weights N(0, init_std^2), biases 0.

    Radford et al. 2019 (GPT-2) with init_std = 0.02.
    """
    for weight in [*_embeddings(model), *_linear_weights(model)]:
        nn.init.normal_(weight, std=model.config.init_std)
    _zero_biases(model)


@INITS("gpt2_scaled")
@torch.no_grad()
def gpt2_scaled(model: "GPT") -> None:
    """As gpt2, and the weights that write into the stream times 1/sqrt(2 n_layers).

    Radford et al. 2019: scaled by the number of residual layers, two per block.
    """
    gpt2(model)
    for block in model.blocks:
        for weight in (block.attention.out_proj.weight, block.feed_forward.fc_out.weight):
            weight.mul_((2 * len(model.blocks)) ** -0.5)


@INITS("xavier")
@torch.no_grad()
def xavier(model: "GPT") -> None:
    """Linear weights N(0, 2 / (n_in + n_out)), biases 0, embeddings as PyTorch draws them, N(0, 1).

    Query, key and value count as three matrices, as in the equation. Glorot and Bengio 2010;
    Xiong et al. 2020, arXiv 2002.04745, use it for their analysis, with inputs of unit variance.
    """
    for weight in _linear_weights(model):
        nn.init.xavier_normal_(weight)
    _zero_biases(model)


def _embeddings(model: "GPT") -> list[Tensor]:
    return [model.token_embedding.weight, model.position_embedding.weight]


def _linear_weights(model: "GPT") -> Iterator[Tensor]:
    """Each weight matrix of the equations: the blocks', in order, then the head's unless tied."""
    for block in model.blocks:
        yield from block.attention.qkv.weight.chunk(3)
        yield block.attention.out_proj.weight
        yield block.feed_forward.fc_in.weight
        yield block.feed_forward.fc_out.weight
    if not model.config.tie_head:
        yield model.head.weight


def _zero_biases(model: "GPT") -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
