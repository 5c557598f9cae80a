"""The description of one model, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gpt.checks import check_fields, setting
from gpt.registry import ACTIVATIONS, INITS, NORMS, PLACEMENTS, POSITIONS, ConfigError

# The book's model: Raschka, Build a Large Language Model (From Scratch), chapter 4.
GPT_CONFIG_124M: dict[str, Any] = {
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}

# Bounds far above any model, below which no size overflows.
MOST_WIDTH, MOST_RATIO, MOST_TOKENS = 1_000_000, 1_000, 2**31 - 1
MOST_LAYERS = 10_000  # ten times the deepest published, DeepNet's (arXiv 2203.00555)


@dataclass(frozen=True)
class NormConfig:
    """Where the norms stand, and their kind.

    placement  see gpt/placement.py
    kind       see gpt/norm.py
    eps        added to the variance or mean square under the root
    final      whether a norm precedes the head; None leaves it to the placement
    qk         whether a norm stands on queries and keys; None leaves it to the placement
    options    parameters of the placement's own, by name; what is absent is as in its paper

    Raises ConfigError for an option that the placement does not have.
    """

    placement: str = setting("pre_ln", choices=PLACEMENTS)
    kind: str = setting("layer_norm", choices=NORMS)
    eps: float = setting(1e-5, at_least=0)
    final: bool | None = None
    qk: bool | None = None
    options: dict[str, Any] = setting(factory=dict)


@dataclass(frozen=True)
class PositionConfig:
    """How a token knows its place: see gpt/position.py."""

    kind: str = setting("learned", choices=POSITIONS)


@dataclass(frozen=True)
class AttentionConfig:
    """causal: whether a token sees those before it alone; false as in an encoder, for theory."""

    causal: bool = True


@dataclass(frozen=True)
class FeedForwardConfig:
    """ratio: width of the hidden side over emb_dim."""

    ratio: float = setting(4.0, above=0, at_most=MOST_RATIO)


@dataclass(frozen=True)
class InitConfig:
    """How the weights are drawn.

    scheme  see gpt/init.py
    std     standard deviation of the gpt2 schemes
    """

    scheme: str = setting("torch", choices=INITS)
    std: float = setting(0.02, at_least=0)


@dataclass(frozen=True)
class Architecture:
    """The sizes and the parts of a GPT: its seven book names first.

    vocab_size      number of tokens the model can read and write
    context_length  longest sequence, in tokens
    emb_dim         width of the residual stream
    n_heads         attention heads; must divide emb_dim
    n_layers        transformer blocks, at most MOST_LAYERS; 0 leaves embeddings and head
    drop_rate       dropout probability, in [0, 1]
    qkv_bias        whether query, key and value projections have a bias

    bias            whether the attention's output and the feed-forward layers have one
    tie_head        whether the head shares the token embedding's weight
    """

    vocab_size: int = setting(at_least=1, at_most=MOST_TOKENS)
    context_length: int = setting(at_least=1, at_most=MOST_TOKENS)
    emb_dim: int = setting(at_least=1, at_most=MOST_WIDTH)
    n_heads: int = setting(at_least=1, at_most=MOST_WIDTH)
    n_layers: int = setting(at_least=0, at_most=MOST_LAYERS)
    drop_rate: float = setting(0.0, at_least=0, at_most=1)
    qkv_bias: bool = False
    bias: bool = True
    tie_head: bool = False
    position: PositionConfig = PositionConfig()
    attention: AttentionConfig = AttentionConfig()
    feed_forward: FeedForwardConfig = FeedForwardConfig()

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.emb_dim // self.n_heads

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer's hidden side."""
        return int(self.feed_forward.ratio * self.emb_dim)


@dataclass(frozen=True)
class GPTConfig(Architecture):
    """One GPT: its architecture, and the choices this project is about.

    shortcut    whether each sublayer adds its input
    activation  of the feed-forward layer, see gpt/activation.py

    Raises ConfigError, naming the field, the value and what would be valid.
    """

    shortcut: bool = True
    activation: str = setting("gelu", choices=ACTIVATIONS)
    norm: NormConfig = setting(factory=NormConfig)
    init: InitConfig = InitConfig()

    def __post_init__(self) -> None:
        check_fields(self)
        check_options(self.norm)
        if self.emb_dim % self.n_heads:
            raise ConfigError("n_heads", self.n_heads, f"must divide emb_dim={self.emb_dim}")
        ratio = self.feed_forward.ratio
        if self.ff_dim < 1 or self.ff_dim != ratio * self.emb_dim:
            valid = f"times emb_dim={self.emb_dim} must be a whole number of at least 1"
            raise ConfigError("feed_forward.ratio", ratio, valid)
        PLACEMENTS[self.norm.placement].check(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "GPTConfig":
        """The config of which `dataclasses.asdict` made `values`, now or in version 0.4."""
        nested = nest(values)
        for name, section in SECTIONS.items():
            if name in nested:
                nested[name] = section(**nested[name])
        return cls(**nested)


SECTIONS: dict[str, Any] = {
    "norm": NormConfig,
    "position": PositionConfig,
    "attention": AttentionConfig,
    "feed_forward": FeedForwardConfig,
    "init": InitConfig,
}
# Version 0.4 had no sections; checkpoints are still read that it wrote.
FLAT_NAMES = {
    "placement": "norm.placement",
    "norm": "norm.kind",
    "norm_eps": "norm.eps",
    "final_norm": "norm.final",
    "qk_norm": "norm.qk",
    "fraction": "norm.options.fraction",
    "embedding_norm": "norm.options.embedding_norm",
    "scale_start": "norm.options.scale_start",
    "causal": "attention.causal",
    "ff_ratio": "feed_forward.ratio",
    "init": "init.scheme",
    "init_std": "init.std",
}


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each flat name of version 0.4 in its section; None there was the default."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        if name not in FLAT_NAMES or isinstance(value, Mapping):
            nested[name] = value
        elif value is not None:
            *sections, last = FLAT_NAMES[name].split(".")
            section = nested
            for part in sections:
                section = section.setdefault(part, {})
            section[last] = value
    return nested


def check_options(norm: NormConfig) -> None:
    """Raise ConfigError unless the placement has each of these options and takes its value."""
    known = PLACEMENTS[norm.placement].Options
    names = [option.name for option in fields(known)]
    for name, value in norm.options.items():
        if name not in names:
            own = f"its options: {', '.join(names)}" if names else "it has none"
            valid = f"norm={norm.placement} has no such option ({own}){belonging(name)}"
            raise ConfigError(f"norm.options.{name}", value, valid)
    check_fields(known(**norm.options), "norm.options.")


def belonging(name: str) -> str:
    """Whose an option is, in words; empty where no placement has it."""
    owners = [
        f"norm={placement}"
        for placement, block in PLACEMENTS.items()
        if name in {option.name for option in fields(block.Options)}
    ]
    return f"; it belongs to {' and '.join(owners)}" if owners else ""
