"""What a run has counted so far: one dataclass, which a checkpoint keeps."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.records.json_values import read_section
from experiments.records.summary import BlockNorms, GradNorms

SPIKE_DEVIATIONS, SPIKE_WINDOW, SPIKE_LEAST = 6, 100, 20  # see is_spike
SPIKES_NAMED = 20  # of which the summary names the step

# Under which key a checkpoint keeps a field, where that is not the field's own name: checkpoints
# of earlier versions stay readable.
STORED_AS = {"checked_steps": "settled"}


@dataclass
class Tally:
    """What a run has counted so far.

    log_every         steps from one recorded step to the next; None until the rows of a probe
                      were counted, where the settings leave it open
    measured_bytes    bytes by kind, of the first two steps; None where they cannot be measured
    training_seconds  spent on steps, evaluation and probes aside
    logged_seconds    of these, those before the last recorded row
    logged_step       updates made before the last recorded row
    train_loss        of the last recorded step, in nats; None before the first
    speed             tokens per second between the last two recorded rows
    val_losses        validation loss in nats, by the number of updates before it
    block_norms       gradient norms of the first and the last block, at the first and the last
                      recorded step
    checked_steps     steps whose loss and gradient were looked at and are finite; of them:
    losses            the training losses of the last SPIKE_WINDOW
    spikes            how many losses were spikes
    spike_steps       the first SPIKES_NAMED of these steps
    clipped           how many gradients were clipped
    """

    log_every: int | None = None
    measured_bytes: dict[str, int | None] = field(default_factory=dict)
    training_seconds: float = 0.0
    logged_seconds: float = 0.0
    logged_step: int = 0
    train_loss: float | None = None
    speed: float = 0.0
    val_losses: dict[int, float] = field(default_factory=dict)
    block_norms: GradNorms = field(default_factory=GradNorms)
    checked_steps: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: int = 0
    spike_steps: list[int] = field(default_factory=list)
    clipped: int = 0

    def state(self) -> dict[str, Any]:
        """As a checkpoint keeps it, under `progress`."""
        values = dataclasses.asdict(self)
        return {STORED_AS.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Tally":
        """The tally of a checkpoint. Raises KeyError where a field is not there."""
        names = [field.name for field in dataclasses.fields(cls)]
        values = {name: state[STORED_AS.get(name, name)] for name in names}
        return cls(**values | {"block_norms": read_section(GradNorms, values["block_norms"])})

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Within: the time counts as training."""
        started = time.perf_counter()
        yield
        self.training_seconds += time.perf_counter() - started

    def count(self, step: int, loss: float, clipped: bool) -> None:
        """Count a step that is finite: whether its loss is a spike, its gradient clipped."""
        self.checked_steps += 1
        if is_spike(loss, self.losses):
            self.spikes += 1
            self.spike_steps = [*self.spike_steps, step][:SPIKES_NAMED]
        self.losses = [*self.losses, loss][-SPIKE_WINDOW:]
        self.clipped += clipped

    def log(self, updates: int, loss: float, blocks: BlockNorms, step_tokens: int) -> None:
        """Count a recorded step.

        updates      made once this step is done
        blocks       gradient norms of the first and the last block
        step_tokens  tokens of one step
        """
        if self.logged_step == 0:
            self.block_norms.first_step = blocks
        self.block_norms.last_step = blocks
        seconds = self.training_seconds - self.logged_seconds
        self.speed = (updates - self.logged_step) * step_tokens / seconds
        self.logged_seconds, self.logged_step = self.training_seconds, updates
        self.train_loss = loss

    def mean_speed(self, step_tokens: int) -> float:
        """Tokens per second of all recorded steps, evaluation and probes aside."""
        return self.logged_step * step_tokens / max(self.training_seconds, 1e-9)

    @property
    def best_val_loss(self) -> float:
        """The least validation loss so far; infinite before the first."""
        return min(self.val_losses.values(), default=float("inf"))

    @property
    def clip_share(self) -> float | None:
        """Which share of the steps was clipped; None before the first."""
        return self.clipped / self.checked_steps if self.checked_steps else None


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether a step's training loss is more than 6 standard deviations above its running mean.

    Our reading of "running": mean and standard deviation (biased) are those of the losses of the
    last 100 steps before it, earlier spikes among them. False where there are fewer than 20.
    """
    if len(before) < SPIKE_LEAST:
        return False
    return bool(loss > np.mean(before) + SPIKE_DEVIATIONS * np.std(before))
