"""The training loop: one model, one corpus, one measured step after the other."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.data.corpus import Corpus
from experiments.machine.console import progress
from experiments.machine.memory import MB, PeakMeter
from experiments.machine.signals import Interrupted, defer_signals, stop_signal
from experiments.machine.versions import versions
from experiments.records.recorder import Recorder, block_summary
from experiments.settings.schema import Settings
from experiments.training.checkpoint import (
    BEST,
    State,
    model_state,
    random_state,
    restore_random_state,
    write_checkpoint,
    write_newest,
)
from experiments.training.loss import language_model_loss
from experiments.training.memory import optimizer_bytes, saved_activations, tensor_bytes
from experiments.training.optimizer import make_optimizer
from experiments.training.schedule import learning_rate
from gpt import GPT, ConfigError
from normscope.anatomy import anatomy_of
from normscope.probes import Probes
from normscope.stats import Row
from normscope.streams import evaluating

GRADIENTS_CSV_LIMIT = 45e6  # bytes; leaves room below 50 MB
BYTES_OF_NUMBERS = 30  # in a row of gradients.csv: step, layer, value, commas, generously
SPIKE_DEVIATIONS, SPIKE_WINDOW, SPIKE_LEAST = 6, 100, 20  # see is_spike
SPIKES_NAMED = 20  # of which the summary tells the step
PROGRESS = (  # attributes of a Trainer that a checkpoint keeps
    "log_every",
    "measured_bytes",
    "training_seconds",
    "logged_seconds",
    "logged_step",
    "train_loss",
    "speed",
    "val_losses",
    "block_norms",
    "settled",
    "losses",
    "spikes",
    "spike_steps",
    "clipped",
)


class Diverged(Exception):
    """A loss or a gradient was not finite: an answer, not a failure."""

    def __init__(self, step: int, what: str) -> None:
        self.step = step
        super().__init__(f"{what} was not finite at step {step}")


@dataclass
class Measured:
    """One step's values, still on the device."""

    step: int
    lr: float
    loss: Tensor
    grad_norms: Tensor  # (number of parameters,)


