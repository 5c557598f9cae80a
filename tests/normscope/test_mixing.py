"""What each sublayer wrote of the stream, against sums and norms written out."""

import copy
import doctest
import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs import SMALL, changed, small_model
from gpt import GPT, NORMS, PARALLEL, PLACEMENTS, ConfigError
from normscope import MixingRow, anatomy_of, depth_mixing
from normscope.mixing import EMBEDDING, SHIFTS, frozen, mixing_share, mixing_size, take_terms
from other_models import CALLED, LAYERS, MODELS, batch_for, loss_of

TOKENS = torch.randint(0, 11, (2, 8), generator=torch.Generator().manual_seed(0))
FORMS = [(name, False) for name in PLACEMENTS] + [(name, True) for name in PARALLEL]

State = tuple[int, str]
Terms = dict[State, tuple[Tensor, dict[State, Tensor]]]


def terms_of(model: nn.Module, forward: Callable[[], object]) -> Terms:
    """By state: the state itself, and its terms by source."""
    found: Terms = {}

    def take(layer: int, part: str, state: Tensor, terms: Mapping[State, Tensor]) -> None:
        assert (layer, part) not in found
        found[layer, part] = state, dict(terms)

    take_terms(anatomy_of(model), forward, take)
    return found


def assert_sums(found: Terms, within: float = 1e-12) -> None:
    """The terms sum to each state."""
    assert found
    for state, terms in found.values():
        missed = torch.stack(list(terms.values())).sum(0) - state
        assert missed.abs().max() <= within * state.abs().max()


def draw_vectors(model: nn.Module) -> None:
    """Draw norms, shifts and biases, so that none is 0 or 1."""
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter)


def written_by(model: GPT) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
    """The embeddings, what both branches of each block give, and what the head reads."""
    seen: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[module] = output

    branches = [(block.attention, block.feed_forward) for block in model.blocks]
    modules = [*(branch for pair in branches for branch in pair), model.dropout]
    handles = [module.register_forward_hook(keep) for module in modules]
    with torch.no_grad():
        read = model.features(TOKENS)
    for handle in handles:
        handle.remove()
    return seen[model.dropout], [(seen[a], seen[f]) for a, f in branches], read


def with_statistics_of(x: Tensor, norm: nn.Module, *terms: Tensor) -> list[Tensor]:
    """Each term through a layer norm whose mean and variance are those of x, without its shift."""
    scale = norm.get_parameter("weight") / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return [scale * (term - term.mean(-1, keepdim=True)) for term in terms]


# One that centres and one that is elementwise; each kind's own equation is tested below.
FEW_KINDS = ("layer_norm", "derf")
OTHER_KINDS = tuple(kind for kind in NORMS if kind not in FEW_KINDS)


@pytest.mark.parametrize("kinds", [FEW_KINDS, pytest.param(OTHER_KINDS, marks=pytest.mark.long)])
@pytest.mark.parametrize(("placement", "parallel"), FORMS)
def test_terms_of_every_placement_sum_to_the_state(
    placement: str, parallel: bool, kinds: tuple[str, ...]
) -> None:
    """With all gains and shifts drawn, also without shortcuts, and with a scaled stream."""
    of_kinds = ({"norm.kind": kind} for kind in kinds)
    for change in (*of_kinds, {"shortcut": False}, {"norm.options.gpas": True}):
        values = {"norm.placement": placement, "parallel.enabled": parallel, **change}
        try:
            model = small_model(values)
        except ConfigError:  # one that is about the shortcut itself, or without the option
            continue
        draw_vectors(model)
        plain = model.eval()(TOKENS)
        seen: list[Tensor] = []
        found = terms_of(model, lambda model=model, seen=seen: seen.append(model(TOKENS)))
        assert_sums(found)
        torch.testing.assert_close(seen[0], plain)  # the state itself passes unchanged
        parts = ("sum_1", "sum_2", "output")
        assert set(found) == {(n, part) for n in range(4) for part in parts} | {(4, "final_norm")}
        for (layer, part), (_, terms) in found.items():
            wrote = {(n, f) for n in range(layer) for f in ("attention", "feed_forward")}
            if layer < 4:
                wrote |= {(layer, "attention")}
                wrote |= set() if part == "sum_1" else {(layer, "feed_forward")}
            assert set(terms) == wrote | {EMBEDDING, SHIFTS}


