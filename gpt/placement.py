"""Every norm placement, one small class per equation.

Notation: x is the block's input, N a norm (each with its own parameters), A attention,
F feed-forward, h the stream between them. `l` counts blocks from 1, L is their number. Inputs and
outputs are (B, T, emb_dim). `add_1(x, f)` and `add_2(h, f)` are the sums of the two sublayers:
x + f, or f alone when shortcuts are off.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.block import Block
from gpt.checks import setting
from gpt.config import GPTConfig
from gpt.inside import Inside
from gpt.norm import make_norm, start_gain
from gpt.registry import PLACEMENTS, ConfigError


class StreamScale(nn.Module):
    """x -> x - SiLU(g) sg(x), sg the stop-gradient, g a learned scalar that starts at 0.

    Smaller activations, the gradient as it was. Chen et al. 2025 (GPAS), arXiv 2506.22049.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x - F.silu(self.gate) * x.detach()


class Scalable(Block):
    """Blocks that pass the stream through `scale_stream` after each of their two sums.

    It is the identity, or by an option GPAS, one for both sums, as its authors have it.
    """

    @dataclass(frozen=True)
    class Options:
        """gpas: whether a learned scalar shrinks the stream after each sum (arXiv 2506.22049)."""

        gpas: bool = setting(False, newer=True)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.scale_stream = StreamScale() if self.options(config).gpas else nn.Identity()


@PLACEMENTS("pre_ln")
class PreLN(Scalable):
    """h = x + A(N x); out = h + F(N h); a final norm before the head.

    Xiong et al. 2020, arXiv 2002.04745.
    """

    final_norm = True

    def forward(self, x: Tensor) -> Tensor:
        h = self.scale_stream(self.add_1(x, self.attention(self.norm_1(x))))
        return self.scale_stream(self.add_2(h, self.feed_forward(self.norm_2(h))))


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
class Sandwich(Scalable):
    """h = x + N(A(N x)); out = h + N(F(N h)); a final norm before the head.

    Ding et al. 2021 (CogView), arXiv 2105.13290, whose code also scales the output weights as
    `init=gpt2_scaled` does. Yin et al. 2025 (Pangu Ultra), arXiv 2504.07866, start the scales of
    the norms on the branches' outputs at c/sqrt(L), as the option scale_start does.
    """

    norms = ("norm_1", "norm_2", "out_norm_1", "out_norm_2")
    final_norm = True
    out_norm_1: nn.Module
    out_norm_2: nn.Module

    @dataclass(frozen=True)
    class Options(Scalable.Options):
        """gpas: whether a learned scalar shrinks the stream after each sum (arXiv 2506.22049).

        scale_start: the value at which the scales of the norms on the branches' outputs start.
        """

        scale_start: float = setting(1.0, at_least=0, at_most=1e30, newer=True)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        start_gains((self.out_norm_1, self.out_norm_2), self.options(config).scale_start)

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Also refuse a start of scales that the norms do not have."""
        super().check(config)
        check_start(config, cls.options(config).scale_start)

    def forward(self, x: Tensor) -> Tensor:
        h = self.scale_stream(self.add_1(x, self.out_norm_1(self.attention(self.norm_1(x)))))
        f = self.out_norm_2(self.feed_forward(self.norm_2(h)))
        return self.scale_stream(self.add_2(h, f))


def start_gains(norms: Iterable[nn.Module], start: float) -> None:
    """Let the norms' scales start at `start`."""
    for norm in norms if start != 1 else ():
        start_gain(norm, start)


def check_start(config: GPTConfig, start: float) -> None:
    """Raise ConfigError for a start other than 1 of scales that the kind of norm does not have."""
    if start != 1 and config.norm.kind == "gain_free_rms_norm":
        valid = "norm.kind=gain_free_rms_norm has no scale that could start there"
        raise ConfigError("norm.options.scale_start", start, valid)


