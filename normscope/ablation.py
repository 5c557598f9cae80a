"""What a model loses without one of its blocks."""

from collections.abc import Callable
from typing import cast

from torch import nn

from gpt import GPT
from normscope.stats import Row


def layer_drop_rows(model: GPT, loss: Callable[[], float], whole: float) -> list[Row]:
    """`layer_drop` of each block: the loss with the identity in its place, minus the loss without.

    In nats per token. The identity is one on the state, which may hold two streams. Costs L times
    what `loss` costs, which the trainer takes over all evaluation windows, with L - 1 blocks.

    whole  the loss with all blocks
    """
    blocks, rows = cast(nn.ModuleList, model.blocks), []
    for layer, block in enumerate(model.blocks):
        blocks[layer] = nn.Identity()
        try:
            rows.append(Row(layer, "block", "layer_drop", loss() - whole))
        finally:
            blocks[layer] = block
    return rows
