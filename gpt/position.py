"""How a token knows its place: what is added to the embeddings, and how queries and keys turn.

A kind overrides one of the two; what has parameters of its own holds them in a module.
"""

import math

import torch
from torch import Tensor, nn

from gpt.config import GPTConfig
from gpt.registry import POSITIONS


@POSITIONS("none")
class NoPosition:
    """Nothing but the causal mask. Kazemnejad et al. 2023 (NoPE), arXiv 2305.19466."""

    @staticmethod
    def make_embedding(config: GPTConfig) -> nn.Module:
        """What maps places (T,) or (B, T) to what is added to the embeddings, (..., emb_dim)."""
        return Zero()

    @staticmethod
    def make_turn(config: GPTConfig, layer: int) -> nn.Module:
        """What a layer does to (B, heads, T, head_dim) of queries or keys at places (T,) or (B, T).

        The shape stays.
        """
        return NoTurn()


class NoTurn(nn.Module):
    """x, whatever the places."""

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        return x


class Zero(nn.Module):
    """0, whatever the places."""

    def forward(self, places: Tensor) -> Tensor:
        return places.new_zeros(())


@POSITIONS("learned")
class LearnedPosition(NoPosition):
    """A vector per place, trained. Radford et al. 2019 (GPT-2)."""

    @staticmethod
    def make_embedding(config: GPTConfig) -> nn.Module:
        """A table (offset + context_length, emb_dim)."""
        return PlaceTable(config)


class PlaceTable(nn.Embedding):
    """Row `offset + place` of a table; the first rows of some stand for padding."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config.position.offset + config.context_length, config.emb_dim)
        self.offset = config.position.offset

    def forward(self, places: Tensor) -> Tensor:
        return super().forward(places + self.offset)


@POSITIONS("rotary")
class RotaryPosition(NoPosition):
    """Pairs of features of queries and keys, turned by the place times the pair's frequency.

    Su et al. 2021 (RoFormer), arXiv 2104.09864.
    """

    @staticmethod
    def make_turn(config: GPTConfig, layer: int) -> nn.Module:
        """The turn by the layer's base; none where that is 0."""
        return RotaryTurn(config, layer) if config.base(layer) else NoTurn()


class RotaryTurn(nn.Module):
    """(a, b) -> c (a cos pw_i - b sin pw_i, b cos pw_i + a sin pw_i) for the pair i of features.

    p is the place, w_i = base^(-2i/d) for the first d = turned_dim features, the rest stays. With
    YaRN, arXiv 2309.00071, w_i is divided by its factor where the feature turns seldom in the
    original length, and c = 1 + 0.1 ln(factor); else c = 1. Angles are computed in float32, as in
    the code of the models that are published with them.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.width = config.turned_dim
        self.base = config.base(layer)
        self.interleaved = config.position.interleaved
        self.in_float32 = config.position.in_float32
        self.yarn, self.factor = config.position.yarn, config.yarn_factor(layer)
        self.concentration = 1 + 0.1 * math.log(self.factor)

    def frequencies(self, device: torch.device) -> Tensor:
        """w_i, (turned_dim / 2,)."""
        exponents = torch.arange(0, self.width, 2, device=device).float() / self.width
        periods = self.base**exponents
        if self.factor == 1:
            return 1 / periods
        kept = 1 - self.ramp(device)
        return 1 / (self.factor * periods) * (1 - kept) + 1 / periods * kept

    def ramp(self, device: torch.device) -> Tensor:
        """0 for the pairs that stay, 1 for those divided by the factor, (turned_dim / 2,)."""
        yarn = self.yarn
        low, high = self.pair_of(yarn.beta_fast), self.pair_of(yarn.beta_slow)
        if yarn.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.width - 1)
        pairs = torch.arange(self.width // 2, device=device).float()
        return ((pairs - low) / (high - low or 0.001)).clamp(0, 1)

    def pair_of(self, turns: float) -> float:
        """The pair, as a fraction, that makes so many turns within the original length."""
        longest = self.yarn.original_length / (turns * 2 * math.pi)
        return self.width * math.log(longest) / (2 * math.log(self.base))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        angles = places[..., None, :, None] * self.frequencies(x.device)  # (..., 1, T, d/2)
        cos, sin = angles.cos() * self.concentration, angles.sin() * self.concentration
        if not self.in_float32:
            cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        turned, rest = x[..., : self.width], x[..., self.width :]
        if self.interleaved:
            a, b = turned[..., ::2], turned[..., 1::2]
            pairs = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        else:
            a, b = turned.chunk(2, dim=-1)
            pairs = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
        return torch.cat((pairs.to(x.dtype), rest), dim=-1)
