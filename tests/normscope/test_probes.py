"""The probes against naive computations of the same definitions."""

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs import changed
from experiments.settings.schema import OptimizerSettings
from experiments.training.optimizer import make_optimizer
from gpt import GPT, PLACEMENTS, AttentionConfig, ExpertsConfig, GPTConfig, NormConfig
from normscope import Probes, Row, anatomy_of
from normscope.ablation import layer_drop_rows
from normscope.attention import relative_entropy
from normscope.gradients import ParameterNorms, window_gradient_rows
from normscope.stats import STREAMS
from normscope.streams import (
    angular_distance,
    norm,
    stream_cosine,
    stream_kurtosis,
    stream_max_over_median,
    stream_max_over_rms,
    stream_rows,
    token_cosine,
)
from normscope.updates import UpdateProbe

TIED = GPTConfig(11, 8, 12, 3, 2, qkv_bias=True, tie_head=True)


@pytest.fixture(
    params=[TIED, GPTConfig(11, 8, 12, 3, 3, drop_rate=0.2, norm=NormConfig("post_ln"))]
)
def model(request: pytest.FixtureRequest) -> GPT:
    torch.manual_seed(0)
    return GPT(request.param)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return tuple(torch.randint(0, 11, (4, 8), generator=random) for _ in "xy")  # type: ignore


