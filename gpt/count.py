"""How many parameters a model has, and what a token costs, without making it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from gpt.config import AttentionConfig, FeedForwardConfig, GPTConfig
from gpt.model import GPT
from gpt.registry import ConfigError


def parameter_count(config: GPTConfig) -> int:
    """How many parameters the model has, a tied weight once; nothing of their size is allocated."""
    return sum(parameter.numel() for parameter in meta_model(config).parameters())


def active_parameter_count(config: GPTConfig) -> int:
    """How many of them one token meets on its way to the logits, see `met_parameters`."""
    return sum(met_parameters(meta_model(config)).values())


def met_parameters(model: GPT) -> dict[str, int]:
    """How many values of each parameter one token meets on its way to the logits, by its name.

    Of the experts those that it is sent to; a table of embeddings, of which it reads one row, only
    where the head multiplies by it.
    """
    experts, tied = model.config.experts, model.config.tie_head
    tables = ("position_embedding.weight", *(() if tied else ("token_embedding.weight",)))
    met = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for name, count in met.items():
        if name in tables:
            met[name] = 0
        elif experts.count and is_of_experts(name):
            met[name] = count * experts.active // experts.count
    return met


def is_of_experts(name: str) -> bool:
    """Whether a parameter of a model with experts is theirs: all of a feed-forward's matrices."""
    return "feed_forward.fc_" in name


def flops_per_token(config: GPTConfig, length: int | None = None) -> float:
    """Floating-point operations of a forward pass, per token of a text of `length` tokens.

        2 M + 4 n_heads head_dim sum over layers of the mean number of tokens that a token sees

    M counts the elements of the matrices that a token is multiplied by, those of its experts alone,
    the head's among them: a multiplication and an addition each. The second term is of two products
    by layer, of queries and keys and of weights and values, where pairs of tokens count that see
    each other: half of all if the attention is causal, fewer by a window. Norms, activations,
    biases and the softmax are left out.

    length  None: the context length
    """
    return flops_per_token_of(meta_model(config), length)


def flops_per_token_of(model: GPT, length: int | None = None) -> float:
    """`flops_per_token` of a model that is there, or has shapes alone."""
    met = met_parameters(model)
    matrices = sum(
        met[name]
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and not name.endswith("bias")
    )
    return 2 * matrices + attention_flops_per_token(model.config, length)


def attention_flops_per_token(config: GPTConfig, length: int | None = None) -> float:
    """The second term of `flops_per_token`."""
    seen = sum(seen_tokens(config, layer, length) for layer in range(config.n_layers))
    return 4 * config.heads_dim * seen


def seen_tokens(config: GPTConfig, layer: int, length: int | None = None) -> float:
    """How many tokens a token of a text sees in a layer, itself among them, on the average."""
    length = length or config.context_length
    if not config.attention.causal:
        return length
    window = min(config.window(layer) or length, length)
    return window - window * (window - 1) / (2 * length)  # the first ones see fewer


def cached_values(config: GPTConfig, length: int | None = None) -> int:
    """Numbers that generation needs of a text of `length` tokens: its keys and its values.

    In a layer with a window those of its last `window` tokens.

    length  None: the context length
    """
    length = length or config.context_length
    kept = sum(min(config.window(layer) or length, length) for layer in range(config.n_layers))
    return 2 * config.kv_heads * config.head_dim * kept


# What two models can have alike: see `matched`.
MEASURES: Mapping[str, Callable[[GPTConfig], float]] = {
    "parameters": parameter_count,
    "flops": flops_per_token,
}


def matched(config: GPTConfig, by: str) -> GPTConfig:
    """`config` with feed-forward layers so wide that it has what `gpt2_of` it has, or nearly.

    The nearest whole width, at least 1: each measure is a linear function of it.

    by  of MEASURES: all parameters, or the operations of a token

    Raises ConfigError where there is no width to choose.
    """
    if config.feed_forward.dim is not None:
        valid = f"chooses the width, and feed_forward.dim={config.feed_forward.dim} is one"
        raise ConfigError("match", by, valid)
    if not config.n_layers:
        raise ConfigError("match", by, "chooses the width of blocks, and n_layers=0 has none")
    measure = MEASURES[by]
    at_one, at_two = (measure(with_width(config, width)) for width in (1, 2))
    width = 1 + (measure(gpt2_of(config)) - at_one) / (at_two - at_one)
    return with_width(config, max(1, round(width)))


def gpt2_of(config: GPTConfig) -> GPTConfig:
    """GPT-2 in the sizes of `config`, under its placement."""
    return GPTConfig(
        config.vocab_size,
        config.context_length,
        config.emb_dim,
        config.n_heads,
        config.n_layers,
        qkv_bias=True,
        tie_head=True,
        feed_forward=FeedForwardConfig(ratio=config.feed_forward.ratio),
        attention=AttentionConfig(causal=config.attention.causal),
        norm=replace(config.norm, kind="layer_norm"),
    )


def with_width(config: GPTConfig, width: int) -> GPTConfig:
    """`config` with another width of the feed-forward layers."""
    return replace(config, feed_forward=replace(config.feed_forward, dim=width))


def meta_model(config: GPTConfig) -> GPT:
    """The model with parameters that have shapes and no values, which no scheme need draw."""
    with torch.device("meta"):
        return GPT(replace(config, init=replace(config.init, scheme="torch")))
