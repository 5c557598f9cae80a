"""Whose tensor is whose: the words in which a family names its weights, used in both directions.

What another library stores is a parameter of ours, or rows of one, seen in another layout. Copying
goes tensor by tensor, so that there are never two copies of a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt.config import GPTConfig
from gpt.model import GPT
from gpt.registry import ConfigError


@dataclass(frozen=True)
class Layout:
    """How theirs lies in ours.

    view    shows ours, without a copy, in the order of theirs
    merged  the dimensions of the view, first and last, that are one of theirs; None: as they are
    """

    view: Callable[[Tensor, GPTConfig], Tensor] = lambda ours, config: ours
    merged: tuple[int, int] | None = None

    def shape(self, seen: Tensor) -> tuple[int, ...]:
        """Of theirs, from ours as `view` shows it."""
        meta = torch.empty(seen.shape, device="meta")
        return tuple((meta.flatten(*self.merged) if self.merged else meta).shape)


def by_head(qkv: Tensor, config: GPTConfig) -> Tensor:
    """[all queries | all keys | all values] as [q | k | v] of each head, (heads, 3, width, ...)."""
    return qkv.unflatten(0, (3, config.n_heads, config.head_dim)).transpose(0, 1)


def alternating(ours: Tensor, config: GPTConfig) -> Tensor:
    """[gate | up] of experts, features last, as gate and up by turns, (..., ff_dim, 2)."""
    features_last = ours.mT if ours.ndim == 3 else ours
    return features_last.unflatten(-1, (2, config.ff_dim)).transpose(-1, -2)


AS_OURS = Layout()
TRANSPOSED = Layout(lambda ours, config: ours.mT if ours.ndim > 1 else ours)
BY_HEAD = Layout(by_head, (0, 2))
ALTERNATING = Layout(alternating, (-2, -1))

# Rows of a parameter that holds several of their matrices.
ROWS: dict[str, Callable[[GPTConfig], tuple[int, int]]] = {
    "query": lambda config: (0, config.heads_dim),
    "key": lambda config: (config.heads_dim, config.kv_heads * config.head_dim),
    "value": lambda config: (
        config.heads_dim + config.kv_heads * config.head_dim,
        config.kv_heads * config.head_dim,
    ),
    "gate": lambda config: (0, config.ff_dim),
    "up": lambda config: (config.ff_dim, config.ff_dim),
}


@dataclass(frozen=True)
class Pair:
    """A name of theirs and one of ours, `{}` in both for the layer; `rows` of ours, see ROWS."""

    theirs: str
    ours: str
    rows: str | None = None
    layout: Layout = AS_OURS


def both(theirs: str, ours: str, rows: str | None = None, layout: Layout = AS_OURS) -> list[Pair]:
    """The weight and the bias of a part; what a model does not have is left out there."""
    return [Pair(f"{theirs}.{kind}", f"{ours}.{kind}", rows, layout) for kind in ("weight", "bias")]


@dataclass(frozen=True)
class Stored:
    """One tensor of theirs, by name, in our model: `seen` shows our `parameter` in their order."""

    name: str
    parameter: str
    seen: Tensor
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Of theirs."""
        return self.layout.shape(self.seen)

    def load(self, theirs: Tensor) -> None:
        """Copy theirs into ours; raise ConfigError where shapes differ, or for NaN and infinity."""
        if tuple(theirs.shape) != self.shape:
            valid = f"has the shape {tuple(theirs.shape)}, and {self.parameter} needs {self.shape}"
            raise ConfigError("tensor", self.name, valid)
        if not theirs.is_floating_point():
            valid = f"holds {theirs.dtype}: quantised weights are not read"
            raise ConfigError("tensor", self.name, valid)
        self.seen.copy_(theirs.reshape(self.seen.shape))
        if not all(limit.isfinite() for limit in self.seen.aminmax()):  # NaN is both
            valid = f"has NaN in it, or a number beyond {self.seen.dtype}"
            raise ConfigError("tensor", self.name, valid)

    def value(self) -> Tensor:
        """Theirs: a view of ours where the layouts allow one."""
        return self.seen.flatten(*self.layout.merged) if self.layout.merged else self.seen


def stored_in(model: GPT, pairs: Sequence[Pair]) -> list[Stored]:
    """Their tensors, each in its place in the model.

    Raises ConfigError for a parameter of which they have no tensor.
    """
    config, parameters = model.config, dict(model.named_parameters())
    layers = [str(layer) for layer in range(config.n_layers)]
    found, covered = [], dict.fromkeys(parameters, 0)
    for pair in pairs:
        for layer in layers if "{}" in pair.ours else [""]:
            name = pair.ours.format(layer)
            if name in parameters:
                ours = parameters[name].detach()
                ours = ours if pair.rows is None else ours.narrow(0, *ROWS[pair.rows](config))
                covered[name] += ours.numel()
                seen = pair.layout.view(ours, config)
                found.append(Stored(pair.theirs.format(layer), name, seen, pair.layout))
    for name, parameter in parameters.items():
        if covered[name] != parameter.numel():
            raise ConfigError("parameter", name, "the family stores no tensor for it")
    return found