def loss_of(model: GPT, tokens: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def number(model: GPT, tokens: Tensor, targets: Tensor) -> float:
    return loss_of(model, tokens, targets).item()


def values_of(rows: list[Row]) -> dict[tuple[int, str, str], float]:
    values = {(row.layer, row.component, row.stat): row.value for row in rows}
    assert len(values) == len(rows)
    return values


def place(name: str, last: int) -> tuple[int, str]:
    """Layer and component of a parameter by its full name."""
    if name.startswith("blocks."):
        _, layer, rest = name.split(".", 2)
        return int(layer), rest
    return (-1 if "embedding" in name else last), name


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

    norms = ParameterNorms(anatomy_of(model))
    vector = norms.gradients_on_host(norms.gradients())
    single = {
        place(name, last): (parameter.grad.norm().item(), parameter.numel())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    for each, places in ((False, expected), (True, expected | single)):
        # Sums of squares in float32 differ by rounding, 1e-7 a term.
        assert values_of(norms.gradient_rows(vector, each)) == pytest.approx(
            {(*key, "grad_norm"): norm for key, (norm, _) in places.items()}
            | {(*key, "grad_rms"): norm / math.sqrt(n) for key, (norm, n) in places.items()},
            rel=1e-5,
        )
    assert (1, "feed_forward.fc_out.weight") in single
    assert vector.norm().item() == pytest.approx(naive(model)[0], rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
def test_norms_beyond_the_squares_of_float32(batch: tuple[Tensor, Tensor], scale: float) -> None:
    """Gradients whose squares leave float32 are measured all the same, here against float64."""
    torch.manual_seed(0)
    model = GPT(TIED)
    loss_of(model, *batch).backward()
    norms = ParameterNorms(anatomy_of(model))
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
    norms = ParameterNorms(anatomy_of(model))
    measured = norms.gradients_on_host(norms.gradients())
    index = [place.name for place in norms.places].index("blocks.0.norm_1.weight")
    assert measured[index] == 0
    assert len(measured) == len(norms.places)


def test_norms_are_taken_in_the_models_precision_or_wider(batch: tuple[Tensor, Tensor]) -> None:
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        model = GPT(TIED).to(dtype)
        loss_of(model, *batch).backward()
        assert ParameterNorms(anatomy_of(model)).gradients().dtype == expected


def test_update_ratio(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    optimizer = make_optimizer(model, OptimizerSettings("sgd", 0.5, 0.0, None, None))
    norms = ParameterNorms(anatomy_of(model))
    probe = UpdateProbe(norms)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss_of(model, *batch).backward()
    probe.before()
    optimizer.step()
    grads = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    rows = values_of(probe.after())
    for name, weight in before.items():
        key, old_norm = place(name, len(model.blocks)), weight.norm().item()
        if old_norm == 0:  # a bias at the start
            assert (*key, "update_ratio") not in rows
            continue
        assert rows[*key, "weight_norm"] == pytest.approx(old_norm, rel=1e-5)
        # The change of a weight near 1 is rounded at 1e-7.
        ratio = 0.5 * grads[name] / old_norm
        assert rows[*key, "update_ratio"] == pytest.approx(ratio, rel=1e-4, abs=1e-7)
    for layer, block in enumerate(model.blocks):
        names = [f"blocks.{layer}.{name}" for name, _ in block.named_parameters()]
        old = torch.cat([before[name].flatten() for name in names]).norm().item()
        change = 0.5 * math.hypot(*(grads[name] for name in names))
        assert rows[layer, "block", "weight_norm"] == pytest.approx(old, rel=1e-5)
        assert rows[layer, "block", "update_ratio"] == pytest.approx(change / old, rel=1e-4)
    assert probe.old == []


def test_stream_rows(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    """Against the same quantities from a forward pass written out block by block."""
    tokens, targets = batch
    loss_of(model, tokens, targets).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    random = torch.get_rng_state()
    rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, tokens, targets)))
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
        is_pre = model.config.norm.placement == "pre_ln"
        seen = block.norm_1(x) if is_pre else x
        branch = block.attention(seen)
        h = x + branch if is_pre else block.norm_1(x + branch)
        feed_forward = block.feed_forward(block.norm_2(h) if is_pre else h)
        parts = {"input": x, "attention": branch, "feed_forward": feed_forward, "output": out}
        parts |= {"added_1": branch, "sum_1": x + branch}
        parts |= {"added_2": feed_forward, "sum_2": h + feed_forward}
        for part, tensor in parts.items():
            assert rows[layer, part, "activation_rms"] == pytest.approx(rms(tensor), rel=1e-5)
            variance = ((tensor - tensor.mean()) ** 2).mean().item()
            assert rows[layer, part, "activation_variance"] == pytest.approx(variance, rel=1e-4)
            largest = tensor.abs().max().item()
            assert rows[layer, part, "activation_max"] == pytest.approx(largest, rel=1e-5)
        ratio = rms(branch) / rms(x)
        assert rows[layer, "attention", "branch_ratio"] == pytest.approx(ratio, rel=1e-5)
        ratio = rms(feed_forward) / rms(h)
        assert rows[layer, "feed_forward", "branch_ratio"] == pytest.approx(ratio, rel=1e-5)
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

    angles = {key: value for key, value in rows.items() if key[2].startswith("angular")}
    expected = {
        (layer, "block", f"angular_distance_{n}".removesuffix("_1")): naive_angle(*ends)
        for n in (1, 2)
        for layer, ends in enumerate(zip(streams, streams[n:], strict=False))
    }
    assert angles == pytest.approx(expected, rel=1e-5)


def rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def naive_angle(x: Tensor, y: Tensor) -> float:
    cosine = nn.functional.cosine_similarity(x.double(), y.double(), dim=-1)
    return (cosine.clamp(-1, 1).arccos() / math.pi).mean().item()


def test_angular_distance_of_known_vectors() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(50, 64, generator=random)
    assert angular_distance(x, x).item() == 0
    assert angular_distance(x, -x).item() == pytest.approx(1)
    assert angular_distance(x, 3e30 * x).item() < 1e-7
    assert angular_distance(1e-30 * x, 1e30 * x).item() < 1e-7
    one, other = torch.eye(2)
    assert angular_distance(one, other).item() == pytest.approx(0.5)
    near = torch.tensor([1.0, 1e-6])  # where the arccos of a float32 cosine sees nothing
    assert angular_distance(one, near).item() == pytest.approx(1e-6 / math.pi, rel=1e-3)


def test_cosines_of_known_vectors() -> None:
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    y = torch.tensor([[4.0, 3.0], [0.0, -2.0]])
    assert stream_cosine(x, y).item() == pytest.approx((24 / 25 + 0) / 2)
    assert stream_cosine(1e-30 * x, 1e30 * x).item() == pytest.approx(1)
    # Pairs of (1, 0), (0, 2) and (-3, 0): cosines 0, -1 and 0. Then of three that are alike.
    windows = torch.tensor([[[1.0, 0], [0, 2], [-3, 0]], 3 * [[1e30, 2e30]]])
    assert token_cosine(windows[:1]).item() == pytest.approx(-1 / 3)  # type: ignore[union-attr]
    assert token_cosine(windows).item() == pytest.approx(1 / 3)  # type: ignore[union-attr]
    assert token_cosine(windows[:, :1]) is None  # no two tokens


def test_token_cosine_is_the_mean_over_all_pairs_of_a_window() -> None:
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0)) + 1
    pairs = [
        nn.functional.cosine_similarity(window[i], window[j], dim=0).item()
        for window in x
        for i, j in itertools.permutations(range(7), 2)
    ]
    expected = pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert token_cosine(x).item() == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_outliers_of_known_tensors(scale: float) -> None:
    """(1, 3, 5, 7) has deviations -3, -1, 1, 3; nine alike and one of 10 a kurtosis of 73 / 9."""
    even = scale * torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    assert stream_kurtosis(even).item() == pytest.approx(4 * 164 / 20**2)
    assert stream_max_over_rms(even).item() == pytest.approx(7 / 21**0.5)
    assert stream_max_over_median(-even).item() == pytest.approx(7 / 3)
    one = scale * torch.tensor([[9 * [-2.0] + [10.0]]])
    assert stream_kurtosis(one).item() == pytest.approx(73 / 9)
    assert stream_max_over_median(one).item() == pytest.approx(5)
    assert stream_kurtosis(torch.ones(1, 2, 2)).isnan()
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert stream_kurtosis(normal).item() == pytest.approx(3, abs=0.05)


