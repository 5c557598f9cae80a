"""Settings that claims share, as overrides of a command, and what is read of their models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from experiments.claims.lab import Lab
from experiments.settings.schema import Settings
from experiments.training.loss import language_model_loss
from gpt import GPT

DEPTHS = (2, 4, 8, 16, 32)
WIDTH, DEEP = 256, 32
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


def ff_weights(model: GPT) -> list[Tensor]:
    """The second feed-forward weight of each block, W^{2,l}."""
    return [block.feed_forward.fc_out.weight for block in model.blocks]


def grad_norm(loss: Tensor, weight: Tensor) -> float:
    """Frobenius norm of a weight's gradient."""
    (grad,) = torch.autograd.grad(loss, weight, retain_graph=True)
    return grad.norm().item()
