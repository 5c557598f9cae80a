"""Claims about what trains at all: warm-up, initialisation, DeepNorm, HybridNorm.

All claims about training share their runs: arms of equal overrides are one run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from experiments.analysis.histories import History
from experiments.analysis.runs import Run
from experiments.claims.claim import (
    OWN,
    TRAINING,
    AxisLabels,
    Evidence,
    Point,
    Prediction,
    Source,
    claim,
    control,
    law,
    paired_rate,
    rate,
    shown,
    sign,
)
from experiments.claims.lab import Lab, Untrained
from experiments.claims.settings import micro, outputs
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer

DEPTH, DEEP, RATE, STEPS, WARM_UP, WINDOWS = 6, 8, "3e-3", 120, 60, 8
MICRO_SETTING = (
    "GPT of width 64, 4 heads, {blocks} blocks, characters of the King James Bible, {windows} "
    "windows of 64 per step, AdamW at {rate}, cosine, Xavier unless said, no clipping; {steps} "
    "steps"
)
LEAST_LEARNT = 0.1
LEARNS = (
    f"A run learns if its validation loss ends more than {LEAST_LEARNT} nats below that of token "
    "frequencies alone"
)


def arm(
    placement: str,
    *overrides: str,
    n_layers: int = DEPTH,
    rate: str = RATE,
    warm_up: int = 0,
    steps: int = STEPS,
    windows: int = WINDOWS,
    init: str = "xavier",
    qk: str = "null",
    probe_every: int | None = None,
) -> tuple[str, ...]:
    """Overrides of an arm's training runs; further ones come last.

    All are probed at least at the first and the last step, since it costs little and claims that
    read the probes can share the runs of those that do not.
    """
    return (
        "model=micro",
        "tokenizer=char",
        f"norm={placement}",
        f"init={init}",
        f"norm.qk={qk}",
        f"model.n_layers={n_layers}",
        f"optimizer.lr={rate}",
        f"schedule.warmup_steps={warm_up}",
        f"trainer.steps={steps}",
        f"trainer.batch_size={windows}",
        f"trainer.eval_every={steps}",
        f"trainer.probe_every={probe_every or steps}",
        "trainer.end_probes=false",
        "trainer.checkpoint_every=null",
        "generate.tokens=0",
        "pictures=false",
        *overrides,
    )


def setting(
    blocks: object = DEPTH, rate: str = RATE, steps: object = STEPS, windows: int = WINDOWS
) -> str:
    """The text of a claim's setting."""
    return MICRO_SETTING.format(blocks=blocks, rate=rate, steps=steps, windows=windows)


def one(lab: Lab, overrides: Sequence[str], seed: int) -> Run:
    """The run of a single arm."""
    return lab.runs({"": overrides}, seed)[""]


