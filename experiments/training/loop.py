"""When: which step is evaluated, probed, recorded and saved, and what ends a run."""

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.machine.console import print_line, progress
from experiments.machine.memory import in_mb
from experiments.machine.signals import Interrupted, defer_signals, stop_signal
from experiments.machine.versions import versions
from experiments.records.recorder import Recorder
from experiments.records.summary import BlockNorms
from experiments.training.checkpoint import (
    BEST,
    State,
    random_state,
    restore_random_state,
    write_checkpoint,
    write_newest,
)
from experiments.training.engine import Engine, OnHost, clip_factor
from experiments.training.log_interval import automatic_log_every
from experiments.training.loss import warn_of_high_start
from experiments.training.pace import Pace
from experiments.training.tally import Tally
from gpt import ConfigError
from normscope.stats import Row

log = logging.getLogger(__name__)


class Diverged(Exception):
    """A loss or a gradient was not finite: an answer, not a failure."""

    def __init__(self, step: int, what: str) -> None:
        self.step = step
        super().__init__(f"{what} was not finite at step {step}")


@dataclass
class StepRecord:
    """What was measured at one step: single values, and values by layer."""

    step: int
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


class Trainer:
    """Goes through the steps, and records and saves what is due.

    `step` in every record is the number of updates made before the measurement: step 0 is the
    model as initialised. Gradient norms are those of the mean loss over the step's whole batch,
    after accumulation and before clipping.
    """

    def __init__(self, engine: Engine, recorder: Recorder, tally: Tally) -> None:
        self.engine, self.recorder, self.tally = engine, recorder, tally
        self.settings, self.options = engine.settings, engine.settings.trainer
        self.probes, self.pace = engine.probes, Pace()
        self.done = 0  # steps
        self.saved: int | None = None  # the step of checkpoint.pt

    def run(self) -> None:
        """All steps that are left, then a last evaluation and the checkpoint.

        Raises Diverged; Interrupted, after the current step and a checkpoint, on a signal.
        """
        steps = self.options.steps
        with progress("train", steps) as report, defer_signals():
            while self.done < steps:
                self.advance()
                if self._is_logged(self.done - 1):
                    report(self.done, self._progress_note())
                self._save_or_stop()
        print_line("evaluating and probing the trained model")
        self._finish()

    def advance(self) -> None:
        """Take the next step."""
        self._step(self.done)
        self.done += 1

    def _step(self, step: int) -> None:
        """Measure at `step`, update, and record the step where it is due."""
        evaluating, probing = self._is_evaluated(step), self._is_probed(step)
        recording = self._is_logged(step) or evaluating or probing
        record = StepRecord(step)
        if evaluating or probing:
            # A step that broke the weights ends the run before anything more is measured of them.
            with self.tally.timed():
                self._check_pending()
        if evaluating:
            record.metrics |= self._evaluate(step)
        if probing:
            record.rows += self._probe_streams()
        if step % (self.options.mixing_every or self.options.steps) == 0:
            self._probe_mixing(step)
        with self.tally.timed():
            total = self.engine.backward(step).total_norm
            if recording or not self.engine.defers:
                total = self._check_pending(record, each_tensor=probing)
            if self.options.clip is not None:
                record.metrics["clip_factor"] = self.engine.clip(self.options.clip, total)
        self._update(record, probing)
        if self.tally.log_every is None:
            self.tally.log_every = self._fitting_log_every(record.rows)
        self.engine.clear_gradients()
        if recording:
            self._record(record)

    def _update(self, record: StepRecord, probing: bool) -> None:
        """Update the weights; the time of the probes around it is not training."""
        if probing:
            self.probes.before_update()
        with self.tally.timed():
            self.engine.update(record.step)
        if probing:
            record.rows += self.probes.after_update()

    def _is_logged(self, step: int) -> bool:
        # Before the interval is known each step counts as logged: the first one sets it.
        return step % (self.tally.log_every or 1) == 0 or step == self.options.steps - 1

    def _is_evaluated(self, step: int) -> bool:
        return step % self.options.eval_every == 0

    def _is_probed(self, step: int) -> bool:
        return self.options.probe_every is not None and step % self.options.probe_every == 0

    def _fitting_log_every(self, probed: list[Row]) -> int:
        """The interval that keeps gradients.csv small; by the rows of the first step."""
        norms = self.engine.norms
        logged = norms.gradient_rows(torch.zeros(len(norms.parameters)))
        return automatic_log_every(self.settings, logged, probed)

    def _check_pending(self, record: StepRecord | None = None, each_tensor: bool = False) -> Tensor:
        """Copy all pending steps from the device and see whether they are finite.

        Raises Diverged for the first that is not, after recording it: nothing that was computed
        after it is recorded or saved. Returns the newest step's total norm, on the host.

        record       of the newest step, which takes its values; its gradients must still be there
        each_tensor  whether its rows have each tensor's norms, too
        """
        total = torch.zeros(())
        for values in self.engine.fetch(with_gradients=record is not None):
            total = values.total_norm
            if record is not None and values.step == record.step:
                self._fill(record, values, each_tensor)
            if not values.is_finite:
                self._record_divergence(values, record)
            clip = self.options.clip
            clipped = clip is not None and bool(clip_factor(clip, total) < 1)
            self.tally.count(values.step, values.loss, clipped)
        return total

    def _fill(self, record: StepRecord, values: OnHost, each_tensor: bool) -> None:
        """Put a step's values into its record, the gradient's rows before the others."""
        record.metrics |= {
            "tokens": values.step * self.engine.step_tokens,
            "train_loss": values.loss,
            "lr": values.lr,
            "grad_norm": float(values.total_norm),
        }
        if self.engine.balances:
            record.metrics["balance_loss"] = values.balance
        each_tensor = each_tensor or not values.is_finite  # to show which tensor it is
        record.rows[:0] = self.engine.norms.gradient_rows(values.grad_norms, each_tensor)

    def _record_divergence(self, values: OnHost, record: StepRecord | None) -> None:
        """Record a step that is not finite, and raise Diverged."""
        if record is None or values.step != record.step:
            record = StepRecord(values.step)
            self._fill(record, values, each_tensor=True)
        self.recorder.step(record.step, record.metrics, record.rows)
        raise Diverged(values.step, "gradient" if math.isfinite(values.loss) else "loss")

    def _record(self, record: StepRecord) -> None:
        """Write a step's row, with the speed since the last one and the memory so far."""
        metrics = record.metrics
        if "clip_factor" in metrics:  # on the device until a row needs it
            metrics["clip_factor"] = float(metrics["clip_factor"])
        blocks = BlockNorms.from_rows(record.rows)
        before = self.tally.logged_seconds
        self.tally.log(record.step + 1, metrics["train_loss"], blocks, self.engine.step_tokens)
        self._watch_pace(self.tally.logged_seconds - before)
        metrics |= {
            "tokens_per_s": self.tally.speed,
            "memory_mb": in_mb(self.engine.memory.meter.highest()),
        }
        self.recorder.step(record.step, metrics, record.rows)

    def _watch_pace(self, seconds: float) -> None:
        """Say so, once, where the row that took `seconds` shows that training has slowed down."""
        if slump := self.pace.slump(self.tally.speed, seconds):
            log.warning(
                "training has slowed down from %s to %s tokens/s; most likely another program "
                "uses the same %s. The results do not depend on it. End that program, or start "
                "runs that are to share a machine with threads=1 each, or as one sweep",
                *(f"{speed:,.0f}" for speed in slump),
                "cores" if self.engine.device.type == "cpu" else self.engine.device.type,
            )

    def _evaluate(self, step: int) -> dict[str, float | None]:
        """The validation loss per token and per byte; keeps a checkpoint of the best if wanted."""
        loss = self.engine.validation_loss()
        if step == 0:
            warn_of_high_start(self.engine.model, loss, self.engine.windows(1)[0])
        is_best = loss < self.tally.best_val_loss
        self.tally.val_losses[step] = loss
        if self.options.keep_best and is_best and self.engine.world.is_first:
            write_checkpoint(self.recorder.directory / BEST, self.state())
        return {"val_loss": loss, "val_bits_per_byte": self.engine.bits_per_byte(loss)}

    def _probe_streams(self) -> list[Row]:
        """What flows through the model, of the probe's windows together."""
        return self.probes.on_step(partial(self.engine.probe_loss, *self.engine.probe_windows()))

    def _probe_mixing(self, step: int) -> None:
        """How much of the stream each sublayer wrote, of the same windows, if it is wanted."""
        if self.options.mixing:
            tokens, _ = self.engine.probe_windows()
            rows = self.probes.mixing(partial(self.engine.probe_forward, tokens))
            self.recorder.mixing(step, rows)

    def _probe_trained(self, val_loss: float) -> list[Row]:
        """What is measured once, of the trained model: see `trainer.end_probes`."""
        windows = zip(*(part.split(1) for part in self.engine.probe_windows()), strict=True)
        losses = (self.engine.probe_loss(*window) for window in windows)
        return self.probes.at_end(self.engine.validation_loss, val_loss, losses)

    def _progress_note(self) -> str:
        """What the progress line shows beside the step."""
        return f"loss {self.tally.train_loss:.3f}  {self.tally.speed:,.0f} tokens/s"

    def _save_or_stop(self) -> None:
        """Save where a checkpoint is due; on a stop signal, save and raise Interrupted."""
        signal, every = stop_signal(), self.options.checkpoint_every
        is_due = every and self.done % every == 0 and self.done < self.options.steps
        if signal or is_due:
            self._check_pending()  # no checkpoint is written of weights that a step has broken
            self.save()
        if signal:
            raise Interrupted(signal)

    def _finish(self) -> None:
        """After the last update: evaluation, probes and checkpoint."""
        steps = self.options.steps
        evaluation = self._evaluate(steps)
        val_loss = self.tally.val_losses[steps]
        rows = self._probe_streams() if self.options.probe_every else []
        if math.isfinite(val_loss):
            # Without the last row in it: a run that is given more steps replaces that row.
            self.save()
            self._probe_mixing(steps)
            if self.options.end_probes:
                rows += self._probe_trained(val_loss)
        metrics = {"tokens": steps * self.engine.step_tokens, **evaluation}
        self.recorder.step(steps, metrics, rows)
        if not math.isfinite(val_loss):
            raise Diverged(steps, "validation loss")

    def save(self) -> None:
        """Write checkpoint.pt for the steps done so far."""
        if self.engine.world.is_first:
            write_newest(self.recorder.directory, self.state(), self.saved, self.options.keep)
        self.saved = self.done

    def state(self) -> State:
        """Everything that the steps to come depend on. Nothing may be pending."""
        return {
            **self.engine.state(),
            "random": random_state(),
            "step": self.done,
            "progress": self.tally.state(),
            "settings": dataclasses.asdict(self.settings),
            "corpus_sha256": self.engine.corpus.sha256,
            "records": self.recorder.state(),
            "versions": versions(str(self.engine.device)),
        }

    def restore(self, state: State) -> None:
        """Continue where `state` was taken. Raises ConfigError if the text is not the same."""
        if state["corpus_sha256"] != self.engine.corpus.sha256:
            data = self.settings.data
            valid = "is not the text with which the run began"
            raise ConfigError("data", data.path or data.name, valid)
        self.engine.restore(state)
        self.done = self.saved = state["step"]
        restore_random_state(state["random"])  # last: what came before may have drawn
