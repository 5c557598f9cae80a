"""Every norm placement, one small class per equation.

Notation: x is the block's input, N a norm (each with its own parameters), A attention,
F feed-forward, h the stream between them. `l` counts blocks from 1, L is their number. Inputs and
outputs are (B, T, emb_dim). `add_1(x, f)` and `add_2(h, f)` are the sums of the two sublayers:
x + f, or f alone when shortcuts are off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gpt.block import Block
from gpt.checks import setting
from gpt.config import GPTConfig
from gpt.inside import Inside
from gpt.norm import make_norm, start_gain
from gpt.registry import PLACEMENTS, ConfigError


@PLACEMENTS("pre_ln")
class PreLN(Block):
    """h = x + A(N x); out = h + F(N h); a final norm before the head.

    Xiong et al. 2020, arXiv 2002.04745.
    """

    final_norm = True

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        return self.add_2(h, self.feed_forward(self.norm_2(h)))


@PLACEMENTS("post_ln")
class PostLN(Block):
    """h = N(x + A x); out = N(h + F h); no final norm.

    Vaswani et al. 2017, arXiv 1706.03762.
    """

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        return self.norm_2(self.add_2(h, self.feed_forward(h)))


@PLACEMENTS("no_norm")
class NoNorm(Block):
    """h = x + A x; out = h + F h; no norm anywhere: the control arm."""

    norms = ()

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(x))
        return self.add_2(h, self.feed_forward(h))


@PLACEMENTS("sandwich")
class Sandwich(Block):
    """h = x + N(A(N x)); out = h + N(F(N h)); a final norm before the head.

    Ding et al. 2021 (CogView), arXiv 2105.13290, whose code also scales the output weights as
    `init=gpt2_scaled` does.
    """

    norms = ("norm_1", "norm_2", "out_norm_1", "out_norm_2")
    final_norm = True
    out_norm_1: nn.Module
    out_norm_2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.out_norm_1(self.attention(self.norm_1(x))))
        return self.add_2(h, self.out_norm_2(self.feed_forward(self.norm_2(h))))


@PLACEMENTS("peri_ln")
class PeriLN(Sandwich):
    """As sandwich; by an option with a norm on the embeddings, x_0 = N(embeddings).

    Kim et al. 2025, arXiv 2502.02732, where the norm on the embeddings is optional.
    """

    @dataclass(frozen=True)
    class Options:
        """embedding_norm: whether the embeddings pass a norm before the first block."""

        embedding_norm: bool = False

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        """The norm on the embeddings, if wanted."""
        return make_norm(config, config.emb_dim, cls.options(config).embedding_norm)


@PLACEMENTS("reordered")
class Reordered(Block):
    """h = x + N(A x); out = h + N(F h); a final norm before the head.

    Liu et al. 2021 (Swin Transformer V2), arXiv 2111.09883, whose code starts the norms' scales at
    0, as the option scale_start does; OLMo 2, arXiv 2501.00656, which pairs it with a QK-norm
    over all heads together, as `norm.qk=projection` does.
    """

    final_norm = True

    @dataclass(frozen=True)
    class Options:
        """scale_start: at which the norms' scales start."""

        scale_start: float = setting(1.0, at_least=0, at_most=1e30)  # float32 ends at 3e38

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        start = self.options(config).scale_start
        for norm in (self.norm_1, self.norm_2) if start != 1 else ():
            start_gain(norm, start)

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Also refuse a start of scales that the norms do not have."""
        super().check(config)
        start = cls.options(config).scale_start
        if start != 1 and config.norm.kind == "gain_free_rms_norm":
            valid = "norm.kind=gain_free_rms_norm has no scale that could start there"
            raise ConfigError("norm.options.scale_start", start, valid)

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.norm_1(self.attention(x)))
        return self.add_2(h, self.norm_2(self.feed_forward(h)))


@PLACEMENTS("deepnorm")
class DeepNorm(Block):
    """h = N(a x + A x); out = N(a h + F h), a = (2L)^(1/4); no final norm.

    Ties `init=deepnorm` to it. Wang et al. 2022 (DeepNet), arXiv 2203.00555, decoder alone.
    """

    init = "deepnorm"
    only_shortcut = True

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.alpha = self.shortcut_scale(config)

    @staticmethod
    def shortcut_scale(config: GPTConfig) -> float:
        """a = (2L)^(1/4)."""
        return (2 * config.n_layers) ** 0.25

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """Also a, the shortcut's scale."""
        return super().fixes(config) | {"shortcut_scale": cls.shortcut_scale(config)}

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(self.alpha * x, self.attention(x)))
        return self.norm_2(self.add_2(self.alpha * h, self.feed_forward(h)))


@PLACEMENTS("sub_ln")
class SubLN(PreLN):
    """h = x + W_O N(attend(N x)); out = h + W_2 N(phi(W_1 N h)); a final norm before the head.

    Ties `init=sub_ln` to it. Wang et al. 2022 (Magneto), arXiv 2210.06423.
    """

    init = "sub_ln"
    inside = Inside(heads=True, hidden=True)


@PLACEMENTS("residual_dual")
class ResidualDual(Block):
    """p' = N(p + f(p)); d' = d + f(p), with the same f, for A then F; the head reads p + N(d).

    Both streams start as the embeddings, as in the authors' code; p is the one measured. Without a
    final norm the head reads p + d. Xie et al. 2023 (ResiDual), arXiv 2304.14802.
    """

    final_norm = True
    only_shortcut = True

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        """x -> (x, x)."""
        return BothStreams()

    @staticmethod
    def stream(state: tuple[Tensor, Tensor]) -> Tensor:
        """p, what the branches read."""
        return state[0]

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        """(p, d) -> p + N(d)."""
        return JoinedStreams(super().make_final(config))

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, d = state
        f = self.attention(p)
        p, d = self.norm_1(self.add_1(p, f)), d + f
        f = self.feed_forward(p)
        return self.norm_2(self.add_2(p, f)), d + f