def together(tasks: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The value of each task; the runs that they lack are asked for at once."""
    values, missing = {}, []
    for name, task in tasks.items():
        try:
            values[name] = task()
        except Untrained as request:
            missing += request.runs
    if missing:
        raise Untrained(missing)
    return values


def smallest(count: int, succeeds: Callable[[int], float]) -> float:
    """The smallest of 0 .. count - 1 from which on all succeed, by bisection.

    `count` where none succeeds; nan where the outcome of a run is not known.
    """
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        success = succeeds(middle)
        if math.isnan(success):
            return math.nan
        low, high = (low, middle) if success else (middle + 1, high)
    return float(low)


def where_known(value: float, outcome: bool) -> float:
    """1 or 0 for an outcome that was read off a value; nan where the value is not known."""
    return math.nan if math.isnan(value) else float(outcome)


def capped_loss(run: Run) -> float:
    """min(final, initial) validation loss; the initial one of a run that diverged; nan without."""
    capped = History(run).capped_loss
    return math.nan if capped is None else capped


def learnt(run: Run) -> float:
    """Nats below the loss of token frequencies alone."""
    frequencies = run.summary.corpus.unigram_validation_loss
    return math.nan if frequencies is None else frequencies - capped_loss(run)


def learns(run: Run) -> float:
    """1 of a run that learns, else 0; nan of a run that failed."""
    nats = learnt(run)
    return math.nan if math.isnan(nats) else float(nats > LEAST_LEARNT)


def losses(runs: Mapping[str, Run]) -> list[Point]:
    """A point for each arm's loss."""
    return [Point(name, math.nan, capped_loss(run)) for name, run in runs.items()]


def share(arm: str) -> str:
    """The name of the number of a rate."""
    return f"{arm}: share that learns"


def nats(arm: str) -> str:
    """The name of the number of `learnt`."""
    return f"{arm}: nats learnt"


def outcomes(runs: Mapping[str, Run]) -> dict[str, float]:
    """What controls read of each run: whether it learns, and how much."""
    found = {}
    for name, run in runs.items():
        found[share(name)], found[nats(name)] = learns(run), learnt(run)
    return found


def mostly_learns(arm: str) -> Prediction:
    """The prediction that an arm learns under most seeds; a control where it may be stuck."""
    return rate(share(arm), MOST, low=0.5)


def mostly_fails(arm: str) -> Prediction:
    """The prediction that an arm learns under a few seeds at most."""
    return rate(share(arm), "at most a half", high=0.5)


def has_learnt(arm: str) -> Prediction:
    """The control that an arm's runs learn, without which nothing can be read off them."""
    return control(sign(nats(arm), f"more than {LEAST_LEARNT}", LEAST_LEARNT))


MOST = "more than a half"  # twelve seeds out of twelve decide it, six of six do not
LOSS = AxisLabels("final validation loss (nats)")
XIONG = ("Xiong et al. 2020", "2002.04745", "section 3.2 and Figure 2; section 4 and Figure 4")
DEEPNET = ("Wang et al. 2022 (DeepNet)", "2203.00555")


TRIAL_WINDOWS = 16  # with 8, Post-LN often fails with this warm-up too


def trial(placement: str, warm_up: int) -> tuple[str, tuple[str, ...]]:
    """Name and overrides of an arm with or without warm-up."""
    return (
        f"{placement}, {'warm-up' if warm_up else 'no warm-up'}",
        arm(placement, warm_up=warm_up, windows=TRIAL_WINDOWS),
    )


@claim(
    "warm_up",
    block=TRAINING,
    title="Post-LN needs warm-up, and Pre-LN does not",
    source=Source(*XIONG),
    statement=(
        "Without warm-up Post-LN fails to train, and with it it recovers; Pre-LN trains as well "
        "without."
    ),
    setting=f"{setting(windows=TRIAL_WINDOWS)}, {WARM_UP} of them warm-up where there is one. "
    f"{LEARNS}",
    distance="scaled down",
    predictions=[
        paired_rate("post_ln: warm-up learns where none does not", f"of seeds that differ, {MOST}"),
        mostly_fails("post_ln, no warm-up"),
        mostly_learns("pre_ln, no warm-up"),
        law(
            "pre_ln: loss with warm-up less loss without (nats)",
            "without it no worse by 0.05",
            low=-0.05,
        ),
        control(mostly_learns("post_ln, warm-up")),
    ],
    axes=LOSS,
    meaning="If a Post-LN model does not learn, warm it up before anything else is changed.",
    remark="Earlier, with three seeds and a share of Pre-LN's learning in the place of an outcome: "
    "all of seeds 0 to 2 were stuck without warm-up, of seeds 100 to 102 one was not.",
)
def warm_up(lab: Lab, seed: int) -> Evidence:
    """Outcomes of both placements with and without warm-up, paired by seed."""
    arms = dict(trial(p, steps) for p in ("post_ln", "pre_ln") for steps in (0, WARM_UP))
    runs = lab.runs(arms, seed)
    with_it, without = learns(runs["post_ln, warm-up"]), learns(runs["post_ln, no warm-up"])
    gain = capped_loss(runs["pre_ln, warm-up"]) - capped_loss(runs["pre_ln, no warm-up"])
    return Evidence(
        {
            "post_ln: warm-up learns where none does not": with_it - without,
            "pre_ln: loss with warm-up less loss without (nats)": gain,
        }
        | outcomes(runs),
        losses(runs),
    )


LADDER = (0, 5, 10, 20, 40, 80)
LADDER_DEPTHS = (2, 4, DEEP)


@claim(
    "warm_up_depth",
    block=TRAINING,
    title="The warm-up that Post-LN needs grows with its depth; Pre-LN needs none at any",
    source=OWN,
    statement=(
        "The smallest warm-up with which a run learns, as with all longer ones, grows with the "
        "number of blocks under Post-LN and is none under Pre-LN."
    ),
    setting=(
        f"{setting('2, 4 or 8')}. {LEARNS}. Warm-ups of {', '.join(map(str, LADDER))} steps, "
        "searched by bisection, which takes it that a run learns with all longer ones; counted in "
        "rungs of this ladder, from 0 for none to 6 for more than 80 steps"
    ),
    distance="same",
    predictions=[
        paired_rate("post_ln: 8 blocks need more warm-up than 2", f"of seeds that differ, {MOST}"),
        rate("pre_ln, 8 blocks: share that needs none", MOST, low=0.5),
        control(rate("post_ln, 2 blocks: share with a warm-up that is enough", MOST, low=0.5)),
        *(shown(f"post_ln: rungs at {depth} blocks") for depth in LADDER_DEPTHS),
    ],
    axes=AxisLabels("smallest warm-up, rung of the ladder", "blocks L", log_x=True),
    meaning="Who deepens a Post-LN model has to lengthen its warm-up too.",
)
def warm_up_depth(lab: Lab, seed: int) -> Evidence:
    """A bisection over the ladder for each depth."""

    def needed(placement: str, depth: int) -> float:
        def succeeds(rung: int) -> float:
            return learns(one(lab, arm(placement, n_layers=depth, warm_up=LADDER[rung]), seed))

        return smallest(len(LADDER), succeeds)

    tasks = {f"post_ln {depth}": ("post_ln", depth) for depth in LADDER_DEPTHS}
    tasks["pre_ln"] = ("pre_ln", DEEP)
    rungs = together({name: partial(needed, *task) for name, task in tasks.items()})
    evidence = Evidence()
    of_post = [rungs[f"post_ln {depth}"] for depth in LADDER_DEPTHS]
    evidence.curve("post_ln", LADDER_DEPTHS, of_post)
    evidence.curve("pre_ln", [DEEP], [rungs["pre_ln"]])
    evidence.values = {
        "post_ln: 8 blocks need more warm-up than 2": float(np.sign(of_post[-1] - of_post[0])),
        "pre_ln, 8 blocks: share that needs none": where_known(
            rungs["pre_ln"], rungs["pre_ln"] == 0
        ),
        "post_ln, 2 blocks: share with a warm-up that is enough": where_known(
            of_post[0], of_post[0] < len(LADDER)
        ),
    } | {
        f"post_ln: rungs at {depth} blocks": found
        for depth, found in zip(LADDER_DEPTHS, of_post, strict=True)
    }
    return evidence


WITHOUT = f"{setting(DEEP)}, no warm-up. {LEARNS}"
# Where Post-LN fails without warm-up. DeepNorm is a shortcut's scale and an initialisation: each of
# them alone, and both.
COLD = {
    "pre_ln": arm("pre_ln", n_layers=DEEP),
    "post_ln": arm("post_ln", n_layers=DEEP),
    "post_ln, init=deepnorm": arm("post_ln", n_layers=DEEP, init="deepnorm"),
    "post_ln, init=gpt2": arm("post_ln", n_layers=DEEP, init="gpt2"),
    "deepnorm, init=xavier": arm("deepnorm", n_layers=DEEP),
    "deepnorm": arm("deepnorm", n_layers=DEEP, init="deepnorm"),
}


def cold(lab: Lab, seed: int, *names: str) -> dict[str, Run]:
    """The runs of some of these arms."""
    return lab.runs({name: COLD[name] for name in names}, seed)


@claim(
    "deepnorm_trains",
    block=TRAINING,
    title="DeepNorm trains where Post-LN does not",
    source=Source(*DEEPNET, "section 5; Figure 6"),
    statement="DeepNorm, with its initialisation, trains at depths at which Post-LN fails.",
    setting=f"{WITHOUT}. The paper's runs have warm-up and 20 to 1,000 layers, at which Post-LN "
    "fails with it; here it is its absence that makes Post-LN fail",
    distance="scaled down",
    predictions=[
        mostly_learns("deepnorm"),
        paired_rate("deepnorm learns where post_ln does not", f"of seeds that differ, {MOST}"),
        control(mostly_fails("post_ln")),
        control(mostly_learns("pre_ln")),
        shown(nats(f"post_ln, {LADDER[-1]} steps of warm-up")),
    ],
    axes=LOSS,
    remark="Earlier DeepNorm's initialisation, which is smaller than Xavier's, was not told apart "
    "from its shortcut: see deepnorm_init and deepnorm_shortcut.",
)
def deepnorm_trains(lab: Lab, seed: int) -> Evidence:
    """Paired outcomes of DeepNorm as published and of Post-LN."""
    runs = cold(lab, seed, "pre_ln", "post_ln", "deepnorm")
    warmed = f"post_ln, {LADDER[-1]} steps of warm-up"
    runs[warmed] = one(lab, arm("post_ln", n_layers=DEEP, warm_up=LADDER[-1]), seed)
    return Evidence(
        {
            "deepnorm learns where post_ln does not": learns(runs["deepnorm"])
            - learns(runs["post_ln"]),
        }
        | outcomes(runs),
        losses(runs),
    )


def alone(lab: Lab, seed: int, part: str) -> Evidence:
    """Outcomes of one part of DeepNorm, of both and of neither."""
    runs = cold(lab, seed, "post_ln", part, "deepnorm")
    return Evidence(
        {
            f"{part}: loss less that of both parts (nats)": capped_loss(runs[part])
            - capped_loss(runs["deepnorm"]),
        }
        | outcomes(runs),
        losses(runs),
    )


def about_part(part: str) -> list[Prediction]:
    """The predictions of a claim about one part of DeepNorm."""
    return [
        mostly_learns(part),
        control(mostly_fails("post_ln")),
        shown(f"{part}: loss less that of both parts (nats)"),
        has_learnt("deepnorm"),
    ]


@claim(
    "deepnorm_init",
    block=TRAINING,
    title="DeepNorm's initialisation alone lets Post-LN train without warm-up",
    source=OWN,
    statement="Post-LN with DeepNorm's smaller initialisation, and its own shortcut, learns.",
    setting=WITHOUT,
    distance="same",
    predictions=about_part("post_ln, init=deepnorm"),
    axes=LOSS,
    meaning="Compare DeepNorm with Post-LN under the same initialisation.",
)
def deepnorm_init(lab: Lab, seed: int) -> Evidence:
    """The initialisation without the shortcut's scale."""
    return alone(lab, seed, "post_ln, init=deepnorm")


@claim(
    "deepnorm_shortcut",
    block=TRAINING,
    title="DeepNorm's scaled shortcut alone lets Post-LN train without warm-up",
    source=OWN,
    statement="DeepNorm with Xavier's initialisation in the place of its own learns.",
    setting=WITHOUT,
    distance="same",
    predictions=about_part("deepnorm, init=xavier"),
    axes=LOSS,
)
def deepnorm_shortcut(lab: Lab, seed: int) -> Evidence:
    """The shortcut's scale without the initialisation."""
    return alone(lab, seed, "deepnorm, init=xavier")


@claim(
    "init_trains",
    block=TRAINING,
    title="Under N(0, 0.02) Post-LN trains without warm-up",
    source=OWN,
    statement=(
        "Whether Post-LN needs warm-up depends on the initialisation: where it fails without under "
        "Xavier, it trains under N(0, 0.02)."
    ),
    setting=WITHOUT,
    distance="same",
    predictions=[
        mostly_learns("post_ln, init=gpt2"),
        control(mostly_fails("post_ln")),
        has_learnt("pre_ln"),
    ],
    axes=LOSS,
    meaning="A report that Post-LN needs warm-up, or does not, has to name the initialisation.",
)
def init_trains(lab: Lab, seed: int) -> Evidence:
    """Outcomes of the two initialisations."""
    runs = cold(lab, seed, "pre_ln", "post_ln", "post_ln, init=gpt2")
    return Evidence(outcomes(runs), losses(runs))


CHAIN_STEPS, CHAIN_FIRST, CHAIN_WINDOWS = 40, 4, 2
CHAIN_LINKS = (
    "change of the output in the first steps",
    "growth of the norms' inputs",
    "fall of the first block's gradient",
    "fall of the output's change",
)


CHAIN_LOSS = "post_ln less deepnorm: loss at the last step (nats)"


@claim(
    "deepnet_chain",
    block=TRAINING,
    title="Without warm-up Post-LN's output jumps, its norms' inputs grow, its gradient vanishes "
    "and it stops to change",
    source=Source(*DEEPNET, "section 3.2; Figure 4"),
    statement=(
        "The first updates change a Post-LN model's output too much; that enlarges the inputs of "
        "its norms, through which gradients are divided by that size; so the gradient of the first "
        "blocks vanishes, and with it the change of the output."
    ),
    setting=(
        f"{setting(steps=CHAIN_STEPS).replace('cosine', 'constant rate')}, float64. Each "
        "number is the logarithm of a ratio under Post-LN less the same under DeepNorm with its "
        "initialisation: of the RMS by "
        f"which the logits of {CHAIN_WINDOWS} fixed windows move in {CHAIN_FIRST} steps, the first "
        "or the last; of the RMS of the sums before the norms, mean over blocks, and of the norm "
        "of the first block's gradient, at the last step to the first. The paper compares with "
        "its Post-LN-init, in encoder-decoders of 6 to 24 + 24 layers"
    ),
    distance="scaled down",
    predictions=[
        *(sign(f"post_ln less deepnorm: {link}", "above 0") for link in CHAIN_LINKS),
        control(sign(CHAIN_LOSS, f"Post-LN is stuck: more than {LEAST_LEARNT}", LEAST_LEARNT)),
    ],
    axes=AxisLabels("change of the output since the beginning (RMS of logits)", "step"),
    meaning="What a stuck Post-LN run shows, large norm inputs and a first block without gradient, "
    "was done in its first steps.",
)
def deepnet_chain(lab: Lab, seed: int) -> Evidence:
    """The four links of the chain, from the first steps of two models."""
    evidence = Evidence()
    links, loss = {}, {}
    for placement, init in (("post_ln", "xavier"), ("deepnorm", "deepnorm")):
        moved, loss[placement], links[placement] = first_steps(lab, placement, init, seed)
        evidence.curve(placement, range(1, CHAIN_STEPS + 1), moved)
    evidence.values[CHAIN_LOSS] = loss["post_ln"] - loss["deepnorm"]
    for name, post, deep in zip(CHAIN_LINKS, links["post_ln"], links["deepnorm"], strict=True):
        evidence.values[f"post_ln less deepnorm: {name}"] = post - deep
    return evidence


def first_steps(
    lab: Lab, placement: str, init: str, seed: int
) -> tuple[list[float], float, tuple[float, ...]]:
    """How far the output has moved after each step, the last loss, and the chain's links."""
    settings = micro(lab, f"norm={placement}", f"init={init}", f"optimizer.lr={RATE}")
    model = lab.model(settings, seed, DEPTH)
    optimizer = make_optimizer(model, settings.optimizer)
    fixed, _ = lab.text_batch(settings, seed, CHAIN_WINDOWS, step=CHAIN_STEPS)
    sums = [add for block in model.blocks for add in (block.add_1, block.add_2)]
    logits, inputs, gradients = [], [], []
    for step in range(CHAIN_STEPS):
        with torch.no_grad(), outputs(sums) as before_norms:
            logits.append(model(fixed))
        inputs.append(sum(rms(x) for x in before_norms) / len(sums))
        windows = lab.text_batch(settings, seed, WINDOWS, step)
        optimizer.zero_grad()
        loss = language_model_loss(model, *windows, "float64")
        loss.backward()
        norms = [p.grad.norm() for p in model.blocks[0].parameters() if p.grad is not None]
        gradients.append(torch.stack(norms).norm().item())
        optimizer.step()
    with torch.no_grad():
        logits.append(model(fixed))
    early, late = rms(logits[CHAIN_FIRST] - logits[0]), rms(logits[-1] - logits[-1 - CHAIN_FIRST])
    links = (
        math.log(early),
        math.log(inputs[-1] / inputs[0]),
        math.log(gradients[0] / gradients[-1]),
        math.log(early / late),
    )
    return [rms(x - logits[0]) for x in logits[1:]], loss.item(), links


def rms(x: Tensor) -> float:
    """Root mean square."""
    return x.square().mean().sqrt().item()


HYBRID = ("Zhuo et al. 2025 (HybridNorm)", "2503.04598")
HYBRID_SETTING = (
    f"{setting()}, {WARM_UP} of them warm-up; init=gpt2_scaled, which is Megatron's; HybridNorm "
    "in all blocks"
)


@claim(
    "hybrid_trains",
    block=TRAINING,
    title="HybridNorm converges with a small initialisation and warm-up",
    source=Source(
        *HYBRID, "issue 2 of its repository BryceZhuo/HybridNorm", read="secondary source"
    ),
    statement=(
        "To a user whose model did not converge with the normalised shortcut of HybridNorm, and "
        "did with Pre-LN's, its authors answered that it converges with Megatron's initialisation "
        "and enough warm-up."
    ),
    setting=f"{HYBRID_SETTING}. The other arms have Xavier, or no warm-up. {LEARNS}",
    distance="scaled down",
    predictions=[
        sign(nats("hybrid"), f"it learns: more than {LEAST_LEARNT}", LEAST_LEARNT),
        has_learnt("pre_ln"),
        shown("hybrid, no warm-up: nats learnt"),
        shown("hybrid, init=xavier: nats learnt"),
        shown("hybrid, init=xavier, no warm-up: nats learnt"),
    ],
    axes=LOSS,
)
def hybrid_trains(lab: Lab, seed: int) -> Evidence:
    """What HybridNorm learns with both initialisations, with and without warm-up."""
    arms = {
        "hybrid": arm("hybrid", init="gpt2_scaled", warm_up=WARM_UP),
        "hybrid, no warm-up": arm("hybrid", init="gpt2_scaled"),
        "hybrid, init=xavier": arm("hybrid", warm_up=WARM_UP),
        "hybrid, init=xavier, no warm-up": arm("hybrid"),
        "pre_ln": arm("pre_ln", init="gpt2_scaled", warm_up=WARM_UP),
    }
    runs = lab.runs(arms, seed)
    return Evidence({nats(name): learnt(run) for name, run in runs.items()}, losses(runs))


@claim(
    "hybrid_loss",
    block=TRAINING,
    title="HybridNorm ends below Pre-LN",
    source=Source(*HYBRID, "abstract; doubted in issue 5 of its repository", read="abstract"),
    statement=(
        "HybridNorm outperforms Pre-LN; a user of the official code found no difference, with the "
        "variant whose first block is Pre-LN, at 1.2B parameters and 40B tokens."
    ),
    setting=HYBRID_SETTING,
    distance="scaled down",
    predictions=[
        sign("pre_ln less hybrid: loss (nats)", "at least 0.02 below", 0.02),
        has_learnt("pre_ln"),
    ],
    axes=LOSS,
)
def hybrid_loss(lab: Lab, seed: int) -> Evidence:
    """Losses with the initialisation and warm-up that the authors recommend."""
    arms = {p: arm(p, init="gpt2_scaled", warm_up=WARM_UP) for p in ("hybrid", "pre_ln")}
    runs = lab.runs(arms, seed)
    difference = capped_loss(runs["pre_ln"]) - capped_loss(runs["hybrid"])
    return Evidence(
        {"pre_ln less hybrid: loss (nats)": difference, nats("pre_ln"): learnt(runs["pre_ln"])},
        losses(runs),
    )