def test_terms_of_pre_ln_are_what_the_branches_gave() -> None:
    model = small_model({"norm.placement": "pre_ln", "n_layers": 2})
    draw_vectors(model)
    embedding, written, read = written_by(model)
    found = terms_of(model, lambda: model(TOKENS))
    (a, f), (b, g) = written
    state, terms = found[1, "output"]
    torch.testing.assert_close(state, embedding + a + f + b + g)
    expected = {EMBEDDING: embedding, (0, "attention"): a, (0, "feed_forward"): f}
    expected |= {(1, "attention"): b, (1, "feed_forward"): g, SHIFTS: torch.zeros_like(a)}
    for source, term in expected.items():
        torch.testing.assert_close(terms[source], term)
    # What the head reads: the same through the final norm, whose shift stands apart.
    _, terms = found[2, "final_norm"]
    moved = with_statistics_of(state, model.final_norm, *expected.values())
    moved[-1] = model.final_norm.get_parameter("bias").expand_as(state)
    for source, term in zip(expected, moved, strict=True):
        torch.testing.assert_close(terms[source], term)
    torch.testing.assert_close(sum(moved), read)


def test_terms_of_post_ln_pass_each_later_norm() -> None:
    model = small_model({"norm.placement": "post_ln", "n_layers": 1})
    draw_vectors(model)
    (block,) = model.blocks
    embedding, ((a, f),), _ = written_by(model)
    found = terms_of(model, lambda: model(TOKENS))
    first = with_statistics_of(embedding + a, block.norm_1, embedding, a)
    first.append(block.norm_1.get_parameter("bias").expand_as(a))
    summed = sum(first) + f
    second = with_statistics_of(summed, block.norm_2, *first, f)
    second[2] = second[2] + block.norm_2.get_parameter("bias")
    sources = (EMBEDDING, (0, "attention"), SHIFTS, (0, "feed_forward"))
    for part, expected in (("sum_2", [*first, f]), ("output", second)):
        _, terms = found[0, part]
        for source, term in zip(sources, expected, strict=True):
            torch.testing.assert_close(terms[source], term)


def test_what_is_written_through_an_output_norm_is_what_arrives_in_the_stream() -> None:
    model = small_model({"norm.placement": "sandwich", "n_layers": 1})
    draw_vectors(model)
    (block,) = model.blocks
    _, ((a, _),), _ = written_by(model)
    norm = block.get_submodule("out_norm_1")
    _, terms = terms_of(model, lambda: model(TOKENS))[0, "sum_1"]
    (arrived,) = with_statistics_of(a, norm, a)
    torch.testing.assert_close(terms[0, "attention"], arrived)
    torch.testing.assert_close(terms[SHIFTS], norm.get_parameter("bias").expand_as(a))
    torch.testing.assert_close(terms[0, "attention"] + terms[SHIFTS], norm(a))


def test_the_head_of_residual_dual_reads_both_streams() -> None:
    model = small_model({"norm.placement": "residual_dual", "n_layers": 2})
    draw_vectors(model)
    embedding, written, _ = written_by(model)
    found = terms_of(model, lambda: model(TOKENS))
    norm = model.final_norm.get_submodule("norm")
    given = {EMBEDDING: embedding}
    for layer, pair in enumerate(written):
        for branch, output in zip(("attention", "feed_forward"), pair, strict=True):
            given[layer, branch] = output
    dual = with_statistics_of(sum(given.values()), norm, *given.values())  # type: ignore[arg-type]
    _, normed = found[1, "output"]
    _, read = found[2, "final_norm"]
    for source, term in zip(given, dual, strict=True):
        torch.testing.assert_close(read[source], normed[source] + term)


class Written(nn.Module):
    """Gives its vector, whatever it reads."""

    def __init__(self, *vector: float) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.tensor(vector, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.vector.expand_as(x)


class WrittenBlock(nn.Module):
    """x + f, or N(x + f); f a vector."""

    def __init__(self, post: bool, *vector: float) -> None:
        super().__init__()
        self.mlp = Written(*vector)
        self.norm = nn.RMSNorm(2, eps=0, dtype=torch.float64) if post else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.mlp(x))


