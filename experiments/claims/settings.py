"""Settings that claims share, as overrides of a command, and what is read of their models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.claims.lab import Lab
from experiments.settings.schema import Settings
from experiments.training.loss import language_model_loss
from gpt import GPT
from gpt.block import Block

DEPTHS = (2, 4, 8, 16, 32)
SHALLOW = DEPTHS[:3]  # of arms without norms, whose slope is clear at once
WIDTH, DEEP = 256, 32
NARROW = 128  # where blocks are compared in one model
SEQUENCES, WINDOWS = 4, 2  # per seed: of Gaussian inputs, of text

XIONG = (
    "model=xiong",
    "init=xiong",
    "activation=relu",
    "trainer.precision=float64",
    "model.vocab_size=1024",
    "model.context_length=32",
    f"model.emb_dim={WIDTH}",
)
XIONG_SETTING = (
    "one head, uniform attention over all positions, feed-forward of width d, ReLU, no biases, "
    f"Xavier, d = {WIDTH}; {SEQUENCES} sequences of 32 Gaussian inputs per seed, 1,024 classes, "
    "random targets; float64 (model=xiong init=xiong activation=relu)"
)
NARROW_SETTING = XIONG_SETTING.replace(f"d = {WIDTH}", f"d = {NARROW}")
MICRO = ("model=micro", "tokenizer=char", "trainer.precision=float64")
MICRO_SETTING = (
    f"GPT of width 64, 4 heads, GELU, characters of the King James Bible, {WINDOWS} windows of 64 "
    "per seed, float64"
)


def in_xiongs_setting(
    lab: Lab, placement: str, seed: int, depth: int, *overrides: str
) -> tuple[GPT, Tensor, Tensor]:
    """Model, tokens and targets in the setting of Xiong et al. 2020, section 3.3."""
    settings = lab.settings(f"norm={placement}", *XIONG, *overrides)
    model = lab.model(settings, seed, depth)
    return model, *lab.random_batch(settings, seed, SEQUENCES)


def micro(lab: Lab, *overrides: str) -> Settings:
    """The settings of a GPT of width 64 over characters."""
    return lab.settings(*MICRO, *overrides)


def text_loss(lab: Lab, settings: Settings, seed: int, depth: int) -> tuple[GPT, Tensor]:
    """A GPT as initialised, and its loss on the seed's windows of text."""
    model = lab.model(settings, seed, depth)
    tokens, targets = lab.text_batch(settings, seed, WINDOWS)
    return model, language_model_loss(model, tokens, targets, "float64")


@contextmanager
def outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within: the outputs of the modules are collected, in the order of their calls."""
    collected: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _, __, out: collected.append(out)) for m in modules]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inputs_of(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within: the inputs of the modules are collected, in the order of their calls."""
    collected: list[Tensor] = []
    handles = [m.register_forward_pre_hook(lambda _, x: collected.append(x[0])) for m in modules]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def streams(model: GPT, tokens: Tensor) -> list[Tensor]:
    """The stream after each block, (B, T, emb_dim)."""
    with outputs(model.blocks) as states:
        model.features(tokens)
    return [block.stream(state) for block, state in zip(model.blocks, states, strict=True)]


def variances(model: GPT, tokens: Tensor) -> list[float]:
    """Variance of the stream over all elements, after each block."""
    return [x.var(correction=0).item() for x in streams(model, tokens)]


def ff_weights(model: GPT) -> list[Tensor]:
    """The second feed-forward weight of each block, W^{2,l}."""
    return [block.feed_forward.fc_out.weight for block in model.blocks]


def grad_norm(loss: Tensor, weight: Tensor) -> float:
    """Frobenius norm of a weight's gradient."""
    (grad,) = torch.autograd.grad(loss, weight, retain_graph=True)
    return grad.norm().item()


def grad_norms(loss: Tensor, groups: Sequence[Sequence[Tensor]]) -> list[float]:
    """Frobenius norm of the gradient of each group of parameters."""
    grads = iter(torch.autograd.grad(loss, [p for group in groups for p in group]))
    return [nn.utils.get_total_norm([next(grads) for _ in group]).item() for group in groups]


def block_grad_norms(loss: Tensor, blocks: Sequence[nn.Module]) -> list[float]:
    """Norm of the gradient of all parameters of each block."""
    return grad_norms(loss, [list(block.parameters()) for block in blocks])


def sequence_grads(
    model: GPT, tokens: Tensor, targets: Tensor, blocks: Sequence[Block]
) -> list[Tensor]:
    """Gradient of each sequence's loss in W^{2,l} of each block, (B, emb_dim, ff_dim).

    Sequences do not meet in a model, so that one pass back serves all of them: the gradient of a
    sequence is the product of what reaches the layer's output and of its input.
    """
    layers = [block.feed_forward.fc_out for block in blocks]
    with inputs_of(layers) as inputs, outputs(layers) as results:
        logits = model(tokens)
    loss = len(tokens) * F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    behind = torch.autograd.grad(loss, results)
    return [g.transpose(1, 2) @ x for g, x in zip(behind, inputs, strict=True)]


def mean_norms(grads: Sequence[Tensor]) -> list[float]:
    """Mean over sequences of each gradient's norm."""
    return [grad.flatten(1).norm(dim=1).mean().item() for grad in grads]
