"""Placements against the same structure in packages that others wrote, given the same weights.

Outputs and the gradients of all parameters. The reference runs on tensors made of our parameters
(`torch.func.functional_call`), so both sides are differentiated by the same ones, whatever the
reference calls, shapes or offsets its own. Packages are imported inside the tests, since every
worker collects this file.

Nothing installable beside them has residual_dual (which x-transformers had up to 1.44), siamese,
b2t, span, two_hop, keel or ln_scaling.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from configs import changed
from gpt import GPT, PLACEMENTS, GPTConfig, InitConfig
from gpt.block import Block

SMALL = GPTConfig(11, 9, 12, 3, 4)
TOLERANCE = 1e-10

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # theirs


def assert_same(
    ours: nn.Module,
    reference: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    arguments: Mapping[str, Any] | None = None,
    absent: tuple[str, ...] = (),
    tolerance: float = TOLERANCE,
) -> None:
    """Equal outputs, and equal gradients of everything, of ours(x) and reference(x, **arguments).

    `weights` gives each parameter of the reference, made of ours. Of our parameters the reference
    may lack those whose names end in `absent`; they must be zero.
    """
    assert set(weights) == {name for name, _ in reference.named_parameters()}
    out = ours(x)
    expected = functional_call(reference, dict(weights), (x,), dict(arguments or {}))
    expected = expected if isinstance(expected, Tensor) else expected[0]
    assert out.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)
    sources = dict(ours.named_parameters()) | ({"x": x} if x.requires_grad else {})
    direction = torch.randn_like(out)
    mine = torch.autograd.grad(out, list(sources.values()), direction)
    theirs = torch.autograd.grad(expected, list(sources.values()), direction, allow_unused=True)
    for (name, source), a, b in zip(sources.items(), mine, theirs, strict=True):
        if b is None:
            assert name.endswith(absent), name
            assert not source.any(), name
        else:
            torch.testing.assert_close(
                a, b, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )


def drawn(module: nn.Module, absent: tuple[str, ...] = ()) -> Any:
    """`module` in float64, no two norms, scales or biases alike, those in `absent` zero."""
    module.double()
    for name, parameter in module.named_parameters():
        if name.endswith(absent):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=1.0 if parameter.ndim < 2 else 0.3)
    return module


# x-transformers

XNORM = {"gamma": "weight", "g": "weight", "beta": "bias", "pre_tanh_scale": "slope"}


def as_in_x_transformers(name: str, model: GPT) -> Tensor:
    """The value, made of our parameters, of the one that x-transformers calls `name`."""
    match name.split("."):
        case ["token_emb", "emb", "weight"]:
            return model.token_embedding.weight
        case ["pos_emb", "emb", "weight"]:  # it divides by sqrt(emb_dim)
            return model.position_embedding.weight * 12**0.5
        case ["post_emb_norm", kind]:
            return model.entry.get_parameter(XNORM[kind])
        case ["attn_layers", "final_norm", kind]:
            return model.final_norm.get_parameter(XNORM[kind])
        case ["to_logits", "weight"]:
            return model.head.weight
        case ["attn_layers", "layers", index, *rest]:
            return in_sublayer(rest, model.blocks[int(index) // 2], 1 + int(index) % 2)
    raise AssertionError(name)


def in_sublayer(rest: list[str], block: Block, sublayer: int) -> Tensor:
    """The same for a parameter of the attention, sublayer 1, or the feed-forward, sublayer 2."""
    attention, feed_forward = block.attention, block.feed_forward
    match rest:
        case ["0", slot, kind]:  # before the branch, after it, after the sum
            name = f"out_norm_{sublayer}"
            name = name if slot == "1" and name in block.norms else f"norm_{sublayer}"
            return block.get_submodule(name).get_parameter(XNORM[kind])
        case ["2", "residual_scale"]:
            return block.get_parameter(f"weight_{sublayer}")
        case ["1", "to_q" | "to_k" | "to_v" as which, "weight"]:
            return attention.qkv.weight.chunk(3)["qkv".index(which[-1])]
        case ["1", "to_out", "weight"]:
            return attention.out_proj.weight
        case ["1", "head_scale_params"]:
            return attention.get_parameter("head_scale").view(1, 3, 1, 1)
        case ["1", "q_rmsnorm" | "k_rmsnorm" | "value_rmsnorm" as which, "gamma"]:
            long = {"q": "query", "k": "key", "v": "value"}[which[0]]  # one scale per head, plus 1
            return (attention.get_parameter(f"{long}_norm.weight") - 1).expand(3, 1, 4)
        case ["1", "ff", "0", "0", "weight"]:
            return feed_forward.fc_in.weight
        case ["1", "ff", "1", kind]:
            return feed_forward.get_submodule("norm").get_parameter(XNORM[kind])
        case ["1", "ff", _, "weight"]:
            return feed_forward.fc_out.weight
    raise AssertionError(rest)


ALL_NORMS = ("layer_norm", "rms_norm", "dyt")
STATISTICS = ("layer_norm", "rms_norm")  # x-transformers keeps dyt to pre-norm
BEFORE, AFTER, SUM = 0, 1, 2  # where x-transformers has its norms

# Placement, our options, the norms for which there is a reference, x-transformers' options, and
# the norms taken out of it again: (sublayers counted through the model, slot).
X_CASES: list[tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any], list[Any]]] = [
    ("pre_ln", {}, ALL_NORMS, {}, []),
    ("pre_ln", {"attention.causal": False}, ("layer_norm",), {"causal": False}, []),
    ("pre_ln", {"norm.qk": True}, ("rms_norm",), {"attn_qk_rmsnorm": True}, []),
    ("post_ln", {}, STATISTICS, {"pre_norm": False}, []),
    ("no_norm", {}, ("layer_norm",), {"pre_norm_has_final_norm": False}, [(range(8), BEFORE)]),
    ("sandwich", {}, ALL_NORMS, {"sandwich_norm": True}, []),
    ("peri_ln", {}, ALL_NORMS, {"sandwich_norm": True}, []),
    (
        "peri_ln",
        {"norm.options.embedding_norm": True},
        ("layer_norm",),
        {"sandwich_norm": True, "post_emb_norm": True},
        [],
    ),
    ("reordered", {}, ALL_NORMS, {"sandwich_norm": True}, [(range(8), BEFORE)]),
    ("deepnorm", {}, STATISTICS, {"pre_norm": False, "scale_residual_constant": 8**0.25}, []),
    ("admin", {}, STATISTICS, {"pre_norm": False, "scale_residual": True}, []),
    (
        "mix_ln",
        {"norm.final": False},
        STATISTICS,
        {"pre_and_post_norm": True},
        [(range(2), BEFORE), (range(2, 8), SUM)],
    ),
    (
        "hybrid",
        {"norm.final": False},
        ("rms_norm",),
        {"pre_norm": False, "attn_qk_rmsnorm": True, "attn_value_rmsnorm": True},
        [(range(1, 8, 2), SUM)],
    ),
    (
        "hybrid_star",
        {"norm.final": False},
        ("rms_norm",),
        {"pre_and_post_norm": True, "attn_qk_rmsnorm": True, "attn_value_rmsnorm": True},
        [(range(2, 8), BEFORE), (range(1), SUM), (range(1, 8, 2), SUM)],
    ),
    (
        "per_block",
        {"norm.final": False},
        ("layer_norm",),
        {"pre_and_post_norm": True},
        [(range(2), BEFORE), (range(2, 4), SUM), (range(4, 6), BEFORE), (range(6, 8), SUM)],
    ),
    (
        "normformer",
        {},
        ("layer_norm",),
        {"sandwich_norm": True, "attn_head_scale": True, "ff_post_act_ln": True},
        [(range(1, 8, 2), AFTER)],
    ),
]
X_NORMS = {
    "layer_norm": {},
    "rms_norm": {"use_rmsnorm": True},
    "dyt": {"use_dynamic_tanh": True},
}
X_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu_exact": {},
    "silu": {"ff_swish": True},
    "squared_relu": {"ff_relu_squared": True},
}


@pytest.mark.parametrize(
    ("placement", "changes", "norm", "options", "removed"),
    [
        pytest.param(placement, changes, norm, options, removed, id=f"{placement}-{norm}-{number}")
        for number, (placement, changes, norms, options, removed) in enumerate(X_CASES)
        for norm in norms
    ],
)
def test_x_transformers(
    placement: str,
    changes: dict[str, Any],
    norm: str,
    options: dict[str, Any],
    removed: list[tuple[range, int]],
) -> None:
    """Whole models, from tokens to logits, against x-transformers' TransformerWrapper.

    Bridged: it has no biases at all except dyt's, and no eps in its rms_norm; what is listed as
    removed, since it has norms there only together with others. Its flash attention is torch's,
    and alone stays in float64.
    """
    from x_transformers.x_transformers import Decoder, Encoder, TransformerWrapper

    torch.manual_seed(0)
    activation = list(X_ACTIVATIONS)[len(placement) % 3]  # each activation somewhere
    described = {
        "norm.placement": placement,
        "norm.kind": norm,
        "norm.eps": 0.0 if norm == "rms_norm" else 1e-5,
        "activation": activation,
        "bias": False,
    }
    absent = ("bias",) if norm == "layer_norm" else ()
    model = drawn(GPT(changed(SMALL, described | changes)), absent)
    options = {**options, **X_NORMS[norm], **X_ACTIVATIONS[activation]}
    embedding_norm = options.pop("post_emb_norm", False)
    layers = (Decoder if options.pop("causal", True) else Encoder)(
        dim=12,
        depth=4,
        heads=3,
        attn_dim_head=4,
        attn_flash=True,
        ff_no_bias=True,
        norm_add_unit_offset=False,
        **options,
    )
    for sublayers, slot in removed:
        for index in sublayers:
            layers.layers[index][0][slot] = None
    reference = TransformerWrapper(
        num_tokens=11, max_seq_len=9, attn_layers=layers, post_emb_norm=embedding_norm
    ).double()
    weights = {name: as_in_x_transformers(name, model) for name, _ in reference.named_parameters()}
    assert_same(model, reference, weights, torch.randint(0, 11, (3, 9)), absent=absent)


# transformers

LLAMA = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "attention.out_proj",
    "self_attn.q_norm": "attention.query_norm",
    "self_attn.k_norm": "attention.key_norm",
    "mlp.gate_proj": "feed_forward.fc_in",
    "mlp.down_proj": "feed_forward.fc_out",
}
PRE = {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_2"}
SIZES = {
    "hidden_size": 12,
    "intermediate_size": 48,
    "num_attention_heads": 3,
    "attn_implementation": "sdpa",  # the eager one casts to float32
}
LLAMA_SIZES = {**SIZES, "num_key_value_heads": 3, "head_dim": 4, "rms_norm_eps": 1e-5}
# transformers' RMS norms compute in float32, whose rounding of 6e-8 grows on the way.
FLOAT32 = 1e-5


class Ones(nn.Module):
    """In place of a gated layer's second factor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones((), dtype=x.dtype)


