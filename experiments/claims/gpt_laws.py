"""The laws of the theorems, and others, asked of this project's own GPT at initialisation."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.claims.claim import (
    GPT_LAW,
    OWN,
    AxisLabels,
    Evidence,
    Point,
    Source,
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
    MICRO_SETTING,
    SHALLOW,
    block_grad_norms,
    ff_weights,
    grad_norm,
    micro,
    outputs,
    streams,
    text_loss,
)
from experiments.claims.theorems import branches_cut
from experiments.claims.updates import SLOPE, add_slopes
from experiments.settings.schema import Settings
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer
from gpt import GPT

XAVIER_SETTING = f"{MICRO_SETTING}, Xavier"
LAST_GRADIENT = AxisLabels(
    "gradient norm of W_2 in the last block", "blocks L", log_x=True, log_y=True
)


def last_gradient(lab: Lab, settings: Settings, seed: int, depth: int) -> float:
    """Norm of the mean loss's gradient of W_2 in the last block."""
    model, loss = text_loss(lab, settings, seed, depth)
    return grad_norm(loss, ff_weights(model)[-1])


@claim(
    "depth_law_gpt",
    block=GPT_LAW,
    title="In a GPT, too, the last gradient falls as one over the root of the depth under Pre-LN",
    source=Source("Xiong et al. 2020", "2002.04745", "Theorem 1, section 3.3; Figure 3 (c, d)"),
    statement=(
        "The rates of Theorem 1, log-log slopes 0 under Post-LN and -1/2 under Pre-LN, in a model "
        "whose attention is not uniform and whose inputs are text."
    ),
    setting=f"{XAVIER_SETTING}; L = 2 to 32, of no_norm to 8",
    distance="other architecture",
    predictions=[
        law("post_ln: slope in L", "0, within 0.1", -0.1, 0.1),
        law("pre_ln: slope in L", "minus 1/2, within 0.1", -0.6, -0.4),
        control(sign("no_norm: slope in L", "without norms it grows, faster than L", 1.0)),
    ],
    axes=LAST_GRADIENT,
    guides=[
        power("Theorem 1: slope 0", 0.0, "post_ln"),
        power("Theorem 1: slope -1/2", -0.5, "pre_ln"),
    ],
    remark="Tokens of text repeat, so that tokens become alike, and the gradients of the tokens of "
    "a batch add up the more the deeper the model is, under either placement.",
)
def depth_law_gpt(lab: Lab, seed: int) -> Evidence:
    """Slope of the norm of the mean loss's gradient."""
    evidence = Evidence()
    for placement in ("post_ln", "pre_ln", "no_norm"):
        depths = SHALLOW if placement == "no_norm" else DEPTHS
        settings = micro(lab, f"norm={placement}", "init=xavier")
        norms = [last_gradient(lab, settings, seed, depth) for depth in depths]
        evidence.values[f"{placement}: slope in L"] = slope(depths, norms)
        if placement != "no_norm":
            evidence.curve(placement, depths, norms)
    return evidence


BLOCKS = 16
FROM = 4  # the first block of exponents in l: before it the embeddings are not small
LAYERS = range(1, DEEP + 1)
VARIANCE, GRADIENT = "exponent of the variance", "exponent of the squared gradient"


