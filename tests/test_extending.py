"""docs/extending.md, followed literally: every block is added to its file and runs."""

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import test_placement as placements
import torch

import equations
import experiments.runners
from configs import small_model
from conftest import ROOT, Cli
from experiments import runner
from experiments.claims import CLAIMS, board
from experiments.claims.rule import HOLDS
from experiments.records import sinks
from experiments.report import run_pictures
from gpt import ACTIVATIONS, INITS, NORMS, PLACEMENTS, POSITIONS
from normscope.__main__ import page
from normscope.stats import ACTIVATIONS as POINT

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = dict(
    re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
)
TABLES: tuple[dict[str, Any], ...] = (
    *(PLACEMENTS, NORMS, ACTIVATIONS, POSITIONS, INITS, CLAIMS),
    *(POINT.statistics, equations.PAPERS),
)

Add = Callable[..., None]
Train = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """Adds blocks of the page to their files, for one test."""
    before = [dict(table) for table in TABLES]
    monkeypatch.setattr(sinks, "SINKS", list(sinks.SINKS))
    monkeypatch.setattr(run_pictures, "PICTURES", run_pictures.PICTURES)

    def to_file(name: str) -> None:
        added = tmp_path / "added" / name
        added.parent.mkdir(parents=True, exist_ok=True)
        added.write_text(BLOCKS[name])
        if name.startswith("conf/") or "/runners/" in name:
            return
        path, _, _ = name.removeprefix("tests/").partition(".py")
        module = importlib.import_module(path.replace("/", "."))
        names = dict(vars(module))
        # By its file, in which a claim's hash finds the measurement's source.
        exec(compile(BLOCKS[name], added, "exec"), names)
        monkeypatch.setattr(run_pictures, "PICTURES", names.get("PICTURES", run_pictures.PICTURES))

    yield lambda *names: [to_file(name) for name in names] and None
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.fixture
def train(cli: Cli, toy: tuple[str, ...], tmp_path: Path) -> Train:
    """Runs the command line with what was added to conf/; gives the run's directory."""

    def call(*overrides: str) -> Path:
        conf = tmp_path / "added" / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        code, run = cli(*toy, f"hydra.searchpath=[file://{conf}]", *overrides)
        assert code == 0
        return run

    return call


def test_every_block_is_tried() -> None:
    source = Path(__file__).read_text()
    assert len(BLOCKS) == len(re.findall(r"^```(?:python|yaml)$", PAGE, re.MULTILINE))
    assert [name for name in BLOCKS if f'"{name}"' not in source] == []


def test_a_placement(add: Add, train: Train) -> None:
    add("gpt/placement.py", "conf/norm/rezero.yaml", "tests/equations.py")
    run = train("norm=rezero", "norm.options.start=0.5")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["placement"], summary["start"]) == ("rezero", 0.5)
    rows = pd.read_csv(run / "gradients.csv")
    assert set(rows[rows["component"] == "placement"]["layer"]) == {0, 1}
    assert "attention.norm.weight" in set(rows["component"])
    placements.test_invariants({"norm.placement": "rezero"})
    placements.test_shortcut_off_passes_no_input_through("rezero")
    placements.test_counts_equal_the_closed_form("rezero", "layer_norm")
    for shortcut in (True, False):
        equation = equations.PAPERS["rezero"].layers[0]
        changes = {"norm.placement": "rezero", "norm.options.start": 0.5, "shortcut": shortcut}
        model = equations_hold(changes, equation, float(shortcut))
        assert dataclasses.asdict(PLACEMENTS["rezero"].Options()) == {"start": 0.0}
        assert model.config.norm.options == {"start": 0.5}


def equations_hold(changes: dict[str, Any], equation: Callable[..., Any], shortcut: float) -> Any:
    """A block of the model equals the equation, in float64; gives the model."""
    model = small_model(changes)
    x = torch.randn(2, 8, 12, dtype=torch.float64)
    for block in model.blocks:
        written = equation(equations.Written(block, model.config), x, shortcut)
        torch.testing.assert_close(block(x), written, atol=1e-11, rtol=1e-11)
    return model


def test_a_kind_of_norm(add: Add, train: Train) -> None:
    add("gpt/norm.py")
    run = train("norm.kind=scale_norm", "norm=sub_ln")
    counts = pd.read_csv(run / "parameters.csv").set_index(["layer", "component"])["parameters"]
    assert counts[0, "norm"] == 4  # two of the block, one in each branch, a scalar each
    assert counts[2, "final_norm"] == 1


def test_an_activation(add: Add, train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    add("gpt/activation.py")
    train("activation=softsign")
    table = pd.read_csv(train("experiment=activations") / "activations.csv")
    assert "softsign" in set(table["activation"])


def test_a_position_encoding(add: Add, train: Train) -> None:
    add("gpt/position.py")
    run = train("model.position.kind=sinusoidal")
    assert "position_embedding" not in set(pd.read_csv(run / "parameters.csv")["component"])


def test_an_initialisation(add: Add, train: Train) -> None:
    add("gpt/init.py", "conf/init/small_branches.yaml")
    run = train("init=small_branches", "experiment=init_gradients")
    assert json.loads((run / "summary.json").read_text())["init"] == "small_branches"


def test_a_statistic(add: Add, train: Train) -> None:
    add("normscope/streams.py")
    rows = pd.read_csv(train() / "gradients.csv")
    places = ["step", "layer", "component"]
    means, roots = (
        rows[rows["stat"] == f"activation_{of}"].set_index(places)["value"]
        for of in ("mean_abs", "rms")
    )
    assert {"input", "output", "sum_1"} <= set(means.index.get_level_values("component"))
    assert means.between(0, roots, inclusive="neither").all()
    assert "`activation_mean_abs`" in page()


def test_a_sink(add: Add, train: Train) -> None:
    add("experiments/records/sinks.py")
    run = train()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    table = pd.read_csv(run / "metrics.csv")
    assert [line["step"] for line in lines] == table["step"].tolist()


@pytest.mark.pictures
def test_a_figure(add: Add, train: Train) -> None:
    add("experiments/report/run_pictures.py")
    assert (train() / "plots" / "learning_rate.png").stat().st_size > 5000


def test_a_runner(add: Add, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("experiments/runners/vocabulary.py", "conf/experiment/vocabulary.yaml")
    folder = tmp_path / "added" / "experiments" / "runners"
    places = [*experiments.runners.__path__, str(folder)]
    monkeypatch.setattr(experiments.runners, "__path__", places)
    monkeypatch.setattr(runner, "FOLDER", folder)
    run = train("experiment=vocabulary")
    (row,) = pd.read_csv(run / "vocabulary.csv").to_dict("records")
    assert 0 < row["distinct"] < row["tokens"]


def test_a_claim(add: Add, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("experiments/claims/gpt_laws.py")
    monkeypatch.setattr(board, "FOR_RUNS", ("",))  # toy sizes, which a user may not give
    monkeypatch.setattr(board, "workers_for", lambda *_: 1)
    monkeypatch.setattr(board, "write_page", lambda directory: None)
    kept = f"claims.runs={tmp_path}/kept"
    run = train("experiment=claims", "claims.only=uniform_guess", "claims.budget=quick", kept)
    (row,) = pd.read_csv(run / "claims.csv").to_dict("records")
    assert (row["seeds"], row["claim_verdict"]) == (6, HOLDS)
    assert row["evidence"] == "exploratory"
