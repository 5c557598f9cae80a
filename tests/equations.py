"""What papers say, written out in plain tensor operations, and how many parameters that makes.

One entry of a table for each placement, norm and activation. `gpt` is read here, never called.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpt import GPTConfig
from gpt.block import Block

NORM_EQUATIONS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "layer_norm": lambda x, m: (
        m.weight
        * (x - x.mean(-1, keepdim=True))
        / torch.sqrt(((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + 1e-5)
        + m.bias
    ),
    "rms_norm": lambda x, m: m.weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5),
    "zero_centred_rms_norm": lambda x, m: (
        (1 + m.weight) * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5)
    ),
    "gain_free_rms_norm": lambda x, m: x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-5),
    "dyt": lambda x, m: m.weight * torch.tanh(m.slope * x) + m.bias,
    "derf": lambda x, m: m.weight * torch.erf(m.slope * x + m.offset) + m.bias,
}
# Parameters of a norm of a width.
NORM_SIZES: dict[str, Callable[[int], int]] = {
    "layer_norm": lambda width: 2 * width,
    "rms_norm": lambda width: width,
    "zero_centred_rms_norm": lambda width: width,
    "gain_free_rms_norm": lambda width: 0,
    "dyt": lambda width: 2 * width + 1,
    "derf": lambda width: 2 * width + 2,
}
ACTIVATION_EQUATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_exact": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "squared_relu": lambda x: torch.where(x > 0, x * x, torch.zeros_like(x)),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
}


class Written:
    """One block's parts as plain tensor operations on the weights of `block`, which it only reads.

    x is (B, T, 12), of three heads of width 4.
    """

    def __init__(self, block: Block, config: GPTConfig) -> None:
        self.block, self.config = block, config

    def norm(self, x: Tensor, name: str, part: nn.Module | None = None) -> Tensor:
        """The norm called `name`, over the last dimension."""
        module = getattr(part or self.block, name)
        return NORM_EQUATIONS[self.config.norm.kind](x, module)

    def heads(self, x: Tensor) -> list[Tensor]:
        """Query, key and value, each (B, 3 heads, T, 4)."""
        qkv = self.block.attention.qkv
        return [
            (x @ w.T + b).unflatten(-1, (3, 4)).transpose(1, 2)
            for w, b in zip(qkv.weight.split(12), qkv.bias.split(12), strict=True)
        ]

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each head reads, (B, T, 3, 4)."""
        logits = torch.einsum("bhic,bhjc->bhij", query, key) / 2
        length = logits.shape[-1]
        if self.config.attention.causal:
            logits = logits + torch.full((length, length), -torch.inf).triu(1)
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        return torch.einsum("bhij,bhjc->bihc", weights, value)

    def out(self, mixed: Tensor) -> Tensor:
        projection = self.block.attention.out_proj
        return mixed @ projection.weight.T + projection.bias

    def hidden(self, x: Tensor) -> Tensor:
        fc_in = self.block.feed_forward.fc_in
        u = x @ fc_in.weight.T + fc_in.bias
        return ACTIVATION_EQUATIONS[self.config.activation](u)

    def wide(self, hidden: Tensor) -> Tensor:
        fc_out = self.block.feed_forward.fc_out
        return hidden @ fc_out.weight.T + fc_out.bias

    def attention(self, x: Tensor) -> Tensor:
        query, key, value = self.heads(x)
        if self.config.norm.qk:
            attention = self.block.attention
            query = self.norm(query, "query_norm", attention)
            key = self.norm(key, "key_norm", attention)
        return self.out(self.mix(query, key, value).flatten(-2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.wide(self.hidden(x))


def scaled_sum(w: Written, x: Tensor) -> Tensor:
    """x - SiLU(g) sg(x) where GPAS is on."""
    if not w.config.norm.options.get("gpas"):
        return x
    g = w.block.get_parameter("scale_stream.gate")
    return x - g / (1 + torch.exp(-g)) * x.detach()


def pre(w: Written, x: Tensor, s: float, scale: float = 1.0) -> Tensor:
    h = scaled_sum(w, s * x + w.attention(scale * w.norm(x, "norm_1")))
    return scaled_sum(w, s * h + w.feed_forward(scale * w.norm(h, "norm_2")))


def post(w: Written, x: Tensor, s: float, a: float = 1.0) -> Tensor:
    h = w.norm(s * a * x + w.attention(x), "norm_1")
    return w.norm(s * a * h + w.feed_forward(h), "norm_2")


def no_norm(w: Written, x: Tensor, s: float) -> Tensor:
    h = s * x + w.attention(x)
    return s * h + w.feed_forward(h)


def sandwich(w: Written, x: Tensor, s: float) -> Tensor:
    h = scaled_sum(w, s * x + w.norm(w.attention(w.norm(x, "norm_1")), "out_norm_1"))
    return scaled_sum(w, s * h + w.norm(w.feed_forward(w.norm(h, "norm_2")), "out_norm_2"))


def reordered(w: Written, x: Tensor, s: float) -> Tensor:
    h = s * x + w.norm(w.attention(x), "norm_1")
    return s * h + w.norm(w.feed_forward(h), "norm_2")


def mixed_heads(w: Written, x: Tensor) -> Tensor:
    """What each head reads, (B, T, 3, 4), after the norms on queries and keys if there are any."""
    heads = w.heads(x)
    if w.config.norm.qk:
        for index, name in enumerate(("query_norm", "key_norm")):
            heads[index] = w.norm(heads[index], name, w.block.attention)
    return w.mix(*heads)


def normed_heads(w: Written, x: Tensor) -> Tensor:
    """Attention with a norm before the output weights."""
    return w.out(w.norm(mixed_heads(w, x).flatten(-2), "norm", w.block.attention))


def scaled_heads(w: Written, x: Tensor) -> Tensor:
    """Attention with a learned scale per head."""
    mixed, scale = mixed_heads(w, x), w.block.attention.head_scale
    return w.out(torch.stack([scale[h] * mixed[:, :, h] for h in range(3)], dim=2).flatten(-2))


def normed_hidden(w: Written, x: Tensor) -> Tensor:
    """The feed-forward with a norm on its hidden side."""
    return w.wide(w.norm(w.hidden(x), "norm", w.block.feed_forward))


def sub_ln(w: Written, x: Tensor, s: float) -> Tensor:
    h = s * x + normed_heads(w, w.norm(x, "norm_1"))
    return s * h + normed_hidden(w, w.norm(h, "norm_2"))


def residual_dual(w: Written, state: tuple[Tensor, Tensor], s: float) -> tuple[Tensor, Tensor]:
    p, d = state
    a = w.attention(p)
    q = w.norm(p + a, "norm_1")
    f = w.feed_forward(q)
    return w.norm(q + f, "norm_2"), d + a + f


def keel(w: Written, x: Tensor, s: float) -> Tensor:
    h = w.norm(8 * x + w.attention(w.norm(x, "norm_1")), "out_norm_1")
    return w.norm(8 * h + w.feed_forward(w.norm(h, "norm_2")), "out_norm_2")


def siamese(
    w: Written, state: tuple[Tensor, Tensor], s: float, depth: int
) -> tuple[Tensor, Tensor]:
    x, y = state
    x = w.norm(x, "post_norm_1")
    z = w.attention(w.norm(x + w.norm(y, "pre_norm_1"), "in_norm_1"))
    x, y = x + z / math.sqrt(2 * depth), y + z
    x = w.norm(x, "post_norm_2")
    z = w.feed_forward(w.norm(x + w.norm(y, "pre_norm_2"), "in_norm_2"))
    return x + z / math.sqrt(2 * depth), y + z


def span(w: Written, x: Tensor, s: float, first: bool = False) -> Tensor:
    read = w.norm(x, "in_norm_1") if first else x
    h = w.norm(x + w.attention(read), "norm_1")
    return w.norm(x + w.feed_forward(h), "norm_2")


def two_hop(w: Written, x: Tensor, s: float) -> Tensor:
    h = x + w.attention(w.norm(x, "norm_1"))
    return x + w.feed_forward(w.norm(h, "norm_2"))


def b2t(w: Written, x: Tensor, s: float) -> Tensor:
    h = w.norm(x + w.attention(x), "norm_1")
    return w.norm(x + h + w.feed_forward(h), "norm_2")


def normed_qkv(w: Written, x: Tensor) -> Tensor:
    """Attention with a norm on each head's query, key and value."""
    attention = w.block.attention
    query, key, value = w.heads(x)
    if w.config.norm.qk is not False:
        query = w.norm(query, "query_norm", attention)
        key = w.norm(key, "key_norm", attention)
    mixed = w.mix(query, key, w.norm(value, "value_norm", attention))
    return w.out(mixed.flatten(-2))


def hybrid(w: Written, x: Tensor, s: float) -> Tensor:
    n = w.norm(s * x + normed_qkv(w, x), "norm_1")
    return s * n + w.feed_forward(n)


def first_of_hybrid_star(w: Written, x: Tensor, s: float) -> Tensor:
    h = s * x + normed_qkv(w, w.norm(x, "norm_1"))
    return s * h + w.feed_forward(w.norm(h, "norm_2"))


def normformer(w: Written, x: Tensor, s: float) -> Tensor:
    h = s * x + w.norm(scaled_heads(w, w.norm(x, "norm_1")), "out_norm_1")
    return s * h + normed_hidden(w, w.norm(h, "norm_2"))


def admin(w: Written, x: Tensor, s: float) -> Tensor:
    h = w.norm(w.block.get_parameter("weight_1") * x + w.attention(x), "norm_1")
    return w.norm(w.block.get_parameter("weight_2") * h + w.feed_forward(h), "norm_2")


def inputs(w: Written, x: Tensor) -> tuple[Tensor, Tensor]:
    """What both parallel branches read, behind a norm each or one for both."""
    second = "norm_1" if w.config.parallel.shared else "norm_2"
    return w.norm(x, "norm_1"), w.norm(x, second)


def parallel_pre(w: Written, x: Tensor, s: float, scale: float = 1.0) -> Tensor:
    a, f = inputs(w, x)
    return scaled_sum(w, s * x + w.attention(scale * a) + w.feed_forward(scale * f))


def parallel_post(w: Written, x: Tensor, s: float) -> Tensor:
    return w.norm(s * x + w.attention(x) + w.feed_forward(x), "norm_1")


def parallel_no_norm(w: Written, x: Tensor, s: float) -> Tensor:
    return s * x + w.attention(x) + w.feed_forward(x)


def parallel_sandwich(w: Written, x: Tensor, s: float) -> Tensor:
    a, f = inputs(w, x)
    branches = w.norm(w.attention(a), "out_norm_1") + w.norm(w.feed_forward(f), "out_norm_2")
    return scaled_sum(w, s * x + branches)


def parallel_reordered(w: Written, x: Tensor, s: float) -> Tensor:
    return s * x + w.norm(w.attention(x), "norm_1") + w.norm(w.feed_forward(x), "norm_2")


def parallel_sub_ln(w: Written, x: Tensor, s: float) -> Tensor:
    a, f = inputs(w, x)
    return s * x + normed_heads(w, a) + normed_hidden(w, f)


def parallel_normformer(w: Written, x: Tensor, s: float) -> Tensor:
    a, f = inputs(w, x)
    return s * x + w.norm(scaled_heads(w, a), "out_norm_1") + normed_hidden(w, f)


# Where both branches read the block's input: equations of each layer, or of all alike.
PARALLEL_EQUATIONS: dict[str, list[Callable[..., Tensor]]] = {
    "pre_ln": [parallel_pre],
    "post_ln": [parallel_post],
    "no_norm": [parallel_no_norm],
    "sandwich": [parallel_sandwich],
    "peri_ln": [parallel_sandwich],
    "reordered": [parallel_reordered],
    "sub_ln": [parallel_sub_ln],
    "normformer": [parallel_normformer],
    "ln_scaling": [partial(parallel_pre, scale=depth**-0.5) for depth in (1, 2, 3, 4)],
    "mix_ln": [parallel_post, parallel_pre, parallel_pre, parallel_pre],
}

Size = Callable[[int], int]


def nothing(config: GPTConfig, norm: Size) -> int:
    return 0


@dataclass(frozen=True)
class Paper:
    """What a paper says of its placement.

    block       its equation: parts, state and 1.0, or 0.0 where the shortcut is off, to the state;
                one for each of four layers where they differ
    final_norm  whether a norm precedes the head
    norms       of width emb_dim, in each block
    first       norms that the first block has more, or less
    qk          whether norms stand on queries and keys
    own         parameters of a block beside those norms and the matrices, given the size of a norm
    entry       parameters before the first block
    end         parameters after the last block beside that norm
    streams     which a block hands to the next
    """

    block: Callable[..., Any] | Sequence[Callable[..., Any]]
    final_norm: bool
    norms: int = 2
    first: int = 0
    qk: bool = False
    own: Callable[[GPTConfig, Size], int] = nothing
    entry: Callable[[GPTConfig, Size], int] = nothing
    end: Callable[[GPTConfig, Size], int] = nothing
    streams: int = 1

    @property
    def layers(self) -> list[Callable[..., Any]]:
        return [self.block] if callable(self.block) else list(self.block)


def gpas(config: GPTConfig, norm: Size) -> int:
    return int(config.norm.options.get("gpas", False))


PAPERS = {
    "pre_ln": Paper(pre, True, own=gpas),
    "post_ln": Paper(post, False),
    "no_norm": Paper(no_norm, False, norms=0),
    "sandwich": Paper(sandwich, True, norms=4, own=gpas),
    "peri_ln": Paper(
        sandwich,
        True,
        norms=4,
        own=gpas,
        entry=lambda c, norm: norm(c.emb_dim) * c.norm.options.get("embedding_norm", False),
    ),
    "reordered": Paper(reordered, True),
    "deepnorm": Paper(partial(post, a=8**0.25), False),
    "keel": Paper([pre, keel, keel, keel], False, norms=4, first=-2),
    "sub_ln": Paper(sub_ln, True, own=lambda c, norm: norm(c.emb_dim) + norm(c.ff_dim)),
    "residual_dual": Paper(residual_dual, True, streams=2),
    "siamese": Paper(
        [partial(siamese, depth=depth) for depth in (1, 2, 3, 4)],
        True,
        norms=6,
        end=lambda c, norm: 2 * norm(c.emb_dim),
        streams=2,
    ),
    "b2t": Paper(b2t, False),
    "span": Paper([partial(span, first=True), span, span, span], False, first=1),
    "two_hop": Paper(two_hop, True),
    "mix_ln": Paper([post, pre, pre, pre], True),
    "per_block": Paper([post, pre, post, pre], True),
    "ln_scaling": Paper(
        [partial(pre, scale=depth**-0.5) for depth in (1, 2, 3, 4)], True, own=gpas
    ),
    "hybrid": Paper(hybrid, True, norms=1, qk=True, own=lambda c, norm: norm(c.head_dim)),
    "hybrid_star": Paper(
        [first_of_hybrid_star, hybrid, hybrid, hybrid],
        True,
        norms=1,
        first=1,
        qk=True,
        own=lambda c, norm: norm(c.head_dim),
    ),
    "normformer": Paper(normformer, True, norms=3, own=lambda c, norm: c.n_heads + norm(c.ff_dim)),
    "admin": Paper(admin, False, own=lambda c, norm: 2 * c.emb_dim),
}


def closed_form(config: GPTConfig) -> int:
    """The number of parameters from the sizes alone, d emb_dim, f ff_dim:

    V d + T d for the embeddings; 4 d^2 + 2 d f, biases, norms and its paper's own for a block; the
    final norm; V d for a head that is not tied.
    """
    paper, d, f = PAPERS[config.norm.placement], config.emb_dim, config.ff_dim
    norm = NORM_SIZES[config.norm.kind]
    qk = paper.qk if config.norm.qk is None else config.norm.qk
    final_norm = paper.final_norm if config.norm.final is None else config.norm.final
    matrices = 4 * d * d + 2 * d * f
    biases = 3 * d * config.qkv_bias + (d + f + d) * config.bias
    qk_width = config.heads_dim if qk == "projection" else config.head_dim
    norms = paper.norms * norm(d) + 2 * bool(qk) * norm(qk_width)
    block = matrices + biases + norms + paper.own(config, norm)
    places = config.context_length if config.position.kind == "learned" else 0
    before = (config.vocab_size + places) * d + paper.entry(config, norm)
    after = final_norm * norm(d) + (not config.tie_head) * config.vocab_size * d
    blocks = config.n_layers * block + (config.n_layers > 0) * paper.first * norm(d)
    return before + blocks + paper.end(config, norm) + after
