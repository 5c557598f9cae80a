"""What is measured of what flows through a model: activations, stream gradients, attention.

Each measurement is a row (layer, component, stat, value). L is the number of blocks, the layer
0 .. L - 1; the stream is what a block hands to the next, (B, T, emb_dim).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gpt import GPT
from gpt.attention import SelfAttention
from gpt.block import Block, Shortcut
from normscope.attention import relative_entropy
from normscope.stats import Row

Values = dict[tuple[int, str, str], Tensor]  # layer, component, stat


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within: no dropout. The mode before comes back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def stream_rows(
    model: GPT, loss_of: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, targets: Tensor
) -> list[Row]:
    """Activations and stream gradients of one batch, (B, T) tokens and targets, in eval mode.

    Of each of a block's tensors (B, T, emb_dim), n their number of elements:
        activation_rms       sqrt(sum x^2 / n)
        activation_variance  sum (x - mean)^2 / n, mean over all elements
        activation_max       max |x|
    with the components
        input, output            the stream before and after the block
        attention, feed_forward  what the branch's module gives
        added_1, added_2         f, what the sublayer adds: as the branch, or after an output norm
        sum_1, sum_2             x + f, before any norm: what Lemma 2 of Xiong et al. 2020, arXiv
                                 2002.04745, bounds
    Of attention and feed_forward:
        branch_ratio             RMS(f) / RMS(x), x what f is added to, after its scale if it has
                                 one; absent where the shortcut is off
    Of input and output:
        stream_grad_norm         Frobenius norm of the mean loss's gradient by the stream there
    Of attention:
        attention_max_logit      the largest logit before the softmax
        attention_entropy        see `relative_entropy`
    Of block:
        angular_distance         see `angular_distance`, x the block's input and y its output
        angular_distance_n       the same with the output n blocks further, n = 2, 4, 8, ..., for
                                 the first of them, while there are as many

    Costs one forward and backward pass of the batch, and the attention once more. Parameters'
    gradients, the random state and the model's mode are left as they were.
    """
    if not model.blocks:
        return []
    streams: dict[tuple[int, str], Tensor] = {}
    values: Values = {}
    handles: list[RemovableHandle] = []
    for layer, block in enumerate(model.blocks):
        handles += watch(block, layer, streams, values)
    try:
        with evaluating(model), torch.enable_grad():
            loss = loss_of(tokens, targets)
        # With shortcuts off and a dead branch, a stream may have no path to the loss.
        grads = torch.autograd.grad(loss, list(streams.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    for (layer, part), grad in zip(streams, grads, strict=True):
        if grad is not None:
            values[layer, part, "stream_grad_norm"] = norm(grad)
    blocks = len(model.blocks)
    inputs = [streams[layer, "input"] for layer in range(blocks)]
    values |= angles([*inputs, streams[blocks - 1, "output"]])
    numbers = torch.stack(list(values.values())).tolist()
    # The square of a deviation in float32 may leave it.
    return [
        Row(*key, value**2 if key[2] == "activation_variance" else value)
        for key, value in zip(values, numbers, strict=True)
    ]


def watch(
    block: Block, layer: int, streams: dict[tuple[int, str], Tensor], values: Values
) -> list[RemovableHandle]:
    """Hooks that put a block's streams and values where they are told.

    `activation_variance` is left as its root.
    """

    @torch.no_grad()
    def describe(component: str, x: Tensor) -> None:
        values[layer, component, "activation_rms"] = rms(x)
        values[layer, component, "activation_variance"] = rms(x.float() - x.float().mean())
        values[layer, component, "activation_max"] = x.float().abs().max()

    def ends(module: Block, inputs: tuple[Any], output: Any) -> None:
        for part, state in (("input", inputs[0]), ("output", output)):
            streams[layer, part] = module.stream(state)
            describe(part, streams[layer, part])

    @torch.no_grad()
    def attention(module: SelfAttention, inputs: tuple[Tensor], output: Tensor) -> None:
        describe("attention", output)
        logits, weights = module.scores(inputs[0])
        values[layer, "attention", "attention_max_logit"] = logits.float().max()
        entropy = relative_entropy(weights.float(), module.causal)
        values[layer, "attention", "attention_entropy"] = entropy

    def feed_forward(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        describe("feed_forward", output)

    def total(number: int, branch: str) -> Callable[..., None]:
        @torch.no_grad()
        def hook(module: Shortcut, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            x, f = inputs
            describe(f"added_{number}", f)
            describe(f"sum_{number}", output)
            if module.on:
                values[layer, branch, "branch_ratio"] = rms(f) / rms(x)

        return hook

    return [
        block.attention.register_forward_hook(attention),
        block.add_1.register_forward_hook(total(1, "attention")),
        block.feed_forward.register_forward_hook(feed_forward),
        block.add_2.register_forward_hook(total(2, "feed_forward")),
        block.register_forward_hook(ends),
    ]


@torch.no_grad()
def angles(streams: list[Tensor]) -> Values:
    """Angular distances of L + 1 streams: the inputs of all blocks, and the output of the last."""
    values: Values = {}
    n, stat = 1, "angular_distance"
    while n < len(streams):
        for layer, (x, y) in enumerate(zip(streams, streams[n:], strict=False)):
            values[layer, "block", stat] = angular_distance(x, y)
        n *= 2
        stat = f"angular_distance_{n}"
    return values


def angular_distance(x: Tensor, y: Tensor) -> Tensor:
    """arccos(x . y / (|x| |y|)) / pi, from 0 to 1, mean over tokens; x and y (..., emb_dim).

    Eq. (1) of Sun et al. 2025 (The Curse of Depth), arXiv 2502.05795. Taken as
    2 atan2(|u - v|, |u + v|) / pi of the unit vectors u and v, which is exact near 0 and 1 too.
    """

    def unit(x: Tensor) -> Tensor:
        tiny = torch.finfo(torch.float32).tiny
        scaled = x.float() / x.float().abs().amax(-1, keepdim=True).clamp_min(tiny)
        return nn.functional.normalize(scaled, dim=-1, eps=tiny)

    u, v = unit(x), unit(y)
    return (2 / torch.pi * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))).mean()


def norm(x: Tensor) -> Tensor:
    """Frobenius norm in float32, scaled by the largest magnitude so that no square leaves it."""
    largest = x.float().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return largest * (x.float() / largest).norm()


def rms(x: Tensor) -> Tensor:
    """Root mean square over all elements."""
    return norm(x) / x.numel() ** 0.5
