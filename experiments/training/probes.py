"""What is measured of a model in training, at the moments at which the loop asks for it."""

from experiments.training.engine import Engine
from normscope.ablation import layer_drop_rows
from normscope.gradients import window_gradient_rows
from normscope.stats import Row
from normscope.streams import evaluating, stream_rows
from normscope.updates import UpdateProbe


class Probes:
    """Three moments: on a probed step, around its update, and at the end."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.updates = UpdateProbe(engine.norms)
        options = engine.settings.trainer
        most = options.batch_size * engine.settings.sequence_length  # as much memory as training
        self.tokens = min(options.probe_tokens, most)

    def on_step(self) -> list[Row]:
        """Before the step's forward pass: of what flows through the model."""
        windows = self.engine.windows(self.tokens)
        return stream_rows(self.engine.model, self.engine.loss, *windows)

    def before_update(self) -> None:
        """Keep what the update will change."""
        self.updates.before()

    def after_update(self) -> list[Row]:
        """What the update changed."""
        return self.updates.after()

    def at_end(self, val_loss: float) -> list[Row]:
        """What is measured once, of the trained model, in eval mode: see `trainer.end_probes`."""
        engine = self.engine
        windows = zip(*(part.split(1) for part in engine.windows(self.tokens)), strict=True)
        with evaluating(engine.model):
            losses = (engine.loss(*window) for window in windows)
            gradients = window_gradient_rows(engine.norms, losses)
        return layer_drop_rows(engine.model, engine.validation_loss, val_loss) + gradients
