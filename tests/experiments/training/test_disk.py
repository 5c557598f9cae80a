"""What runs take on the disk, predicted and measured."""

import logging
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import run as cli_module
from configs import settings_of
from conftest import Cli, Sweep
from experiments.machine.console import size_text
from experiments.training import disk
from experiments.training.checkpoint import checkpoints_in
from made_runs import finish_at_once

NORMS = ("pre_ln", "post_ln")
Usage = namedtuple("Usage", "total used free")
WITHIN = 0.25  # as docs/sweeps.md says


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "options",
    [
        ("trainer.steps=30", "trainer.checkpoint_every=10"),
        ("trainer.steps=2", "model.n_layers=6", "trainer.mixing=true"),
        pytest.param(
            ("trainer.steps=60", "trainer.log_every=7", "trainer.probe_every=20", "optimizer=sgd"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("trainer.steps=90", "trainer.probe_every=null", "trainer.end_probes=false"),
            marks=pytest.mark.long,
        ),
        ("trainer.steps=20", "trainer.checkpoint_every=5", "trainer.keep=3", "model.n_layers=5"),
        (
            "trainer.precision=float64",
            "trainer.keep_best=true",
            "optimizer.momentum=null",
            "optimizer=sgd",
        ),
        ("experiment=init_gradients", "init_gradients.seeds=6", "seed=1000"),
        ("trainer.steps=40", "model.experts.count=6", "trainer.probe_every=4"),
    ],
    ids=[
        "checkpoints",
        "mixing",
        "coarse",
        "no_probes",
        "deeper",
        "float64",
        "untrained",
        "experts",
    ],
)
def test_predicted_bytes_are_those_on_the_disk(
    cli: Cli, toy: tuple[str, ...], options: tuple[str, ...]
) -> None:
    code, run = cli(*toy, "pictures=false", *options)
    assert code == 0
    experiment = [option for option in options if option.startswith("experiment=")]
    rest = [option for option in options if not option.startswith("experiment=")]
    (needs,) = disk.predict_disk([settings_of(*experiment, *toy, "pictures=false", *rest)])
    checkpoints = checkpoints_in(run)
    assert needs.checkpoints == len(checkpoints) * needs.checkpoint
    saved = sum(path.stat().st_size for path in checkpoints)
    assert needs.checkpoints == pytest.approx(saved, rel=WITHIN)
    assert needs.records == pytest.approx(bytes_in(run) - saved, rel=WITHIN)


def test_a_checkpoint_of_the_default_size_is_predicted_well() -> None:
    """Of a run that was measured: 4,109,056 parameters, three numbers of four bytes for each."""
    (needs,) = disk.predict_disk([settings_of("wandb.mode=disabled", "pictures=false")])
    assert needs.checkpoint == pytest.approx(49_455_077, rel=0.01)
    assert needs.checkpoints == 2 * needs.checkpoint
    assert needs.records == pytest.approx(1_370_000, rel=0.1)


def test_a_sweep_says_what_it_will_take(
    sweep: Sweep, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    free = 3 * 2**30
    monkeypatch.setattr(cli_module, "launch_job", finish_at_once)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
    long = ("trainer.steps=20", "trainer.checkpoint_every=5")
    grid = (*long, "norm=" + ",".join(NORMS))
    (one, other) = disk.predict_disk([settings_of(*toy, *long, f"norm={n}") for n in NORMS])
    sweep(*grid, "activation=gelu,rellu")
    said = capfd.readouterr().out.splitlines()[0]
    records, most = (
        one.records + other.records,
        max(n.checkpoints + n.checkpoint for n in (one, other)),
    )
    needed = size_text(records + most)  # those with a wrong activation fail and take nothing
    assert said.endswith(f": 4 to run; about {needed} on disk, 3 GiB free")
    sweep(*grid, "sweep.keep_checkpoints=true", folder="kept")
    kept = one.checkpoints + other.checkpoints
    needed = size_text(records + kept + max(one.checkpoint, other.checkpoint))
    assert f"; about {needed} on disk, 3 GiB free" in capfd.readouterr().out.splitlines()[0]
    assert not caplog.messages
    sweep(*grid, folder="kept")
    assert "on disk" not in capfd.readouterr().out  # nothing is left to run
    free = 100_000
    sweep(*long, "seed=3", folder="kept")
    assert "the sweep is predicted to take more of the disk than is free" in caplog.messages


def test_a_run_whose_checkpoints_take_much_of_the_disk_says_so(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    free = {"bytes": 10**9}
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(0, 0, free["bytes"]))
    assert cli(*toy)[0] == 0
    assert "on disk" not in capfd.readouterr().out
    (needs,) = disk.predict_disk([settings_of(*toy)])
    free["bytes"] = round(needs.checkpoint * 1.5)
    with caplog.at_level(logging.WARNING):
        assert cli(*toy)[0] == 0
        assert "checkpoints take about" in capfd.readouterr().out
        assert not caplog.messages
        free["bytes"] = needs.checkpoint
        code, run = cli(*toy)
        assert code == 0
        assert "trainer.keep=1 keeps one alone" in caplog.text
        caplog.clear()
        assert cli_module.main([f"resume={run}"]) == 0
        assert not caplog.messages
