"""Theorems, in the settings in which their papers prove them."""

import torch
import torch.nn.functional as F

from experiments.claims.claim import (
    THEOREM,
    AxisLabels,
    Evidence,
    Source,
    band,
    claim,
    control,
    law,
    level,
    power,
    shown,
    sign,
    slope,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    DEEP,
    DEPTHS,
    SEQUENCES,
    XIONG_SETTING,
    ff_weights,
    in_xiongs_setting,
    outputs,
)

XIONG_2020 = "Xiong et al. 2020", "2002.04745"


@claim(
    "depth_law",
    block=THEOREM,
    title="Under Pre-LN the last gradient falls as one over the root of the depth; under Post-LN "
    "it does not fall",
    source=Source(*XIONG_2020, "Theorem 1, section 3.3; Figure 3 (c, d)"),
    statement=(
        "At initialisation the gradient of the last block's second feed-forward weight is at most "
        "O(d sqrt(ln d)) under Post-LN, whatever the number of blocks L, and O(d sqrt(ln d / L)) "
        "under Pre-LN. The bounds are taken here as the rates, log-log slopes 0 and -1/2 in L, as "
        "the paper's figure has them."
    ),
    setting=f"{XIONG_SETTING}; one gradient per sequence; L = 2 to 32",
    distance="same",
    predictions=[
        law("post_ln: slope in L", "0, within 0.05", -0.05, 0.05),
        law("pre_ln: slope in L", "minus 1/2, within 0.05", -0.55, -0.45),
        control(sign("no_norm: slope in L", "without norms it grows, faster than L", 1.0)),
        shown("post_ln: slope of the mean gradient's norm"),
        shown("pre_ln: slope of the mean gradient's norm"),
    ],
    axes=AxisLabels("gradient norm of W_2 in the last block", "blocks L", log_x=True, log_y=True),
    guides=[
        power("Theorem 1: slope 0", 0.0, "post_ln"),
        power("Theorem 1: slope -1/2", -0.5, "pre_ln"),
    ],
    meaning="A Post-LN model's last blocks get full-sized gradients at any depth: the step that "
    "the learning rate allows there is the smaller, and warm-up is how it is reached safely.",
    remark="Tried before on other seeds: one gradient of 8 or 16 sequences together, with as many "
    "classes as tokens, gives +0.09 to +0.12 under Post-LN and -0.45 under Pre-LN; width 128 "
    "gives -0.51 to -0.54 under Pre-LN.",
)
def depth_law(lab: Lab, seed: int) -> Evidence:
    """Slope over all depths of the mean over sequences of the gradient's norm.

    For comparison, the norm of the mean gradient, which is another statistic.
    """
    evidence = Evidence()
    for placement in ("post_ln", "pre_ln", "no_norm"):
        norms, means = [], []
        for depth in DEPTHS:
            model, tokens, targets = in_xiongs_setting(lab, placement, seed, depth)
            logits = model(tokens)
            grads = [
                torch.autograd.grad(
                    F.cross_entropy(logits[i], targets[i]),
                    ff_weights(model)[-1],
                    retain_graph=True,
                )[0]
                for i in range(SEQUENCES)
            ]
            norms.append(sum(grad.norm().item() for grad in grads) / SEQUENCES)
            means.append(torch.stack(grads).mean(0).norm().item())
        evidence.values[f"{placement}: slope in L"] = slope(DEPTHS, norms)
        if placement == "no_norm":
            continue
        evidence.curve(placement, DEPTHS, norms)
        evidence.values[f"{placement}: slope of the mean gradient's norm"] = slope(DEPTHS, means)
    return evidence


@claim(
    "hidden_norm",
    block=THEOREM,
    title="The stream's squared norm is 3d/2 under Post-LN and grows with depth under Pre-LN",
    source=Source(*XIONG_2020, "Lemma 2, section 3.3"),
    statement=(
        "At initialisation the expected squared norm before a block's last norm is 3d/2 under "
        "Post-LN; after block l it lies between (1 + l/2) d and (1 + 3l/2) d under Pre-LN."
    ),
    setting=f"{XIONG_SETTING}; L = {DEEP}",
    distance="same",
    predictions=[
        law("post_ln: squared norm / d, mean over blocks", "3/2, within 5 %", 1.425, 1.575),
        *(
            law(
                f"pre_ln: squared norm / d after block {block}",
                f"{1 + block / 2:g} to {1 + 1.5 * block:g}",
                1 + block / 2,
                1 + 1.5 * block,
            )
            for block in (4, 8, 16, 32)
        ),
    ],
    axes=AxisLabels("squared norm / d", "block l"),
    guides=[
        level("Lemma 2, Post-LN: 3/2", 1.5),
        band("Lemma 2, Pre-LN", lambda block: 1 + block / 2, lambda block: 1 + 1.5 * block),
    ],
    meaning="Under Pre-LN every block adds to a stream that grows, so that later blocks change it "
    "less and less.",
    remark="An identity of the setting rather than a finding: it checks that the setting is the "
    "paper's.",
)
@torch.no_grad()
def hidden_norm(lab: Lab, seed: int) -> Evidence:
    """Mean over sequences and positions; that of the input is 1 in expectation."""
    evidence = Evidence()
    for placement in ("post_ln", "pre_ln"):
        model, tokens, _ = in_xiongs_setting(lab, placement, seed, DEEP)
        with outputs([block.add_2 for block in model.blocks]) as sums:
            model(tokens)
        squares = [x.square().mean().item() for x in sums]
        evidence.curve(placement, range(1, DEEP + 1), squares)
        if placement == "post_ln":
            mean = sum(squares) / len(squares)
            evidence.values["post_ln: squared norm / d, mean over blocks"] = mean
            continue
        for block in (4, 8, 16, 32):
            name = f"pre_ln: squared norm / d after block {block}"
            evidence.values[name] = squares[block - 1]
    return evidence