@PLACEMENTS("peri_ln")
class PeriLN(Sandwich):
    """As sandwich; by an option with a norm on the embeddings, x_0 = N(embeddings).

    Kim et al. 2025, arXiv 2502.02732, where the norm on the embeddings is optional.
    """

    @dataclass(frozen=True)
    class Options(Sandwich.Options):
        """gpas: whether a learned scalar shrinks the stream after each sum (arXiv 2506.22049).

        scale_start: the value at which the scales of the norms on the branches' outputs start.
        embedding_norm: whether the embeddings pass a norm first.
        """

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
        """scale_start: the value at which the norms' scales start."""

        scale_start: float = setting(1.0, at_least=0, at_most=1e30)  # float32 ends at 3e38

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        start_gains((self.norm_1, self.norm_2), self.options(config).scale_start)

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Also refuse a start of scales that the norms do not have."""
        super().check(config)
        check_start(config, cls.options(config).scale_start)

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.norm_1(self.attention(x)))
        return self.add_2(h, self.norm_2(self.feed_forward(h)))


@PLACEMENTS("deepnorm")
class DeepNorm(Block):
    """h = N(a x + A x); out = N(a h + F h), a = (2L)^(1/4); no final norm.

    Wang et al. 2022 (DeepNet), arXiv 2203.00555, decoder alone. The paper prescribes
    `init=deepnorm`, which is the default here.
    """

    init = "deepnorm"
    only_shortcut = "post_ln"

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


@PLACEMENTS("keel")
class Keel(Block):
    """h = N(a x + A(N x)); out = N(a h + F(N h)), a = 2L; the first block as pre_ln; no final norm.

    Chen and Wei 2026, arXiv 2601.19895, written after code of other people, since that of the
    authors is not public. All of it has this equation. It differs in the first block, which ends
    in a norm in some code (the option first_out_norm), and in the final norm, which only some code
    has. Neither was checked against the paper.
    """

    norms = ("norm_1", "norm_2", "out_norm_1", "out_norm_2")
    only_shortcut = "sandwich"
    out_norm_1: nn.Module
    out_norm_2: nn.Module

    @dataclass(frozen=True)
    class Options:
        """first_out_norm: whether the first block is h = x + A(N x); out = N(h + F(N h))."""

        first_out_norm: bool = False

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.alpha = self.shortcut_scale(config)

    @staticmethod
    def shortcut_scale(config: GPTConfig) -> float:
        """a = 2L."""
        return 2.0 * config.n_layers

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """Also a, the shortcut's scale."""
        return super().fixes(config) | {"shortcut_scale": cls.shortcut_scale(config)}

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        """The first block is another."""
        return cls(config, layer) if layer else FirstOfKeel(config, layer)

    def forward(self, x: Tensor) -> Tensor:
        h = self.out_norm_1(self.add_1(self.alpha * x, self.attention(self.norm_1(x))))
        return self.out_norm_2(self.add_2(self.alpha * h, self.feed_forward(self.norm_2(h))))


