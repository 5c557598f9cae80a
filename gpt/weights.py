"""What each matrix is."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Weight:
    """A matrix (n_out, n_in), which may be a part of a larger parameter, and its bias.

    role  what it is: embedding, position, query, key, value, out (of the heads), up and down (of
          the feed-forward), head
    """

    role: str
    matrix: Tensor
    bias: Tensor | None = None


def weight_of(role: str, linear: nn.Linear) -> Weight:
    """The one matrix of a linear layer."""
    return Weight(role, linear.weight, linear.bias)
