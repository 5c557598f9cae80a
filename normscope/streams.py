"""What is measured of what flows through a model: activations, stream gradients, angles.

L is the number of blocks, the layer 0 .. L - 1; the stream is what a block hands to the next,
(B, T, emb_dim).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from normscope.anatomy import BRANCHES, Anatomy, first
from normscope.attention import scores_of
from normscope.experts import load_of
from normscope.stats import (
    ACTIVATIONS,
    ATTENTION,
    EACH_EXPERT,
    EXPERTS,
    STREAM_GRADIENTS,
    STREAM_PAIRS,
    STREAMS,
    SUMS,
    Point,
    Row,
    described,
)

Streams: TypeAlias = dict[tuple[int, str], Tensor]  # layer, component
Values: TypeAlias = dict[tuple[int, str, str], Tensor]  # layer, component, stat
Inputs: TypeAlias = tuple[Any, ...]  # what a module is called with by position,
Options: TypeAlias = dict[str, Any]  # and by name
Hook: TypeAlias = Callable[..., None]


@ACTIVATIONS.measures(
    "activation_rms",
    "sqrt(sum x^2 / n)",
    "root mean square",
    title="Activations by layer",
    axis="RMS of the stream after the block",
    drawn="output",
)
def activation_rms(x: Tensor) -> Tensor:
    """Root mean square."""
    return rms(x)


@ACTIVATIONS.measures(
    "activation_variance",
    "sum (x - mean(x))^2 / n, mean over all elements",
    "variance of the activation",
    finish=lambda deviation: deviation**2,  # in float32 it may leave the range
)
def activation_deviation(x: Tensor) -> Tensor:
    """The root of the variance."""
    return rms(x.float() - x.float().mean())


@ACTIVATIONS.measures("activation_max", "max abs(x)", "largest magnitude")
def activation_max(x: Tensor) -> Tensor:
    """Largest magnitude."""
    return x.float().abs().max()


@SUMS.measures("branch_ratio", "RMS(f) / RMS(x)", "branch over stream")
def branch_ratio(x: Tensor, f: Tensor) -> Tensor:
    """What is added, over what it is added to."""
    return rms(f) / rms(x)


@STREAM_GRADIENTS.measures("stream_grad_norm", "norm(g)", "norm of the stream's gradient")
def stream_grad_norm(gradient: Tensor) -> Tensor:
    """Frobenius norm."""
    return norm(gradient)


@STREAM_PAIRS.measures(
    "angular_distance",
    "arccos(x . y / (norm(x) norm(y))) / pi, mean over tokens",
    "angular distance",
    axis="arccos(cosine) / pi between the block's input and output",
    scale="linear",
    shows=(0.0,),
    drawn="block",
    source="Sun et al. 2025 (The Curse of Depth), arXiv 2502.05795, eq. (1)",
)
def angular_distance(x: Tensor, y: Tensor) -> Tensor:
    """arccos(x . y / (|x| |y|)) / pi, from 0 to 1, mean over tokens; x and y (..., emb_dim).

    Eq. (1) of Sun et al. 2025 (The Curse of Depth), arXiv 2502.05795. Taken as
    2 atan2(|u - v|, |u + v|) / pi of the unit vectors u and v, which is exact near 0 and 1 too.
    """

    u, v = unit(x), unit(y)
    return (2 / torch.pi * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))).mean()


@STREAM_PAIRS.measures(
    "stream_cosine",
    "x . y / (norm(x) norm(y)), mean over tokens",
    "cosine between the stream before a block and after it",
    scale="linear",
    live=False,
)
def stream_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Mean over tokens of the cosine of a block's input, the output of the one before, and its
    output; x and y (..., emb_dim).
    """
    return (unit(x) * unit(y)).sum(-1).mean()


