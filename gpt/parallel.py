"""Placements where both branches read the same input, under the names of `gpt/placement.py`.

Notation as there. `add_1` adds A to the stream and `add_2` then F, which reads the block's input
all the same, and is added whether or not there is a shortcut; GPAS follows the sum of all. With
`parallel.shared` one norm, N_1, stands before both branches. A placement that is about what lies
between the two branches has no parallel form, and is not here.

Wang and Komatsuzaki 2021 (GPT-J); Black et al. 2022 (GPT-NeoX), arXiv 2204.06745; Chowdhery et al.
2022 (PaLM), arXiv 2204.02311. These are `pre_ln`; the other forms follow from it, unpublished.
"""

from torch import Tensor

from gpt.block import Block, Shortcut
from gpt.config import GPTConfig
from gpt.placement import (
    LNScaling,
    MixLN,
    NoNorm,
    NormFormer,
    PeriLN,
    PostLN,
    PreLN,
    Reordered,
    Sandwich,
    SubLN,
)
from gpt.registry import PARALLEL, ConfigError


class Branches(Block):
    """The sum of both branches."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.add_2 = Shortcut(on=True)


class Inputs(Branches):
    """Norms on what the branches read, one for each or one for both."""

    @classmethod
    def norm_names(cls, config: GPTConfig) -> tuple[str, ...]:
        """All but the second input's where the two share one."""
        shared = config.parallel.shared
        return tuple(name for name in cls.norms if not (shared and name == "norm_2"))

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What attention and feed-forward read: N_1 x and N_2 x, or N_1 x twice."""
        first = self.norm_1(x)
        return first, first if self.shared else self.norm_2(x)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.shared = config.parallel.shared


class NoInputs(Branches):
    """No norm on what the branches read."""

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Also refuse to share what is not there."""
        if config.parallel.shared:
            valid = f"norm={config.norm.placement} has no norms before its branches to share"
            raise ConfigError("parallel.shared", True, valid)
        super().check(config)


@PARALLEL("pre_ln")
class ParallelPreLN(Inputs, PreLN):
    """out = x + A(N_1 x) + F(N_2 x); a final norm before the head."""

    def forward(self, x: Tensor) -> Tensor:
        a, f = self.inputs(x)
        out = self.add_2(self.add_1(x, self.attention(a)), self.feed_forward(f))
        return self.scale_stream(out)


@PARALLEL("post_ln")
class ParallelPostLN(NoInputs, PostLN):
    """out = N(x + A x + F x); no final norm."""

    norms = ("norm_1",)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_1(self.add_2(self.add_1(x, self.attention(x)), self.feed_forward(x)))


@PARALLEL("no_norm")
class ParallelNoNorm(NoInputs, NoNorm):
    """out = x + A x + F x."""

    def forward(self, x: Tensor) -> Tensor:
        return self.add_2(self.add_1(x, self.attention(x)), self.feed_forward(x))


@PARALLEL("sandwich")
class ParallelSandwich(Inputs, Sandwich):
    """out = x + N(A(N_1 x)) + N(F(N_2 x)); a final norm before the head."""

    def forward(self, x: Tensor) -> Tensor:
        a, f = self.inputs(x)
        h = self.add_1(x, self.out_norm_1(self.attention(a)))
        return self.scale_stream(self.add_2(h, self.out_norm_2(self.feed_forward(f))))


@PARALLEL("peri_ln")
class ParallelPeriLN(ParallelSandwich, PeriLN):
    """As sandwich, and a norm on the embeddings, by an option."""


@PARALLEL("reordered")
class ParallelReordered(NoInputs, Reordered):
    """out = x + N(A x) + N(F x); a final norm before the head."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.norm_1(self.attention(x)))
        return self.add_2(h, self.norm_2(self.feed_forward(x)))


@PARALLEL("sub_ln")
class ParallelSubLN(Inputs, SubLN):
    """out = x + W_O N(attend(N_1 x)) + W_2 N(phi(W_1 N_2 x)); a final norm before the head."""

    def forward(self, x: Tensor) -> Tensor:
        a, f = self.inputs(x)
        return self.add_2(self.add_1(x, self.attention(a)), self.feed_forward(f))


@PARALLEL("normformer")
class ParallelNormFormer(Inputs, NormFormer):
    """out = x + N(A(N_1 x)) + W_2 N(phi(W_1 N_2 x)), A with a learned scale per head;
    a final norm before the head.
    """

    def forward(self, x: Tensor) -> Tensor:
        a, f = self.inputs(x)
        return self.add_2(self.add_1(x, self.out_norm_1(self.attention(a))), self.feed_forward(f))


@PARALLEL("ln_scaling")
class ParallelLNScaling(Inputs, LNScaling):
    """out = x + A(N_1(x) / sqrt(l)) + F(N_2(x) / sqrt(l)); a final norm, unscaled."""

    def forward(self, x: Tensor) -> Tensor:
        a, f = self.inputs(x)
        h = self.add_1(x, self.attention(self.scale * a))
        return self.scale_stream(self.add_2(h, self.feed_forward(self.scale * f)))


@PARALLEL("mix_ln")
class ParallelMixLN(NoInputs, MixLN):
    """Blocks l <= fraction x L as post_ln, the rest as pre_ln, both parallel; a final norm."""
