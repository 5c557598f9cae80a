"""LLaMA. Touvron et al. 2023, arXiv 2302.13971.

Later families use its words, and most of its parts. `input_layernorm` stands before the
attention, `post_attention_layernorm` before the feed-forward.
"""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers
from gpt.families.tensors import Pair, both
from gpt.families.values import ACTIVATIONS, Entry, same

RMS = {"norm.kind": "rms_norm", "position.kind": "rotary"}
GATED = {"feed_forward.gated": True}
SIZES: tuple[Entry, ...] = (
    same("vocab_size", "vocab_size"),
    same("max_position_embeddings", "context_length"),
    same("hidden_size", "emb_dim"),
    same("num_hidden_layers", "n_layers"),
    same("num_attention_heads", "n_heads"),
    same("num_key_value_heads", "attention.kv_heads", default=None),
    same("head_dim", "attention.head_dim", default=None),
    same("intermediate_size", "feed_forward.dim"),
    same("attention_dropout", "attention.drop_rate", default=0.0),
    same("rms_norm_eps", "norm.eps"),
)
SILU = same("hidden_act", "activation", default="silu", words=ACTIVATIONS)
ATTENTION_BIAS = same("attention_bias", "qkv_bias", "attention.out_bias", default=False)
MLP_BIAS = same("mlp_bias", "bias", default=False)
TIED = same("tie_word_embeddings", "tie_head", default=True)
UNTIED = same("tie_word_embeddings", "tie_head", default=False)

OUTSIDE: tuple[Pair, ...] = (
    *both("model.embed_tokens", "token_embedding"),
    *both("model.norm", "final_norm"),
    *both("lm_head", "head"),
)
ATTENTION: tuple[Pair, ...] = (
    *both("model.layers.{}.self_attn.q_proj", "blocks.{}.attention.qkv", "query"),
    *both("model.layers.{}.self_attn.k_proj", "blocks.{}.attention.qkv", "key"),
    *both("model.layers.{}.self_attn.v_proj", "blocks.{}.attention.qkv", "value"),
    *both("model.layers.{}.self_attn.o_proj", "blocks.{}.attention.out_proj"),
)
QK_NORM: tuple[Pair, ...] = (
    *both("model.layers.{}.self_attn.q_norm", "blocks.{}.attention.query_norm"),
    *both("model.layers.{}.self_attn.k_norm", "blocks.{}.attention.key_norm"),
)
FEED_FORWARD: tuple[Pair, ...] = (
    *both("model.layers.{}.mlp.gate_proj", "blocks.{}.feed_forward.fc_in", "gate"),
    *both("model.layers.{}.mlp.up_proj", "blocks.{}.feed_forward.fc_in", "up"),
    *both("model.layers.{}.mlp.down_proj", "blocks.{}.feed_forward.fc_out"),
)
PRE: tuple[Pair, ...] = (
    *both("model.layers.{}.input_layernorm", "blocks.{}.norm_1"),
    *both("model.layers.{}.post_attention_layernorm", "blocks.{}.norm_2"),
)
PREFIX = "model."
IGNORED = (r"rotary_emb\.inv_freq$",)

enter(
    Family(
        "llama",
        "LlamaForCausalLM",
        holds=RMS | GATED,
        entries=(
            *SIZES,
            SILU,
            ATTENTION_BIAS,
            MLP_BIAS,
            UNTIED,
            Layers(theta=10000.0, windowed=False),
        ),
        pairs=(*OUTSIDE, *PRE, *ATTENTION, *FEED_FORWARD),
        prefix=PREFIX,
        ignored=IGNORED,
    )
)
