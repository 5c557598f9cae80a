"""The position-wise feed-forward layer."""

from collections.abc import Iterator

from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.inside import NOTHING, Inside
from gpt.norm import make_norm
from gpt.registry import ACTIVATIONS
from gpt.weights import Weight


class Hidden(nn.Module):
    """phi(u), or where it is gated phi(g) * u, of what the first matrix gives: [g | u].

    With a clamp c and an offset o it is phi(min(g, c)) * (max(-c, min(u, c)) + o), as in gpt-oss,
    arXiv 2508.10925. Shazeer 2020 (GLU variants), arXiv 2002.05202.

    Maps (..., 2 ff_dim) to (..., ff_dim) where it is gated, else (..., ff_dim) to the same.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gated = config.feed_forward.gated
        self.clamp, self.offset = config.feed_forward.clamp, config.feed_forward.offset

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.activation(x)
        gate, up = x.chunk(2, dim=-1)
        if self.clamp is not None:
            gate, up = gate.clamp(max=self.clamp), up.clamp(-self.clamp, self.clamp)
        return self.activation(gate) * (up + self.offset if self.offset else up)


class FeedForward(nn.Module):
    """F x = W_2 N(phi(W_1 x + b_1)) + b_2, or gated F x = W_3 N(phi(W_1 x + b_1) * (W_2 x + b_2)) +
    b_3, phi the configured activation.

    N only where the placement puts it inside: Shleifer et al. 2021 (NormFormer), arXiv 2110.09456;
    Wang et al. 2022 (Magneto), arXiv 2210.06423.

    Maps (B, T, emb_dim) to (B, T, emb_dim) through (B, T, ff_dim); dropout falls on the output.
    Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(self, config: GPTConfig, inside: Inside = NOTHING) -> None:
        super().__init__()
        # One matrix for the gate and what it multiplies: the same numbers as two drawn in a row.
        n_out = config.ff_dim * (2 if config.feed_forward.gated else 1)
        self.fc_in = nn.Linear(config.emb_dim, n_out, bias=config.bias)
        self.activation = Hidden(config)
        self.fc_out = nn.Linear(config.ff_dim, config.emb_dim, bias=config.bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.norm = make_norm(config, config.ff_dim, inside.hidden)

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn."""
        yield from projections(self.fc_in.weight, self.fc_in.bias, self.activation.gated)
        yield Weight("down", self.fc_out.weight, self.fc_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc_out(self.norm(self.activation(self.fc_in(x)))))


def projections(matrix: Tensor, bias: Tensor | None, gated: bool) -> Iterator[Weight]:
    """The gate and what it multiplies, of the matrix that holds both, or the one that it is."""
    if not gated:
        yield Weight("up", matrix, bias)
        return
    biases = (None, None) if bias is None else bias.chunk(2)
    for role, part, part_bias in zip(("gate", "up"), matrix.chunk(2), biases, strict=True):
        yield Weight(role, part, part_bias)