@claim(
    "kedia_moments",
    block=GPT_LAW,
    title="Under Pre-LN the stream's variance grows as l, and its squared gradient falls as L / l",
    source=Source(
        "Kedia et al. 2024", "2403.09635", "vanilla Pre-LN, as quoted elsewhere", "secondary source"
    ),
    statement=(
        "Under Pre-LN the variance of the stream grows in proportion to the block l, and that of "
        "its gradient in proportion to L / l."
    ),
    setting=f"{XAVIER_SETTING}; L = {DEEP}; exponents in l over blocks {FROM} to {DEEP}, the "
    "input's variance subtracted",
    distance="scaled down",
    predictions=[
        law(f"pre_ln: {VARIANCE}", "1, within 0.2", 0.8, 1.2),
        law(f"pre_ln: {GRADIENT}", "minus 1, within 0.2", -1.2, -0.8),
        control(law(f"ln_scaling: {GRADIENT}", "no such fall: above -0.5", low=-0.5)),
    ],
    axes=AxisLabels("squared norm of the stream's gradient", "block l", log_x=True, log_y=True),
    guides=[power("L / l", -1.0, "pre_ln")],
    meaning="Under Pre-LN the first blocks get the largest gradients: clipping by the total norm "
    "is mostly about them.",
)
def kedia_moments(lab: Lab, seed: int) -> Evidence:
    """Squared norm of the mean loss's gradient in the stream after each block."""
    evidence = Evidence()
    late = LAYERS[FROM - 1 :]
    for placement in ("pre_ln", "ln_scaling"):
        settings = micro(lab, f"norm={placement}", "init=xavier")
        model = lab.model(settings, seed, DEEP)
        tokens, targets = lab.text_batch(settings, seed, 2)
        with outputs(model.blocks) as states:
            loss = language_model_loss(model, tokens, targets, "float64")
        squares = [g.square().sum().item() for g in torch.autograd.grad(loss, states)]
        evidence.curve(placement, LAYERS, squares)
        evidence.values[f"{placement}: {GRADIENT}"] = slope(late, squares[FROM - 1 :])
        if placement == "pre_ln":
            added = [x.var(correction=0).item() - input_variance(model, tokens) for x in states]
            evidence.values[f"pre_ln: {VARIANCE}"] = slope(late, added[FROM - 1 :])
    return evidence


def input_variance(model: GPT, tokens: Tensor) -> float:
    """Of what the first block reads."""
    places = torch.arange(tokens.shape[-1])
    return (model.embed(tokens) + model.position_embedding(places)).var(correction=0).item()


@claim(
    "branch_ratio",
    block=GPT_LAW,
    title="Under Pre-LN a branch's share of the stream falls as one over the root of the block",
    source=Source("De and Smith 2020", "2002.10444", "abstract; section 1", "abstract"),
    statement=(
        "A norm on the input of the branches downscales them relative to the shortcut by a factor "
        "of the order of the root of the depth. Of networks with BatchNorm; taken here as the "
        "rate, l^(-1/2)."
    ),
    setting=f"{XAVIER_SETTING}; L = {DEEP}; exponent in l over blocks {FROM} to {DEEP} of RMS of "
    "what the feed-forward adds over RMS of what it is added to",
    distance="other architecture",
    predictions=[
        law("pre_ln: exponent of RMS(f) / RMS(x)", "minus 1/2, within 0.1", -0.6, -0.4),
        control(
            law("post_ln: exponent of RMS(f) / RMS(x)", "no such fall: above -0.25", low=-0.25)
        ),
    ],
    axes=AxisLabels("RMS(f) / RMS(x)", "block l", log_x=True, log_y=True),
    guides=[power("l^(-1/2)", -0.5, "pre_ln")],
    meaning="A deep Pre-LN model starts close to the identity, which is why it trains, and why its "
    "late blocks may stay idle.",
)
@torch.no_grad()
def branch_ratio(lab: Lab, seed: int) -> Evidence:
    """Of the sums of the feed-forward sublayers."""
    evidence = Evidence()
    late = LAYERS[FROM - 1 :]
    for placement in ("pre_ln", "post_ln"):
        settings = micro(lab, f"norm={placement}", "init=xavier")
        model = lab.model(settings, seed, DEEP)
        tokens, _ = lab.text_batch(settings, seed, 2)
        branches = [block.feed_forward for block in model.blocks]
        with outputs(branches) as added, outputs([b.add_2 for b in model.blocks]) as sums:
            model.features(tokens)
        ratios = [rms(f) / rms(h - f) for f, h in zip(added, sums, strict=True)]
        evidence.curve(placement, LAYERS, ratios)
        exponent = slope(late, ratios[FROM - 1 :])
        evidence.values[f"{placement}: exponent of RMS(f) / RMS(x)"] = exponent
    return evidence


