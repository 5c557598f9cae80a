"""Gemma 3, its text models. Gemma Team 2025, arXiv 2503.19786.

The embeddings are multiplied by sqrt(emb_dim); norms stand before and after each branch.
"""

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
    SIZES,
    TIED,
)
from gpt.families.tensors import both
from gpt.families.values import ACTIVATIONS, Computed, same, whole_of

FACTOR = Computed(
    "hidden_size",
    "embedding.factor",
    to_ours=lambda width, values: width**0.5,
    to_theirs=lambda config: config.emb_dim,
)
SCALE = Computed(
    "query_pre_attn_scalar",
    "attention.scale",
    to_ours=lambda scalar, values: scalar**-0.5,
    to_theirs=lambda config: round((config.attention.scale or 1.0) ** -2),
    default=256,
)

enter(
    Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        holds=RMS
        | GATED
        | {
            "norm.placement": "sandwich",
            "norm.kind": "zero_centred_rms_norm",
            "norm.qk": "head",
            "bias": False,
        },
        entries=(
            *SIZES,
            same("hidden_activation", "activation", default="gelu_pytorch_tanh", words=ACTIVATIONS),
            ATTENTION_BIAS,
            TIED,
            FACTOR,
            SCALE,
            Layers(
                theta=1000000.0,
                sliding=lambda values, layer: (
                    (layer + 1) % whole_of(values, "sliding_window_pattern", 6) != 0
                ),
                local=("rope_local_base_freq", 10000.0),
                by_kind=True,
                also=("sliding_window_pattern",),
            ),
        ),
        pairs=(
            *OUTSIDE,
            *ATTENTION,
            *QK_NORM,
            *FEED_FORWARD,
            *both("model.layers.{}.input_layernorm", "blocks.{}.norm_1"),
            *both("model.layers.{}.post_attention_layernorm", "blocks.{}.out_norm_1"),
            *both("model.layers.{}.pre_feedforward_layernorm", "blocks.{}.norm_2"),
            *both("model.layers.{}.post_feedforward_layernorm", "blocks.{}.out_norm_2"),
        ),
        prefix=PREFIX,
        ignored=IGNORED,
        no_effect=("_sliding_window_pattern",),
    )
)
