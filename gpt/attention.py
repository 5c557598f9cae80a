"""Causal multi-head self-attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import GPTConfig


class CausalSelfAttention(nn.Module):
    """A x = concat_h(softmax(Q_h K_h^T / sqrt(head_dim) + causal mask) V_h) W_O.

    Maps (B, T, emb_dim) to (B, T, emb_dim). Dropout falls on the weights and on the output.
    Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.drop_rate = config.drop_rate
        # One matrix for query, key and value: the same numbers as three drawn in a row.
        self.qkv = nn.Linear(config.emb_dim, 3 * config.emb_dim, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.emb_dim, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (B, n_heads, T, head_dim)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.heads(x)
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.drop_rate if self.training else 0.0
        )  # (B, n_heads, T, head_dim)
        return self.dropout(self.out_proj(mixed.transpose(1, 2).reshape(x.shape)))

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and weights, each (B, n_heads, T, T), written out for probing.

        Logits of tokens in the future are -inf and their weights 0. No dropout.
        """
        query, key, _ = self.heads(x)
        logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        logits = logits.masked_fill(future, float("-inf"))
        return logits, logits.softmax(dim=-1)
