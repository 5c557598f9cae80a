"""The matrix products of a step, alone: what no step of this shape can be much faster than."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.benchmark.shapes import Shape


@dataclass(frozen=True)
class Product:
    """(rows, inner) @ (inner, columns), of `batch` pairs at once, `times` in a step.

    turned  whether the first and the second factor lie in memory as their transposes
    """

    batch: int
    rows: int
    inner: int
    columns: int
    times: int
    turned: tuple[bool, bool]

    @property
    def flops(self) -> int:
        """A multiplication and an addition each."""
        return 2 * self.batch * self.rows * self.inner * self.columns * self.times

    def prepared(self, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
        """A function that computes it once, in memory that is there already."""
        sizes = (self.rows, self.inner), (self.inner, self.columns)
        first, second = (
            factor(self.batch, size, turned, device, dtype)
            for size, turned in zip(sizes, self.turned, strict=True)
        )
        result = torch.empty(self.batch, self.rows, self.columns, device=device, dtype=dtype)
        if self.batch == 1:
            first, second, result = first[0], second[0], result[0]
        return lambda: torch.matmul(first, second, out=result)


def factor(
    batch: int, size: tuple[int, int], turned: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Normal numbers (batch, *size); where `turned`, a view of what lies there the other way."""
    rows, columns = reversed(size) if turned else size
    matrix = torch.randn(batch, rows, columns, device=device, dtype=dtype)
    return matrix.transpose(1, 2) if turned else matrix


def products_of(shape: Shape) -> Iterator[Product]:
    """All matrix products of a step, forward and backward.

    Three of each linear layer and of the head: the output x W^T, the gradients g W of the input
    and g^T x of the weight. Of attention, for each head and window, S = Q K^T and P V, and backward
    P^T g, g V^T, dS K and dS^T Q, each in full: fused kernels leave out most of what a causal mask
    hides, so that a step can take less time than these.
    """
    n = shape.tokens
    for out, into, times in shape.linear:
        yield Product(1, n, into, out, times, (False, True))
        yield Product(1, n, out, into, times, (False, False))
        yield Product(1, out, n, into, times, (True, False))
    pairs, length, width = shape.batch * shape.heads, shape.length, shape.head_dim
    for _ in ("Q K^T", "g V^T"):
        yield Product(pairs, length, width, length, shape.layers, (False, True))
    for _ in ("P V", "dS K"):
        yield Product(pairs, length, length, width, shape.layers, (False, False))
    for _ in ("P^T g", "dS^T Q"):
        yield Product(pairs, length, length, width, shape.layers, (True, False))


def all_products(shape: Shape, device: torch.device, dtype: torch.dtype) -> Callable[[int], None]:
    """A step of nothing else. Blocks share their tensors, which makes it a little faster still."""
    prepared = [(each.prepared(device, dtype), each.times) for each in products_of(shape)]

    def step(number: int) -> None:
        for compute, times in prepared:
            for _ in range(times):
                compute()

    return step
