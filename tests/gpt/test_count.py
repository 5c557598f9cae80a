"""Counts and costs of models against PyTorch's own counter, against loops, and against figures."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from configs import SMALL, changed
from gpt import GPT, ConfigError, GPTConfig, active_parameter_count, cached_values, flops_per_token
from gpt import parameter_count as count
from gpt.cache import LayerCache, Reading
from gpt.count import MEASURES, attention_flops_per_token, matched, seen_tokens
from gpt.published import COUNTS_ALONE, PUBLISHED, LatentSizes

MIXTURE = {"experts.count": 5, "experts.active": 2, "feed_forward.gated": True, "norm.eps": 1e-6}
MODERN = {
    "position.kind": "rotary",
    "attention.kv_heads": 1,
    "attention.windows": [3, 0],
    "attention.sinks": True,
    "norm.kind": "rms_norm",
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("changes", [{}, MIXTURE, {"feed_forward.gated": True}])
def test_flops_are_those_that_pytorch_counts(changes: dict[str, Any], tied: bool) -> None:
    """Its counter takes each pair of tokens, as an attention without a mask needs it."""
    config = changed(SMALL, changes | {"tie_head": tied, "attention.causal": False})
    model = GPT(config)
    tokens = torch.randint(config.vocab_size, (3, 7))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens)
    assert counter.get_total_flops() == 3 * 7 * flops_per_token(config, 7)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_pairs_of_tokens_that_see_each_other_count_once(length: int) -> None:
    config = changed(SMALL, MODERN)
    for layer, window in enumerate([3, 0, 3, 0]):
        seen = [sum(t - s < (window or length) for s in range(t + 1)) for t in range(length)]
        assert seen_tokens(config, layer, length) == pytest.approx(sum(seen) / length)
    total = sum(seen_tokens(config, layer, length) for layer in range(4))
    assert attention_flops_per_token(config, length) == pytest.approx(2 * 2 * 12 * total)


@pytest.mark.parametrize("tied", [True, False])
def test_active_parameters_are_those_that_a_token_reaches(tied: bool) -> None:
    """One token's gradient touches them, and one row of each table of embeddings."""
    config = changed(SMALL, MIXTURE | {"tie_head": tied})
    model = GPT(config)
    model(torch.tensor([[1]])).square().sum().backward()
    reached = {
        name: int((parameter.grad != 0).flatten(1).any(1).sum())
        if "feed_forward.fc_" in name
        else parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    active = 0
    for name, parameter in model.named_parameters():
        if "feed_forward.fc_" in name:
            assert reached[name] == 2  # experts
            active += 2 * parameter[0].numel()
        elif "embedding" not in name or (tied and name.startswith("token")):
            active += parameter.numel()
    assert active_parameter_count(config) == active < count(config)


def test_cached_values_are_the_keys_and_values_that_are_kept() -> None:
    config = changed(SMALL, MODERN | {"attention.windows": [0]})
    model = GPT(config)
    reading = Reading([0], 6, torch.device("cpu"))
    model.reading = reading
    for block in model.blocks:
        block.attention.cache = LayerCache(reading)
    reading.advance(6)
    model(torch.zeros(1, 6, dtype=torch.long))
    caches = [block.attention.cache for block in model.blocks]
    kept = sum(part.numel() for cache in caches for part in cache.pair)  # type: ignore
    assert cached_values(config, 6) == kept == 4 * 2 * 6 * 4
    windowed = changed(SMALL, MODERN)
    assert cached_values(windowed, 6) == 2 * 2 * (6 + 3) * 4
    assert cached_values(windowed) == cached_values(windowed, config.context_length)


@pytest.mark.parametrize("by", MEASURES)
@pytest.mark.parametrize("changes", [{"feed_forward.gated": True}, MODERN | MIXTURE])
def test_a_matched_model_has_what_gpt2_of_its_size_has(by: str, changes: dict[str, Any]) -> None:
    """One more or less feature in each feed-forward layer is farther away."""
    wide = dataclasses.replace(SMALL, emb_dim=24, tie_head=True)
    config = matched(changed(wide, changes), by)
    nearby = [
        MEASURES[by](changed(config, {"feed_forward.dim": config.ff_dim + more}))
        - MEASURES[by](wide)
        for more in (-1, 0, 1)
    ]
    assert min(map(abs, nearby)) == abs(nearby[1])
    assert nearby[0] < 0 < nearby[2]
    assert matched(wide, by).ff_dim == wide.ff_dim


def test_a_width_that_is_set_is_not_matched() -> None:
    for changes in ({"feed_forward.dim": 5}, {"n_layers": 0}):
        with pytest.raises(ConfigError, match="match='flops' is not valid: chooses the width"):
            matched(changed(SMALL, changes), "flops")


def test_latent_attention_and_its_experts_count_as_the_reference() -> None:
    """The library's own model of other sizes; its number by expert is a buffer there."""
    transformers = pytest.importorskip("transformers")
    sizes = LatentSizes(
        vocab_size=50,
        emb_dim=16,
        n_layers=3,
        n_heads=2,
        query_rank=7,
        key_value_rank=6,
        plain_dim=4,
        turned_dim=2,
        value_dim=5,
        dense_layers=1,
        dense_dim=24,
        experts=4,
        active=2,
        shared=1,
        expert_dim=9,
    )
    config = transformers.DeepseekV3Config(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        q_lora_rank=7,
        kv_lora_rank=6,
        qk_nope_head_dim=4,
        qk_rope_head_dim=2,
        v_head_dim=5,
        first_k_dense_replace=1,
        intermediate_size=24,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=9,
    )
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = {name: b.numel() for name, b in model.named_buffers() if "correction" in name}
    assert list(buffers.values()) == [4, 4]
    assert sizes.parameters == parameters + 8


def test_the_sizes_that_are_counted_alone_come_out() -> None:
    deepseek, kimi = COUNTS_ALONE["deepseek_v3"], COUNTS_ALONE["kimi_k2"]
    assert deepseek.parameters == 671_026_419_200  # published as 671B
    assert kimi.parameters == 1_026_408_232_448  # published as 1T
    for name, sizes in COUNTS_ALONE.items():
        active = sizes.active_parameters
        sums = f"{(active + sizes.embedding) / 1e9:.2f}B with the embedding, {active / 1e9:.2f}B"
        assert f"{sums} without" in PUBLISHED[name].remark
        assert PUBLISHED[name].parameters is None
    assert "37.55B with the embedding, 36.63B" in PUBLISHED["deepseek_v3"].remark
    assert "32.86B with the embedding, 31.69B" in PUBLISHED["kimi_k2"].remark
    assert deepseek.cached_values == 61 * 576


def test_gpt2_outside_its_embeddings_is_pythia() -> None:
    """n_layers (12 d^2 + 13 d) + 2 d, Table 1 of the Pythia paper."""
    for name, layers, width in (("pythia_70m", 6, 512), ("pythia_12b", 36, 5120)):
        outside = layers * (12 * width**2 + 13 * width) + 2 * width
        assert PUBLISHED[name].outside == outside
        gpt = GPTConfig(11, 8, width, 8, layers, qkv_bias=True)
        assert count(gpt) - (2 * 11 + 8) * width == outside
