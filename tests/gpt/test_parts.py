"""Norms, activations and attention against their equations; config; initialisation."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from configs import changed, small_model
from equations import ACTIVATION_EQUATIONS, NORM_EQUATIONS, closed_form
from gpt import (
    ACTIVATIONS,
    GPT,
    INITS,
    NORMS,
    AttentionConfig,
    ConfigError,
    FeedForwardConfig,
    GPTConfig,
    InitConfig,
    parameter_count,
)
from gpt.attention import SelfAttention
from gpt.init import embedding_std

SMALL = GPTConfig(11, 8, 12, 3, 2)


@pytest.mark.parametrize("name", NORMS)
def test_norm_is_its_equation(name: str) -> None:
    torch.manual_seed(0)
    module = NORMS[name](12, 1e-5).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = 3 * torch.randn(4, 12, dtype=torch.float64) + 1
    torch.testing.assert_close(module(x), NORM_EQUATIONS[name](x, module), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_equation(name: str) -> None:
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    torch.testing.assert_close(
        ACTIVATIONS[name](x), ACTIVATION_EQUATIONS[name](x), atol=1e-12, rtol=1e-12
    )
    assert (ACTIVATIONS[name](x.float()) - ACTIVATION_EQUATIONS[name](x)).abs().max() < 1e-5


def test_gelu_in_float32_is_the_book_form() -> None:
    x = torch.linspace(-6, 6, 1001)
    assert (ACTIVATIONS["gelu"](x) - ACTIVATION_EQUATIONS["gelu"](x)).abs().max() < 1e-6


def test_attention_is_its_equation() -> None:
    """The fused kernel against the weights that `scores` gives, head by head."""
    torch.manual_seed(0)
    attention = SelfAttention(dataclasses.replace(SMALL, qkv_bias=True)).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    query, key, value = attention.qkv(x).chunk(3, dim=-1)
    logits, weights = attention.scores(x)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        for t in range(5):
            row = torch.einsum("bd,bsd->bs", query[:, t, part], key[:, : t + 1, part]) / 2.0
            torch.testing.assert_close(logits[:, head, t, : t + 1], row)
            torch.testing.assert_close(weights[:, head, t, : t + 1], row.softmax(-1))
        assert not weights[:, head].triu(1).any()
        heads.append(weights[:, head] @ value[..., part])
    torch.testing.assert_close(attention(x), attention.out_proj(torch.cat(heads, dim=-1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_heads": 5}, "n_heads=5 is not valid: must divide emb_dim=12"),
        ({"emb_dim": 0}, r"emb_dim=0 is not valid: must be a whole number in \[1, 1,000,000\]"),
        ({"vocab_size": -3}, "vocab_size=-3"),
        ({"context_length": 2.5}, "context_length=2.5"),
        ({"n_layers": -1}, "n_layers=-1"),
        ({"n_layers": True}, "n_layers=True"),
        ({"drop_rate": 1.5}, r"drop_rate=1.5 is not valid: must be a finite number in \[0, 1\]"),
        ({"drop_rate": float("nan")}, "drop_rate=nan"),
        ({"norm.eps": -1.0}, "norm.eps=-1.0"),
        (
            {"feed_forward.ratio": 0.3},
            "feed_forward.ratio=0.3 is not valid: times emb_dim=12 must be a whole number",
        ),
        ({"qkv_bias": 1}, "qkv_bias=1 is not valid: must be true or false"),
        ({"norm.final": "yes"}, "norm.final='yes'"),
        ({"norm.placement": "postln"}, "did you mean 'post_ln'.* no_norm, .*post_ln, pre_ln"),
        ({"activation": "Gelu"}, "did you mean 'gelu'"),
        ({"activation": "gellu"}, "did you mean 'gelu'.*squared_relu"),
        ({"norm.kind": "layernorm"}, "did you mean 'layer_norm'"),
        ({"init.scheme": "xavir"}, "did you mean 'xavier'"),
    ],
)
def test_config_errors_name_field_value_and_what_is_valid(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        changed(SMALL, change)


def test_a_flat_name_is_refused_in_place_of_a_section() -> None:
    with pytest.raises(ConfigError, match="norm='rms_norm' is not valid: must be a NormConfig"):
        dataclasses.replace(SMALL, norm="rms_norm")  # type: ignore[arg-type]


def test_a_config_comes_back_from_its_values() -> None:
    changes = {"norm.placement": "mix_ln", "norm.options.fraction": 0.5, "norm.qk": False}
    for config in (SMALL, changed(SMALL, changes)):
        assert GPTConfig.from_values(dataclasses.asdict(config)) == config


FLAT = {  # as version 0.4 wrote it
    "vocab_size": 11,
    "context_length": 8,
    "emb_dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": False,
    "bias": True,
    "causal": True,
    "placement": "pre_ln",
    "shortcut": True,
    "norm": "layer_norm",
    "norm_eps": 1e-5,
    "final_norm": None,
    "qk_norm": None,
    "fraction": None,
    "embedding_norm": None,
    "scale_start": None,
    "activation": "gelu",
    "ff_ratio": 4.0,
    "tie_head": False,
    "init": "torch",
    "init_std": 0.02,
}


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ({}, {}),
        (
            {"placement": "post_ln", "norm": "rms_norm"},
            {"placement": "post_ln", "kind": "rms_norm"},
        ),
        ({"norm_eps": 0.1, "final_norm": False}, {"eps": 0.1, "final": False}),
        ({"qk_norm": True}, {"qk": True}),
        (
            {"placement": "mix_ln", "fraction": 0.5},
            {"placement": "mix_ln", "options.fraction": 0.5},
        ),
        (
            {"placement": "peri_ln", "embedding_norm": False},
            {"placement": "peri_ln", "options.embedding_norm": False},
        ),
        (
            {"placement": "reordered", "scale_start": 0.0},
            {"placement": "reordered", "options.scale_start": 0.0},
        ),
    ],
)
def test_flat_values_of_version_0_4_are_read(flat: dict[str, Any], nested: dict[str, Any]) -> None:
    expected = changed(SMALL, {f"norm.{name}": value for name, value in nested.items()})
    assert GPTConfig.from_values(FLAT | flat) == expected
    others = {
        "causal": False,
        "activation": "relu",
        "ff_ratio": 2.0,
        "init": "gpt2",
        "init_std": 1.0,
    }
    config = GPTConfig.from_values(FLAT | flat | others)
    assert config.norm == expected.norm
    assert config.attention == AttentionConfig(False)
    assert config.feed_forward == FeedForwardConfig(2.0)
    assert config.activation == "relu"
    assert config.init == InitConfig("gpt2", 1.0)


def test_sequence_longer_than_the_context() -> None:
    with pytest.raises(ConfigError, match=r"sequence length=9 .* context_length=8"):
        GPT(SMALL)(torch.zeros(1, 9, dtype=torch.long))


def test_initialisation_schemes() -> None:
    """Standard deviations and biases as documented; four sigma of the sampling error each."""
    width, layers = 64, 3

    def built(init: str) -> GPT:
        torch.manual_seed(0)
        return GPT(GPTConfig(500, 16, width, 4, layers, qkv_bias=True, init=InitConfig(init)))

    def has_std(weight: torch.Tensor, std: float) -> bool:
        return abs(weight.std().item() / std - 1) < 4 / math.sqrt(2 * weight.numel())

    gpt2, scaled, xavier, default = (
        built(name) for name in ("gpt2", "gpt2_scaled", "xavier", "torch")
    )
    for block, scaled_block, xavier_block, default_block in zip(
        gpt2.blocks, scaled.blocks, xavier.blocks, default.blocks, strict=True
    ):
        for weight in (block.attention.qkv.weight, block.feed_forward.fc_out.weight):
            assert has_std(weight, 0.02)
        assert has_std(scaled_block.attention.qkv.weight, 0.02)
        for weight in (
            scaled_block.attention.out_proj.weight,
            scaled_block.feed_forward.fc_out.weight,
        ):
            assert has_std(weight, 0.02 / math.sqrt(2 * layers))
        for weight in xavier_block.attention.qkv.weight.chunk(3):
            assert has_std(weight, math.sqrt(2 / (2 * width)))
        assert has_std(xavier_block.feed_forward.fc_in.weight, math.sqrt(2 / (5 * width)))
        bound = 1 / math.sqrt(width)
        default_weight = default_block.feed_forward.fc_in.weight
        assert 0.99 * bound < default_weight.abs().max() <= bound
        for linear in (block.attention.qkv, scaled_block.feed_forward.fc_in):
            assert not linear.bias.any()
        assert not xavier_block.attention.out_proj.bias.any()
        assert default_block.attention.out_proj.bias.any()
    assert has_std(gpt2.token_embedding.weight, 0.02)
    assert has_std(xavier.token_embedding.weight, 1.0)
    others = {"deepnorm", "sub_ln", "xiong"}  # in test_placement.py, with what they belong to
    assert set(INITS) == {"torch", "gpt2", "gpt2_scaled", "xavier"} | others


@pytest.mark.parametrize("scheme", INITS)
def test_embeddings_have_the_standard_deviation_of_the_scheme_or_their_own(scheme: str) -> None:
    """The numbers of their own are the scheme's, multiplied, and no other weight changes."""
    config = GPTConfig(4000, 500, 12, 3, 1, init=InitConfig(scheme))

    def drawn(**init: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        made = dataclasses.replace(config, init=InitConfig(scheme, **init))
        return GPT(made).state_dict()

    plain, own = drawn(), drawn(embedding_std=0.63)
    assert plain["token_embedding.weight"].std().item() == pytest.approx(
        embedding_std(config), 0.02
    )
    for name, weight in plain.items():
        if name in ("token_embedding.weight", "position_embedding.weight"):
            weight = weight * (0.63 / embedding_std(config))
        torch.testing.assert_close(own[name], weight, msg=name)
    assert not drawn(embedding_std=0.0)["token_embedding.weight"].any()
    zero = drawn(std=0.0, embedding_std=0.63)["token_embedding.weight"]
    assert zero.std().item() == pytest.approx(0.63, 0.02)


def test_without_positions_a_model_is_one_whose_vectors_are_zero() -> None:
    """Same weights, a table (context_length, emb_dim) fewer, and the mask alone breaks the tie."""
    plain = small_model({"position.kind": "none"})
    learned = small_model({"position.kind": "learned"}, seed=1)
    nn.init.zeros_(learned.position_embedding.get_parameter("weight"))
    missing = learned.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["position_embedding.weight"]
    tokens = torch.randint(0, 11, (3, 8))
    assert torch.equal(plain(tokens), learned(tokens))
    assert parameter_count(plain.config) == closed_form(plain.config)
    swapped = tokens[:, [1, 0, *range(2, 8)]]
    encoder = small_model({"position.kind": "none", "n_layers": 1, "attention.causal": False})
    torch.testing.assert_close(encoder(swapped)[:, -1], encoder(tokens)[:, -1])