class Trainer:
    """Trains `model` as the settings say and records what it measures.

    `step` in every record is the number of updates made before the measurement: step 0 is the
    model as initialised. Gradient norms are those of the mean loss over the step's whole batch,
    after accumulation and before clipping.
    """

    def __init__(
        self,
        model: GPT,
        corpus: Corpus,
        settings: Settings,
        recorder: Recorder,
        device: torch.device,
        meter: PeakMeter,
        predicted: dict[str, int],  # bytes of a step, by kind
    ) -> None:
        self.model, self.corpus, self.recorder = model, corpus, recorder
        self.settings, self.options, self.device = settings, settings.trainer, device
        self.meter, self.predicted = meter, predicted
        # Elsewhere than on a CPU each look at a number waits for the device.
        self.defers = device.type != "cpu"
        self.length = settings.sequence_length
        self.optimizer = make_optimizer(model, settings.optimizer)
        self.probes = Probes(anatomy_of(model))
        self.norms = self.probes.norms
        self.log_every = self.options.log_every  # null: set once a probe's rows were counted
        self.pending: list[Measured] = []
        self.done = 0  # steps
        self.saved: int | None = None  # the step of checkpoint.pt
        self.measured_bytes: dict[str, int | None] = {}
        self.training_seconds = 0.0
        self.logged_seconds, self.logged_step = 0.0, 0
        self.train_loss: float | None = None
        self.speed = 0.0  # tokens per second since the last recorded step
        self.val_losses: dict[int, float] = {}
        self.block_norms: dict[str, dict[str, float]] = {}  # at the first and the last logged step
        self.settled = 0  # steps whose numbers were looked at, each finite; of them:
        self.losses: list[float] = []  # of the last SPIKE_WINDOW
        self.spikes, self.spike_steps = 0, list[int]()
        self.clipped = 0

    def run(self) -> None:
        """All steps that are left, then a last evaluation and the checkpoint.

        Raises Diverged; Interrupted, after the step in hand and a checkpoint, if asked to stop.
        """
        steps, save_every = self.options.steps, self.options.checkpoint_every
        with progress("train", steps) as report, defer_signals():
            while self.done < steps:
                self._step(self.done)
                self.done += 1
                if self._is_logged(self.done - 1):
                    report(self.done, self._note())
                signal = stop_signal()
                due = save_every and self.done % save_every == 0 and self.done < steps
                if signal or due:
                    self._settle()
                    self.save()
                if signal:
                    raise Interrupted(signal)
        val_loss = self._evaluate(steps)
        rows = self._stream_rows() if self.options.probe_every else []
        if math.isfinite(val_loss):
            self.save()  # before the last row, for the run may grow
            if self.options.end_probes:
                rows += self._end_rows(val_loss)
        metrics = {"tokens": self._tokens(steps), "val_loss": val_loss}
        self.recorder.step(steps, metrics, rows)
        if not math.isfinite(val_loss):
            raise Diverged(steps, "validation loss")

    def profile(self) -> None:
        """Let the placement set what it sets from data, on the first batch."""
        part = self.options.batch_size
        tokens, _ = self.corpus.batch(
            self.settings.seed, 0, part * self.options.accumulate, self.length
        )
        self.model.profile(tokens[:part].to(self.device))

    def _is_logged(self, step: int) -> bool:
        return step % (self.log_every or 1) == 0 or step == self.options.steps - 1

    def _step(self, step: int) -> None:
        """Measure at `step`, record it where it is due, and update."""
        options = self.options
        evaluating = step % options.eval_every == 0
        probing = options.probe_every is not None and step % options.probe_every == 0
        recording = self._is_logged(step) or evaluating or probing
        metrics: dict[str, Any] = {}
        rows: list[Row] = []
        if evaluating or probing:
            with self._timed():
                self._settle()
        if evaluating:
            metrics["val_loss"] = self._evaluate(step)
        if probing:
            rows += self._stream_rows()
        if step == 1:  # the first with the optimizer's state in place
            self.meter.restart()

        with self._timed():
            measured = self._measure(step)
            self.pending.append(measured)
            total = measured.grad_norms.norm()
            if recording or not self.defers:
                total = self._settle(metrics, rows, probing)
            if options.clip is not None:
                metrics["clip_factor"] = self._clip(options.clip, total)
        if probing:
            self.probes.before_update()
        with self._timed():
            self.optimizer.step()
        if step == 0:
            self.measured_bytes["optimizer"] = optimizer_bytes(self.optimizer)
        if step == 1:
            self.measured_bytes["peak"] = self.meter.rise()
        if probing:
            rows += self.probes.after_update()
        if self.log_every is None:
            every = self.norms.gradient_rows(torch.zeros(len(self.norms.parameters)))
            self.log_every = automatic_log_every(self.settings, every, rows)
        self.optimizer.zero_grad(set_to_none=True)
        if recording:
            self._record(step, metrics, rows)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the time inside as training."""
        started = time.perf_counter()
        yield
        self.training_seconds += time.perf_counter() - started

    def _measure(self, step: int) -> Measured:
        """Forward and backward of one step at its learning rate; nothing is copied to the host."""
        rate = learning_rate(
            self.settings.schedule, self.settings.optimizer.lr, step, self.options.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return Measured(step, rate, self._gradients(step), self.norms.gradients())

    def _settle(
        self,
        metrics: dict[str, Any] | None = None,
        rows: list[Row] | None = None,
        each: bool = False,
    ) -> Tensor:
        """Copy all pending steps from the device at once and see whether they are finite.

        Records the first that is not, and raises Diverged for it. Given `metrics` and `rows`, the
        newest step's gradients must still be there, and its values join them, with those of `each`
        tensor if wanted. Returns the newest step's total norm.
        """
        total = torch.zeros(())
        if not self.pending:
            return total
        table = torch.stack([torch.cat([m.loss[None].float(), m.grad_norms]) for m in self.pending])
        for measured, line in zip(self.pending, table.cpu().double(), strict=True):
            loss, norms = float(line[0]), line[1:]
            step_metrics, step_rows = {}, []
            if measured is self.pending[-1] and metrics is not None and rows is not None:
                norms = self.norms.gradients_on_host(norms)
                step_metrics, step_rows = metrics, rows
            total = norms.norm()
            step_metrics |= {
                "tokens": self._tokens(measured.step),
                "train_loss": loss,
                "lr": measured.lr,
                "grad_norm": float(total),
            }
            finite = math.isfinite(loss) and math.isfinite(float(total))
            step_rows[:0] = self.norms.gradient_rows(norms, each or not finite)
            if not finite:
                self.recorder.step(measured.step, step_metrics, step_rows)
                raise Diverged(measured.step, "gradient" if math.isfinite(loss) else "loss")
            self._count(measured.step, loss, total)
        self.pending.clear()
        return total

    def _count(self, step: int, loss: float, total: Tensor) -> None:
        """Count a step: whether its loss is a spike, and whether its gradient is clipped."""
        self.settled += 1
        if is_spike(loss, self.losses):
            self.spikes += 1
            self.spike_steps = [*self.spike_steps, step][:SPIKES_NAMED]
        self.losses = [*self.losses, loss][-SPIKE_WINDOW:]
        if self.options.clip is not None:
            self.clipped += int(clip_factor(self.options.clip, total) < 1)

    def _record(self, step: int, metrics: dict[str, Any], rows: list[Row]) -> None:
        """Write a row for `step`, with the speed since the last one and the memory so far."""
        if "clip_factor" in metrics:
            metrics["clip_factor"] = float(metrics["clip_factor"])
        seconds = self.training_seconds - self.logged_seconds
        done = step + 1
        speed = (self._tokens(done) - self._tokens(self.logged_step)) / seconds
        self.logged_seconds, self.logged_step = self.training_seconds, done
        self.train_loss, self.speed = metrics["train_loss"], speed
        self.block_norms.setdefault("first_step", block_summary(rows))
        self.block_norms["last_step"] = block_summary(rows)
        memory = self.meter.highest() / MB
        self.recorder.step(step, metrics | {"tokens_per_s": speed, "memory_mb": memory}, rows)

    def _gradients(self, step: int) -> Tensor:
        """Accumulate the gradients of one step; returns its mean loss, on the device."""
        parts = self.options.accumulate
        rows = self.options.batch_size * parts
        tokens, targets = self.corpus.batch(self.settings.seed, step, rows, self.length)
        total = torch.zeros((), device=self.device)
        for part_tokens, part_targets in zip(
            tokens.chunk(parts), targets.chunk(parts), strict=True
        ):
            if step == 0 and "activations" not in self.measured_bytes:
                with saved_activations(self.model) as activation_bytes:
                    loss = self._loss(part_tokens, part_targets) / parts
                    self.measured_bytes["activations"] = activation_bytes()
            else:
                loss = self._loss(part_tokens, part_targets) / parts
            loss.backward()
            total += loss.detach()
        if step == 0:
            parameters = list(self.model.parameters())
            self.measured_bytes["parameters"] = tensor_bytes(iter(parameters))
            self.measured_bytes["gradients"] = tensor_bytes(
                p.grad for p in parameters if p.grad is not None
            )
        return total

    def _loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return language_model_loss(
            self.model, tokens.to(self.device), targets.to(self.device), self.options.precision
        )

    def _clip(self, limit: float, total: Tensor) -> Tensor:
        """Scale all gradients to a total norm of at most `limit`; returns the factor."""
        factor = clip_factor(limit, total)
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(grads, factor.to(self.device, grads[0].dtype))
        return factor

    def _evaluate(self, step: int) -> float:
        """The validation loss, kept, with its checkpoint where that is wanted."""
        loss = self._validation_loss()
        best = min(self.val_losses.values(), default=math.inf)
        self.val_losses[step] = loss
        if self.options.keep_best and loss < best:
            write_checkpoint(self.recorder.directory / BEST, self.state())
        return loss

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Mean loss over a fixed set of validation windows."""
        tokens, targets = self.corpus.fixed_windows(self.options.eval_tokens, self.length)
        total = 0.0
        with evaluating(self.model):
            for part_tokens, part_targets in zip(
                tokens.split(self.options.batch_size),
                targets.split(self.options.batch_size),
                strict=True,
            ):
                total += float(self._loss(part_tokens, part_targets)) * len(part_tokens)
        return total / len(tokens)

    def _probe_windows(self) -> tuple[Tensor, Tensor]:
        most = self.options.batch_size * self.length  # no more memory than training takes
        return self.corpus.fixed_windows(min(self.options.probe_tokens, most), self.length)

    def _stream_rows(self) -> list[Row]:
        return self.probes.on_step(partial(self._loss, *self._probe_windows()))

    def _end_rows(self, val_loss: float) -> list[Row]:
        """What is measured once, of the trained model, in eval mode: see `trainer.end_probes`."""
        windows = zip(*(part.split(1) for part in self._probe_windows()), strict=True)
        losses = (self._loss(*one) for one in windows)
        return self.probes.at_end(self._validation_loss, val_loss, losses)

    def _tokens(self, steps: int) -> int:
        """Tokens trained on after `steps` updates."""
        return steps * self.options.batch_size * self.options.accumulate * self.length

    def tokens_per_s(self) -> float:
        """Mean speed of all steps so far, evaluation and probes aside."""
        return self._tokens(self.logged_step) / max(self.training_seconds, 1e-9)

    def counts(self) -> dict[str, Any]:
        """For the summary: tokens trained on, spikes and their first steps, share of clipped steps.

        The share is absent where clipping is off.
        """
        counts: dict[str, Any] = {
            "tokens": self._tokens(self.settled),
            "spikes": self.spikes,
            "spike_steps": self.spike_steps,
        }
        if self.options.clip is not None and self.settled:
            counts["clip_share"] = self.clipped / self.settled
        return counts

    def _note(self) -> str:
        return f"loss {self.train_loss:.3f}  {self.speed:,.0f} tokens/s"

    def memory_table(self) -> list[dict[str, Any]]:
        """Rows of kind, predicted_bytes, measured_bytes."""
        return [
            {
                "kind": kind,
                "predicted_bytes": count,
                "measured_bytes": self.measured_bytes.get(kind),
            }
            for kind, count in self.predicted.items()
        ]

    def save(self) -> None:
        """Write checkpoint.pt for the steps done so far."""
        directory, keep = self.recorder.directory, self.options.keep
        write_newest(directory, self.state(), self.saved, keep)
        self.saved = self.done

    def state(self) -> State:
        """Everything that the steps to come depend on. Nothing may be pending."""
        return {
            **model_state(self.model, self.corpus.tokenizer),
            "optimizer": self.optimizer.state_dict(),
            "random": random_state(),
            "step": self.done,
            "progress": {name: getattr(self, name) for name in PROGRESS},
            "settings": dataclasses.asdict(self.settings),
            "corpus_sha256": self.corpus.sha256,
            "records": self.recorder.state(),
            "versions": versions(),
        }

    def restore(self, state: State) -> None:
        """Go on where `state` was taken. Raises ConfigError if the text is not the same."""
        if state["corpus_sha256"] != self.corpus.sha256:
            data = self.settings.data
            valid = "is not the text with which the run began"
            raise ConfigError("data", data.path or data.name, valid)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in PROGRESS:
            setattr(self, name, state["progress"][name])
        self.done = self.saved = state["step"]
        restore_random_state(state["random"])


