"""GPT-2. Radford et al. 2019, Language Models are Unsupervised Multitask Learners."""

from gpt.families.family import Family, enter
from gpt.families.tensors import TRANSPOSED, Pair, both
from gpt.families.values import ACTIVATIONS, Entry, Only, same


def conv1d(theirs: str, ours: str) -> list[Pair]:
    """A linear layer that multiplies from the left."""
    return both(theirs, ours, layout=TRANSPOSED)


def sizes(drop_rate: float, tied: bool) -> tuple[Entry, ...]:
    """What files in GPT-2's words say, with what holds where they are silent."""
    return (
        same("vocab_size", "vocab_size"),
        same("n_positions", "context_length"),
        same("n_embd", "emb_dim"),
        same("n_layer", "n_layers"),
        same("n_head", "n_heads"),
        same("n_inner", "feed_forward.dim", default=None),
        same("activation_function", "activation", default="gelu_new", words=ACTIVATIONS),
        same("resid_pdrop", "drop_rate", default=drop_rate),
        same("embd_pdrop", "embedding.drop_rate", default=drop_rate),
        same("attn_pdrop", "attention.drop_rate", default=drop_rate),
        same("layer_norm_epsilon", "norm.eps", default=1e-5),
        same("tie_word_embeddings", "tie_head", default=tied),
        Only("scale_attn_weights", True),
    )


enter(
    Family(
        "gpt2",
        "GPT2LMHeadModel",
        holds={"qkv_bias": True},
        entries=sizes(drop_rate=0.1, tied=True),
        pairs=(
            *both("transformer.wte", "token_embedding"),
            *both("transformer.wpe", "position_embedding"),
            *both("transformer.h.{}.ln_1", "blocks.{}.norm_1"),
            *conv1d("transformer.h.{}.attn.c_attn", "blocks.{}.attention.qkv"),
            *both(
                "transformer.h.{}.attn.c_proj", "blocks.{}.attention.out_proj", layout=TRANSPOSED
            ),
            *both("transformer.h.{}.ln_2", "blocks.{}.norm_2"),
            *conv1d("transformer.h.{}.mlp.c_fc", "blocks.{}.feed_forward.fc_in"),
            *both(
                "transformer.h.{}.mlp.c_proj", "blocks.{}.feed_forward.fc_out", layout=TRANSPOSED
            ),
            *both("transformer.ln_f", "final_norm"),
            *both("lm_head", "head"),
        ),
        prefix="transformer.",
        ignored=(r"\.attn\.(masked_)?bias$",),
        no_effect=("n_ctx",),
    )
)
