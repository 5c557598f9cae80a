"""The probes against naive computations of the same definitions."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from experiments.optimizer import make_optimizer
from experiments.probes import ParameterNorms, UpdateProbe, norm, relative_entropy, stream_rows
from experiments.settings import OptimizerSettings
from gpt import GPT, GPTConfig

TIED = GPTConfig(11, 8, 12, 3, 2, qkv_bias=True, tie_head=True)


@pytest.fixture(params=[TIED, GPTConfig(11, 8, 12, 3, 3, drop_rate=0.2, placement="post_ln")])
def model(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(0)
    return GPT(request.param)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return tuple(torch.randint(0, 11, (4, 8), generator=random) for _ in "xy")  # type: ignore


def loss_of(model: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def test_gradient_norms_equal_a_naive_loop(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    loss_of(model, *batch).backward()
    last = len(model.blocks)

    def naive(*modules: nn.Module) -> tuple[float, int]:
        parameters = {id(p): p for module in modules for p in module.parameters()}.values()
        squares = sum(p.grad.norm().item() ** 2 for p in parameters if p.grad is not None)
        return math.sqrt(squares), sum(p.numel() for p in parameters)

    expected = {
        (-1, "token_embedding"): naive(model.token_embedding),
        (-1, "position_embedding"): naive(model.position_embedding),
    }
    for layer, block in enumerate(model.blocks):
        expected |= {
            (layer, "attention"): naive(block.attention),
            (layer, "feed_forward"): naive(block.feed_forward),
            (layer, "norm"): naive(block.norm_1, block.norm_2),
            (layer, "block"): naive(block),
        }
    if not model.config.tie_head:
        expected[last, "head"] = naive(model.head)
    if not isinstance(model.final_norm, nn.Identity):
        expected[last, "final_norm"] = naive(model.final_norm)

    norms = ParameterNorms(model)
    vector = norms.gradients_on_host(norms.gradients())
    rows = {(r.layer, r.component, r.stat): r.value for r in norms.gradient_rows(vector)}
    # Sums of squares in float32 differ by rounding, 1e-7 a term.
    assert rows == pytest.approx(
        {(*key, "grad_norm"): norm for key, (norm, _) in expected.items()}
        | {(*key, "grad_rms"): norm / math.sqrt(n) for key, (norm, n) in expected.items()},
        rel=1e-5,
    )
    assert vector.norm().item() == pytest.approx(naive(model)[0], rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
def test_norms_beyond_the_squares_of_float32(batch: tuple[Tensor, Tensor], scale: float) -> None:
    """Gradients whose squares leave float32 are measured all the same, here against float64."""
    torch.manual_seed(0)
    model = GPT(TIED)
    loss_of(model, *batch).backward()
    norms = ParameterNorms(model)
    plain = norms.gradients_on_host(norms.gradients())
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad *= scale
    scaled = norms.gradients_on_host(norms.gradients())
    # Elements near 1e-38 lose digits, but those are the smallest of their tensors.
    torch.testing.assert_close(scaled / scale, plain, rtol=1e-4, atol=0)
    assert norm(scale * torch.ones(4)).item() == pytest.approx(2 * scale, rel=1e-6)
    assert norm(torch.zeros(4)).item() == 0


def test_an_unused_parameter_has_a_gradient_of_zero(batch: tuple[Tensor, Tensor]) -> None:
    model = GPT(TIED)
    loss_of(model, *batch).backward()
    model.blocks[0].norm_1.weight.grad = None
    norms = ParameterNorms(model)
    measured = norms.gradients_on_host(norms.gradients())
    index = [place.name for place in norms.places].index("blocks.0.norm_1.weight")
    assert measured[index] == 0
    assert len(measured) == len(norms.places)


def test_norms_are_taken_in_the_models_precision_or_wider(batch: tuple[Tensor, Tensor]) -> None:
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        model = GPT(TIED).to(dtype)
        loss_of(model, *batch).backward()
        assert ParameterNorms(model).gradients().dtype == expected


def test_update_ratio(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    optimizer = make_optimizer(model, OptimizerSettings("sgd", 0.5, 0.0, None, None))
    norms = ParameterNorms(model)
    probe = UpdateProbe(norms)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss_of(model, *batch).backward()
    probe.before()
    optimizer.step()
    rows = {(r.layer, r.component, r.stat): r.value for r in probe.after()}
    for layer, block in enumerate(model.blocks):
        names = [f"blocks.{layer}.{name}" for name, _ in block.named_parameters()]
        old = torch.cat([before[name].flatten() for name in names]).norm().item()
        grads = [p.grad.flatten() for p in block.parameters() if p.grad is not None]
        change = 0.5 * torch.cat(grads).norm().item()
        assert rows[layer, "block", "weight_norm"] == pytest.approx(old, rel=1e-5)
        assert rows[layer, "block", "update_ratio"] == pytest.approx(change / old, rel=1e-4)
    assert probe.old == []


def test_stream_rows(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    """Against the same quantities from a forward pass written out block by block."""
    tokens, targets = batch
    loss_of(model, tokens, targets).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    random = torch.get_rng_state()
    rows = {
        (r.layer, r.component, r.stat): r.value
        for r in stream_rows(model, lambda x, y: loss_of(model, x, y), tokens, targets)
    }
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert all(
        torch.equal(a, p.grad)
        for a, p in zip(grads, model.parameters(), strict=True)
        if p.grad is not None
    )

    model.eval()
    positions = model.position_embedding(torch.arange(8))
    streams = [model.token_embedding(tokens) + positions]
    for block in model.blocks:
        streams.append(block(streams[-1]))
    logits = model.head(model.final_norm(streams[-1]))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    stream_grads = torch.autograd.grad(loss, streams)
    pairs = pairwise(zip(streams, stream_grads, strict=True))
    for layer, ((x, x_grad), (out, out_grad)) in enumerate(pairs):
        block = model.blocks[layer]
        is_pre = model.config.placement == "pre_ln"
        seen = block.norm_1(x) if is_pre else x
        branch = block.attention(seen)
        h = x + branch if is_pre else block.norm_1(x + branch)
        feed_forward = block.feed_forward(block.norm_2(h) if is_pre else h)
        parts = {"input": x, "attention": branch, "feed_forward": feed_forward, "output": out}
        for part, tensor in parts.items():
            rms = tensor.square().mean().sqrt().item()
            assert rows[layer, part, "activation_rms"] == pytest.approx(rms, rel=1e-5)
            largest = tensor.abs().max().item()
            assert rows[layer, part, "activation_max"] == pytest.approx(largest, rel=1e-5)
        for part, grad in (("input", x_grad), ("output", out_grad)):
            norm = grad.norm().item()
            assert rows[layer, part, "stream_grad_norm"] == pytest.approx(norm, rel=1e-4)
        logits, weights = block.attention.scores(seen)
        top = logits.max().item()
        assert rows[layer, "attention", "attention_max_logit"] == pytest.approx(top, rel=1e-5)
        shares = [
            -(w * w.log()).sum().item() / math.log(t + 1)
            for head in weights.flatten(0, 1)
            for t in range(1, 8)
            for w in [head[t, : t + 1]]
        ]
        entropy = sum(shares) / len(shares)
        assert rows[layer, "attention", "attention_entropy"] == pytest.approx(entropy, rel=1e-5)


def test_entropy_of_known_weights() -> None:
    uniform = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    assert relative_entropy(uniform).item() == pytest.approx(1.0)
    assert relative_entropy(torch.eye(5)).item() == 0.0
