"""GPT-J. Wang and Komatsuzaki 2021, https://github.com/kingoflolz/mesh-transformer-jax."""

from gpt.families.family import Family, enter
from gpt.families.gpt2 import sizes
from gpt.families.tensors import both
from gpt.families.values import Computed, Only, Values, refused


def share_that_turns(width: float, values: Values) -> float:
    """Of each head's features."""
    head = values["n_embd"] // values["n_head"]
    if width % 2 or not 2 <= width <= head:
        raise refused(
            "rotary_dim", width, f"must be an even number in [2, {head}], of a head's features"
        )
    return width / head


ROTARY_DIM = Computed(
    "rotary_dim",
    "position.fraction",
    to_ours=share_that_turns,
    to_theirs=lambda config: config.turned_dim,
)

enter(
    Family(
        "gptj",
        "GPTJForCausalLM",
        holds={
            "attention.out_bias": False,
            "head_bias": True,
            "parallel.enabled": True,
            "parallel.shared": True,
            "position.kind": "rotary",
            "position.interleaved": True,
        },
        entries=(*sizes(drop_rate=0.0, tied=False), ROTARY_DIM, Only("rotary", True)),
        pairs=(
            *both("transformer.wte", "token_embedding"),
            *both("transformer.h.{}.ln_1", "blocks.{}.norm_1"),
            *both("transformer.h.{}.attn.q_proj", "blocks.{}.attention.qkv", "query"),
            *both("transformer.h.{}.attn.k_proj", "blocks.{}.attention.qkv", "key"),
            *both("transformer.h.{}.attn.v_proj", "blocks.{}.attention.qkv", "value"),
            *both("transformer.h.{}.attn.out_proj", "blocks.{}.attention.out_proj"),
            *both("transformer.h.{}.mlp.fc_in", "blocks.{}.feed_forward.fc_in"),
            *both("transformer.h.{}.mlp.fc_out", "blocks.{}.feed_forward.fc_out"),
            *both("transformer.ln_f", "final_norm"),
            *both("lm_head", "head"),
        ),
        prefix="transformer.",
        ignored=(r"\.attn\.(masked_)?bias$",),
    )
)
