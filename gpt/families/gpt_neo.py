"""GPT-Neo. Black et al. 2021, doi 10.5281/zenodo.5297715. Its logits have no 1/sqrt(head_dim)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt.config import GPTConfig
from gpt.families.family import Family, enter
from gpt.families.tensors import both
from gpt.families.values import ACTIVATIONS, Values, refused, same, value_of, whole_of


@dataclass(frozen=True)
class Windows:
    """Local layers, with a window, among global ones. See values.Entry."""

    names: tuple[str, ...] = ("attention_types", "attention_layers", "window_size")

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """See Entry."""
        return {"attention.windows": "window_size"}

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        types = value_of(values, "attention_types", [[["global", "local"], 12]])
        kinds = spelled(types, values["num_layers"])
        if value_of(values, "attention_layers", kinds) != kinds:
            valid = "must be what attention_types spells out"
            raise refused("attention_layers", values["attention_layers"], valid)
        window = whole_of(values, "window_size", 256)
        return {"attention.windows": [window * (kind == "local") for kind in kinds]}

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """See Entry."""
        windows = config.attention.windows
        kinds = ["local" if window else "global" for window in windows]
        return {"attention_types": [[kinds, 1]], "window_size": max(windows) or 256}


def spelled(types: Any, depth: int) -> list[str]:
    """The kind of each layer, from patterns that each have a count. Raises ConfigError."""
    if isinstance(types, list) and all(is_pattern(each, depth) for each in types):
        kinds = [kind for pattern, count in types for kind in count * pattern]
        if len(kinds) == depth:
            return kinds
    valid = f"must be global or local for each of {depth} layers, as [[[global, local], 6]]"
    raise refused("attention_types", types, valid)


def is_pattern(value: object, depth: int) -> bool:
    """Whether it is a list of kinds and how often they follow, at most once for each layer."""
    match value:
        case [list(kinds), int(count)]:
            return 0 <= count <= depth and all(kind in ("global", "local") for kind in kinds)
    return False


enter(
    Family(
        "gpt_neo",
        "GPTNeoForCausalLM",
        holds={"attention.scale": 1.0},
        entries=(
            same("vocab_size", "vocab_size"),
            same("max_position_embeddings", "context_length"),
            same("hidden_size", "emb_dim"),
            same("num_layers", "n_layers"),
            same("num_heads", "n_heads"),
            same("intermediate_size", "feed_forward.dim", default=None),
            same("activation_function", "activation", default="gelu_new", words=ACTIVATIONS),
            same("resid_dropout", "drop_rate", default=0.0),
            same("embed_dropout", "embedding.drop_rate", default=0.0),
            same("attention_dropout", "attention.drop_rate", default=0.0),
            same("layer_norm_epsilon", "norm.eps", default=1e-5),
            same("tie_word_embeddings", "tie_head", default=True),
            Windows(),
        ),
        pairs=(
            *both("transformer.wte", "token_embedding"),
            *both("transformer.wpe", "position_embedding"),
            *both("transformer.h.{}.ln_1", "blocks.{}.norm_1"),
            *both("transformer.h.{}.attn.attention.q_proj", "blocks.{}.attention.qkv", "query"),
            *both("transformer.h.{}.attn.attention.k_proj", "blocks.{}.attention.qkv", "key"),
            *both("transformer.h.{}.attn.attention.v_proj", "blocks.{}.attention.qkv", "value"),
            *both("transformer.h.{}.attn.attention.out_proj", "blocks.{}.attention.out_proj"),
            *both("transformer.h.{}.ln_2", "blocks.{}.norm_2"),
            *both("transformer.h.{}.mlp.c_fc", "blocks.{}.feed_forward.fc_in"),
            *both("transformer.h.{}.mlp.c_proj", "blocks.{}.feed_forward.fc_out"),
            *both("transformer.ln_f", "final_norm"),
            *both("lm_head", "head"),
        ),
        prefix="transformer.",
        ignored=(r"\.attention\.(masked_)?bias$",),
    )
)
