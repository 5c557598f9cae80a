"""Theorems about how far the output moves: under noise on the weights, and under a step."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from experiments.claims.claim import (
    THEOREM,
    AxisLabels,
    Evidence,
    Source,
    claim,
    control,
    law,
    power,
    shown,
    sign,
    slope,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    MICRO_SETTING,
    NARROW,
    NARROW_SETTING,
    WINDOWS,
    in_xiongs_setting,
    micro,
)
from experiments.settings.schema import Settings
from experiments.training.loss import language_model_loss
from gpt import GPT

DEPTHS = (4, 8, 16, 32)
ENDS = (4, 16)  # of arms that are not judged
SLOPE = "slope in L"


def branch_weights(model: GPT, *roles: str) -> list[Tensor]:
    """The matrices of these roles in all blocks; a part of a larger parameter is a view of it."""
    return [w.matrix for block in model.blocks for w in block.weights() if w.role in roles]


@torch.no_grad()
def output_of(model: GPT, tokens: Tensor) -> Tensor:
    """The input of the head, (B, T, emb_dim)."""
    return model.features(tokens)


NOISE, DRAWS = 1e-4, 2
# ln N has this log-log slope in N, over the depths measured.
LOG = slope(DEPTHS, [math.log(2 * depth) for depth in DEPTHS])


@claim(
    "output_change",
    block=THEOREM,
    title="Noise on the weights moves Post-LN's output in proportion to its depth, Pre-LN's as "
    "the logarithm",
    source=Source("Liu et al. 2020 (Admin)", "2004.08249", "Theorem 2, corollaries 1 and 2"),
    statement=(
        "The variance of the output's change under a random perturbation of the parameters is "
        "O(N) under Post-LN, N the number of sublayers, and O(ln N) under Pre-LN and with Admin. "
        f"Taken here as rates: log-log slopes 1 and {LOG:.2f}."
    ),
    setting=f"{NARROW_SETTING}; noise of {NOISE:g} times their root mean square on value and "
    f"feed-forward weights, {DRAWS} draws per seed; L = {DEPTHS[0]} to {DEPTHS[-1]}",
    distance="same",
    predictions=[
        law(f"post_ln: {SLOPE}", "1, within 0.25", 0.75, 1.25),
        law(f"pre_ln: {SLOPE}", f"{LOG:.2f}, within 0.15", LOG - 0.15, LOG + 0.15),
        law(f"admin: {SLOPE}", f"{LOG:.2f}, within 0.15", LOG - 0.15, LOG + 0.15),
        control(law(f"no_norm: {SLOPE}", "without norms it multiplies: above 1.25", low=1.25)),
    ],
    axes=AxisLabels("mean squared change of the output", "blocks L", log_x=True, log_y=True),
    guides=[power("linear", 1.0, "post_ln"), power(f"ln N: slope {LOG:.2f}", LOG, "pre_ln")],
    meaning="The same noise of optimisation costs a deep Post-LN model more than a deep Pre-LN "
    "model.",
    remark="Before, which of a + b N and a + b ln N fits five noisy points better was judged, in a "
    "GPT with noise on all matrices, and was undecided. Tried since: "
    "networks of width 64, whose slopes under Post-LN differ with a standard deviation of 0.4.",
)
def output_change(lab: Lab, seed: int) -> Evidence:
    """E |F(x, W + e) - F(x, W)|^2 per element."""

    @torch.no_grad()
    def change(placement: str, depth: int) -> float:
        model, tokens, _ = in_xiongs_setting(lab, placement, seed, depth, f"model.emb_dim={NARROW}")
        model.profile(tokens)
        before = output_of(model, tokens)
        weights = branch_weights(model, "value", "up", "down")
        kept = [weight.clone() for weight in weights]
        total = 0.0
        for _ in range(DRAWS):
            for weight, at_first in zip(weights, kept, strict=True):
                size = NOISE * at_first.square().mean().sqrt()
                weight.copy_(at_first + size * torch.randn_like(weight))
            total += (output_of(model, tokens) - before).square().mean().item() / DRAWS
        return total

    evidence = Evidence()
    for placement in ("post_ln", "pre_ln", "admin", "no_norm"):
        depths = DEPTHS[:2] if placement == "no_norm" else DEPTHS
        changes = [change(placement, depth) for depth in depths]
        evidence.values[f"{placement}: {SLOPE}"] = slope(depths, changes)
        if placement != "no_norm":
            evidence.curve(placement, depths, changes)
    return evidence


STEP = 1e-6


def change_by_step(
    lab: Lab, settings: Settings, seed: int, depth: int, step: Callable[[GPT], None]
) -> float:
    """RMS change of what the head reads, on the batch that the step was made on."""
    model = lab.model(settings, seed, depth)
    tokens, targets = lab.text_batch(settings, seed, WINDOWS)
    model.profile(tokens)
    before = output_of(model, tokens)
    language_model_loss(model, tokens, targets, "float64").backward()
    step(model)
    return (output_of(model, tokens) - before).square().mean().sqrt().item()


def add_slopes(
    evidence: Evidence,
    lab: Lab,
    seed: int,
    step: Callable[[GPT], None],
    arms: Mapping[str, Sequence[str]],
    depths: Sequence[int] = DEPTHS,
) -> None:
    """The change of the output under a step against depth, per arm."""
    for arm, overrides in arms.items():
        settings = micro(lab, *overrides)
        changes = [change_by_step(lab, settings, seed, depth, step) for depth in depths]
        evidence.curve(arm, depths, changes)
        evidence.values[f"{arm}: {SLOPE}"] = slope(depths, changes)


@torch.no_grad()
def sgd_step(model: GPT) -> None:
    """W - eta dL/dW, of the matrices of all blocks but those of queries and keys."""
    kept = [weight.clone() for weight in branch_weights(model, "query", "key")]
    for block in model.blocks:
        for matrix in (p for p in block.parameters() if p.ndim == 2):
            assert matrix.grad is not None
            matrix.sub_(STEP * matrix.grad)
    for weight, at_first in zip(branch_weights(model, "query", "key"), kept, strict=True):
        weight.copy_(at_first)


@claim(
    "model_update",
    block=THEOREM,
    title="DeepNorm bounds how far a step of SGD moves the output, whatever the depth",
    source=Source("Wang et al. 2022 (DeepNet)", "2203.00555", "Theorem 4.2; section 4.3"),
    statement=(
        "A step of SGD changes the model's output by an amount that grows with depth under "
        "Post-LN and is bounded, whatever the depth, with DeepNorm."
    ),
    setting=f"{MICRO_SETTING}, Xavier, with DeepNorm's gain where it is; one step of SGD of the "
    f"value, output and feed-forward weights at a rate of {STEP:g}, at which the change is linear; "
    f"root mean square change of what the head reads; L = {DEPTHS[0]} to {DEPTHS[-1]}, of "
    f"the arms that are not judged {ENDS[0]} and {ENDS[1]}",
    distance="scaled down",
    predictions=[
        law(f"deepnorm: {SLOPE}", "bounded: at most 0.1", high=0.1),
        sign(f"post_ln: {SLOPE}", "grows: above 0.1", 0.1),
        control(sign(f"pre_ln: {SLOPE}", "nothing bounds it: above 0.1", 0.1)),
        shown(f"admin: {SLOPE}"),
        shown(f"post_ln, init=deepnorm: {SLOPE}", "the gain alone"),
        shown(f"deepnorm, init=xavier: {SLOPE}", "the shortcut's scale alone"),
    ],
    axes=AxisLabels("change of the output (RMS)", "blocks L", log_x=True, log_y=True),
    guides=[power("bounded", 0.0, "deepnorm")],
    meaning="The bound needs both parts of DeepNorm, the scale of the shortcut and the smaller "
    "initialisation. Training does not need the bound: Pre-LN and Admin train without.",
    remark="Before, one claim held this theorem and the paper's Figure 5, which is now "
    "model_update_adam, and nothing that must not be bounded stood beside it.",
)
def model_update(lab: Lab, seed: int) -> Evidence:
    """RMS of F(x, W - eta dL/dW) - F(x, W)."""
    evidence = Evidence()
    judged = {"deepnorm": ("norm=deepnorm",), "post_ln": ("norm=post_ln", "init=xavier")}
    others = {
        "pre_ln": ("norm=pre_ln", "init=xavier"),
        "admin": ("norm=admin", "init=xavier"),
        "post_ln, init=deepnorm": ("norm=post_ln", "init=deepnorm"),
        "deepnorm, init=xavier": ("norm=deepnorm", "init=xavier"),
    }
    add_slopes(evidence, lab, seed, sgd_step, judged)
    add_slopes(evidence, lab, seed, sgd_step, others, ENDS)
    return evidence
