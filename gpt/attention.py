"""Multi-head self-attention."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.cache import LayerCache
from gpt.config import GPTConfig
from gpt.inside import NOTHING, Inside
from gpt.norm import make_norm
from gpt.registry import POSITIONS
from gpt.weights import Weight, weight_of

# Keys up to which a processor with units for bf16 matrices was seen to gain.
FEW_KEYS = 1024
# Whether this one has instructions for them: asked once, since no compiler can trace the question.
MULTIPLIES_BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def is_faster_in_steps(query: Tensor) -> bool:
    """Whether PyTorch's fused attention takes longer than one product after the other.

    It does on a CPU in bf16, whose matrix units it does not reach: docs/performance.md.
    """
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and query.shape[-2] <= FEW_KEYS and MULTIPLIES_BF16


class SelfAttention(nn.Module):
    """A x = N(concat_h(s_h attend_h(x))) W_O + b_O, attend_h(x) = softmax(c q k^T) v
    with q = R N(Q_h), k = R N(K_g), v = N(V_g), each N and s_h where the placement puts it inside,
    R the turn by the token's place, of the kinds of position that have one, c = 1/sqrt(head_dim)
    where the config says nothing.

    Maps (B, T, emb_dim) to (B, T, emb_dim). A token sees itself and those before it, as many as
    its layer's window holds, or all where the config is not causal. Dropout falls on the weights
    and on the output. Vaswani et al. 2017, arXiv 1706.03762.

    Keys and values g shared by groups of heads: Ainslie et al. 2023, arXiv 2305.13245. Windows:
    Child et al. 2019, arXiv 1904.10509. A sink, a learned logit b_h that takes its share of the
    softmax and adds nothing, exp(l_j) / (exp(b_h) + sum_j exp(l_j)): gpt-oss, arXiv 2508.10925.

    On queries and keys: Dehghani et al. 2023, arXiv 2302.05442, and with another norm Henry et al.
    2020, arXiv 2010.04245, or over all heads together, OLMo 2, arXiv 2501.00656; on values too:
    Zhuo et al. 2025 (HybridNorm), arXiv 2503.04598; on all heads: Wang et al. 2022 (Magneto), arXiv
    2210.06423; s_h: Shleifer et al. 2021 (NormFormer), arXiv 2110.09456.
    """

    def __init__(self, config: GPTConfig, inside: Inside = NOTHING, layer: int = 0) -> None:
        super().__init__()
        attention, self.head_dim = config.attention, config.head_dim
        self.n_heads, self.kv_heads = config.n_heads, config.kv_heads
        self.causal, self.window = attention.causal, config.window(layer)
        self.scale = attention.scale or self.head_dim**-0.5
        self.drop_rate = config.attention_drop_rate
        # One matrix for query, key and value: the same numbers as three drawn in a row.
        self.widths = [heads * self.head_dim for heads in (self.n_heads, *2 * [self.kv_heads])]
        self.qkv = nn.Linear(config.emb_dim, sum(self.widths), bias=config.qkv_bias)
        out_bias = config.bias if attention.out_bias is None else attention.out_bias
        self.out_proj = nn.Linear(config.heads_dim, config.emb_dim, bias=out_bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.over_all = config.norm.qk == "projection"
        query, key = self.widths[:2] if self.over_all else 2 * [self.head_dim]
        self.query_norm = make_norm(config, query, inside.query)
        self.key_norm = make_norm(config, key, inside.key)
        self.value_norm = make_norm(config, self.head_dim, inside.value)
        self.head_scale = nn.Parameter(torch.ones(self.n_heads)) if inside.head_scale else None
        self.norm = make_norm(config, config.heads_dim, inside.heads)
        self.sinks = nn.Parameter(torch.zeros(self.n_heads)) if attention.sinks else None
        self.turn = POSITIONS[config.position.kind].make_turn(config, layer)
        self.cache: LayerCache | None = None  # what generation keeps, see gpt/cache.py

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn."""
        matrices = self.qkv.weight.split(self.widths)
        biases = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.split(self.widths)
        for role, matrix, bias in zip(("query", "key", "value"), matrices, biases, strict=True):
            yield Weight(role, matrix, bias)
        yield weight_of("out", self.out_proj)

    def places(self, x: Tensor) -> Tensor:
        """Of the tokens in their text, (T,), or (B, T) where the texts of a batch differ."""
        return (
            torch.arange(x.shape[1], device=x.device) if self.cache is None else self.cache.places
        )

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, n_heads, T, head_dim), key and value (B, kv_heads, T, head_dim)."""
        query, key, value = self.qkv(x).split(self.widths, dim=-1)
        query, key = self.normed(query, self.query_norm), self.normed(key, self.key_norm)
        places = self.places(x)
        return self.turn(query, places), self.turn(key, places), self.value_norm(self.split(value))

    def split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_dim) as (B, heads, T, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Queries or keys by heads, after the norm that stands on each or on all of them."""
        return self.split(norm(x)) if self.over_all else norm(self.split(x))

    def visible(self, query_places: Tensor, key_places: Tensor) -> Tensor:
        """Which keys each query sees, (..., T, S), by their places in the text.

        Padding has negative places: no token sees it, and it sees itself, so that no row is empty.
        """
        query, key = query_places[..., :, None], key_places[..., None, :]
        seen = (key >= 0) | (query < 0)
        if self.causal:
            seen = seen & (key <= query)
        return seen & (key > query - self.window) if self.window else seen

    def attend(self, x: Tensor) -> Tensor:
        """What the heads read from the visible tokens, scaled, (B, T, n_heads, head_dim)."""
        query, key, value = self.heads(x)
        mask = None
        if self.cache is not None:
            key, value, key_places = self.cache.extend(key, value, self.window)
            mask = self.visible(self.cache.places, key_places)[:, None]
        elif 0 < self.window < x.shape[1] or (self.causal and self.sinks is not None):
            places = self.places(x)
            mask = self.visible(places, places)
        if self.sinks is not None:
            key, value, mask = self.with_sink(key, value, mask)
        drop_rate = self.drop_rate if self.training else 0.0
        if is_faster_in_steps(query):
            mixed = self.in_steps(query, key, value, mask, drop_rate)
        else:
            mixed = F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                is_causal=self.causal and mask is None,
                dropout_p=drop_rate,
                scale=self.scale,
                enable_gqa=self.kv_heads != self.n_heads,
            )
        mixed = mixed.transpose(1, 2)
        return mixed if self.head_scale is None else self.head_scale[:, None] * mixed

    def in_steps(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, drop_rate: float
    ) -> Tensor:
        """What the fused function computes, by products of whole matrices; logits are held."""
        if self.kv_heads != self.n_heads:
            groups = self.n_heads // self.kv_heads
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        logits = (self.scale * query) @ key.transpose(-2, -1)
        if mask is None and self.causal:
            places = torch.arange(logits.shape[-1], device=logits.device)
            mask = self.visible(places, places)
        if mask is not None and mask.dtype == torch.bool:
            mask = logits.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))
        if mask is not None:
            logits = logits + mask
        return F.dropout(logits.softmax(dim=-1), drop_rate) @ value

    def with_sink(
        self, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values with one more, 0, and the mask as what is added to the logits.

        Its logit is 0 by the product, so that what the mask adds to it is the sink's.
        """
        assert self.sinks is not None
        key, value = F.pad(key, (0, 0, 0, 1)), F.pad(value, (0, 0, 0, 1))
        if mask is None:
            mask = key.new_ones(1, key.shape[-2] - 1, dtype=torch.bool)
        added = key.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))
        sinks = self.sinks.to(key.dtype)[:, None, None]
        shape = torch.broadcast_shapes(added.shape[:-2], sinks.shape[:-2])
        rows = added.shape[-2]
        added = torch.cat((added.expand(*shape, rows, -1), sinks.expand(*shape, rows, 1)), dim=-1)
        return key, value, added

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.attend(x).flatten(-2))  # (B, T, heads_dim)
        return self.dropout(self.out_proj(mixed))

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and weights, each (B, n_heads, T, T), written out for probing.

        Logits of tokens that are not seen are -inf and their weights 0; what a sink takes is
        missing from the weights. No dropout.
        """
        query, key, _ = self.heads(x)
        key = key.repeat_interleave(self.n_heads // self.kv_heads, dim=1)
        logits = query @ key.transpose(-2, -1) * self.scale
        places = self.places(x)
        logits = logits.masked_fill(~self.visible(places, places), float("-inf"))
        if self.sinks is None:
            return logits, logits.softmax(dim=-1)
        sinks = self.sinks[:, None, None].expand(*logits.shape[:-1], 1)
        return logits, torch.cat((logits, sinks), dim=-1).softmax(dim=-1)[..., :-1]
