"""Multi-head self-attention."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.registry import NORMS


class SelfAttention(nn.Module):
    """A x = attend(x) W_O + b_O, attend(x) = concat_h(softmax(Q_h K_h^T / sqrt(head_dim)) V_h).

    Maps (B, T, emb_dim) to (B, T, emb_dim). A token sees itself and those before it, or all where
    the config is not causal. Dropout falls on the weights and on the output. Vaswani et al. 2017,
    arXiv 1706.03762.

    With QK-norm a norm of width head_dim, shared by the heads, stands on each head's query and
    one on its key, before the logits. Dehghani et al. 2023, arXiv 2302.05442; with another norm
    Henry et al. 2020, arXiv 2010.04245.

    qk_norm  whether QK-norm is on where the config says nothing
    """

    qk_norm: ClassVar[bool] = False

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.causal = config.attention.causal
        self.drop_rate = config.drop_rate
        # One matrix for query, key and value: the same numbers as three drawn in a row.
        self.qkv = nn.Linear(config.emb_dim, 3 * config.emb_dim, bias=config.qkv_bias)
        self.out_proj = nn.Linear(config.emb_dim, config.emb_dim, bias=config.bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.query_norm, self.key_norm = (
            NORMS[config.norm.kind](config.head_dim, config.norm.eps)
            if self.has_qk_norm(config)
            else nn.Identity()
            for _ in range(2)
        )

    @classmethod
    def has_qk_norm(cls, config: GPTConfig) -> bool:
        """What the config says, or the placement where it says nothing."""
        return cls.qk_norm if config.norm.qk is None else config.norm.qk

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (B, n_heads, T, head_dim)."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.query_norm(query), self.key_norm(key), value

    def attend(self, x: Tensor) -> Tensor:
        """What the heads read from the visible tokens, (B, T, n_heads, head_dim)."""
        query, key, value = self.heads(x)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=self.causal,
            dropout_p=self.drop_rate if self.training else 0.0,
        )  # (B, n_heads, T, head_dim)
        return mixed.transpose(1, 2)

    def project(self, mixed: Tensor) -> Tensor:
        """What goes into the stream, (B, T, emb_dim), of heads side by side, (B, T, emb_dim)."""
        return self.dropout(self.out_proj(mixed))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.attend(x).flatten(-2))

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


class NormedAttention(SelfAttention):
    """A x = N(attend(x)) W_O + b_O: a norm on all heads together, before the output weights.

    Wang et al. 2022 (Magneto), arXiv 2210.06423.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.norm = NORMS[config.norm.kind](config.emb_dim, config.norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.norm(self.attend(x).flatten(-2)))


class HeadScaledAttention(SelfAttention):
    """A x = concat_h(s_h attend_h(x)) W_O + b_O, with a learned scalar s_h per head, at first 1.

    Shleifer et al. 2021 (NormFormer), arXiv 2110.09456.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.head_scale = nn.Parameter(torch.ones(config.n_heads))

    def forward(self, x: Tensor) -> Tensor:
        return self.project((self.head_scale[:, None] * self.attend(x)).flatten(-2))


class QKVNormedAttention(SelfAttention):
    """Attention with a norm of width head_dim on each head's query, key and value.

    Zhuo et al. 2025 (HybridNorm), arXiv 2503.04598. `norm.qk=False` leaves the one on the value.
    """

    qk_norm = True

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.value_norm = NORMS[config.norm.kind](config.head_dim, config.norm.eps)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (B, n_heads, T, head_dim)."""
        query, key, value = super().heads(x)
        return query, key, self.value_norm(value)
