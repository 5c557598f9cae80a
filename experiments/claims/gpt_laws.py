"""The laws of the theorems, asked of this project's own GPT at initialisation."""

from experiments.claims.claim import (
    GPT_LAW,
    AxisLabels,
    Evidence,
    Source,
    claim,
    control,
    law,
    power,
    sign,
    slope,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    DEPTHS,
    MICRO_SETTING,
    ff_weights,
    grad_norm,
    micro,
    text_loss,
)


@claim(
    "depth_law_gpt",
    block=GPT_LAW,
    title="In a GPT, too, the last gradient falls as one over the root of the depth under Pre-LN",
    source=Source("Xiong et al. 2020", "2002.04745", "Theorem 1, section 3.3; Figure 3 (c, d)"),
    statement=(
        "The rates of Theorem 1, log-log slopes 0 under Post-LN and -1/2 under Pre-LN, in a model "
        "whose attention is not uniform and whose inputs are text."
    ),
    setting=f"{MICRO_SETTING}, Xavier; L = 2 to 32",
    distance="other architecture",
    predictions=[
        law("post_ln: slope in L", "0, within 0.1", -0.1, 0.1),
        law("pre_ln: slope in L", "minus 1/2, within 0.1", -0.6, -0.4),
        control(sign("no_norm: slope in L", "without norms it grows, faster than L", 1.0)),
    ],
    axes=AxisLabels("gradient norm of W_2 in the last block", "blocks L", log_x=True, log_y=True),
    guides=[
        power("Theorem 1: slope 0", 0.0, "post_ln"),
        power("Theorem 1: slope -1/2", -0.5, "pre_ln"),
    ],
)
def depth_law_gpt(lab: Lab, seed: int) -> Evidence:
    """Slope over all depths of the norm of the mean loss's gradient."""
    evidence = Evidence()
    for placement in ("post_ln", "pre_ln", "no_norm"):
        settings = micro(lab, f"norm={placement}", "init=xavier")
        norms = []
        for depth in DEPTHS:
            model, loss = text_loss(lab, settings, seed, depth)
            norms.append(grad_norm(loss, ff_weights(model)[-1]))
        evidence.values[f"{placement}: slope in L"] = slope(DEPTHS, norms)
        if placement != "no_norm":
            evidence.curve(placement, DEPTHS, norms)
    return evidence
