"""GPT-OSS. OpenAI 2025, arXiv 2508.10925.

Experts' matrices are stored as (experts, n_in, n_out), with a feature of the gate and one of what
it multiplies by turns.
"""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers
from gpt.families.llama import (
    ATTENTION,
    GATED,
    IGNORED,
    OUTSIDE,
    PRE,
    PREFIX,
    RMS,
    SIZES,
    UNTIED,
)
from gpt.families.tensors import ALTERNATING, TRANSPOSED, Pair, both
from gpt.families.values import Only, same

YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
}

enter(
    Family(
        "gpt_oss",
        "GptOssForCausalLM",
        holds=RMS
        | GATED
        | {"attention.sinks": True, "feed_forward.offset": 1.0, "activation": "quick_gelu"},
        entries=(
            *SIZES,
            same("attention_bias", "qkv_bias", "attention.out_bias", default=True),
            same("num_local_experts", "experts.count"),
            same("num_experts_per_tok", "experts.active"),
            same("swiglu_limit", "feed_forward.clamp", default=7.0),
            UNTIED,
            Only("swiglu_alpha", 1.702),
            Only("hidden_act", "silu"),
            Layers(
                theta=150000.0,
                sliding=lambda values, layer: layer % 2 == 0,
                scaling=YARN,
            ),
        ),
        pairs=(
            *OUTSIDE,
            *PRE,
            *ATTENTION,
            Pair("model.layers.{}.self_attn.sinks", "blocks.{}.attention.sinks"),
            *both("model.layers.{}.mlp.router", "blocks.{}.feed_forward.router"),
            Pair(
                "model.layers.{}.mlp.experts.gate_up_proj",
                "blocks.{}.feed_forward.fc_in.weight",
                layout=ALTERNATING,
            ),
            Pair(
                "model.layers.{}.mlp.experts.gate_up_proj_bias",
                "blocks.{}.feed_forward.fc_in.bias",
                layout=ALTERNATING,
            ),
            Pair(
                "model.layers.{}.mlp.experts.down_proj",
                "blocks.{}.feed_forward.fc_out.weight",
                layout=TRANSPOSED,
            ),
            Pair(
                "model.layers.{}.mlp.experts.down_proj_bias",
                "blocks.{}.feed_forward.fc_out.bias",
            ),
        ),
        prefix=PREFIX,
        ignored=IGNORED,
        no_effect=("experts_per_token", "initial_context_length", "router_aux_loss_coef"),
    )
)
