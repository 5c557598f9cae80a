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
    placement carries more than one stream, in which case it overrides `enter`, `stream` and
    `make_final`.

    norms       names of the norms that each block owns, one attribute for each
    final_norm  whether the paper puts a norm before the output head
    """

    norms: ClassVar[tuple[str, ...]] = ("norm_1", "norm_2")
    final_norm: ClassVar[bool] = False
    norm_1: nn.Module
    norm_2: nn.Module

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(config)
        self.feed_forward = FeedForward(config)
        for name in self.norms:
            self.add_module(name, NORMS[config.norm](config.emb_dim, config.norm_eps))
        self.shortcut = nn.Identity() if config.shortcut else NoShortcut()

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> "Block":
        """The block at `layer` (0 .. n_layers - 1); override where blocks differ by depth."""
        return cls(config, layer)

    @staticmethod
    def enter(x: Tensor) -> Any:
        """The state of the stream that the first block reads, from the embeddings."""
        return x

    @staticmethod
    def stream(state: Any) -> Tensor:
        """The tensor (B, T, emb_dim) of the state that is measured as the stream."""
        return state

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        """What turns the state after the last block into the head's input (B, T, emb_dim)."""
        wanted = cls.final_norm if config.final_norm is None else config.final_norm
        return NORMS[config.norm](config.emb_dim, config.norm_eps) if wanted else nn.Identity()