def our_part(block: Block, part: str, kind: str) -> Tensor:
    """`kind`, weight or bias, of a part of our block, of which qkv has three."""
    if part in ("query", "key", "value"):
        chunks = block.attention.qkv.get_parameter(kind).chunk(3)
        return chunks[("query", "key", "value").index(part)]
    return block.get_submodule(part).get_parameter(kind)


def assert_same_block(
    block: Block,
    reference: nn.Module,
    names: Mapping[str, str],
    arguments: Mapping[str, Any] | None = None,
    offset: float = 0.0,
    tolerance: float = TOLERANCE,
) -> None:
    """As `assert_same`, `names` giving our part for each of theirs; `offset` is in their norms."""
    reference.double()
    weights = {}
    for name, _ in reference.named_parameters():
        theirs, _, kind = name.rpartition(".")
        shift = offset if "norm" in theirs else 0.0
        weights[name] = our_part(block, names[theirs], kind) - shift
    x = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    assert_same(block, reference, weights, x, arguments, tolerance=tolerance)


def our_block(changes: Mapping[str, Any]) -> Block:
    torch.manual_seed(0)
    config = changed(SMALL, changes)
    block: Block = drawn(PLACEMENTS[config.norm.placement].build(config, layer=0))
    return block


def no_rotation(width: int = 4) -> dict[str, tuple[Tensor, Tensor]]:
    """Rotary embeddings by an angle of 0."""
    ones = torch.ones(1, 9, width, dtype=torch.float64)
    return {"position_embeddings": (ones, torch.zeros_like(ones))}