def rms(x: Tensor) -> float:
    """Root mean square."""
    return x.square().mean().sqrt().item()


COSINE_RISE = "cosine of the last two blocks less that of the first two"


@claim(
    "adjacent_cosine",
    block=GPT_LAW,
    title="Neighbouring blocks become more alike with depth under Pre-LN, and not under Post-LN",
    source=Source(
        "Liu et al. 2020; Xie et al. 2023 (ResiDual)",
        "2004.08249; 2304.14802",
        "ResiDual: abstract; section 3 as quoted elsewhere",
        "abstract",
    ),
    statement=(
        "Pre-LN suffers from representation collapse: the outputs of neighbouring late blocks are "
        "nearly the same. Post-LN does not."
    ),
    setting=f"{XAVIER_SETTING}; L = {BLOCKS}; mean over tokens of the cosine between the stream "
    "after a block and after the next",
    distance="scaled down",
    predictions=[
        sign(f"pre_ln: {COSINE_RISE}", "rises by more than 0.02", 0.02),
        law(f"post_ln: {COSINE_RISE}", "does not: at most 0.02", high=0.02),
        control(
            sign(f"sandwich: {COSINE_RISE}", "equal branches on a growing stream: rises", 0.02)
        ),
    ],
    axes=AxisLabels("cosine between the stream after a block and the next", "block l"),
    meaning="A late Pre-LN block can often be left out at little cost.",
)
def adjacent_cosine(lab: Lab, seed: int) -> Evidence:
    """Of the streams that `Block.stream` gives."""
    evidence = Evidence()
    for placement in ("pre_ln", "post_ln", "sandwich"):
        settings = micro(lab, f"norm={placement}", "init=xavier")
        model = lab.model(settings, seed, BLOCKS)
        stream = streams(model, lab.text_batch(settings, seed, 2)[0])
        cosines = [F.cosine_similarity(x, y, dim=-1).mean().item() for x, y in pairwise(stream)]
        evidence.curve(placement, range(1, BLOCKS), cosines)
        evidence.values[f"{placement}: {COSINE_RISE}"] = cosines[-1] - cosines[0]
    return evidence


TOKEN_COSINE = f"token cosine after block {BLOCKS}, less the embeddings'"


@claim(
    "rank_collapse",
    block=GPT_LAW,
    title="With depth Post-LN's tokens align, unless the branches are scaled down",
    source=Source(
        "Noci et al. 2022; Dong et al. 2021", "2206.03126; 2103.03404", "Noci: section 1, Figure 1"
    ),
    statement=(
        "Under Post-LN the angle between tokens closes with depth at initialisation, unless the "
        "branches are adequately scaled against the shortcuts. Without shortcuts the rank "
        "collapses doubly exponentially (Dong)."
    ),
    setting=f"{XAVIER_SETTING}; L = {BLOCKS}; mean cosine between the tokens of a window. The "
    "adequate scale is DeepNorm's, with its initialisation",
    distance="scaled down",
    predictions=[
        sign(f"post_ln: {TOKEN_COSINE}", "rises by more than 0.25", 0.25),
        law(f"deepnorm: {TOKEN_COSINE}", "does not: at most 0.25", high=0.25),
        control(sign(f"without shortcuts: {TOKEN_COSINE}", "rises by more than 0.5", 0.5)),
        shown(f"pre_ln: {TOKEN_COSINE}"),
        shown(f"ln_scaling: {TOKEN_COSINE}"),
    ],
    axes=AxisLabels("mean cosine between tokens", "block l"),
    guides=[level("all alike", 1.0)],
    meaning="Tokens that are alike give attention nothing to choose from: deep Post-LN needs a "
    "smaller initialisation, or weighted shortcuts.",
)
def rank_collapse(lab: Lab, seed: int) -> Evidence:
    """Over all pairs of tokens of a window."""
    evidence = Evidence()
    arms = {
        "post_ln": ("norm=post_ln", "init=xavier"),
        "deepnorm": ("norm=deepnorm",),
        "pre_ln": ("norm=pre_ln", "init=xavier"),
        "ln_scaling": ("norm=ln_scaling", "init=xavier"),
        "without shortcuts": ("norm=pre_ln", "init=xavier", "shortcut=false"),
    }
    for arm, overrides in arms.items():
        settings = micro(lab, *overrides)
        model = lab.model(settings, seed, BLOCKS)
        tokens, _ = lab.text_batch(settings, seed, 2)
        with outputs([model.entry]) as entered:
            cosines = [token_cosine(x) for x in streams(model, tokens)]
        evidence.curve(arm, range(1, BLOCKS + 1), cosines)
        evidence.values[f"{arm}: {TOKEN_COSINE}"] = cosines[-1] - token_cosine(entered[0])
    return evidence