@pytest.mark.parametrize("post", [False, True])
def test_shares_of_two_blocks_by_hand(post: bool) -> None:
    """The embedding (1, 0), (2, 4) makes it (3, 4) of norm 5, (5, 11) then (8, 15) of norm 17.

    Behind a root mean square norm (3, 4) is (3, 4) sqrt(2) / 5: the second block writes in units of
    sqrt(2) / 5 there, and all shares are those of pre_ln.
    """
    unit = 2**0.5 / 5 if post else 1.0
    blocks = nn.Sequential(
        WrittenBlock(post, 2.0, 4.0), WrittenBlock(post, 5.0 * unit, 11.0 * unit)
    )
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    rows = depth_mixing(anatomy_of(blocks), lambda: blocks(x))
    values = {row[:-1]: row.value for row in rows}
    assert len(values) == len(rows)
    one, two = (-1, "embedding"), (0, "feed_forward")
    expected = {
        (0, "output", *one): (3 / 25, 1 / 5),
        (0, "output", *two): (22 / 25, 20**0.5 / 5),
        (1, "output", *one): (8 / 289, 1 / 17),
        (1, "output", *two): (76 / 289, 20**0.5 / 17),
        (1, "output", 1, "feed_forward"): (205 / 289, 146**0.5 / 17),
        (0, "output", *SHIFTS): (0, 0),
        (1, "output", *SHIFTS): (0, 0),
    }
    assert values == pytest.approx(
        {(*place, "mixing_share"): share for place, (share, _) in expected.items()}
        | {(*place, "mixing_size"): size for place, (_, size) in expected.items()}
    )
    assert isinstance(rows[0], MixingRow)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_shares_and_sizes_beyond_the_squares_of_float32(scale: float) -> None:
    state = scale * torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    term = scale * torch.tensor([[5.0, 0.0], [1.0, -1.0]])
    assert mixing_share(term, state).item() == pytest.approx((15 / 25 - 1 / 2) / 2)
    assert mixing_size(term, state).item() == pytest.approx((1 + 0.5**0.5) / 2)
    assert mixing_share(0 * term, 0 * state).item() == 0


# Frozen norms


class BookNorm(nn.Module):
    """As in Raschka's book, of no class that PyTorch knows."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + self.eps) + self.shift


def expected_of(norm: nn.Module, x: Tensor, eps: float) -> tuple[Tensor, Tensor, bool]:
    """Scale, shift and whether it centres, by the norm's equation."""
    named = dict(norm.named_parameters())
    gain = named.get("weight", named.get("scale", torch.ones(x.shape[-1])))
    shift = named.get("bias", named.get("shift", torch.zeros(x.shape[-1])))
    if isinstance(norm, nn.LayerNorm | BookNorm):
        deviation = (x.var(-1, keepdim=True, correction=0) + eps).sqrt()
        return gain / deviation, shift, True
    if "slope" in named:  # elementwise: dyt, and derf with an offset
        slope, start = named["slope"], named.get("offset", torch.zeros(()))
        curve = torch.erf if "offset" in named else torch.tanh
        at_0 = slope * (2 / math.pi**0.5 * torch.exp(-(start**2)) if "offset" in named else 1)
        rise = (curve(slope * x + start) - curve(start)) / x
        return gain * torch.where(x == 0, at_0, rise), gain * curve(start) + shift, False
    gain = gain + 1 if norm.__class__.__name__.startswith("ZeroCentred") else gain
    return gain / (x.square().mean(-1, keepdim=True) + eps).sqrt(), shift, False


