"""What a model loses without one of its blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from normscope.anatomy import Anatomy
from normscope.stats import DROPPED_BLOCKS, Row
from normscope.streams import first_input


@DROPPED_BLOCKS.measures(
    "layer_drop",
    "loss without the block - loss (nats per token)",
    "rise of the loss",
    title="Loss without a layer",
    axis="rise of the validation loss without the block (nats)",
    scale="linear",
    shows=(0.0,),
    drawn="block",
)
def layer_drop(without: float, whole: float) -> float:
    """What the loss rises by."""
    return without - whole


def layer_drop_rows(anatomy: Anatomy, loss: Callable[[], float], whole: float) -> list[Row]:
    """The statistics of DROPPED_BLOCKS, for each block that is a module with a `forward`.

    The identity is one on the state, which may hold two streams. Costs L times what `loss` costs,
    with L - 1 blocks (the first call runs the block, to see the form of its output).

    loss   the mean loss, evaluated by the same data each time
    whole  the loss with all blocks
    """
    given = {}
    for layer, block in enumerate(anatomy.blocks):
        module = anatomy.model.get_submodule(block.name)
        if not isinstance(module, nn.ModuleList):  # which is never called
            with skipped(module):
                given[layer, "block"] = (loss(), whole)
    return DROPPED_BLOCKS.rows(given)


@contextmanager
def skipped(block: nn.Module) -> Iterator[None]:
    """Within: the block gives the state that it is given."""
    own = vars(block).get("forward")
    block.forward = Identity(block.forward)
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own


class Identity:
    """Stands in for a block's forward and gives the state back, in the form of its output.

    A block that gives a tuple from a state that is none has more to give than the state: it is
    computed then, for its other outputs.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.is_state = False  # whether the output is known to be the state alone

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        state = first_input(inputs, options)
        if self.is_state:
            return state
        output = self.forward(*inputs, **options)
        self.is_state = isinstance(state, tuple) or not isinstance(output, tuple)
        return state if self.is_state else (state, *output[1:])
