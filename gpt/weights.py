"""What each matrix is."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Weight:
    """A matrix (n_out, n_in), which may be a part of a larger parameter, and its bias.

    role  what it is: embedding, position, project_in and project_out (of embeddings of another
          width), query, key, value, out (of the heads), gate, up and down (of the feed-forward),
          router (of experts), head
    """

    role: str
    matrix: Tensor
    bias: Tensor | None = None


def weight_of(role: str, linear: nn.Linear) -> Weight:
    """The one matrix of a linear layer."""
    return Weight(role, linear.weight, linear.bias)