@pytest.mark.parametrize("eps", [1e-5, 0.0])
@pytest.mark.parametrize("kind", [*NORMS, "book"])
def test_a_frozen_norm_is_its_equation(kind: str, eps: float) -> None:
    """Also where elements are 0 or next to it, and where one is a thousand times the others."""
    torch.manual_seed(0)
    norm = BookNorm(12, eps) if kind == "book" else NORMS[kind](12, eps)
    draw_vectors(norm)
    x = torch.randn(3, 5, 12)
    x[0, :, ::2] = 0.0
    x[1, :, 3] = 1e3
    x[1, :, 4] = 1e-7
    x[2, 0] = torch.arange(12.0) - 5  # mean 1/2
    x[2, 1, :6], x[2, 1, 6:] = 1.0, -1.0
    x[2, 2] = torch.tensor([1.0, 2.0, 3.0] * 4)  # a third of them are the mean
    for dtype, rtol in ((torch.float64, 1e-8), (torch.float32, 2e-3)):
        norm, x = norm.to(dtype), x.to(dtype)
        with torch.no_grad():
            scale, shift, centres = frozen(norm, x)
            expected = expected_of(copy.deepcopy(norm).double(), x.double(), eps)
            assert centres == expected[2]
            torch.testing.assert_close(shift[0], expected[1].to(dtype), rtol=1e-6, atol=1e-6)
            wanted = expected[0].to(dtype).expand_as(scale)
            torch.testing.assert_close(scale, wanted, rtol=rtol, atol=0)
            terms = torch.randn(2, *x.shape, dtype=dtype)
            terms[1] = x - terms[0]
            seen = terms - terms.mean(-1, keepdim=True) if centres else terms
            torch.testing.assert_close((scale * seen).sum(0) + shift, norm(x), rtol=0, atol=rtol)


def test_a_norm_whose_gain_is_0_passes_nothing_on() -> None:
    blind = nn.LayerNorm(4, dtype=torch.float64)
    nn.init.zeros_(blind.weight)
    nn.init.ones_(blind.bias)
    scale, shift, _ = frozen(blind, torch.randn(1, 3, 4, dtype=torch.float64))
    assert not scale.any()
    assert (shift == 1).all()


def test_a_norm_of_one_feature_is_frozen() -> None:
    x = torch.tensor([[[2.0], [-4.0]]], dtype=torch.float64)
    scale, _, _ = frozen(nn.RMSNorm(1, eps=0, dtype=torch.float64), x)
    assert scale.flatten().tolist() == pytest.approx([1 / 2, 1 / 4])
    scale, _, _ = frozen(nn.LayerNorm(1, dtype=torch.float64), x)
    assert not scale.any()


# Other people's models


@pytest.mark.parametrize("name", MODELS)
def test_terms_of_other_models_sum_to_the_stream(name: str) -> None:
    """After each block, and behind the final norm where it reads what the last block gave."""
    torch.manual_seed(0)
    model = MODELS[name]().double()
    draw_vectors(model)
    x = batch_for(model)
    x = x.double() if x.is_floating_point() else x
    modes = [module.training for module in model.modules()]
    found = terms_of(model, lambda: loss_of(model, x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [module.training for module in model.modules()] == modes
    if name not in CALLED:  # its blocks are lists, which are never called
        assert not found
        return
    assert_sums(found, 1e-6 if name in ("llama", "qwen") else 1e-12)  # their norms round to float32
    ends = set() if name in ("bert", "encoder") else {(LAYERS, "final_norm")}
    assert set(found) == {(layer, "output") for layer in range(LAYERS)} | ends
    _, terms = found[LAYERS - 1, "output"]
    assert len(terms) == 2 + 2 * LAYERS
    assert all(term.any() for source, term in terms.items() if source != SHIFTS)
    model.eval()
    loss: list[Tensor] = []
    terms_of(model, lambda: loss.append(loss_of(model, x)))
    torch.testing.assert_close(loss[0], loss_of(model, x).detach())


def test_the_example_runs() -> None:
    outcome = doctest.testmod(importlib.import_module("normscope.mixing"))
    assert (outcome.attempted, outcome.failed) == (7, 0)


def test_what_is_no_sum_is_refused() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.silu(x) + self.mlp(x)

    torch.manual_seed(0)
    model = nn.Sequential(Gated(), Gated())
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="output of block 1 is not the sum of what the branches"):
        depth_mixing(anatomy_of(model), partial(model, x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_without_blocks_has_no_rows() -> None:
    model = GPT(changed(SMALL, {"n_layers": 0}))
    assert depth_mixing(anatomy_of(model), lambda: model(TOKENS)) == []
