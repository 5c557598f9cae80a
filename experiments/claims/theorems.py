"""Theorems about gradients and streams, in the settings in which their papers prove them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from experiments.claims.claim import (
    OWN,
    THEOREM,
    UNREAD,
    AxisLabels,
    Evidence,
    Point,
    Source,
    band,
    claim,
    control,
    law,
    level,
    log_slope,
    power,
    shown,
    sign,
    slope,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    DEEP,
    DEPTHS,
    NARROW,
    NARROW_SETTING,
    SHALLOW,
    XIONG_SETTING,
    in_xiongs_setting,
    mean_norms,
    micro,
    outputs,
    sequence_grads,
    variances,
)
from gpt import GPT, DeepShortcutNet
from gpt.shortcut import mean_abs_gradients

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
    setting=f"{XIONG_SETTING}; one gradient per sequence; L = 2 to 32, of no_norm to 8",
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
    """Slope of the mean over sequences of the gradient's norm.

    For comparison, the norm of the mean gradient, which is another statistic.
    """
    evidence = Evidence()
    for placement in ("post_ln", "pre_ln", "no_norm"):
        depths = SHALLOW if placement == "no_norm" else DEPTHS
        norms, means = [], []
        for depth in depths:
            model, tokens, targets = in_xiongs_setting(lab, placement, seed, depth)
            (grads,) = sequence_grads(model, tokens, targets, model.blocks[-1:])
            norms += mean_norms([grads])
            means.append(grads.mean(0).norm().item())
        evidence.values[f"{placement}: slope in L"] = slope(depths, norms)
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
        control(
            law("no_norm: squared norm / d after block 8", "without norms above the bounds", low=13)
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
    squares: dict[str, list[float]] = {}
    for placement, depth in (("post_ln", DEEP), ("pre_ln", DEEP), ("no_norm", 8)):
        model, tokens, _ = in_xiongs_setting(lab, placement, seed, depth)
        with outputs([block.add_2 for block in model.blocks]) as sums:
            model(tokens)
        squares[placement] = [x.square().mean().item() for x in sums]
    for placement in ("post_ln", "pre_ln"):
        evidence.curve(placement, range(1, DEEP + 1), squares[placement])
    mean = sum(squares["post_ln"]) / DEEP
    evidence.values["post_ln: squared norm / d, mean over blocks"] = mean
    for block in (4, 8, 16, 32):
        name = f"pre_ln: squared norm / d after block {block}"
        evidence.values[name] = squares["pre_ln"][block - 1]
    evidence.values["no_norm: squared norm / d after block 8"] = squares["no_norm"][-1]
    return evidence


WIDTHS = (32, 64, 128)


@claim(
    "width_law",
    block=THEOREM,
    title="The last gradient grows with the width, and its fall with depth does not depend on it",
    source=Source(*XIONG_2020, "Theorem 1, section 3.3"),
    statement=(
        "The bounds of Theorem 1, O(d sqrt(ln d)) under Post-LN and O(d sqrt(ln d / L)) under "
        "Pre-LN, are products: d sqrt(ln d), whose log-log slope at these widths is 1.12, times a "
        "function of L alone. Taken here as the rates."
    ),
    setting=f"{XIONG_SETTING.replace('d = 256', 'd = 32 to 128')}; one gradient per sequence; "
    "slopes in d at L = 8, in L over 2, 8 and 32",
    distance="same",
    predictions=[
        law("post_ln: slope in d", "1.12, or 1 without the logarithm, within 0.15", 0.85, 1.27),
        law("pre_ln: slope in d", "1.12, or 1 without the logarithm, within 0.15", 0.85, 1.27),
        law("post_ln: slope in L, widest less narrowest", "0, within 0.1", -0.1, 0.1),
        law("pre_ln: slope in L, widest less narrowest", "0, within 0.1", -0.1, 0.1),
        control(sign("no_norm: slope in L, narrowest", "without norms it grows, faster than L", 1)),
    ],
    axes=AxisLabels("gradient norm of W_2 in the last block", "width d", log_x=True, log_y=True),
    guides=[power("Theorem 1: slope 1", 1.0, "post_ln")],
    meaning="What is measured of a placement's gradients in a narrow model holds, up to a factor, "
    "in a wide one.",
)
def width_law(lab: Lab, seed: int) -> Evidence:
    """Mean over sequences of the gradient's norm, as in depth_law."""
    evidence = Evidence()

    def last(placement: str, width: int, depth: int) -> float:
        narrower = f"model.emb_dim={width}"
        model, tokens, targets = in_xiongs_setting(lab, placement, seed, depth, narrower)
        return mean_norms(sequence_grads(model, tokens, targets, model.blocks[-1:]))[0]

    for placement in ("post_ln", "pre_ln"):
        at_8 = [last(placement, width, 8) for width in WIDTHS]
        evidence.curve(placement, WIDTHS, at_8)
        evidence.values[f"{placement}: slope in d"] = slope(WIDTHS, at_8)
        narrow, wide = (
            slope((2, 8, 32), [last(placement, width, 2), norm, last(placement, width, 32)])
            for width, norm in ((WIDTHS[0], at_8[0]), (WIDTHS[-1], at_8[-1]))
        )
        evidence.values[f"{placement}: slope in L, widest less narrowest"] = wide - narrow
    without = [last("no_norm", WIDTHS[0], depth) for depth in SHALLOW]
    evidence.values["no_norm: slope in L, narrowest"] = slope(SHALLOW, without)
    return evidence


