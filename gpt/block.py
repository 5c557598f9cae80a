"""What every transformer block owns, whatever its placement: the parts, not the equation."""

from typing import Any, ClassVar

from torch import Tensor, nn

from gpt.attention import CausalSelfAttention
from gpt.config import GPTConfig
from gpt.feedforward import FeedForward
from gpt.norm import NORMS


class NoShortcut(nn.Module):
    """Shortcut off: contributes a zero that holds nothing of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class Block(nn.Module):
    """Attention A, feed-forward F, norms N and shortcut of one block; subclasses combine them.

    A subclass is a placement: its `forward` is the paper's equation. It maps the state of the
    stream to the state after the block. The state is a tensor (B, T, emb_dim) unless the
    placement carries more than one stream, in which case it overrides `make_entry`, `stream` and
    `make_final`.

    norms              names of the norms that each block owns, one attribute for each
    final_norm         whether the paper puts a norm before the output head
    attention_type     the branches; a placement with a norm inside one names its own
    feed_forward_type
    """

    norms: ClassVar[tuple[str, ...]] = ("norm_1", "norm_2")
    final_norm: ClassVar[bool] = False
    attention_type: ClassVar[type[CausalSelfAttention]] = CausalSelfAttention
    feed_forward_type: ClassVar[type[FeedForward]] = FeedForward
    norm_1: nn.Module
    norm_2: nn.Module

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = self.attention_type(config)
        self.feed_forward = self.feed_forward_type(config)
        for name in self.norms:
            self.add_module(name, NORMS[config.norm](config.emb_dim, config.norm_eps))
        self.shortcut = nn.Identity() if config.shortcut else NoShortcut()

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> "Block":
        """The block at `layer` (0 .. n_layers - 1); override where blocks differ by depth."""
        return cls(config, layer)

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        """What turns the embeddings (B, T, emb_dim) into the state that the first block reads."""
        return nn.Identity()

    @staticmethod
    def stream(state: Any) -> Tensor:
        """The tensor (B, T, emb_dim) of the state that is measured as the stream."""
        return state

    @classmethod
    def has_final_norm(cls, config: GPTConfig) -> bool:
        """What the config says, or the paper where it says nothing."""
        return cls.final_norm if config.final_norm is None else config.final_norm

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        """What turns the state after the last block into the head's input (B, T, emb_dim)."""
        if not cls.has_final_norm(config):
            return nn.Identity()
        return NORMS[config.norm](config.emb_dim, config.norm_eps)
