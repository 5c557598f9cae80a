"""Sweeps: what runs, what is skipped, what is printed, and that jobs do not touch each other."""

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

import run as cli_module
from children import CONTEXT, Child, Fault, call
from configs import settings_of
from conftest import ROOT, Cli, Sweep
from experiments.analysis.runs import find_runs
from experiments.jobs import launch
from experiments.jobs import sweep as sweep_module
from experiments.jobs.check import checked_settings
from experiments.machine import limits
from experiments.settings.compose import to_values
from made_runs import finish_at_once
from same_run import wandb_records

CONF = ROOT / "conf"
GRIDS = {
    path.stem: OmegaConf.to_container(params, resolve=True)
    for path in (CONF / "experiment").glob("*.yaml")
    if (params := OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params")) is not None
}
# Columns of runs.csv that no two runs share.
TIMED = ["peak_memory_mb", "tokens_per_s", "training_seconds", "seconds"]


def command(toy: Sequence[str], folder: Path, *arguments: str) -> list[str]:
    place = f"hydra.sweep.dir={folder}"
    return ["-m", *toy, place, *arguments]


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "runs.csv")


def written(folder: Path) -> dict[str, int]:
    """When each job of a sweep last wrote its summary."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}


def status_of(directory: Path) -> str:
    return str(json.loads((directory / "summary.json").read_text())["status"])


def test_every_combination_runs_once_and_is_a_row(sweep: Sweep) -> None:
    code, folder = sweep("seed=range(0,2)", "norm=pre_ln,post_ln")
    assert code == 0
    rows = table(folder)
    assert len(rows) == len(written(folder)) == 4
    assert set(rows["status"]) == {"finished"}
    swept = rows[["norm.placement", "seed"]]
    assert not swept.duplicated().any()
    for name in rows["name"]:
        run = folder / name
        summary = json.loads((run / "summary.json").read_text())
        row = rows.set_index("name").loc[name]
        assert row["val_loss"] == pytest.approx(summary["val_loss"], rel=1e-8)
        gradients = pd.read_csv(run / "gradients.csv")
        norms = gradients.query("component == 'block' and stat == 'grad_norm'")
        first, last = norms.query("step == 0"), norms.query("step == 2")
        for moment, part in (("initial", first), ("final", last)):
            by_layer = part.set_index("layer")["value"]
            found = [row[f"grad_norm_{end}_block_{moment}"] for end in ("first", "last")]
            assert found == pytest.approx([by_layer[0], by_layer[1]], rel=1e-8)
        assert row["norm.placement"] in name
        assert f"seed{row['seed']}" in name


def test_the_same_command_skips_what_has_an_answer(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_module, "launch_job", finish_at_once)
    _, folder = sweep("seed=0,1")
    before = written(folder)
    capsys.readouterr()
    silent = ("wandb.tags=[x]", "trainer.checkpoint_every=1", "data.cache_dir=elsewhere")
    code, _ = sweep("seed=0,1", *silent)
    assert code == 0
    assert written(folder) == before
    output = capsys.readouterr().out
    assert "2 skipped" in output
    assert "skipped, finished before     2" in output
    assert not Path("elsewhere").exists()
    sweep("seed=0,1,2")
    assert before.items() < written(folder).items()
    assert len(written(folder)) == 3
    sweep("seed=0,1", "optimizer.lr=5e-4")  # changes the results: other jobs
    assert len(written(folder)) == 5
    sweep("seed=0,1", "optimizer.lr=5e-4,1e-3")  # equal settings, whatever else is swept
    assert len(written(folder)) == 5


def test_rerun(sweep: Sweep) -> None:
    grid = ("seed=0", "activation=relu,rellu")
    code, folder = sweep(*grid)
    assert code == 1
    first = written(folder)
    failed = {name for name in first if status_of(folder / name) == "failed"}
    assert len(failed) == 1
    code, _ = sweep(*grid, "sweep.rerun=failed")
    assert code == 1
    second = written(folder)
    assert {name for name in first if second[name] != first[name]} == failed
    sweep(*grid, "activation=relu,gelu", "sweep.rerun=failed")
    assert written(folder) == second  # gelu never ran: it did not fail
    foreign = folder / next(iter(set(first) - failed)) / "stale.txt"
    foreign.write_text("of the attempt before")
    sweep(*grid, "sweep.rerun=all")
    third = written(folder)
    assert all(third[name] != second[name] for name in first)
    assert not foreign.exists()


def test_bad_input_of_the_sweep_itself_costs_one_line(
    sweep: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (("sweep.rerun=some",), "sweep.rerun='some' is not valid: Choose from: all, failed"),
        (("norm=pre_ln,postln",), "norm='postln' is not valid: did you mean 'post_ln'?"),
        (("trainer.steps=3,abc",), "trainer.steps='abc'"),
        (("model.n_layr=1,2",), "did you mean 'model.n_layers'?"),
        (("optimizer.momentum=0.5,0.9",), "optimizer.momentum=0.5 is not valid: optimizer=adamw"),
        (("model.n_heads=3",), "model.n_heads=3 is not valid: must divide model.emb_dim=16"),
        (("model.experts.active=1,2",), "has no effect: it needs model.experts.count above 0"),
    ):
        code, folder = sweep("seed=0,1", *arguments)
        error = capfd.readouterr().err
        assert code == 1
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert words in error
        assert not list(folder.glob("*/summary.json"))  # nothing ran


def test_a_failing_and_a_diverging_job_in_the_middle(
    sweep: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both are recorded with their reasons, the rest run, and only the failure counts."""
    code, folder = sweep("activation=rellu,relu", "optimizer.lr=1e-3,1e30", "seed=0")
    assert code == 1
    rows = table(folder)
    assert rows["status"].value_counts().to_dict() == {"failed": 2, "finished": 1, "diverged": 1}
    failed, diverged = (rows[rows["status"] == status] for status in ("failed", "diverged"))
    assert failed["reason"].str.contains("activation='rellu' is not valid").all()
    assert diverged["reason"].str.contains("was not finite at step").all()
    assert diverged["diverged_at_step"].notna().all()
    output = capfd.readouterr()
    assert output.err.count("failed: ") == 2
    assert "Traceback" not in output.err
    for line in (
        r"finished +1\n",
        r"diverged \(not finite\) +1\n",
        r"failed +2\n",
    ):
        assert re.search(line, output.out)
    assert sweep("activation=relu", "optimizer.lr=1e-3,1e30", "seed=0")[0] == 0


