"""The graph of a block, against the block itself and against equations written out as edges."""

import doctest
import importlib
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs import small_model
from gpt import PARALLEL, PLACEMENTS
from normscope import Graph, trace
from normscope.trace import tensors_in

X = torch.randn(2, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FORMS = [{"norm.placement": name} for name in PLACEMENTS]
FORMS += [{"norm.placement": name, "parallel.enabled": True} for name in PARALLEL]
FORMS += [
    {"norm.placement": "sandwich", "norm.options.gpas": True, "norm.kind": "dyt"},
    {"norm.placement": "pre_ln", "norm.qk": "projection", "position.kind": "rotary"},
    {"norm.placement": "post_ln", "shortcut": False, "attention.sinks": True},
]


def drawn_model(changes: dict[str, Any]) -> nn.Module:
    """A model whose norms, biases and scales are drawn, so that none is 0 or 1."""
    model = small_model(changes)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter)
    return model.requires_grad_(False)


def edges_of(graph: Graph) -> set[str]:
    """By labels, with a mark for each earlier node of the same."""
    seen: dict[str, int] = {}
    names = []
    for node in graph.nodes:
        label = node.label if node.factor is None else f"x{node.factor:.4g}"
        names.append(label + "'" * seen.get(label, 0))
        seen[label] = seen.get(label, 0) + (node.kind != "view")
    return {f"{names[source]} -> {names[place]}" for source, place in graph.edges()}


def block_of(placement: str, layer: int = 1) -> tuple[nn.Module, Any]:
    model = drawn_model({"norm.placement": placement})
    return model.blocks[layer], model.entry(X)


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_the_graph_computes_what_the_block_computes(changes: dict[str, Any]) -> None:
    """On other numbers than those with which it was traced, and after the last block as well."""
    model = drawn_model(changes)
    state = model.entry(X)
    other = tuple(torch.randn_like(stream) for stream in tensors_in(state))
    given = other if isinstance(state, tuple) else other[0]
    for part in (*model.blocks, nn.Sequential(model.final_norm, model.head)):
        graph = trace(part, state)
        for made, expected in zip(graph(*other), tensors_in(part(given)), strict=True):
            assert (made - expected).abs().max() <= 1e-12 * expected.abs().max()


def chain(*names: str) -> set[str]:
    return {f"{a} -> {b}" for a, b in pairwise(names)}


PRE = ("input 1", "norm_1", "attention", "add", "norm_2", "feed_forward", "add'", "output 1")
POST = ("input 1", "attention", "add", "norm_1", "feed_forward", "add'", "norm_2", "output 1")
WRITTEN = {
    "pre_ln": chain(*PRE) | {"input 1 -> add", "add -> add'"},
    "two_hop": chain(*PRE) | {"input 1 -> add", "input 1 -> add'"},
    "post_ln": chain(*POST) | {"input 1 -> add", "norm_1 -> add'"},
    "span": chain(*POST) | {"input 1 -> add", "input 1 -> add'"},
    "deepnorm": chain(*POST)
    | chain("input 1", "x1.682", "add")
    | chain("norm_1", "x1.682'", "add'"),
    "residual_dual": {
        *chain("input 1", "attention", "add", "norm_1", "feed_forward", "add''", "norm_2"),
        *chain("input 2", "add'", "add'''", "output 2"),
        *("norm_2 -> output 1", "input 1 -> add", "norm_1 -> add''"),
        *("attention -> add'", "feed_forward -> add'''"),
    },
    "hybrid": {
        *chain("input 1", "qkv", "query_norm", "scaled_dot_product_attention", "out_proj", "add"),
        *chain("qkv", "key_norm", "scaled_dot_product_attention"),
        *chain("qkv", "value_norm", "scaled_dot_product_attention"),
        *chain("add", "norm_1", "feed_forward", "add'", "output 1"),
        *("input 1 -> add", "norm_1 -> add'"),
    },
}


@pytest.mark.parametrize("placement", WRITTEN)
def test_its_edges_are_those_of_the_equation(placement: str) -> None:
    assert edges_of(trace(*block_of(placement))) == WRITTEN[placement]


def kinds_of(graph: Graph) -> list[str]:
    return [node.kind for node in graph.nodes if node.kind != "view"]


def test_a_branch_is_opened_where_it_has_more_than_layers() -> None:
    graph = trace(*block_of("normformer"))
    inside = [node for node in graph.nodes if node.branch == "attention" and node.kind != "view"]
    assert [(node.kind, node.label) for node in inside] == [
        ("weights", "qkv"),
        ("function", "scaled_dot_product_attention"),
        ("scale", "attention.head_scale"),
        ("weights", "out_proj"),
    ]
    assert "attention" not in kinds_of(graph)
    assert "attention" in kinds_of(trace(*block_of("pre_ln")))


def test_a_learned_scale_has_its_parameters_name() -> None:
    graph = trace(*block_of("admin"))
    assert [node.label for node in graph.nodes if node.kind == "scale"] == ["weight_1", "weight_2"]


def test_the_first_block_is_traced_as_it_is() -> None:
    assert kinds_of(trace(*block_of("span", 0))).count("norm") == 3
    assert kinds_of(trace(*block_of("span", 1))).count("norm") == 2


class Twisted(nn.Module):
    """What no placement here does: a function of two streams, one in place, one left unused."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.Linear(12, 12)
        self.gate = nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor, given: dict[str, Tensor]) -> list[Tensor]:
        unused = x.exp()
        assert unused.shape == x.shape
        gated = self.gate.tanh() * self.mixer(x)
        x = x.clone()
        x += gated
        left, right = x.chunk(2, dim=-1)
        return [torch.cat([right, left], -1) - given["y"], 2 * x]


def test_any_module_can_be_traced() -> None:
    block = Twisted().double().requires_grad_(False)
    graph = trace(block, X, given={"y": 2 * X})
    expected = block(X + 1, {"y": 3 * X})
    for made, wanted in zip(graph(X + 1, 3 * X), expected, strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-12, atol=0)
    assert kinds_of(graph) == [
        *("input", "input", "weights", "scale", "sum", "function", "function", "scale"),
        *("output", "output"),
    ]
    assert [node.label for node in graph.nodes if node.kind == "scale"] == ["gate", "mul"]


def test_tracing_leaves_the_module_as_it_was() -> None:
    block, state = block_of("pre_ln")
    block.train()
    before = torch.get_rng_state()
    trace(block, state)
    assert block.training
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())


def test_its_example_holds() -> None:
    module = importlib.import_module("normscope.trace")
    assert doctest.testmod(module).failed == 0