@STREAMS.measures(
    "token_cosine",
    "x_i . x_j / (norm(x_i) norm(x_j)), mean over the pairs i != j of tokens of a window",
    "cosine between different tokens; 1 where all are alike (rank collapse)",
    title="Likeness of tokens by layer",
    axis="mean cosine between different tokens after the block",
    scale="linear",
    shows=(0.0, 1.0),
    drawn="output",
    live=False,
    source="Dong et al. 2021, arXiv 2103.03404; Noci et al. 2022, arXiv 2206.03126",
)
def token_cosine(x: Tensor) -> Tensor | None:
    """Mean over windows and pairs of different tokens, x (B, T, emb_dim); absent where T is 1.

    By (norm(sum u)^2 - T) / (T (T - 1)) of the T unit vectors u, which costs no pair.
    """
    count = x.shape[-2]
    if count == 1:
        return None
    together = unit(x).sum(-2).square().sum(-1)
    return ((together - count) / (count * (count - 1))).mean()


@STREAMS.measures(
    "stream_kurtosis",
    "n sum d^4 / (sum d^2)^2, d = x - mean(x), over all elements",
    "kurtosis of the stream; 3 of a normal distribution",
    axis="kurtosis of the stream after the block",
    shows=(3.0,),
    drawn="output",
    live=False,
)
def stream_kurtosis(x: Tensor) -> Tensor:
    """The mean of (d / std)^4 over all elements; nan where all are the same."""
    deviation = x.float() - x.float().mean()
    squares = (deviation / deviation.abs().max()).square()  # none leaves float32
    return x.numel() * squares.square().sum() / squares.sum().square()


@STREAMS.measures(
    "stream_max_over_rms",
    "max abs(x) / RMS(x)",
    "largest magnitude over the root mean square",
    live=False,
)
def stream_max_over_rms(x: Tensor) -> Tensor:
    """At least 1, at most sqrt(n)."""
    return activation_max(x) / rms(x)


@STREAMS.measures(
    "stream_max_over_median",
    "max abs(x) / median abs(x)",
    "largest magnitude over the median one; massive activations are 1,000 and more",
    live=False,
    source="Sun et al. 2024 (Massive Activations), arXiv 2402.17762",
)
def stream_max_over_median(x: Tensor) -> Tensor:
    """The median is the lower of the two in the middle, as PyTorch takes it; inf where it is 0."""
    return activation_max(x) / x.float().abs().median()


