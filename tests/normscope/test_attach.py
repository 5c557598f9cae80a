"""The instrument on other people's models in a loop of one's own, against hooks by hand."""

import csv
import doctest
import importlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import normscope
from experiments.report.run_pictures import draw_run
from normscope import Row, Scope, anatomy_of, attach
from other_models import CALLED, LAYERS, MODELS, batch_for, encoder, gpt2, llama, loss_of

OUTPUTS = {  # the modules whose outputs are the branches, in one block
    "gpt2": ("attn", "mlp"),
    "neox": ("attention", "mlp"),
    "llama": ("self_attn", "mlp"),
    "qwen": ("self_attn", "mlp"),
    "opt": ("self_attn", "fc2"),
    "bert": ("attention.output.dense", "output.dense"),
    "encoder": ("self_attn", "linear2"),
    "encoder, norm first": ("self_attn", "linear2"),
}


def values_of(rows: list[Row]) -> dict[tuple[int, str, str], float]:
    values = {row[:3]: row.value for row in rows}
    assert len(values) == len(rows)
    return values


def one_step(scope: Scope, model: nn.Module, x: Tensor) -> list[Row]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model, x).backward()
    with scope.step(lambda: loss_of(model, x)) as rows:
        optimizer.step()
    optimizer.zero_grad()
    return rows


def test_the_example_runs() -> None:
    outcome = doctest.testmod(importlib.import_module("normscope.attach"))
    assert (outcome.attempted, outcome.failed) == (6, 0)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_norms_and_updates_equal_those_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()  # without dropout, so that both passes are the same
    x = batch_for(model)
    blocks = model.get_submodule(anatomy_of(model).blocks[0].name.rpartition(".")[0])
    before = [[p.detach().clone() for p in block.parameters()] for block in blocks.children()]
    loss_of(model, x).backward()
    grads = [[p.grad.clone() for p in block.parameters()] for block in blocks.children()]
    model.zero_grad()
    values = values_of(one_step(attach(model), model, x))

    def norm(tensors: list[Tensor]) -> float:
        return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))

    for layer, (weights, gradients) in enumerate(zip(before, grads, strict=True)):
        size = sum(weight.numel() for weight in weights)
        total = norm(gradients)
        assert total > 0
        assert values[layer, "block", "grad_norm"] == pytest.approx(total, rel=1e-5)
        assert values[layer, "block", "grad_rms"] == pytest.approx(total / size**0.5, rel=1e-5)
        assert values[layer, "block", "weight_norm"] == pytest.approx(norm(weights), rel=1e-5)
        ratio = 0.1 * total / norm(weights)
        assert values[layer, "block", "update_ratio"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("name", CALLED)
def test_streams_and_branches_equal_hooks_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    x = batch_for(model)
    values = values_of(one_step(attach(model), model, x))
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    blocks = model.get_submodule(anatomy_of(model).blocks[0].name.rpartition(".")[0])
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(layer: int, part: str) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            if part == "output":
                seen[layer, "input"] = inputs[0]
            seen[layer, part] = output[0] if isinstance(output, tuple) else output

        return hook

    for layer, block in enumerate(blocks):
        block.register_forward_hook(keep(layer, "output"))
        for part, inside in zip(("attention", "feed_forward"), OUTPUTS[name], strict=True):
            block.get_submodule(inside).register_forward_hook(keep(layer, part))
    loss = loss_of(model, x)
    outputs = [seen[layer, "output"] for layer in range(LAYERS)]
    for layer, grad in enumerate(torch.autograd.grad(loss, outputs)):
        measured = values[layer, "output", "stream_grad_norm"]
        assert measured == pytest.approx(grad.norm().item(), rel=1e-4)
    for (layer, part), tensor in seen.items():
        rms = tensor.square().mean().sqrt().item()
        assert values[layer, part, "activation_rms"] == pytest.approx(rms, rel=1e-5)
    for layer in range(LAYERS):
        a, b = seen[layer, "input"].double(), seen[layer, "output"].double()
        angle = nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).arccos().mean() / math.pi
        measured = values[layer, "block", "angular_distance"]
        assert measured == pytest.approx(angle.item(), rel=1e-4)
    assert not {stat for _, part, stat in values if part[:3] in ("sum", "add")}
    assert "branch_ratio" not in {stat for _, _, stat in values}  # no module is the sum


def test_what_a_model_lacks_is_not_measured() -> None:
    """Blocks of x-transformers are lists, which are never called; their branches are."""
    model = MODELS["x-transformers"]()
    scope = attach(model)
    x = batch_for(model)
    rows = one_step(scope, model, x) + scope.end(lambda: loss_of(model, x))
    stats = {(row.component, row.stat) for row in rows}
    assert ("attention", "activation_rms") in stats
    assert ("block", "update_ratio") in stats
    assert not {"input", "output"} & {component for component, _ in stats}
    missing = {"angular_distance", "stream_grad_norm", "attention_entropy", "layer_drop"}
    assert not missing & {stat for _, stat in stats}


