"""SmolLM3. Bakouch et al. 2025, https://huggingface.co/blog/smollm3.

Every 4th layer has no positions.
"""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers, turns
from gpt.families.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    FEED_FORWARD,
    GATED,
    IGNORED,
    MLP_BIAS,
    OUTSIDE,
    PRE,
    PREFIX,
    RMS,
    SILU,
    SIZES,
    TIED,
)

enter(
    Family(
        "smollm3",
        "SmolLM3ForCausalLM",
        holds=RMS | GATED,
        entries=(
            *SIZES,
            SILU,
            ATTENTION_BIAS,
            MLP_BIAS,
            TIED,
            Layers(
                theta=2000000.0,
                sliding=lambda values, layer: not turns(values, layer),
                switch="use_sliding_window",
                skips=True,
            ),
        ),
        pairs=(*OUTSIDE, *PRE, *ATTENTION, *FEED_FORWARD),
        prefix=PREFIX,
        ignored=IGNORED,
        no_effect=("max_window_layers",),
    )
)