def test_gpt2() -> None:
    """pre_ln with a tied head and all biases: whole models against GPT2LMHeadModel."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = drawn(GPT(dataclasses.replace(SMALL, qkv_bias=True, tie_head=True)))
    theirs = GPT2Config(
        vocab_size=11,
        n_positions=9,
        n_embd=12,
        n_layer=4,
        n_head=3,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation="sdpa",
        use_cache=False,
    )
    names = {
        "ln_1": "norm_1",
        "ln_2": "norm_2",
        "attn.c_attn": "attention.qkv",
        "attn.c_proj": "attention.out_proj",
        "mlp.c_fc": "feed_forward.fc_in",
        "mlp.c_proj": "feed_forward.fc_out",
    }
    weights = {
        "transformer.wte.weight": model.token_embedding.weight,
        "transformer.wpe.weight": model.position_embedding.weight,
        "transformer.ln_f.weight": model.final_norm.get_parameter("weight"),
        "transformer.ln_f.bias": model.final_norm.get_parameter("bias"),
    }
    for layer, block in enumerate(model.blocks):
        for name, ours in names.items():
            for kind in ("weight", "bias"):
                value = our_part(block, ours, kind)
                weights[f"transformer.h.{layer}.{name}.{kind}"] = (
                    value.T if value.ndim == 2 else value  # it multiplies from the left
                )
    reference = GPT2LMHeadModel(theirs).double()
    assert_same(model, reference, weights, torch.randint(0, 11, (3, 9)))


def test_bert() -> None:
    """post_ln without a causal mask, all biases, exact gelu: against BertLayer."""
    from transformers.models.bert.modeling_bert import BertConfig, BertLayer

    config = BertConfig(
        **SIZES,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    block = our_block(
        {
            "norm.placement": "post_ln",
            "qkv_bias": True,
            "attention.causal": False,
            "activation": "gelu_exact",
        }
    )
    names = {
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "attention.out_proj",
        "attention.output.LayerNorm": "norm_1",
        "intermediate.dense": "feed_forward.fc_in",
        "output.dense": "feed_forward.fc_out",
        "output.LayerNorm": "norm_2",
    }
    assert_same_block(block, BertLayer(config), names)


def test_persimmon() -> None:
    """pre_ln with QK-norm by layer_norm, squared relu: against PersimmonDecoderLayer.

    Bridged: no rotation; query, key and value stand side by side head by head.
    """
    from transformers.models.persimmon.modeling_persimmon import (
        PersimmonConfig,
        PersimmonDecoderLayer,
    )

    config = PersimmonConfig(
        **SIZES, layer_norm_eps=1e-5, hidden_dropout=0.0, attention_dropout=0.0
    )
    block = our_block({"norm.qk": True, "qkv_bias": True, "activation": "squared_relu"})
    reference = PersimmonDecoderLayer(config, 0).double()
    names = {
        **PRE,
        "self_attn.dense": "attention.out_proj",
        "self_attn.q_layernorm": "attention.query_norm",
        "self_attn.k_layernorm": "attention.key_norm",
        "mlp.dense_h_to_4h": "feed_forward.fc_in",
        "mlp.dense_4h_to_h": "feed_forward.fc_out",
    }
    weights = {
        f"{theirs}.{kind}": our_part(block, ours, kind)
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        by_kind = our_part(block, "attention.qkv", kind).unflatten(0, (3, 3, 4))
        weights[f"self_attn.query_key_value.{kind}"] = by_kind.transpose(0, 1).flatten(0, 2)
    x = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    assert_same(block, reference, weights, x, no_rotation(2))


def test_qwen3() -> None:
    """pre_ln with QK-norm by rms_norm: against Qwen3DecoderLayer, its norms in float32.

    Bridged: no rotation, no gate.
    """
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Config, Qwen3DecoderLayer

    block = our_block(
        {"norm.kind": "rms_norm", "norm.qk": True, "bias": False, "activation": "silu"}
    )
    reference = Qwen3DecoderLayer(Qwen3Config(**LLAMA_SIZES), 0)
    reference.mlp.up_proj = Ones()
    assert_same_block(block, reference, LLAMA | PRE, no_rotation(), tolerance=FLOAT32)


@pytest.mark.parametrize("placement", ["sandwich", "peri_ln"])
def test_gemma3(placement: str) -> None:
    """sandwich and peri_ln with QK-norm by rms_norm: against Gemma3DecoderLayer, norms in float32.

    Bridged: no rotation, no gate, the scales of its norms are offset by 1.
    """
    from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer, Gemma3TextConfig

    block = our_block(
        {"norm.placement": placement, "norm.kind": "rms_norm", "norm.qk": True, "bias": False}
    )
    config = Gemma3TextConfig(
        **LLAMA_SIZES, query_pre_attn_scalar=4, hidden_activation="gelu_pytorch_tanh"
    )
    reference = Gemma3DecoderLayer(config, 0)
    reference.mlp.up_proj = Ones()
    names = LLAMA | {
        "input_layernorm": "norm_1",
        "post_attention_layernorm": "out_norm_1",
        "pre_feedforward_layernorm": "norm_2",
        "post_feedforward_layernorm": "out_norm_2",
    }
    assert_same_block(block, reference, names, no_rotation(), offset=1.0, tolerance=FLOAT32)


def test_olmo2() -> None:
    """reordered with QK-norm by rms_norm: against Olmo2DecoderLayer, its norms in float32.

    Bridged: no rotation, no gate; one head, since its QK-norm spans all heads together.
    """
    from transformers.models.olmo2.modeling_olmo2 import Olmo2Config, Olmo2DecoderLayer

    block = our_block(
        {
            "norm.placement": "reordered",
            "norm.kind": "rms_norm",
            "norm.qk": True,
            "n_heads": 1,
            "bias": False,
            "activation": "silu",
        }
    )
    one_head = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 12}
    reference = Olmo2DecoderLayer(Olmo2Config(**LLAMA_SIZES | one_head), 0)
    reference.mlp.up_proj = Ones()
    names = LLAMA | {
        "post_attention_layernorm": "norm_1",
        "post_feedforward_layernorm": "norm_2",
    }
    assert_same_block(block, reference, names, no_rotation(12), tolerance=FLOAT32)


class InATuple(nn.Module):
    """(A x,), as Swinv2Layer wants it of its attention."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        return (self.attention(x),)


