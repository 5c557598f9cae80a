"""A run that goes on is the run that was never cut."""

import functools
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

import run as cli_module
from children import PATIENCE, Fault, call
from conftest import ROOT, TOY, Cli
from experiments.jobs import launch
from experiments.jobs import sweep as sweep_module
from experiments.training.checkpoint import read_checkpoint, write_checkpoint
from experiments.training.loop import Trainer
from normscope import Probes
from same_run import assert_same_run, snapshot, state_of, summary_of

SIX = ("trainer.steps=6", "trainer.checkpoint_every=2", "schedule.warmup_steps=2")

# Arithmetic that differs from step to step in what it draws, accumulates and remembers.
VARIANTS: dict[str, tuple[str, ...]] = {
    "adamw": (),
    "dropout": ("model.drop_rate=0.2", "trainer.accumulate=2", "norm=post_ln"),
    "sgd": ("optimizer=sgd", "trainer.clip=0.1", "schedule=linear", "trainer.keep_best=true"),
    "coarse": ("trainer.log_every=4", "trainer.probe_every=5", "trainer.eval_every=3"),
    "muon": ("optimizer=muon", "trainer.precision=fp16", "model.feed_forward.gated=true"),
    "bf16": ("trainer.precision=bf16", "tokenizer=gpt2_compact", "norm.kind=rms_norm"),
}
CUTS: list[Any] = [("adamw", cut) for cut in (0, 5)]
CUTS += [pytest.param("adamw", cut, marks=pytest.mark.long) for cut in (1, 2, 3, 4)]
CUTS += [(name, cut) for name in VARIANTS if name != "adamw" for cut in (3,)]

SIGNALS = ("SIGINT", "SIGUSR1")  # that other tests send as well, within this process

Act = Callable[[Trainer], None]


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Act], None]:
    """Let something happen once, before a training step."""

    def arm(number: int, act: Act) -> None:
        original = Trainer._step
        left = [act]

        def step(self: Trainer, at: int) -> None:
            if at == number and left:
                left.pop()(self)
            original(self, at)

        monkeypatch.setattr(Trainer, "_step", step)

    return arm


