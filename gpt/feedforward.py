"""The position-wise feed-forward layer."""

from collections.abc import Iterator

from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.inside import NOTHING, Inside
from gpt.norm import make_norm
from gpt.registry import ACTIVATIONS
from gpt.weights import Weight, weight_of


class FeedForward(nn.Module):
    """F x = W_2 N(phi(W_1 x + b_1)) + b_2, phi the configured activation.

    N only where the placement puts it inside: Shleifer et al. 2021 (NormFormer), arXiv 2110.09456;
    Wang et al. 2022 (Magneto), arXiv 2210.06423.

    Maps (B, T, emb_dim) to (B, T, emb_dim) through (B, T, ff_dim); dropout falls on the output.
    Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(self, config: GPTConfig, inside: Inside = NOTHING) -> None:
        super().__init__()
        self.fc_in = nn.Linear(config.emb_dim, config.ff_dim, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.fc_out = nn.Linear(config.ff_dim, config.emb_dim, bias=config.bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.norm = make_norm(config, config.ff_dim, inside.hidden)

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn."""
        yield weight_of("up", self.fc_in)
        yield weight_of("down", self.fc_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc_out(self.norm(self.activation(self.fc_in(x)))))
