"""The shapes in which measurements travel from the probes to the sinks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Value = float | int | str | None
Metrics = Mapping[str, float | int | None]
Table = Sequence[Mapping[str, Value]]


class Row(NamedTuple):
    """One value measured at one place of a model, see `gpt.parameters.Place`.

    `block` as component stands for all parameters of a block together.
    """

    layer: int
    component: str
    stat: str
    value: float
