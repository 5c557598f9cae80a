"""Sweeps and their surroundings: the disk, the file system, the clock, other hands."""

import errno
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import run as cli_module
from conftest import Cli, Sweep
from experiments.jobs import results
from experiments.jobs import sweep as sweep_module
from experiments.machine.files import safe_file_name
from experiments.records import directory as directory_module
from experiments.settings.typed import quoted
from experiments.training.loop import Trainer
from hydra_plugins.normscope_sweeper import GridSweeper
from made_runs import finish_at_once, make_run
from same_run import assert_same_run, snapshot, state_of, summary_of

SAVED = ("trainer.steps=6", "trainer.checkpoint_every=2")


def warnings_in(caplog: Any) -> list[str]:
    """What a user sees; other libraries log as well."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("experiments")]


def before_step(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[Trainer], object]
) -> None:
    """Let `act` happen before this step of every run, until the patch is undone."""
    original = Trainer._step

    def step(self: Trainer, at: int) -> None:
        if at == number:
            act(self)
        original(self, at)

    monkeypatch.setattr(Trainer, "_step", step)


def raise_sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


# Checkpoints of jobs


def test_a_job_with_its_result_keeps_no_checkpoint_unless_asked(sweep: Sweep) -> None:
    grid = (*SAVED, "optimizer.lr=1e-3,1e30", "trainer.keep_best=true")
    code, folder = sweep(*grid)
    assert code == 0
    ends = {
        status: path.parent
        for path in folder.glob("*/summary.json")
        for status in [summary_of(path.parent)["status"]]
    }
    assert set(ends) == {"finished", "diverged"}
    assert not list(folder.glob("*/checkpoint*"))
    assert (ends["finished"] / "best.pt").is_file()  # was asked for by another setting
    shutil.rmtree(ends["finished"])
    assert sweep(*grid, "sweep.keep_checkpoints=true")[0] == 0
    (finished,) = folder.glob("*/checkpoint.pt")
    assert finished.parent == ends["finished"]  # the same name
    assert state_of(finished.parent)["step"] == 6
    assert (finished.parent / "checkpoint-4.pt").is_file()


def test_a_job_that_can_go_on_keeps_its_checkpoint(
    sweep: Sweep, cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted or failed, it is resumed where it was, and only then loses it."""
    _, whole = cli(*toy, *SAVED, "threads=1")

    def break_off(trainer: Trainer) -> None:
        if trainer.settings.norm.placement == "post_ln":
            raise ZeroDivisionError
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        before_step(patch, 3, break_off)
        code, folder = sweep(*SAVED, "norm=post_ln,pre_ln")
    assert code == 143
    failed, interrupted = (next(folder.glob(f"{name}-*")) for name in ("post_ln", "pre_ln"))
    assert [summary_of(job)["status"] for job in (failed, interrupted)] == ["failed", "interrupted"]
    assert [state_of(job)["step"] for job in (failed, interrupted)] == [2, 4]
    assert sweep(*SAVED, "norm=post_ln,pre_ln")[0] == 0
    assert summary_of(failed)["resumed_at_steps"] == [2]
    assert not list(folder.glob("*/checkpoint*"))
    assert (interrupted / "gradients.csv").read_bytes() == (whole / "gradients.csv").read_bytes()


