"""Initialisation schemes: a choice of its own, tied to no placement but by its YAML.

Each scheme takes the matrices of a freshly built model, which PyTorch has already drawn, each with
its role, in the order in which the model has them, and redraws what it defines in that order.
Embeddings are N(0, embedding_std(config)^2) then, as most schemes leave them. No gradients are
recorded meanwhile.
"""

import math
from collections.abc import Sequence

from torch import nn

from gpt.config import GPTConfig
from gpt.registry import INITS
from gpt.weights import Weight

EMBEDDINGS = ("embedding", "position")
BRANCH = ("value", "out", "up", "down")  # those that a branch's output is proportional to
INTO_STREAM = ("out", "down")


@INITS("torch")
def torch_default(weights: Sequence[Weight], config: GPTConfig) -> None:
    """PyTorch's own: embeddings N(0, 1); linear weights and biases U(-k, k), k = 1/sqrt(n_in)."""


@INITS("gpt2")
def gpt2(weights: Sequence[Weight], config: GPTConfig) -> None:
    """Embeddings and linear weights N(0, std^2), biases 0.

    Radford et al. 2019 (GPT-2) with std = 0.02.
    """
    for weight in weights:
        is_embedding = weight.role in EMBEDDINGS
        std = embedding_std(config) if is_embedding else config.init.std
        nn.init.normal_(weight.matrix, std=std)
    zero_biases(weights)


@INITS("gpt2_scaled")
def gpt2_scaled(weights: Sequence[Weight], config: GPTConfig) -> None:
    """As gpt2, and the weights that write into the stream times 1/sqrt(2L).

    Radford et al. 2019: scaled by the number of residual layers, two per block.
    """
    gpt2(weights, config)
    for weight in weights:
        if weight.role in INTO_STREAM:
            weight.matrix.mul_((2 * config.n_layers) ** -0.5)


@INITS("xavier")
def xavier(weights: Sequence[Weight], config: GPTConfig) -> None:
    """Linear weights N(0, 2 / (n_in + n_out)), biases 0, embeddings as PyTorch draws them, N(0, 1).

    Query, key and value count as three matrices, as in the equation. Glorot and Bengio 2010;
    Xiong et al. 2020, arXiv 2002.04745, use it for their analysis, with inputs of unit variance.
    """
    draw_xavier(weights)


@INITS("deepnorm")
def deepnorm(weights: Sequence[Weight], config: GPTConfig) -> None:
    """As xavier, the value, output and feed-forward weights times (8L)^(-1/4).

    Wang et al. 2022 (DeepNet), arXiv 2203.00555, decoder alone.
    """
    draw_xavier(weights, init_gain("deepnorm", config.n_layers) or 1.0)


@INITS("sub_ln")
def sub_ln(weights: Sequence[Weight], config: GPTConfig) -> None:
    """As xavier, the value, output and feed-forward weights times sqrt(ln 2L).

    Wang et al. 2022 (Magneto), arXiv 2210.06423, decoder alone.
    """
    draw_xavier(weights, init_gain("sub_ln", config.n_layers) or 1.0)


@INITS("xiong")
def xiong(weights: Sequence[Weight], config: GPTConfig) -> None:
    """Query and key weights 0, so that attention is uniform, its output weight the identity.

    The rest as xavier, position embeddings 0. With one head, a ratio of 1, no biases and no causal
    mask it is the setting of the theory of Xiong et al. 2020, arXiv 2002.04745, section 3.3, whose
    sublayer is mean_j(x_j) W_V.
    """
    draw_xavier(weights)
    for weight in weights:
        if weight.role in ("position", "query", "key"):
            nn.init.zeros_(weight.matrix)
        elif weight.role == "out":
            nn.init.eye_(weight.matrix)


def initialise(weights: Sequence[Weight], config: GPTConfig) -> None:
    """Apply the scheme to the matrices of a freshly built model, whose embeddings are N(0, 1)."""
    if config.init.embedding_std is not None:
        for weight in weights:
            if weight.role in EMBEDDINGS:
                weight.matrix.mul_(config.init.embedding_std)
    INITS[config.init.scheme](weights, config)


def embedding_std(config: GPTConfig) -> float:
    """Standard deviation of the embeddings: what the config says, or else what the scheme draws."""
    if config.init.embedding_std is not None:
        return config.init.embedding_std
    return config.init.std if config.init.scheme in ("gpt2", "gpt2_scaled") else 1.0


def init_gain(scheme: str, n_layers: int) -> float | None:
    """What a scheme multiplies value, output and feed-forward weights by, if it does."""
    if n_layers == 0:
        return None
    gains = {"deepnorm": (8 * n_layers) ** -0.25, "sub_ln": math.log(2 * n_layers) ** 0.5}
    return gains.get(scheme)


def draw_xavier(weights: Sequence[Weight], gain: float = 1.0) -> None:
    """N(0, g^2 2 / (n_in + n_out)), g = `gain` for value, output and feed-forward, else 1."""
    for weight in weights:
        if weight.role not in EMBEDDINGS:
            nn.init.xavier_normal_(weight.matrix, gain if weight.role in BRANCH else 1.0)
    zero_biases(weights)


def zero_biases(weights: Sequence[Weight]) -> None:
    """b = 0 wherever there is one."""
    for weight in weights:
        if weight.bias is not None:
            nn.init.zeros_(weight.bias)
