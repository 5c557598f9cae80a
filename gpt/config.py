"""The description of one model, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt.checks import check_choice, check_flag, check_number, check_whole
from gpt.registry import ACTIVATIONS, INITS, NORMS, PLACEMENTS, ConfigError

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


MOST_LAYERS = 10_000  # ten times the deepest published, DeepNet's (arXiv 2203.00555)


@dataclass(frozen=True)
class GPTConfig:
    """One GPT: its seven book names first, then the choices this project is about.

    vocab_size      number of tokens the model can read and write
    context_length  longest sequence, in tokens
    emb_dim         width of the residual stream
    n_heads         attention heads; must divide emb_dim
    n_layers        transformer blocks, at most MOST_LAYERS; 0 leaves embeddings and head
    drop_rate       dropout probability, in [0, 1]
    qkv_bias        whether query, key and value projections have a bias
    bias            whether the attention's output and the feed-forward layers have one
    causal          whether a token sees those before it alone; false as in an encoder, for theory

    placement       where the norms stand, see gpt/placement.py
    shortcut        whether each sublayer adds its input
    norm            the kind of norm, see gpt/norm.py
    norm_eps        added to the variance or mean square under the root
    final_norm      whether a norm precedes the head; None leaves it to the placement
    qk_norm         whether a norm stands on queries and keys; None leaves it to the placement
    fraction        of the blocks that mix_ln makes post_ln, in [0, 1]; of no other placement
    embedding_norm  whether peri_ln norms the embeddings too; of no other placement
    scale_start     at which reordered starts its norms' scales; of no other placement
    activation      see gpt/activation.py
    ff_ratio        feed-forward width over emb_dim
    tie_head        whether the head shares the token embedding's weight
    init            initialisation scheme, see gpt/init.py
    init_std        standard deviation of the gpt2 schemes

    Raises ConfigError, naming the field, the value and what would be valid.
    """

    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    drop_rate: float = 0.0
    qkv_bias: bool = False
    bias: bool = True
    causal: bool = True
    placement: str = "pre_ln"
    shortcut: bool = True
    norm: str = "layer_norm"
    norm_eps: float = 1e-5
    final_norm: bool | None = None
    qk_norm: bool | None = None
    fraction: float | None = None
    embedding_norm: bool | None = None
    scale_start: float | None = None
    activation: str = "gelu"
    ff_ratio: float = 4.0
    tie_head: bool = False
    init: str = "torch"
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for field in ("vocab_size", "context_length", "emb_dim", "n_heads"):
            check_whole(field, getattr(self, field), at_least=1)
        check_whole("n_layers", self.n_layers, at_least=0, at_most=MOST_LAYERS)
        check_number("drop_rate", self.drop_rate, 0.0, 1.0)
        check_number("norm_eps", self.norm_eps, 0.0)
        check_number("init_std", self.init_std, 0.0)
        check_number("ff_ratio", self.ff_ratio, 0.0)
        for field in ("qkv_bias", "bias", "causal", "shortcut", "tie_head"):
            check_flag(field, getattr(self, field))
        for field in ("final_norm", "qk_norm", "embedding_norm"):
            if getattr(self, field) is not None:
                check_flag(field, getattr(self, field))
        check_choice("placement", self.placement, PLACEMENTS)
        check_choice("norm", self.norm, NORMS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("init", self.init, INITS)
        if self.emb_dim % self.n_heads:
            raise ConfigError("n_heads", self.n_heads, f"must divide emb_dim={self.emb_dim}")
        if self.ff_dim < 1 or self.ff_dim != self.ff_ratio * self.emb_dim:
            raise ConfigError(
                "ff_ratio",
                self.ff_ratio,
                f"times emb_dim={self.emb_dim} must be a whole number of at least 1",
            )
        if self.fraction is not None:
            check_number("fraction", self.fraction, 0.0, 1.0)
        if self.scale_start is not None:
            check_number("scale_start", self.scale_start, 0.0)
        for field, owners in options_of(PLACEMENTS).items():
            if getattr(self, field) is not None and self.placement not in owners:
                valid = f"{self.placement} has no such parameter; {' and '.join(owners)} has"
                raise ConfigError(field, getattr(self, field), valid)
        PLACEMENTS[self.placement].check(self)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.emb_dim // self.n_heads

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer's hidden side."""
        return int(self.ff_ratio * self.emb_dim)


def options_of(placements: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters that belong to single placements, each with the names of those."""
    owners: dict[str, list[str]] = {}
    for name, placement in placements.items():
        for option in placement.options:
            owners.setdefault(option, []).append(name)
    return owners
