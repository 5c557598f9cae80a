"""summary.json: its keys and their order, read back as it was, and read safely from strangers."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run as cli_module
from conftest import Cli
from experiments.jobs.sweep import write_runs_csv
from experiments.records.summary import BlockNorms, Summary, read_summary
from experiments.report import run_pictures as plots
from experiments.report import write_report
from made_runs import make_run
from normscope.stats import Row

START = ["status", "runner", "seed", "settings_sha256", "settings", "overrides"]
MODEL = [
    *["placement", "final_norm", "qk_norm", "gpas", "paper_final_norm", "paper_init", "norm"],
    *["shortcut", "activation", "init", "embedding_std", "n_layers", "emb_dim", "parameters"],
    *["active_parameters", "ff_dim", "flops_per_token", "cache_bytes"],
]
END = [
    *["steps", "log_every", "train_loss", "val_loss", "val_bits_per_byte", "initial_val_loss"],
    *["uniform_loss", "stuck", "tokens", "spikes", "spike_steps", "training_seconds"],
    *["tokens_per_s", "peak_memory_mb"],
    *["grad_norm", "seconds", "versions"],
]
TRAINED = [*START, "device", "corpus", "optimizer", "lr", "warmup_steps", *MODEL, *END]

Values = dict[str, Any]


def values_of(directory: Path) -> Values:
    values: Values = json.loads((directory / "summary.json").read_text())
    return values


def rewritten(directory: Path, folder: Path) -> str:
    """summary.json once it was read and written again."""
    folder.mkdir()
    read_summary(directory).write(folder)
    return (folder / "summary.json").read_text()


def with_after(names: list[str], after: str, *new: str) -> list[str]:
    place = names.index(after) + 1
    return [*names[:place], *new, *names[place:]]


def test_keys_and_their_order(cli: Cli, toy: tuple[str, ...], tmp_path: Path) -> None:
    """Of a run without and with all that some runs have; each is read back as it was written."""
    plain = TRAINED
    clipped = with_after(TRAINED, "spike_steps", "clip_share")
    clipped = with_after(clipped, "gpas", "shortcut_scale")
    clipped.remove("gpas")  # deepnorm has no such option
    clipped = with_after(clipped, "emb_dim", "init_gain")
    diverged = with_after(TRAINED, "cache_bytes", "diverged_at_step", "divergence", "reason")
    huge = ("optimizer=sgd", "optimizer.lr=1e38", "schedule.warmup_steps=0", "trainer.steps=1")
    seeds = ["seeds", "first_seed"]
    gradients = ["device", "corpus", *MODEL, *seeds, "grad_norm", "seconds", "versions"]
    for number, (arguments, names) in enumerate(
        (
            ((), plain),
            (("norm=deepnorm", "trainer.clip=1"), clipped),
            (huge, diverged),
            (("experiment=init_gradients",), [*START, *gradients]),
            (("experiment=shortcut", "seed=0"), [*START, "finding", "seconds", "versions"]),
        )
    ):
        experiment = [a for a in arguments if a.startswith("experiment")]
        _, run = cli(*experiment, *toy, *(a for a in arguments if a not in experiment))
        assert list(values_of(run)) == names, arguments
        again = rewritten(run, tmp_path / f"again{number}")
        assert again == (run / "summary.json").read_text()


def test_what_was_not_measured_has_no_key(cli: Cli, toy: tuple[str, ...]) -> None:
    _, run = cli(*toy)
    values = values_of(run)
    assert values["paper_init"] is None  # the paper names none: that is known
    assert not {"clip_share", "diverged_at_step", "error", "init_gain", "seeds"} & set(values)
    assert values["grad_norm"]["first_step"].keys() == {"first_block", "last_block"}
    _, without_blocks = cli(*toy, "model.n_layers=0")
    assert "grad_norm" not in values_of(without_blocks)


def test_an_error_is_kept_and_a_resumed_run_says_where(cli: Cli, toy: tuple[str, ...]) -> None:
    code, run = cli(*toy, "data.path=/absent")
    assert code == 1
    assert list(values_of(run)) == [*START, "seconds", "versions", "error"]
    _, steady = cli(*toy, "schedule=constant")
    assert cli_module.main([f"resume={steady}", "trainer.steps=5"]) == 0
    assert list(values_of(steady)) == with_after(TRAINED, "overrides", "resumed_at_steps")
    assert values_of(steady)["resumed_at_steps"] == [3]


def test_keys_of_other_versions_are_kept(tmp_path: Path) -> None:
    values = {"status": "running", "seed": 3, "of_tomorrow": {"a": [1, None]}, "other": 1}
    (tmp_path / "summary.json").write_text(json.dumps(values))
    summary = read_summary(tmp_path)
    summary.status = "failed"
    summary.write(tmp_path)
    assert values_of(tmp_path) == values | {"status": "failed"}


def test_numbers_that_are_not_finite_are_words_in_the_file(tmp_path: Path) -> None:
    Summary(val_loss=math.inf, train_loss=math.nan, lr=-math.inf).write(tmp_path)
    assert values_of(tmp_path) == {"lr": "-inf", "train_loss": "nan", "val_loss": "inf"}
    read = read_summary(tmp_path)
    assert (read.val_loss, read.lr) == (math.inf, -math.inf)
    assert read.train_loss is not None
    assert math.isnan(read.train_loss)


def test_each_field_has_its_line_in_the_docstring() -> None:
    described = str(Summary.__doc__).partition("\n\n    status ")[2]
    described = "status " + described
    words = [line[:21].replace(",", " ").split() for line in described.splitlines()]
    named = {word for line in words for word in line}
    assert {item.name for item in dataclasses.fields(Summary)} <= named


def test_block_norms_are_those_of_the_first_and_the_last_block() -> None:
    rows = [Row(layer, "block", "grad_norm", 10.0 + layer) for layer in (2, 0, 1)]
    others = [Row(-1, "norm", "grad_norm", 1.0), Row(3, "block", "grad_rms", 2.0)]
    assert BlockNorms.from_rows([*rows, *others]) == BlockNorms(10.0, 12.0)
    assert BlockNorms.from_rows(others) == BlockNorms()


JUNK = [
    *[None, True, 0, -1, 1.5, 10**30, "", "nan", "inf", "two\nlines", "\x1b[2J", "<b>", "=1+1"],
    *[[], [1, "a", None], {}, {"a": 1}, {"first_step": [1], "last_step": {"last_block": "x"}}],
]


NAMES = [item.name for item in dataclasses.fields(Summary)]


def test_junk_in_any_field_counts_as_not_measured() -> None:
    """Each kind of junk under each key, and under each key of a section."""
    kinds = {"val_loss": (int, float), "tokens": (int,), "init": (str,), "stuck": (bool,)}
    for junk in JUNK:
        for name in NAMES:
            summary = Summary.from_values({name: junk})
            assert set(summary.values()) <= {name, "paper_init"}
        for name, allowed in kinds.items():
            value = getattr(Summary.from_values({name: junk}), name)
            assert value is None or type(value) in allowed
        corpus = Summary.from_values({"corpus": dict.fromkeys(["name", "tokens"], junk)}).corpus
        assert corpus.name is None or isinstance(corpus.name, str)
        assert corpus.tokens is None or type(corpus.tokens) is int
    assert Summary.from_values({"overrides": [1, "a", None]}).overrides == ["a"]
    assert Summary.from_values({"versions": {"torch": 2, "numpy": "1"}}).versions == {"numpy": "1"}
    assert Summary.from_values({"tokens": 10**30}).tokens is None
    assert Summary.from_values({"lr": True}).lr is None


@pytest.mark.parametrize("every_figure", [False, pytest.param(True, marks=pytest.mark.long)])
def test_summaries_full_of_junk_are_reported(
    tmp_path: Path, figures_alone: Callable[..., None], every_figure: bool
) -> None:
    """The same junk under every key, and under every key but those that say what the run was."""
    if not every_figure:
        figures_alone("loss", "gradient_ratio")
    folder = tmp_path / "runs"
    for number, junk in enumerate(JUNK):
        for name, kept in (("all", []), ("most", ["status", "settings", "seed"])):
            run = make_run(folder, f"{name}{number}", seed=number)
            values = values_of(run)
            filled = dict.fromkeys(NAMES, junk) | {key: values[key] for key in kept}
            (run / "summary.json").write_text(json.dumps(filled))
    write_runs_csv(folder)
    assert len(pd.read_csv(folder / "runs.csv")) == 2 * len(JUNK)
    assert write_report([folder], tmp_path / "out", formats=()).is_file()
    runs = [str(folder / f"{name}{number}") for name in ("all", "most") for number in (5, 7)]
    assert plots.main(["--out", str(tmp_path / "four.png"), *runs]) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_what_is_read_can_be_written_and_is_then_the_same(count: int) -> None:
    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), JSON, max_size=6))
    def every(values: Values) -> None:
        summary = Summary.from_values(values)
        for name in ("val_loss", "seconds", "lr"):
            assert getattr(summary, name) is None or isinstance(getattr(summary, name), float | int)
        again = Summary.from_values(summary.values())
        assert repr(again) == repr(summary)  # in which nan equals nan

    every()
