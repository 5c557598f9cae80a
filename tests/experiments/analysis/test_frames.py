"""Recorded runs as DataFrames."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import Sweep
from experiments.analysis import load
from made_runs import make_run
from same_run import summary_of


def test_a_sweep_as_two_tables(sweep: Sweep) -> None:
    code, folder = sweep("norm=mix_ln", "optimizer.lr=1e-3,1e30")
    assert code == 0
    runs, gradients = load(folder)
    assert runs["status"].tolist() == ["finished", "diverged"]
    for row in runs.itertuples():
        summary = summary_of(Path(row.run))
        assert row.seed == summary["seed"]
        own = gradients[gradients["run"] == row.run].drop(columns="run").reset_index(drop=True)
        read = pd.read_csv(Path(row.run) / "gradients.csv")
        pd.testing.assert_frame_equal(own, read, check_dtype=False, check_categorical=False)
    numbers = runs.set_index("run")
    for name, row in numbers.iterrows():
        summary = summary_of(Path(str(name)))
        assert row["optimizer.lr"] == summary["settings"]["optimizer"]["lr"]
        assert row["norm.placement"] == summary["placement"]
        assert row["parameters"] == summary["parameters"]
        if row["status"] == "finished":
            assert row["val_loss"] == summary["val_loss"]
    types = runs.dtypes.astype(str).to_dict()
    expected = {
        "seed": "Int64",
        "trainer.steps": "Int64",
        "optimizer.lr": "float64",
        "norm.placement": "string",
        "shortcut": "boolean",
        "norm.options.fraction": "float64",
        "val_loss": "float64",
        "diverged_at_step": "Int64",
        "stuck": "boolean",
        "clip_share": "float64",
        "status": "string",
    }
    assert {name: types[name] for name in expected} == expected
    assert gradients.dtypes.astype(str).to_dict() == {
        "run": "category",
        "step": "int64",
        "layer": "int32",
        "component": "category",
        "stat": "category",
        "value": "float64",
    }
    assert not gradients.duplicated(["run", "step", "layer", "component", "stat"]).any()
    bytes_per_row = gradients.memory_usage(index=False, deep=False).sum() / len(gradients)
    assert bytes_per_row < 30  # 24, and the names of a short table


def test_nothing_is_kept_that_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    make_run(tmp_path, "a", n_layers=3)
    make_run(tmp_path, "b", seed=1, n_layers=3)
    _, gradients = load(tmp_path, stats=["grad_norm"], components=["block"])
    assert len(gradients) == 2 * 3 * 3
    assert gradients["stat"].cat.categories.tolist() == ["grad_norm"]
    assert gradients["component"].cat.categories.tolist() == ["block"]
    assert not caplog.messages
    load(tmp_path, stats=["grad_nrom"])
    assert caplog.messages == ["no gradients.csv has the stat 'grad_nrom'"]
    (tmp_path / "a" / "gradients.csv").unlink()
    (tmp_path / "a" / "gradients.csv").mkdir()  # reading it would cost a warning
    caplog.clear()
    runs, gradients = load(tmp_path, stats=())
    assert (len(runs), len(gradients)) == (2, 0)
    assert list(gradients) == ["run", "step", "layer", "component", "stat", "value"]
    assert not caplog.messages


def test_several_folders_and_runs_that_are_in_two_of_them(tmp_path: Path, caplog: Any) -> None:
    make_run(tmp_path / "one", "a")
    make_run(tmp_path / "one", "b", seed=1, settings_sha256="b")
    make_run(tmp_path / "two", "c", seed=2, placement="post_ln")
    make_run(tmp_path / "two", "d", seed=1, settings_sha256="b")
    runs, gradients = load(tmp_path / "one", str(tmp_path / "two"), tmp_path / "one" / "a")
    assert [Path(run).name for run in runs["run"]] == ["a", "b", "c"]
    assert [Path(run).name for run in gradients["run"].cat.categories] == ["a", "b", "c"]
    assert any("d repeats" in message for message in caplog.messages)
    by_run = gradients.groupby("run", observed=True).size()
    assert by_run.nunique() == 1


def test_torn_and_foreign_files_cost_a_warning(tmp_path: Path, caplog: Any) -> None:
    make_run(tmp_path, "whole")
    torn = make_run(tmp_path, "torn", seed=1) / "gradients.csv"
    text = torn.read_text()
    torn.write_text(text + text.splitlines()[-1].rpartition(",")[0] + ",0.25\n" + "3,1,blo")
    (make_run(tmp_path, "other", seed=2) / "gradients.csv").write_text("a,b\n1,2\n")
    (make_run(tmp_path, "none", seed=3) / "gradients.csv").unlink()
    odd = make_run(tmp_path, "odd", seed=4) / "gradients.csv"
    odd.write_text(text + "inf,0,block,grad_norm,1\n1e300,0,block,grad_norm,1\n0,0,0,x,word\n")
    with caplog.at_level(logging.WARNING):
        runs, gradients = load(tmp_path)
    assert len(runs) == 5
    rows = {Path(run).name: part for run, part in gradients.groupby("run", observed=True)}
    assert set(rows) == {"whole", "torn", "odd"}
    assert len(rows["torn"]) == len(rows["whole"])
    assert rows["torn"]["value"].iloc[-1] == 0.25  # of repeated rows the last counts
    assert len(rows["odd"]) == len(rows["whole"]) + 1
    assert np.isnan(rows["odd"]["value"].iloc[-1])
    assert "torn/gradients.csv: its last line is incomplete" in caplog.text
    assert "other/gradients.csv is left out: it has no column" in caplog.text


def test_folders_without_runs(tmp_path: Path, caplog: Any) -> None:
    runs, gradients = load(tmp_path)
    assert (len(runs), len(gradients)) == (0, 0)
    assert "holds no runs" in caplog.text
    with pytest.raises(NotADirectoryError, match="absent is not a directory of runs"):
        load(tmp_path / "absent")


def test_settings_that_no_run_of_ours_has(tmp_path: Path) -> None:
    odd = {"seed": 10**30, "norm": {"placement": "a"}, "shortcut": "yes", "optimizer": {"lr": 1}}
    make_run(tmp_path, "odd", settings=odd)
    make_run(tmp_path, "usual")
    runs, _ = load(tmp_path)
    assert runs["optimizer.lr"].tolist() == [1.0, 1e-3]
    assert str(runs["optimizer.lr"].dtype) == "float64"
