"""Every placement against its equation, PyTorch's own layer, and what must hold for each."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpt import ACTIVATIONS, GPT, NORMS, PLACEMENTS, GPTConfig, parameter_table, places
from gpt.block import Block
from gpt.parameters import closed_form

SMALL = GPTConfig(11, 8, 12, 3, 2, qkv_bias=True)
ALL = list(itertools.product(PLACEMENTS, (True, False), ACTIVATIONS))

# Each paper's block, written out: x, attention A, feed-forward F, the norms, shortcut factor s.
EQUATIONS = {
    "pre_ln": lambda x, A, F, N, s: (h := s * x + A(N[0](x)), s * h + F(N[1](h)))[1],
    "post_ln": lambda x, A, F, N, s: (h := N[0](s * x + A(x)), N[1](s * h + F(h)))[1],
    "no_norm": lambda x, A, F, N, s: (h := s * x + A(x), s * h + F(h))[1],
}
FINAL_NORM = {"pre_ln": True, "post_ln": False, "no_norm": False}


def small_model(seed: int = 0, **changes: Any) -> GPT:
    torch.manual_seed(seed)
    return GPT(dataclasses.replace(SMALL, **changes)).double()


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_block_is_its_equation(placement: str, shortcut: bool, norm: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, placement=placement, shortcut=shortcut, norm=norm)
    block = PLACEMENTS[placement].build(config, layer=0).double()
    norms = [getattr(block, name) for name in block.norms]
    for parameter in itertools.chain.from_iterable(n.parameters() for n in norms):
        nn.init.normal_(parameter)  # so that no two norms are alike
    x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
    written = EQUATIONS[placement](x, block.attention, block.feed_forward, norms, float(shortcut))
    out = block(x)
    torch.testing.assert_close(out, written, atol=1e-12, rtol=1e-12)
    weights = [x, *block.parameters()]
    direction = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, weights, direction),
        torch.autograd.grad(written, weights, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("placement", ["pre_ln", "post_ln"])
def test_block_equals_torch_encoder_layer(placement: str) -> None:
    """Outputs and all gradients, given the same weights, in float64 to 1e-10."""
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, placement=placement, activation="relu")
    block = PLACEMENTS[placement].build(config, layer=0).double()
    layer = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, batch_first=True, norm_first=placement == "pre_ln"
    ).double()
    attention = layer.self_attn
    assert attention.in_proj_weight is not None
    pairs = [
        (block.attention.qkv.weight, attention.in_proj_weight),
        (block.attention.qkv.bias, attention.in_proj_bias),
        (block.attention.out_proj.weight, attention.out_proj.weight),
        (block.attention.out_proj.bias, attention.out_proj.bias),
        (block.feed_forward.fc_in.weight, layer.linear1.weight),
        (block.feed_forward.fc_in.bias, layer.linear1.bias),
        (block.feed_forward.fc_out.weight, layer.linear2.weight),
        (block.feed_forward.fc_out.bias, layer.linear2.bias),
        (block.norm_1.weight, layer.norm1.weight),
        (block.norm_1.bias, layer.norm1.bias),
        (block.norm_2.weight, layer.norm2.weight),
        (block.norm_2.bias, layer.norm2.bias),
    ]
    assert {id(p) for p in block.parameters()} == {id(ours) for ours, _ in pairs}
    assert {id(p) for p in layer.parameters()} == {id(theirs) for _, theirs in pairs}
    with torch.no_grad():
        for ours, theirs in pairs:
            nn.init.normal_(ours, std=0.3)
            theirs.copy_(ours)
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    out = block(x)
    mask = nn.Transformer.generate_square_subsequent_mask(8, dtype=torch.float64)
    reference = layer(x, src_mask=mask, is_causal=True)
    torch.testing.assert_close(out, reference, atol=1e-10, rtol=1e-10)
    direction = torch.randn_like(out)
    (out * direction).sum().backward()
    (reference * direction).sum().backward()
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("placement", "shortcut", "activation"), ALL)
def test_invariants(placement: str, shortcut: bool, activation: str) -> None:
    model = small_model(placement=placement, shortcut=shortcut, activation=activation)
    tokens = torch.randint(0, 11, (3, 8))
    logits = model(tokens)
    assert logits.shape == (3, 8, 11)

    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    later = model(changed)
    torch.testing.assert_close(later[:, :5], logits[:, :5], atol=1e-12, rtol=1e-12)
    assert not torch.allclose(later[:, 5:], logits[:, 5:], atol=1e-12)

    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model(tokens[order]), logits[order], atol=1e-12, rtol=1e-12)

    nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    assert (not isinstance(model.final_norm, nn.Identity)) == FINAL_NORM[placement]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_shortcut_off_passes_no_input_through(placement: str) -> None:
    """With both branches dead the block's output does not depend on its input, nor its gradient."""
    for shortcut in (True, False):
        torch.manual_seed(0)
        config = dataclasses.replace(SMALL, placement=placement, shortcut=shortcut)
        block = PLACEMENTS[placement].build(config, layer=0).double()
        for branch in (block.attention.out_proj, block.feed_forward.fc_out):
            nn.init.zeros_(branch.weight)
        x = torch.randn(2, 8, 12, dtype=torch.float64, requires_grad=True)
        out = block(x)
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        other = block(torch.full_like(x, float("1e3")) + torch.randn_like(x))
        assert torch.equal(out, other) != shortcut
        assert bool(gradient.any()) == shortcut


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("changes", [{}, {"tie_head": True}, {"qkv_bias": False}, {"ff_ratio": 2}])
def test_counts_equal_the_closed_form(placement: str, norm: str, changes: dict[str, Any]) -> None:
    for final_norm in (None, True, False):
        model = small_model(placement=placement, norm=norm, final_norm=final_norm, **changes)
        rows = parameter_table(model)
        total = sum(p.numel() for p in model.parameters())  # PyTorch lists a tied weight once
        assert sum(int(row["parameters"]) for row in rows) == total == closed_form(model.config)
        named = [place.parameter for place in places(model)]
        assert {id(p) for p in named} == {id(p) for p in model.parameters()}
        assert len(named) == len({id(p) for p in named})


