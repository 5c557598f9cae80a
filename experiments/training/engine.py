"""How a step is computed: forward and backward in parts, clipping, the update, the evaluation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.data.corpus import Corpus
from experiments.machine.world import ALONE, World
from experiments.settings.schema import Settings
from experiments.training.checkpoint import State, model_state
from experiments.training.loss import language_model_loss
from experiments.training.memory import StepMemory
from experiments.training.optimizer import make_optimizer
from experiments.training.schedule import learning_rate
from gpt import GPT
from normscope.anatomy import anatomy_of
from normscope.probes import Probes
from normscope.streams import evaluating


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
        parts = self.settings.trainer.accumulate
        # Shared before it is cut into parts, so that each process has parts of equal size.
        tokens, targets = map(self.world.share, self._batch(step))
        total, evening = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part_tokens, part_targets in zip(
            tokens.chunk(parts), targets.chunk(parts), strict=True
        ):
            with self.memory.of_forward(step, self.model):
                loss = self.loss(part_tokens, part_targets) / parts
                balance = self.model.balance_loss()
            total += loss.detach()
            if balance is not None:
                loss, evening = loss + balance / parts, evening + balance.detach() / parts
            loss.backward()
        self.world.average_gradients(self.model)
        self.memory.after_backward(step, self.model)
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

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The training loss of some windows (B, T), in the precision of the run."""
        return language_model_loss(
            self.model,
            tokens.to(self.device),
            targets.to(self.device),
            self.settings.trainer.precision,
        )

    def windows(self, tokens: int) -> tuple[Tensor, Tensor]:
        """The same validation windows each time, as many as `tokens` fill; (B, T) each."""
        return self.corpus.fixed_windows(tokens, self.settings.sequence_length)

    def probe_windows(self) -> tuple[Tensor, Tensor]:
        """The windows that are probed, in no more memory than a training batch takes."""
        options = self.settings.trainer
        most = options.batch_size * self.settings.sequence_length
        return self.windows(min(options.probe_tokens, most))

    def state(self) -> State:
        """Model, tokenizer and optimizer, as a checkpoint keeps them."""
        return {
            **model_state(self.model, self.corpus.tokenizer),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Take the weights and the optimizer's state from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        return self.corpus.batch(self.settings.seed, step, self.rows, self.settings.sequence_length)


def clip_factor(limit: float, total: Tensor) -> Tensor:
    """What all gradients are multiplied by, so that their total norm is at most `limit`."""
    return (limit / (total + 1e-6)).clamp(max=1.0)
