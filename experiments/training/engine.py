"""How a step is computed: forward and backward in parts, clipping, the update, the evaluation."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from experiments.data.corpus import Corpus
from experiments.machine.world import ALONE, World
from experiments.settings.schema import Settings
from experiments.training.checkpoint import State, model_state
from experiments.training.compiled import compiled_features
from experiments.training.loss import language_model_loss
from experiments.training.memory import StepMemory
from experiments.training.optimizer import make_optimizer
from experiments.training.schedule import learning_rate
from gpt import GPT
from normscope.anatomy import anatomy_of
from normscope.probes import Probes
from normscope.streams import evaluating

Windows: TypeAlias = tuple[Tensor, Tensor]  # tokens and targets, (B, T) each


@dataclass
class OnDevice:
    """One step's values where they were computed."""

    step: int
    lr: float
    loss: Tensor  # ()
    balance: Tensor  # (), what was added to the loss to even the experts' load
    grad_norms: Tensor  # (number of parameters,)

    @property
    def total_norm(self) -> Tensor:
        """Norm of the whole gradient, ()."""
        return self.grad_norms.norm()


@dataclass
class OnHost:
    """The same values copied to the host, norms in float64."""

    step: int
    lr: float
    loss: float
    balance: float
    grad_norms: Tensor  # (number of parameters,)

    @property
    def total_norm(self) -> Tensor:
        """Norm of the whole gradient, ()."""
        return self.grad_norms.norm()

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(float(self.total_norm))


