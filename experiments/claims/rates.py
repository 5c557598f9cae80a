"""Claims about learning rates, and losses at the best of them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from experiments.analysis.numbers import sensitivity
from experiments.analysis.runs import Run
from experiments.claims.claim import (
    OWN,
    TRAINING,
    AxisLabels,
    Evidence,
    Source,
    claim,
    control,
    law,
    paired_rate,
    rate,
    shown,
    sign,
    slope,
)
from experiments.claims.inside import CURSE, last_by_block, log_ratio
from experiments.claims.lab import Lab
from experiments.claims.training import (
    DEPTH,
    LOSS,
    MOST,
    RATE,
    STEPS,
    WARM_UP,
    arm,
    capped_loss,
    has_learnt,
    learnt,
    losses,
    mostly_learns,
    nats,
    one,
    outcomes,
    setting,
    smallest,
    together,
    where_known,
)

GRID = ("3e-4", "1e-3", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1")
SHALLOW = 2
WARM = f"{WARM_UP} of them warm-up"


def warmed(rate: str, placement: str = "pre_ln", qk: str = "null") -> tuple[str, ...]:
    """Overrides of runs with warm-up."""
    return arm(placement, rate=rate, warm_up=WARM_UP, qk=qk)


# Arms over the grid: what differs from Pre-LN with warm-up.
CURVES = {
    "pre_ln": lambda rate: warmed(rate),
    "no warm-up": lambda rate: arm("pre_ln", rate=rate),
    f"{SHALLOW} blocks": lambda rate: arm("pre_ln", rate=rate, n_layers=SHALLOW, warm_up=WARM_UP),
    "QK-norm": lambda rate: warmed(rate, qk="true"),
}


def over_grid(lab: Lab, seed: int, *curves: str) -> dict[str, list[Run]]:
    """The runs of each curve, by learning rate."""
    arms = {f"{name} @ {rate}": CURVES[name](rate) for name in curves for rate in GRID}
    runs = lab.runs(arms, seed)
    return {name: [runs[f"{name} @ {rate}"] for rate in GRID] for name in curves}


def sensitivity_evidence(lab: Lab, seed: int, more: str, less: str) -> Evidence:
    """Sensitivities of two curves, and their difference."""
    found = over_grid(lab, seed, more, less)
    capped = {name: [capped_loss(run) for run in runs] for name, runs in found.items()}
    of_both = {name: sensitivity(values) for name, values in capped.items()}
    evidence = Evidence(
        {
            f"{more} less {less}: sensitivity (nats)": of_both[more] - of_both[less],
            f"{more}: sensitivity (nats)": of_both[more],
        }
        | {nats(name): max(map(learnt, runs)) for name, runs in found.items()}
    )
    for name, values in capped.items():
        evidence.curve(name, map(float, GRID), values)
    return evidence


WORTSMAN = ("Wortsman et al. 2023", "2309.14322")
SENSITIVITY = (
    f"{setting(rate='a rate of the grid')}, {WARM} unless said; Pre-LN over the rates "
    f"{', '.join(GRID)}. Sensitivity is the mean over the grid of min(final, initial) validation "
    "loss less the best. The paper's grid has the same range; its runs have 100,000 steps and are "
    "clipped"
)
SENSITIVITY_AXES = AxisLabels(
    "min(final, initial) validation loss (nats)", "learning rate", log_x=True
)


@claim(
    "lr_depth",
    block=TRAINING,
    title="The sensitivity to the learning rate grows with depth",
    source=Source(*WORTSMAN, "section 2.2; Figure 7", read="secondary source"),
    statement="LR sensitivity grows with the number of blocks.",
    setting=f"{SENSITIVITY}; {DEPTH} blocks against {SHALLOW}",
    distance="scaled down",
    predictions=[
        sign(f"pre_ln less {SHALLOW} blocks: sensitivity (nats)", "above 0"),
        shown("pre_ln: sensitivity (nats)"),
        has_learnt("pre_ln"),
        has_learnt(f"{SHALLOW} blocks"),
    ],
    axes=SENSITIVITY_AXES,
)
def lr_depth(lab: Lab, seed: int) -> Evidence:
    """More blocks less fewer."""
    return sensitivity_evidence(lab, seed, "pre_ln", f"{SHALLOW} blocks")


@claim(
    "lr_warm_up",
    block=TRAINING,
    title="Warm-up lowers the sensitivity to the learning rate",
    source=Source(*WORTSMAN, "section 2.2; Figure 5", read="secondary source"),
    statement="LR sensitivity falls with a longer warm-up.",
    setting=SENSITIVITY,
    distance="scaled down",
    predictions=[
        sign("no warm-up less pre_ln: sensitivity (nats)", "above 0"),
        shown("no warm-up: sensitivity (nats)"),
        has_learnt("pre_ln"),
        has_learnt("no warm-up"),
    ],
    axes=SENSITIVITY_AXES,
    meaning="Warm-up widens the range of learning rates that work, for Pre-LN too.",
)
def lr_warm_up(lab: Lab, seed: int) -> Evidence:
    """Without warm-up less with."""
    return sensitivity_evidence(lab, seed, "no warm-up", "pre_ln")


@claim(
    "lr_qk_norm",
    block=TRAINING,
    title="QK-norm lowers the sensitivity to the learning rate",
    source=Source(*WORTSMAN, "section 3.1.1; Figure 1", read="secondary source"),
    statement="LR sensitivity falls with a norm on queries and keys.",
    setting=SENSITIVITY,
    distance="scaled down",
    predictions=[
        sign("pre_ln less QK-norm: sensitivity (nats)", "above 0"),
        shown("pre_ln: sensitivity (nats)"),
        has_learnt("pre_ln"),
        has_learnt("QK-norm"),
    ],
    axes=SENSITIVITY_AXES,
    meaning="Where the best learning rate is not known, QK-norm makes a wrong one cost less.",
)
def lr_qk_norm(lab: Lab, seed: int) -> Evidence:
    """Without QK-norm less with."""
    return sensitivity_evidence(lab, seed, "pre_ln", "QK-norm")


def largest_logit(run: Run) -> float:
    """Largest logit of attention in any block at the end; nan of a run that diverged."""
    values = last_by_block(run, "attention_max_logit", "attention")
    return float(np.max(values)) if values else math.nan


def least_entropy(run: Run) -> float:
    """Attention's entropy in the block where it is least, as a share of the largest possible."""
    values = last_by_block(run, "attention_entropy", "attention")
    return float(np.min(values)) if values else math.nan