class FirstOfKeel(Block):
    """h = x + A(N x); out = h + F(N h), or N of that, by the option."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        present = Keel.options(config).first_out_norm
        self.out_norm_2 = make_norm(config, config.emb_dim, present)

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        return self.out_norm_2(self.add_2(h, self.feed_forward(self.norm_2(h))))


@PLACEMENTS("sub_ln")
class SubLN(Block):
    """h = x + W_O N(attend(N x)); out = h + W_2 N(phi(W_1 N h)); a final norm before the head.

    Wang et al. 2022 (Magneto), arXiv 2210.06423. The paper prescribes `init=sub_ln`, which is the
    default here.
    """

    final_norm = True
    init = "sub_ln"
    inside = Inside(heads=True, hidden=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        return self.add_2(h, self.feed_forward(self.norm_2(h)))


@PLACEMENTS("residual_dual")
class ResidualDual(Block):
    """p' = N(p + f(p)); d' = d + f(p), with the same f, for A then F; the head reads p + N(d).

    Both streams start as the embeddings, as in the authors' code; p is the one measured. Without a
    final norm the head reads p + d. Xie et al. 2023 (ResiDual), arXiv 2304.14802.
    """

    final_norm = True
    only_shortcut = "post_ln"

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


@PLACEMENTS("siamese")
class Siamese(Block):
    """u = N x; z = f(N(u + N y)); x' = u + z / sqrt(2l); y' = y + z, with the same f, A then F.

    Both streams start as the embeddings; x, that of post_ln, is the one measured, y is that of
    pre_ln. The head reads N(N x + N y), without a final norm N x + N y. Li et al. 2026
    (SiameseNorm), arXiv 2602.08064, as the authors' code has it.
    """

    norms = ("post_norm_1", "pre_norm_1", "in_norm_1", "post_norm_2", "pre_norm_2", "in_norm_2")
    final_norm = True
    only_shortcut = "post_ln"
    post_norm_1: nn.Module
    post_norm_2: nn.Module
    pre_norm_1: nn.Module
    pre_norm_2: nn.Module
    in_norm_1: nn.Module
    in_norm_2: nn.Module

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.scale = (2 * (layer + 1)) ** -0.5

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """Also the scale of what a branch adds to x."""
        return super().fixes(config) | {"branch_scale": "1/sqrt(2l)"}

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        """x -> (x, x)."""
        return BothStreams()

    @staticmethod
    def stream(state: tuple[Tensor, Tensor]) -> Tensor:
        """x, which has norms on its way."""
        return state[0]

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        """(x, y) -> N(N x + N y)."""
        norm_x, norm_y = (make_norm(config, config.emb_dim) for _ in range(2))
        return NormedStreams(norm_x, norm_y, super().make_final(config))

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = state
        x = self.post_norm_1(x)
        z = self.attention(self.in_norm_1(x + self.pre_norm_1(y)))
        x, y = self.post_norm_2(self.add_1(x, self.scale * z)), y + z
        z = self.feed_forward(self.in_norm_2(x + self.pre_norm_2(y)))
        return self.add_2(x, self.scale * z), y + z


class NormedStreams(nn.Module):
    """(x, y) -> N(N x + N y)."""

    def __init__(self, norm_x: nn.Module, norm_y: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm_x, self.norm_y, self.norm = norm_x, norm_y, norm

    def forward(self, state: tuple[Tensor, Tensor]) -> Tensor:
        x, y = state
        return self.norm(self.norm_x(x) + self.norm_y(y))


@PLACEMENTS("b2t")
class B2T(Block):
    """h = N(x + A x); out = N(x + h + F h): a shortcut past all norms but the last.

    The connection alone: the authors' code also multiplies every weight of a block but the
    norms' by L^(-1/2). No final norm. Takase et al. 2022 (Bottom-to-Top), arXiv 2206.00330.
    """

    only_shortcut = "post_ln"

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        return self.norm_2(self.add_2(x + h, self.feed_forward(h)))


@PLACEMENTS("span")
class Span(Block):
    """h = N(x + A x); out = N(x + F h): both shortcuts start at x; no final norm.

    In the first block A reads N x. Wang et al. 2026 (SpanNorm), arXiv 2601.22580, equations 5 to 8,
    written after code of other people, without the scaling of weights that the paper adds.
    """

    only_shortcut = "post_ln"

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        """The first block is another."""
        return cls(config, layer) if layer else FirstOfSpan(config, layer)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(x)))
        return self.norm_2(self.add_2(x, self.feed_forward(h)))


class FirstOfSpan(Block):
    """h = N(x + A(N x)); out = N(x + F h)."""

    norms = ("in_norm_1", "norm_1", "norm_2")
    in_norm_1: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(self.add_1(x, self.attention(self.in_norm_1(x))))
        return self.norm_2(self.add_2(x, self.feed_forward(h)))


@PLACEMENTS("two_hop")
class TwoHop(Block):
    """h = x + A(N x); out = x + F(N h): both shortcuts start at x; a final norm before the head.

    Ma et al. 2024 (Megalodon), arXiv 2404.08801, its two-hop residual, here around plain attention.
    """

    final_norm = True
    only_shortcut = "pre_ln"

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        return self.add_2(x, self.feed_forward(self.norm_2(h)))


class Mixture(Block):
    """Blocks of several placements, each as its own paper has it, options included.

    A subclass says which one stands where, by `kind_of`, and which there should be, by `kinds`.
    """

    @classmethod
    def of_block(cls, config: GPTConfig, layer: int) -> GPTConfig:
        """`config` as if all blocks were of the placement of the one at `layer`."""
        norm = replace(config.norm, placement=cls.kind_of(config, layer), options={})
        return replace(config, norm=norm)

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        """The block that the other placement has at that depth."""
        own = cls.of_block(config, layer)
        block: Block = own.placement.build(own, layer)
        return block


@PLACEMENTS("mix_ln")
class MixLN(Mixture):
    """Blocks l <= fraction x L as post_ln, the rest as pre_ln; a final norm before the head.

    Li et al. 2024, arXiv 2412.13795, with a fraction of 0.25; its code takes a whole number of
    blocks, here the fraction of them is rounded down to a whole number.
    """

    final_norm = True

    @dataclass(frozen=True)
    class Options:
        """fraction: of the blocks, from the first, that are post_ln."""

        fraction: float = setting(0.25, at_least=0, at_most=1)

    @classmethod
    def kind_of(cls, config: GPTConfig, layer: int) -> str:
        """post_ln for the first blocks, pre_ln after them."""
        early = layer + 1 <= cls.options(config).fraction * config.n_layers + 1e-9  # rounding
        return cls.kinds(config)[0 if early else 1]

    @classmethod
    def kinds(cls, config: GPTConfig) -> tuple[str, ...]:
        """Both."""
        return "post_ln", "pre_ln"


@PLACEMENTS("per_block")
class PerBlock(Mixture):
    """Each block of the placement that a list names for it; the list is repeated over the blocks.

    A final norm before the head if the placement of the last block has one. From no paper. A list
    of one name is that placement; a list of post_ln for the first blocks and pre_ln for the rest is
    mix_ln.
    """

    @dataclass(frozen=True)
    class Options:
        """placements: of each block."""

        placements: list[str] = setting(factory=lambda: ["post_ln", "pre_ln"], choices=PLACEMENTS)

    @classmethod
    def kind_of(cls, config: GPTConfig, layer: int) -> str:
        """The name at that place of the list, which is repeated."""
        names = cls.options(config).placements
        return str(names[layer % len(names)])

    @classmethod
    def kinds(cls, config: GPTConfig) -> tuple[str, ...]:
        """All names in the list."""
        return tuple(dict.fromkeys(cls.options(config).placements))

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Refuse an empty list, a placement that cannot be one of several, and what it refuses."""
        names = cls.options(config).placements
        if not names:
            raise ConfigError("norm.options.placements", names, "must name one block's at least")
        fitting = sorted(name for name, kind in PLACEMENTS.items() if kind.is_its_blocks_alone())
        for layer, name in enumerate(names):
            if name not in fitting:
                valid = (
                    f"{name} is more than its blocks (another stream, a norm on the embeddings, "
                    f"values from the first batch, or a list); take of: {', '.join(fitting)}"
                )
                raise ConfigError("norm.options.placements", names, valid)
            cls.of_block(config, layer)

    @classmethod
    def is_its_blocks_alone(cls) -> bool:
        """No list stands in another."""
        return False

    @classmethod
    def paper_final_norm(cls, config: GPTConfig) -> bool:
        """As the placement of the last block has it."""
        last = cls.of_block(config, config.n_layers - 1)
        return bool(last.placement.paper_final_norm(last))

    @classmethod
    def inside_of(cls, config: GPTConfig) -> Inside:
        """What stands inside the branches of any block."""
        layers = range(len(cls.options(config).placements))
        each = [cls.of_block(config, layer) for layer in layers]
        slots = [asdict(own.placement.inside_of(own)) for own in each]
        return Inside(**{slot: any(filled[slot] for filled in slots) for slot in slots[0]})

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """The list as one text."""
        return super().fixes(config) | {"placements": ",".join(cls.options(config).placements)}


