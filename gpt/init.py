"""Initialisation schemes: a choice of its own, tied to no placement but by its YAML.

Each scheme takes a freshly built model, whose parameters PyTorch has already drawn, and redraws
what it defines, in the order in which the model lists its parameters.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gpt.registry import INITS

Model: TypeAlias = Any  # a gpt.model.GPT, which stands above the schemes


@INITS("torch")
def torch_default(model: Model) -> None:
    """PyTorch's own: embeddings N(0, 1); linear weights and biases U(-k, k), k = 1/sqrt(n_in)."""


@INITS("gpt2")
@torch.no_grad()
def gpt2(model: Model) -> None:
    """Embeddings and linear weights N(0, std^2), biases 0.

    Radford et al. 2019 (GPT-2) with std = 0.02.
    """
    for weight in [*_embeddings(model), *_linear_weights(model)]:
        nn.init.normal_(weight, std=model.config.init.std)
    _zero_biases(model)


@INITS("gpt2_scaled")
@torch.no_grad()
def gpt2_scaled(model: Model) -> None:
    """As gpt2, and the weights that write into the stream times 1/sqrt(2 n_layers).

    Radford et al. 2019: scaled by the number of residual layers, two per block.
    """
    gpt2(model)
    for block in model.blocks:
        for weight in (block.attention.out_proj.weight, block.feed_forward.fc_out.weight):
            weight.mul_((2 * len(model.blocks)) ** -0.5)


@INITS("xavier")
@torch.no_grad()
def xavier(model: Model) -> None:
    """Linear weights N(0, 2 / (n_in + n_out)), biases 0, embeddings as PyTorch draws them, N(0, 1).

    Query, key and value count as three matrices, as in the equation. Glorot and Bengio 2010;
    Xiong et al. 2020, arXiv 2002.04745, use it for their analysis, with inputs of unit variance.
    """
    _xavier(model)


@INITS("deepnorm")
@torch.no_grad()
def deepnorm(model: Model) -> None:
    """As xavier, the value, output and feed-forward weights times (8L)^(-1/4).

    Wang et al. 2022 (DeepNet), arXiv 2203.00555, decoder alone.
    """
    _xavier(model, init_gain("deepnorm", len(model.blocks)))


@INITS("sub_ln")
@torch.no_grad()
def sub_ln(model: Model) -> None:
    """As xavier, the value, output and feed-forward weights times sqrt(ln 2L).

    Wang et al. 2022 (Magneto), arXiv 2210.06423, decoder alone.
    """
    _xavier(model, init_gain("sub_ln", len(model.blocks)))


@INITS("xiong")
@torch.no_grad()
def xiong(model: Model) -> None:
    """Query and key weights 0, so that attention is uniform, its output weight the identity.

    The rest as xavier, position embeddings 0. With one head, a ratio of 1, no biases and no causal
    mask it is the setting of the theory of Xiong et al. 2020, arXiv 2002.04745, section 3.3, whose
    sublayer is mean_j(x_j) W_V.
    """
    _xavier(model)
    nn.init.zeros_(model.position_embedding.weight)
    for block in model.blocks:
        query, key, _ = block.attention.qkv.weight.chunk(3)
        nn.init.zeros_(query)
        nn.init.zeros_(key)
        nn.init.eye_(block.attention.out_proj.weight)


def init_gain(scheme: str, n_layers: int) -> float | None:
    """What a scheme multiplies value, output and feed-forward weights by, if it does."""
    if n_layers == 0:
        return None
    gains = {"deepnorm": (8 * n_layers) ** -0.25, "sub_ln": math.log(2 * n_layers) ** 0.5}
    return gains.get(scheme)


def _xavier(model: Model, gain: float | None = None) -> None:
    """N(0, g^2 2 / (n_in + n_out)), g = `gain` for value, output and feed-forward, else 1."""
    gain = 1.0 if gain is None else gain
    for block in model.blocks:
        query, key, value = block.attention.qkv.weight.chunk(3)
        for weight in (query, key):
            nn.init.xavier_normal_(weight)
        layers = (block.attention.out_proj, block.feed_forward.fc_in, block.feed_forward.fc_out)
        for weight in (value, *(layer.weight for layer in layers)):
            nn.init.xavier_normal_(weight, gain)
    if not model.config.tie_head:
        nn.init.xavier_normal_(model.head.weight)
    _zero_biases(model)


def _embeddings(model: Model) -> list[Tensor]:
    return [model.token_embedding.weight, model.position_embedding.weight]


def _linear_weights(model: Model) -> Iterator[Tensor]:
    """Each weight matrix: the blocks', in order, then the head's unless tied."""
    for block in model.blocks:
        yield from block.attention.qkv.weight.chunk(3)
        yield block.attention.out_proj.weight
        yield block.feed_forward.fc_in.weight
        yield block.feed_forward.fc_out.weight
    if not model.config.tie_head:
        yield model.head.weight


def _zero_biases(model: Model) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