@pytest.mark.parametrize("make", [gpt2, llama])
def test_attention_entropy_of_eager_attention(make: object) -> None:
    torch.manual_seed(0)
    model = make(attn_implementation="eager").eval()  # type: ignore[operator]
    x = batch_for(model)
    values = values_of(one_step(attach(model), model, x))
    torch.manual_seed(0)
    model = make(attn_implementation="eager").eval()  # type: ignore[operator]
    for layer, weights in enumerate(model(x, output_attentions=True).attentions):
        shares = [
            -(row * row.log()).sum().item() / math.log(len(row))
            for head in weights.flatten(0, 1)
            for row in (head[t, : t + 1] for t in range(1, 8))
        ]
        expected = sum(shares) / len(shares)
        assert values[layer, "attention", "attention_entropy"] == pytest.approx(expected, rel=1e-5)
    assert "attention_max_logit" not in {stat for _, _, stat in values}


def test_attention_is_not_measured_where_it_is_fused_or_tokens_are_padding() -> None:
    x = batch_for(gpt2())
    for model, mask in (
        (gpt2(attn_implementation="sdpa"), torch.ones(2, 8)),
        (gpt2(attn_implementation="eager"), torch.tensor([[0] + 7 * [1], 8 * [1]])),
    ):
        loss = lambda: model(x, attention_mask=mask, labels=x).loss  # noqa: B023, E731
        rows = normscope.Probes(anatomy_of(model)).on_step(loss)
        assert rows
        assert not [row for row in rows if row.stat.startswith("attention")]


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_was(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    frozen = next(
        module for module in model.modules() if isinstance(module, nn.LayerNorm | nn.Linear)
    )
    frozen.eval()  # a mode of its own, which comes back
    x = batch_for(model)
    loss_of(model, x).backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    own = [sorted(vars(module)) for module in model.modules()]
    random = torch.get_rng_state()
    scope = attach(model)

    def loss() -> Tensor:
        torch.rand(3)
        return loss_of(model, x)

    with scope.step(loss):
        pass
    scope.end(loss, (loss_of(model, x[i : i + 1]) for i in range(2)))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert [sorted(vars(module)) for module in model.modules()] == own
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for module in model.modules()
    )
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[key])
        assert key not in grads or torch.equal(parameter.grad, grads[key])


@pytest.mark.parametrize("name", CALLED)
def test_a_dropped_block_equals_a_model_without_it(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = batch_for(model)
    whole = loss_of(model, x).item()
    values = values_of(attach(model).end(lambda: loss_of(model, x)))
    root = anatomy_of(model).blocks[0].name.rpartition(".")[0]
    blocks = model.get_submodule(root)
    parent = model.get_submodule(root.rpartition(".")[0])
    if hasattr(model, "config"):
        model.config.num_hidden_layers = LAYERS - 1
        model.config.use_cache = False  # which has a place for each layer
    for layer in range(LAYERS):
        rest = nn.ModuleList(block for index, block in enumerate(blocks) if index != layer)
        setattr(parent, root.rpartition(".")[2], rest)
        with torch.no_grad():
            difference = loss_of(model, x).item() - whole
        assert values[layer, "block", "layer_drop"] == pytest.approx(difference, abs=1e-6)


def test_a_block_that_gives_more_than_its_state_can_be_dropped() -> None:
    """Its other outputs are still computed."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return x + self.attn(x), 7

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Block(), Block()])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x, seven = layer(x)
                assert seven == 7
            return x

    torch.manual_seed(0)
    model, x = Model(), torch.randn(3, 4)
    values = values_of(attach(model).end(lambda: model(x).square().mean()))
    first, second = model.layers
    whole = model(x).square().mean().item()
    for layer, other in ((0, second), (1, first)):
        left = other(x)[0].square().mean().item()
        assert values[layer, "block", "layer_drop"] == pytest.approx(left - whole, rel=1e-5)


def test_frozen_parameters_are_not_measured() -> None:
    model = gpt2()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".h.2." in name
    values = values_of(one_step(attach(model), model, batch_for(model)))
    assert {layer for layer, _, stat in values if stat in ("grad_norm", "weight_norm")} == {2}
    places = {(layer, part) for layer, part, stat in values if stat == "stream_grad_norm"}
    assert places == {(2, "output")}
    assert (0, "output", "activation_rms") in values


def test_gradients_are_those_before_clipping() -> None:
    model = encoder()
    x = batch_for(model)
    loss_of(model, x).backward()
    expected = nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    with attach(model).step() as rows:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    blocks = [row.value for row in rows if row[1:3] == ("block", "grad_norm")]
    assert math.hypot(*blocks) == pytest.approx(expected, rel=1e-5)


def test_the_file_has_what_the_rows_have_and_is_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = encoder()
    x = batch_for(model)
    written: list[tuple[int, Row]] = []
    with attach(model, tmp_path / "gradients.csv", every=2) as scope:
        for step in range(3):
            written += [(step, row) for row in one_step(scope, model, x)]
        written += [(3, row) for row in scope.end(lambda: loss_of(model, x))]
    with (tmp_path / "gradients.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["step", "layer", "component", "stat", "value"]
    assert lines == [
        [str(step), str(row.layer), row.component, row.stat, f"{row.value:.9g}"]
        for step, row in written
    ]
    probed = {step for step, row in written if row.stat == "activation_rms"}
    assert probed == {0, 2}
    assert {step for step, row in written if row.stat == "grad_norm"} == {0, 1, 2}
    pictures = {path.stem for path in draw_run(tmp_path)}
    assert pictures == {"gradient_by_layer", "gradient_heatmap", "activations_by_layer"}
    assert caplog.records == []
    with pytest.raises(FileExistsError):
        attach(model, tmp_path / "gradients.csv")