def test_swin_v2() -> None:
    """reordered by layer_norm: against Swinv2Layer, with one window of 3 x 3 tokens.

    Bridged: our attention in place of its scaled cosine attention.
    """
    from transformers.models.swinv2.modeling_swinv2 import Swinv2Config, Swinv2Layer

    block = our_block({"norm.placement": "reordered", "qkv_bias": True, "activation": "gelu_exact"})
    config = Swinv2Config(window_size=3, layer_norm_eps=1e-5, hidden_dropout_prob=0.0)
    reference = Swinv2Layer(config, 12, (3, 3), 3)
    reference.attention = InATuple(block.attention)
    names = {
        "attention.attention.qkv": "attention.qkv",
        "attention.attention.out_proj": "attention.out_proj",
        "layernorm_before": "norm_1",
        "intermediate.dense": "feed_forward.fc_in",
        "output.dense": "feed_forward.fc_out",
        "layernorm_after": "norm_2",
    }
    assert_same_block(block, reference, names, {"input_dimensions": (3, 3)})


def test_kosmos2() -> None:
    """sub_ln by layer_norm with all biases: against Kosmos2TextBlock, by Magneto's group."""
    from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextBlock, Kosmos2TextConfig

    block = our_block({"norm.placement": "sub_ln", "qkv_bias": True})
    config = Kosmos2TextConfig(
        embed_dim=12,
        ffn_dim=48,
        attention_heads=3,
        layer_norm_eps=1e-5,
        activation_function="gelu_new",
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        attn_implementation="sdpa",
    )
    names = {
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "key",
        "self_attn.v_proj": "value",
        "self_attn.out_proj": "attention.out_proj",
        "self_attn.inner_attn_ln": "attention.norm",
        "self_attn_layer_norm": "norm_1",
        "ffn.fc1": "feed_forward.fc_in",
        "ffn.fc2": "feed_forward.fc_out",
        "ffn.ffn_layernorm": "feed_forward.norm",
        "final_layer_norm": "norm_2",
    }
    assert_same_block(block, Kosmos2TextBlock(config), names)