# Without those rates at which runs may diverge, of which nothing could be read.
LOGIT_RATES = GRID[1:5]


@claim(
    "attention_logits",
    block=TRAINING,
    title="Attention's logits grow with the learning rate, and QK-norm keeps them small",
    source=Source(*WORTSMAN, "section 3.1.1; Figure 3", read="secondary source"),
    statement=(
        "At high learning rates the logits of attention grow, and attention collapses to few "
        "tokens; with a norm on queries and keys they stay small."
    ),
    setting=(
        f"{setting(rate='a rate of the grid')}, {WARM}; Pre-LN over the rates "
        f"{', '.join(LOGIT_RATES)}. Largest logit in any block at the end, log-log slope in the "
        "rate; entropy in the block in which it is least, as a share of the largest possible"
    ),
    distance="scaled down",
    predictions=[
        sign("pre_ln: slope of the largest logit in the rate", "above 0"),
        sign(
            f"ln(largest logit of pre_ln / of QK-norm) at {LOGIT_RATES[-1]}",
            "at least twice as large",
            math.log(2),
        ),
        sign(f"pre_ln: entropy at {LOGIT_RATES[0]} less at {LOGIT_RATES[-1]}", "above 0"),
        shown("QK-norm: slope of the largest logit in the rate"),
        has_learnt("pre_ln"),
    ],
    axes=AxisLabels("largest logit of attention", "learning rate", log_x=True, log_y=True),
)
def attention_logits(lab: Lab, seed: int) -> Evidence:
    """Logits and entropies at the end of the runs over the grid."""
    rates = [float(rate) for rate in LOGIT_RATES]
    chosen = slice(GRID.index(LOGIT_RATES[0]), GRID.index(LOGIT_RATES[-1]) + 1)
    found = {name: runs[chosen] for name, runs in over_grid(lab, seed, "pre_ln", "QK-norm").items()}
    logits = {name: [largest_logit(run) for run in runs] for name, runs in found.items()}
    entropy = [least_entropy(run) for run in found["pre_ln"]]
    evidence = Evidence(
        {
            f"{name}: slope of the largest logit in the rate": slope(rates, values)
            for name, values in logits.items()
        }
        | {
            f"ln(largest logit of pre_ln / of QK-norm) at {LOGIT_RATES[-1]}": log_ratio(
                logits["pre_ln"][-1], logits["QK-norm"][-1]
            ),
            f"pre_ln: entropy at {LOGIT_RATES[0]} less at {LOGIT_RATES[-1]}": entropy[0]
            - entropy[-1],
            nats("pre_ln"): max(map(learnt, found["pre_ln"])),
        }
    )
    for name, values in logits.items():
        evidence.curve(name, rates, values)
    return evidence


