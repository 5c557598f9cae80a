"""The loss of the head's logits, without ever holding all of them."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens whose logits are held at once. On a CPU fewer fit a cache better, but the gradient of the
# weight is read and written once for each chunk; on a GPU more fill its processors better.
CPU_CHUNK, GPU_CHUNK = 512, 4096
# A GPU multiplies matrices whose sides are multiples of this up to three times as fast.
GPU_MULTIPLE = 64
# Logits that a GPU computes sooner than it is told to do so in parts.
FEW_LOGITS = 2**25

ToSlope: TypeAlias = Callable[[Tensor, Tensor, torch.dtype], Tensor]


def head_loss(
    features: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Tensor:
    """Mean cross entropy in nats, mean_t (ln sum_v exp(z_tv) - z_t,target(t)), z = x W^T + b.

    features  x, (..., d), what the head reads
    weight    W, (V, d), which may be an embedding's, too
    targets   (...), ids in 0 .. V - 1
    bias      b, (V,)
    dtype     of the matrix products; None: that of the features. The softmax is taken in float32,
              or in float64 where that is the products' type
    compiled  whether PyTorch's compiler makes the kernel between the products, on a GPU

    Loss and gradients are computed together, some tokens at a time: while their logits are in the
    cache, the gradient with respect to these, softmax(z) - e_target, is multiplied into those of
    features and weight. Nothing of the size tokens x V is held. There is no second derivative and
    no form for `torch.func`; every target counts.

    Raises ValueError for targets of another shape than the features have, RuntimeError for a
    derivative of the gradient.
    """
    if targets.shape != features.shape[:-1]:
        shapes = f"targets {tuple(targets.shape)}, features {tuple(features.shape)}"
        raise ValueError(f"each of the features needs a target: {shapes}")
    x, target = features.reshape(-1, features.shape[-1]), targets.flatten().long()
    dtype = dtype or features.dtype
    if x.is_cuda and len(x) * len(weight) <= FEW_LOGITS:
        return loss_of_few(x, weight, bias, target, dtype)
    to_slope = compiled_slope() if compiled and x.is_cuda else loss_to_slope
    loss: Tensor = HeadLoss.apply(x, weight, bias, target, dtype, to_slope)
    return loss


def loss_of_few(
    x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype
) -> Tensor:
    """The same of all logits at once."""
    with torch.autocast(x.device.type, enabled=False):
        logits = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
        return F.cross_entropy(logits.to(torch.promote_types(dtype, torch.float32)), target)


class HeadLoss(torch.autograd.Function):
    """See `head_loss`: features (N, d), targets (N,)."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        to_slope: ToSlope,
    ) -> Tensor:
        """The loss, (); keeps the gradients of its inputs, where one is wanted."""
        count, wide = len(features), torch.promote_types(dtype, torch.float32)
        head = Head(weight, bias, dtype)
        grads = Gradients(features, head, wide) if any(ctx.needs_input_grad[:3]) else None
        total = torch.zeros((), dtype=wide, device=features.device)
        size = chunk_size(features.device)
        logits = features.new_empty(min(size, count), len(head.weight), dtype=dtype)
        for start in range(0, count, size):
            rows = slice(start, start + size)
            x, target = features[rows].to(dtype), targets[rows, None]
            z = head(x, out=logits[: len(x)])
            total += to_slope(z, target, wide)
            if grads is not None:
                grads.add(rows, z, x, head)
        if grads is not None:
            ctx.save_for_backward(*grads.of_mean(count, weight, bias))
        return total / count

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients times that of the loss."""
        if torch.is_grad_enabled():  # under create_graph=True, which would find them constant
            raise RuntimeError("head_loss has no second derivative")
        kept = ctx.saved_tensors
        if by_loss.device.type != "cpu" or by_loss.item() != 1:  # elsewhere a number is waited for
            kept = [None if grad is None else grad * by_loss.to(grad.dtype) for grad in kept]
        return *kept, None, None, None


def chunk_size(device: torch.device) -> int:
    """How many tokens' logits are held at once."""
    return CPU_CHUNK if device.type == "cpu" else GPU_CHUNK