class Engine:
    """Computes what the loop asks for, on one device.

    `backward` leaves a step's values on the device, because on a GPU reading a number waits until
    the device has computed it; `fetch` copies those of all pending steps at once.
    """

    def __init__(
        self,
        model: GPT,
        corpus: Corpus,
        settings: Settings,
        device: torch.device,
        memory: StepMemory,
        world: World = ALONE,
    ) -> None:
        self.model, self.corpus, self.settings, self.device = model, corpus, settings, device
        self.memory, self.world = memory, world
        self.optimizer = make_optimizer(model, settings.optimizer)
        self.probes = Probes(anatomy_of(model))
        self.norms = self.probes.norms
        self.pending: list[OnDevice] = []
        options = settings.trainer
        self.features = compiled_features(model, settings) if options.compile else None
        # Gradients of fp16 below 6e-8 are 0: they are taken of the loss times a factor.
        self.scaler = torch.amp.GradScaler(device.type) if options.precision == "fp16" else None
        self.drawn: tuple[int, Windows] | None = None  # the batch of a step to come

    @property
    def defers(self) -> bool:
        """Whether reading a number waits for the device."""
        return self.device.type != "cpu"

    @property
    def balances(self) -> bool:
        """Whether something is added to the loss that evens the load of experts."""
        experts = self.model.config.experts
        return bool(experts.count and experts.balance_loss)

    @property
    def rows(self) -> int:
        """Windows of one step."""
        return self.settings.trainer.rows

    @property
    def step_tokens(self) -> int:
        """Tokens that one step trains on."""
        return self.rows * self.settings.sequence_length

    def backward(self, step: int) -> OnDevice:
        """Forward and backward of one step at its learning rate; nothing is copied to the host."""
        self.memory.before(step)
        settings = self.settings
        rate = learning_rate(settings.schedule, settings.optimizer.lr, step, settings.trainer.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, balance = self.gradients(step)
        values = OnDevice(step, rate, loss, balance, self.norms.gradients())
        self.pending.append(values)
        return values

    def gradients(self, step: int) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of one step; gives its mean loss, on the device.

        And, apart from it, the mean of what evens the load of experts, whose gradient is part of
        the step's: 0 without such a loss.
        """
        windows = self._batch(step)
        values = self._accumulate(step, windows)
        while self.scaler is not None and not unscale(self.scaler, self.optimizer):
            self.clear_gradients()
            values = self._accumulate(step, windows)
        self.memory.after_backward(step, self.model)
        if self.defers:  # while it computes
            self.drawn = step + 1, self._draw(step + 1)
        return values

    def _accumulate(self, step: int, windows: Windows) -> tuple[Tensor, Tensor]:
        """See `gradients`, whose factor under fp16 is still in the gradients."""
        parts = self.settings.trainer.accumulate
        tokens, targets = windows
        if self.features is not None and self.defers:
            torch.compiler.cudagraph_mark_step_begin()  # loads the compiler, if it is not yet
        total, evening = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part_tokens, part_targets in zip(
            tokens.chunk(parts), targets.chunk(parts), strict=True
        ):
            with self.memory.of_forward(step, self.model):
                loss = self.training_loss(part_tokens, part_targets) / parts
                balance = self.model.balance_loss()
            total += loss.detach()
            if balance is not None:
                loss, evening = loss + balance / parts, evening + balance.detach() / parts
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.world.average_gradients(self.model)
        return self.world.mean(total), self.world.mean(evening)

    def fetch(self, with_gradients: bool) -> list[OnHost]:
        """Copy the values of all pending steps from the device, in one transfer.

        with_gradients  whether the gradients of the newest step are still there: then its norms are
                        exact where their squares left float32
        """
        pending, self.pending = self.pending, []
        if not pending:
            return []
        lines = [(v.loss[None].float(), v.balance[None].float(), v.grad_norms) for v in pending]
        table = torch.stack([torch.cat(line) for line in lines])
        fetched = [
            OnHost(values.step, values.lr, float(line[0]), float(line[1]), line[2:])
            for values, line in zip(pending, table.cpu().double(), strict=True)
        ]
        if with_gradients:
            fetched[-1].grad_norms = self.norms.gradients_on_host(fetched[-1].grad_norms)
        return fetched

    def clip(self, limit: float, total: Tensor) -> Tensor:
        """Scale all gradients, of norm `total`, to a norm of at most `limit`; gives the factor."""
        factor = clip_factor(limit, total)
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(grads, factor.to(self.device, grads[0].dtype))
        return factor

    def update(self, step: int) -> None:
        """Let the optimizer change the weights."""
        self.optimizer.step()
        self.memory.after_update(step, self.optimizer)

    def clear_gradients(self) -> None:
        """Forget the gradients of a step that is done."""
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats over a fixed set of validation windows, without dropout.

        Every process computes all of it, so that all agree on what is best and what has diverged.
        """
        options = self.settings.trainer
        tokens, targets = self.windows(options.eval_tokens)
        total = 0.0
        with evaluating(self.model):
            for part_tokens, part_targets in zip(
                tokens.split(options.batch_size), targets.split(options.batch_size), strict=True
            ):
                total += float(self.loss(part_tokens, part_targets)) * len(part_tokens)
        return total / len(tokens)

    def bits_per_byte(self, loss: float) -> float | None:
        """A validation loss in nats per token as bits per byte of the same windows, see Corpus."""
        _, targets = self.windows(self.settings.trainer.eval_tokens)
        return self.corpus.bits_per_byte(loss, targets)

    def loss(self, tokens: Tensor, targets: Tensor, precision: str | None = None) -> Tensor:
        """The loss of some windows (B, T); in the precision of the run, if no other is named."""
        return language_model_loss(
            self.model,
            tokens.to(self.device),
            targets.to(self.device),
            precision or self.settings.trainer.precision,
        )

    def training_loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The same, computed as the run asks for: compiled, or with less kept for backward."""
        options = self.settings.trainer
        self.model.recomputes = options.activation_checkpointing
        try:
            return language_model_loss(
                self.model, tokens, targets, options.precision, self.features
            )
        finally:
            self.model.recomputes = False

    def probe_loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The loss that probes take gradients of: in float32 where the run scales its own."""
        return self.loss(tokens, targets, None if self.scaler is None else "float32")

    def windows(self, tokens: int) -> tuple[Tensor, Tensor]:
        """The same validation windows each time, as many as `tokens` fill; (B, T) each."""
        return self.corpus.fixed_windows(tokens, self.settings.sequence_length)

    def probe_windows(self) -> tuple[Tensor, Tensor]:
        """The windows that are probed, in no more memory than a training batch takes."""
        options = self.settings.trainer
        most = options.batch_size * self.settings.sequence_length
        return self.windows(min(options.probe_tokens, most))

    def probe_forward(self, tokens: Tensor) -> Tensor:
        """What the head reads of some windows (B, T): no loss, and no narrower products."""
        return self.model.features(tokens.to(self.device))

    def state(self) -> State:
        """Model, tokenizer and optimizer, as a checkpoint keeps them."""
        return {
            **model_state(self.model, self.corpus.tokenizer),
            "optimizer": self.optimizer.state_dict(),
        } | ({} if self.scaler is None else {"scaler": self.scaler.state_dict()})

    def restore(self, state: State) -> None:
        """Take the weights and the optimizer's state from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])

    def _batch(self, step: int) -> Windows:
        """What this process computes of a step's batch, on the device."""
        if self.drawn is not None and self.drawn[0] == step:
            return self.drawn[1]
        return self._draw(step)

    def _draw(self, step: int) -> Windows:
        # Shared before it is cut into parts, so that each process has parts of equal size.
        length = self.settings.sequence_length
        tokens, targets = map(
            self.world.share, self.corpus.batch(self.settings.seed, step, self.rows, length)
        )
        return self._moved(tokens), self._moved(targets)

    def _moved(self, windows: Tensor) -> Tensor:
        """On the device; to a GPU without waiting, which takes memory that is not swapped out."""
        if self.device.type == "cuda" and not windows.is_cuda:
            windows = windows.pin_memory()
        return windows.to(self.device, non_blocking=True)


def unscale(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
    """Take the loss's factor out of the gradients; whether they are what they would be without.

    Where they are not, since some left fp16, the factor is halved; below 1 it is not to blame.
    """
    factor = scaler.get_scale()
    scaler.unscale_(optimizer)
    scaler.update()
    return factor < 1 or scaler.get_scale() >= factor


def clip_factor(limit: float, total: Tensor) -> Tensor:
    """What all gradients are multiplied by, so that their total norm is at most `limit`."""
    return (limit / (total + 1e-6)).clamp(max=1.0)
