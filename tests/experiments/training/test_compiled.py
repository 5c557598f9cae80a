"""Compiled steps compute what uncompiled ones do.

By default PyTorch's compiler traces forward and backward and runs what it traced without making
kernels of it, which would take a C++ compiler minutes; the `long` tests let it.
"""

import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import run as cli_module
from configs import settings_of
from conftest import Cli
from experiments.training.compiled import compiled_features
from experiments.training.loop import Trainer
from experiments.training.loss import language_model_loss
from gpt import GPT, ConfigError, GPTConfig
from same_run import assert_same_run
from training_steps import distances, engine_of, step_of

COMPILED = "trainer.compile=true"
RECOMPUTED = "trainer.activation_checkpointing=true"
EXPERTS = ("model.experts.count=4", "model.experts.active=2", "model.experts.balance_loss=0.5")
HAS_COMPILER = bool(shutil.which("g++") or shutil.which("clang++"))
BOUND = 1e-5  # of losses and norms, whose sums a kernel may take in another order


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Let something else make what runs of what the compiler traced."""
    compiled = torch.compile

    def use(maker: Any) -> None:
        def compile_with(function: Any, **options: Any) -> Any:
            return compiled(function, **options | {"backend": maker, "mode": None})

        monkeypatch.setattr(torch, "compile", compile_with)

    return use


@pytest.fixture
def traced(backend: Callable[[Any], None]) -> None:
    """Forward and backward are traced, and run as PyTorch's own kernels."""
    backend("aot_eager")


@pytest.fixture
def graphs(backend: Callable[[Any], None]) -> list[Any]:
    """Those that the compiler has traced, one after the other."""
    made: list[Any] = []

    def keep(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    backend(keep)
    return made


def assert_steps_agree(*options: str) -> None:
    """Two steps, compiled and not, from the same weights."""
    usual, engine = engine_of(*options), engine_of(*options, COMPILED)
    for step in (0, 1):
        loss, expected = step_of(usual, step)
        found, gradients = step_of(engine, step)
        assert found.item() == pytest.approx(loss.item(), rel=BOUND)
        assert max(distances(gradients, expected)) < BOUND
        for each in (engine, usual):
            each.update(step)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "options",
    [
        ("norm=residual_dual", "trainer.accumulate=2", RECOMPUTED),
        pytest.param(EXPERTS, marks=pytest.mark.long),
    ],
)
def test_what_the_compiler_traced_has_the_losses_and_gradients(
    toy: tuple[str, ...], options: tuple[str, ...]
) -> None:
    assert_steps_agree(*toy, *options)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ("norm=pre_ln",),
        ("norm=post_ln", "trainer.accumulate=2"),
        ("norm=residual_dual", RECOMPUTED),
        ("norm=mix_ln", "norm.qk=true", RECOMPUTED),
        ("norm=peri_ln", "norm.kind=rms_norm"),
        ("norm=siamese",),
        ("norm=pre_ln", "norm.options.gpas=true"),
        EXPERTS,
    ],
)
def test_compiled_kernels_have_the_losses_and_gradients(
    toy: tuple[str, ...], options: tuple[str, ...]
) -> None:
    if HAS_COMPILER:
        assert_steps_agree(*toy, *options)
    else:
        with pytest.raises(ConfigError, match="PyTorch cannot compile here"):
            engine_of(*toy, *options, COMPILED)


