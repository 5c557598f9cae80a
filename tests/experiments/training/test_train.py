"""Whole runs at toy size: what they leave, that they repeat, and that the records are true."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import run as cli_module
from children import call
from configs import settings_of
from conftest import ROOT, Cli
from experiments.analysis.runs import is_stuck
from experiments.data.corpus import load_corpus
from experiments.data.tokenizer import TOKENIZERS
from experiments.records.sink import METRIC_COLUMNS
from experiments.records.summary import Summary
from experiments.report import run_pictures as plots
from experiments.settings.compose import build_dataclass
from experiments.settings.schema import Settings
from experiments.training.checkpoint import load_model, model_state, write_checkpoint
from experiments.training.engine import Engine
from experiments.training.log_interval import automatic_log_every, csv_bytes
from experiments.training.loop import Trainer
from experiments.training.tally import is_spike
from gpt import GPT, ConfigError, GPTConfig, NormConfig
from normscope import anatomy_of
from normscope.gradients import ParameterNorms
from normscope.stats import Row

TIMED = ["tokens_per_s", "memory_mb"]


def summary_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text())


def metrics_of(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "metrics.csv")


@pytest.mark.pictures
def test_a_run_leaves_what_it_should(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli(*toy, "norm=post_ln")
    assert code == 0
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    plots = ("loss", "gradient_by_layer", "gradient_heatmap", "activations_by_layer")
    assert files == {
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        ".lock",
        "metrics.csv",
        "gradients.csv",
        "parameters.csv",
        "memory.csv",
        "summary.json",
        "checkpoint.pt",
        "sample.txt",
        "report.html",
        *(f"plots/{name}.png" for name in (*plots, "parameters", "memory")),
    }
    metrics = metrics_of(run)
    assert tuple(metrics.columns) == METRIC_COLUMNS
    assert metrics["step"].tolist() == [0, 1, 2, 3]
    assert metrics["tokens"].tolist() == [0, 32, 64, 96]
    assert metrics["val_loss"].notna().tolist() == [True, False, True, True]
    assert metrics["train_loss"].notna().tolist() == [True, True, True, False]
    assert metrics["clip_factor"].isna().all()
    assert metrics["lr"].tolist()[:2] == pytest.approx([1e-3, 1e-3])

    gradients = pd.read_csv(run / "gradients.csv")
    assert list(gradients.columns) == ["step", "layer", "component", "stat", "value"]
    assert not gradients.duplicated(["step", "layer", "component", "stat"]).any()
    assert gradients["value"].map(math.isfinite).all()
    norms = gradients[gradients["stat"] == "grad_norm"]
    places = 2 + 2 * 4 + 1  # embeddings, components and blocks, head
    tensors = len(list(GPT(GPTConfig(28, 16, 16, 2, 2, norm=NormConfig("post_ln"))).parameters()))
    assert norms["step"].value_counts().to_dict() == {
        0: places + tensors,
        1: places,  # not probed
        2: places + tensors,
    }
    for stat in ("weight_norm", "update_ratio"):
        assert set(gradients.loc[gradients["stat"] == stat, "step"]) == {0, 2}
    parts = norms[(norms["component"] != "block") & (norms["step"] == 1)]["value"]
    assert math.hypot(*parts) == pytest.approx(metrics["grad_norm"][1], rel=1e-6)
    probed = gradients[gradients["stat"].isin(["activation_rms", "attention_entropy"])]
    assert set(probed["step"]) == {0, 2, 3}

    counts = pd.read_csv(run / "parameters.csv")
    summary = summary_of(run)
    assert counts["parameters"].sum() == summary["parameters"]
    assert (counts["bytes"] == 4 * counts["parameters"]).all()
    memory = pd.read_csv(run / "memory.csv").set_index("kind")
    for kind in ("parameters", "gradients", "optimizer", "activations"):
        assert memory.loc[kind, "predicted_bytes"] == memory.loc[kind, "measured_bytes"]
    for stat in ("layer_drop", "window_grad_norm", "mean_window_grad_norm"):
        assert set(gradients.loc[gradients["stat"] == stat, "step"]) == {3}
    rows = [Row(*row) for row in gradients.drop(columns="step").itertuples(index=False)]
    assert (run / "gradients.csv").stat().st_size < csv_bytes(rows)

    assert summary["status"] == "finished"
    assert (summary["placement"], summary["final_norm"]) == ("post_ln", False)
    assert summary["val_loss"] == pytest.approx(metrics["val_loss"][3])
    assert summary["corpus"]["distinct_tokens"] == 28
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["grad_norm"]["last_step"]["last_block"] > 0
    assert (summary["tokens"], summary["spikes"], summary["spike_steps"]) == (96, 0, [])
    assert "clip_share" not in summary
    # 16 tokens of the validation text, then four of the model's.
    assert len((run / "sample.txt").read_text()) == 16 + 4 + 1


def test_first_row_is_the_model_as_initialised(cli: Cli, toy: tuple[str, ...]) -> None:
    """Loss and gradient norm at step 0, computed again without any of the runner's code."""
    _, run = cli(*toy, "seed=5", "init=gpt2")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    settings = build_dataclass(Settings, state["settings"])
    corpus = load_corpus(settings)
    torch.manual_seed(5)
    model = GPT(GPTConfig.from_values(state["model_config"]))
    x, y = corpus.batch(seed=5, step=0, rows=2, length=16)
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    loss.backward()
    total = nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    first = metrics_of(run).iloc[0]
    assert first["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert first["grad_norm"] == pytest.approx(total.item(), rel=1e-6)


def test_same_seed_same_csv_other_seed_another(cli: Cli, toy: tuple[str, ...]) -> None:
    runs = [cli(*toy, f"seed={seed}", "model.drop_rate=0.1")[1] for seed in (1, 1, 2)]
    gradients = [(run / "gradients.csv").read_bytes() for run in runs]
    metrics = [metrics_of(run).drop(columns=TIMED).to_csv() for run in runs]
    assert gradients[0] == gradients[1] != gradients[2]
    assert metrics[0] == metrics[1] != metrics[2]
    weights = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_accumulation_equals_one_large_batch(cli: Cli, toy: tuple[str, ...]) -> None:
    """The same windows in parts: equal to rounding in float32 over three steps."""
    _, whole = cli(*toy, "trainer.batch_size=4")
    _, parts = cli(*toy, "trainer.batch_size=1", "trainer.accumulate=4")
    for column in ("tokens", "train_loss", "val_loss", "grad_norm"):
        assert metrics_of(parts)[column].tolist() == pytest.approx(
            metrics_of(whole)[column].tolist(), rel=1e-4, nan_ok=True
        )


def test_clipping_scales_after_the_norm_is_measured(cli: Cli, toy: tuple[str, ...]) -> None:
    sgd = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1", "schedule=constant")
    _, free = cli(*toy, *sgd)
    _, clipped = cli(*toy, *sgd, "trainer.clip=0.01")
    first, clipped_first = metrics_of(free).iloc[0], metrics_of(clipped).iloc[0]
    assert clipped_first["grad_norm"] == first["grad_norm"] > 0.01
    assert clipped_first["clip_factor"] == pytest.approx(0.01 / first["grad_norm"], rel=1e-3)
    _, loose = cli(*toy, *sgd, "trainer.clip=1e6")
    assert metrics_of(loose)["clip_factor"].dropna().tolist() == [1.0] * 3
    assert (summary_of(clipped)["clip_share"], summary_of(loose)["clip_share"]) == (1.0, 0.0)
    ratio = pd.read_csv(clipped / "gradients.csv").query("stat == 'update_ratio' and step == 0")
    free_ratio = pd.read_csv(free / "gradients.csv").query("stat == 'update_ratio' and step == 0")
    scale = clipped_first["clip_factor"]
    assert ratio["value"].tolist() == pytest.approx(
        [scale * value for value in free_ratio["value"]], rel=0.05
    )  # single updates of the clipped run are near float32's resolution of the weights


def test_bf16_stays_near_float32(cli: Cli, toy: tuple[str, ...]) -> None:
    """bf16 keeps eight bits: losses agree to a few parts in a thousand, and are not the same."""
    losses = [
        metrics_of(cli(*toy, f"trainer.precision={precision}")[1])["train_loss"][0]
        for precision in ("float32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert losses[0] != losses[1]


def test_coarser_logging_keeps_first_and_last_step(cli: Cli, toy: tuple[str, ...]) -> None:
    settings = ("trainer.steps=8", "trainer.log_every=3", "trainer.eval_every=100")
    _, run = cli(*toy, *settings, "trainer.probe_every=null")
    assert metrics_of(run)["step"].tolist() == [0, 3, 6, 7, 8]
    _, fine = cli(*toy, "trainer.steps=8", "trainer.eval_every=100", "trainer.probe_every=null")
    every = metrics_of(fine).set_index("step")["grad_norm"]
    assert metrics_of(run).set_index("step")["grad_norm"].dropna().to_dict() == {
        step: every[step] for step in (0, 3, 6, 7)
    }


def test_clipped_steps_are_counted_on_every_step(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also on those that no file tells of, and where the numbers are looked at late."""
    arguments = (*toy, "trainer.steps=8", "trainer.eval_every=8", "trainer.probe_every=null")
    _, free = cli(*arguments)
    limit = metrics_of(free)["grad_norm"].dropna().median()
    _, run = cli(*arguments, f"trainer.clip={limit}")
    factors = metrics_of(run)["clip_factor"].dropna()
    share = (factors < 1).mean()
    assert 0 < share < 1
    assert summary_of(run)["clip_share"] == share
    assert f"{share:.0%} of the steps" in capsys.readouterr().out
    defer(monkeypatch)
    _, coarse = cli(*arguments, f"trainer.clip={limit}", "trainer.log_every=5")
    assert len(metrics_of(coarse)["clip_factor"].dropna()) == 3
    assert summary_of(coarse)["clip_share"] == share


def test_spikes_are_counted_on_every_step(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    original = Engine.gradients
    jumps = (3, 40, 60)  # the first comes too early to tell

    def gradients(self: Engine, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        loss, balance = original(self, step)
        return loss + 50.0 * (step in jumps), balance

    monkeypatch.setattr(Engine, "gradients", gradients)
    rare = ("trainer.log_every=50", "trainer.eval_every=80", "trainer.probe_every=null")
    code, run = cli(*toy, "trainer.steps=80", *rare)
    assert code == 0
    summary = summary_of(run)
    losses = [10 * (step % 2) for step in range(39)]
    losses[3] += 50
    expected = [40] + [60] * is_spike(50, losses)  # earlier jumps widen the band
    assert (summary["spikes"], summary["spike_steps"]) == (len(expected), expected)
    assert "the first at step 40" in capsys.readouterr().out


def test_stuck_is_not_diverged(cli: Cli, toy: tuple[str, ...]) -> None:
    """A rate of nothing learns nothing, for the loss starts above that of token frequencies."""
    _, idle = cli(*toy, "optimizer.lr=0")
    summary = summary_of(idle)
    assert summary["val_loss"] > summary["corpus"]["unigram_validation_loss"]
    assert (summary["status"], summary["stuck"]) == ("finished", True)
    assert not is_stuck(2.96, 3.0)
    assert is_stuck(2.98, 3.0)
    assert not is_stuck(None, 3.0)
    assert not is_stuck(3.0, None)


def test_end_probes_can_be_left_out(cli: Cli, toy: tuple[str, ...]) -> None:
    _, whole = cli(*toy)
    _, less = cli(*toy, "trainer.end_probes=false")
    rows = pd.read_csv(whole / "gradients.csv")
    ends = rows["stat"].isin(["layer_drop", "window_grad_norm", "mean_window_grad_norm"])
    assert ends.sum() == 2 + 2 * (2 + 2 * 4 + 2)
    pd.testing.assert_frame_equal(
        rows[~ends].reset_index(drop=True), pd.read_csv(less / "gradients.csv")
    )


def test_mixing_is_measured_before_the_first_step_and_at_the_end(
    cli: Cli, toy: tuple[str, ...]
) -> None:
    """Changes nothing else; a run that is given more steps replaces what the end measured."""
    toy = (
        *toy,
        "norm=post_ln",
        "model.drop_rate=0.1",
        "trainer.precision=bf16",
        "schedule=constant",
    )
    _, plain = cli(*toy)
    code, run = cli(*toy, "trainer.mixing=true")
    assert code == 0
    gradients = [(directory / "gradients.csv").read_text() for directory in (plain, run)]
    assert gradients[0] == gradients[1]
    assert not (plain / "mixing.csv").exists()

    def shares() -> pd.Series:
        rows = pd.read_csv(run / "mixing.csv")
        chosen = rows[rows["stat"] == "mixing_share"]
        return chosen.groupby(["step", "layer", "component"])["value"].sum()

    first = shares()
    assert sorted(set(first.index.get_level_values("step"))) == [0, 3]
    assert first.to_numpy() == pytest.approx(1, abs=1e-5)
    states = {place[1:] for place in first.index}
    parts = ("sum_1", "sum_2", "output")
    assert states == {(layer, part) for layer in (0, 1) for part in parts} | {(2, "final_norm")}
    figure = plots.mixing(pd.read_csv(run / "mixing.csv"), Summary())
    start, end, _ = figure.axes
    assert [axis.get_title() for axis in (start, end)] == ["step 0", "step 3"]
    drawn = [label.get_text() for label in start.get_xticklabels()]
    assert drawn == ["embedding", "shifts", "1 A", "1 F", "2 A", "2 F"]
    drawn = [label.get_text() for label in start.get_yticklabels()]
    assert drawn == ["1 sum 1", "1 sum 2", "2 sum 1", "2 sum 2", "head"]
    shown = start.images[0].get_array()
    assert shown.mask.sum() == 3 + 2 + 1  # what is not written yet
    assert shown.sum(axis=1).tolist() == pytest.approx([1] * 5, abs=0.05)  # below 0 as 0

    assert cli_module.main([f"resume={run}", "trainer.steps=5"]) == 0
    assert sorted(set(shares().index.get_level_values("step"))) == [0, 5]


def test_log_interval_keeps_gradients_csv_small() -> None:
    def interval(steps: int, layers: int, probes: int = 100) -> tuple[int, int]:
        settings = settings_of(f"trainer.steps={steps}", f"trainer.probe_every={steps // probes}")
        with torch.device("meta"):
            norms = ParameterNorms(anatomy_of(GPT(GPTConfig(11, 8, 12, 3, layers))))
        nothing = torch.zeros(len(norms.parameters))
        rows, probed = norms.gradient_rows(nothing), 3 * norms.gradient_rows(nothing, each=True)
        every = automatic_log_every(settings, rows, probed)
        return every, steps // every * csv_bytes(rows) + probes * csv_bytes(probed)

    assert interval(400, 8)[0] == 1
    for steps, layers in ((100_000, 8), (20_000, 48), (1_000_000, 12)):
        every, size = interval(steps, layers)
        assert every > 1
        assert 15e6 < size < 50e6
    assert interval(100_000, 12, 10_000)[0] < 1000  # even if the probes alone are too many


@pytest.mark.pictures
def test_divergence_is_recorded_with_its_step(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = cli(*toy, "trainer.steps=60", "optimizer=sgd", "optimizer.lr=1e12", "norm=no_norm")
    summary = summary_of(run)
    assert code == 0
    assert (summary["status"], summary["stuck"]) == ("diverged", False)
    stats = set(pd.read_csv(run / "gradients.csv")["stat"])
    assert not stats & {"layer_drop", "window_grad_norm", "mean_window_grad_norm"}
    step = summary["diverged_at_step"]
    assert 0 < step < 60
    assert summary["tokens"] == 32 * step
    last = metrics_of(run).iloc[-1]
    assert last["step"] == step
    assert not (math.isfinite(last["train_loss"]) and math.isfinite(last["grad_norm"]))
    assert metrics_of(run)["train_loss"].iloc[:-1].map(math.isfinite).all()
    assert f"not finite at step {step}" in capsys.readouterr().out
    assert (run / "plots" / "loss.png").is_file()
    assert not (run / "checkpoint.pt").exists()


def defer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop look at its numbers only where it must, as it does on a GPU."""
    monkeypatch.setattr(Engine, "defers", True)


@pytest.mark.parametrize("at", [0, 4])
@pytest.mark.parametrize("defers", [False, True])
def test_one_infinite_gradient_is_seen(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, at: int, defers: bool
) -> None:
    """A finite loss with one infinite gradient diverges at that very step.

    Nothing that was computed after the step is recorded or saved, wherever it is looked at.
    """
    original = Engine.gradients
    if defers:
        defer(monkeypatch)

    def gradients(self: Engine, step: int) -> torch.Tensor:
        loss = original(self, step)
        if step == at:
            grad = self.model.blocks[1].attention.out_proj.weight.grad
            assert grad is not None
            grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(Engine, "gradients", gradients)
    coarse = ("trainer.log_every=3", "trainer.eval_every=5", "trainer.probe_every=5")
    code, run = cli(*toy, "trainer.steps=8", "trainer.checkpoint_every=6", *coarse)
    summary = summary_of(run)
    assert math.isfinite(float(summary["val_loss"]))
    assert metrics_of(run)["step"].iloc[-1] == at
    assert not (run / "checkpoint.pt").exists()
    assert (code, summary["status"], summary["diverged_at_step"]) == (0, "diverged", at)
    assert "gradient" in summary["reason"]
    rows = pd.read_csv(run / "gradients.csv").query(f"step == {at} and stat == 'grad_norm'")
    bad = rows[~rows["value"].map(math.isfinite)]
    assert sorted(zip(bad["layer"], bad["component"], strict=True)) == [
        (1, "attention"),
        (1, "attention.out_proj.weight"),
        (1, "block"),
    ]


def test_deferred_looks_give_the_same_numbers(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*toy, "trainer.steps=8", "trainer.log_every=3", "trainer.clip=0.5")
    _, plain = cli(*options)
    defer(monkeypatch)
    _, deferred = cli(*options)
    # Clipping by a norm in float32 instead of float64 moves the weights by its rounding.
    for name, columns in (("metrics", ["train_loss", "grad_norm"]), ("gradients", ["value"])):
        tables = [pd.read_csv(run / f"{name}.csv") for run in (plain, deferred)]
        assert tables[0]["step"].tolist() == tables[1]["step"].tolist()
        for column in columns:
            assert tables[0][column].tolist() == pytest.approx(
                tables[1][column].tolist(), rel=1e-4, abs=1e-9, nan_ok=True
            )


def test_a_last_update_that_ruins_the_weights_is_a_divergence(
    cli: Cli, toy: tuple[str, ...]
) -> None:
    huge = ("optimizer=sgd", "optimizer.lr=1e38", "schedule.warmup_steps=0", "trainer.steps=1")
    code, run = cli(*toy, *huge)
    summary = summary_of(run)
    assert (code, summary["status"], summary["diverged_at_step"]) == (0, "diverged", 1)
    assert summary["val_loss"] in ("nan", "inf")
    assert not (run / "checkpoint.pt").exists()


def test_a_model_without_blocks_trains(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli(*toy, "model.n_layers=0")
    assert code == 0
    assert summary_of(run)["status"] == "finished"


def test_gradients_that_vanish_are_recorded_as_what_they_are(
    cli: Cli, toy: tuple[str, ...]
) -> None:
    """Without norms and shortcuts each block divides the gradient: 1e-23 and below, never 0."""
    deep = ("norm=no_norm", "shortcut=false", "init=gpt2_scaled", "model.n_layers=8")
    _, run = cli("experiment=init_gradients", *toy, *deep)
    rows = pd.read_csv(run / "gradients.csv").query("component == 'block' and stat == 'grad_norm'")
    assert rows["value"].min() < 1e-23
    assert (rows["value"] > 0).all()


def test_init_gradients_that_are_not_finite_are_recorded(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli("experiment=init_gradients", *toy, "norm=no_norm", "init=gpt2", "init.std=1e9")
    assert code == 0
    single = pd.read_csv(run / "init_gradients.csv")
    assert not single["value"].map(math.isfinite).all()


@pytest.mark.long
def test_equal_jobs_measure_equal_memory(toy: tuple[str, ...], tmp_path: Path) -> None:
    """Within 15 %, in a process of their own: what libraries keep from the first job on is none."""
    sizes = ("model.emb_dim=128", "trainer.batch_size=32")
    arguments = ["-m", "experiment=memory", *toy, *sizes, f"hydra.sweep.dir={tmp_path}/sweep"]
    assert call(tmp_path, *arguments, "seed=0,1")[0] == 0
    first, second = (
        pd.read_csv(job / "memory.csv").set_index("kind").loc["peak"]
        for (job,) in ((tmp_path / "sweep").glob(f"*-seed{seed}-*") for seed in (0, 1))
    )
    assert first["predicted_bytes"] > 5 * 2**20
    assert first["measured_bytes"] == pytest.approx(second["measured_bytes"], rel=0.15)
    assert first["measured_bytes"] == pytest.approx(first["predicted_bytes"], rel=0.5)


@pytest.mark.long
def test_memory_of_a_job_does_not_show_in_the_next(toy: tuple[str, ...], tmp_path: Path) -> None:
    """A job of 250 MB of parameters and state, then one of 150 KB, in one process of their own."""
    arguments = ["-m", "experiment=memory", *toy, f"hydra.sweep.dir={tmp_path}/sweep"]
    assert call(tmp_path, *arguments, "model.emb_dim=768,16")[0] == 0
    peaks = [
        pd.read_csv(job / "memory.csv").set_index("kind").loc["peak"]
        for (job,) in ((tmp_path / "sweep").glob(f"*-emb_dim{dim}-*") for dim in (768, 16))
    ]
    assert peaks[0]["measured_bytes"] == pytest.approx(peaks[0]["predicted_bytes"], rel=0.5)
    assert peaks[1]["measured_bytes"] < 0.2 * peaks[0]["measured_bytes"]


@pytest.mark.long
@pytest.mark.pictures
def test_a_drawing_that_fails_costs_one_picture(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(frame: pd.DataFrame, summary: Summary) -> None:
        raise ValueError("no ink")

    others = tuple(entry for entry in plots.PICTURES if entry[0] != "loss")
    monkeypatch.setattr(plots, "PICTURES", (("loss", "metrics", broken), *others))
    code, run = cli(*toy)
    assert code == 0
    assert "loss is not drawn: no ink" in caplog.text
    assert not (run / "plots" / "loss.png").exists()
    assert (run / "plots" / "memory.png").exists()


@pytest.mark.pictures
def test_interruption_while_drawing_is_recorded(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(directory: Path) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "draw_run", interrupted)
    code, run = cli(*toy)
    assert (code, summary_of(run)["status"]) == (130, "interrupted")


@pytest.mark.long
def test_nobody_reading_the_output_does_not_end_the_run(
    toy: tuple[str, ...], tmp_path: Path
) -> None:
    arguments = [*toy, "trainer.steps=40", f"hydra.run.dir={tmp_path}/run"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments], stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    assert (process.wait(timeout=120), error) == (0, b"")
    assert summary_of(tmp_path / "run")["status"] == "finished"


def test_interruption_keeps_the_rows(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy)
    assert code == 130
    assert summary_of(run)["status"] == "interrupted"
    assert metrics_of(run)["step"].tolist() == [0, 1]


def test_failure_is_recorded_and_exits_with_one(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def broken(self: Engine, step: int) -> torch.Tensor:
        raise RuntimeError("the kernel\nhas gone")

    monkeypatch.setattr(Engine, "gradients", broken)
    code, run = cli(*toy)
    assert code == 1
    assert summary_of(run)["status"] == "failed"
    assert summary_of(run)["error"].startswith("RuntimeError: the kernel has gone")
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "the kernel has gone" in error


def test_a_checkpoint_of_version_0_4_is_loaded(tmp_path: Path) -> None:
    """Its description of the model was flat."""
    model = GPT(GPTConfig(256, 16, 12, 3, 2, norm=NormConfig("mix_ln", options={"fraction": 0.5})))
    state = model_state(model, TOKENIZERS["byte"]())
    sizes = {
        name: value for name, value in state["model_config"].items() if not isinstance(value, dict)
    }
    state["model_config"] = sizes | {
        "causal": True,
        "placement": "mix_ln",
        "norm": "layer_norm",
        "norm_eps": 1e-5,
        "final_norm": None,
        "qk_norm": None,
        "fraction": 0.5,
        "embedding_norm": None,
        "scale_start": None,
        "activation": "gelu",
        "ff_ratio": 4.0,
        "init": "torch",
        "init_std": 0.02,
    }
    write_checkpoint(tmp_path / "checkpoint.pt", state)
    loaded, _ = load_model(str(tmp_path), torch.device("cpu"))
    tokens = torch.randint(0, 256, (2, 16))
    assert loaded.config == model.config
    assert torch.equal(loaded(tokens), model(tokens))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"emb_dim": 999_999}, r"describes \d+ parameters and holds"),
        ({"vocab_size": 10**9}, r"describes \d+ parameters and holds"),
        ({"n_layers": 10_000}, "describes 10000 blocks and holds"),
    ],
)
def test_a_checkpoint_that_describes_more_than_it_holds(
    size: dict[str, int], words: str, tmp_path: Path
) -> None:
    """It is refused before anything of that size is allocated, or takes long."""
    state = model_state(GPT(GPTConfig(256, 16, 12, 3, 2)), TOKENIZERS["byte"]())
    state["model_config"] |= size
    write_checkpoint(tmp_path / "checkpoint.pt", state)
    with pytest.raises(ConfigError, match=words):
        load_model(str(tmp_path), torch.device("cpu"))


def test_token_cache_is_shared_between_runs(cli: Cli, toy: tuple[str, ...], tmp_path: Path) -> None:
    cli(*toy)
    (file,) = (tmp_path / "cache").iterdir()
    before = file.stat().st_mtime_ns
    cli(*toy, "seed=1")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()] == [before]