@pytest.fixture(scope="module")
def runs(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives a finished run of six steps with some options, made once; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    made: dict[tuple[str, ...], Path] = {}
    common = (*TOY, *SIX, "data=text", f"data.path={text_file}", "tokenizer=char")

    def make(*options: str) -> Path:
        if options not in made:
            run = folder / f"whole{len(made)}"
            places = (f"data.cache_dir={folder}/cache", f"hydra.run.dir={run}")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(launch, "draw_pictures", lambda directory: [])
                assert cli_module.main([*common, *places, *options]) == 0
            made[options] = run
        return made[options]

    return make


@pytest.fixture
def cut(tmp_path: Path, runs: Callable[..., Path]) -> Callable[..., Path]:
    """Gives a run that was stopped after five of six steps; its checkpoints are of 5 and 4."""

    def make(*options: str) -> Path:
        original, run = Trainer._step, tmp_path / "cut"
        whole = runs(*options)
        stored = yaml.safe_load((whole / ".hydra" / "overrides.yaml").read_text())

        def step(self: Trainer, at: int) -> None:
            if at == 4:
                signal.raise_signal(signal.SIGTERM)
            original(self, at)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_step", step)
            arguments = [o for o in stored if not o.startswith("hydra.")]
            assert cli_module.main([*arguments, f"hydra.run.dir={run}"]) == 143
        return run

    return make


def stop_with(number: int) -> Act:
    return lambda trainer: signal.raise_signal(number)


def fail(owner: object) -> None:
    raise RuntimeError("the power went")


@pytest.mark.parametrize(("variant", "cut"), CUTS)
def test_resumed_equals_uninterrupted_wherever_it_was_cut(
    cli: Cli,
    toy: tuple[str, ...],
    runs: Callable[..., Path],
    before_step: Any,
    variant: str,
    cut: int,
) -> None:
    whole = runs(*VARIANTS[variant])
    options = (*toy, *SIX, *VARIANTS[variant])
    before_step(cut, stop_with(signal.SIGTERM))
    code, run = cli(*options)
    assert code == 128 + signal.SIGTERM
    assert summary_of(run)["status"] == "interrupted"
    assert state_of(run)["step"] == cut + 1  # the step in hand was finished
    assert cli_module.main([f"resume={run}"]) == 0
    assert summary_of(run)["resumed_at_steps"] == [cut + 1]
    assert_same_run(run, whole)


def test_the_factor_of_fp16_goes_on_where_it_was(
    cli: Cli, toy: tuple[str, ...], before_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been halved, and doubled again after two steps, by then."""
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**40, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    options = (*toy, "trainer.steps=4", "trainer.precision=fp16", "model.drop_rate=0.2")
    _, whole = cli(*options)
    before_step(1, stop_with(signal.SIGTERM))
    _, run = cli(*options)
    assert state_of(run)["scaler"]["scale"] < 2.0**40
    assert cli_module.main([f"resume={run}"]) == 0
    assert_same_run(run, whole)


def test_a_run_that_version_0_4_began_is_resumed(cut: Callable[..., Path], runs: Any) -> None:
    """Its settings had other names, and some of today's it did not have."""
    run = cut("norm=mix_ln", "norm.options.fraction=0.5")

    def as_of_0_4(values: dict[str, Any]) -> dict[str, Any]:
        norm, model = dict(values["norm"]), dict(values["model"])
        others = {"embedding_norm": None, "scale_start": None}
        norm |= {"fraction": norm.pop("options")["fraction"]} | others
        model |= {"ff_ratio": model.pop("feed_forward")["ratio"]}
        model |= {"causal": model.pop("attention")["causal"]}
        del model["position"]
        return values | {"norm": norm, "model": model}

    config = run / ".hydra" / "config.yaml"
    config.write_text(yaml.safe_dump(as_of_0_4(yaml.safe_load(config.read_text()))))
    state = read_checkpoint(run / "checkpoint.pt")
    write_checkpoint(run / "checkpoint.pt", state | {"settings": as_of_0_4(state["settings"])})
    assert cli_module.main([f"resume={run}", "trainer.batch_size=3"]) == 1
    assert cli_module.main([f"resume={run}", "norm.options.fraction=0.25"]) == 1
    assert cli_module.main([f"resume={run}", "~norm.options"]) == 1
    assert cli_module.main([f"resume={run}", "norm.options.fraction=0.5"]) == 0
    assert_same_run(run, runs("norm=mix_ln", "norm.options.fraction=0.5"))


def test_rows_after_the_checkpoint_are_cut_off(
    cli: Cli, toy: tuple[str, ...], runs: Callable[..., Path], before_step: Any
) -> None:
    whole = runs()
    before_step(3, fail)
    code, run = cli(*toy, *SIX)
    assert (code, summary_of(run)["status"]) == (1, "failed")
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == [0, 1, 2]
    assert state_of(run)["step"] == 2
    assert cli_module.main([f"resume={run}"]) == 0
    assert_same_run(run, whole)


def test_cut_in_the_probes_of_the_end(
    cli: Cli, toy: tuple[str, ...], runs: Callable[..., Path], monkeypatch: Any
) -> None:
    """All steps are done: what comes after them is done again."""
    with monkeypatch.context() as patch:
        patch.setattr(Probes, "at_end", lambda self, *_: fail(self))
        code, run = cli(*toy, *SIX)
    assert (code, summary_of(run)["status"], state_of(run)["step"]) == (1, "failed", 6)
    assert cli_module.main([f"resume={run}"]) == 0
    assert_same_run(run, runs())


@pytest.mark.long
def test_cut_again_and_again(cli: Cli, toy: tuple[str, ...], monkeypatch: Any) -> None:
    """Every step is cut short once, whatever it was that failed before."""
    options = (*toy, "trainer.steps=4", "model.drop_rate=0.2", "trainer.checkpoint_every=1")
    _, whole = cli(*options)
    seen: set[int] = set()
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        original(self, number)
        if number not in seen:
            seen.add(number)
            raise OSError("after the step's rows were written")

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*options)
    for _ in range(4):
        assert code == 1
        code = cli_module.main([f"resume={run}"])
    assert (code, seen) == (0, set(range(4)))
    assert summary_of(run)["resumed_at_steps"] == [1, 2, 3]  # and once from the start
    assert_same_run(run, whole)


def test_a_run_cut_before_its_first_checkpoint_starts_again(
    cli: Cli, toy: tuple[str, ...], runs: Callable[..., Path], before_step: Any, capsys: Any
) -> None:
    whole = runs()
    before_step(1, fail)
    code, run = cli(*toy, *SIX)
    assert code == 1
    assert not (run / "checkpoint.pt").exists()
    assert cli_module.main([f"resume={run}"]) == 0
    assert "no checkpoint: starting from the beginning" in capsys.readouterr().out
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.long) for name in SIGNALS)]
)
def test_signals_finish_the_step_and_say_how_to_resume(
    toy: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    number = signal.Signals[name]
    run = tmp_path / "run"
    fault = Fault("signals", 2, {"signals": [number]})
    code, output = call(tmp_path, *toy, *SIX, f"hydra.run.dir={run}", fault=fault)
    assert code == 128 + number
    assert f"{name}: stopping after the current step" in output
    (place,) = re.findall(r"interrupted: continue with python run.py resume=(\S+)", output)
    assert Path(place).resolve() == run
    assert "Traceback" not in output
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == [0, 1, 2]
    assert state_of(run)["step"] == 3
    assert call(tmp_path, f"resume={place}")[0] == 0
    assert summary_of(run)["status"] == "finished"


def test_a_second_signal_stops_at_once(toy: tuple[str, ...], tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = Fault("signals", 3, {"signals": [signal.SIGINT, signal.SIGINT]})
    code, output = call(tmp_path, *toy, *SIX, f"hydra.run.dir={run}", fault=fault)
    assert code == 130
    assert "Traceback" not in output
    assert summary_of(run)["status"] == "interrupted"
    assert state_of(run)["step"] == 2  # no other than the one that was due


def test_the_last_checkpoints_and_the_best_are_kept(cli: Cli, toy: tuple[str, ...]) -> None:
    arguments = ("trainer.steps=8", "trainer.checkpoint_every=1", "trainer.keep=3")
    # A rate so high that the loss rises again.
    high = ("trainer.keep_best=true", "optimizer.lr=1.0", "trainer.eval_every=1")
    _, run = cli(*toy, *arguments, *high)
    kept = {path.name: state_of(run, path.name)["step"] for path in run.glob("*.pt")}
    best = kept.pop("best.pt")
    assert kept == {"checkpoint.pt": 8, "checkpoint-7.pt": 7, "checkpoint-6.pt": 6}
    losses = pd.read_csv(run / "metrics.csv").set_index("step")["val_loss"]
    assert best == losses.idxmin()
    assert losses.idxmin() != losses.index[-1]


def test_a_checkpoint_holds_all_that_the_rest_depends_on(cli: Cli, toy: tuple[str, ...]) -> None:
    _, run = cli(*toy, "tokenizer=gpt2_compact", "wandb.mode=offline")
    state = read_checkpoint(run / "checkpoint.pt")  # its checksum is right
    assert state["step"] == 3
    assert state["optimizer"]["state"]
    assert state["random"]["cpu"].dtype == torch.uint8
    assert state["tokenizer"]["state"]["gpt2_ids"]
    assert state["settings"]["schedule"]["warmup_steps"] == 1
    assert state["model_config"]["emb_dim"] == 16
    assert len(state["records"]["wandb_id"]) == 8
    rows = {name: len(pd.read_csv(run / name)) for name in ("metrics.csv", "gradients.csv")}
    last = pd.read_csv(run / "gradients.csv").query("step == 3")  # written after it
    rows = {"metrics.csv": rows["metrics.csv"] - 1, "gradients.csv": rows["gradients.csv"]}
    rows["gradients.csv"] -= len(last)
    assert state["records"]["rows"] == rows


def test_wandb_resumes_under_the_same_id(cli: Cli, toy: tuple[str, ...], before_step: Any) -> None:
    before_step(3, stop_with(signal.SIGTERM))
    code, run = cli(*toy, *SIX, "wandb.mode=offline")
    assert code == 143
    assert cli_module.main([f"resume={run}"]) == 0
    ids = [path.name for path in run.glob("wandb/offline-run-*/run-*.wandb")]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_constant_rate_lets_a_run_grow(cli: Cli, toy: tuple[str, ...]) -> None:
    steady = ("schedule=constant", "trainer.log_every=1")
    _, whole = cli(*toy, *steady, "trainer.steps=7")
    _, run = cli(*toy, *steady, "trainer.steps=4")
    assert cli_module.main([f"resume={run}", "trainer.steps=7"]) == 0
    assert_same_run(run, whole)
    assert summary_of(run)["settings_sha256"] == summary_of(whole)["settings_sha256"]


@pytest.mark.parametrize("altered", [False, True])
def test_what_affects_results_cannot_change(
    cut: Callable[..., Path], capsys: Any, altered: bool
) -> None:
    """Nor can what .hydra/ tells be changed behind the checkpoint's back."""
    run = cut("schedule=cosine")
    if altered:
        path = run / ".hydra" / "config.yaml"
        path.write_text(path.read_text().replace("emb_dim: 16", "emb_dim: 32"))
    before = snapshot(run)
    for change, words in (
        ("optimizer.lr=0.5", "optimizer.lr"),
        ("norm=post_ln", "norm.placement"),
        ("seed=3", "seed"),
        ("model.drop_rate=0.5", "model.drop_rate"),
        ("trainer.steps=7", "schedule=cosine its learning rates depend on the number of steps"),
        ("trainer.steps=2", "was started with 6, and it has made 5 steps already"),
        ("trainer.batch_size=4", "was started with 2, and a different value would change"),
        *([("wandb.name=x", "emb_dim=32 is not valid: the run was started with 16")] * altered),
    ):
        capsys.readouterr()
        assert cli_module.main([f"resume={run}", change]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert "the run was started with " in error
        assert error.count("\n") == 1
        assert snapshot(run) == before


def test_what_does_not_affect_results_can_change(
    runs: Callable[..., Path], cut: Callable[..., Path], tmp_path: Path
) -> None:
    whole, run = runs(), cut()
    free = ("trainer.checkpoint_every=1", "trainer.keep=2", f"data.cache_dir={tmp_path}/other")
    assert cli_module.main([f"resume={run}", *free, "wandb.name=again"]) == 0
    assert_same_run(run, whole)
    assert (tmp_path / "other").is_dir()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, pytest.param(empty, marks=pytest.mark.long)]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    runs: Callable[..., Path],
    cut: Callable[..., Path],
    caplog: Any,
    damage: Callable[[Path], None],
) -> None:
    whole, run = runs(), cut()
    assert [state_of(run, name)["step"] for name in ("checkpoint.pt", "checkpoint-4.pt")] == [5, 4]
    damage(run / "checkpoint.pt")
    with caplog.at_level(logging.WARNING):
        assert cli_module.main([f"resume={run}"]) == 0
    assert "checkpoint.pt" in caplog.text
    assert summary_of(run)["resumed_at_steps"] == [4]
    assert_same_run(run, whole)


def test_no_sound_checkpoint_is_one_clear_line(cut: Callable[..., Path], capsys: Any) -> None:
    run = cut()
    for path in run.glob("*.pt"):
        flip_a_bit(path)
    capsys.readouterr()
    before = snapshot(run)
    assert cli_module.main([f"resume={run}"]) == 1
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert "none of its checkpoints can be used" in lines[0]
    assert "checkpoint.pt" in lines[0]
    assert "checkpoint-4.pt" in lines[0]
    assert snapshot(run) == before


def test_rows_that_are_missing_make_a_checkpoint_useless(
    runs: Callable[..., Path], cut: Callable[..., Path]
) -> None:
    """As when files were copied in the wrong order: going on would leave a hole."""
    whole, run = runs(), cut()
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:-1]))  # the older checkpoint has its rows
    assert cli_module.main([f"resume={run}"]) == 0
    assert summary_of(run)["resumed_at_steps"] == [4]
    assert_same_run(run, whole)


