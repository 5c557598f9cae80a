"""Claims at initialisation: each says what it is, and measures what the equations give."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import initialize_config_dir
from torch import Tensor

import run
from experiments.claims import CLAIMS, vanishing
from experiments.claims.claim import (
    LAW,
    RATE,
    SIGN,
    Claim,
    guide_points,
    log_slope,
    slope,
)
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    ff_weights,
    in_xiongs_setting,
    mean_norms,
    micro,
    sequence_grads,
)
from experiments.claims.theorems import branches_cut
from experiments.claims.updates import branch_weights, sgd_step
from gpt import PLACEMENTS
from gpt.attention import SelfAttention
from gpt.block import Block

AT_INITIALISATION = [claim for claim in CLAIMS.values() if not claim.trains]


@pytest.fixture(scope="module")
def lab(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab on a short text, so that no corpus need be prepared."""
    cache = tmp_path_factory.mktemp("cache")
    text = ("data=text", f"data.path={text_file}", f"data.cache_dir={cache}", "device=cpu")
    with initialize_config_dir(run.CONF, version_base="1.3"):
        yield Lab(text)


# Of each claim, where the equations put numbers, with room for one seed.
QUICK = {
    "homogeneous_branch": {
        "post_ln: rise of ln(norm) per block": (-0.05, 0.05),
        # The norms' factors: sqrt(3/2) and, of tokens that are alike, sqrt(2), ln of which is 0.55.
        "post_ln, branches cut: rise of ln(norm) per block": (0.4, 0.6),
        "pre_ln: exponent of the gradient plus half the variance's": (-0.35, 0.35),
    },
    "pre_rms_norm": {"centred: log10 of the largest relative difference": (-17, -12)},
    "shortcut": {
        "without: change of ln(gradient of the first layer) per layer": (-1.8, -0.8),
        "with: change of ln(gradient of the first layer) per layer": (-0.15, 0.35),
    },
    "variance_lower_bound": {
        "ln_scaling: exponent of growth": (0.2, 0.6),
        "pre_ln: exponent of growth": (1.0, 1.5),
    },
    "peri_ln_bound": {
        "pre_ln: slope of W_2's gradient in the hidden layer's size": (1 - 1e-6, 1 + 1e-6),
        "peri_ln: slope of W_2's gradient in the hidden layer's size": (-0.01, 0.01),
    },
    "vanishing_needs_cross_attention": {
        "post_ln, decoder: log10(first block / last block)": (-4.0, -1.2),
        "post_ln, decoder alone: log10(first block / last block)": (-0.5, 0.5),
        "pre_ln, decoder: log10(first block / last block)": (-0.3, 0.8),
    },
    "branch_ratio": {"pre_ln: exponent of RMS(f) / RMS(x)": (-0.6, -0.4)},
}
LONG = {
    "hidden_norm": {
        "post_ln: squared norm / d, mean over blocks": (1.4, 1.6),
        "pre_ln: squared norm / d after block 32": (17, 49),
    },
    "variance_peri_ln": {"peri_ln: exponent of growth": (0.9, 1.2)},
    "init_decides": {
        "xavier, N(0, 1): ln(pre_ln / post_ln)": (-2.5, -0.5),
        "gpt2, N(0, 0.02): ln(pre_ln / post_ln)": (1.0, 4.0),
    },
    "depth_law": {"post_ln: slope in L": (-0.08, 0.08), "pre_ln: slope in L": (-0.6, -0.45)},
    "width_law": {"post_ln: slope in d": (0.7, 1.4)},
    "gradient_by_layer": {"post_ln: rise of ln(norm) per block": (-0.05, 0.05)},
    "variance_pre_ln": {"pre_ln: exponent of growth": (1.0, 1.5)},
    "variance_ln_scaling": {"ln(pre_ln / ln_scaling), last block": (1.5, 3.0)},
    "output_change": {"post_ln: slope in L": (0.6, 1.6), "pre_ln: slope in L": (0.2, 0.6)},
    "model_update": {"deepnorm: slope in L": (-0.4, 0.4), "post_ln: slope in L": (0.8, 3.0)},
    "residual_dual_keeps_gradients": {"residual_dual: log10(first block / last block)": (-1.3, 0)},
    "b2t_keeps_gradients": {"b2t: log10(first block / last block)": (-1.5, -0.2)},
    "depth_law_gpt": {"post_ln: slope in L": (-0.2, 0.6)},
    "kedia_moments": {"pre_ln: exponent of the variance": (0.9, 1.6)},
    "adjacent_cosine": {
        "sandwich: cosine of the last two blocks less that of the first two": (0.1, 0.3)
    },
    "rank_collapse": {"post_ln: token cosine after block 16, less the embeddings'": (0.6, 1.0)},
    "scaled_init": {"gpt2_scaled, pre_ln: slope in L": (-0.15, 0.15)},
    "small_embeddings": {"pre_ln: ln(small / large), first block": (math.log(5), math.log(60))},
    "keel_keeps_gradients": {
        "post_ln: log10(first block / last block)": (-0.8, 0.8),
        "post_ln, branches cut: log10(first block / last block)": (-9.0, -3.0),
    },
    "model_update_adam": {"post_ln: slope in L": (0.8, 3.0)},
}


