"""The GPT: embeddings, a stack of blocks under the chosen placement, a head."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from gpt.block import Block
from gpt.config import GPTConfig
from gpt.registry import INITS, PLACEMENTS, POSITIONS, ConfigError
from gpt.weights import Weight, weight_of


class GPT(nn.Module):
    """Maps token ids (B, T) to logits (B, T, vocab_size). T is at most context_length.

    Parameters are drawn in the order in which the lines below stand, on which every seeded
    figure depends. Radford et al. 2019 for the architecture, with the placement left open.

    anatomy  where an instrument finds the parts, by their names in the model and in its blocks
    """

    anatomy: ClassVar[Mapping[str, Any]] = {
        "blocks": "blocks",
        "attention": "attention",
        "feed_forward": "feed_forward",
        "sums": ("add_1", "add_2"),
        "stream": "stream",
        "before": {part: part for part in ("token_embedding", "position_embedding", "entry")},
        "after": {part: part for part in ("final_norm", "head")},
    }

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        placement = PLACEMENTS[config.norm.placement]
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.emb_dim)
        self.position_embedding = POSITIONS[config.position.kind].make_embedding(config)
        self.dropout = nn.Dropout(config.drop_rate)
        self.entry = placement.make_entry(config)
        blocks = nn.ModuleList(placement.build(config, layer) for layer in range(config.n_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_norm = placement.make_final(config)
        self.head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        if config.tie_head:
            self.head.weight = self.token_embedding.weight
        with torch.no_grad():
            INITS[config.init.scheme](list(self.weights()), config)

    def weights(self) -> Iterator[Weight]:
        """Its matrices, each once, in the order in which they are drawn."""
        yield Weight("embedding", self.token_embedding.weight)
        for matrix in self.position_embedding.parameters():
            yield Weight("position", matrix)
        for block in self.blocks:
            yield from block.weights()
        if not self.config.tie_head:
            yield weight_of("head", self.head)

    def profile(self, tokens: Tensor) -> None:
        """Set what the placement, as admin, sets from tokens (B, T) of the first batch."""
        PLACEMENTS[self.config.norm.placement].profile(self.blocks, lambda: self(tokens))

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads, (B, T, emb_dim)."""
        length = tokens.shape[-1]
        if length > self.config.context_length:
            valid = f"must be at most context_length={self.config.context_length}"
            raise ConfigError("sequence length", length, valid)
        places = torch.arange(length, device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(places)  # (B, T, emb_dim)
        state = self.entry(self.dropout(x))
        for block in self.blocks:
            state = block(state)
        return self.final_norm(state)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
