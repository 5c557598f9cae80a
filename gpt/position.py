"""How a token knows its place: what is added to the embeddings, and how queries and keys turn.

A kind overrides one of the two; what has parameters of its own holds them in a module.
"""

from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.registry import POSITIONS


@POSITIONS("none")
class NoPosition:
    """Nothing but the causal mask. Kazemnejad et al. 2023 (NoPE), arXiv 2305.19466."""

    @staticmethod
    def make_embedding(config: GPTConfig) -> nn.Module:
        """What maps places (T,) to what is added to the token embeddings, (T, emb_dim)."""
        return Zero()

    @staticmethod
    def make_turn(config: GPTConfig, layer: int) -> nn.Module:
        """What a layer does to queries and to keys, (B, n_heads, T, head_dim) to the same shape."""
        return nn.Identity()


class Zero(nn.Module):
    """0, whatever the places."""

    def forward(self, places: Tensor) -> Tensor:
        return places.new_zeros(())


@POSITIONS("learned")
class LearnedPosition(NoPosition):
    """A vector per place, trained. Radford et al. 2019 (GPT-2)."""

    @staticmethod
    def make_embedding(config: GPTConfig) -> nn.Module:
        """A table (context_length, emb_dim)."""
        return nn.Embedding(config.context_length, config.emb_dim)
