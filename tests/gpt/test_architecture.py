"""The parts of published architectures, each against loops over heads, tokens and experts."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs import SMALL, changed, small_model
from equations import ACTIVATION_EQUATIONS
from gpt import GPT, ConfigError, active_parameter_count, parameter_count
from gpt.attention import SelfAttention
from gpt.moe import Experts, MixtureOfExperts, balance
from gpt.position import RotaryTurn

LENGTH = 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def in_float64(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def drawn(module: nn.Module) -> Any:
    """The module in float64 with every parameter drawn anew, gains and sinks among them."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def mixed_by_loops(
    attention: SelfAttention, x: Tensor, *, window: int, scale: float, kv_heads: int
) -> Tensor:
    """What each head reads, head by head and token by token, (B, T, n_heads, head_dim)."""
    width, heads = attention.head_dim, attention.n_heads
    qkv = attention.qkv(x)
    query = qkv[..., : heads * width].unflatten(-1, (heads, width))
    key, value = qkv[..., heads * width :].chunk(2, dim=-1)
    key, value = (part.unflatten(-1, (kv_heads, width)) for part in (key, value))
    out = torch.empty(*x.shape[:2], heads, width, dtype=x.dtype)
    for head in range(heads):
        group = head * kv_heads // heads
        for t in range(x.shape[1]):
            first = max(0, t + 1 - window) if window else 0
            seen = slice(first, t + 1)
            logits = torch.einsum("bd,bsd->bs", query[:, t, head], key[:, seen, group]) * scale
            total = logits.exp().sum(-1, keepdim=True)
            if attention.sinks is not None:
                total = total + attention.sinks[head].exp()
            out[:, t, head] = torch.einsum(
                "bs,bsd->bd", logits.exp() / total, value[:, seen, group]
            )
    return out


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [0, 1, 3, LENGTH, 99])
@pytest.mark.parametrize(("kv_heads", "head_dim", "scale"), [(None, None, None), (2, 5, 0.7)])
def test_attention_with_groups_windows_and_sinks(
    sinks: bool, window: int, kv_heads: int | None, head_dim: int | None, scale: float | None
) -> None:
    changes = {"emb_dim": 16, "n_heads": 4, "attention.sinks": sinks, "attention.scale": scale}
    changes |= {"attention.kv_heads": kv_heads, "attention.head_dim": head_dim}
    config = changed(SMALL, changes | {"attention.windows": [0, window]})
    attention = drawn(SelfAttention(config, layer=1))
    x = in_float64(2, LENGTH, 16)
    expected = mixed_by_loops(
        attention, x, window=window, scale=scale or 0.5, kv_heads=kv_heads or 4
    )
    torch.testing.assert_close(attention.attend(x), expected)
    out = attention.out_proj
    torch.testing.assert_close(attention(x), expected.flatten(-2) @ out.weight.T + out.bias)
    _, weights = attention.scores(x)
    *_, value = attention.heads(x)
    value = value.repeat_interleave(4 // (kv_heads or 4), dim=1)
    torch.testing.assert_close((weights @ value).transpose(1, 2), expected)


def test_a_sink_takes_its_share_without_a_mask_too() -> None:
    attention = drawn(
        SelfAttention(changed(SMALL, {"attention.causal": False, "attention.sinks": True}))
    )
    x = in_float64(2, LENGTH, 12)
    _, weights = attention.scores(x)
    *_, value = attention.heads(x)
    torch.testing.assert_close(attention.attend(x), (weights @ value).transpose(1, 2))
    assert attention.sinks is not None
    logits, _ = attention.scores(x)
    missing = attention.sinks.exp()[:, None] / (
        logits.exp().sum(-1) + attention.sinks.exp()[:, None]
    )
    torch.testing.assert_close(1 - weights.sum(-1), missing)


def test_windows_and_bases_repeat_over_the_layers() -> None:
    model = small_model(
        {"position.kind": "rotary", "position.bases": [50.0, 0.0], "attention.windows": [2, 2, 0]}
    )
    assert [block.attention.window for block in model.blocks] == [2, 2, 0, 2]
    bases = [getattr(block.attention.turn, "base", 0) for block in model.blocks]
    assert bases == [50, 0, 50, 0]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_positions_turn_complex_numbers(interleaved: bool, fraction: float) -> None:
    """exp(i p w) times each pair as a complex number; products depend on the distance alone."""
    changes = {"position.kind": "rotary", "position.fraction": fraction}
    changes |= {"attention.head_dim": 8, "position.interleaved": interleaved}
    turn = RotaryTurn(changed(SMALL, changes), layer=0)
    width = int(8 * fraction)
    x, places = in_float64(2, 3, LENGTH, 8), torch.arange(LENGTH)
    pairs = x[..., :width]
    pairs = pairs.unflatten(-1, (-1, 2)) if interleaved else pairs.unflatten(-1, (2, -1)).mT
    frequencies = 10000.0 ** (-2 * torch.arange(width // 2) / width)
    turned = torch.view_as_complex(pairs.contiguous()) * torch.exp(
        1j * places[:, None] * frequencies
    )
    expected = torch.view_as_real(turned)
    expected = expected.flatten(-2) if interleaved else expected.mT.flatten(-2)
    out = turn(x, places)
    torch.testing.assert_close(out[..., :width], expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(out[..., width:], x[..., width:])
    by_row = turn(x, torch.stack((places, places + 3)))  # places of each text of a batch
    torch.testing.assert_close(by_row[0], out[0])
    torch.testing.assert_close(by_row[1], turn(x, places + 3)[1])


def test_yarn_divides_the_slow_frequencies_alone() -> None:
    """Between beta_fast and beta_slow turns in the original length a ramp over whole pairs."""
    yarn = {"factors": [32.0], "original_length": 4096, "truncate": False}
    changes = {"position.kind": "rotary", "position.bases": [150000.0], "attention.head_dim": 64}
    changes |= {f"position.yarn.{name}": value for name, value in yarn.items()}
    turn = RotaryTurn(changed(SMALL, changes), layer=0)
    frequencies = turn.frequencies(torch.device("cpu")).double()
    plain = 150000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    turns = 4096 * plain / (2 * math.pi)
    torch.testing.assert_close(frequencies[turns > 32], plain[turns > 32], rtol=1e-6, atol=0)
    slow = turns < 1
    torch.testing.assert_close(frequencies[slow], plain[slow] / 32, rtol=1e-6, atol=0)
    between = (frequencies / plain)[(turns < 32) & (turns > 1)]
    assert (between.diff() < 0).all()
    assert ((between > 1 / 32) & (between < 1)).all()
    assert turn.concentration == pytest.approx(1.3466, abs=5e-5)  # the model card's
    x = in_float64(1, 1, 1, 64)
    at_start = turn(x, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(at_start, x * turn.concentration, rtol=1e-6, atol=1e-6)


def test_the_first_places_of_a_table_may_be_left_out() -> None:
    model = drawn(GPT(changed(SMALL, {"position.offset": 2})))
    assert model.position_embedding.weight.shape == (10, 12)
    embedded = model.position_embedding(torch.arange(8))
    assert torch.equal(embedded, model.position_embedding.weight[2:])


@pytest.mark.parametrize("activation", ["silu", "quick_gelu"])
@pytest.mark.parametrize(("clamp", "offset"), [(None, 0.0), (0.5, 1.0)])
def test_a_gated_layer_is_its_equation(activation: str, clamp: float | None, offset: float) -> None:
    gated = {"gated": True, "dim": 7, "clamp": clamp, "offset": offset}
    changes = {f"feed_forward.{name}": value for name, value in gated.items()}
    layer = drawn(small_model(changes | {"activation": activation}).blocks[0].feed_forward)
    x = in_float64(2, LENGTH, 12)
    gate, up = (x @ w.T + b for w, b in zip(*map(halves, layer.fc_in.parameters()), strict=True))
    if clamp is not None:
        gate, up = torch.where(gate > clamp, clamp, gate), up.clip(-clamp, clamp)
    hidden = ACTIVATION_EQUATIONS[activation](gate) * (up + offset)
    torch.testing.assert_close(layer(x), hidden @ layer.fc_out.weight.T + layer.fc_out.bias)
    assert [weight.role for weight in layer.weights()] == ["gate", "up", "down"]


def halves(parameter: Tensor) -> tuple[Tensor, Tensor]:
    first, second = parameter.chunk(2)
    return first, second


@pytest.mark.parametrize("softmax", ["chosen", "all"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_experts_are_their_equation_token_by_token(softmax: str, bias: bool, gated: bool) -> None:
    changes = {"experts.count": 5, "experts.active": 2, "experts.softmax": softmax, "bias": bias}
    changes |= {"feed_forward.gated": gated, "feed_forward.dim": 6}
    layer: MixtureOfExperts = drawn(small_model(changes).blocks[0].feed_forward)
    x, used = in_float64(2, LENGTH, 12), torch.zeros(5, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for row, t in ((row, t) for row in range(2) for t in range(LENGTH)):
        token = x[row, t]
        logits = layer.router(token)
        chosen = logits.argsort(descending=True)[:2]
        among = logits[chosen] if softmax == "chosen" else logits
        for expert in chosen:
            used[expert] += 1 / (2 * 2 * LENGTH)
            hidden = linear(layer.fc_in, int(expert), token)
            gate, up = hidden.chunk(2) if gated else (hidden, torch.ones(()))
            out = linear(layer.fc_out, int(expert), ACTIVATION_EQUATIONS["gelu"](gate) * up)
            expected[row, t] += logits[expert].exp() / among.exp().sum() * out
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.load(x), used, check_dtype=False)


def linear(experts: Experts, expert: int, x: Tensor) -> Tensor:
    shift = 0 if experts.bias is None else experts.bias[expert]
    return experts.weight[expert] @ x + shift


def test_experts_that_no_token_is_sent_to_have_a_gradient_of_zero() -> None:
    changes = {"experts.count": 4, "experts.active": 1}
    layer: MixtureOfExperts = drawn(small_model(changes).blocks[0].feed_forward)
    with torch.no_grad():
        assert layer.router.bias is not None
        layer.router.bias.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))
    layer(in_float64(1, 4, 12)).sum().backward()
    grad = layer.fc_in.weight.grad
    assert grad is not None
    assert grad[0].any()
    assert not grad[1:].any()


def test_groups_of_rows_in_one_kernel_are_the_products_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The path of a GPU, in a CPU's arithmetic."""
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this PyTorch has no grouped product")
    experts, counts = Experts(3, 16, 8, bias=True), torch.tensor([2, 0, 5])
    x = torch.randn(7, 16)
    one_by_one = experts(x, counts)
    monkeypatch.setattr("gpt.moe.grouped_product_exists", lambda x: True)
    torch.testing.assert_close(experts(x, counts), one_by_one)


def test_the_balance_loss_is_that_of_the_switch_transformer() -> None:
    logits = in_float64(40, 4)
    chosen = logits.topk(1).indices
    shares = torch.tensor([(chosen == e).double().mean() for e in range(4)])
    expected = 4 * sum(shares[e] * logits.softmax(-1)[:, e].mean() for e in range(4))
    torch.testing.assert_close(balance(logits, chosen), torch.as_tensor(expected))
    even = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(
        balance(even, even.topk(1).indices), torch.ones((), dtype=torch.float64)
    )
    changes = {"experts.count": 4, "experts.balance_loss": 0.5}
    model = small_model(changes)
    model(torch.randint(11, (2, LENGTH)))
    parts = [block.feed_forward.balance for block in model.blocks]  # type: ignore[union-attr]
    torch.testing.assert_close(model.balance_loss(), 0.5 * sum(parts) / 4)  # type: ignore[arg-type]
    assert small_model({}).balance_loss() is None


def test_embeddings_of_another_width_and_with_a_factor() -> None:
    changes = {"embedding.dim": 5, "embedding.factor": 3.3, "tie_head": True, "head_bias": True}
    model = drawn(GPT(changed(SMALL, changes | {"position.kind": "none", "n_layers": 0})))
    tokens = torch.randint(11, (2, LENGTH))
    table = model.token_embedding.weight
    x = (3.3 * table[tokens]) @ model.project_in.weight.T
    x = F.layer_norm(x, (12,), model.final_norm.weight, model.final_norm.bias)
    logits = x @ model.project_out.weight.T @ table.T + model.head.bias
    torch.testing.assert_close(model(tokens), logits)
    roles = [weight.role for weight in model.weights()]
    assert roles == ["embedding", "project_in", "project_out"]


def test_a_factor_is_rounded_to_the_type_of_the_embeddings() -> None:
    model = GPT(changed(SMALL, {"embedding.factor": 25.298221281347036})).bfloat16()
    tokens = torch.randint(11, (1, LENGTH))
    rounded = model.token_embedding(tokens) * torch.tensor(25.25, dtype=torch.bfloat16)
    assert torch.equal(model.embed(tokens), rounded)


def test_true_is_the_earlier_spelling_of_a_norm_over_each_head() -> None:
    tokens = torch.randint(11, (1, LENGTH))
    former, new = (small_model({"norm.qk": qk})(tokens) for qk in (True, "head"))
    assert torch.equal(former, new)
    assert not torch.equal(new, small_model({"norm.qk": "projection"})(tokens))


def test_a_norm_over_all_heads_is_not_one_over_each() -> None:
    changes = {"norm.qk": "projection", "norm.kind": "rms_norm"}
    attention = drawn(
        SelfAttention(
            changed(SMALL, changes),
            small_model(changes).config.placement.inside_of(changed(SMALL, changes)),
        )
    )
    x = in_float64(2, LENGTH, 12)
    q = attention.qkv(x)[..., :12]
    normed = attention.query_norm.weight * q / (q.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    query, *_ = attention.heads(x)
    torch.testing.assert_close(query.transpose(1, 2).flatten(-2), normed)


def test_the_active_parameters_are_those_that_one_token_meets() -> None:
    dense, experts = changed(SMALL, {}), changed(SMALL, {"experts.count": 5, "experts.active": 2})
    tables = (11 + 8) * 12
    assert active_parameter_count(dense) == parameter_count(dense) - tables
    tied = changed(SMALL, {"tie_head": True})
    assert active_parameter_count(tied) == parameter_count(tied) - 8 * 12
    one = 2 * 12 * 48 + 48 + 12
    assert parameter_count(experts) == parameter_count(dense) + 4 * (4 * one + 5 * 12 + 5)
    assert active_parameter_count(experts) == parameter_count(experts) - tables - 4 * 3 * one


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention.kv_heads": 2}, "attention.kv_heads=2 is not valid: must divide n_heads=3"),
        ({"n_heads": 5}, "n_heads=5 .*must divide emb_dim=12, or attention.head_dim must be given"),
        ({"attention.windows": []}, "attention.windows=.* must name one layer's at least"),
        ({"attention.windows": [-1]}, r"windows=\[-1\] .* whole numbers of at least 0, such as"),
        ({"attention.windows": [2], "attention.causal": False}, "a window looks back"),
        ({"position.bases": [0.5]}, "position.bases=.* must have a base above 1 for each layer"),
        ({"position.kind": "rotary", "position.fraction": 0.8}, "must be an even number"),
        ({"experts.count": 2, "experts.active": 3}, "experts.active=3 .*at most experts.count=2"),
        (
            {"parallel.enabled": True, "norm.placement": "b2t"},
            "norm.placement='b2t' is not valid: has no form in which attention and feed-forward",
        ),
        (
            {"parallel.enabled": True, "parallel.shared": True, "norm.placement": "post_ln"},
            "norm=post_ln has no norms before its branches to share",
        ),
        ({"position.kind": "rope"}, "did you mean 'rotary'"),
        (
            {
                "norm.placement": "reordered",
                "norm.kind": "gain_free_rms_norm",
                "norm.options.scale_start": 0.0,
            },
            "norm.kind=gain_free_rms_norm has no scale that could start there",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        changed(SMALL, changes)


def test_a_scale_that_is_stored_from_zero_starts_where_it_is_told_to() -> None:
    changes = {"norm.placement": "reordered", "norm.kind": "zero_centred_rms_norm"}
    model = small_model(changes | {"norm.options.scale_start": 0.0})
    assert (model.blocks[0].norm_1.get_parameter("weight") == -1).all()
    x = in_float64(1, LENGTH, 12)
    assert torch.equal(model.blocks[0](x), x)


def test_a_model_without_blocks_has_no_load_to_even() -> None:
    model = small_model({"n_layers": 0, "experts.count": 2, "experts.balance_loss": 0.1})
    model(torch.arange(8)[None])
    assert model.balance_loss() is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention.causal": False},
        {"attention.kv_heads": 1, "attention.windows": [3]},
        {"attention.kv_heads": 1, "attention.sinks": True, "attention.scale": 0.7},
    ],
)
def test_attention_in_steps_is_the_fused_one(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, x = (
        drawn(SelfAttention(changed(SMALL, changes))),
        in_float64(2, LENGTH, SMALL.emb_dim),
    )
    found = []
    for in_steps in (False, True):
        monkeypatch.setattr("gpt.attention.is_faster_in_steps", lambda query, is_it=in_steps: is_it)
        out = attention(x)
        found.append([out, *torch.autograd.grad(out.square().sum(), attention.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


def test_attention_in_steps_drops_weights_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = drawn(SelfAttention(changed(SMALL, {"attention.drop_rate": 0.5}))).train()
    attention.dropout.p = 0.0
    monkeypatch.setattr("gpt.attention.is_faster_in_steps", lambda query: True)
    x = in_float64(2, LENGTH, SMALL.emb_dim)
    draws = torch.stack([attention(x) for _ in range(2000)])
    whole = attention.eval()(x)
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws.mean(0), whole, rtol=0, atol=0.15 * float(whole.std()))