def check_measured(lab: Lab, name: str, known: dict[str, tuple[float, float]]) -> None:
    """One seed gives a finite number for every prediction, near what the equations give."""
    claim = CLAIMS[name]
    evidence = claim.measure(lab, 0)
    for prediction in claim.predictions:
        assert math.isfinite(evidence.values[prediction.name]), prediction.name
    assert all(math.isfinite(point.value) for point in evidence.points)
    assert evidence.points
    for number, (low, high) in known.items():
        assert low < evidence.values[number] < high, number
    means = {
        arm: {p.x: p.value for p in evidence.points if p.arm == arm}
        for arm in {p.arm for p in evidence.points}
    }
    for guide in claim.guides:
        assert guide.arm in {"", *means}, guide.label
        assert all(math.isfinite(y) for _, y, _ in guide_points(guide, means))


@pytest.mark.parametrize("name", QUICK)
def test_a_claim_measures_what_the_equations_give(lab: Lab, name: str) -> None:
    check_measured(lab, name, QUICK[name])


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_further_claims_measure_what_the_equations_give(lab: Lab, name: str) -> None:
    check_measured(lab, name, LONG[name])


def test_every_claim_at_initialisation_is_measured_here() -> None:
    assert {*QUICK, *LONG} == {claim.name for claim in AT_INITIALISATION}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.name)
def test_each_claim_says_what_it_is(claim: Claim) -> None:
    source = claim.source
    assert claim.own or source.arxiv or not source.paper.rstrip()[-1].isdigit()  # a book
    assert claim.own or source.where
    assert claim.title[0].isupper()
    assert not claim.title.endswith(".")
    assert claim.statement.endswith((".", ")"))
    assert claim.judged
    assert any(prediction.is_control for prediction in claim.predictions)
    names = [prediction.name for prediction in claim.predictions]
    assert len(set(names)) == len(names)
    for prediction in claim.predictions:
        assert prediction.kind in ("", LAW, SIGN, RATE)
        assert prediction.text or not prediction.kind
        assert prediction.low < prediction.high
        # A cell that starts so is a formula to a spreadsheet, and written in quotes.
        assert not prediction.text.startswith(("-", "+", "="))


def test_slopes_are_exponents_and_rates() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    assert slope(x, [3 * a**-0.5 for a in x]) == pytest.approx(-0.5)
    assert log_slope(x, [3 * math.exp(0.2 * a) for a in x]) == pytest.approx(0.2)
    assert math.isnan(log_slope(x, [1.0, 1.0, 0.0, 1.0]))