def unit(x: Tensor) -> Tensor:
    """Vectors (..., emb_dim) over their norms, in float32; no square leaves it."""
    tiny = torch.finfo(torch.float32).tiny
    scaled = x.float() / x.float().abs().amax(-1, keepdim=True).clamp_min(tiny)
    return nn.functional.normalize(scaled, dim=-1, eps=tiny)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: no dropout. The modes and the random state before come back."""
    modes = [(module, module.training) for module in model.modules()]
    cuda = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(cuda)):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def stream_rows(anatomy: Anatomy, loss: Callable[[], Tensor]) -> list[Row]:
    """The statistics of ACTIVATIONS, SUMS, ATTENTION, the experts and the stream, in eval mode.

    Costs one forward and backward pass of the batch, and attention and routing once more. The
    gradients of parameters, the random state and the model's mode are left as they were.

    loss  takes the batch through the model and returns its mean loss, ()
    """
    if not anatomy.blocks:
        return []
    watch = Watch(anatomy)
    with watch.hooked():
        with evaluating(anatomy.model), torch.enable_grad():
            total = loss()
        values = watch.values | stream_gradients(total, watch.streams)
    values |= stream_pairs(len(anatomy.blocks), watch.streams)
    if not values:
        return []
    numbers = torch.stack(list(values.values())).tolist()
    finish = {stat: described(stat).finish for stat in {key[2] for key in values}}
    return [Row(*key, finish[key[2]](number)) for key, number in zip(values, numbers, strict=True)]


class Watch:
    """What hooks on the parts of all blocks see of a forward pass.

    streams  by layer and `input` or `output`, still in the graph
    values   measured of them and of the branches, still on the device
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.streams: Streams = {}
        self.values: Values = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Within: the hooks are there."""
        module_of = self.anatomy.model.get_submodule
        handles: list[RemovableHandle] = []
        try:
            for name, hook in self.hooks():
                handles.append(module_of(name).register_forward_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def hooks(self) -> Iterator[tuple[str, Hook]]:
        """Each watched module's name with what looks at it."""
        for layer, block in enumerate(self.anatomy.blocks):
            for name in block.attention[-1:]:
                yield name, partial(self.attention, layer)
            for name in block.feed_forward[-1:]:
                yield name, partial(self.feed_forward, layer)
            for number, name in enumerate(block.sums):
                yield name, partial(self.sum, layer, number)
            yield block.name, partial(self.block, layer)

    @torch.no_grad()
    def put(self, layer: int, component: str, point: Point, *given: Any) -> None:
        """Measure what is given at a point."""
        self.values |= {(layer, component, stat): v for stat, v in point.values(*given)}

    @torch.no_grad()
    def attention(
        self, layer: int, module: nn.Module, inputs: Inputs, options: Options, output: Any
    ) -> None:
        """The branch's output, and what it looked at."""
        self.put(layer, "attention", ACTIVATIONS, first(output))
        scores = scores_of(module, first_input(inputs, options), options, output)
        if scores is not None:
            self.put(layer, "attention", ATTENTION, scores)

    @torch.no_grad()
    def feed_forward(
        self, layer: int, module: nn.Module, inputs: Inputs, options: Options, output: Any
    ) -> None:
        """The branch's output, and what its experts were given."""
        self.put(layer, "feed_forward", ACTIVATIONS, first(output))
        shares = load_of(module, first_input(inputs, options))
        if shares is not None:
            self.put(layer, "feed_forward", EXPERTS, shares)
            for expert, share in enumerate(shares):
                place = f"feed_forward.expert_{expert}"
                self.put(layer, place, EACH_EXPERT, share, len(shares))

    def sum(
        self, layer: int, index: int, module: nn.Module, inputs: Inputs, options: Options, out: Any
    ) -> None:
        """What the branch of this index adds to what, and what comes of it."""
        x, f = inputs
        self.put(layer, f"added_{index + 1}", ACTIVATIONS, f)
        self.put(layer, f"sum_{index + 1}", ACTIVATIONS, out)
        if getattr(module, "on", True):
            self.put(layer, BRANCHES[index], SUMS, x, f)

    def block(
        self, layer: int, module: nn.Module, inputs: Inputs, options: Options, output: Any
    ) -> None:
        """The stream before and after the block."""
        for part, state in (("input", first_input(inputs, options)), ("output", output)):
            stream = self.streams[layer, part] = self.anatomy.read_stream(module, state)
            self.put(layer, part, ACTIVATIONS, stream)
            self.put(layer, part, STREAMS, stream)


def first_input(inputs: Inputs, options: Options) -> Any:
    """What a module was called with first, by position or by name."""
    return inputs[0] if inputs else next(iter(options.values()))


def stream_gradients(loss: Tensor, streams: Streams) -> Values:
    """The statistics of STREAM_GRADIENTS, where the stream has a path to the loss."""
    reached = {place: stream for place, stream in streams.items() if stream.requires_grad}
    if not reached:
        return {}
    # With shortcuts off and a dead branch, a stream may have no path to the loss.
    grads = torch.autograd.grad(loss, list(reached.values()), allow_unused=True)
    return {
        (*place, stat): value
        for place, grad in zip(reached, grads, strict=True)
        if grad is not None
        for stat, value in STREAM_GRADIENTS.values(grad)
    }


@torch.no_grad()
def stream_pairs(blocks: int, streams: Streams) -> Values:
    """The statistics of STREAM_PAIRS, of the inputs of all blocks and the output of the last."""
    places = [*((layer, "input") for layer in range(blocks)), (blocks - 1, "output")]
    if any(place not in streams for place in places):
        return {}
    states = [streams[place] for place in places]
    values: Values = {}
    n, suffix = 1, ""
    while n < len(states):
        for layer, (x, y) in enumerate(zip(states, states[n:], strict=False)):
            for stat, value in STREAM_PAIRS.values(x, y):
                values[layer, "block", stat + suffix] = value
        n *= 2
        suffix = f"_{n}"
    return values


def norm(x: Tensor) -> Tensor:
    """Frobenius norm in float32, scaled by the largest magnitude so that no square leaves it."""
    largest = x.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return largest * (x.float() / largest).norm()


def rms(x: Tensor) -> Tensor:
    """Root mean square over all elements."""
    return norm(x) / x.numel() ** 0.5