class Head:
    """Weight and bias in the type of the products, on a GPU with rows that are no token's.

    The logits of those are -inf, so that they change nothing but the speed.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.count = len(weight)
        surplus = -self.count % GPU_MULTIPLE if weight.is_cuda else 0
        self.weight = F.pad(weight.to(dtype), (0, 0, 0, surplus)) if surplus else weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)

    def __call__(self, x: Tensor, out: Tensor) -> Tensor:
        """z = x W^T + b, written into `out`."""
        torch.mm(x, self.weight.T, out=out)
        if self.bias is not None:
            out[:, : self.count] += self.bias
        out[:, self.count :] = -torch.inf
        return out


def loss_to_slope(z: Tensor, target: Tensor, wide: torch.dtype) -> Tensor:
    """The summed loss of logits z (N, V), (); z becomes its gradient, softmax(z) - e_target.

    target  (N, 1)
    wide    the type in which the softmax is taken
    """
    if z.dtype != wide and not z.is_cuda:
        slope = z.to(wide)
        loss = loss_to_slope(slope, target, wide)
        z.copy_(slope)
        return loss
    if z.dtype == wide:
        # One exponential for both: ln sum exp(z) = max z - ln p at that maximum, where p, at least
        # 1/V, has all its digits.
        largest, own = z.amax(dim=-1), z.gather(1, target)
        torch.softmax(z, dim=-1, out=z)
        loss = (largest - z.amax(dim=-1).log()).sum() - own.sum()
    else:  # a GPU reads one type and writes the other in one kernel
        log_p = torch.log_softmax(z, dim=-1, dtype=wide)
        loss = -log_p.gather(1, target).sum()
        torch.exp(log_p, out=z)
    z.scatter_add_(1, target, z.new_full(target.shape, -1.0))
    return loss


@cache
def compiled_slope() -> ToSlope:
    """`loss_to_slope` in one kernel."""
    compiled: ToSlope = torch.compile(fused_slope, dynamic=False)
    return compiled


def fused_slope(z: Tensor, target: Tensor, wide: torch.dtype) -> Tensor:
    """As `loss_to_slope`, written for a compiler: every number is read twice and written once."""
    logits = z.to(wide)
    norm = logits.logsumexp(dim=-1, keepdim=True)
    loss = (norm - logits.gather(1, target)).sum()
    hit = torch.arange(z.shape[1], device=z.device) == target
    z.copy_((logits - norm).exp() - hit.to(wide))
    return loss


class Gradients:
    """Sums over chunks of what the loss changes by with features, weight and bias."""

    def __init__(self, features: Tensor, head: Head, wide: torch.dtype) -> None:
        # Of a mean over many tokens, with a loss's factor to come: fp16 has neither of the two.
        self.features = torch.empty_like(features, dtype=wide)
        self.weight = torch.zeros_like(head.weight, dtype=wide)
        self.bias = None if head.bias is None else torch.zeros_like(head.bias, dtype=wide)

    def add(self, rows: slice, slope: Tensor, x: Tensor, head: Head) -> None:
        """A chunk's: `slope`, the gradient with respect to its logits, through both products."""
        if self.bias is not None:
            self.bias += slope[:, : head.count].sum(dim=0, dtype=self.bias.dtype)
        self.features[rows] = slope @ head.weight
        if self.weight.dtype == x.dtype:
            self.weight.addmm_(slope.T, x)
        else:
            self.weight += slope.T @ x

    def of_mean(self, count: int, weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
        """Those of the mean over `count` tokens, in the types of what they are of."""
        return [
            self.features.div_(count),
            self.weight[: len(weight)].div_(count).to(weight.dtype),
            None if bias is None or self.bias is None else self.bias.div_(count).to(bias.dtype),
        ]
