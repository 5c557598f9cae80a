"""What adding costs: each choice below is one class or function, and one entry of the equations.

Registered by a test, it passes what holds for every choice of its kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import test_parts as parts
import test_placement as placements
import torch
from torch import Tensor, nn

import equations
from configs import SMALL, changed, small_model
from equations import Paper, Written
from gpt import (
    ACTIVATIONS,
    INITS,
    NORMS,
    PLACEMENTS,
    POSITIONS,
    ConfigError,
    GPTConfig,
)
from gpt.block import Block
from gpt.checks import setting
from gpt.inside import Inside
from gpt.placement import PreLN
from gpt.position import NoPosition, NoTurn
from gpt.weights import Weight
from normscope import parameter_table

Register = Callable[..., None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Enters a choice, as its decorator would, for one test."""
    return monkeypatch.setitem


class ReZero(Block):
    """h = x + a W_O N(attend(x)); out = h + b F h, with learned scalars a and b.

    Bachlechner et al. 2020, arXiv 2003.04887, which starts them at 0; the norm is not in it.
    """

    norms = ()
    inside = Inside(heads=True)

    @dataclass(frozen=True)
    class Options:
        """start: of both scalars."""

        start: float = setting(0.0, at_least=0, at_most=1)

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        start = self.options(config).start
        self.scale_1, self.scale_2 = (nn.Parameter(torch.tensor(start)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.add_1(x, self.scale_1 * self.attention(x))
        return self.add_2(h, self.scale_2 * self.feed_forward(h))


def rezero(w: Written, x: Tensor, s: float) -> Tensor:
    query, key, value = w.heads(x)
    if w.config.norm.qk:
        query = w.norm(query, "query_norm", w.block.attention)
        key = w.norm(key, "key_norm", w.block.attention)
    mixed = w.mix(query, key, value).flatten(-2)
    attention = w.out(w.norm(mixed, "norm", w.block.attention))
    h = s * x + w.block.get_parameter("scale_1") * attention
    return s * h + w.block.get_parameter("scale_2") * w.feed_forward(h)


class Full(PreLN):
    """pre_ln with every slot filled."""

    inside = Inside(query=True, key=True, value=True, head_scale=True, heads=True, hidden=True)


def full(w: Written, x: Tensor, s: float) -> Tensor:
    attention = w.block.attention
    query, key, value = w.heads(w.norm(x, "norm_1"))
    if w.config.norm.qk is not False:
        query = w.norm(query, "query_norm", attention)
        key = w.norm(key, "key_norm", attention)
    mixed = w.mix(query, key, w.norm(value, "value_norm", attention))
    scaled = (attention.get_parameter("head_scale")[:, None] * mixed).flatten(-2)
    h = s * x + w.out(w.norm(scaled, "norm", attention))
    hidden = w.norm(w.hidden(w.norm(h, "norm_2")), "norm", w.block.feed_forward)
    return s * h + w.wide(hidden)


NEW_PLACEMENTS = [
    (ReZero, Paper(rezero, False, norms=0, own=lambda c, norm: 2 + norm(c.emb_dim))),
    (
        Full,
        Paper(
            full,
            True,
            qk=True,
            own=lambda c, norm: norm(c.head_dim) + c.n_heads + norm(c.emb_dim) + norm(c.ff_dim),
        ),
    ),
]


@pytest.mark.parametrize(("block", "paper"), NEW_PLACEMENTS)
def test_a_placement(block: type[Block], paper: Paper, register: Register) -> None:
    """With options, parameters of its own and norms inside a branch."""
    register(PLACEMENTS, "new", block)
    register(equations.PAPERS, "new", paper)
    for norm in NORMS:
        placements.test_counts_equal_the_closed_form("new", norm)
        for shortcut in (True, False):
            placements.test_block_is_its_equation("new", 0, paper.layers[0], shortcut, norm)
    for shortcut in (True, False):
        placements.test_invariants({"norm.placement": "new", "shortcut": shortcut})
        placements.test_every_parameter_has_one_place("new", shortcut)
    placements.test_shortcut_off_passes_no_input_through("new")


def test_the_options_of_a_placement(register: Register) -> None:
    register(PLACEMENTS, "rezero", ReZero)
    model = small_model({"norm.placement": "rezero"})
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    assert torch.equal(model.blocks[0](x), x)  # both scalars at 0
    half = changed(SMALL, {"norm.placement": "rezero", "norm.options.start": 0.5})
    assert ReZero.fixes(half) == {"final_norm": False, "qk_norm": False, "start": 0.5}
    assert ReZero(half, 0).scale_2.item() == 0.5
    with pytest.raises(ConfigError, match=r"norm.options.start=2 is not valid: .* \[0, 1\]"):
        changed(half, {"norm.options.start": 2})
    with pytest.raises(ConfigError, match=r"norm.options.start=0.5 .* belongs to norm=rezero"):
        changed(half, {"norm.placement": "pre_ln"})


class ScaleNorm(nn.Module):
    """g sqrt(width) x / |x|, one scalar g. Nguyen and Salazar 2019, arXiv 1910.05895."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


def test_a_norm(register: Register) -> None:
    def equation(x: Tensor, module: Any) -> Tensor:
        length = (x * x).sum(-1, keepdim=True)
        return module.weight * 12**0.5 * x / (length + 12e-5).sqrt()

    register(NORMS, "scale_norm", ScaleNorm)
    register(equations.NORM_EQUATIONS, "scale_norm", equation)
    register(equations.NORM_SIZES, "scale_norm", lambda width: 1)
    parts.test_norm_is_its_equation("scale_norm")
    placements.test_invariants({"norm.kind": "scale_norm"})
    for placement in PLACEMENTS:
        placements.test_counts_equal_the_closed_form(placement, "scale_norm")
    (row,) = (
        row
        for row in parameter_table(small_model({"norm.kind": "scale_norm"}))
        if (row["layer"], row["component"]) == (0, "norm")
    )
    assert row["parameters"] == 2


def test_an_activation(register: Register) -> None:
    register(ACTIVATIONS, "softsign", nn.functional.softsign)
    register(equations.ACTIVATION_EQUATIONS, "softsign", lambda x: x / (1 + x.abs()))
    parts.test_activation_is_its_equation("softsign")
    placements.test_invariants({"activation": "softsign"})


class Turn(nn.Module):
    """The first two features of each head turned by the angle t at place t."""

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        angle = places.to(x.dtype)
        first, second = x[..., 0], x[..., 1]
        turned = (
            first * angle.cos() - second * angle.sin(),
            first * angle.sin() + second * angle.cos(),
        )
        return torch.cat([torch.stack(turned, -1), x[..., 2:]], -1)


class EvenLayersTurn(NoPosition):
    """Rotation in every second layer, nothing added to the embeddings."""

    @staticmethod
    def make_turn(config: GPTConfig, layer: int) -> nn.Module:
        return Turn() if layer % 2 == 0 else NoTurn()


def test_a_position(register: Register) -> None:
    register(POSITIONS, "turned", EvenLayersTurn)
    placements.test_invariants({"position.kind": "turned"})
    model = small_model({"position.kind": "turned"})
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    for layer, block in enumerate(model.blocks):
        query, key, _ = Written(block, model.config).heads(x)
        logits, _ = block.attention.scores(x)
        i, j = 6, 2
        q, k = query[..., i, :], key[..., j, :]
        # A product of turned pairs depends on the distance alone.
        angle = torch.tensor(float(i - j) if layer % 2 == 0 else 0.0, dtype=torch.float64)
        pair = torch.view_as_complex(q[..., :2].contiguous())
        other = torch.view_as_complex(k[..., :2].contiguous())
        turned = (pair * other.conj() * torch.polar(torch.ones_like(angle), angle)).real
        expected = (turned + (q[..., 2:] * k[..., 2:]).sum(-1)) / 2
        torch.testing.assert_close(logits[..., i, j], expected)


def test_an_initialisation(register: Register) -> None:
    """It knows each matrix by its role."""

    def keys_alone(weights: Sequence[Weight], config: GPTConfig) -> None:
        for weight in weights:
            nn.init.constant_(weight.matrix, config.init.std if weight.role == "key" else 0.0)

    register(INITS, "keys_alone", keys_alone)
    for tie_head in (True, False):
        model = small_model({"init.scheme": "keys_alone", "init.std": 0.5, "tie_head": tie_head})
        matrices = {n: p for n, p in model.named_parameters() if p.ndim == 2}
        for name, matrix in matrices.items():
            filled = matrix[12:24] if name.endswith("qkv.weight") else matrix[:0]
            assert (filled == 0.5).all()
            assert matrix.sum() == filled.sum()
        assert [weight.role for weight in model.weights()] == [
            "embedding",
            "position",
            *["query", "key", "value", "out", "up", "down"] * 4,
            *["head"] * (not tie_head),
        ]
