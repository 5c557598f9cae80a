"""GPT-NeoX and Pythia. Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv 2304.01373.

Query, key and value stand side by side head by head.
"""

from gpt.families.family import Family, enter
from gpt.families.layers import Layers
from gpt.families.tensors import BY_HEAD, both
from gpt.families.values import ACTIVATIONS, same

enter(
    Family(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        holds={"position.kind": "rotary"},
        entries=(
            same("vocab_size", "vocab_size"),
            same("max_position_embeddings", "context_length"),
            same("hidden_size", "emb_dim"),
            same("num_hidden_layers", "n_layers"),
            same("num_attention_heads", "n_heads"),
            same("intermediate_size", "feed_forward.dim"),
            same("hidden_act", "activation", default="gelu", words=ACTIVATIONS),
            same("hidden_dropout", "drop_rate", "embedding.drop_rate", default=0.0),
            same("attention_dropout", "attention.drop_rate", default=0.0),
            same("layer_norm_eps", "norm.eps", default=1e-5),
            same("tie_word_embeddings", "tie_head", default=False),
            same("use_parallel_residual", "parallel.enabled", default=True),
            same("attention_bias", "qkv_bias", "attention.out_bias", default=True),
            Layers(
                windowed=False,
                theta=10000.0,
                fraction=0.25,
                outside={"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
            ),
        ),
        pairs=(
            *both("gpt_neox.embed_in", "token_embedding"),
            *both("gpt_neox.layers.{}.input_layernorm", "blocks.{}.norm_1"),
            *both("gpt_neox.layers.{}.post_attention_layernorm", "blocks.{}.norm_2"),
            *both(
                "gpt_neox.layers.{}.attention.query_key_value",
                "blocks.{}.attention.qkv",
                layout=BY_HEAD,
            ),
            *both("gpt_neox.layers.{}.attention.dense", "blocks.{}.attention.out_proj"),
            *both("gpt_neox.layers.{}.mlp.dense_h_to_4h", "blocks.{}.feed_forward.fc_in"),
            *both("gpt_neox.layers.{}.mlp.dense_4h_to_h", "blocks.{}.feed_forward.fc_out"),
            *both("gpt_neox.final_layer_norm", "final_norm"),
            *both("lm_head", "head"),
        ),
        prefix="gpt_neox.",
        ignored=(r"\.attention\.(masked_)?bias$", r"\.rotary_emb\.inv_freq$"),
        older=(("embed_out.", "lm_head."),),
    )
)
