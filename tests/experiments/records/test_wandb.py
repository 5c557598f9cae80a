"""The W&B run: the same records as the CSV files, and its failures cost a warning."""

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from configs import settings_of
from conftest import Cli
from experiments.records.sink import METRIC_COLUMNS
from experiments.records.wandb_run import WandbSink, html_table
from normscope.stats import ACTIVATIONS, PARAMETERS, Row, catalogue, described
from same_run import summary_of, wandb_records


def logged_values(records: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    """Numbers by step and name."""
    logged: dict[tuple[int, str], float] = {}
    for record in records:
        items = record.get("history", {}).get("item", {})
        if "step" in items:
            step = int(items["step"])
            logged |= {(step, k): float(v) for k, v in items.items() if isinstance(v, float | int)}
    return logged


@pytest.mark.pictures
def test_in_full_detail_wandb_has_what_the_csv_has(cli: Cli, toy: tuple[str, ...]) -> None:
    """But what the catalogue leaves to the files, and pairs of layers."""
    wanted = ("wandb.mode=offline", "wandb.detail=full", "wandb.tags=[a,b]", "trainer.mixing=true")
    code, run = cli(*toy, *wanted, "norm=post_ln")
    assert code == 0
    assert "Post-LN" in (run / "report.html").read_text()  # its page, beside its pictures
    records = wandb_records(run)
    logged = logged_values(records)
    expected: dict[tuple[int, str], float] = {}
    for row in csv.DictReader((run / "metrics.csv").open()):
        step = int(row["step"])
        expected |= {(step, k): float(v) for k, v in row.items() if v != ""}
    for row in csv.DictReader((run / "gradients.csv").open()):
        name = f"{row['stat']}/layer_{row['layer']}/{row['component']}"
        if described(row["stat"]).live:
            expected[int(row["step"]), name] = float(row["value"])
    assert not any("stream_cosine" in name or "mixing" in name for _, name in expected)
    foreign = ("_", "tables/", "plots/")  # W&B's own, and files
    found = {key: value for key, value in logged.items() if not key[1].startswith(foreign)}
    assert found == pytest.approx(expected, rel=1e-8)  # the CSV keeps nine digits
    started = next(record["run"] for record in records if record["type"] == "run")
    assert started["job_type"] == "train"
    assert started["config"]["update"]["norm"]["placement"] == "post_ln"
    assert any(record["type"] == "exit" for record in records)
    assert list(run.glob("wandb/**/media/images/plots/loss*.png"))
    assert list(run.glob("wandb/**/media/html/tables/parameters*.html"))


def test_the_workspace_has_few_panels_in_sections(cli: Cli, toy: tuple[str, ...]) -> None:
    """The values of the CSV files under the names of sections, blocks counted from 1."""
    _, run = cli(*toy, "wandb.mode=offline", "norm=post_ln", "model.n_layers=6")
    logged = logged_values(wandb_records(run))
    sections = {name.split("/")[0] for _, name in logged if not name.startswith("_")}
    of_steps = {"step", "loss", "training", "gradients_by_block", "probes_by_block"}
    assert sections == of_steps | {"tables"}
    metrics = pd.read_csv(run / "metrics.csv").set_index("step")
    assert logged[3, "loss/validation"] == pytest.approx(metrics["val_loss"][3])
    assert logged[2, "training/grad_norm"] == pytest.approx(metrics["grad_norm"][2])
    gradients = pd.read_csv(run / "gradients.csv").query("step == 2")
    rows = gradients.set_index(["stat", "component", "layer"])["value"]
    for block in (1, 2, 3, 5, 6):
        name = f"gradients_by_block/block_{block}"
        assert logged[2, name] == pytest.approx(rows["grad_norm", "block", block - 1])
        name = f"probes_by_block/activation_rms_block_{block}"
        assert logged[2, name] == pytest.approx(rows["activation_rms", "output", block - 1])
    assert (2, "gradients_by_block/block_4") not in logged
    ratio = rows["grad_norm", "block", 5] / rows["grad_norm", "block", 0]
    assert logged[2, "gradients_by_block/last_over_first"] == pytest.approx(ratio)


class Workspace:
    """Stands for a run of W&B: keeps what is logged."""

    def __init__(self) -> None:
        self.id, self.names, self.defined = "8letters", set[str](), list[tuple[str, Any]]()

    def define_metric(self, name: str, **how: Any) -> None:
        self.defined.append((name, how))

    def log(self, values: dict[str, Any]) -> None:
        self.names |= set(values)


def everything(blocks: int) -> list[Row]:
    """A row for each statistic of the catalogue at each place of a model."""
    places = [(layer, part) for layer in range(-1, blocks + 1) for part in (*PARAMETERS, "tensor")]
    places += [(layer, part) for layer in range(blocks) for part in (*ACTIVATIONS.of, "block")]
    names = [statistic.name for statistic in catalogue()] + ["angular_distance_2"]
    return [Row(*place, name, 1.0) for name in names for place in dict.fromkeys(places)]


def names_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detail: str, records: dict[str, Any]
) -> Workspace:
    """What a run of 48 blocks logs of which everything is measured."""
    import wandb

    workspace = Workspace()
    monkeypatch.setattr(wandb, "init", lambda **_: workspace)
    settings = settings_of("model.n_layers=48", f"wandb.detail={detail}")
    sink = WandbSink(tmp_path, settings, records)
    sink.step(0, dict.fromkeys(METRIC_COLUMNS[1:], 1.0), everything(48))
    assert sink.state()["wandb_id"] == workspace.id
    return workspace