LARGE = ("1e-3", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1", "1")
LEAST_SHARE = 0.5
USABLE_SETTING = (
    f"{setting(rate='a rate of the grid')}, {WARM}. A rate can be used if the run learns, below "
    f"token frequencies alone, at least {LEAST_SHARE:g} of the nats that Pre-LN learns at {RATE} "
    f"with the same seed. Rates {', '.join(LARGE)}, searched by bisection, which takes it that all "
    "rates below one that can be used can be used too; counted in steps of this grid, from 0 for "
    f"none to {len(LARGE)} for all"
)
SOME = "{}: share of seeds with some usable rates, and not all"
USABLE_AXES = AxisLabels("learning rates that can be used, of the grid")


def usable(lab: Lab, seed: int, placement: str, qk: str = "null") -> float:
    """How many rates of the grid, from the smallest on, can be used."""

    reference = learnt(one(lab, warmed(RATE), seed))

    def fails(index: int) -> float:
        nats_learnt = learnt(one(lab, warmed(LARGE[index], placement, qk), seed))
        if math.isnan(nats_learnt + reference):
            return math.nan
        return float(nats_learnt < LEAST_SHARE * reference)

    return smallest(len(LARGE), fails)


def usable_evidence(found: Mapping[str, float], more: str, less: str) -> Evidence:
    """How many rates can be used in two arms."""
    values = {f"{name}: usable rates": count for name, count in found.items()}
    difference = float(np.sign(found[more] - found[less]))
    evidence = Evidence({f"{more}: more usable rates than {less}": difference} | values)
    some = where_known(found[more], 0 < found[more] < len(LARGE))
    evidence.values[SOME.format(more)] = some
    for name, count in found.items():
        evidence.curve(name, [math.nan], [count])
    return evidence


@claim(
    "usable_rate_qk_norm",
    block=TRAINING,
    title="QK-norm raises the largest learning rate at which Pre-LN trains",
    source=Source(*WORTSMAN, "section 3.1.1; Figure 1", read="abstract"),
    statement="The instability of growing attention logits appears at high learning rates, and a "
    "norm on queries and keys enables training at larger ones.",
    setting=USABLE_SETTING,
    distance="scaled down",
    predictions=[
        paired_rate("QK-norm: more usable rates than pre_ln", f"of seeds that differ, {MOST}"),
        shown("pre_ln: usable rates"),
        shown("QK-norm: usable rates"),
        control(rate(SOME.format("QK-norm"), MOST, low=0.5)),
    ],
    axes=USABLE_AXES,
)
def usable_rate_qk_norm(lab: Lab, seed: int) -> Evidence:
    """A bisection with and one without."""
    tasks = {"pre_ln": partial(usable, lab, seed, "pre_ln")}
    tasks["QK-norm"] = partial(usable, lab, seed, "pre_ln", qk="true")
    found = together(tasks)
    return usable_evidence(found, "QK-norm", "pre_ln")


@claim(
    "usable_rate",
    block=TRAINING,
    title="Pre-LN trains at larger learning rates than Post-LN, with warm-up too",
    source=OWN,
    statement="The largest learning rate at which a run learns is larger under Pre-LN.",
    setting=USABLE_SETTING,
    distance="same",
    predictions=[
        paired_rate("pre_ln: more usable rates than post_ln", f"of seeds that differ, {MOST}"),
        shown("pre_ln: usable rates"),
        shown("post_ln: usable rates"),
        control(rate(SOME.format("pre_ln"), MOST, low=0.5)),
    ],
    axes=USABLE_AXES,
    meaning="Tune the rate of each placement on a grid of its own.",
)
def usable_rate(lab: Lab, seed: int) -> Evidence:
    """A bisection for each placement."""
    found = together({p: partial(usable, lab, seed, p) for p in ("pre_ln", "post_ln")})
    return usable_evidence(found, "pre_ln", "post_ln")


TUNED, LONG = ("1e-3", "3e-3", "1e-2"), 240


def best_rate(runs: Mapping[str, Run]) -> str:
    """The rate of the least loss. A run that failed has none: its seed is not judged."""
    capped = {rate: capped_loss(run) for rate, run in runs.items()}
    return min(capped, key=lambda rate: (not math.isnan(capped[rate]), capped[rate]))


@claim(
    "post_ln_better",
    block=TRAINING,
    title="Post-LN ends below Pre-LN in shallow models, where both train",
    source=Source("Takase et al. 2022 (B2T)", "2206.00330", "abstract", read="abstract"),
    statement="Post-LN has consistently achieved better performance than Pre-LN in relatively "
    "shallow Transformers, such as those with six or fewer layers.",
    setting=(
        f"{setting(rate='its best rate', steps=LONG)}, {WARM}. The rate is the one of "
        f"{', '.join(TUNED)} with the least loss after {STEPS} steps, for each placement and seed"
    ),
    distance="scaled down",
    predictions=[
        sign("pre_ln less post_ln: loss (nats)", "at least 0.02 below", 0.02),
        has_learnt("pre_ln"),
        control(mostly_learns("post_ln")),
        shown("pre_ln: ln(best rate)"),
        shown("post_ln: ln(best rate)"),
    ],
    axes=LOSS,
)
def post_ln_better(lab: Lab, seed: int) -> Evidence:
    """The best rate of each placement, and a longer run at it."""
    short = {(p, rate): warmed(rate, p) for p in ("pre_ln", "post_ln") for rate in TUNED}
    tried = lab.runs({f"{p} @ {rate}": arm for (p, rate), arm in short.items()}, seed)
    best = {
        p: best_rate({rate: tried[f"{p} @ {rate}"] for rate in TUNED})
        for p in ("pre_ln", "post_ln")
    }
    runs = lab.runs(
        {p: arm(p, rate=rate, warm_up=WARM_UP, steps=LONG) for p, rate in best.items()}, seed
    )
    difference = capped_loss(runs["pre_ln"]) - capped_loss(runs["post_ln"])
    return Evidence(
        {"pre_ln less post_ln: loss (nats)": difference}
        | outcomes(runs)
        | {f"{p}: ln(best rate)": math.log(float(rate)) for p, rate in best.items()},
        losses(runs),
    )


DYT = ("Zhu et al. 2025", "2503.10622")


def with_dyt(rate: str, *overrides: str) -> tuple[str, ...]:
    """Overrides of Pre-LN with Dynamic Tanh in the place of its norms."""
    return arm("pre_ln", "norm.kind=dyt", *overrides, rate=rate, warm_up=WARM_UP)


def of_best(runs: Sequence[Run]) -> Run:
    """The run of the least loss; one that failed, if any did."""
    return min(runs, key=lambda run: (not math.isnan(capped_loss(run)), capped_loss(run)))


@claim(
    "dyt",
    block=TRAINING,
    title="Dynamic Tanh trains as well as LayerNorm",
    source=Source(*DYT, "abstract", read="abstract"),
    statement="Transformers with Dynamic Tanh match or exceed their normalised counterparts, "
    "mostly without tuning.",
    setting=(
        f"{setting(rate='its best rate')}, {WARM}; Pre-LN. The best loss over the rates "
        f"{', '.join(TUNED)}, the same for both. A later paper, 2604.23434, finds that it helps "
        "with few data and hurts with many"
    ),
    distance="scaled down",
    predictions=[
        law("dyt less layer_norm: loss (nats)", "no worse by 0.02", high=0.02),
        has_learnt("layer_norm"),
    ],
    axes=LOSS,
)
def dyt(lab: Lab, seed: int) -> Evidence:
    """Best losses over the same rates."""
    arms = {f"layer_norm @ {rate}": warmed(rate) for rate in TUNED}
    arms |= {f"dyt @ {rate}": with_dyt(rate) for rate in TUNED}
    found = lab.runs(arms, seed)
    runs = {
        kind: of_best([found[f"{kind} @ {rate}"] for rate in TUNED])
        for kind in ("layer_norm", "dyt")
    }
    difference = capped_loss(runs["dyt"]) - capped_loss(runs["layer_norm"])
    return Evidence(
        {
            "dyt less layer_norm: loss (nats)": difference,
            nats("layer_norm"): learnt(runs["layer_norm"]),
        },
        losses(runs),
    )


SCALED_DEPTH = 8


@claim(
    "ln_scaling_init",
    block=TRAINING,
    title="LayerNorm Scaling does worse with a scaled initialisation than alone",
    source=Source(*CURSE, "footnote 1, in the abstract"),
    statement=(
        "Together with an initialisation that scales the output weights by 1/sqrt(2L), LayerNorm "
        "Scaling is less effective; the one should be left out where the other is used."
    ),
    setting=f"{setting(SCALED_DEPTH)}, {WARM}; init=gpt2 and init=gpt2_scaled",
    distance="scaled down",
    predictions=[
        sign("ln_scaling: loss with gpt2_scaled less with gpt2 (nats)", "above 0"),
        has_learnt("ln_scaling, init=gpt2"),
    ],
    axes=LOSS,
    meaning="Take one of the two, not both.",
)
def ln_scaling_init(lab: Lab, seed: int) -> Evidence:
    """Losses under both initialisations."""
    arms = {
        f"ln_scaling, init={init}": arm(
            "ln_scaling", init=init, n_layers=SCALED_DEPTH, warm_up=WARM_UP
        )
        for init in ("gpt2", "gpt2_scaled")
    }
    runs = lab.runs(arms, seed)
    alone, scaled = runs.values()
    return Evidence(
        {
            "ln_scaling: loss with gpt2_scaled less with gpt2 (nats)": capped_loss(scaled)
            - capped_loss(alone),
            nats("ln_scaling, init=gpt2"): learnt(alone),
        },
        losses(runs),
    )
