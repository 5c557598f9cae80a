"""The description of one model, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from gpt.checks import check_fields, hints_of, setting
from gpt.registry import ACTIVATIONS, INITS, NORMS, PARALLEL, PLACEMENTS, POSITIONS, ConfigError

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
    qk         of queries and keys: `head`, a norm over each head's features, shared by the heads,
               as Dehghani et al. 2023; `projection`, one over the features of all heads together,
               as OLMo 2; True is head; False is none; None leaves it to the placement
    options    parameters of the placement's own, by name; what is absent is as in its paper

    Raises ConfigError for an option that the placement does not have.
    """

    placement: str = setting("pre_ln", choices=PLACEMENTS)
    kind: str = setting("layer_norm", choices=NORMS)
    eps: float = setting(1e-5, at_least=0)
    final: bool | None = None
    qk: bool | str | None = setting(None, choices=("head", "projection"))
    options: dict[str, Any] = setting(factory=dict)


@dataclass(frozen=True)
class YarnConfig:
    """How rotary positions reach beyond the length they were first trained on.

    Peng et al. 2023 (YaRN), arXiv 2309.00071.

    factors          of the length in each layer, repeated over the layers; 1 changes nothing
    original_length  tokens of the first training
    beta_fast        turns within original_length above which a frequency stays as it is
    beta_slow        turns below which it is divided by the factor; between, a ramp
    truncate         whether the ramp begins and ends at whole features
    """

    factors: list[float] = setting(factory=lambda: [1.0], at_least=1, newer=True)
    original_length: int = setting(4096, at_least=1, at_most=MOST_TOKENS, newer=True)
    beta_fast: float = setting(32.0, at_least=1e-6, at_most=1e6, newer=True)
    beta_slow: float = setting(1.0, at_least=1e-6, at_most=1e6, newer=True)
    truncate: bool = setting(True, newer=True)


@dataclass(frozen=True)
class PositionConfig:
    """How a token knows its place: see gpt/position.py.

    offset       learned: rows of the table before that of the first token
    bases        rotary: base b of the frequencies b^(-2i/d) of each layer, repeated over the
                 layers; 0 leaves a layer without positions
    fraction     rotary: of each head's features, from the first, that turn
    interleaved  rotary: whether features 2i and 2i + 1 are a pair; else i and i + d/2
    in_float32   rotary: whether queries and keys of fewer bits turn in float32
    """

    kind: str = setting("learned", choices=POSITIONS)
    offset: int = setting(0, at_least=0, at_most=MOST_TOKENS, newer=True)
    bases: list[float] = setting(factory=lambda: [10000.0], at_least=0, newer=True)
    fraction: float = setting(1.0, above=0, at_most=1, newer=True)
    interleaved: bool = setting(False, newer=True)
    in_float32: bool = setting(False, newer=True)
    yarn: YarnConfig = setting(factory=YarnConfig)


@dataclass(frozen=True)
class AttentionConfig:
    """Who sees whom, and by which heads.

    causal     whether a token sees those before it alone; false as in an encoder, for theory
    kv_heads   of keys and values, each shared by n_heads / kv_heads queries; None: n_heads
    head_dim   width of a head; None: emb_dim / n_heads
    windows    tokens that a token sees, itself among them, in each layer, repeated over the
               layers; 0: all
    sinks      whether each head has a learned logit that takes part in the softmax alone
    scale      of the logits; None: 1 / sqrt(head_dim)
    out_bias   whether the output has a bias; None: as the feed-forward layers
    drop_rate  dropout probability of the weights; None: that of the model
    """

    causal: bool = True
    kv_heads: int | None = setting(None, at_least=1, at_most=MOST_WIDTH, newer=True)
    head_dim: int | None = setting(None, at_least=1, at_most=MOST_WIDTH, newer=True)
    windows: list[int] = setting(factory=lambda: [0], at_least=0, newer=True)
    sinks: bool = setting(False, newer=True)
    scale: float | None = setting(None, above=0, newer=True)
    out_bias: bool | None = setting(None, newer=True)
    drop_rate: float | None = setting(None, at_least=0, at_most=1, newer=True)


