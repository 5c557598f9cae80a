"""The W&B run: the same records as the CSV files, and its failures cost a warning."""

import csv
from typing import Any

import pytest

from conftest import Cli
from experiments.records.wandb_run import WandbSink
from normscope.stats import described
from same_run import summary_of, wandb_records


@pytest.mark.pictures
def test_wandb_file_holds_what_the_csv_holds(cli: Cli, toy: tuple[str, ...]) -> None:
    """But what the catalogue leaves to the files, and pairs of layers."""
    wanted = ("wandb.mode=offline", "wandb.tags=[a,b]", "trainer.mixing=true")
    code, run = cli(*toy, *wanted, "norm=post_ln")
    assert code == 0
    assert "Post-LN" in (run / "report.html").read_text()  # its page, beside its pictures
    records = wandb_records(run)
    logged: dict[tuple[int, str], float] = {}
    for record in records:
        items = record.get("history", {}).get("item", {})
        if "step" in items:
            step = int(items["step"])
            logged |= {(step, k): float(v) for k, v in items.items() if isinstance(v, float | int)}
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
