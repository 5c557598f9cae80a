"""OPT. Zhang et al. 2022, arXiv 2205.01068.

Of its two tables of embeddings the positions have two rows before the first token's. A layer's
`final_layer_norm` is that of its feed-forward.
"""

from gpt.families.family import Family, enter
from gpt.families.tensors import both
from gpt.families.values import ACTIVATIONS, Computed, Only, same

FINAL_NORM = Computed(
    "_remove_final_layer_norm",
    "norm.final",
    to_ours=lambda removed, values: False if removed else None,
    to_theirs=lambda config: config.norm.placement == "pre_ln" and not config.norm.final,
    default=False,
    kind=bool,
)

enter(
    Family(
        "opt",
        "OPTForCausalLM",
        holds={"embedding.drop_rate": 0.0, "norm.eps": 1e-5, "position.offset": 2},
        entries=(
            same("vocab_size", "vocab_size"),
            same("max_position_embeddings", "context_length"),
            same("hidden_size", "emb_dim"),
            same("word_embed_proj_dim", "embedding.dim", default=None),
            same("num_hidden_layers", "n_layers"),
            same("num_attention_heads", "n_heads"),
            same("ffn_dim", "feed_forward.dim"),
            same("activation_function", "activation", default="relu", words=ACTIVATIONS),
            same("dropout", "drop_rate", default=0.1),
            same("attention_dropout", "attention.drop_rate", default=0.0),
            same("enable_bias", "qkv_bias", "bias", default=True),
            same("tie_word_embeddings", "tie_head", default=True),
            same(
                "do_layer_norm_before",
                "norm.placement",
                default=True,
                words={True: "pre_ln", False: "post_ln"},
            ),
            FINAL_NORM,
            Only("layer_norm_elementwise_affine", True),
        ),
        pairs=(
            *both("model.decoder.embed_tokens", "token_embedding"),
            *both("model.decoder.embed_positions", "position_embedding"),
            *both("model.decoder.project_in", "project_in"),
            *both("model.decoder.layers.{}.self_attn.q_proj", "blocks.{}.attention.qkv", "query"),
            *both("model.decoder.layers.{}.self_attn.k_proj", "blocks.{}.attention.qkv", "key"),
            *both("model.decoder.layers.{}.self_attn.v_proj", "blocks.{}.attention.qkv", "value"),
            *both("model.decoder.layers.{}.self_attn.out_proj", "blocks.{}.attention.out_proj"),
            *both("model.decoder.layers.{}.self_attn_layer_norm", "blocks.{}.norm_1"),
            *both("model.decoder.layers.{}.fc1", "blocks.{}.feed_forward.fc_in"),
            *both("model.decoder.layers.{}.fc2", "blocks.{}.feed_forward.fc_out"),
            *both("model.decoder.layers.{}.final_layer_norm", "blocks.{}.norm_2"),
            *both("model.decoder.final_layer_norm", "final_norm"),
            *both("model.decoder.project_out", "project_out"),
            *both("lm_head", "head"),
        ),
        prefix="model.",
    )
)
