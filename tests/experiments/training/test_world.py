"""What the engine, the loop and the recorder ask of the world, with one that is not alone."""

import copy
from functools import partial

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from conftest import Cli
from experiments.data.corpus import load_corpus
from experiments.jobs import launch
from experiments.machine.memory import PeakMeter
from experiments.machine.world import World
from experiments.records.recorder import Recorder
from experiments.settings.compose import build_dataclass
from experiments.settings.schema import Settings
from experiments.training.engine import Engine
from experiments.training.memory import StepMemory
from gpt import GPT, GPTConfig
from same_run import state_of


class OneOfTwo(World):
    """A process that computes its half of a batch; `others` are the gradients of the other one."""

    def __init__(self, rank: int, others: list[Tensor] | None = None) -> None:
        self.rank, self.others = rank, others
        self.is_first = rank == 0

    def share(self, rows: Tensor) -> Tensor:
        return rows.chunk(2)[self.rank]

    def average_gradients(self, model: nn.Module) -> None:
        for parameter, other in zip(model.parameters(), self.others or [], strict=False):
            assert parameter.grad is not None
            parameter.grad = (parameter.grad + other) / 2


def test_only_the_first_process_writes(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, written in ((0, True), (1, False)):
        world = OneOfTwo(rank)
        monkeypatch.setattr(launch, "Recorder", partial(Recorder, world=world))
        arguments = ("trainer.checkpoint_every=1", "trainer.keep_best=true", "wandb.mode=offline")
        code, run = cli(*toy, *arguments)
        assert code == 0
        files = {path.name for path in run.iterdir()} - {".hydra", ".lock"}
        whole = {"metrics.csv", "gradients.csv", "parameters.csv", "memory.csv", "sample.txt"}
        whole |= {"summary.json", "checkpoint.pt", "checkpoint-2.pt", "best.pt", "wandb"}
        assert files == (whole if written else set())


def test_two_halves_make_the_gradient_of_the_whole_batch(cli: Cli, toy: tuple[str, ...]) -> None:
    """To rounding in float64, with accumulation inside each half."""
    options = ("trainer.batch_size=2", "trainer.accumulate=4", "trainer.precision=float64")
    _, run = cli(*toy, *options)
    state = state_of(run)
    settings = build_dataclass(Settings, state["settings"])
    corpus = load_corpus(settings)
    trained = GPT(GPTConfig.from_values(state["model_config"])).double()

    def gradients(world: World) -> list[Tensor]:
        device = torch.device("cpu")
        memory = StepMemory(PeakMeter(device), {}, {})
        engine = Engine(copy.deepcopy(trained), corpus, settings, device, memory, world)
        engine.gradients(5)
        return [p.grad for p in engine.model.parameters() if p.grad is not None]

    whole = gradients(World())
    halves = gradients(OneOfTwo(0, others=gradients(OneOfTwo(1))))
    torch.testing.assert_close(halves, whole, rtol=1e-10, atol=1e-14)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(gradients(OneOfTwo(0)), whole, rtol=1e-3, atol=1e-6)


def test_the_balance_loss_is_trained_on_and_recorded_apart(cli: Cli, toy: tuple[str, ...]) -> None:
    """Gradients of cross entropy and balance together, each the mean of its parts.

    The balance of a part is of its own tokens, as that of one large batch is of all.
    """
    experts = ("count=4", "active=2", "balance_loss=0.5")
    arguments = [f"model.experts.{each}" for each in experts]
    options = ("trainer.accumulate=2", "trainer.precision=float64", "model.drop_rate=0")
    code, run = cli(*toy, *arguments, *options)
    assert code == 0
    state = state_of(run)
    settings = build_dataclass(Settings, state["settings"])
    corpus = load_corpus(settings)
    model = GPT(GPTConfig.from_values(state["model_config"])).double()
    memory = StepMemory(PeakMeter(torch.device("cpu")), {}, {})
    engine = Engine(model, corpus, settings, torch.device("cpu"), memory)
    loss, recorded = engine.gradients(5)
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    tokens, targets = corpus.batch(settings.seed, 5, 4, 16)
    entropies, balances = [], []
    for part in (slice(0, 2), slice(2, 4)):
        logits = model(tokens[part])
        entropies.append(nn.functional.cross_entropy(logits.flatten(0, 1), targets[part].flatten()))
        balances.append(0.5 * sum(block.feed_forward.balance for block in model.blocks) / 2)
    assert loss.item() == pytest.approx(sum(entropies).item() / 2, rel=1e-6)
    assert recorded.item() == pytest.approx(sum(balances).item() / 2, rel=1e-6)
    assert recorded.item() >= 0.5 - 1e-6
    ((sum(entropies) + sum(balances)) / 2).backward()
    torch.testing.assert_close(found, [p.grad for p in model.parameters()])

    metrics = pd.read_csv(run / "metrics.csv")
    trained = metrics[metrics["train_loss"].notna()]
    assert (trained["balance_loss"] >= 0.5 - 1e-6).all()
    assert trained["train_loss"].iloc[0] == pytest.approx(metrics["val_loss"].iloc[0], abs=0.3)
    _, dense = cli(*toy)
    assert pd.read_csv(dense / "metrics.csv")["balance_loss"].isna().all()


def test_a_run_goes_by_the_mean_of_all_processes(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class LosingAll(World):
        def mean(self, value: Tensor) -> Tensor:
            return value * float("nan")

    monkeypatch.setattr(launch, "Recorder", partial(Recorder, world=LosingAll()))
    code, run = cli(*toy)
    assert code == 0
    assert "loss was not finite at step 0" in (run / "summary.json").read_text()