def test_what_is_added_stands_after_the_output_norm_and_beside_the_scaled_shortcut(
    batch: tuple[Tensor, Tensor],
) -> None:
    for placement in ("sandwich", "deepnorm", "no_norm"):
        torch.manual_seed(0)
        model = GPT(GPTConfig(11, 8, 12, 3, 1, norm=NormConfig(placement)))
        rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
        (block,) = model.blocks
        x = model.token_embedding(batch[0]) + model.position_embedding(torch.arange(8))
        f = block.attention(block.norm_1(x) if placement == "sandwich" else x)
        assert rows[0, "attention", "activation_rms"] == pytest.approx(rms(f), rel=1e-5)
        if placement == "sandwich":
            f = block.get_submodule("out_norm_1")(f)
        if placement == "deepnorm":
            x = 2**0.25 * x
        assert rows[0, "added_1", "activation_rms"] == pytest.approx(rms(f), rel=1e-5)
        assert rows[0, "sum_1", "activation_rms"] == pytest.approx(rms(x + f), rel=1e-5)
        ratio = rms(f) / rms(x)
        assert rows[0, "attention", "branch_ratio"] == pytest.approx(ratio, rel=1e-5)


def test_window_gradients(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    """Against one backward pass per window, and one of the whole batch."""
    model.eval()
    norms = ParameterNorms(anatomy_of(model))
    single = zip(*(part.split(1) for part in batch), strict=True)
    rows = values_of(window_gradient_rows(norms, (loss_of(model, *one) for one in single)))
    assert all(parameter.grad is None for parameter in model.parameters())
    groups: dict[str, nn.Module] = {
        "block": model.blocks[1],
        "attention": model.blocks[1].attention,
    }

    def measure(tokens: Tensor, targets: Tensor) -> dict[str, float]:
        model.zero_grad()
        loss_of(model, tokens, targets).backward()
        return {
            name: math.hypot(*(p.grad.norm() for p in part.parameters() if p.grad is not None))
            for name, part in groups.items()
        }

    single = [measure(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(4)]
    together = measure(*batch)
    for name in groups:
        mean = sum(values[name] for values in single) / 4
        assert rows[1, name, "window_grad_norm"] == pytest.approx(mean, rel=1e-4)
        assert rows[1, name, "mean_window_grad_norm"] == pytest.approx(together[name], rel=1e-4)


def test_layer_drop(model: GPT, batch: tuple[Tensor, Tensor]) -> None:
    """Against a model that was built with a block less."""
    model.eval()
    with torch.no_grad():
        whole = loss_of(model, *batch).item()
        rows = values_of(layer_drop_rows(anatomy_of(model), partial(number, model, *batch), whole))
        assert loss_of(model, *batch).item() == whole  # every block is back
        for layer in range(len(model.blocks)):
            less = copy.deepcopy(model)
            less.blocks = nn.ModuleList(  # type: ignore[assignment]
                block for index, block in enumerate(less.blocks) if index != layer
            )
            difference = loss_of(less, *batch).item() - whole
            assert rows.pop((layer, "block", "layer_drop")) == pytest.approx(difference)
    assert rows == {}


STATS = {
    "grad_norm",
    "grad_rms",
    "weight_norm",
    "update_ratio",
    "activation_rms",
    "activation_variance",
    "activation_max",
    "stream_grad_norm",
    "attention_max_logit",
    "attention_entropy",
    "angular_distance",
    "angular_distance_2",
    "angular_distance_4",
    "stream_cosine",
    "stream_cosine_2",
    "stream_cosine_4",
    "token_cosine",
    "stream_kurtosis",
    "stream_max_over_rms",
    "stream_max_over_median",
    "window_grad_norm",
    "mean_window_grad_norm",
    "layer_drop",
}
KINDS: list[dict[str, Any]] = [
    {},
    {"norm.kind": "rms_norm"},
    {"norm.kind": "dyt"},
    {"shortcut": False},
    {"norm.qk": True},
]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_passes_through_every_probe(
    placement: str, batch: tuple[Tensor, Tensor]
) -> None:
    for kind in KINDS:
        if not kind.get("shortcut", True) and PLACEMENTS[placement].only_shortcut:
            continue
        torch.manual_seed(0)
        changes = {"norm.placement": placement, **kind}
        model = GPT(changed(GPTConfig(11, 8, 12, 3, 4), changes))
        probes = Probes(anatomy_of(model))
        optimizer = make_optimizer(model, OptimizerSettings("sgd", 0.1, 0.0, None, None))
        rows = probes.on_step(partial(loss_of, model, *batch))
        loss_of(model, *batch).backward()
        norms = probes.norms
        rows += norms.gradient_rows(norms.gradients_on_host(norms.gradients()), each=True)
        probes.before_update()
        optimizer.step()
        rows += probes.after_update()
        losses = (loss_of(model, x[None], y[None]) for x, y in zip(*batch, strict=True))
        rows += probes.at_end(partial(number, model, *batch), 0.0, losses)
        values = values_of(rows)
        assert all(math.isfinite(value) for value in values.values())
        stats = {stat for _, _, stat in values}
        ratios = {"branch_ratio"} if model.config.shortcut else set()
        assert stats == STATS | ratios
        per_block = [{key[1:] for key in values if key[0] == layer} for layer in range(2)]
        first, second = ({*dict(model.blocks[layer].named_parameters())} for layer in range(2))
        more = {key for key in per_block[0] - per_block[1] if key[0] not in first - second}
        assert more == {("block", "angular_distance_4"), ("block", "stream_cosine_4")}
        tensors = {component for _, component, _ in values if component.endswith("fc_out.weight")}
        assert tensors == {"feed_forward.fc_out.weight"}


def test_attention_that_is_not_causal(batch: tuple[Tensor, Tensor]) -> None:
    """Every row sees all tokens, the first too."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 8, 12, 3, 1, attention=AttentionConfig(causal=False)))
    rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    (block,) = model.blocks
    x = model.token_embedding(batch[0]) + model.position_embedding(torch.arange(8))
    _, weights = block.attention.scores(block.norm_1(x))
    assert (weights > 0).all()
    entropy = (-(weights * weights.log()).sum(-1) / math.log(8)).mean().item()
    assert rows[0, "attention", "attention_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert relative_entropy(torch.full((5, 5), 0.2), causal=False).item() == pytest.approx(1.0)
    assert relative_entropy(torch.ones(1, 1), causal=False).isnan()


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_variance_beyond_float32(batch: tuple[Tensor, Tensor], scale: float) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 8, 12, 3, 1))
    plain = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    for embedding in (model.token_embedding, model.position_embedding):
        embedding.weight.data *= scale
    scaled = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    key = (0, "input", "activation_variance")
    assert scaled[key] == pytest.approx(scale**2 * plain[key], rel=1e-4)


def test_entropy_of_known_weights() -> None:
    uniform = torch.ones(5, 5).tril() / torch.arange(1, 6)[:, None]
    assert relative_entropy(uniform, causal=True).item() == pytest.approx(1.0)
    assert relative_entropy(torch.eye(5), causal=True).item() == 0.0


@pytest.mark.parametrize(
    ("window", "sinks"), [(3, False), (0, True), (3, True), (1, False), (20, True)]
)
def test_attention_entropy_knows_windows_and_sinks(
    batch: tuple[Tensor, Tensor], window: int, sinks: bool
) -> None:
    """Row t sees min(t, window) tokens; a sink takes a part of the sum, which is divided out."""
    torch.manual_seed(0)
    attention = AttentionConfig(windows=[window], sinks=sinks)
    model = GPT(GPTConfig(11, 8, 12, 3, 1, attention=attention))
    (block,) = model.blocks
    nn.init.normal_(block.attention.qkv.weight)
    if sinks:
        nn.init.normal_(block.attention.sinks, std=3)
    rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    x = block.norm_1(model.token_embedding(batch[0]) + model.position_embedding(torch.arange(8)))
    query, key, _ = block.attention.heads(x)
    shares = []
    for text, head, t in itertools.product(range(4), range(3), range(1, 8)):
        first = max(0, t + 1 - window) if window else 0
        logits = key[text, head, first : t + 1] @ query[text, head, t] / 2
        p = logits.softmax(0)
        shares.append(-(p * p.log()).sum().item() / math.log(len(p)) if len(p) > 1 else math.nan)
    expected = pytest.approx(sum(shares) / len(shares), rel=1e-5, nan_ok=True)
    assert rows[0, "attention", "attention_entropy"] == expected


def test_a_sink_that_takes_all_leaves_no_entropy(batch: tuple[Tensor, Tensor]) -> None:
    model = GPT(GPTConfig(11, 8, 12, 3, 1, attention=AttentionConfig(sinks=True)))
    nn.init.constant_(model.blocks[0].attention.sinks, 1e4)
    rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    assert rows[0, "attention", "attention_entropy"] == 0


@pytest.mark.parametrize("active", [1, 2])
def test_load_of_experts_is_what_the_router_chose(
    batch: tuple[Tensor, Tensor], active: int
) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(11, 8, 12, 3, 2, experts=ExpertsConfig(count=5, active=active)))
    seen: dict[int, Tensor] = {}
    for layer, block in enumerate(model.blocks):
        keep = partial(seen.__setitem__, layer)
        block.feed_forward.register_forward_pre_hook(lambda _, x, keep=keep: keep(x[0]))
    rows = values_of(stream_rows(anatomy_of(model), partial(loss_of, model, *batch)))
    for layer, block in enumerate(model.blocks):
        counts = [0] * 5
        for token in seen[layer].flatten(0, 1):
            logits = block.feed_forward.router(token).tolist()
            for expert in sorted(range(5), key=lambda e: -logits[e])[:active]:
                counts[expert] += 1
        assert sum(counts) == 32 * active
        shares = [count / sum(counts) for count in counts]
        for expert, share in enumerate(shares):
            load = rows[layer, f"feed_forward.expert_{expert}", "expert_load"]
            assert load == pytest.approx(5 * share, rel=1e-5)
        largest, entropy = (
            rows[layer, "feed_forward", stat] for stat in ("expert_max_load", "expert_entropy")
        )
        assert largest == pytest.approx(5 * max(shares), rel=1e-5)
        plain = -sum(share * math.log(share) for share in shares if share) / math.log(5)
        assert entropy == pytest.approx(plain, rel=1e-5)
    dense = GPT(GPTConfig(11, 8, 12, 3, 1))
    stats = {row.stat for row in stream_rows(anatomy_of(dense), partial(loss_of, dense, *batch))}
    assert not any("expert" in stat for stat in stats)


class InUnits(nn.Module):
    """h = x + F(N x), with the stream after block k = 1, 2, ... written in units of c(k)."""

    def __init__(self, unit: Callable[[int], float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            InUnits.Block(unit(k) / unit(k + 1), unit(k + 1)) for k in range(4)
        )
        self.head = nn.Linear(6, 1)

    class Block(nn.Module):
        def __init__(self, old: float, new: float) -> None:
            super().__init__()
            self.mlp, self.old, self.new = nn.Linear(6, 6), old, new

        def forward(self, x: Tensor) -> Tensor:
            read = nn.functional.layer_norm(x, (6,), eps=0.0)
            return self.old * x + self.mlp(read) / self.new

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(nn.functional.layer_norm(x, (6,), eps=0.0))


def test_the_unit_of_the_stream_changes_its_magnitude_and_its_gradient_and_nothing_else() -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))

    def measured(unit: Callable[[int], float]) -> dict[tuple[int, str, str], float]:
        model = InUnits(unit)
        probes = Probes(anatomy_of(model))
        rows = probes.on_step(lambda: model(x).square().mean())
        model(x).square().mean().backward()
        norms = probes.norms.gradients_on_host(probes.norms.gradients())
        return values_of(rows + probes.norms.gradient_rows(norms, each=True))

    plain, scaled = measured(lambda k: 1.0), measured(lambda k: max(1, k) ** 0.5)
    for (layer, part, stat), value in plain.items():
        unit = (max(1, layer) if part == "input" else layer + 1) ** 0.5
        if part in ("input", "output"):
            without = dict.fromkeys(STREAMS.statistics, 0)
            power = (without | {"stream_grad_norm": 1, "activation_variance": -2}).get(stat, -1)
            value *= unit**power
        assert scaled[layer, part, stat] == pytest.approx(value, rel=1e-4), (layer, part, stat)
