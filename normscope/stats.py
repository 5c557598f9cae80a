"""The shape in which a measurement leaves a probe."""

from typing import NamedTuple


class Row(NamedTuple):
    """One value measured at one place of a model, see `gpt.parameters.Place`.

    `block` as component stands for all parameters of a block together.
    """

    layer: int
    component: str
    stat: str
    value: float