def test_no_run_has_more_than_sixty_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = names_of_everything(tmp_path, monkeypatch, "summary", {})
    files = [*(f"plots/{name}" for name in PICTURES_OF_TRAINING), "tables/parameters"]
    assert len(workspace.names) + len([*files, "tables/memory"]) <= 60
    shown = sorted(name for name in workspace.names if name.startswith("gradients_by_block/b"))
    assert shown == [f"gradients_by_block/block_{block:02}" for block in (1, 13, 25, 36, 48)]
    for name in workspace.names | set(files):  # what W&B can sort and filter by, in sections
        assert re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?", name)
    assert workspace.defined == [("step", {"hidden": True}), ("*", {"step_metric": "step"})]


PICTURES_OF_TRAINING = (
    *("loss", "gradient_by_layer", "gradient_heatmap", "activations_by_layer", "mixing"),
    *("parameters", "memory"),
)


def test_a_run_that_began_with_all_names_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the checkpoints of version 0.5.0, which say nothing of a detail."""
    names = {
        how: names_of_everything(tmp_path, monkeypatch, detail, records).names
        for how, detail, records in (
            ("full", "full", {}),
            ("older", "summary", {"wandb_id": "8letters"}),
            ("summary", "summary", {"wandb_id": "8letters", "wandb_detail": "summary"}),
        )
    }
    assert {"train_loss", "grad_norm/layer_47/block"} < names["full"]
    assert names["older"] == names["full"]
    assert len(names["summary"]) <= 60


def test_failures_of_wandb_cost_a_warning(
    cli: Cli,
    toy: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the start, in the middle and at the end: the run and its CSV files are whole."""
    import wandb

    started: list[Any] = []

    class Broken:
        def __init__(self, at: str) -> None:
            self.at, self.summary = at, {}

        def define_metric(self, *args: Any, **kwargs: Any) -> None: ...

        def log(self, values: Any) -> None:
            if self.at == "log":
                raise OSError("no space")

        def finish(self, **kwargs: Any) -> None:
            self.finished = True
            if self.at == "finish":
                raise TimeoutError("never ends")

    def start(at: str) -> Any:
        if at == "init":
            raise wandb.errors.CommError("service is away")
        started.append(Broken(at))
        return started[-1]

    _, plain = cli(*toy)
    for at in ("init", "log", "finish"):
        monkeypatch.setattr(wandb, "init", lambda at=at, **kwargs: start(at))
        code, run = cli(*toy, "wandb.mode=offline")
        assert code == 0
        assert summary_of(run)["status"] == "finished"
        assert (run / "gradients.csv").read_bytes() == (plain / "gradients.csv").read_bytes()
        warnings = [r for r in caplog.records if r.name == WandbSink.__module__]
        assert len(warnings) == 1
        caplog.clear()
    assert all(run.finished for run in started)


def test_a_table_shows_texts_without_the_guard_of_a_csv_file() -> None:
    table = html_table([{"here": "-0.36 and 0.20", "text": "a<b\x1b", "value": -0.5, "none": None}])
    assert "<td>-0.36 and 0.20</td><td>a&lt;b\\x1b</td><td>-0.5</td><td></td>" in table
