"""The loss taken with the head, chunk by chunk, against the loss of all logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt import head_loss
from gpt.loss import CPU_CHUNK as CHUNK
from gpt.loss import fused_slope, loss_of_few, loss_to_slope

WIDTH, VOCABULARY = 12, 31


def inputs(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight, bias and targets of `count` tokens, drawn at random."""
    torch.manual_seed(count)
    shapes = ((count, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    x, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return x, weight, bias, torch.randint(VOCABULARY, (count,))


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_loss_and_gradients_are_those_of_all_logits(
    count: int, biased: bool, factor: float
) -> None:
    x, weight, bias, targets = inputs(count)
    wanted = [x, weight, *([bias] if biased else [])]
    loss = head_loss(x, weight, targets, bias if biased else None)
    expected = F.cross_entropy(F.linear(x, weight, bias if biased else None), targets)
    torch.testing.assert_close(loss, expected, atol=1e-13, rtol=1e-13)
    ours = torch.autograd.grad(factor * loss, wanted)
    theirs = torch.autograd.grad(factor * expected, wanted)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=1e-12)


def test_a_weight_that_is_the_embedding_too_has_both_gradients() -> None:
    _, weight, _, targets = inputs(CHUNK + 1)
    tokens = targets.roll(1)

    def features() -> Tensor:
        return F.embedding(tokens, weight).tanh().view(1, -1, WIDTH)

    (ours,) = torch.autograd.grad(head_loss(features(), weight, targets[None]), weight)
    logits = features()[0] @ weight.T
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, targets), weight)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=1e-12)


def test_features_in_fp16_have_their_gradient_of_a_loss_times_a_factor() -> None:
    """The factor of fp16's training leaves fp16, and the mean over many tokens does without it."""
    x, weight, _, targets = inputs(32 * CHUNK, torch.float32)
    (expected,) = torch.autograd.grad(head_loss(x, weight, targets), x)
    half = x.detach().half().requires_grad_()
    scaled = 2.0**16 * head_loss(half, weight, targets, dtype=torch.float16)
    (found,) = torch.autograd.grad(scaled, half)
    assert found.dtype == torch.float16
    assert float((found.float() / 2**16 - expected).norm() / expected.norm()) < 2e-3


def test_logits_of_any_size_have_a_loss() -> None:
    """Neither infinite nor nan where exp of a logit would be."""
    x, weight, _, targets = inputs(3, torch.float32)
    scaled = (1e4 * x).detach().requires_grad_()
    loss = head_loss(scaled, weight, targets)
    torch.testing.assert_close(loss, F.cross_entropy(scaled @ weight.T, targets))
    assert torch.autograd.grad(loss, scaled)[0].isfinite().all()


def test_products_in_bf16_have_their_softmax_in_float32() -> None:
    x, weight, bias, targets = inputs(CHUNK + 5, torch.float32)
    loss = head_loss(x, weight, targets, bias, torch.bfloat16)
    assert loss.dtype == torch.float32
    logits = (x.bfloat16() @ weight.bfloat16().T + bias.bfloat16()).float()
    expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    ours = torch.autograd.grad(loss, (x, weight, bias))
    theirs = torch.autograd.grad(expected, (x, weight, bias))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() / other.norm() < 0.01


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    x, weight, bias, targets = inputs(9)
    with torch.no_grad():
        loss = head_loss(x, weight, targets, bias)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, F.cross_entropy(x @ weight.T + bias, targets).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_a_gpu_compiles_is_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, target = 5 * torch.randn(7, VOCABULARY), torch.randint(VOCABULARY, (7, 1))
    ours, theirs = logits.to(dtype).clone(), logits.to(dtype).clone()
    wide = torch.promote_types(dtype, torch.float32)
    loss, expected = fused_slope(ours, target, wide), loss_to_slope(theirs, target, wide)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, theirs)


def test_few_logits_of_a_gpu_have_the_same_loss() -> None:
    x, weight, bias, targets = inputs(9)
    ours = torch.autograd.grad(head_loss(x, weight, targets, bias), (x, weight, bias))
    few = loss_of_few(x, weight, bias, targets, torch.float64)
    torch.testing.assert_close(torch.autograd.grad(few, (x, weight, bias)), ours)


@pytest.mark.parametrize("shape", [(4,), (3, 2), (6, 1), ()])
def test_each_of_the_features_needs_a_target(shape: tuple[int, ...]) -> None:
    x, weight, _, targets = inputs(6)
    with pytest.raises(ValueError, match="each of the features needs a target"):
        head_loss(x, weight, targets[: math.prod(shape)].view(shape))


def test_one_token_and_small_integers_are_taken() -> None:
    x, weight, _, targets = inputs(6)
    one = head_loss(x[0], weight, targets[0])
    torch.testing.assert_close(one, F.cross_entropy(x[:1] @ weight.T, targets[:1]))
    assert head_loss(x, weight, targets.to(torch.uint8)) == head_loss(x, weight, targets)


def test_a_second_derivative_is_refused() -> None:
    x, weight, _, targets = inputs(6)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(head_loss(x, weight, targets), x, create_graph=True)
