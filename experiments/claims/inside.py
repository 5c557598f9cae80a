"""Claims about what training does inside a model: variances, gradients, idle blocks."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from experiments.analysis.histories import by_layer, read_gradients
from experiments.analysis.runs import Run
from experiments.claims.claim import (
    TRAINING,
    AxisLabels,
    Evidence,
    Prediction,
    Source,
    claim,
    control,
    rate,
    shown,
    sign,
)
from experiments.claims.lab import Lab
from experiments.claims.training import (
    MOST,
    RATE,
    WARM_UP,
    arm,
    has_learnt,
    learnt,
    mostly_learns,
    nats,
    one,
    outcomes,
    setting,
    where_known,
)

DEPTH, SLOW, PROBE_EVERY = 8, "1e-3", 30
INSIDE_SETTING = f"{setting(DEPTH, SLOW)}, {WARM_UP} of them warm-up"
W_2 = "feed_forward.fc_out.weight"

CURSE = ("Sun et al. 2025 (The Curse of Depth)", "2502.05795")
MIX_LN = ("Li et al. 2024 (Mix-LN)", "2412.13795")
NORMFORMER = ("Shleifer et al. 2021 (NormFormer)", "2110.09456")


def inside(placement: str, *overrides: str, rate: str = SLOW) -> tuple[str, ...]:
    """Overrides of runs that are probed, at a rate at which Post-LN trains with them."""
    return arm(
        placement,
        *overrides,
        n_layers=DEPTH,
        rate=rate,
        warm_up=WARM_UP,
        probe_every=PROBE_EVERY,
    )


# An arm has the same overrides in every claim, so that it is one run.
ARMS = {
    "pre_ln": inside("pre_ln", "trainer.end_probes=true"),
    "post_ln": inside("post_ln", "trainer.end_probes=true"),
    "ln_scaling": inside("ln_scaling"),
    # The paper calls the embeddings' norm optional: without it the branches' norms alone differ.
    "peri_ln": inside("peri_ln", "norm.options.embedding_norm=false"),
    "mix_ln": inside("mix_ln"),
}
# At NormFormer's own rate.
FAST_ARMS = {name: inside(name, rate=RATE) for name in ("pre_ln", "normformer")}


def probed(lab: Lab, seed: int, *names: str) -> dict[str, Run]:
    """The runs of some of the arms."""
    return lab.runs({name: ARMS[name] for name in names}, seed)


def layers_of(run: Run, stat: str, component: str) -> pd.DataFrame:
    """A statistic of each block, steps as rows and blocks as columns.

    Empty where it was not recorded, or the run did not make all its steps.
    """
    if not run.made_all_steps:
        return pd.DataFrame()
    table = read_gradients(run)
    return table if table.empty else by_layer(table, stat, component)


def last_by_block(run: Run, stat: str, component: str) -> list[float]:
    """A statistic of each block at its last recorded step; empty where there is none."""
    table = layers_of(run, stat, component)
    return [] if table.empty else [float(value) for value in table.iloc[-1]]


def mean_gradients(run: Run, component: str) -> list[float]:
    """The gradient norm of each block, mean over the recorded steps in training.

    Without step 0, which is the initialisation's.
    """
    table = layers_of(run, "grad_norm", component)
    return [] if table.empty else [float(value) for value in table[table.index > 0].mean()]


def growth(run: Run) -> float:
    """ln(var_T / var_0) of the stream after the last block."""
    variances = layers_of(run, "activation_variance", "output").to_numpy()
    return log_ratio(variances[-1, -1], variances[0, -1]) if len(variances) > 1 else math.nan


def log_ratio(a: float, b: float) -> float:
    """ln(a / b); nan unless both are positive."""
    return math.log(a / b) if a > 0 and b > 0 else math.nan


def first_to_last(values: Sequence[float]) -> float:
    """ln(first / last); nan without values."""
    return log_ratio(values[0], values[-1]) if values else math.nan


def trend(values: Sequence[float]) -> float:
    """Spearman's rho of the values against the block, without the first and the last.

    Those two are known to differ from all others, in either direction.
    """
    inner = values[1:-1]
    if len(inner) < 3 or not np.isfinite(inner).all() or len(set(inner)) == 1:
        return math.nan
    return float(stats.spearmanr(range(len(inner)), inner).statistic)


def spread(values: Sequence[float]) -> float:
    """Coefficient of variation: standard deviation over mean; nan without values."""
    return float(np.std(values) / np.mean(values)) if values else math.nan


def draw(evidence: Evidence, curves: Iterable[tuple[str, Sequence[float]]]) -> None:
    """Add a curve over the blocks, counted from 1, for each arm."""
    for name, values in curves:
        evidence.curve(name, range(1, len(values) + 1), values)


def growth_evidence(lab: Lab, seed: int, other: str) -> Evidence:
    """Growth under Pre-LN less that under another placement."""
    runs = probed(lab, seed, "pre_ln", other)
    grown = {name: growth(run) for name, run in runs.items()}
    evidence = Evidence(
        {
            f"pre_ln less {other}: growth of the variance (ln)": grown["pre_ln"] - grown[other],
            "pre_ln: growth of the variance (ln)": grown["pre_ln"],
        }
        | outcomes(runs)
    )
    draw(
        evidence,
        ((n, last_by_block(run, "activation_variance", "output")) for n, run in runs.items()),
    )
    return evidence


GROWTH_SETTING = (
    f"{INSIDE_SETTING}. Growth is ln(var_T / var_0), of the variance of the stream after the last "
    "block at the end and as initialised"
)
LEAST_GROWTH = 0.1  # differences of less than a tenth count as none
VARIANCE = AxisLabels("variance of the stream at the end", "block l", log_y=True)


@claim(
    "growth_ln_scaling",
    block=TRAINING,
    title="In training the stream's variance grows more under Pre-LN than with norms scaled by "
    "1/sqrt(l)",
    source=Source(*CURSE, "section 5; Figure 4"),
    statement=(
        "In training the variance of the last blocks' outputs grows under Pre-LN, and LayerNorm "
        "Scaling keeps it low."
    ),
    setting=GROWTH_SETTING,
    distance="scaled down",
    predictions=[
        sign(
            "pre_ln less ln_scaling: growth of the variance (ln)",
            f"more than {LEAST_GROWTH}",
            LEAST_GROWTH,
        ),
        shown("pre_ln: growth of the variance (ln)"),
        has_learnt("pre_ln"),
        has_learnt("ln_scaling"),
    ],
    axes=VARIANCE,
    remark="Earlier the variance itself was judged, of which the initialisation decides.",
)
def growth_ln_scaling(lab: Lab, seed: int) -> Evidence:
    """Growth since the initialisation, which itself differs."""
    return growth_evidence(lab, seed, "ln_scaling")


@claim(
    "growth_peri_ln",
    block=TRAINING,
    title="In training the stream's variance grows more under Pre-LN than under Peri-LN",
    source=Source("Kim et al. 2025 (Peri-LN)", "2502.02732", "abstract", read="abstract"),
    statement=(
        "Peri-LN's variance grows in a more balanced way than Pre-LN's, which is prone to massive "
        "activations."
    ),
    setting=f"{GROWTH_SETTING}. Peri-LN without its optional norm on the embeddings",
    distance="scaled down",
    predictions=[
        sign(
            "pre_ln less peri_ln: growth of the variance (ln)",
            f"more than {LEAST_GROWTH}",
            LEAST_GROWTH,
        ),
        shown("pre_ln: growth of the variance (ln)"),
        has_learnt("pre_ln"),
        has_learnt("peri_ln"),
    ],
    axes=VARIANCE,
    remark="Earlier the variance itself was judged, which is larger under Peri-LN as initialised, "
    "and Peri-LN had a norm on its embeddings.",
)
def growth_peri_ln(lab: Lab, seed: int) -> Evidence:
    """Growth since the initialisation, which itself differs."""
    return growth_evidence(lab, seed, "peri_ln")


IDLE_SETTING = (
    f"{INSIDE_SETTING}. Spearman's rho over blocks 2 to {DEPTH - 1}, since the first and the last "
    "differ from all others"
)
DROP = ("loss by dropping the block", "layer_drop")
ANGLE = ("angular distance", "angular_distance")
DROPPED = AxisLabels("validation loss by dropping the block (nats)", "block l")


def idle_predictions(placement: str, verb: str) -> list[Prediction]:
    """Predictions of a trend with depth. Of six blocks rho takes few values: seeds are counted."""
    judged = [rate(trending(placement, verb, q), MOST, low=0.5) for q, _ in (DROP, ANGLE)]
    return [*judged, *(shown(f"{placement}: {q}, rho with depth") for q, _ in (DROP, ANGLE))]


def trending(placement: str, verb: str, quantity: str) -> str:
    """The name of the number of a trend."""
    return f"{placement}: share of seeds in which the {quantity} {verb} with depth"


def idle_evidence(lab: Lab, seed: int, placement: str, direction: int, verb: str) -> Evidence:
    """How what a block contributes changes with its depth."""
    runs = probed(lab, seed, placement)
    run = runs[placement]
    evidence = Evidence(outcomes(runs))
    for quantity, stat in (DROP, ANGLE):
        rho = trend(last_by_block(run, stat, "block"))
        evidence.values[trending(placement, verb, quantity)] = where_known(rho, direction * rho > 0)
        evidence.values[f"{placement}: {quantity}, rho with depth"] = rho
    draw(evidence, [(placement, last_by_block(run, "layer_drop", "block"))])
    return evidence


@claim(
    "idle_layers",
    block=TRAINING,
    title="Under Pre-LN deep blocks contribute less than early ones",
    source=Source(*CURSE, "section 2; Figures 2 and 3"),
    statement=(
        "Under Pre-LN dropping a deep block costs less than dropping an early one, and deep blocks "
        "turn the representation less."
    ),
    setting=IDLE_SETTING,
    distance="scaled down",
    predictions=[
        *idle_predictions("pre_ln", "falls"),
        has_learnt("pre_ln"),
    ],
    axes=DROPPED,
    meaning="Blocks of a Pre-LN model that could be left out are to be looked for in its depth.",
    remark="Earlier the first third of the blocks was compared with the last, which the first and "
    "the last block decide.",
)
def idle_layers(lab: Lab, seed: int) -> Evidence:
    """Trends under Pre-LN."""
    return idle_evidence(lab, seed, "pre_ln", -1, "falls")


@claim(
    "idle_layers_post",
    block=TRAINING,
    title="Under Post-LN it is the early blocks that contribute less",
    source=Source(*MIX_LN, "Figures 2 and 3", read="secondary source"),
    statement="Under Post-LN dropping an early block costs less than dropping a deep one, and "
    "early blocks turn the representation less.",
    setting=IDLE_SETTING,
    distance="scaled down",
    predictions=[
        *idle_predictions("post_ln", "rises"),
        control(mostly_learns("post_ln")),
    ],
    axes=DROPPED,
)
def idle_layers_post(lab: Lab, seed: int) -> Evidence:
    """Trends under Post-LN."""
    return idle_evidence(lab, seed, "post_ln", 1, "rises")


W_2_SETTING = (
    f"{setting(DEPTH, RATE)}, {WARM_UP} of them warm-up. Frobenius norm of the gradient of the "
    "second feed-forward weight, mean over the probed steps after the first. The paper shows an L1 "
    "norm; the rate is as large as the paper's"
)
W_2_AXES = AxisLabels("gradient norm of W_2, mean over steps", "block l", log_y=True)


@claim(
    "early_gradients",
    block=TRAINING,
    title="In training Pre-LN's first blocks have larger gradients than its last",
    source=Source(*NORMFORMER, "abstract; Figure 3", read="abstract"),
    statement="In pre-training under Pre-LN the gradients of early layers are much larger than "
    "those of later ones.",
    setting=W_2_SETTING,
    distance="scaled down",
    predictions=[
        sign("pre_ln: ln(gradient of the first block / last)", "above 0"),
        has_learnt("pre_ln"),
    ],
    axes=W_2_AXES,
)
def early_gradients(lab: Lab, seed: int) -> Evidence:
    """Means over steps, first to last block."""
    run = one(lab, FAST_ARMS["pre_ln"], seed)
    norms = mean_gradients(run, W_2)
    evidence = Evidence(
        {
            "pre_ln: ln(gradient of the first block / last)": first_to_last(norms),
            nats("pre_ln"): learnt(run),
        }
    )
    draw(evidence, [("pre_ln", norms)])
    return evidence


@claim(
    "normformer",
    block=TRAINING,
    title="NormFormer evens out Pre-LN's gradients",
    source=Source(*NORMFORMER, "abstract; Figure 3", read="abstract"),
    statement="NormFormer's additional norms reduce the mismatch between the gradients of early "
    "and of later layers under Pre-LN.",
    setting=W_2_SETTING,
    distance="scaled down",
    predictions=[
        sign("pre_ln less normformer: |ln(gradient of the first block / last)|", "above 0"),
        shown("normformer: ln(gradient of the first block / last)"),
        has_learnt("pre_ln"),
        has_learnt("normformer"),
    ],
    axes=W_2_AXES,
    remark="First tried at initialisation, where it fails (-0.38), then moved to training, with "
    "step 0 among the steps and a third of the paper's learning rate.",
)
def normformer(lab: Lab, seed: int) -> Evidence:
    """Means over steps, first to last block, under both."""
    runs = lab.runs(FAST_ARMS, seed)
    norms = {name: mean_gradients(run, W_2) for name, run in runs.items()}
    mismatch = {name: first_to_last(values) for name, values in norms.items()}
    evidence = Evidence(
        {
            "pre_ln less normformer: |ln(gradient of the first block / last)|": abs(
                mismatch["pre_ln"]
            )
            - abs(mismatch["normformer"]),
            "normformer: ln(gradient of the first block / last)": mismatch["normformer"],
        }
        | outcomes(runs)
    )
    draw(evidence, norms.items())
    return evidence


BLOCK_SETTING = (
    f"{INSIDE_SETTING}. Frobenius norm of the gradient of all of a block's parameters, mean over "
    "the recorded steps after the first"
)
BLOCK_AXES = AxisLabels("gradient norm of the block, mean over steps", "block l", log_y=True)


@claim(
    "late_gradients",
    block=TRAINING,
    title="In training gradients shrink towards the last blocks under Pre-LN, and towards the "
    "first under Post-LN",
    source=Source(*MIX_LN, "abstract", read="abstract"),
    statement=(
        "Pre-LN leads to diminished gradient norms in deeper layers; Post-LN keeps them larger "
        "there, and has vanishing gradients in earlier ones."
    ),
    setting=BLOCK_SETTING,
    distance="scaled down",
    predictions=[
        sign("pre_ln: ln(gradient of the first block / last)", "above 0"),
        sign("post_ln: ln(gradient of the last block / first)", "above 0"),
        has_learnt("pre_ln"),
        control(mostly_learns("post_ln")),
    ],
    axes=BLOCK_AXES,
)
def late_gradients(lab: Lab, seed: int) -> Evidence:
    """Means over steps, first to last block, under both."""
    runs = probed(lab, seed, "pre_ln", "post_ln")
    norms = {name: mean_gradients(run, "block") for name, run in runs.items()}
    evidence = Evidence(
        {
            "pre_ln: ln(gradient of the first block / last)": first_to_last(norms["pre_ln"]),
            "post_ln: ln(gradient of the last block / first)": -first_to_last(norms["post_ln"]),
        }
        | outcomes(runs)
    )
    draw(evidence, norms.items())
    return evidence


@claim(
    "mix_ln_gradients",
    block=TRAINING,
    title="In training Mix-LN's gradients are more even over the blocks than Pre-LN's or Post-LN's",
    source=Source(*MIX_LN, "abstract", read="abstract"),
    statement="Mix-LN, Post-LN in the earlier and Pre-LN in the deeper layers, ensures more "
    "uniform gradients across layers than either.",
    setting=f"{BLOCK_SETTING}. Coefficient of variation over the blocks",
    distance="scaled down",
    predictions=[
        sign("pre_ln less mix_ln: variation of the gradients", "above 0"),
        sign("post_ln less mix_ln: variation of the gradients", "above 0"),
        shown("mix_ln: variation of the gradients"),
        has_learnt("pre_ln"),
        control(mostly_learns("post_ln")),
        control(mostly_learns("mix_ln")),
    ],
    axes=BLOCK_AXES,
)
def mix_ln_gradients(lab: Lab, seed: int) -> Evidence:
    """Variation over the blocks of means over steps, under all three."""
    runs = probed(lab, seed, "pre_ln", "post_ln", "mix_ln")
    norms = {name: mean_gradients(run, "block") for name, run in runs.items()}
    varied = {name: spread(values) for name, values in norms.items()}
    evidence = Evidence(
        {
            f"{name} less mix_ln: variation of the gradients": varied[name] - varied["mix_ln"]
            for name in ("pre_ln", "post_ln")
        }
        | {"mix_ln: variation of the gradients": varied["mix_ln"]}
        | outcomes(runs)
    )
    draw(evidence, norms.items())
    return evidence
