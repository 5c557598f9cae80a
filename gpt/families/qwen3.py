"""Qwen3. Yang et al. 2025, arXiv 2505.09388."""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers
from gpt.families.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    FEED_FORWARD,
    GATED,
    IGNORED,
    OUTSIDE,
    PRE,
    PREFIX,
    QK_NORM,
    RMS,
    SILU,
    SIZES,
    UNTIED,
)
from gpt.families.values import whole_of

enter(
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        holds=RMS | GATED | {"norm.qk": "head", "bias": False},
        entries=(
            *SIZES,
            SILU,
            ATTENTION_BIAS,
            UNTIED,
            Layers(
                theta=10000.0,
                sliding=lambda values, layer: layer >= whole_of(values, "max_window_layers", 28, 0),
                switch="use_sliding_window",
                also=("max_window_layers",),
            ),
        ),
        pairs=(*OUTSIDE, *PRE, *ATTENTION, *QK_NORM, *FEED_FORWARD),
        prefix=PREFIX,
        ignored=IGNORED,
    )
)
