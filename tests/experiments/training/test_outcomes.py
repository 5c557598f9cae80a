"""How a run ended and how it began, in words: risen losses, high starts, blocks of one kind."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import run as cli_module
from configs import SMALL, changed
from conftest import Cli
from experiments.analysis.runs import (
    LOSS_ROSE,
    NOT_FINITE,
    Run,
    describe_rise,
    loss_rose,
)
from experiments.claims.inside import last_by_block
from experiments.claims.training import capped_loss
from experiments.records.summary import Summary
from experiments.training.loss import language_model_loss, warn_of_high_start
from gpt import GPT, PLACEMENTS
from gpt.registry import INITS
from same_run import summary_of

RISING = (
    *("norm=pre_ln", "optimizer=adamw", "optimizer.lr=3", "schedule=constant"),
    *("schedule.warmup_steps=0", "trainer.steps=6", "trainer.eval_every=3"),
)


def test_a_loss_that_rose_is_a_divergence_of_its_own_name(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = cli(*toy, *RISING)
    summary = summary_of(run)
    assert (code, summary["status"], summary["divergence"]) == (0, "diverged", LOSS_ROSE)
    assert summary["val_loss"] > summary["initial_val_loss"] + 1
    assert "diverged_at_step" not in summary
    assert summary["stuck"] is False
    output = capsys.readouterr().out
    assert f"diverged: {summary['reason']}" in output
    assert summary["reason"].startswith("validation loss rose from ")
    # All that a finished run leaves.
    assert {path.name for path in run.iterdir()} >= {"checkpoint.pt", "sample.txt", "memory.csv"}
    assert "The model continued" in output
    rows = pd.read_csv(run / "gradients.csv")
    assert {"layer_drop", "window_grad_norm"} <= set(rows["stat"])
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_run_whose_loss_rose_goes_on_with_more_steps(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = cli(*toy, *RISING)
    assert cli_module.main([f"resume={run}"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert cli_module.main([f"resume={run}", "trainer.steps=8"]) == 0
    assert summary_of(run)["resumed_at_steps"] == [6]
    _, whole = cli(*toy, *RISING, "trainer.steps=8")
    pd.testing.assert_series_equal(
        pd.read_csv(run / "metrics.csv")["train_loss"],
        pd.read_csv(whole / "metrics.csv")["train_loss"],
    )
    _, broken = cli(*toy, "trainer.steps=60", "optimizer=sgd", "optimizer.lr=1e12", "norm=no_norm")
    assert summary_of(broken)["divergence"] == NOT_FINITE
    assert not (broken / "sample.txt").exists()
    assert cli_module.main([f"resume={broken}", "trainer.steps=90"]) == 0
    assert "has already diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "initial", "final", "divergence"),
    [
        ("finished", 4.0, 5.0, None),  # one nat, not more: the margin
        ("finished", 4.0, 5.001, LOSS_ROSE),  # as versions up to 0.5 recorded it
        ("finished", 38.1, 1332.0, LOSS_ROSE),
        ("finished", None, 1332.0, None),
        ("finished", math.nan, 1332.0, None),
        ("interrupted", 4.0, 9.0, None),
        ("diverged", 4.0, 9.0, NOT_FINITE),
        ("failed", 4.0, None, None),
    ],
)
def test_how_a_run_diverged(
    status: str, initial: float | None, final: float | None, divergence: str | None
) -> None:
    run = Run(Path(), Summary(status=status, initial_val_loss=initial, val_loss=final))
    assert run.divergence == divergence
    assert run.status == ("diverged" if divergence else status)
    assert run.made_all_steps == (status == "finished")
    assert loss_rose(initial, final) == (
        initial is not None and final is not None and final > initial + 1
    )


def test_a_claim_reads_a_run_whose_loss_rose_as_one_that_finished(tmp_path: Path) -> None:
    rows = "step,layer,component,stat,value\n0,0,block,layer_drop,1\n9,0,block,layer_drop,2\n"
    (tmp_path / "gradients.csv").write_text(rows)
    losses = {"initial_val_loss": 4.0, "val_loss": 9.0, "seed": 0}
    for status, divergence in (("finished", None), ("diverged", LOSS_ROSE)):
        run = Run(tmp_path, Summary(status=status, divergence=divergence, **losses))  # type: ignore[arg-type]
        assert capped_loss(run) == 4.0
        assert last_by_block(run, "layer_drop", "block") == [2.0]
    broken = Run(tmp_path, Summary(status="diverged", divergence=NOT_FINITE))
    assert last_by_block(broken, "layer_drop", "block") == []


def test_a_rise_in_words() -> None:
    words = describe_rise(Summary(initial_val_loss=38.123, val_loss=1332.4))
    assert words == "validation loss rose from 38.1 to 1,332 nats"
    words = describe_rise(Summary(initial_val_loss=4.2, val_loss=1e30))
    assert words == "validation loss rose from 4.2 to 1e+30 nats"


def test_a_tied_head_with_embeddings_of_unit_variance_starts_high_and_says_so(
    cli: Cli, toy: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    wide = ("model.emb_dim=64", "generate.tokens=0", "schedule.warmup_steps=0")
    _, run = cli(*toy, *wide, "model.tie_head=true")
    summary = summary_of(run)
    start, uniform = summary["initial_val_loss"], summary["uniform_loss"]
    assert uniform == pytest.approx(math.log(28))  # 26 letters, the space and the line end
    (line,) = [message for message in caplog.messages if "ln V" in message]
    assert f"starts at {start:.3g} nats" in line
    assert f"ln V = {uniform:.3g}" in line
    assert "tied to embeddings of root mean square 1, as init=xavier draws them" in line
    assert "model.tie_head=false" in line
    caplog.clear()
    cli(*toy, *wide)
    cli(*toy, *wide, "model.tie_head=true", "init=gpt2")
    _, small = cli(*toy, *wide, "model.tie_head=true", "init.embedding_std=0.02")
    assert (summary["embedding_std"], summary_of(small)["embedding_std"]) == (1.0, 0.02)
    assert not [message for message in caplog.messages if "ln V" in message]
    cli(*toy, *wide, "model.tie_head=true", "init=gpt2", "init.embedding_std=3")
    (line,) = [message for message in caplog.messages if "ln V" in message]
    assert "as init.embedding_std=3 draws them" in line


@pytest.mark.long
def test_which_models_start_high(caplog: pytest.LogCaptureFixture) -> None:
    """Tied to embeddings of unit variance all do; else those alone that have no norm at all."""
    tokens = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(0))
    sizes = {"vocab_size": 256, "context_length": 16, "emb_dim": 64, "n_heads": 4}
    high = set()
    for placement, scheme, tied in itertools.product(PLACEMENTS, INITS, (False, True)):
        changes = {"norm.placement": placement, "init.scheme": scheme, "tie_head": tied}
        torch.manual_seed(0)
        model = GPT(changed(SMALL, {**sizes, **changes}))
        with torch.no_grad():
            model.profile(tokens)
            loss = language_model_loss(model, tokens, tokens.roll(-1, 1), "float32")
        caplog.clear()
        warn_of_high_start(model, float(loss), tokens)
        if caplog.messages:
            high.add((placement, scheme, tied))
    of_unit_variance = INITS.keys() - {"gpt2", "gpt2_scaled"}
    expected = {(*both, True) for both in itertools.product(PLACEMENTS, of_unit_variance)}
    expected |= {("no_norm", scheme, False) for scheme in ("sub_ln", "xavier", "xiong")}
    assert high == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("norm=mix_ln",), "none of the 2 blocks of norm=mix_ln is post_ln"),
        (
            ("norm=mix_ln", "norm.options.fraction=1"),
            "is pre_ln (model.n_layers=2, norm.options.fraction=1",
        ),
        (("norm=mix_ln", "norm.options.fraction=0.5"), ""),
        (("norm=mix_ln", "model.n_layers=0"), ""),
        (("norm=pre_ln",), ""),
    ],
)
def test_a_placement_without_one_of_its_kinds_of_blocks(
    cli: Cli,
    toy: tuple[str, ...],
    arguments: tuple[str, ...],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cli("experiment=parameters", *toy, *arguments)
    said = [message for message in caplog.messages if "none of the" in message]
    assert len(said) == (words != "")
    assert words in "".join(said)
