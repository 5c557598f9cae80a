"""Multi-head self-attention."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.inside import NOTHING, Inside
from gpt.norm import make_norm
from gpt.registry import POSITIONS
from gpt.weights import Weight, weight_of


class SelfAttention(nn.Module):
    """A x = N(concat_h(s_h attend_h(x))) W_O + b_O, attend_h(x) = softmax(q k^T / sqrt(head_dim)) v
    with q = R N(Q_h), k = R N(K_h), v = N(V_h), each N and s_h where the placement puts it inside,
    R the turn by the token's place, of the kinds of position that have one.

    Maps (B, T, emb_dim) to (B, T, emb_dim). A token sees itself and those before it, or all where
    the config is not causal. Dropout falls on the weights and on the output. Vaswani et al. 2017,
    arXiv 1706.03762.

    On queries and keys: Dehghani et al. 2023, arXiv 2302.05442, and with another norm Henry et al.
    2020, arXiv 2010.04245; on values too: Zhuo et al. 2025 (HybridNorm), arXiv 2503.04598; on all
    heads: Wang et al. 2022 (Magneto), arXiv 2210.06423; s_h: Shleifer et al. 2021 (NormFormer),
    arXiv 2110.09456.
    """

    def __init__(self, config: GPTConfig, inside: Inside = NOTHING, layer: int = 0) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.causal = config.attention.causal
        self.drop_rate = config.drop_rate
        # One matrix for query, key and value: the same numbers as three drawn in a row.
        self.qkv = nn.Linear(config.emb_dim, 3 * config.emb_dim, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.emb_dim, config.emb_dim, bias=config.bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.query_norm = make_norm(config, config.head_dim, inside.query)
        self.key_norm = make_norm(config, config.head_dim, inside.key)
        self.value_norm = make_norm(config, config.head_dim, inside.value)
        self.head_scale = nn.Parameter(torch.ones(config.n_heads)) if inside.head_scale else None
        self.norm = make_norm(config, config.emb_dim, inside.heads)
        self.turn = POSITIONS[config.position.kind].make_turn(config, layer)

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn."""
        matrices = self.qkv.weight.chunk(3)
        biases = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
        for role, matrix, bias in zip(("query", "key", "value"), matrices, biases, strict=True):
            yield Weight(role, matrix, bias)
        yield weight_of("out", self.out_proj)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (B, n_heads, T, head_dim)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.turn(self.query_norm(query)), self.turn(self.key_norm(key))
        return query, key, self.value_norm(value)

    def attend(self, x: Tensor) -> Tensor:
        """What the heads read from the visible tokens, scaled, (B, T, n_heads, head_dim)."""
        query, key, value = self.heads(x)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=self.causal,
            dropout_p=self.drop_rate if self.training else 0.0,
        ).transpose(1, 2)
        return mixed if self.head_scale is None else self.head_scale[:, None] * mixed

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.attend(x).flatten(-2))  # (B, T, emb_dim)
        return self.dropout(self.out_proj(mixed))

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and weights, each (B, n_heads, T, T), written out for probing.

        Logits of tokens that are not seen are -inf and their weights 0. No dropout.
        """
        query, key, _ = self.heads(x)
        logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        if self.causal:
            future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            logits = logits.masked_fill(future, float("-inf"))
        return logits, logits.softmax(dim=-1)