@pytest.mark.long
def test_more_steps_for_a_job_without_checkpoint_start_again_and_say_so(
    sweep: Sweep, cli: Cli, toy: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    constant = ("schedule=constant", "trainer.checkpoint_every=2", "threads=1")
    _, whole = cli(*toy, *constant, "trainer.steps=8")
    _, folder = sweep(*constant, "trainer.steps=6")
    (job,) = (path.parent for path in folder.glob("*/summary.json"))
    before = snapshot(job)
    assert cli_module.main([f"resume={job}"]) == 0
    assert snapshot(job) == before  # nothing to do, and no checkpoint is needed for that
    capfd.readouterr()
    assert cli_module.main([f"resume={job}", "trainer.steps=8"]) == 0
    assert "has no checkpoint: starting from the beginning" in capfd.readouterr().out
    assert_same_run(job, whole)
    capfd.readouterr()
    _, other = sweep("trainer.steps=6", folder="other")
    (job,) = (path.parent for path in other.glob("*/summary.json"))
    code, _ = cli("experiment=generate", f"generate.checkpoint={job}", "generate.prompt=ab", *toy)
    error = capfd.readouterr().err
    assert (code, error.count("\n")) == (1, 1)
    assert "with sweep.keep_checkpoints=true" in error


# Locks

OTHERS = [pytest.param(n, marks=pytest.mark.long) for n in (errno.ENOSYS, errno.EOPNOTSUPP)]


@pytest.mark.parametrize("number", [errno.ENOLCK, *OTHERS])
def test_a_file_system_without_locks_costs_one_warning(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any, number: int
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(directory_module, "lockable", {})
    code, run = cli(*toy)
    assert code == 0
    (warning,) = warnings_in(caplog)
    assert "has no locks: nothing keeps a second process out" in warning
    assert not directory_module.is_locked(run)
    assert cli_module.main([f"resume={run}"]) == 0
    assert len(warnings_in(caplog)) == 1


# Names and places

LONG = "-a b [c] {d}=e, (f) 'g' \"h\" 100% %s äöü 愛 #i; &j !k ~l @m +n ^o 'p'"


def test_a_path_of_200_characters_of_every_kind(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    place = tmp_path / LONG / LONG[::-1].strip() / LONG
    assert len(str(place.relative_to(tmp_path))) >= 190
    assert cli_module.main([*toy, *SAVED, f"hydra.run.dir={quoted(str(place / 'run'))}"]) == 0
    assert summary_of(place / "run")["status"] == "finished"
    arguments = ["-m", *toy, "seed=0,1", f"hydra.sweep.dir={quoted(str(place / 'sweep'))}"]
    assert cli_module.main(arguments) == 0
    rows = pd.read_csv(place / "sweep" / "runs.csv")
    assert [summary_of(place / "sweep" / path)["seed"] for path in rows["path"]] == [0, 1]
    before = snapshot(place / "sweep")
    assert cli_module.main(arguments) == 0
    assert snapshot(place / "sweep") == before
    assert not warnings_in(caplog)


def test_backslashes_in_the_path_of_a_sweep() -> None:
    name = "a\\b\\\\c\\'d\\"  # each of the places that Hydra's grammar treats in its own way
    for job_folder in (Path("/x") / name, Path("/x") / name / "y"):
        job = sweep_module.Job((), job_folder / "job")
        place, _ = OverridesParser.create().parse_overrides(GridSweeper()._overrides(job))
        assert place.value() == str(job_folder)


def test_names_of_jobs_fit_file_systems_that_allow_143_bytes() -> None:
    assert safe_file_name("norm=post_ln/x y") == "norm_post_ln_x_y"
    assert safe_file_name("a" * 200) == "a" * 80  # as in earlier versions
    for letter in ("é", "愛", "\U00010400"):
        name = safe_file_name("a" + letter * 200)
        assert name == "a" + letter * (len(name) - 1)
        assert 76 <= len(name.encode()) <= 80
    values = {"norm": {"placement": "pre_ln"}, "seed": 2**63 - 1}
    override = "data.path=" + "愛" * 200
    name = sweep_module.name_job(values, [override], ["data.path"])
    assert len(name.encode()) <= 143


def test_outputs_may_be_a_link_and_jobs_too(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under an odd time zone."""
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    monkeypatch.setenv("TZ", "<weird zone>-99:99/..//")
    time.tzset()
    try:
        here, disk = tmp_path / "here", tmp_path / "disk"
        here.mkdir()
        disk.mkdir()
        (here / "outputs").symlink_to(disk)
        monkeypatch.chdir(here)
        monkeypatch.setattr(cli_module, "launch_job", finish_at_once)
        assert cli_module.main(["-m", *toy, "seed=0,1"]) == 0
        (folder,) = disk.iterdir()
        job = next(folder.glob("*seed1*"))
        job.rename(tmp_path / "elsewhere")
        job.symlink_to(tmp_path / "elsewhere")
        before = snapshot(tmp_path / "elsewhere")
        assert cli_module.main(["-m", *toy, "seed=0,1"]) == 0
        assert snapshot(tmp_path / "elsewhere") == before
        assert pd.read_csv(folder / "runs.csv")["seed"].tolist() == [0, 1]
        assert cli_module.main([*toy]) == 0
        assert len(list(disk.glob("*-*-*/*/summary.json"))) == 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_folder_that_cannot_be_written_costs_one_line(
    toy: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    place = Path("/proc/self/fdinfo")  # in which root cannot make a file either
    if not place.is_dir():
        pytest.skip("this needs Linux's /proc")
    assert cli_module.main(["-m", *toy, "seed=0,1", f"hydra.sweep.dir={place}"]) == 1
    output = capfd.readouterr()
    assert output.err.count("\n") == 1
    expected = f"error: hydra.sweep.dir='{place}' is not valid: cannot be written: "
    assert output.err.startswith(expected)
    assert output.out == ""


# Other hands


def test_a_sweep_moved_and_copied_with_its_locks_goes_on(
    sweep: Sweep,
    cli: Cli,
    toy: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda run: run.settings.seed == 1 and raise_sigterm())
        code, folder = sweep(*SAVED, "seed=0,1")
    assert code == 143
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(folder, copy)
    folder.rename(moved)
    assert all((job / ".lock").is_file() for job in copy.glob("*seed*"))
    finished = summary_of(next(copy.glob("*seed0*")))
    assert sweep(*SAVED, "seed=0,1", folder="copy")[0] == 0
    assert pd.read_csv(copy / "runs.csv")["status"].tolist() == ["finished"] * 2
    assert summary_of(next(copy.glob("*seed0*"))) == finished
    resumed = next(copy.glob("*seed1*"))
    assert summary_of(resumed)["resumed_at_steps"] == [4]
    _, whole = cli(*toy, *SAVED, "seed=1", "threads=1")
    assert (resumed / "gradients.csv").read_bytes() == (whole / "gradients.csv").read_bytes()
    for job in pd.read_csv(moved / "runs.csv")["path"]:  # written before it was moved
        assert (moved / job / "summary.json").is_file()


def test_paths_in_runs_csv_are_those_of_nested_and_oddly_named_runs(tmp_path: Path) -> None:
    names = ["a", "deep/er/run", "-x", "=1+1", "with space/b"]
    for seed, name in enumerate(names):
        make_run(tmp_path, name, seed=seed)
    results.write_runs_csv(tmp_path)
    table = pd.read_csv(tmp_path / "runs.csv")
    found = {row.seed: tmp_path / row.path for row in table.itertuples()}
    for seed, name in enumerate(names):
        assert found[seed].samefile(tmp_path / name)
    assert list(table)[:2] == ["name", "path"]


def test_a_copy_of_a_job_is_not_taken_for_it(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_module, "launch_job", finish_at_once)
    _, folder = sweep("seed=0")
    (job,) = (path.parent for path in folder.glob("*/summary.json"))
    for name in ("a-backup-", "z-backup-"):
        copy = folder / (name + job.name)
        shutil.copytree(job, copy)
        (copy / "summary.json").write_text('{"status": "failed"}')
    before = snapshot(folder)
    sweep("seed=0")
    after = snapshot(folder)
    assert {name for name in after if after[name] != before.get(name)} <= {"runs.csv"}


def test_a_job_whose_directory_is_removed_has_failed(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        before_step(patch, 1, lambda run: run.settings.seed or remove(run.recorder.directory))
        code, folder = sweep("seed=0,1")
    assert code == 1
    rows = pd.read_csv(folder / "runs.csv").set_index("seed")
    assert rows["status"].to_dict() == {0: "failed", 1: "finished"}
    assert "was removed while the run went on" in rows.loc[0, "reason"]
    assert "Traceback" not in capfd.readouterr().err
    assert sweep("seed=0,1")[0] == 0
    assert set(pd.read_csv(folder / "runs.csv")["status"]) == {"finished"}


def test_a_clock_that_goes_back_between_jobs(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By a year, each time that somebody asks: neither durations nor what is left are negative."""
    now, years = time.time, iter(range(1, 1000))
    monkeypatch.setattr(time, "time", lambda: now() - 365 * 86400 * next(years))
    monkeypatch.setattr(cli_module, "launch_job", finish_at_once)
    assert sweep("seed=0,1,2")[0] == 0
    output = capfd.readouterr().out
    assert output.count(" left)") == 2
    assert "(-" not in output
    assert ": -" not in output
