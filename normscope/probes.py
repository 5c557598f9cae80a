"""All probes of a model, at their three moments."""

from collections.abc import Callable, Iterable

from torch import Tensor

from normscope.ablation import layer_drop_rows
from normscope.anatomy import Anatomy
from normscope.gradients import ParameterNorms, window_gradient_rows
from normscope.mixing import MixingRow, depth_mixing
from normscope.stats import Row
from normscope.streams import evaluating, stream_rows
from normscope.updates import UpdateProbe


class Probes:
    """What is measured of a model on a probed step, around the update, and at the end.

    The model is left as it was: gradients, mode, random state, and no hook stays.

    norms  of the parameters' gradients, which cost one fused call on any step
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.norms = ParameterNorms(anatomy)
        self.updates = UpdateProbe(self.norms)

    def on_step(self, loss: Callable[[], Tensor]) -> list[Row]:
        """Activations, attention and stream gradients, see `stream_rows`."""
        return stream_rows(self.anatomy, loss)

    def mixing(self, forward: Callable[[], object]) -> list[MixingRow]:
        """How much of the stream each sublayer wrote, see `depth_mixing`."""
        return depth_mixing(self.anatomy, forward)

    def before_update(self) -> None:
        """Keep the weights, until `after_update`."""
        self.updates.before()

    def after_update(self) -> list[Row]:
        """What the optimizer's step did to them, see `UpdateProbe`."""
        return self.updates.after()

    def at_end(
        self, validation_loss: Callable[[], float], whole: float, windows: Iterable[Tensor]
    ) -> list[Row]:
        """What the trained model loses without each block, and the gradients of single windows.

        validation_loss  see `layer_drop_rows`
        whole            the same with all blocks
        windows          the mean loss of each window, computed as it is asked for, in eval mode
        """
        with evaluating(self.anatomy.model):
            gradients = window_gradient_rows(self.norms, windows)
        return layer_drop_rows(self.anatomy, validation_loss, whole) + gradients