SMALL = ("model.emb_dim=8", "model.vocab_size=32", "model.context_length=8")


def test_one_pass_back_gives_the_gradient_of_each_sequence(lab: Lab) -> None:
    model, tokens, targets = in_xiongs_setting(lab, "pre_ln", 0, 3, *SMALL)
    found = sequence_grads(model, tokens, targets, model.blocks)
    for i in range(len(tokens)):
        loss = F.cross_entropy(model(tokens[i : i + 1])[0], targets[i])
        for grads, expected in zip(
            found, torch.autograd.grad(loss, ff_weights(model)), strict=True
        ):
            torch.testing.assert_close(grads[i], expected)
    by_hand = [sum(g.norm().item() for g in grads) / len(tokens) for grads in found]
    assert mean_norms(found) == pytest.approx(by_hand)


def test_cut_branches_pass_no_gradient_and_change_no_output(lab: Lab) -> None:
    """Under Pre-LN the gradient of the stream is then the same at every block."""
    model, tokens, _ = in_xiongs_setting(lab, "pre_ln", 0, 3, *SMALL)
    whole = model(tokens)
    streams: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: streams.append(out))
    with branches_cut(model):
        logits = model(tokens)
    assert torch.equal(logits, whole)
    grads = torch.autograd.grad(logits.square().sum(), streams)
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_the_step_moves_value_output_and_feed_forward_alone(lab: Lab) -> None:
    model = lab.model(micro(lab, "norm=post_ln", "init=xavier"), 0, 1)
    tokens = torch.arange(8)[None]
    model(tokens).square().sum().backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fixed = [w.clone() for w in branch_weights(model, "query", "key")]
    sgd_step(model)
    assert all(
        torch.equal(a, b) for a, b in zip(branch_weights(model, "query", "key"), fixed, strict=True)
    )
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {
        f"blocks.0.{part}.weight"
        for part in (
            "attention.qkv",
            "attention.out_proj",
            "feed_forward.fc_in",
            "feed_forward.fc_out",
        )
    }


@pytest.mark.parametrize("placement", vanishing.DECODERS)
def test_a_decoder_block_whose_cross_attention_is_silent_is_its_placements_block(
    lab: Lab, placement: str
) -> None:
    """A norm on a stream that has just been normed changes nothing but by its epsilon."""
    config = lab.config(lab.settings(f"norm={placement}", *vanishing.TRANSLATOR, "norm.eps=1e-12"))
    torch.manual_seed(0)
    decoder = vanishing.DECODERS[placement](config, 0).double()
    block = PLACEMENTS[placement](config, 0).double()
    block.load_state_dict(decoder.state_dict(), strict=False)
    assert isinstance(decoder, type(block))
    x, memory = torch.randn(2, 2, 5, config.emb_dim, dtype=torch.float64)
    decoder.cross.memory = memory
    torch.nn.init.zeros_(decoder.cross.out_proj.weight)
    if decoder.cross.out_proj.bias is not None:
        torch.nn.init.zeros_(decoder.cross.out_proj.bias)
    entered = block.make_entry(config)(x)
    torch.testing.assert_close(Block.stream(decoder(entered)), Block.stream(block(entered)))


def test_cross_attention_to_oneself_is_attention_without_a_mask(lab: Lab) -> None:
    config = lab.config(lab.settings(*vanishing.TRANSLATOR))
    torch.manual_seed(0)
    cross = vanishing.CrossAttention(config)
    both_ways = replace(config, attention=replace(config.attention, causal=False))
    itself = SelfAttention(both_ways)
    itself.load_state_dict(cross.state_dict())
    x = torch.randn(2, 5, config.emb_dim)
    cross.memory = x
    torch.testing.assert_close(cross(x), itself(x))
    cross.memory = torch.randn(2, 7, config.emb_dim)  # of another length
    assert cross(x).shape == x.shape