@contextmanager
def branches_cut(model: GPT) -> Iterator[None]:
    """Within: branches pass no gradient to their input, so that it flows by shortcuts alone."""

    def cut(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        return tuple(x.detach() for x in inputs)

    branches = [part for block in model.blocks for part in (block.attention, block.feed_forward)]
    handles = [branch.register_forward_pre_hook(cut) for branch in branches]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


DECAY = math.log(1.5) / 2  # of ln(norm) per block, by the appendix
LAYERS = range(1, DEEP + 1)


def gradients_by_layer(lab: Lab, placement: str, seed: int) -> tuple[list[float], list[float]]:
    """Of each block of a narrow, deep model: gradient norm of W_2, and the stream's variance."""
    model, tokens, targets = in_xiongs_setting(
        lab, placement, seed, DEEP, f"model.emb_dim={NARROW}"
    )
    grads = sequence_grads(model, tokens, targets, model.blocks)
    return mean_norms(grads), variances(model, tokens)


def shortcuts_alone(lab: Lab, seed: int) -> list[float]:
    """As `gradients_by_layer`, under Post-LN with the branches cut."""
    model, tokens, targets = in_xiongs_setting(
        lab, "post_ln", seed, DEEP, f"model.emb_dim={NARROW}"
    )
    with branches_cut(model):
        return mean_norms(sequence_grads(model, tokens, targets, model.blocks))


@claim(
    "gradient_by_layer",
    block=THEOREM,
    title="Post-LN's gradients decay exponentially towards the first blocks",
    source=Source(*XIONG_2020, "appendix F, which calls it preliminary", read=UNREAD),
    statement=(
        "Under Post-LN the gradient of W^{2,l} contains a term O((2/3)^((L - l)/2)) and is likely "
        "to decay exponentially towards the first blocks; under Pre-LN it does not depend on l "
        "where l is large."
    ),
    setting=f"{NARROW_SETTING}; one gradient per sequence; L = {DEEP}",
    distance="same",
    predictions=[
        law("post_ln: rise of ln(norm) per block", "at least half of ln(3/2) / 2", low=DECAY / 2),
        law("pre_ln: exponent in l over the second half", "0, within 0.1", -0.1, 0.1),
        control(
            law("post_ln, branches cut: rise of ln(norm) per block", "as post_ln", low=DECAY / 2)
        ),
    ],
    axes=AxisLabels("gradient norm of W_2", "block l", log_y=True),
    remark="The appendix counts the factor sqrt(2/3) of a block's last norm alone. Where the "
    "branches are cut the gradient does decay, by the factors of both norms of a block; what the "
    "branches give back is the subject of homogeneous_branch.",
)
def gradient_by_layer(lab: Lab, seed: int) -> Evidence:
    """Least-squares slopes of ln(norm) in l, or in ln l; the norm is a mean over sequences."""
    evidence = Evidence()
    arms = {
        placement: gradients_by_layer(lab, placement, seed)[0]
        for placement in ("post_ln", "pre_ln")
    }
    arms["post_ln, branches cut"] = shortcuts_alone(lab, seed)
    for arm, norms in arms.items():
        evidence.curve(arm, LAYERS, norms)
        if arm != "pre_ln":
            evidence.values[f"{arm}: rise of ln(norm) per block"] = log_slope(LAYERS, norms)
    late = slope(LAYERS[DEEP // 2 :], arms["pre_ln"][DEEP // 2 :])
    evidence.values["pre_ln: exponent in l over the second half"] = late
    return evidence


@claim(
    "homogeneous_branch",
    block=THEOREM,
    title="A branch gives back to the gradient what its norm takes",
    source=OWN,
    statement=(
        "A branch f of degree 1 whose output has q times its input's variance passes back q times "
        "the squared gradient. So x + f passes back 1 + q, and the norm behind it divides by that: "
        "under Post-LN the gradient does not depend on l. Behind a norm a branch is of degree 0: "
        "under Pre-LN the gradient falls with l as one over the root of the stream's variance, as "
        "it does by the moments of Kedia et al. 2024 (arXiv 2403.09635)."
    ),
    setting=f"{NARROW_SETTING}; one gradient per sequence; L = {DEEP}; exponents over blocks 4 to "
    f"{DEEP}",
    distance="same",
    predictions=[
        law("post_ln: rise of ln(norm) per block", "0, within 0.02", -0.02, 0.02),
        law(
            "pre_ln: exponent of the gradient plus half the variance's",
            "0, within 0.1",
            -0.1,
            0.1,
        ),
        control(law("post_ln, branches cut: rise of ln(norm) per block", "decays", low=DECAY / 2)),
    ],
    axes=AxisLabels("gradient norm of W_2", "block l", log_y=True),
    meaning="Norms on the shortcut do not by themselves make gradients vanish; a branch that reads "
    "something else than the stream, as cross-attention does, takes the compensation away.",
    remark="NormFormer's observation that Pre-LN's first gradients are larger than its last is the "
    "same effect.",
)
def homogeneous_branch(lab: Lab, seed: int) -> Evidence:
    """Mean over sequences of the gradient's norm."""
    evidence = Evidence()
    post, _ = gradients_by_layer(lab, "post_ln", seed)
    pre, stream = gradients_by_layer(lab, "pre_ln", seed)
    arms = {"post_ln": post, "pre_ln": pre, "post_ln, branches cut": shortcuts_alone(lab, seed)}
    for arm, norms in arms.items():
        evidence.curve(arm, LAYERS, norms)
        if arm != "pre_ln":
            evidence.values[f"{arm}: rise of ln(norm) per block"] = log_slope(LAYERS, norms)
    # Behind block l the squared gradient is passed through 1 + q of all later ones, whose product
    # is the stream's variance at the end over that after block l.
    exponents = slope(LAYERS[3:], pre[3:]), slope(LAYERS[3:], stream[3:])
    name = "pre_ln: exponent of the gradient plus half the variance's"
    evidence.values[name] = exponents[0] + exponents[1] / 2
    return evidence


@claim(
    "pre_rms_norm",
    block=THEOREM,
    title="A Pre-LN model is a Pre-RMSNorm model once what enters the stream is centred",
    source=Source("Jiang et al. 2023", "2305.14858", "abstract", read="abstract"),
    statement=(
        "A Pre-LN Transformer whose embeddings and branches are recentred gives the same outputs "
        "with RMSNorm in the place of LayerNorm."
    ),
    setting="GPT of width 64, 4 heads, GELU, 6 blocks, Xavier; 2 windows of 64 random tokens; "
    "float64; the largest difference of logits over the largest logit",
    distance="same",
    predictions=[
        law("centred: log10 of the largest relative difference", "at most 1e-10", high=-10.0),
        control(
            law("not centred: log10 of the largest relative difference", "above 1e-6", low=-6.0)
        ),
    ],
    axes=AxisLabels("log10 of the largest relative difference"),
    meaning="LayerNorm's centring costs time and does nothing that the weights could not do.",
)
@torch.no_grad()
def pre_rms_norm(lab: Lab, seed: int) -> Evidence:
    """Centred is what writes into the stream: each column of a matrix, and each bias."""
    evidence = Evidence()
    settings = micro(lab, "norm=pre_ln", "init=xavier")
    rms = micro(lab, "norm=pre_ln", "init=xavier", "norm.kind=rms_norm")
    tokens, _ = lab.random_batch(settings, seed, 2)
    before = lab.model(settings, seed, 6)(tokens)
    for arm in ("not centred", "centred"):
        model = lab.model(rms, seed, 6)  # norms draw nothing: its weights are the same
        if arm == "centred":
            centre_stream(model)
        difference = (model(tokens) - before).abs().max() / before.abs().max()
        log = math.log10(difference.item())
        evidence.points.append(Point(arm, math.nan, log))
        evidence.values[f"{arm}: log10 of the largest relative difference"] = log
    return evidence


def centre_stream(model: GPT) -> None:
    """Subtract from what enters the stream its mean over the features."""
    embeddings = (model.token_embedding.weight, *model.position_embedding.parameters())
    for table in embeddings:
        table.sub_(table.mean(1, keepdim=True))
    for block in model.blocks:
        for layer in (block.attention.out_proj, block.feed_forward.fc_out):
            for parameter in layer.parameters():
                parameter.sub_(parameter.mean(0))


NETWORKS = 20  # per seed: networks of width 3 differ much
BOOK_DEPTHS = (2, 3, 4, 5, 6)
FALL = "change of ln(gradient of the first layer) per layer"


@claim(
    "shortcut",
    block=THEOREM,
    title="Without shortcuts the first layer's gradient vanishes with depth; with them it does not",
    source=Source("Raschka, Build a Large Language Model (From Scratch)", "", "chapter 4"),
    statement=(
        "Without shortcuts the gradients of the first layers vanish with depth; with them they "
        "do not."
    ),
    setting=f"the book's network (Linear then GELU, width 3, one output) with 2 to 6 layers, input "
    f"(1, 0, -1), PyTorch's initialisation; {NETWORKS} networks per seed; float64; mean absolute "
    "gradient. A fall under 0.1 a layer counts as none",
    distance="same",
    predictions=[
        law(f"without: {FALL}", "falls: below -0.1", high=-0.1),
        law(f"with: {FALL}", "does not: above -0.1", low=-0.1),
        control(law(f"without, weights halved: {FALL}", "falls: below -0.1", high=-0.1)),
    ],
    axes=AxisLabels("mean |gradient| of the first layer", "layers", log_y=True),
    meaning="What a shortcut does to a gradient shows in the smallest network.",
    remark="Before, 'not below 0' put the boundary where the value may lie, and was undecided. To "
    "6 layers: with 8, the output's GELU can saturate, and its gradient is exactly 0. He et al. "
    "2015, who introduced shortcuts, did not say that gradients vanish without.",
)
def shortcut(lab: Lab, seed: int) -> Evidence:
    """Means over networks, of ln(gradient) for the figure."""
    evidence = Evidence()
    arms = {"with": (True, 1.0), "without": (False, 1.0), "without, weights halved": (False, 0.5)}
    for arm, (on, scale) in arms.items():
        seeds = range(NETWORKS * seed, NETWORKS * (seed + 1))
        logs = torch.tensor(
            [[first_gradient(s, depth, on, scale) for depth in BOOK_DEPTHS] for s in seeds]
        )
        means = logs.log().mean(0).exp().tolist()
        evidence.curve(arm, BOOK_DEPTHS, means)
        evidence.values[f"{arm}: {FALL}"] = log_slope(BOOK_DEPTHS, means)
    return evidence


def first_gradient(seed: int, depth: int, on: bool, scale: float) -> float:
    """Mean absolute gradient of the first layer of a network with `depth` layers and the output."""
    torch.manual_seed(seed)
    net = DeepShortcutNet((3,) * depth + (1,), shortcut=on).double()
    with torch.no_grad():
        for layer in net.layers:
            layer.weight *= scale
    x = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    return mean_abs_gradients(net, x)[0]
