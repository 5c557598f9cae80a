"""OLMo 3. Team Olmo 2025, arXiv 2512.13961. Its QK-norm spans all heads together."""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers
from gpt.families.llama import (
    ATTENTION,
    ATTENTION_BIAS,
    FEED_FORWARD,
    GATED,
    IGNORED,
    OUTSIDE,
    PREFIX,
    QK_NORM,
    RMS,
    SILU,
    SIZES,
    UNTIED,
)
from gpt.families.tensors import both

enter(
    Family(
        "olmo3",
        "Olmo3ForCausalLM",
        holds=RMS
        | GATED
        | {"norm.placement": "reordered", "norm.qk": "projection", "bias": False}
        | {"position.in_float32": True},
        entries=(
            *SIZES,
            SILU,
            ATTENTION_BIAS,
            UNTIED,
            Layers(
                theta=500000.0,
                sliding=lambda values, layer: (layer + 1) % 4 != 0,
                by_kind=True,
            ),
        ),
        pairs=(
            *OUTSIDE,
            *ATTENTION,
            *QK_NORM,
            *FEED_FORWARD,
            *both("model.layers.{}.post_attention_layernorm", "blocks.{}.norm_1"),
            *both("model.layers.{}.post_feedforward_layernorm", "blocks.{}.norm_2"),
        ),
        prefix=PREFIX,
        ignored=IGNORED,
    )
)
