"""A mixture of experts in the place of the feed-forward layer."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from gpt.config import GPTConfig
from gpt.feedforward import FeedForward, Hidden, projections
from gpt.inside import NOTHING, Inside
from gpt.norm import make_norm
from gpt.weights import Weight, weight_of


class MixtureOfExperts(nn.Module):
    """F x = sum_(e in E(x)) p_e F_e x, E(x) the `active` experts of the largest logits W_R x + b_R.

    F_e x is a feed-forward layer, gated or not; p is the softmax of the chosen experts' logits, or
    of all before the choice. The norm that a placement puts inside is one, shared by the experts.
    Shazeer et al. 2017, arXiv 1701.06538; the softmax after the choice: Jiang et al. 2024
    (Mixtral), arXiv 2401.04088.

    Maps (B, T, emb_dim) to (B, T, emb_dim); dropout falls on the output. Each expert multiplies the
    tokens sent to it at once. No token is dropped.
    """

    def __init__(self, config: GPTConfig, inside: Inside = NOTHING) -> None:
        super().__init__()
        experts, width, hidden = config.experts, config.emb_dim, config.ff_dim
        n_in = hidden * (2 if config.feed_forward.gated else 1)
        self.count, self.active, self.softmax = experts.count, experts.active, experts.softmax
        self.balances = experts.balance_loss > 0
        self.router = nn.Linear(width, experts.count, bias=config.bias)
        self.fc_in = Experts(experts.count, width, n_in, config.bias)
        self.activation = Hidden(config)
        self.fc_out = Experts(experts.count, hidden, width, config.bias)
        self.dropout = nn.Dropout(config.drop_rate)
        self.norm = make_norm(config, hidden, inside.hidden)
        self.balance: Tensor | None = None  # of the last forward pass in training

    def weights(self) -> Iterator[Weight]:
        """Its matrices, in the order in which they are drawn: the router, then expert by expert."""
        yield weight_of("router", self.router)
        for (matrix, bias), (down, down_bias) in zip(self.fc_in, self.fc_out, strict=True):
            yield from projections(matrix, bias, self.activation.gated)
            yield Weight("down", down, down_bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # (N, emb_dim)
        logits = self.router(tokens)
        share, chosen = self.route(logits)
        if self.balances and self.training:
            self.balance = balance(logits, chosen)
        order = chosen.flatten().argsort(stable=True)  # by expert
        sent, counts = order // self.active, count_choices(chosen, self.count)
        hidden = self.norm(self.activation(self.fc_in(tokens[sent], counts)))
        out = self.fc_out(hidden, counts) * share.flatten()[order, None]
        mixed = out.new_zeros(tokens.shape).index_add(0, sent, out)
        return self.dropout(mixed.view_as(x))

    def route(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What each token takes from which experts, each (N, active), from logits (N, count)."""
        if self.softmax == "all":
            share, chosen = logits.softmax(dim=-1).topk(self.active, dim=-1)
            return share, chosen
        top, chosen = logits.topk(self.active, dim=-1)
        return top.softmax(dim=-1), chosen

    def load(self, x: Tensor) -> Tensor:
        """Of the choices that tokens x (B, T, emb_dim) make, each expert's share, (count,)."""
        _, chosen = self.route(self.router(x.flatten(0, -2)))
        return count_choices(chosen, self.count) / chosen.numel()


class Experts(nn.Module):
    """x W_e^T + b_e for the rows of x sent to expert e, all experts' weights in one parameter.

    Drawn as PyTorch draws a linear layer, expert by expert.
    """

    def __init__(self, count: int, n_in: int, n_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, n_out, n_in))
        self.bias = nn.Parameter(torch.empty(count, n_out)) if bias else None
        if not self.weight.is_meta:  # which has no values
            self.draw(n_in**-0.5)

    def draw(self, bound: float) -> None:
        """Draw all weights and biases from U(-bound, bound)."""
        for matrix, shift in self:
            for drawn in (matrix,) if shift is None else (matrix, shift):
                nn.init.uniform_(drawn, -bound, bound)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Matrix (n_out, n_in) and bias (n_out,) of each expert."""
        biases = [None] * len(self.weight) if self.bias is None else self.bias.unbind()
        return zip(self.weight.unbind(), biases, strict=True)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """(N, n_in) to (N, n_out): the first counts[0] rows by expert 0, and so on."""
        if grouped_product_exists(x):
            out = F.grouped_mm(x, self.weight.mT, offs=counts.cumsum(0, dtype=torch.int32))
            rows = torch.arange(len(counts), device=x.device).repeat_interleave(counts)
            return out if self.bias is None else out + self.bias[rows]
        one_by_one = self.one_by_one
        if torch.compiler.is_compiling():  # which would compile anew for each step's counts
            one_by_one = torch.compiler.disable(one_by_one)
        return one_by_one(x, counts)

    def one_by_one(self, x: Tensor, counts: Tensor) -> Tensor:
        """As `forward`, a product for each expert."""
        parts = zip(x.split(sizes_of(counts, len(x))), self, strict=True)
        return torch.cat([F.linear(part, matrix, bias) for part, (matrix, bias) in parts])


def count_choices(chosen: Tensor, count: int) -> Tensor:
    """How many of the choices (N, active) fall on each of `count` experts, (count,)."""
    choices = chosen.flatten()
    return choices.new_zeros(count).scatter_add_(0, choices, torch.ones_like(choices))


def sizes_of(counts: Tensor, rows: int) -> list[int]:
    """The counts as numbers; of tensors without values, whose memory is predicted, even ones."""
    if not isinstance(counts, FakeTensor):
        return counts.tolist()
    ends = [rows * (index + 1) // len(counts) for index in range(len(counts))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def grouped_product_exists(x: Tensor) -> bool:
    """Whether PyTorch multiplies groups of rows in one kernel: bf16 on a GPU, from 2.10 on."""
    return x.is_cuda and x.dtype == torch.bfloat16 and hasattr(F, "grouped_mm")


def balance(logits: Tensor, chosen: Tensor) -> Tensor:
    """n sum_e f_e P_e, 1 where all n experts are used alike: f_e the share of choices that fall on
    e, P_e the mean of its softmax. Fedus et al. 2021 (Switch), arXiv 2101.03961, equation 4.
    """
    count = logits.shape[-1]
    shares = count_choices(chosen, count) / chosen.numel()
    return count * (shares * logits.softmax(dim=-1).mean(dim=0)).sum()


def make_feed_forward(config: GPTConfig, inside: Inside) -> FeedForward | MixtureOfExperts:
    """One dense layer, or as many experts as the config says."""
    return (MixtureOfExperts if config.experts.count else FeedForward)(config, inside)
