"""Claims about training, measured in short runs that claims can share."""

import math
from collections.abc import Mapping

from experiments.analysis.histories import History
from experiments.analysis.runs import Run
from experiments.claims.claim import (
    TRAINING,
    AxisLabels,
    Evidence,
    Point,
    Source,
    claim,
    control,
    law,
    paired_rate,
    rate,
)
from experiments.claims.lab import Lab

STEPS, WARM_UP, WINDOWS = 120, 60, 8
MICRO_SETTING = (
    "GPT of width 64, 4 heads, {blocks} blocks, characters of the King James Bible, {windows} "
    "windows of 64 per step, AdamW at {rate}, cosine, Xavier unless said, no clipping; {steps} "
    "steps"
)
LEARNS = (
    "A run learns if its validation loss ends more than 0.1 nats below that of token frequencies "
    "alone"
)
LEAST_LEARNT = 0.1


def arm(
    placement: str,
    *overrides: str,
    n_layers: int = 6,
    rate: str = "3e-3",
    warm_up: int = 0,
    steps: int = STEPS,
    windows: int = WINDOWS,
    init: str = "xavier",
) -> tuple[str, ...]:
    """Overrides of an arm's training runs; further ones come last."""
    return (
        "model=micro",
        "tokenizer=char",
        f"norm={placement}",
        f"init={init}",
        f"model.n_layers={n_layers}",
        f"optimizer.lr={rate}",
        f"schedule.warmup_steps={warm_up}",
        f"trainer.steps={steps}",
        f"trainer.batch_size={windows}",
        f"trainer.eval_every={steps}",
        "trainer.probe_every=null",
        "trainer.end_probes=false",
        "generate.tokens=0",
        "pictures=false",
        *overrides,
    )


def setting(
    blocks: object = 6, rate: str = "3e-3", steps: int = STEPS, windows: int = WINDOWS
) -> str:
    """The text of a claim's setting."""
    return MICRO_SETTING.format(blocks=blocks, rate=rate, steps=steps, windows=windows)


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


LOSS = AxisLabels("final validation loss (nats)")


@claim(
    "warm_up",
    block=TRAINING,
    title="Post-LN needs warm-up, and Pre-LN does not",
    source=Source(
        "Xiong et al. 2020", "2002.04745", "section 3.2 and Figure 2; section 4 and Figure 4"
    ),
    statement=(
        "Without warm-up Post-LN fails to train, and with it it recovers; Pre-LN trains as well "
        "without."
    ),
    setting=f"{setting()}, {WARM_UP} of them warm-up where there is one. {LEARNS}",
    distance="scaled down",
    predictions=[
        paired_rate(
            "post_ln: warm-up learns where none does not", "of seeds that differ, more than half"
        ),
        rate("pre_ln, no warm-up: share that learns", "at least 0.75", low=0.75),
        law(
            "pre_ln: loss with warm-up less loss without (nats)",
            "without it no worse by 0.05",
            low=-0.05,
        ),
        control(rate("post_ln, warm-up: share that learns", "at least a half", low=0.5)),
    ],
    axes=LOSS,
    meaning="If a Post-LN model does not learn, warm it up before anything else is changed.",
)
def warm_up(lab: Lab, seed: int) -> Evidence:
    """Outcomes of both placements with and without warm-up, paired by seed."""
    runs = lab.runs(
        {
            f"{placement}, {'warm-up' if steps else 'no warm-up'}": arm(placement, warm_up=steps)
            for placement in ("post_ln", "pre_ln")
            for steps in (0, WARM_UP)
        },
        seed,
    )
    with_it, without = learns(runs["post_ln, warm-up"]), learns(runs["post_ln, no warm-up"])
    gain = capped_loss(runs["pre_ln, warm-up"]) - capped_loss(runs["pre_ln, no warm-up"])
    return Evidence(
        {
            "post_ln: warm-up learns where none does not": with_it - without,
            "pre_ln, no warm-up: share that learns": learns(runs["pre_ln, no warm-up"]),
            "pre_ln: loss with warm-up less loss without (nats)": gain,
            "post_ln, warm-up: share that learns": with_it,
        },
        losses(runs),
    )
