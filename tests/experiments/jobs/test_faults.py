"""What goes wrong on real machines, done to real runs: nothing that was written is lost."""

import contextlib
import csv
import logging
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import run as cli_module
from children import CONTEXT, FAULTS, PATIENCE, Child, Fault, call
from conftest import Cli
from experiments.jobs import sweep as sweep_module
from experiments.records import wandb_run as sinks
from experiments.training.engine import Engine
from experiments.training.loop import Trainer
from same_run import assert_same_run, snapshot, state_of, summary_of

TEN = ("trainer.steps=10", "trainer.checkpoint_every=2", "trainer.eval_every=4")


@pytest.mark.parametrize(
    ("kills", "by_clock"),
    [
        pytest.param(3, False, marks=pytest.mark.long),
        pytest.param(200, True, marks=pytest.mark.long),
    ],
)
def test_killed_at_random_moments(
    toy: tuple[str, ...], tmp_path: Path, kills: int, by_clock: bool
) -> None:
    """SIGKILL, resumed, killed again, until it ends: as if it had never been killed.

    A moment is the number of function calls since the run began, drawn over those of a whole run:
    between any two writes, renames or updates. Every other one is a time on the clock, if wanted.
    """
    options = (*toy, *TEN, "model.drop_rate=0.1", "trainer.keep_best=true")
    whole = tmp_path / "whole"
    child = Child(tmp_path, *options, f"hydra.run.dir={whole}", fault=Fault("calls", -1))
    began = time.monotonic()
    assert child.wait()[0] == 0
    calls, seconds = child.tell.value, time.monotonic() - began
    assert calls > 10_000
    draw = random.Random(0)
    killed, ended, at_steps = 0, 0, set()
    while killed < kills:
        run = tmp_path / f"run{ended}"
        start = (*options, f"hydra.run.dir={run}")
        while True:
            began_already = (run / ".hydra" / "config.yaml").is_file()
            arguments = (f"resume={run}",) if began_already else start
            if killed >= kills:
                child = Child(tmp_path, *arguments)
            elif by_clock and killed % 2:
                child = Child(tmp_path, *arguments)
                child.process.join(draw.uniform(0, seconds))
                child.process.kill()
            else:
                # From late to early: most calls come before the first checkpoint.
                part = kills - 1 - killed
                moment = draw.randrange(calls * part // kills, calls * (part + 1) // kills)
                child = Child(tmp_path, *arguments, fault=Fault("calls", moment))
            code, output = child.wait()
            assert code in (0, -signal.SIGKILL), output
            assert "Traceback" not in output
            if code == 0:
                break
            killed += 1
            if (run / "checkpoint.pt").is_file():
                at_steps.add(state_of(run)["step"])
        assert_same_run(run, whole)
        ended += 1
    print(f"{killed} kills, {ended} runs ended, at checkpoints {sorted(at_steps)}")
    assert at_steps  # the kills did not all come before the first checkpoint


CHECKPOINTED = ("trainer.steps=6", "trainer.checkpoint_every=2")


def killed_by(fault: Fault, toy: tuple[str, ...], folder: Path) -> tuple[str, Path, Path]:
    """The output of a run that `fault` ended, its directory, and that of a whole run."""
    whole, run = folder / "whole", folder / "run"
    assert cli_module.main([*toy, *CHECKPOINTED, f"hydra.run.dir={whole}"]) == 0
    code, output = call(folder, *toy, *CHECKPOINTED, f"hydra.run.dir={run}", fault=fault)
    assert code == 1, output
    assert "Traceback" not in output
    assert len([line for line in output.splitlines() if line.startswith("error: ")]) == 1
    return output, run, whole


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (5, {"of": "gradients.csv"}),  # small files can be written
        pytest.param(5, {"size": 2000}, marks=pytest.mark.long),  # summary.json cannot either
        pytest.param(3, {"size": 20_000}, marks=pytest.mark.long),  # all but the checkpoint
    ],
    ids=["csv", "everything", "checkpoint"],
)
def test_a_full_disk_keeps_the_last_sound_checkpoint(
    toy: tuple[str, ...], tmp_path: Path, step: int, more: dict[str, Any]
) -> None:
    output, run, whole = killed_by(Fault("full_disk", step, more), toy, tmp_path)
    assert "File too large" in output  # of a limit; of a disk "No space left on device"
    assert state_of(run)["step"] == (4 if step == 5 else 2)
    assert not list(run.glob(".checkpoint*"))
    code, output = call(tmp_path, f"resume={run}")
    assert code == 0, output
    assert_same_run(run, whole)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder.mkdir()
    options = f"size={kilobytes}k"
    command = ["mount", "-t", "tmpfs", "-o", options, "normscope", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("this needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
def test_a_disk_that_fills_up_and_is_cleared(toy: tuple[str, ...], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    options = (*toy, "trainer.steps=40", "trainer.checkpoint_every=10", "trainer.keep=4")
    assert cli_module.main([*options, f"hydra.run.dir={whole}"]) == 0
    size = sum(map(len, snapshot(whole).values())) // 1024
    with small_disk(tmp_path / "disk", size // 2 + 64) as disk:
        run, filler = disk / "run", disk / "filler"
        filler.write_bytes(b"x" * (64 << 10))
        code, output = call(tmp_path, *options, f"hydra.run.dir={run}")
        assert code == 1
        assert "No space left on device" in output
        assert "Traceback" not in output
        assert state_of(run)["step"] >= 10
        filler.unlink()
        subprocess.run(["mount", "-o", f"remount,size={size * 2}k", str(disk)], check=True)
        code, output = call(tmp_path, f"resume={run}")
        assert code == 0, output
        assert_same_run(run, whole)


@pytest.mark.long
def test_a_full_disk_at_the_token_cache_costs_a_warning(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.data import corpus as data

    assert cli_module.main([*toy, f"hydra.run.dir={tmp_path / 'whole'}"]) == 0
    (cache,) = (tmp_path / "cache").iterdir()
    content = cache.read_bytes()
    cache.unlink()

    original = data.write_cache

    def on_a_full_disk(*arguments: Any) -> None:
        """The real thing, for this file alone."""
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            original(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(data, "write_cache", on_a_full_disk)
    run = tmp_path / "run"
    assert cli_module.main([*toy, f"hydra.run.dir={run}"]) == 0
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.undo()
    again = tmp_path / "again"
    assert call(tmp_path, *toy, f"hydra.run.dir={again}")[0] == 0
    assert cache.read_bytes() == content
    assert_same_run(run, tmp_path / "whole")
    assert_same_run(again, tmp_path / "whole")


@pytest.mark.long
def test_a_directory_made_read_only(toy: tuple[str, ...], tmp_path: Path) -> None:
    output, run, whole = killed_by(Fault("no_permissions", 3), toy, tmp_path)
    assert "Permission denied" in output
    assert state_of(run)["step"] == 2
    run.chmod(0o755)
    assert call(tmp_path, f"resume={run}")[0] == 0
    assert_same_run(run, whole)


def test_a_directory_removed(toy: tuple[str, ...], tmp_path: Path) -> None:
    output, run, _ = killed_by(Fault("removed", 3), toy, tmp_path)
    assert "was removed while the run went on" in output
    assert not run.exists()


def test_out_of_memory_says_what_to_lower(toy: tuple[str, ...], tmp_path: Path) -> None:
    # Single tensors of 42 MB, which the C library never keeps for later.
    sizes = ("trainer.batch_size=2600", "model.emb_dim=64", "model.n_layers=1")
    options = (*toy, *sizes, "trainer.probe_every=null")
    fault = Fault("little_memory", 1, {"room": 4 << 20})
    code, output = call(tmp_path, *options, f"hydra.run.dir={tmp_path / 'run'}", fault=fault)
    assert code == 1
    assert "Traceback" not in output
    (line,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert "predicted for a step: parameters" in line
    assert "peak" in line
    assert "Lower trainer.batch_size" in line
    assert "out of memory" in summary_of(tmp_path / "run")["error"]
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["step"].tolist() == [0]


@pytest.mark.parametrize(
    ("what", "at"),
    [
        ("loss", 0),
        ("gradient", 3),
        pytest.param("loss", 3, marks=pytest.mark.long),
        pytest.param("gradient", 0, marks=pytest.mark.long),
    ],
)
def test_not_finite_at_the_first_step_and_later(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, what: str, at: int
) -> None:
    """NaN in the loss, or infinity in one gradient: an answer, which needs no other run."""
    original = Engine.gradients

    def gradients(self: Engine, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        loss, balance = original(self, step)
        if step == at and what == "loss":
            return loss * math.nan, balance
        if step == at:
            grad = self.model.blocks[0].attention.out_proj.weight.grad
            assert grad is not None
            grad[0, 0] = math.inf
        return loss, balance

    monkeypatch.setattr(Engine, "gradients", gradients)
    code, run = cli(*toy, *CHECKPOINTED)
    summary = summary_of(run)
    assert (code, summary["status"], summary["diverged_at_step"]) == (0, "diverged", at)
    assert what in summary["reason"]
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == list(range(at + 1))
    assert (run / "checkpoint.pt").exists() == (at == 3)
    before = snapshot(run)
    assert cli_module.main([f"resume={run}"]) == 0  # nothing to do
    assert snapshot(run) == before


def test_two_processes_in_one_directory(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second is refused, and the first does not notice."""
    _, whole = cli(*toy, *CHECKPOINTED)
    original = Trainer._step
    refusals: list[tuple[int, str]] = []

    def step(self: Trainer, number: int) -> None:
        if number == 3:
            directory = self.recorder.directory
            refusals.append(call(tmp_path, f"resume={directory}"))
            refusals.append(call(tmp_path, *toy, *CHECKPOINTED, f"hydra.run.dir={directory}"))
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy, *CHECKPOINTED)
    assert code == 0
    assert_same_run(run, whole)
    assert [code for code, _ in refusals] == [1, 1]
    assert "another process runs in it" in refusals[0][1]
    assert "must be a new or empty directory" in refusals[1][1]


def test_a_lock_dies_with_its_owner(toy: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = Fault("signals", 3, {"signals": [signal.SIGKILL]})
    code, _ = call(tmp_path, *toy, *CHECKPOINTED, f"hydra.run.dir={run}", fault=fault)
    assert code == -signal.SIGKILL
    assert (run / ".lock").is_file()
    assert summary_of(run)["status"] == "running"
    assert call(tmp_path, f"resume={run}")[0] == 0


@pytest.mark.long
def test_two_processes_make_the_same_token_cache(toy: tuple[str, ...], tmp_path: Path) -> None:
    barrier = CONTEXT.Barrier(2)
    both = [
        Child(tmp_path, *toy, f"hydra.run.dir={tmp_path / name}", barrier=barrier)
        for name in ("one", "other")
    ]
    ended = [child.wait() for child in both]
    assert [code for code, _ in ended] == [0, 0]
    assert not any("damaged" in output for _, output in ended)
    assert_same_run(tmp_path / "one", tmp_path / "other")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_spoilt_token_cache_is_made_again(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, caplog: Any, how: str
) -> None:
    _, whole = cli(*toy)
    (cache,) = (tmp_path / "cache").iterdir()
    content = cache.read_bytes()
    middle = len(content) // 2
    spoilt = {
        "truncated": content[:middle],
        "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    cache.write_bytes(spoilt[how])
    with caplog.at_level(logging.WARNING):
        code, run = cli(*toy)
    assert code == 0
    assert "is damaged and is replaced" in caplog.text
    assert cache.read_bytes() == content
    assert_same_run(run, whole)


def test_a_clock_set_back(cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a year in the middle of a run, and files from the future when it goes on."""
    _, whole = cli(*toy, *CHECKPOINTED)
    original, now, now_ns = Trainer._step, time.time, time.time_ns
    year = 365 * 86400

    def step(self: Trainer, number: int) -> None:
        if number == 2:
            monkeypatch.setattr(time, "time", lambda: now() - year)
            monkeypatch.setattr(time, "time_ns", lambda: now_ns() - year * 10**9)
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy, *CHECKPOINTED)
    assert code == 143
    monkeypatch.setattr(Trainer, "_step", original)
    for path in run.rglob("*"):
        os.utime(path, (now() + year, now() + year))
    first = summary_of(run)["seconds"]
    assert 0 < first < PATIENCE
    assert cli_module.main([f"resume={run}"]) == 0
    assert_same_run(run, whole)
    assert first < summary_of(run)["seconds"] < 2 * PATIENCE
    speeds = pd.read_csv(run / "metrics.csv")["tokens_per_s"].dropna()
    assert (speeds > 0).all()


def core_of_wandb() -> list[int]:
    """W&B's own process that this one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this needs Linux's /proc")
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)],
    ids=["killed", "hangs"],
)
def test_wandb_lost_in_the_middle(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    number: signal.Signals,
) -> None:
    """Its process dies or hangs: the run goes on without it, and the next run has it again."""
    monkeypatch.setattr(sinks, "TIMEOUT", 3.0)
    monkeypatch.setattr(sinks, "TIMEOUT_ONCE_FAILED", 0.5)
    _, whole = cli(*toy, *CHECKPOINTED)
    original = Trainer._step
    killed: list[int] = []

    def step(self: Trainer, at: int) -> None:
        if at == 2:
            for process in core_of_wandb():
                killed.append(process)
                os.kill(process, number)
        original(self, at)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy, *CHECKPOINTED, "wandb.mode=offline")
    assert killed
    for process in killed:
        os.kill(process, signal.SIGKILL)
    assert code == 0
    assert_same_run(run, whole)
    assert ["W&B failed" in message for message in warnings_in(caplog)] == [True]
    caplog.clear()
    monkeypatch.setattr(Trainer, "_step", original)
    code, run = cli(*toy, "wandb.mode=offline")
    assert code == 0
    assert not warnings_in(caplog)
    assert list(run.glob("wandb/offline-run-*/files/media/html/tables/*.html"))


def test_wandb_that_cannot_start(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from wandb.sdk.lib.service import service_process

    wandb_teardown()
    monkeypatch.setattr(service_process, "get_core_path", lambda: "/bin/false")
    code, run = cli(*toy, "wandb.mode=offline")
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert ["W&B failed" in message for message in warnings_in(caplog)] == [True]


def warnings_in(caplog: Any) -> list[str]:
    """What a user sees; W&B's own logger is silent."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("experiments")]


def wandb_teardown() -> None:
    """End W&B's process, so that the next run starts one."""
    import wandb

    wandb.teardown()


@pytest.mark.long
def test_a_sweep_with_one_job_of_each_kind(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Each ends in its own way and costs no other; the same command then does what is left."""
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    kinds = ["sound", "nan", "disk", "memory", "removed", "bug", "signal", "waits"]
    original = Trainer._step
    healthy = False

    def step(self: Trainer, number: int) -> None:
        import resource

        kind = kinds[self.settings.seed]
        if number == 3 and not healthy:
            if kind == "disk":
                limits = resource.getrlimit(resource.RLIMIT_FSIZE)
                FAULTS["full_disk"](self.recorder.directory, size=0)
                try:
                    original(self, number)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            elif kind == "memory":
                torch.empty(2**60)
            elif kind == "removed":
                FAULTS["removed"](self.recorder.directory)
            elif kind == "bug":
                raise ZeroDivisionError("not mine")
            elif kind == "signal":
                signal.raise_signal(signal.SIGTERM)
        original(self, number)

    def gradients(self: Engine, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        loss, balance = of_step(self, number)
        is_gone = kinds[self.settings.seed] == "nan" and number == 4
        return (loss * math.nan if is_gone else loss), balance

    of_step = Engine.gradients
    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Engine, "gradients", gradients)
    folder = tmp_path / "sweep"
    seeds = "seed=" + ",".join(map(str, range(len(kinds))))
    command = ["-m", *toy, *CHECKPOINTED, seeds, f"hydra.sweep.dir={folder}"]
    assert cli_module.main(command) == 143
    table = pd.read_csv(folder / "runs.csv").set_index("seed")
    assert {kinds[seed]: status for seed, status in table["status"].items()} == {
        "sound": "finished",
        "nan": "diverged",
        "disk": "failed",
        "memory": "failed",
        "removed": "failed",
        "bug": "failed",
        "signal": "interrupted",
    }
    reasons = {kinds[seed]: str(reason) for seed, reason in table["reason"].items()}
    assert "File too large" in reasons["disk"]
    assert "Lower trainer.batch_size" in reasons["memory"]
    assert "ZeroDivisionError: not mine" in reasons["bug"]
    output = capsys.readouterr()
    assert "Traceback" not in output.err + output.out
    outcomes = output.out[output.out.rindex("outcome") :]
    for words in ("finished", "diverged", "failed", "interrupted", "not started"):
        assert words in outcomes
    healthy = True
    before = {
        name: content
        for name, content in snapshot(folder).items()
        if "seed0" in name or "seed1" in name
    }
    assert cli_module.main(command) == 0
    after = snapshot(folder)
    assert before.items() <= after.items()
    table = pd.read_csv(folder / "runs.csv").set_index("seed")
    assert table["status"].tolist() == ["finished", "diverged", *["finished"] * 6]
    resumed = {
        summary["seed"]: summary.get("resumed_at_steps")
        for summary in map(summary_of, sorted(folder.glob("*seed*")))
    }
    assert {kinds[seed]: steps for seed, steps in resumed.items()} == {
        "sound": None,
        "nan": None,
        "disk": [2],
        "memory": [2],
        "removed": None,
        "bug": [2],
        "signal": [4],
        "waits": None,
    }
    assert rows_lost(folder) == 0


def rows_lost(folder: Path) -> int:
    """Steps that no row of metrics.csv tells of, in runs that finished after six steps."""
    lost = 0
    for path in folder.glob("*/metrics.csv"):
        if summary_of(path.parent)["status"] == "finished":
            with path.open() as file:
                steps: Sequence[int] = [int(row["step"]) for row in csv.DictReader(file)]
            assert steps == sorted(set(steps))
            lost += len(set(range(7)) - set(steps))
    return lost