class TwoStreams(Block):
    """p = N(p + A p), d = d + A p, then the same with F: a placement that carries two streams."""

    final_norm = True

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.weight = nn.Parameter(torch.ones(config.emb_dim))  # of its own, as Admin has

    @classmethod
    def make_entry(cls, config: GPTConfig) -> nn.Module:
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = NORMS[config.norm](config.emb_dim, config.norm_eps)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return self.norm(x), x

        return Normed()

    @staticmethod
    def stream(state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]

    @classmethod
    def make_final(cls, config: GPTConfig) -> nn.Module:
        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = NORMS[config.norm](config.emb_dim, config.norm_eps)

            def forward(self, state: tuple[Tensor, Tensor]) -> Tensor:
                return state[0] + self.norm(state[1])

        return Sum()

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        p, d = state
        for norm, branch in ((self.norm_1, self.attention), (self.norm_2, self.feed_forward)):
            f = branch(p)
            p, d = norm(self.weight * self.shortcut(p) + f), self.shortcut(d) + f
        return p, d


class HalfPost(Block):
    """The first half of the blocks as post_ln, the rest as pre_ln."""

    final_norm = True

    @classmethod
    def build(cls, config: GPTConfig, layer: int) -> Block:
        name = "post_ln" if layer < config.n_layers / 2 else "pre_ln"
        return PLACEMENTS[name].build(config, layer)


@pytest.mark.parametrize("placement", [TwoStreams, HalfPost])
def test_other_structures_fit(placement: type[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams, or blocks that differ by depth, need a class and nothing else."""
    from experiments.probes import ParameterNorms, stream_rows

    monkeypatch.setitem(PLACEMENTS, "new", placement)
    model = small_model(placement="new")
    tokens = torch.randint(0, 11, (3, 8))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

    loss(tokens, tokens).backward()
    norms = ParameterNorms(model)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    total = nn.utils.get_total_norm(grads)
    assert norms.gradients().norm().item() == pytest.approx(total.item(), rel=1e-6)
    counted = sum(int(row["parameters"]) for row in parameter_table(model))
    assert counted == sum(p.numel() for p in model.parameters())
    own = {row["component"] for row in parameter_table(model)} & {"placement", "entry"}
    assert own == ({"placement", "entry"} if placement is TwoStreams else set())
    rows = stream_rows(model, loss, tokens, tokens)
    assert {row.layer for row in rows} == {0, 1}
    kinds = [type(block).__name__ for block in model.blocks]
    assert kinds == (["TwoStreams"] * 2 if placement is TwoStreams else ["PostLN", "PreLN"])
