"""Depth mixing: how much of the stream each sublayer wrote.

With the statistics of each norm frozen as the forward pass found them, a norm is an affine map, and
the stream a sum of terms: what became of the embedding, of what each branch gave, and of the norms'
shifts, on their way through shortcuts and norms.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from normscope.anatomy import BRANCHES, Anatomy, first, is_norm
from normscope.stats import MIXING
from normscope.streams import Inputs, Options, evaluating, first_input

Source: TypeAlias = tuple[int, str]  # layer, component
Take: TypeAlias = Callable[[int, str, Tensor, Mapping[Source, Tensor]], None]

EMBEDDING: Source = (-1, "embedding")
SHIFTS: Source = (-1, "norm_shifts")
LEAST_SOUND = 1e-2  # of a state, what the terms may miss: rounding, of bf16 too, is less


class MixingRow(NamedTuple):
    """One value of one state and one of its terms.

    layer, component      the state: `sum_1`, `sum_2` or `output` of a block, or `final_norm` of
                          layer L, what the head reads
    source_layer, source  who wrote the term: `attention` or `feed_forward` of a block; of layer -1
                          `embedding`, what enters the first block, and `norm_shifts`, of all norms
    """

    layer: int
    component: str
    source_layer: int
    source: str
    stat: str
    value: float


def depth_mixing(anatomy: Anatomy, forward: Callable[[], object]) -> list[MixingRow]:
    """The statistics of MIXING, of each state and each source that wrote before it.

    Costs a forward pass in which what stands between the branches is computed 2L + 3 times, in as
    much more memory. States of sums are measured where the sums are modules, the head's input where
    a final norm is one; where blocks are never called, nothing is.

    forward  takes one batch through the model once; it is called without gradients, in eval mode

    Raises ValueError where the terms do not sum to the state: what stands between the branches is
    no sum and no norm.

    >>> import torch, normscope
    >>> layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    >>> model = torch.nn.TransformerEncoder(layer, num_layers=3, enable_nested_tensor=False)
    >>> x = torch.randn(4, 8, 16)
    >>> rows = normscope.depth_mixing(normscope.anatomy_of(model), lambda: model(x))
    >>> last = [row for row in rows if row[:2] == (2, "output") and row.stat == "mixing_share"]
    >>> len(last), round(sum(row.value for row in last), 4)
    (8, 1.0)
    """
    places: list[tuple[int, str, int, str, str]] = []
    values: list[Tensor] = []

    def take(layer: int, component: str, state: Tensor, terms: Mapping[Source, Tensor]) -> None:
        for source, term in terms.items():
            for stat, value in MIXING.values(term, state):
                places.append((layer, component, *source, stat))
                values.append(value)

    take_terms(anatomy, forward, take)
    numbers = torch.stack(values).tolist() if values else []
    return [MixingRow(*place, number) for place, number in zip(places, numbers, strict=True)]


@MIXING.measures(
    "mixing_share",
    "t . s / norm(s)^2, mean over tokens",
    "share of the state; those of all terms sum to 1, and one against the state is below 0",
    scale="linear",
)
def mixing_share(term: Tensor, state: Tensor) -> Tensor:
    """The part of s that t makes up, along s; t and s (..., emb_dim)."""
    t, s = in_units_of(state, term, state)
    squared = (s * s).sum(-1).clamp_min(torch.finfo(s.dtype).tiny)
    return ((t * s).sum(-1) / squared).mean()


@MIXING.measures(
    "mixing_size",
    "norm(t) / norm(s), mean over tokens",
    "size beside the state's; terms that cancel may each be larger than it",
)
def mixing_size(term: Tensor, state: Tensor) -> Tensor:
    """Norm of t over that of s; t and s (..., emb_dim)."""
    t, s = in_units_of(state, term, state)
    return (t.norm(dim=-1) / s.norm(dim=-1).clamp_min(torch.finfo(s.dtype).tiny)).mean()


def in_units_of(state: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The tensors over each token's largest magnitude, so that no square of a state leaves range;
    float32 or wider.
    """
    dtype = torch.promote_types(state.dtype, torch.float32)
    unit = state.to(dtype).abs().amax(-1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    return [tensor.to(dtype) / unit for tensor in tensors]


def take_terms(anatomy: Anatomy, forward: Callable[[], object], take: Take) -> None:
    """Call `take(layer, component, state, terms)` at each state, in the order of the pass.

    state  (B, T, emb_dim)
    terms  by source, each of the state's shape, of all that have written so far; their sum is the
           state. What a branch wrote is what it gave, after the norm on its output if there is one,
           whose shift stands with the other shifts

    Raises ValueError as `depth_mixing` does.
    """
    if anatomy.blocks:
        with Terms(anatomy, take).hooked(), evaluating(anatomy.model), torch.no_grad():
            forward()


class Terms:
    """Carries the terms through the blocks, side by side along the first dimension of the state.

    The first slot is the state itself, which alone the branches read and by which norms are frozen.
    Then follow the embedding, each branch of each block, and the shifts.
    """

    def __init__(self, anatomy: Anatomy, take: Take) -> None:
        self.anatomy, self.take = anatomy, take
        branches = [
            (layer, branch)
            for layer, block in enumerate(anatomy.blocks)
            for branch in BRANCHES
            if getattr(block, branch)
        ]
        self.sources = [EMBEDDING, *branches, SHIFTS]
        self.written = {EMBEDDING, SHIFTS}
        self.slots = 1 + len(self.sources)
        self.shape = torch.Size()  # of the state with its terms
        self.last: Any = None  # the state with its terms after the last block

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within: the hooks are there."""
        module_of = self.anatomy.model.get_submodule
        handles: list[RemovableHandle] = []
        try:
            for name, hook in self.before():
                module = module_of(name)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            for name, hook in self.after():
                handles.append(module_of(name).register_forward_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Each module that is given something else, with what gives it."""
        yield self.anatomy.blocks[0].name, self.enter
        for block in self.anatomy.blocks:
            for name in (*block.attention, *block.feed_forward):
                yield name, self.read
        if (final := final_norm(self.anatomy)) is not None:
            yield final, self.enter_final

    def after(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Each module whose output is changed or taken, with what does so: norms before sums."""
        for layer, block in enumerate(self.anatomy.blocks):
            for branch in BRANCHES:
                for name in getattr(block, branch)[-1:]:
                    yield name, partial(self.write, (layer, branch))
            for name in norms_in(self.anatomy.model, block.name):
                yield name, self.freeze
            for number, name in enumerate(block.sums, start=1):
                yield name, partial(self.keep, layer, f"sum_{number}")
            yield block.name, partial(self.keep_stream, layer)
        yield self.anatomy.blocks[-1].name, self.leave
        if (final := final_norm(self.anatomy)) is not None:
            for name in norms_in(self.anatomy.model, final):
                yield name, self.freeze
            yield final, partial(self.keep, len(self.anatomy.blocks), "final_norm")
            yield final, self.leave

    def enter(self, module: nn.Module, inputs: Inputs, options: Options) -> tuple[Inputs, Options]:
        """The state, the same again as the embedding's term, and 0 for all others."""

        def with_terms(x: Tensor) -> Tensor:
            nothing = x.new_zeros(self.slots - 2, *x.shape)
            return torch.cat([x[None], x[None], nothing]).flatten(0, 1)

        state = each(with_terms, first_input(inputs, options))
        self.shape = first(state).shape
        return with_first(state, inputs, options)

    def enter_final(
        self, module: nn.Module, inputs: Inputs, options: Options
    ) -> tuple[Inputs, Options]:
        """The terms again, where what the final norm reads is the state after the last block."""
        if self.last is None:
            return inputs, options
        state = first_input(inputs, options)
        last = self.last if isinstance(state, tuple) else first(self.last)
        left = map(self.alone, streams_of(last))
        if all(map(torch.equal, streams_of(state), left)):
            return with_first(last, inputs, options)
        return inputs, options

    def has_terms(self, x: Any) -> bool:
        """Whether it is a state with its terms; a block may flatten its tokens."""
        if not isinstance(x, Tensor) or not self.shape or x.ndim < 2:
            return False
        return x.numel() == self.shape.numel() and x.shape[-1] == self.shape[-1]

    def alone(self, x: Any) -> Any:
        """The state without its terms."""
        return self.apart(x)[0] if self.has_terms(x) else x

    def apart(self, x: Tensor) -> Tensor:
        """(slots, B, T, emb_dim)."""
        return x.unflatten(0, (self.slots, -1))

    def read(self, module: nn.Module, inputs: Inputs, options: Options) -> tuple[Inputs, Options]:
        """A branch reads the state alone."""
        of_options = {name: self.alone(value) for name, value in options.items()}
        return tuple(map(self.alone, inputs)), of_options

    def write(
        self, source: Source, module: nn.Module, inputs: Inputs, options: Options, output: Any
    ) -> Any:
        """What a branch gives, in the slot of the state and in its own."""
        if not self.shape:  # in a list of modules, which is never called as a block
            return None
        given = first(output)
        slots = given.new_zeros(self.slots, *given.shape)
        slots[0] = slots[1 + self.sources.index(source)] = given
        self.written.add(source)
        written = slots.flatten(0, 1)
        return written if isinstance(output, Tensor) else (written, *output[1:])

    def freeze(
        self, module: nn.Module, inputs: Inputs, options: Options, output: Tensor
    ) -> Tensor | None:
        """The norm of the state, and the frozen norm of each term."""
        x = first_input(inputs, options)
        if not self.has_terms(x):
            return None
        state, *_ = slots = self.apart(x)
        scale, shift, centres = frozen(module.forward, state)
        terms = scale * (centred(slots) if centres else slots)
        terms[-1] += shift
        terms[0] = self.alone(output)
        return terms.flatten(0, 1)

    def keep(
        self, layer: int, part: str, module: nn.Module, inputs: Inputs, options: Options, x: Any
    ) -> None:
        """Hand on a state and its terms. Raises ValueError where they do not sum to it."""
        if not self.has_terms(x):
            return
        state, *terms = self.apart(x)
        missed, whole = in_units_of(state, torch.stack(terms).sum(0) - state, state)
        if missed.norm() > LEAST_SOUND * whole.norm():
            raise ValueError(
                f"{part} of block {layer} is not the sum of what the branches wrote (the terms "
                f"miss {float(missed.norm() / whole.norm()):.0%} of it): between the branches "
                "stands what is neither a sum nor a norm that `anatomy_of` finds"
            )
        by_source = zip(self.sources, terms, strict=True)
        self.take(layer, part, state, {s: term for s, term in by_source if s in self.written})

    def keep_stream(
        self, layer: int, module: nn.Module, inputs: Inputs, options: Options, output: Any
    ) -> None:
        """The same of the stream after a block."""
        stream = self.anatomy.read_stream(module, output)
        self.keep(layer, "output", module, inputs, options, stream)

    def leave(self, module: nn.Module, inputs: Inputs, options: Options, output: Any) -> Any:
        """What follows reads the state alone."""
        self.last = output
        return each(self.alone, output)


def streams_of(state: Any) -> tuple[Any, ...]:
    """What the tuple holds, or the state alone."""
    return state if isinstance(state, tuple) else (state,)


def each(change: Callable[[Any], Any], state: Any) -> Any:
    """`change` of the state, or of each stream of a tuple."""
    return tuple(map(change, state)) if isinstance(state, tuple) else change(state)


def with_first(value: Any, inputs: Inputs, options: Options) -> tuple[Inputs, Options]:
    """What a module is called with, with another value for what came first."""
    if inputs:
        return (value, *inputs[1:]), options
    return inputs, options | {next(iter(options)): value}


def final_norm(anatomy: Anatomy) -> str | None:
    """The name of the module that is or holds the norm before the head; None where there is none"""
    modules = dict(anatomy.model.named_modules())
    for name, component in anatomy.after.items():
        if component == "final_norm":
            return name if name in modules else name.rpartition(".")[0]
    return None


def norms_in(model: nn.Module, part: str) -> Iterator[str]:
    """The names of all norms in a part, itself among them; what holds other modules is none."""
    for name, module in model.get_submodule(part).named_modules(prefix=part):
        if is_norm(name, module) and not any(module.children()):
            yield name


def frozen(norm: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Scale s (B, T, emb_dim), shift b and whether it centres: N(v) = s (v - mean(v)) + b.

    Of a norm N at x (B, T, emb_dim), with its statistics as they are there; v - mean(v) is v where
    it does not centre. Found by what N does, not by its class: b is N(0), it centres where a
    constant added to all features changes nothing, and s is the gain of each feature times what is
    left for each token. An elementwise N, such as dyt, in which no feature changes another, is
    scaled by what it made of each element, s = (N(x) - b) / x.
    """
    small = torch.finfo(x.dtype).eps
    signs = x.new_ones(1, x.shape[-1])
    signs[..., 1::2] = -1
    near_0 = small**0.5 * signs  # N(0) itself is 0 / 0 in a norm without eps
    shift = (norm(near_0) + norm(-near_0)) / 2
    ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)[None]
    plain, made = norm(ramp), norm(x) - shift

    def changes_nothing(other: Tensor, features: slice) -> bool:
        change = (norm(other) - plain)[..., features]
        return bool(change.abs().max() <= 1e-3 * (plain - shift).abs().max())

    half = max(1, x.shape[-1] // 2)
    if changes_nothing(torch.cat([ramp[..., :half], 3 * ramp[..., half:]], dim=-1), slice(half)):
        step = small ** (1 / 3)  # below it the quotient loses its digits: there N'(x / 2)
        slope = (norm(x / 2 + step) - norm(x / 2 - step)) / (2 * step)
        return torch.where(x.abs() < step, slope, made / x), shift, False
    centres = changes_nothing(ramp + 1, slice(None))
    seen, known = (centred(part) if centres else part for part in (x, signs))
    gain = (norm(signs) - shift) / known
    size = seen.abs().amax(-1, keepdim=True)
    direction = gain * seen / size
    token = (direction * made).sum(-1, keepdim=True) / direction.square().sum(-1, keepdim=True)
    return torch.nan_to_num(gain * token / size), shift, centres


def centred(x: Tensor) -> Tensor:
    """x - mean(x), over the features."""
    return x - x.mean(-1, keepdim=True)
