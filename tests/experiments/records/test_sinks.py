"""A sink is added in one place, sees every record, and gets back what a checkpoint kept of it."""

import csv
import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import run as cli_module
from configs import settings_of
from conftest import ROOT, Cli
from experiments.analysis.histories import read_csv
from experiments.records import sinks
from experiments.records.csv_files import CsvSink
from experiments.records.sink import Metrics, Table, format_cell, read_rows
from experiments.records.summary import Summary
from experiments.settings.schema import Settings
from experiments.training.loop import Trainer
from normscope import MixingRow
from normscope.stats import Row
from same_run import state_of


class Remembering:
    """Keeps all that it is given, for runs of one seed alone."""

    made: list["Remembering"]
    seed = 0

    def __init__(self, directory: Path, settings: Settings, records: Mapping[str, Any]) -> None:
        self.before = records.get("remembered", 0)
        self.steps: list[tuple[int, dict[str, Any], list[Row]]] = []
        self.mixed: list[tuple[int, list[MixingRow]]] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.ends: list[Summary] = []
        self.made.append(self)

    @staticmethod
    def is_wanted(settings: Settings) -> bool:
        return settings.seed == Remembering.seed

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None:
        self.steps.append((step, dict(metrics), list(rows)))

    def mixing(self, step: int, rows: Sequence[MixingRow]) -> None:
        self.mixed.append((step, list(rows)))

    def table(self, name: str, table: Table) -> None:
        self.tables[name] = [dict(row) for row in table]

    def state(self) -> dict[str, Any]:
        return {"remembered": self.before + len(self.steps)}

    def finish(self, summary: Summary, pictures: Sequence[Path]) -> None:
        self.ends.append(summary)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Remembering]:
    """Adds the sink; gives those that were opened."""
    monkeypatch.setattr(sinks, "SINKS", [*sinks.SINKS, Remembering])
    monkeypatch.setattr(Remembering, "made", [], raising=False)
    return Remembering.made


def cells(row: Mapping[str, Any]) -> dict[str, str]:
    """As the row stands in a CSV file, without what it leaves empty."""
    return {name: format_cell(value) for name, value in row.items() if value is not None}


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value != ""} for row in rows]


def test_a_sink_added_in_one_place_sees_every_record(
    cli: Cli, toy: tuple[str, ...], made: list[Remembering]
) -> None:
    _, run = cli(*toy, "seed=1")
    assert not made  # it is not wanted there
    code, run = cli(*toy, "trainer.mixing=true")
    assert code == 0
    (sink,) = made
    metrics = [cells({"step": step, **values}) for step, values, _ in sink.steps]
    assert metrics == lines(run / "metrics.csv")
    rows = [cells({"step": step, **row._asdict()}) for step, _, of in sink.steps for row in of]
    assert rows == lines(run / "gradients.csv")
    pairs = [cells({"step": step, **row._asdict()}) for step, of in sink.mixed for row in of]
    assert pairs == lines(run / "mixing.csv")
    assert set(sink.tables) == {"parameters", "memory"}
    for name, table in sink.tables.items():
        assert list(map(cells, table)) == lines(run / f"{name}.csv")
    (summary,) = sink.ends
    assert summary.status == "finished"
    assert summary.val_loss == json.loads((run / "summary.json").read_text())["val_loss"]


@pytest.mark.parametrize(
    "experiment", ["shortcut", "activations", "parameters", "init_gradients", "memory"]
)
def test_every_runner_reaches_every_sink(
    cli: Cli, toy: tuple[str, ...], made: list[Remembering], experiment: str
) -> None:
    code, run = cli(f"experiment={experiment}", *toy, "seed=0")
    assert code == 0
    (sink,) = made
    assert {f"{name}.csv" for name in sink.tables} <= {path.name for path in run.iterdir()}
    assert sink.tables
    assert len(sink.ends) == 1


def test_a_run_refused_before_its_first_record_opens_no_sink(
    cli: Cli, toy: tuple[str, ...], made: list[Remembering]
) -> None:
    code, run = cli(*toy, "generate.prompt=ZZZ")
    assert code == 1
    assert not made
    assert not list(run.glob("*.csv"))


def test_a_sink_gets_back_what_the_checkpoint_kept(
    cli: Cli, toy: tuple[str, ...], made: list[Remembering], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run continued in between without it, as after wandb.mode=disabled."""
    original = Trainer._step
    stops = {1, 2}

    def step(self: Trainer, number: int) -> None:
        if number in stops:
            stops.remove(number)
            signal.raise_signal(signal.SIGTERM)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy, "trainer.steps=4")
    assert code == 143
    assert state_of(run)["records"]["remembered"] == 2
    monkeypatch.setattr(Remembering, "seed", None)
    assert cli_module.main([f"resume={run}"]) == 143
    assert len(made) == 1
    assert state_of(run)["records"]["remembered"] == 2
    monkeypatch.setattr(Remembering, "seed", 0)
    assert cli_module.main([f"resume={run}"]) == 0
    assert [sink.before for sink in made] == [0, 2]
    assert [step for step, *_ in made[1].steps] == [3, 4]


def test_every_sink_is_finished_whatever_another_raises(
    cli: Cli, toy: tuple[str, ...], made: list[Remembering], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Remembering):
        def finish(self, summary: Summary, pictures: Sequence[Path]) -> None:
            raise OSError("no space")

    monkeypatch.setattr(sinks, "SINKS", [Failing, *sinks.SINKS])
    code, _ = cli(*toy)
    assert code == 1
    assert [len(sink.ends) for sink in made] == [0, 1]


GUARDED = ["-0.3596 and 0.2015", "=1+1", "+2", "@SUM(A1)", "'-1", "''=1", "'quoted'", "plain", ""]


def test_a_text_that_a_spreadsheet_would_compute_is_guarded_in_the_file_alone(
    tmp_path: Path,
) -> None:
    """The file has an apostrophe before it; whoever reads the file has the text."""
    sink = CsvSink(tmp_path, settings_of(), {})
    sink.table("texts", [{"text": text, "value": -1.5, "count": 3} for text in GUARDED])
    with (tmp_path / "texts.csv").open(newline="") as file:
        written = [row["text"] for row in csv.DictReader(file)]
    assert written[:6] == [f"'{text}" for text in GUARDED[:6]]
    assert written[6:] == GUARDED[6:]
    with (tmp_path / "texts.csv").open(newline="") as file:
        rows = list(read_rows(file))
    assert [row["text"] for row in rows] == GUARDED
    assert {row["value"] for row in rows} == {"-1.5"}
    table = read_csv(tmp_path / "texts.csv")
    assert table["text"].fillna("").tolist() == GUARDED
    assert table["value"].tolist() == [-1.5] * len(GUARDED)


def test_every_csv_file_is_read_where_the_guard_is_taken_away() -> None:
    """By `read_rows` or `parse_csv`; a checkpoint's sink reads the head of its own file."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "experiments").rglob("*.py")
        if re.search(r"csv\.(reader|DictReader)\(|pd\.read_csv\(", path.read_text())
    }
    assert readers == {
        "experiments/records/sink.py",
        "experiments/records/csv_files.py",
        "experiments/analysis/histories.py",
    }
