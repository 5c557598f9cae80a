"""What bf16, fp16, tf32 and float64 compute, against float32."""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import ROOT, Cli, Sweep
from experiments.training import build
from experiments.training import precision as precision_module
from experiments.training.engine import Engine
from experiments.training.precision import check_precision, faster_precision
from gpt import ConfigError, GPTConfig
from training_steps import distances, engine_of, step_of

GPU = torch.device("cuda")
FP16, BF16 = "trainer.precision=fp16", "trainer.precision=bf16"
INITIAL_FACTOR = 2.0**16

# Both have fp16 tensors where others have float32: what the head reads, and several products.
NARROW = ("model.embedding.dim=8", "model.tie_head=true")
EXPERTS = ("model.experts.count=4", "model.experts.active=2", "model.experts.balance_loss=0.5")
MUON = ("optimizer=muon", *EXPERTS)


@pytest.mark.parametrize("options", [NARROW, MUON])
def test_gradients_of_fp16_are_those_of_float32(
    toy: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Each parameter's within 0.3 % of its norm, without the factor, over all parts of a step."""
    common = (*toy, *options, "trainer.accumulate=2")
    loss, expected = step_of(engine_of(*common))
    engine = engine_of(*common, FP16)
    found, gradients = step_of(engine)
    assert found.item() == pytest.approx(loss.item(), rel=1e-3)
    assert max(distances(gradients, expected)) < 3e-3
    assert [g.dtype for g in gradients] == [torch.float32] * len(expected)
    assert engine.scaler is not None
    assert engine.scaler.get_scale() == INITIAL_FACTOR  # none left fp16


def scaled_from(monkeypatch: pytest.MonkeyPatch, factor: float, **options: Any) -> None:
    """Let the loss's factor begin there."""
    scaler = partial(torch.amp.GradScaler, init_scale=factor, **options)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


def count_tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The step of each forward and backward pass, as they are made."""
    tries, accumulate = list[int](), Engine._accumulate

    def counted(engine: Engine, step: int, windows: Any) -> Any:
        tries.append(step)
        return accumulate(engine, step, windows)

    monkeypatch.setattr(Engine, "_accumulate", counted)
    return tries


def test_a_step_whose_gradients_left_fp16_is_computed_again_with_half_the_factor(
    toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled_from(monkeypatch, 2.0**40)
    tries = count_tries(monkeypatch)
    _, expected = step_of(engine_of(*toy))
    engine = engine_of(*toy, FP16)
    tries.clear()
    _, gradients = step_of(engine)
    assert max(distances(gradients, expected)) < 3e-3
    assert engine.scaler is not None
    halvings = 40 - math.log2(engine.scaler.get_scale())
    assert halvings > 5
    assert len(tries) == halvings + 1


def test_a_loss_that_is_nan_ends_the_run_after_as_many_tries_as_the_factor_has_halves(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Engine.training_loss
    monkeypatch.setattr(Engine, "training_loss", lambda *values: loss(*values) * math.nan)
    tries = count_tries(monkeypatch)
    code, run = cli(*toy, FP16)
    summary = json.loads((run / "summary.json").read_text())
    assert (code, summary["status"], summary["diverged_at_step"]) == (0, "diverged", 0)
    assert summary["reason"] == "loss was not finite at step 0"
    assert tries == [0] * (16 + 2)  # down to a factor below 1


def test_probes_take_their_gradients_in_float32_where_the_loss_is_scaled(
    toy: tuple[str, ...],
) -> None:
    plain, fp16, bf16 = (engine_of(*toy, *more) for more in ((), (FP16,), (BF16,)))
    windows = plain.probe_windows()
    assert torch.equal(fp16.probe_loss(*windows), plain.loss(*windows))
    assert not torch.equal(fp16.loss(*windows), plain.loss(*windows))
    assert torch.equal(bf16.probe_loss(*windows), bf16.loss(*windows))


# Bounds


def bounds() -> dict[str, dict[str, float]]:
    """By statistic what docs/running.md promises of bf16 and fp16."""
    page = (ROOT / "docs" / "running.md").read_text()
    found: dict[str, dict[str, float]] = {}
    for names, *shares in re.findall(r"^\| (`.*?) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.M):
        promised = dict(
            zip(("bf16", "fp16"), (float(share) / 100 for share in shares), strict=True)
        )
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), promised)
    return found


@pytest.fixture
def rows_of(cli: Cli, toy: tuple[str, ...]) -> Callable[..., pd.Series]:
    """Gives the values of gradients.csv of a run, by step, place and statistic."""

    def read(*options: str) -> pd.Series:
        code, run = cli(*toy, *options)
        assert code == 0
        keys = ["step", "layer", "component", "stat"]
        return pd.read_csv(run / "gradients.csv").set_index(keys)["value"]

    return read


def test_statistics_of_other_precisions_are_within_the_bounds_of_the_page(
    rows_of: Callable[..., pd.Series],
) -> None:
    expected, promised = rows_of(), bounds()
    assert set(promised) == set(expected.index.get_level_values("stat"))
    for precision in ("bf16", "fp16", "float64"):
        found = rows_of(f"trainer.precision={precision}")
        assert found.index.equals(expected.index)
        assert not found.equals(expected)
        sizes = expected.abs()
        drops = sizes.index.get_level_values("stat") == "layer_drop"  # of either sign, and about 0
        sizes[drops] = sizes[drops].max()
        shares = ((found - expected).abs() / sizes).groupby("stat").max()
        for name, share in shares.items():
            assert share <= promised[str(name)].get(precision, 1e-4), (precision, name)


# What the device must have


def test_tf32_is_refused_on_a_cpu(
    cli: Cli, toy: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli(*toy, "trainer.precision=tf32")[0] == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: trainer.precision='tf32' is not valid: is of NVIDIA GPUs since")


@pytest.mark.parametrize(
    ("generation", "has_it"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_tf32_is_taken_by_gpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, generation: tuple[int, int], has_it: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: generation)
    wide = GPTConfig(30, 8, 256, 2, 1)
    if has_it:
        check_precision("tf32", GPU)
        assert "trainer.precision=bf16" in str(faster_precision("float32", wide, GPU))
    else:
        with pytest.raises(ConfigError, match="since Ampere alone"):
            check_precision("tf32", GPU)
        assert faster_precision("float32", wide, GPU) is None


def test_gradients_without_training_are_not_taken_in_fp16(
    cli: Cli, toy: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody scales their loss, so that small ones would be 0."""
    assert cli("experiment=init_gradients", *toy, FP16)[0] == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: trainer.precision='fp16' is not valid: ")


def test_how_float32_is_multiplied_is_each_jobs_own(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as before after them; a sweep of several jobs has them all in one process."""
    monkeypatch.setattr(build, "check_precision", lambda *_: None)
    seen: list[tuple[str, str]] = []
    backward = Engine.backward

    def noted(engine: Engine, step: int) -> Any:
        precision = engine.settings.trainer.precision
        seen.append((precision, torch.get_float32_matmul_precision()))
        return backward(engine, step)

    monkeypatch.setattr(Engine, "backward", noted)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        options = ("trainer.steps=1", "trainer.end_probes=false")
        assert sweep("trainer.precision=tf32,float32", *options)[0] == 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("tf32", "high"), ("float32", "highest")}


def test_a_faster_precision_is_named_once_where_the_processor_has_one(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cpu, wide, narrow = torch.device("cpu"), *(GPTConfig(30, 8, d, 2, 1) for d in (256, 128))
    few = ("model.n_layers=1", "model.emb_dim=256", "trainer.steps=1", "trainer.end_probes=false")
    for has_it in (True, False):
        monkeypatch.setattr(precision_module, "MULTIPLIES_BF16", has_it)
        assert (faster_precision("float32", wide, cpu) is not None) is has_it
        for precision, config in (("bf16", wide), ("float64", wide), ("float32", narrow)):
            assert faster_precision(precision, config, cpu) is None
    monkeypatch.setattr(precision_module, "MULTIPLIES_BF16", True)
    assert cli(*toy, *few)[0] == 0
    assert capsys.readouterr().out.count("trainer.precision=bf16\n") == 1