def test_bitnet() -> None:
    """sub_ln by rms_norm: against BitNetDecoderLayer, its norms in float32.

    Bridged: no rotation, no gate.
    """
    from transformers.models.bitnet.modeling_bitnet import BitNetConfig, BitNetDecoderLayer

    block = our_block(
        {
            "norm.placement": "sub_ln",
            "norm.kind": "rms_norm",
            "bias": False,
            "activation": "squared_relu",
        }
    )
    reference = BitNetDecoderLayer(BitNetConfig(**LLAMA_SIZES, hidden_act="relu2"), 0)
    reference.mlp.up_proj = Ones()
    names = (
        LLAMA
        | PRE
        | {"self_attn.attn_sub_norm": "attention.norm", "mlp.ffn_sub_norm": "feed_forward.norm"}
    )
    assert_same_block(block, reference, names, no_rotation(), tolerance=FLOAT32)


def test_gpt2_initialisation() -> None:
    """init=gpt2_scaled against what GPT2LMHeadModel draws, standard deviation by deviation."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    scaled = InitConfig("gpt2_scaled")
    model = GPT(GPTConfig(500, 100, 192, 3, 3, qkv_bias=True, tie_head=True, init=scaled))
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=500,
            n_positions=100,
            n_embd=192,
            n_layer=3,
            n_head=3,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    ours = dict(model.named_parameters())
    reference = list(theirs.named_parameters())  # the same order: embeddings, blocks, final norm

    def deviations(weights: list[Tensor]) -> list[float]:
        return sorted(weight.std().item() for weight in weights if weight.ndim == 2)

    assert deviations(list(ours.values())) == pytest.approx(
        deviations([weight for _, weight in reference]), rel=0.02
    )  # 19,200 draws at least, whose own error is 0.5 %
    for values in (list(ours.items()), reference):
        for name, weight in values:
            if weight.ndim == 1:
                expected = torch.zeros_like(weight) if name.endswith("bias") else torch.ones(192)
                assert torch.equal(weight, expected), name
