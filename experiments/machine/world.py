"""Who computes with whom: the processes that train one model together."""

from torch import Tensor, nn


class World:
    """A process on its own: the batch is all its own, and what it computes is the mean already.

    Several processes that each take a share of every batch are another class with these members;
    the engine, the loop and the recorder ask nothing else of the world.

    is_first  whether this process writes the records, of which there is one set
    """

    is_first = True

    def share(self, rows: Tensor) -> Tensor:
        """Of a batch, which is the same in all processes, the rows that this one computes."""
        return rows

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each parameter's gradient by its mean over all processes."""

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over all processes, the same in each."""
        return value


ALONE = World()
