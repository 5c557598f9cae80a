"""The position-wise feed-forward layer."""

from torch import Tensor, nn

from gpt.activation import ACTIVATIONS
from gpt.config import GPTConfig


class FeedForward(nn.Module):
    """F x = W_2 phi(W_1 x + b_1) + b_2, with phi the configured activation.

    Maps (B, T, emb_dim) to (B, T, emb_dim) through a width of ff_ratio x emb_dim; dropout falls
    on the output. Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.fc_in = nn.Linear(config.emb_dim, config.ff_dim)
        self.activation = ACTIVATIONS[config.activation]
        self.fc_out = nn.Linear(config.ff_dim, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc_out(self.activation(self.fc_in(x))))
