"""How a token knows its place."""

from torch import nn

from gpt.config import GPTConfig
from gpt.registry import POSITIONS


@POSITIONS("learned")
class Learned:
    """A vector per place, (context_length, emb_dim), trained and added to the embeddings.

    Radford et al. 2019 (GPT-2).
    """

    @staticmethod
    def make_embedding(config: GPTConfig) -> nn.Module:
        """What gives places (T,) the vectors (T, emb_dim) that are added to the embeddings."""
        return nn.Embedding(config.context_length, config.emb_dim)
