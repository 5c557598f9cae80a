"""The GPT: embeddings, a stack of blocks under the chosen placement, a head."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt.block import Block
from gpt.cache import Reading
from gpt.config import GPTConfig
from gpt.init import initialise
from gpt.registry import POSITIONS, ConfigError
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
        "before": {part: part for part in ("token_embedding", "position_embedding", "entry")}
        | {"project_in": "entry"},
        "after": {part: part for part in ("final_norm", "head")} | {"project_out": "final_norm"},
    }

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        placement = config.placement
        self.config = config
        width, narrow = config.emb_dim, config.embedding_dim
        self.token_embedding = nn.Embedding(config.vocab_size, narrow)
        self.position_embedding = POSITIONS[config.position.kind].make_embedding(config)
        self.project_in = nn.Identity() if narrow == width else nn.Linear(narrow, width, False)
        self.dropout = nn.Dropout(config.embedding_drop_rate)
        self.entry = placement.make_entry(config)
        blocks = nn.ModuleList(placement.build(config, layer) for layer in range(config.n_layers))
        self.blocks = cast(Sequence[Block], blocks)
        self.final_norm = placement.make_final(config)
        self.project_out = nn.Identity() if narrow == width else nn.Linear(width, narrow, False)
        self.head = nn.Linear(narrow, config.vocab_size, bias=config.head_bias)
        self.tie()
        self.reading: Reading | None = None  # of generation, see gpt/cache.py
        self.recomputes = False  # whether backward computes each block again, from its input alone
        with torch.no_grad():
            initialise(list(self.weights()), config)

    def tie(self) -> None:
        """Let the head share the token embedding's weight, where the config says so."""
        if self.config.tie_head:
            self.head.weight = self.token_embedding.weight

    def weights(self) -> Iterator[Weight]:
        """Its matrices, each once, in the order in which they are drawn."""
        yield Weight("embedding", self.token_embedding.weight)
        for matrix in self.position_embedding.parameters():
            yield Weight("position", matrix)
        for matrix in self.project_in.parameters():
            yield Weight("project_in", matrix)
        for block in self.blocks:
            yield from block.weights()
        for matrix in self.project_out.parameters():
            yield Weight("project_out", matrix)
        if not self.config.tie_head:
            yield weight_of("head", self.head)

    def profile(self, tokens: Tensor) -> None:
        """Set what the placement, as admin, sets from tokens (B, T) of the first batch."""
        self.config.placement.profile(self.blocks, lambda: self(tokens))

    def features(self, tokens: Tensor) -> Tensor:
        """What the head reads, (B, T, embedding_dim)."""
        length = tokens.shape[-1]
        if length > self.config.context_length:
            valid = f"must be at most context_length={self.config.context_length}"
            raise ConfigError("sequence length", length, valid)
        places = torch.arange(length, device=tokens.device)
        if self.reading is not None:
            places = self.reading.places.clamp(min=0)
        x = self.project_in(self.embed(tokens)) + self.position_embedding(places)
        state = self.entry(self.dropout(x))  # made from (B, T, emb_dim)
        for block in self.blocks:
            state = recomputed(block, state) if self.recomputes else block(state)
        return self.project_out(self.final_norm(state))

    def embed(self, tokens: Tensor) -> Tensor:
        """The token embeddings, times their factor, (B, T, embedding_dim)."""
        x = self.token_embedding(tokens)
        factor = self.config.embedding.factor
        return x if factor == 1 else x * torch.tensor(factor, dtype=x.dtype, device=x.device)

    def balance_loss(self) -> Tensor | None:
        """What evens the load of experts, to be added to the loss; None without such a loss.

        Its factor times the mean over the blocks of the last forward pass in training, each 1 where
        all experts are used alike, see `gpt.moe.balance`.
        """
        factor = self.config.experts.balance_loss
        if not (factor and self.config.experts.count and self.config.n_layers):
            return None
        balances: list[Any] = [block.feed_forward.balance for block in self.blocks]
        return factor * torch.stack(balances).mean()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))


def recomputed(block: Block, state: Any) -> Any:
    """block(state), of which backward finds the state alone, and computes the rest again."""
    if isinstance(state, tuple):  # of which only tensors of their own would be known as kept
        return checkpoint(lambda *streams: block(streams), *state, use_reentrant=False)
    return checkpoint(block, state, use_reentrant=False)