def clip_factor(limit: float, total: Tensor) -> Tensor:
    """What all gradients are multiplied by, so that their total norm is at most `limit`."""
    return (limit / (total + 1e-6)).clamp(max=1.0)


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether a step's training loss is more than 6 standard deviations above its running mean.

    Our reading of "running": mean and standard deviation (biased) are those of the losses of the
    last 100 steps before it, earlier spikes among them. False where there are fewer than 20.
    """
    if len(before) < SPIKE_LEAST:
        return False
    return bool(loss > np.mean(before) + SPIKE_DEVIATIONS * np.std(before))


def automatic_log_every(settings: Settings, every: list[Row], probed: list[Row]) -> int:
    """1, or the smallest interval that keeps gradients.csv below its limit.

    Probes are written as often as asked for; where they alone fill the file, the rest may take a
    tenth more.

    every   the rows of a logged step
    probed  those of a step that is probed, or of any where none is
    """
    steps, probe_every = settings.trainer.steps, settings.trainer.probe_every
    probes = steps / probe_every * csv_bytes(probed) if probe_every else 0.0
    room = max(GRADIENTS_CSV_LIMIT - probes, GRADIENTS_CSV_LIMIT / 10)
    return max(1, math.ceil(steps * csv_bytes(every) / room))


def csv_bytes(rows: list[Row]) -> int:
    """At most what the rows take in gradients.csv."""
    return sum(BYTES_OF_NUMBERS + len(row.component) + len(row.stat) for row in rows)