@dataclass(frozen=True)
class FeedForwardConfig:
    """The feed-forward layers.

    ratio   width of the hidden side over emb_dim
    dim     that width itself; None: by the ratio
    gated   whether the activation is multiplied by a second projection: W_3 (phi(W_1 x) * W_2 x)
    clamp   gated: the gate is at most this, the second projection in [-clamp, clamp]; None: off
    offset  gated: added to the second projection
    """

    ratio: float = setting(4.0, above=0, at_most=MOST_RATIO)
    dim: int | None = setting(None, at_least=1, at_most=MOST_WIDTH * MOST_RATIO, newer=True)
    gated: bool = setting(False, newer=True)
    clamp: float | None = setting(None, above=0, newer=True)
    offset: float = setting(0.0, newer=True)


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in the place of the feed-forward layer, see gpt/moe.py.

    count          of experts in each block; 0: one dense layer
    active         experts that each token is sent to, those with the largest router logits
    softmax        over the logits of the `chosen` experts, or over `all` before the choice
    balance_loss   factor of the auxiliary loss that evens the experts' load; 0: off
    """

    count: int = setting(0, at_least=0, at_most=MOST_WIDTH, newer=True)
    active: int = setting(1, at_least=1, at_most=MOST_WIDTH, newer=True)
    softmax: str = setting("chosen", choices=("chosen", "all"), newer=True)
    balance_loss: float = setting(0.0, at_least=0, newer=True)


@dataclass(frozen=True)
class EmbeddingConfig:
    """The token embeddings.

    dim        their width; another one than emb_dim is projected in and out; None: emb_dim
    factor     by which they are multiplied, rounded to their type
    drop_rate  dropout probability of their sum with the positions; None: that of the model
    """

    dim: int | None = setting(None, at_least=1, at_most=MOST_WIDTH, newer=True)
    factor: float = setting(1.0, above=0, newer=True)
    drop_rate: float | None = setting(None, at_least=0, at_most=1, newer=True)


@dataclass(frozen=True)
class ParallelConfig:
    """Whether attention and feed-forward read the same input, see gpt/parallel.py.

    enabled  whether they do
    shared   whether they share one norm as well
    """

    enabled: bool = setting(False, newer=True)
    shared: bool = setting(False, newer=True)


@dataclass(frozen=True)
class InitConfig:
    """How the weights are drawn.

    scheme         see gpt/init.py
    std            standard deviation of the gpt2 schemes
    embedding_std  that of the token and position embeddings, before `embedding.factor`; None leaves
                   it to the scheme: std in the gpt2 ones, 1 in the others
    """

    scheme: str = setting("torch", choices=INITS)
    std: float = setting(0.02, at_least=0)
    embedding_std: float | None = setting(None, at_least=0, newer=True)


@dataclass(frozen=True)
class Architecture:
    """The sizes and the parts of a GPT: its seven book names first.

    vocab_size      number of tokens the model can read and write
    context_length  longest sequence, in tokens
    emb_dim         width of the residual stream
    n_heads         attention heads; must divide emb_dim unless attention.head_dim is given
    n_layers        transformer blocks, at most MOST_LAYERS; 0 leaves embeddings and head
    drop_rate       dropout probability, in [0, 1], of embeddings, attention weights and branches
    qkv_bias        whether query, key and value projections have a bias

    bias            whether the attention's output, the feed-forward layers, and the router and the
                    experts have one
    tie_head        whether the head shares the token embedding's weight
    head_bias       whether the head has a bias
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
    head_bias: bool = setting(False, newer=True)
    embedding: EmbeddingConfig = EmbeddingConfig()
    position: PositionConfig = setting(factory=PositionConfig)
    attention: AttentionConfig = setting(factory=AttentionConfig)
    feed_forward: FeedForwardConfig = FeedForwardConfig()
    experts: ExpertsConfig = ExpertsConfig()
    parallel: ParallelConfig = ParallelConfig()

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.attention.head_dim or self.emb_dim // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and of values."""
        return self.attention.kv_heads or self.n_heads

    @property
    def heads_dim(self) -> int:
        """Width of all attention heads together, before the output weights."""
        return self.n_heads * self.head_dim

    @property
    def turned_dim(self) -> int:
        """Features of each head that rotary positions turn."""
        return int(self.head_dim * self.position.fraction)

    @property
    def embedding_dim(self) -> int:
        """Width of the token embeddings and of what the head reads."""
        return self.embedding.dim or self.emb_dim

    @property
    def embedding_drop_rate(self) -> float:
        """Dropout probability of what the first block reads."""
        own = self.embedding.drop_rate
        return self.drop_rate if own is None else own

    @property
    def attention_drop_rate(self) -> float:
        """Dropout probability of the attention weights."""
        own = self.attention.drop_rate
        return self.drop_rate if own is None else own

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer's hidden side."""
        return self.feed_forward.dim or int(self.feed_forward.ratio * self.emb_dim)

    def window(self, layer: int) -> int:
        """Tokens that a token of the layer sees, itself among them; 0: all before it."""
        return self.attention.windows[layer % len(self.attention.windows)]

    def base(self, layer: int) -> float:
        """Base of the layer's rotary frequencies; 0: it has no positions."""
        return self.position.bases[layer % len(self.position.bases)]

    def yarn_factor(self, layer: int) -> float:
        """By which YaRN stretches the layer's positions; 1: not."""
        factors = self.position.yarn.factors
        return factors[layer % len(factors)]


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
        check_heads(self)
        check_positions(self)
        check_feed_forward(self)
        self.placement.check(self)

    @property
    def placement(self) -> Any:
        """The class of the blocks, of gpt/placement.py, or of gpt/parallel.py where they are so."""
        name = self.norm.placement
        if self.parallel.enabled and name in PLACEMENTS and name not in PARALLEL:
            valid = "has no form in which attention and feed-forward read the same input; with it: "
            raise ConfigError("norm.placement", name, valid + ", ".join(sorted(PARALLEL)))
        return (PARALLEL if self.parallel.enabled else PLACEMENTS)[name]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "GPTConfig":
        """The config of which `dataclasses.asdict` made `values`, now or in version 0.4."""
        return from_nested(cls, nest(values))


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set `value` under a name such as `norm.kind`, in sections that are made or copied."""
    *sections, last = name.split(".")
    for section in sections:
        values[section] = dict(values.get(section, {}))
        values = values[section]
    values[last] = value


K = TypeVar("K")


def from_nested(kind: type[K], values: Mapping[str, Any]) -> K:
    """The dataclass of nested `values`."""
    hints = hints_of(kind)
    made = {
        name: from_nested(hints[name], value)
        if is_dataclass(hints.get(name)) and isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
    return kind(**made)


def check_heads(config: GPTConfig) -> None:
    """Raise ConfigError for heads of no whole width, or that cannot share keys and values."""
    attention, width = config.attention, config.emb_dim
    if attention.head_dim is None and width % config.n_heads:
        valid = f"must divide emb_dim={width}, or attention.head_dim must be given"
        raise ConfigError("n_heads", config.n_heads, valid)
    if config.n_heads % config.kv_heads:
        valid = f"must divide n_heads={config.n_heads}"
        raise ConfigError("attention.kv_heads", config.kv_heads, valid)
    if not attention.windows:
        raise ConfigError("attention.windows", attention.windows, "must name one layer's at least")
    if not attention.causal and any(attention.windows):
        valid = "a window looks back: with attention.causal=false there is none"
        raise ConfigError("attention.windows", attention.windows, valid)


def check_positions(config: GPTConfig) -> None:
    """Raise ConfigError for bases of no layer, and for features that cannot turn in pairs."""
    position = config.position
    if not position.bases or any(0 < base <= 1 for base in position.bases):
        valid = "must have a base above 1 for each layer, repeated over the layers, or 0 for none"
        raise ConfigError("position.bases", position.bases, valid)
    if not position.yarn.factors:
        raise ConfigError("position.yarn.factors", [], "must name one layer's at least")
    if position.yarn.beta_fast <= position.yarn.beta_slow:
        valid = f"must be above position.yarn.beta_slow={position.yarn.beta_slow}"
        raise ConfigError("position.yarn.beta_fast", position.yarn.beta_fast, valid)
    if position.kind == "rotary" and (config.turned_dim < 2 or config.turned_dim % 2):
        valid = f"times head_dim={config.head_dim} must be an even number of at least 2"
        raise ConfigError("position.fraction", position.fraction, valid)


def check_feed_forward(config: GPTConfig) -> None:
    """Raise ConfigError for a hidden side of no whole width, or more active experts than all."""
    forward, experts = config.feed_forward, config.experts
    if forward.dim is None and (
        config.ff_dim < 1 or config.ff_dim != forward.ratio * config.emb_dim
    ):
        valid = f"times emb_dim={config.emb_dim} must be a whole number of at least 1"
        raise ConfigError("feed_forward.ratio", forward.ratio, valid)
    if experts.count and experts.active > experts.count:
        valid = f"must be at most experts.count={experts.count}"
        raise ConfigError("experts.active", experts.active, valid)


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
            put(nested, FLAT_NAMES[name], value)
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