def run_until_cut(cli: Cli, options: tuple[str, ...], step: int) -> Path:
    """A run that a signal ends after a step."""
    original = Trainer._step

    def cut(trainer: Trainer, at: int) -> None:
        if at == step:
            signal.raise_signal(signal.SIGTERM)
        original(trainer, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", cut)
        code, run = cli(*options)
    assert code == 128 + signal.SIGTERM
    return run


def assert_run_agrees(cli: Cli, *options: str) -> None:
    """What a compiled run records of its losses and probes; and that it can be cut and go on."""
    (_, usual), (code, run) = cli(*options), cli(*options, COMPILED)
    assert code == 0
    keys = ["step", "layer", "component", "stat"]
    expected, found = (pd.read_csv(d / "gradients.csv").set_index(keys) for d in (usual, run))
    # Of what is about 0: a loss without a block minus that with it.
    pd.testing.assert_frame_equal(found, expected, rtol=10 * BOUND, atol=1e-6)
    metrics = [
        pd.read_csv(d / "metrics.csv").drop(columns=["tokens_per_s", "memory_mb"])
        for d in (usual, run)
    ]
    pd.testing.assert_frame_equal(metrics[1], metrics[0], rtol=BOUND)
    cut = run_until_cut(cli, (*options, COMPILED), 1)
    assert cli_module.main([f"resume={cut}"]) == 0
    assert_same_run(cut, run)


@pytest.mark.long
@pytest.mark.usefixtures("traced")
def test_a_run_that_the_compiler_traced_records_the_same_and_goes_on(
    cli: Cli, toy: tuple[str, ...]
) -> None:
    assert_run_agrees(cli, *toy, "norm=post_ln")


@pytest.mark.long
def test_a_run_on_compiled_kernels_records_the_same_and_goes_on(
    cli: Cli, toy: tuple[str, ...]
) -> None:
    if HAS_COMPILER:
        assert_run_agrees(cli, *toy, "norm=pre_ln")
    else:
        assert cli(*toy, COMPILED)[0] == 1


@pytest.mark.long
def test_bf16_is_compiled_as_one_graph(graphs: list[Any]) -> None:
    """Attention asks the processor how it multiplies: not while it is traced."""
    model = GPT(GPTConfig(5, 4, 8, 1, 2))
    tokens = torch.zeros(1, 4, dtype=torch.long)
    features = compiled_features(model, settings_of())
    graphs.clear()
    language_model_loss(model, tokens, tokens, "bf16", features)
    assert len(graphs) == 1


@pytest.mark.long
def test_every_model_of_a_process_is_compiled(toy: tuple[str, ...], graphs: list[Any]) -> None:
    """PyTorch compiles a function for eight kinds of model; a sweep has more in one process."""
    tokens, settings = torch.zeros(1, 4, dtype=torch.long), settings_of(*toy)
    for width in range(1, 10):
        features = compiled_features(GPT(GPTConfig(5, 4, width, 1, 0)), settings)
        graphs.clear()
        features(tokens)
        assert len(graphs) == 1, width


@pytest.mark.long
def test_experts_are_not_compiled_anew_for_each_step(
    toy: tuple[str, ...], graphs: list[Any]
) -> None:
    """Tokens go to other experts in each, and a graph would be of their counts."""
    engine = engine_of(*toy, *EXPERTS, COMPILED, "model.n_layers=1")
    step_of(engine, 0)
    of_first = len(graphs)
    for step in (1, 2):
        step_of(engine, step)
    assert len(graphs) == of_first


def test_a_machine_that_cannot_compile_says_so_in_a_line(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            "Failed to find C++ compiler.\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace"
        )

    monkeypatch.setattr(torch, "compile", refuse)
    assert cli(*toy, COMPILED)[0] == 1
    assert capfd.readouterr().err == (
        "error: trainer.compile=True is not valid: PyTorch cannot compile here, take "
        "trainer.compile=false (Failed to find C++ compiler.)\n"
    )


@pytest.mark.long
def test_a_machine_without_a_compiler_says_so_in_a_line(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = partial(monkeypatch.setattr, torch._inductor.config.cpp, "cxx")
    config(("/absent/compiler",))
    assert cli(*toy, COMPILED)[0] == 1
    error = capfd.readouterr().err
    assert error.startswith("error: trainer.compile=True is not valid: PyTorch cannot compile here")
    assert error.count("\n") == 1
