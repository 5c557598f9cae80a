"""Theorems about the variance of the stream, and about what a norm on the output bounds."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.claims.claim import (
    THEOREM,
    AxisLabels,
    Evidence,
    Guide,
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
    DEEP,
    NARROW,
    NARROW_SETTING,
    grad_norm,
    in_xiongs_setting,
    variances,
)
from experiments.training.loss import language_model_loss

SETTING = f"{NARROW_SETTING}; L = {DEEP}. The papers' own measurements are of training"
CURSE = "Sun et al. 2025 (The Curse of Depth)", "2502.05795"
PERI_LN = "Kim et al. 2025 (Peri-LN)", "2502.02732"
AXES = AxisLabels("variance of the stream after the block", "block l", log_x=True, log_y=True)
GROWTH = "exponent of growth"
LAYERS = range(1, DEEP + 1)
# The claims are of Peri-LN's blocks; the norm on the embeddings is optional there.
OPTIONS = {"peri_ln": ("norm.options.embedding_norm=false",)}


def measured(lab: Lab, seed: int, *placements: str) -> tuple[Evidence, dict[str, list[float]]]:
    """Variance over all elements of the stream after each block, also as evidence."""
    evidence, by_arm = Evidence(), dict[str, list[float]]()
    for placement in placements:
        overrides = (f"model.emb_dim={NARROW}", *OPTIONS.get(placement, ()))
        model, tokens, _ = in_xiongs_setting(lab, placement, seed, DEEP, *overrides)
        by_arm[placement] = variances(model, tokens)
        evidence.curve(placement, LAYERS, by_arm[placement])
    return evidence, by_arm


def growth(measured_variances: list[float]) -> float:
    """Slope of ln(variance - 1), what exceeds the input's, in ln l over blocks 4 to 32."""
    return slope(LAYERS[3:], [variance - 1 for variance in measured_variances[3:]])


@claim(
    "variance_pre_ln",
    block=THEOREM,
    title="Under Pre-LN the stream's variance grows at least linearly with depth",
    source=Source(*CURSE, "Lemma 3.2"),
    statement="The variance of the stream grows with the block under Pre-LN, at least linearly.",
    setting=SETTING,
    distance="same",
    predictions=[
        law(f"pre_ln: {GROWTH}", "at least 1, less 0.1", low=0.9),
        control(law(f"ln_scaling: {GROWTH}", "branches that shrink do not: below 0.9", high=0.9)),
    ],
    axes=AXES,
    guides=[power("linear", 1.0, "pre_ln")],
    meaning="The later a block, the less it changes a stream that has become large.",
)
def variance_pre_ln(lab: Lab, seed: int) -> Evidence:
    """Exponent of growth, as `growth`."""
    evidence, by_arm = measured(lab, seed, "pre_ln", "ln_scaling")
    evidence.values |= {f"{arm}: {GROWTH}": growth(found) for arm, found in by_arm.items()}
    return evidence


@claim(
    "variance_ln_scaling",
    block=THEOREM,
    title="LayerNorm Scaling keeps the stream's variance far below Pre-LN's",
    source=Source(*CURSE, "section 4; Lemma 4.1"),
    statement=(
        "Norms scaled by 1/sqrt(l) make the variance of the stream grow far less than under Pre-LN."
    ),
    setting=SETTING,
    distance="same",
    predictions=[
        sign("ln(pre_ln / ln_scaling), last block", "more than twice as large: ln 2", math.log(2)),
        control(sign("ln(pre_ln / post_ln), last block", "a norm on the stream does", math.log(2))),
    ],
    axes=AXES,
    meaning="One number per block keeps late blocks as effective as early ones.",
)
def variance_ln_scaling(lab: Lab, seed: int) -> Evidence:
    """Ratios of the variances after the last block."""
    evidence, by_arm = measured(lab, seed, "pre_ln", "ln_scaling", "post_ln")
    for arm in ("ln_scaling", "post_ln"):
        ratio = math.log(by_arm["pre_ln"][-1] / by_arm[arm][-1])
        evidence.values[f"ln(pre_ln / {arm}), last block"] = ratio
    return evidence


@claim(
    "variance_lower_bound",
    block=THEOREM,
    title="With LayerNorm Scaling, too, the stream's variance grows at least linearly",
    source=Source(*CURSE, "Lemma 4.1, lower bound"),
    statement=(
        "With norms scaled by 1/sqrt(l) the variance of the stream is bounded from below by one "
        "that grows linearly with l."
    ),
    setting=SETTING,
    distance="same",
    predictions=[
        law(f"ln_scaling: {GROWTH}", "at least 1, less 0.1", low=0.9),
        control(law(f"pre_ln: {GROWTH}", "at least 1, less 0.1", low=0.9)),
        shown("ln_scaling: variance per ln l", "1 + c ln l: its slope c"),
    ],
    axes=AXES,
    guides=[
        power("the lower bound", 1.0, "ln_scaling"),
        Guide(
            "1 + c (1 + ln l)",
            lambda x, _, y_0: 1 + (y_0 - 1) * (1 + math.log(x)),
            arm="ln_scaling",
        ),
    ],
    remark="The paper's own Assumption 3.1 gives another law: with a covariance of zero each block "
    "adds c / l, and the variance is 1 + c ln L.",
)
def variance_lower_bound(lab: Lab, seed: int) -> Evidence:
    """Exponents of growth, as `growth`, and the least-squares slope of the variance in ln l."""
    evidence, by_arm = measured(lab, seed, "ln_scaling", "pre_ln")
    for arm, of_arm in by_arm.items():
        evidence.values[f"{arm}: {GROWTH}"] = growth(of_arm)
    per_log = np.polyfit(np.log(LAYERS), by_arm["ln_scaling"], 1)[0]
    evidence.values["ln_scaling: variance per ln l"] = float(per_log)
    return evidence


