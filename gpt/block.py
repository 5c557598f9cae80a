"""What every transformer block owns, whatever its placement: the parts, not the equation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from inspect import getattr_static
from typing import Any, ClassVar

from torch import Tensor, nn

from gpt.attention import SelfAttention
from gpt.config import GPTConfig
from gpt.feedforward import FeedForward
from gpt.inside import NOTHING, Inside
from gpt.moe import MixtureOfExperts, make_feed_forward
from gpt.norm import make_norm
from gpt.registry import ConfigError
from gpt.weights import Weight


class Shortcut(nn.Module):
    """x + f, or f alone where shortcuts are off. He et al. 2015, arXiv 1512.03385."""

    def __init__(self, on: bool) -> None:
        super().__init__()
        self.on = on

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        return x + f if self.on else f


class Block(nn.Module):
    """Attention A, feed-forward F, norms N and shortcuts of one block; subclasses combine them.

    A subclass is a placement: its `forward` is the paper's equation. It maps the state of the
    stream to the state after the block. The state is a tensor (B, T, emb_dim) unless the
    placement carries more than one stream, in which case it overrides `make_entry`, `stream` and
    `make_final`. `add_1(x, f)` and `add_2(h, f)` are the sums of the two sublayers, and where what
    a branch adds is measured.

    norms              names of the norms that each block owns, one attribute for each
    final_norm         whether the paper puts a norm before the output head
    init               the scheme that the paper ties to it, which its YAML chooses
    unfit_inits        schemes with which the paper says not to combine it
    Options            parameters of its own, a frozen dataclass whose defaults are the paper's
    only_shortcut      the placement from which it differs by its shortcuts alone, if it does: it
                       is nothing without them
    inside             what stands inside the branches
    """

    norms: ClassVar[tuple[str, ...]] = ("norm_1", "norm_2")
    final_norm: ClassVar[bool] = False
    init: ClassVar[str | None] = None
    unfit_inits: ClassVar[tuple[str, ...]] = ()
    only_shortcut: ClassVar[str | None] = None
    inside: ClassVar[Inside] = NOTHING
    norm_1: nn.Module
    norm_2: nn.Module
    feed_forward: FeedForward | MixtureOfExperts

    @dataclass(frozen=True)
    class Options:
        """None."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        inside = self.inside_of(config)
        self.attention = SelfAttention(config, inside, layer)
        self.feed_forward = make_feed_forward(config, inside)
        for name in self.norm_names(config):
            self.add_module(name, make_norm(config, config.emb_dim))
        self.add_1, self.add_2 = Shortcut(config.shortcut), Shortcut(config.shortcut)

    @classmethod
    def check(cls, config: GPTConfig) -> None:
        """Raise ConfigError for a config that makes no sense under this placement."""
        if cls.only_shortcut and not config.shortcut:
            placement = config.norm.placement
            valid = (
                f"{placement} is about the shortcut itself; without one take {cls.only_shortcut}"
            )
            raise ConfigError("shortcut", config.shortcut, valid)

    @classmethod
    def norm_names(cls, config: GPTConfig) -> tuple[str, ...]:
        """Those of `norms` that each block owns under this config."""
        return cls.norms

    @classmethod
    def options(cls, config: GPTConfig) -> Any:
        """Its `Options`: what the config says, and the paper's where it says nothing."""
        return cls.Options(**config.norm.options)

    @classmethod
    def inside_of(cls, config: GPTConfig) -> Inside:
        """What stands inside the branches; of query and key what the config says, if it does."""
        qk = config.norm.qk
        return cls.inside if qk is None else replace(cls.inside, query=bool(qk), key=bool(qk))

    @classmethod
    def fixes(cls, config: GPTConfig) -> dict[str, float | bool | str]:
        """What holds for `config` beside the equation: final norm, QK-norm, options, scales."""
        inside = cls.inside_of(config)
        return {
            "final_norm": cls.has_final_norm(config),
            "qk_norm": inside.query and inside.key,
            **asdict(cls.options(config)),
        }

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> "Block":
        """The block at `layer` (0 .. n_layers - 1); override where blocks differ by depth."""
        return cls(config, layer)

    @classmethod
    def kind_of(cls, config: GPTConfig, layer: int) -> str:
        """The name of the placement that the block at `layer` is of."""
        return config.norm.placement

    @classmethod
    def kinds(cls, config: GPTConfig) -> tuple[str, ...]:
        """The names of the placements that blocks are meant to be of."""
        return (config.norm.placement,)

    @classmethod
    def absent_kinds(cls, config: GPTConfig) -> list[str]:
        """Those of `kinds` of which the model has no block."""
        present = {cls.kind_of(config, layer) for layer in range(config.n_layers)}
        return [kind for kind in cls.kinds(config) if kind not in present]

    @classmethod
    def is_its_blocks_alone(cls) -> bool:
        """Whether its blocks could stand beside others.

        They can if they hand on one stream, and the placement does nothing before the first block,
        after the last one but for a norm, or with the first batch.
        """
        own = ("make_entry", "stream", "make_final", "profile")
        return all(getattr_static(cls, name) is getattr_static(Block, name) for name in own)

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        """What turns the embeddings (B, T, emb_dim) into the state that the first block reads."""
        return nn.Identity()

    @staticmethod
    def stream(state: Any) -> Tensor:
        """The tensor (B, T, emb_dim) of the state that is measured as the stream."""
        return state

    @classmethod
    def has_final_norm(cls, config: GPTConfig) -> bool:
        """What the config says, or the paper where it says nothing."""
        return cls.paper_final_norm(config) if config.norm.final is None else config.norm.final

    @classmethod
    def paper_final_norm(cls, config: GPTConfig) -> bool:
        """Whether the paper puts a norm before the head."""
        return cls.final_norm

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        """What turns the state after the last block into the head's input (B, T, emb_dim)."""
        return make_norm(config, config.emb_dim, cls.has_final_norm(config))

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn."""
        yield from self.attention.weights()
        yield from self.feed_forward.weights()

    @classmethod
    def profile(cls, blocks: Sequence["Block"], forward: Callable[[], object]) -> None:
        """Set what the paper sets from data: `forward` takes the first batch through the model."""