class BothStreams(nn.Module):
    """x -> (x, x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), x  # two nodes, so that each has its own gradient


class JoinedStreams(nn.Module):
    """(p, d) -> p + N(d)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: tuple[Tensor, Tensor]) -> Tensor:
        p, d = state
        return p + self.norm(d)


@PLACEMENTS("b2t")
class B2T(Block):
    """h = N(x + A x); out = N(x + h + F h): a shortcut past all norms but the last.

    The connection alone: the authors' code also multiplies every weight of a block but the
    norms' by L^(-1/2). No final norm. Takase et al. 2022 (Bottom-to-Top), arXiv 2206.00330.
    """

    only_shortcut = True

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        return self.norm_2(self.add_2(x + h, self.feed_forward(h)))


@PLACEMENTS("mix_ln")
class MixLN(PreLN):
    """Blocks l <= fraction x L as post_ln, the rest as pre_ln; a final norm before the head.

    Li et al. 2024, arXiv 2412.13795, with a fraction of 0.25; its code takes a whole number of
    blocks, here the fraction is rounded down to one.
    """

    @dataclass(frozen=True)
    class Options:
        """fraction: of the blocks, from the first, that are post_ln."""

        fraction: float = setting(0.25, at_least=0, at_most=1)

    kinds = (PostLN, PreLN)

    @classmethod
    def kind_of(cls, config: GPTConfig, layer: int) -> type[Block]:
        """PostLN for the first blocks, PreLN after them."""
        early = layer + 1 <= cls.options(config).fraction * config.n_layers + 1e-9  # rounding
        return cls.kinds[0 if early else 1]


@PLACEMENTS("ln_scaling")
class LNScaling(Block):
    """h = x + A(N(x) / sqrt(l)); out = h + F(N(h) / sqrt(l)); a final norm, unscaled.

    Not to be combined with an initialisation scaled by 1/sqrt(2L). Sun et al. 2025 (The Curse of
    Depth), arXiv 2502.05795.
    """

    final_norm = True
    unfit_inits = ("gpt2_scaled",)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.scale = (layer + 1) ** -0.5

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """Also the norms' scale."""
        return super().fixes(config) | {"norm_scale": "1/sqrt(l)"}

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.scale * self.norm_1(x)))
        return self.add_2(h, self.feed_forward(self.scale * self.norm_2(h)))


@PLACEMENTS("hybrid")
class Hybrid(Block):
    """h = x + A x, with norms on queries, keys and values; out = N h + F(N h); a final norm.

    Zhuo et al. 2025 (HybridNorm), arXiv 2503.04598, whose runs also scale the output weights as
    `init=gpt2_scaled` does.
    """

    norms = ("norm_1",)
    final_norm = True
    inside = Inside(query=True, key=True, value=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        return self.add_2(h, self.feed_forward(h))


@PLACEMENTS("normformer")
class NormFormer(Block):
    """h = x + N(A(N x)), A with a learned scale per head; out = h + W_2 N(phi(W_1 N h)).

    A final norm before the head. Shleifer et al. 2021, arXiv 2110.09456: the scale stands before
    the output weights, as the paper's equation is quoted (its code has it after them); without the
    optional scale on the feed-forward shortcut.
    """

    norms = ("norm_1", "norm_2", "out_norm_1")
    final_norm = True
    inside = Inside(head_scale=True, hidden=True)
    out_norm_1: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.out_norm_1(self.attention(self.norm_1(x))))
        return self.add_2(h, self.feed_forward(self.norm_2(h)))


@PLACEMENTS("admin")
class Admin(Block):
    """h = N(w_1 * x + A x); out = N(w_2 * h + F h), w of (emb_dim,) per sublayer; no final norm.

    w starts at 1, which is post_ln; `profile` sets it from data, then it is trained. Liu et al.
    2020, arXiv 2004.08249, as its code has it: the paper's sum leaves out the input's variance.
    """

    only_shortcut = True

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.weight_1 = nn.Parameter(torch.ones(config.emb_dim))
        self.weight_2 = nn.Parameter(torch.ones(config.emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(self.weight_1 * x, self.attention(x)))
        return self.norm_2(self.add_2(self.weight_2 * h, self.feed_forward(h)))

    @classmethod
    @torch.no_grad()
    def profile(cls, blocks: Sequence[Block], forward: Callable[[], object]) -> None:
        """w of sublayer i + 1 = sqrt(Var(w_i * x_i) + Var(f_i)), w_1 = 1, in one forward pass.

        x_i and f_i are what the sum of sublayer i is made of, the variances those over all
        elements, as in the authors' code; behind a norm w_{i+1}^2 = w_i^2 + Var(f_i).
        """
        sums: list[nn.Module] = []
        weights: list[nn.Parameter] = []
        for block in blocks:
            sums += [block.add_1, block.add_2]
            weights += [block.get_parameter("weight_1"), block.get_parameter("weight_2")]

        def setter(weight: nn.Parameter) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
                x, f = inputs
                weight.fill_((x.var(correction=0) + f.var(correction=0)).sqrt())

            return hook

        for weight in weights[:1]:
            weight.fill_(1.0)
        handles = [
            add.register_forward_hook(setter(following))
            for add, following in zip(sums, weights[1:], strict=False)
        ]
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