def token_cosine(x: Tensor) -> float:
    """Mean cosine between different tokens of a window, of a stream (B, T, emb_dim)."""
    unit = F.normalize(x, dim=-1)
    count = x.shape[1]
    of_pairs = (unit @ unit.transpose(1, 2)).mean().item() * count - 1
    return of_pairs / (count - 1)


# Overrides for the embeddings' size, by their distribution.
SIZES = {"N(0, 1)": "init.embedding_std=1", "N(0, 0.02)": "init.embedding_std=0.02"}


@claim(
    "init_decides",
    block=GPT_LAW,
    title="Small weights and small embeddings together reverse the order of the last gradients",
    source=OWN,
    statement=(
        "Under N(0, 0.02) the last block's gradient is smaller under Post-LN than under Pre-LN, "
        "where under Xavier it is larger; neither the weights nor the embeddings do that alone. "
        "That embeddings of 0.02 enlarge Pre-LN's gradients is Takase et al.'s (Spike No More, "
        "arXiv 2312.16903)."
    ),
    setting=f"{MICRO_SETTING}; L = {BLOCKS}; weights of Xavier or N(0, 0.02), embeddings of tokens "
    "and places N(0, 1) or N(0, 0.02)",
    distance="same",
    predictions=[
        sign("gpt2, N(0, 0.02): ln(pre_ln / post_ln)", "reversed: above 0.1", 0.1),
        law("gpt2, N(0, 1): ln(pre_ln / post_ln)", "not reversed: below 0.1", high=0.1),
        law("xavier, N(0, 0.02): ln(pre_ln / post_ln)", "not reversed: below 0.1", high=0.1),
        control(
            law("xavier, N(0, 1): ln(pre_ln / post_ln)", "by Xiong's theorem below 0.1", high=0.1)
        ),
    ],
    axes=AxisLabels("ln(pre_ln / post_ln) of the last gradient"),
    meaning="GPT-2's initialisation, which most decoders have, is not the one that the theory of "
    "Post-LN's large last gradients is about.",
    remark="Before, the weights alone were named as the cause.",
)
def init_decides(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient of W_2 in the last block."""
    evidence = Evidence()
    for init in ("xavier", "gpt2"):
        for size, override in SIZES.items():
            pre, post = (
                last_gradient(lab, micro(lab, f"norm={p}", f"init={init}", override), seed, BLOCKS)
                for p in ("pre_ln", "post_ln")
            )
            ratio = math.log(pre / post)
            evidence.points.append(Point(f"{init}, {size}", math.nan, ratio))
            evidence.values[f"{init}, {size}: ln(pre_ln / post_ln)"] = ratio
    return evidence


@claim(
    "scaled_init",
    block=GPT_LAW,
    title="Scaling the output weights by 1/sqrt(2L) removes the fall with depth under Pre-LN",
    source=OWN,
    statement=(
        "GPT-2's scaled initialisation keeps the variance of Pre-LN's stream from growing with L, "
        "and with it the last gradient from falling."
    ),
    setting=f"{MICRO_SETTING}, GPT-2's initialisation; L = 2 to 32",
    distance="same",
    predictions=[
        law("gpt2_scaled, pre_ln: slope in L", "0, within 0.1", -0.1, 0.1),
        control(law("gpt2, pre_ln: slope in L", "falls: below -0.1", high=-0.1)),
    ],
    axes=LAST_GRADIENT,
    guides=[power("slope 0", 0.0, "gpt2_scaled")],
    meaning="With it the step that the learning rate allows in the last blocks does not depend on "
    "the depth.",
)
def scaled_init(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient of W_2 in the last block."""
    evidence = Evidence()
    for init in ("gpt2_scaled", "gpt2"):
        settings = micro(lab, "norm=pre_ln", f"init={init}")
        norms = [last_gradient(lab, settings, seed, depth) for depth in DEPTHS]
        evidence.curve(init, DEPTHS, norms)
        evidence.values[f"{init}, pre_ln: slope in L"] = slope(DEPTHS, norms)
    return evidence


@claim(
    "small_embeddings",
    block=GPT_LAW,
    title="Small embeddings enlarge the gradients of Pre-LN's first blocks",
    source=Source("Takase et al. 2023 (Spike No More)", "2312.16903", "abstract", read="abstract"),
    statement=(
        "Small gradients need a shortcut that is large against the branches: embeddings of "
        "standard deviation 0.02 make Pre-LN's early gradients large, embeddings of 1, or a norm "
        "on them, do not."
    ),
    setting=f"{MICRO_SETTING}, GPT-2's scaled initialisation; L = {BLOCKS}; gradient norm of all "
    "parameters of the first block, with embeddings N(0, 0.02) over that with N(0, 1)",
    distance="scaled down",
    predictions=[
        sign("pre_ln: ln(small / large), first block", "more than twice as large", math.log(2)),
        control(
            law("norm on the embeddings: ln(small / large), first block", "below 0.1", high=0.1)
        ),
        shown("pre_ln: ln(small / large), last block"),
    ],
    axes=AxisLabels("gradient norm of the block", "block l", log_y=True),
    meaning="If a Pre-LN run has spikes early, scale its embeddings up before anything else.",
    remark="The last block's gradient grows nearly as much as the first's.",
)
def small_embeddings(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient. The norm on the embeddings is peri_ln's."""
    evidence = Evidence()
    arms = {
        "pre_ln": ("norm=pre_ln",),
        "norm on the embeddings": ("norm=peri_ln", "norm.options.embedding_norm=true"),
    }
    for arm, overrides in arms.items():
        norms = []
        for size, override in SIZES.items():
            settings = micro(lab, *overrides, "init=gpt2_scaled", override)
            model, loss = text_loss(lab, settings, seed, BLOCKS)
            norms.append(block_grad_norms(loss, model.blocks))
            evidence.curve(f"{arm}, {size}", range(1, BLOCKS + 1), norms[-1])
        large, small = norms
        evidence.values[f"{arm}: ln(small / large), first block"] = math.log(small[0] / large[0])
        evidence.values[f"{arm}: ln(small / large), last block"] = math.log(small[-1] / large[-1])
    return evidence


RATIO = "log10(first block / last block)"
VANISHES, STAYS = "vanishes: below a tenth", "does not: above a tenth"
RELATIVE = AxisLabels("gradient norm of the block / that of the last", "block l", log_y=True)


def add_relative(evidence: Evidence, arm: str, model: GPT, loss: Tensor) -> None:
    """The curve of an arm's gradients by block over that of the last, and its number."""
    norms = block_grad_norms(loss, model.blocks)
    evidence.curve(arm, range(1, len(norms) + 1), [norm / norms[-1] for norm in norms])
    evidence.values[f"{arm}: {RATIO}"] = math.log10(norms[0] / norms[-1])


@claim(
    "keel_keeps_gradients",
    block=GPT_LAW,
    title="Keel keeps the gradients of a deep decoder from vanishing, as they do under Post-LN",
    source=Source("Chen and Wei 2026 (Keel)", "2601.19895", "abstract", read="abstract"),
    statement=(
        "The central failure of Post-LN is that its residual pathway makes gradients vanish in "
        "deep networks; a highway-style connection preserves them from the top to the bottom."
    ),
    setting=f"{XAVIER_SETTING}; L = {DEEP}; gradient norm of all parameters of a block",
    distance="scaled down",
    predictions=[
        law(f"post_ln: {RATIO}", VANISHES, high=-1.0),
        law(f"keel: {RATIO}", STAYS, low=-1.0),
        control(law(f"post_ln, branches cut: {RATIO}", VANISHES, high=-1.0)),
    ],
    axes=RELATIVE,
    guides=[level("a tenth", 0.1)],
    remark="Keel's equation comes from others' code. At initialisation Post-LN's branches give "
    "back what its norms take (homogeneous_branch), so that a decoder without cross-attention has "
    "nothing to be kept from.",
)
def keel_keeps_gradients(lab: Lab, seed: int) -> Evidence:
    """Norm of the mean loss's gradient."""
    evidence = Evidence()
    for placement in ("post_ln", "keel"):
        settings = micro(lab, f"norm={placement}", "init=xavier")
        add_relative(evidence, placement, *text_loss(lab, settings, seed, DEEP))
    settings = micro(lab, "norm=post_ln", "init=xavier")
    model = lab.model(settings, seed, DEEP)
    tokens, targets = lab.text_batch(settings, seed, 2)
    with branches_cut(model):
        loss = language_model_loss(model, tokens, targets, "float64")
    add_relative(evidence, "post_ln, branches cut", model, loss)
    return evidence


RATE, STEP_DEPTHS = 1e-7, (4, 8, 16)


@claim(
    "model_update_adam",
    block=GPT_LAW,
    title="With DeepNorm a step of Adam, too, moves the output by a nearly constant amount",
    source=Source("Wang et al. 2022 (DeepNet)", "2203.00555", "Figure 5; section 4.3"),
    statement=(
        "In the first steps of training with Adam the change of the output is nearly constant "
        "whatever the depth with DeepNorm, and grows with it under Post-LN."
    ),
    setting=f"{MICRO_SETTING}, Xavier, with DeepNorm's gain where it is; one step of Adam of all "
    f"parameters at a rate of {RATE:g}, at which the change is linear; root mean square change of "
    f"what the head reads; L = {STEP_DEPTHS[0]} to {STEP_DEPTHS[-1]}",
    distance="scaled down",
    predictions=[
        law(f"deepnorm: {SLOPE}", "nearly constant: 0, within 0.1", -0.1, 0.1),
        control(sign(f"post_ln: {SLOPE}", "grows: above 0.1", 0.1)),
    ],
    axes=AxisLabels("change of the output (RMS)", "blocks L", log_x=True, log_y=True),
    guides=[power("constant", 0.0, "deepnorm")],
    remark="Adam divides by the gradient, so that a step's length grows with the number of "
    "parameters, that is with L; the theorem is about SGD. At the rates of training a step "
    "saturates: the output cannot change by more than its norm allows.",
)
def model_update_adam(lab: Lab, seed: int) -> Evidence:
    """RMS of F(x, W_1) - F(x, W_0)."""
    optimizer = micro(lab, f"optimizer.lr={RATE}", "optimizer.weight_decay=0").optimizer
    evidence = Evidence()
    arms = {"deepnorm": ("norm=deepnorm",), "post_ln": ("norm=post_ln", "init=xavier")}

    def step(model: GPT) -> None:
        make_optimizer(model, optimizer).step()

    add_slopes(evidence, lab, seed, step, arms, STEP_DEPTHS)
    return evidence