@claim(
    "variance_peri_ln",
    block=THEOREM,
    title="With a norm on each branch's output the stream's variance grows linearly",
    source=Source(*PERI_LN, "equation 4, as quoted elsewhere", read="secondary source"),
    statement=(
        "A norm on a branch's output adds a nearly constant variance, so that the stream's grows "
        "linearly with depth."
    ),
    setting=SETTING,
    distance="same",
    predictions=[
        law(f"peri_ln: {GROWTH}", "1, within 0.1", 0.9, 1.1),
        control(law(f"ln_scaling: {GROWTH}", "branches that shrink do not: below 0.9", high=0.9)),
    ],
    axes=AXES,
    guides=[power("linear", 1.0, "peri_ln")],
    remark="At initialisation that is more than under Pre-LN, not less; the paper speaks of "
    "training, in which Pre-LN's variance grows.",
)
def variance_peri_ln(lab: Lab, seed: int) -> Evidence:
    """Exponents of growth, as `growth`."""
    evidence, by_arm = measured(lab, seed, "peri_ln", "ln_scaling")
    for arm, of_arm in by_arm.items():
        evidence.values[f"{arm}: {GROWTH}"] = growth(of_arm)
    return evidence


SCALES = (1, 10, 100, 1000)
SCALED = "slope of W_2's gradient in the hidden layer's size"


@claim(
    "peri_ln_bound",
    block=THEOREM,
    title="A norm on a branch's output keeps its gradient from growing with its hidden layer",
    source=Source(*PERI_LN, "Proposition 3.1, equation 8, as quoted elsewhere", "secondary source"),
    statement=(
        "Given the gradient behind a feed-forward sublayer with hidden layer h and output a, that "
        "of its second weight is proportional to |h| under Pre-LN, and at most a constant times "
        "|h| / |a| under Peri-LN, which does not grow with h."
    ),
    setting="the feed-forward sublayer of one block in Xiong's setting, d = 64; Gaussian inputs; "
    "its first weight times 1 to 1,000, which ReLU passes on to h; loss linear in the output",
    distance="same",
    predictions=[
        law(f"pre_ln: {SCALED}", "1, within 0.1", 0.9, 1.1),
        law(f"peri_ln: {SCALED}", "does not grow: at most 0.1", high=0.1),
        control(law(f"no_norm: {SCALED}", "1, within 0.1", 0.9, 1.1)),
        shown(f"pre_ln, in a network of 4 blocks: {SCALED}"),
        shown(f"peri_ln, in a network of 4 blocks: {SCALED}"),
    ],
    axes=AxisLabels("gradient norm of W_2", "factor of the hidden layer", log_x=True, log_y=True),
    guides=[power("proportional to |h|", 1.0, "pre_ln")],
    remark="Given the gradient behind the sublayer this is an identity. In a whole network the "
    "final norm of Pre-LN divides that gradient by the stream's size, so that it hardly grows.",
)
def peri_ln_bound(lab: Lab, seed: int) -> Evidence:
    """Least-squares slope in the factor."""
    evidence = Evidence()
    for placement in ("pre_ln", "peri_ln", "no_norm"):
        alone = [scaled_gradient(lab, placement, seed, scale, whole=False) for scale in SCALES]
        evidence.curve(placement, SCALES, alone)
        evidence.values[f"{placement}: {SCALED}"] = slope(SCALES, alone)
        if placement != "no_norm":
            whole = [scaled_gradient(lab, placement, seed, scale, whole=True) for scale in SCALES]
            name = f"{placement}, in a network of 4 blocks: {SCALED}"
            evidence.values[name] = slope(SCALES, whole)
    return evidence


def scaled_gradient(lab: Lab, placement: str, seed: int, scale: float, whole: bool) -> float:
    """Gradient norm of W_2 in the last block, whose W_1 is multiplied by `scale`.

    whole  whether the loss is the network's, or linear in what the block gives
    """
    overrides = ("model.emb_dim=64", *OPTIONS.get(placement, ()))
    model, tokens, targets = in_xiongs_setting(lab, placement, seed, 4, *overrides)
    block: Any = model.blocks[-1]
    with torch.no_grad():
        block.feed_forward.fc_in.weight *= scale
    weight: Tensor = block.feed_forward.fc_out.weight
    if whole:
        loss = language_model_loss(model, tokens, targets, "float64")
    else:
        x = model.token_embedding(tokens)
        loss = (block(x) * torch.randn_like(x)).sum()
    return grad_norm(loss, weight)