def test_another_text_is_refused(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, before_step: Any, capsys: Any
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three four five six seven\n" * 50)
    before_step(2, stop_with(signal.SIGTERM))
    _, run = cli(*toy, *SIX, f"data.path={text}")
    text.write_text("seven six five four three two one\n" * 50)
    capsys.readouterr()
    rows = (run / "metrics.csv").read_bytes()
    assert cli_module.main([f"resume={run}"]) == 1
    assert "is not the text with which the run began" in capsys.readouterr().err
    assert (run / "metrics.csv").read_bytes() == rows


@pytest.fixture
def stopped(
    cli: Cli, toy: tuple[str, ...], text_file: Path, tmp_path: Path, before_step: Any
) -> tuple[Path, Path]:
    """A run that was stopped after two steps, and its text, which was named from its folder."""
    text = tmp_path / "texts" / "words.txt"
    text.parent.mkdir()
    text.write_bytes(text_file.read_bytes())
    before_step(1, stop_with(signal.SIGTERM))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(text.parent)
        code, run = cli(*toy, *SIX, "data.path=words.txt")
    assert code == 143
    return run, text


def test_a_run_goes_on_from_any_folder(
    stopped: tuple[Path, Path], runs: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    run, text = stopped
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli_module.main([f"resume={run}"]) == 0
    assert_same_run(run, runs())
    assert summary_of(run)["settings"]["data"]["path"] == str(text)
    assert summary_of(run)["settings_sha256"] == summary_of(runs())["settings_sha256"]


def test_a_run_goes_on_with_its_text_in_another_place(
    stopped: tuple[Path, Path], runs: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    run, text = stopped
    before = snapshot(run)
    moved = text.rename(tmp_path / "moved.txt")
    capsys.readouterr()
    assert cli_module.main([f"resume={run}"]) == 1
    error = capsys.readouterr().err
    assert (
        "No such file or directory; if the text has moved, give its place with data.path" in error
    )
    assert error.count("\n") == 1
    text.write_text("another text " * 900)
    for arguments in ((), (f"data.path={text}",)):
        assert cli_module.main([f"resume={run}", *arguments]) == 1
        assert "is not the text with which the run began" in capsys.readouterr().err
    assert snapshot(run) == before
    assert cli_module.main([f"resume={run}", f"data.path={moved}"]) == 0
    assert_same_run(run, runs())
    text.unlink()
    assert cli_module.main([f"resume={run}"]) == 0  # from its new place; there is nothing to do
    assert cli_module.main([f"resume={run}", f"data.path={text}"]) == 1


def test_a_run_whose_recorded_path_is_relative_goes_on(
    stopped: tuple[Path, Path], runs: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """As version 0.5 recorded it, without bits per byte."""
    run, text = stopped
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    config["data"]["path"] = "words.txt"
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    state = read_checkpoint(run / "checkpoint.pt")
    state["settings"]["data"]["path"] = "words.txt"
    write_checkpoint(run / "checkpoint.pt", {k: v for k, v in state.items() if k != "sha256"})
    metrics = pd.read_csv(run / "metrics.csv", dtype=str)
    metrics.drop(columns="val_bits_per_byte").to_csv(run / "metrics.csv", index=False)
    copies = [tmp_path / name for name in ("from its folder", "with its path")]
    for copy in copies:
        shutil.copytree(run, copy)
    monkeypatch.chdir(tmp_path)
    assert cli_module.main([f"resume={copies[1]}"]) == 1
    assert cli_module.main([f"resume={copies[1]}", f"data.path={text}"]) == 0
    monkeypatch.chdir(text.parent)
    assert cli_module.main([f"resume={copies[0]}"]) == 0
    for copy in copies:
        found, whole = (pd.read_csv(place / "metrics.csv") for place in (copy, runs()))
        timed = ["tokens_per_s", "memory_mb"]
        expected = whole.drop(columns=["val_bits_per_byte", *timed])
        pd.testing.assert_frame_equal(found.drop(columns=timed), expected)


def test_a_run_that_never_read_its_text_may_take_another(
    cli: Cli, toy: tuple[str, ...], text_file: Path
) -> None:
    code, run = cli(*toy, "data.path=/absent")
    assert code == 1
    assert cli_module.main([f"resume={run}", f"data.path={text_file}"]) == 0


def test_a_run_with_an_answer_is_left_as_it_is(cli: Cli, toy: tuple[str, ...], capsys: Any) -> None:
    _, run = cli(*toy)
    before = snapshot(run)
    assert cli_module.main([f"resume={run}"]) == 0
    place = launch.display_path(run)  # from the folder in which the tests run
    assert f"nothing to do: the run in {place} has already finished" in capsys.readouterr().out
    assert snapshot(run) == before


def test_resume_needs_a_run(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.csv").touch()
    for place in ("absent", "other"):
        assert cli_module.main([f"resume={tmp_path / place}"]) == 1
        error = capsys.readouterr().err
        assert "must be the directory of a run" in error
        assert error.count("\n") == 1
    assert list(snapshot(tmp_path)) == ["other/metrics.csv"]


def test_resume_stays_in_the_directory_of_the_run(
    cut: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    run = cut()
    before = snapshot(tmp_path)
    for arguments, words in (
        ((f"resume={run}", f"hydra.run.dir={tmp_path}/other"), "cannot be combined with resume"),
        ((f"resume={run}/metrics.csv",), "must be a directory"),
        (("-m", f"resume={run},{run}"), f"resume='{run},{run}' is not valid: resumes a single run"),
        (("-m", f"resume={run}"), f"resume='{run}' is not valid: resumes a single run"),
    ):
        capsys.readouterr()
        assert cli_module.main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert snapshot(tmp_path) == before


def test_home_is_understood(cut: Callable[..., Path], tmp_path: Path, monkeypatch: Any) -> None:
    run = cut()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli_module.main([f"resume=~/{run.name}"]) == 0
    assert summary_of(run)["status"] == "finished"


def test_another_runner_does_not_grow(cli: Cli, toy: tuple[str, ...], capsys: Any) -> None:
    _, run = cli("experiment=init_gradients", *toy)
    before = snapshot(run)
    assert cli_module.main([f"resume={run}", "trainer.steps=9"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert snapshot(run) == before


Sweep = Callable[..., tuple[int, Path]]


@pytest.fixture
def sweep(toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run `python run.py -m ...` in this process, without its report."""
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)

    def start(*arguments: str, folder: str = "sweep") -> tuple[int, Path]:
        place = f"hydra.sweep.dir={tmp_path / folder}"
        return cli_module.main(["-m", *toy, *SIX, place, *arguments]), tmp_path / folder

    return start


def statuses(folder: Path) -> Sequence[str]:
    return sorted(pd.read_csv(folder / "runs.csv")["status"])


def test_a_sweep_resumes_its_unfinished_job(sweep: Sweep, before_step: Any, capsys: Any) -> None:
    _, whole = sweep("seed=1,2", folder="whole")

    def in_the_second_job(trainer: Trainer) -> None:
        if trainer.settings.seed == 1:
            signal.raise_signal(signal.SIGUSR1)
        else:
            before_step(3, in_the_second_job)

    before_step(3, in_the_second_job)
    code, folder = sweep("seed=0,1,2")
    assert code == 128 + signal.SIGUSR1
    output = capsys.readouterr().out
    assert "not started" in output  # of the table
    assert "run the same command again to continue" in output
    assert statuses(folder) == ["finished", "interrupted"]
    first = snapshot(next(folder.glob("*seed0*")))
    assert sweep("seed=0,1,2")[0] == 0
    assert snapshot(next(folder.glob("*seed0*"))) == first
    (second,) = folder.glob("*seed1*")
    assert summary_of(second)["resumed_at_steps"] == [4]
    for job in whole.glob("*seed*"):
        assert_same_run(folder / job.name, job)


def test_a_job_whose_checkpoints_are_damaged_starts_again(
    sweep: Sweep, before_step: Any, caplog: Any
) -> None:
    _, whole = sweep("seed=0", folder="whole")
    before_step(3, stop_with(signal.SIGTERM))
    _, folder = sweep("seed=0")
    (job,) = folder.glob("*seed0*")
    for path in job.glob("*.pt"):
        flip_a_bit(path)
    with caplog.at_level(logging.WARNING):
        assert sweep("seed=0")[0] == 0
    assert "cannot be resumed and starts from the beginning" in caplog.text
    assert_same_run(job, next(whole.glob("*seed0*")))


@pytest.mark.long
def test_a_parallel_sweep_stops_and_is_resumed(toy: tuple[str, ...], tmp_path: Path) -> None:
    """SIGTERM to the sweep's own process alone, as `kill` sends it: its workers learn of it."""
    folder = tmp_path / "sweep"
    arguments = ("-m", *toy, "seed=0,1", "trainer.steps=4000", "trainer.log_every=100")
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={folder}")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments, *parallel],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(list(folder.glob("*/gradients.csv"))) < 2:  # until both are at work
        assert process.poll() is None
    process.terminate()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert statuses(folder) == ["interrupted", "interrupted"]
    assert "run the same command again to continue" in output
    for job in folder.glob("*seed*"):
        step = state_of(job)["step"]
        assert 0 < step < 4000
        assert json.loads((job / "summary.json").read_text())["status"] == "interrupted"