@PLACEMENTS("ln_scaling")
class LNScaling(Scalable):
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
        h = self.scale_stream(self.add_1(x, self.attention(self.scale * self.norm_1(x))))
        return self.scale_stream(self.add_2(h, self.feed_forward(self.scale * self.norm_2(h))))


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


@PLACEMENTS("hybrid_star")
class HybridStar(Hybrid):
    """As hybrid, but the first block h = x + A(N x); out = h + F(N h), also with norms on q, k, v.

    Zhuo et al. 2025 (HybridNorm*), arXiv 2503.04598, by the flags of the authors' README.
    """

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        """The first block is another."""
        return cls(config, layer) if layer else FirstOfHybridStar(config, layer)


class FirstOfHybridStar(Block):
    """h = x + A(N x), with norms on queries, keys and values; out = h + F(N h)."""

    inside = Hybrid.inside

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.attention(self.norm_1(x)))
        return self.add_2(h, self.feed_forward(self.norm_2(h)))


@PLACEMENTS("normformer")
class NormFormer(Block):
    """h = x + N(A(N x)), A with a learned scale per head; out = h + W_2 N(phi(W_1 N h)).

    A final norm before the head. Shleifer et al. 2021, arXiv 2110.09456. The scale is before the
    output weights, as other sources quote the paper's equation; the authors' code has it after
    them. Without the optional scale on the feed-forward shortcut.
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
    """h = N(w_1 * x + A x); out = N(w_2 * h + F h), w_1 and w_2 learned vectors; no final norm.

    Both have a number for each of the emb_dim channels. They start at 1, which is post_ln; the
    first batch sets them (`profile`), then they are trained. Liu et al. 2020, arXiv 2004.08249, as
    in the authors' code: the paper's sum leaves out the input's variance.
    """

    only_shortcut = "post_ln"

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