def test_a_job_in_a_sweep_equals_the_job_alone(sweep: Sweep, toy: tuple[str, ...]) -> None:
    """Whatever ran before in the process: seeds, hooks, figures, environment."""
    before = dict(os.environ)
    _, folder = sweep("seed=3", "norm=no_norm,post_ln", "wandb.mode=offline")
    assert dict(os.environ) == before
    (job,) = folder.glob("post_ln-*")
    alone = folder.parent / "alone"
    cli_module.main([*toy, "seed=3", "norm=post_ln", "threads=1", f"hydra.run.dir={alone}"])
    assert (job / "gradients.csv").read_bytes() == (alone / "gradients.csv").read_bytes()
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


@pytest.mark.long
def test_series_equals_parallel(sweep: Sweep) -> None:
    """Bit for bit, at a size where two threads would add in another order than one."""
    grid = ("seed=0", "norm=pre_ln,post_ln", "model.emb_dim=64", "trainer.batch_size=16")
    code, series = sweep(*grid, folder="series")
    assert code == 0
    code, parallel = sweep(*grid, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", folder="both")
    assert code == 0
    names = sorted(written(series))
    assert names == sorted(written(parallel))
    assert len(names) == 2
    for name in names:
        for file in ("gradients.csv", "parameters.csv", "sample.txt"):
            assert (series / name / file).read_bytes() == (parallel / name / file).read_bytes()
        threads = json.loads((parallel / name / "summary.json").read_text())["versions"]["threads"]
        assert threads == "1"
    drop = [*TIMED]
    pd.testing.assert_frame_equal(
        table(series).drop(columns=drop), table(parallel).drop(columns=drop)
    )


@pytest.mark.parametrize(("name", "value"), [("n_jobs", "0"), ("n_jobs", "1e2")])
def test_a_number_of_workers_that_cannot_be(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    code, folder = sweep("seed=0,1", "hydra/launcher=joblib", f"hydra.launcher.{name}={value}")
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"hydra.launcher.{name}={value}" in line
    assert not list(folder.glob("*/summary.json"))


@pytest.mark.parametrize(
    ("cores", "more", "workers"),
    [
        (64, ("seed=0,1,2",), 3),  # no more than there are jobs
        (5, ("seed=0,1,2", "threads=2"), 2),
        (64, ("seed=0,1,2", "hydra.launcher.n_jobs=1000000"), 3),
        (1, ("seed=0,1",), 1),
    ],
)
def test_as_many_workers_as_cores_and_jobs(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, cores: int, more: tuple[str, ...], workers: int
) -> None:
    """A single one is no worker: the jobs run here."""
    launchers: list[DictConfig] = []

    def instead(self: Plugins, *, config: DictConfig, **_: object) -> SimpleNamespace:
        launchers.append(config.hydra.launcher)
        return SimpleNamespace(launch=lambda *_, **__: None)

    monkeypatch.setattr(limits, "usable_cores", lambda: cores)
    monkeypatch.setattr(Plugins, "instantiate_launcher", instead)
    code, _ = sweep("hydra/launcher=joblib", *more)
    assert code == 1  # nothing was launched
    (launcher,) = launchers
    assert launcher.get("n_jobs", 1) == workers
    assert launcher["_target_"].endswith("JoblibLauncher" if workers > 1 else "BasicLauncher")


def test_a_sweep_whose_jobs_did_not_start_has_not_succeeded(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no process can be started")

    monkeypatch.setattr(
        Plugins, "instantiate_launcher", lambda self, **_: SimpleNamespace(launch=fail)
    )
    monkeypatch.setattr(limits, "usable_cores", lambda: 2)
    code, _ = sweep("hydra/launcher=joblib", "seed=0,1")
    assert code == 1
    assert "not started" in capsys.readouterr().out


def test_threads_of_a_job_can_be_set(sweep: Sweep) -> None:
    import torch

    before = torch.get_num_threads()
    _, folder = sweep("seed=0", "threads=2")
    (summary,) = folder.glob("*/summary.json")
    assert json.loads(summary.read_text())["versions"]["threads"] == "2"
    assert torch.get_num_threads() == before


@pytest.mark.long
def test_killed_in_mid_sweep_and_taken_up_again(
    sweep: Sweep, toy: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL loses the job in hand at most; the end is that of an uninterrupted sweep."""
    grid = ("seed=0,1", "trainer.steps=9", "trainer.checkpoint_every=2")
    folder = tmp_path / "killed"
    fault = Fault("signals", 5, {"signals": [signal.SIGKILL]}, skip=1)
    code, _ = call(tmp_path, *command(toy, folder, *grid), fault=fault)
    assert code == -signal.SIGKILL
    (job,) = folder.glob("*-seed1-*")
    assert status_of(job) == "running"
    finished = {name: when for name, when in written(folder).items() if folder / name != job}
    assert len(finished) == 1
    assert sweep(*grid, folder="killed")[0] == 0
    assert "1 to run, 1 skipped" in capsys.readouterr().out
    assert finished.items() <= written(folder).items()
    _, whole = sweep(*grid, folder="whole")
    pd.testing.assert_frame_equal(
        table(folder).drop(columns=TIMED), table(whole).drop(columns=TIMED)
    )
    for name in written(whole):
        one, other = (place / name / "gradients.csv" for place in (folder, whole))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.long
def test_two_sweeps_at_once_in_one_folder_share_the_work(
    toy: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    grid = ("seed=0,1,2,3", "trainer.steps=50")
    barrier = CONTEXT.Barrier(2)
    arguments = command(toy, folder, *grid)
    both = [Child(tmp_path, *arguments, barrier=barrier, pictures=True) for _ in range(2)]
    ended = [child.wait() for child in both]
    assert [code for code, _ in ended] == [0, 0], ended
    assert all("Traceback" not in output for _, output in ended)
    assert (folder / "report.html").is_file()
    assert len(list(folder.glob("*/plots/loss.png"))) == 4
    rows = table(folder)
    assert rows["status"].tolist() == ["finished"] * 4
    for name in rows["name"]:  # each has one run's rows, whole
        metrics = pd.read_csv(folder / name / "metrics.csv")
        assert metrics["step"].tolist() == sorted(set(metrics["step"]))
        assert metrics["step"].iloc[-1] == 50


def test_a_job_in_hand_elsewhere_is_left_to_it(sweep: Sweep, toy: tuple[str, ...]) -> None:
    from filelock import FileLock

    _, folder = sweep("seed=0")
    (job,) = folder.glob("*-seed0-*")
    summary = json.loads((job / "summary.json").read_text())
    (job / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    before = written(folder)
    with FileLock(job / ".lock"):
        code, _ = sweep("seed=0")
    assert code == 0
    assert written(folder) == before
    sweep("seed=0")  # the lock is gone: its process died
    assert status_of(job) == "finished"


def test_ctrl_c_stops_the_sweep_with_its_table(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.training.loop import Trainer

    steps = iter(range(100))

    def interrupted(self: Trainer, step: int) -> None:
        if next(steps) == 4:  # in the second job
            raise KeyboardInterrupt
        original(self, step)

    original = Trainer._step
    monkeypatch.setattr(Trainer, "_step", interrupted)
    code, folder = sweep("seed=0,1,2")
    assert code == 130
    assert table(folder)["status"].tolist() == ["finished", "interrupted"]
    output = capsys.readouterr().out
    assert "not started     1" in output
    monkeypatch.undo()


def test_a_lost_worker_costs_its_own_job_alone(
    sweep: Sweep, toy: tuple[str, ...], tmp_path: Path
) -> None:
    """A worker that is killed, as by the kernel when memory runs out."""
    folder = tmp_path / "lost"
    jobs = [sweep_module.Job((f"seed={n}",), folder / f"job-seed{n}-{n:08}") for n in range(3)]
    folder.mkdir()
    launched: list[list[str]] = []

    def launch(chosen: Sequence[sweep_module.Job]) -> None:
        launched.append([job.name for job in chosen])
        for job in chosen:
            job.directory.mkdir(exist_ok=True)
            dies = job is jobs[1] and len(launched) == 1
            status = {"status": "running" if dies else "finished"}
            (job.directory / "summary.json").write_text(json.dumps(status))
            if dies:
                raise RuntimeError("a worker was killed")

    code = sweep_module.Sweep(folder, jobs, None, parallel=True, threads=1).run(launch)
    assert code == 1
    assert launched == [[job.name for job in jobs], [jobs[2].name]]
    assert [status_of(job.directory) for job in jobs] == ["finished", "failed", "finished"]


def test_wandb_groups_the_runs_of_a_sweep(sweep: Sweep) -> None:
    _, folder = sweep("seed=0", "norm=post_ln", "wandb.mode=offline", "wandb.tags=[mine]")
    (job,) = folder.glob("*-seed0-*")
    started = next(record["run"] for record in wandb_records(job) if record["type"] == "run")
    assert re.fullmatch("post_ln-[0-9a-f]{6}", started["run_group"])
    assert started["job_type"] == "train"
    assert started["display_name"] == "post_ln-seed0"
    assert {"mine", folder.name, "norm=post_ln"} <= set(started["tags"])


def test_a_group_of_wandb_is_an_arm_whatever_its_seed(tmp_path: Path) -> None:
    def group(*overrides: str, name: str) -> str | None:
        return launch.sweep_job_settings(
            settings_of(*overrides), overrides, tmp_path / f"{name}-12345678"
        ).wandb.group

    one = group("norm=post_ln", "seed=0", name="post_ln-lr1-seed0")
    assert one == group("norm=post_ln", "seed=1", name="post_ln-lr1-seed1")
    assert one != group("norm=post_ln", "seed=0", "trainer.steps=7", name="post_ln-lr1-seed0")
    assert group("wandb.group=own", name="pre_ln-seed0") == "own"
    assert len(group(name=f"{'long' * 50}-seed0") or "") == 128  # the most that W&B takes


@pytest.mark.long  # those that the README names run at toy size in test_cli.py
@pytest.mark.parametrize("experiment", sorted(GRIDS))
def test_grids_compose_and_run_at_toy_size(sweep: Sweep, experiment: str) -> None:
    params = GRIDS[experiment]
    firsts = [f"{name}={str(values).split(',')[0]}" for name, values in params.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choice in firsts:
            checked_settings(
                to_values(compose("config", overrides=[f"experiment={experiment}", choice]))
            )
    two = [name for name in params if name not in ("seed", "norm")][:1] or ["norm"]
    shown = [f"{name}={','.join(str(params[name]).split(',')[:2])}" for name in two]
    code, folder = sweep(f"experiment={experiment}", *firsts, *shown)
    assert code == 0
    rows = table(folder)
    assert len(rows) == 2
    assert set(rows["status"]) == {"finished"}


def test_a_sweep_has_the_same_folder_for_the_same_question(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)

    def finish(config: Any, overrides: Sequence[str], directory: Path, bars: bool) -> int:
        (directory / "summary.json").write_text('{"status": "finished"}')
        return 0

    monkeypatch.setattr(cli_module, "launch_job", finish)
    grid = ("experiment=init_gradients", "norm=pre_ln,post_ln")
    for arguments in (
        (*grid, "seed=0"),
        ("seed=0,1", *grid),  # more of the same, in another order
        (*grid, "seed=2"),
        (*grid, "seed=0", "wandb.project=x"),  # what is logged where
        (*grid, "seed=0", "model.n_layers=3"),  # another question
    ):
        assert cli_module.main(["-m", *toy, *arguments]) == 0
    folders = sorted(path for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert [len(list(folder.glob("*/summary.json"))) for folder in folders] in ([2, 6], [6, 2])
    assert all(folder.name.startswith("init_gradients-norm-") for folder in folders)


def test_values_beside_one_of_a_grid_are_for_its_jobs_alone(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates of each optimizer; what is typed replaces them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    made = list[tuple[str, float]]()

    def finish(values: Any, overrides: Sequence[str], directory: Path, bars: bool) -> int:
        made.append((values["optimizer"]["name"], values["optimizer"]["lr"]))
        return finish_at_once(values, overrides, directory, bars)

    monkeypatch.setattr(cli_module, "launch_job", finish)
    command = ["-m", *toy, "experiment=optimizers", "seed=0", "norm=pre_ln", "trainer.clip=1"]
    assert cli_module.main([*command, "optimizer=sgd,adamw"]) == 0
    rates = {"sgd": [0.03, 0.1, 0.3, 1.0], "adamw": [3e-4, 1e-3, 3e-3, 1e-2]}
    assert made == [(name, rate) for name, each in rates.items() for rate in each]
    made.clear()
    assert cli_module.main([*command, "optimizer=sgd,muon", "optimizer.lr=0.1"]) == 0
    assert made == [("sgd", 0.1), ("muon", 0.1)]


def test_a_text_is_the_same_wherever_it_lies(
    toy: tuple[str, ...], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sweep and one job for it, and one arm; another text is another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    copy, other = tmp_path / "copy.txt", tmp_path / "other.txt"
    copy.write_bytes(text_file.read_bytes())
    other.write_text("another text of no more than a few words\n" * 90)
    grid = ["-m", *toy, "seed=0"]
    assert cli_module.main(grid) == 0
    (folder,) = (tmp_path / "outputs").iterdir()
    before = written(folder)
    for path in ("copy.txt", copy):
        assert cli_module.main([*grid, f"data.path={path}"]) == 0
    assert written(folder) == before
    assert list((tmp_path / "outputs").iterdir()) == [folder]
    both = tmp_path / "both"
    command = ["-m", *toy, f"data.path={copy},{text_file},{other}", f"hydra.sweep.dir={both}"]
    assert cli_module.main(command) == 0
    rows = table(both)
    assert sorted(rows["data.path"]) == [str(copy), str(other)]
    shutil.copytree(folder, both / "again")
    names = {run.setting("data.path") for run in find_runs(both)}
    assert names == {str(text_file), str(other)}  # that of the first run that is found


def test_a_text_that_changes_during_a_sweep_costs_its_jobs_one_line(
    sweep: Sweep, toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven\n" * 90)
    original = cli_module.launch_job

    def launch_job(values: Any, *arguments: Any, **more: Any) -> int:
        code = original(values, *arguments, **more)
        text.write_text("seven six five four three two one\n" * 91)
        return code

    monkeypatch.setattr(cli_module, "launch_job", launch_job)
    code, folder = sweep("seed=0,1", f"data.path={text}")
    assert code == 1
    assert sorted(table(folder)["status"]) == ["failed", "finished"]
    assert "was changed while the sweep ran; run the same command again" in capsys.readouterr().err


def test_time_left_is_in_few_words() -> None:
    texts = [sweep_module.duration(seconds) for seconds in (5, 89, 600, 7200)]
    assert texts == ["5 s", "89 s", "10 min", "2.0 h"]


def test_runs_csv_takes_a_small_share_of_a_sweep_of_many_short_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of a second each; runs.csv takes 2 ms for each run that is there."""
    clock, ended, writing = [0.0], [0], [0.0]

    def write(folder: Path) -> None:
        clock[0] += 0.002 * ended[0]
        writing[0] += 0.002 * ended[0]

    def launch(jobs: Sequence[sweep_module.Job]) -> None:
        clock[0] += 1.0
        ended[0] += 1

    monkeypatch.setattr(sweep_module, "write_runs_csv", write)
    monkeypatch.setattr(sweep_module.time, "monotonic", lambda: clock[0])
    jobs = [sweep_module.Job((), tmp_path / str(number)) for number in range(1000)]
    sweep_module.Sweep(tmp_path, jobs, None, False, 1)._run_in_series(launch)
    assert ended[0] == 1000
    assert 0.03 < writing[0] / clock[0] < 0.05


def test_a_run_by_itself_has_a_page_and_a_job_has_that_of_its_sweep(
    cli: Cli, sweep: Sweep, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Path] = []
    monkeypatch.setattr(launch, "write_page", pages.append)
    code, run = cli(*toy, "trainer.end_probes=false")
    assert (code, pages) == (0, [run])
    assert cli(*toy, "pictures=false", "trainer.end_probes=false")[0] == 0
    assert cli("experiment=activations")[0] == 0  # it trains nothing
    assert sweep("trainer.steps=1", "trainer.end_probes=false", "seed=0")[0] == 0
    assert pages == [run]
