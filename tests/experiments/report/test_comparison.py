"""Several runs in one picture: what is drawn of each, and what it is called."""

import math
from pathlib import Path

import pandas as pd
import pytest

from experiments.analysis.runs import Run, read_summary
from experiments.report.comparison import compare, gradient_ratio, labels
from gpt import ConfigError
from made_runs import make_run


def named(folder: Path, *runs: dict[str, object]) -> list[str]:
    made = [make_run(folder, f"run{i}", **options) for i, options in enumerate(runs)]  # type: ignore[arg-type]
    return labels([Run(directory, read_summary(directory)) for directory in made])


def test_a_legend_has_what_differs_between_the_runs(tmp_path: Path) -> None:
    three = named(tmp_path / "three", {"warmup": 200}, {"placement": "post_ln"}, {"lr": 3e-3})
    assert three == [
        "Pre-LN, lr 0.001, warm-up 200",
        "Post-LN, lr 0.001, no warm-up",
        "Pre-LN, lr 0.003, no warm-up",
    ]
    assert named(tmp_path / "b2t", {"placement": "b2t"}, {}) == ["B2T", "Pre-LN"]
    assert named(tmp_path / "seeds", {}, {"seed": 1}) == ["seed 0", "seed 1"]
    assert named(tmp_path / "equal", {}, {}) == ["run0", "run1"]


def test_the_ratio_is_that_of_the_last_block_to_the_first() -> None:
    norms = {(0, 0): 2.0, (0, 1): 5.0, (0, 2): 3.0, (1, 0): 0.0, (1, 2): 1.0, (2, 0): 4.0}
    norms |= {(2, 2): math.inf, (3, 0): 1e-3, (3, 2): 8.0}
    rows = [
        {"step": step, "layer": layer, "component": "block", "stat": "grad_norm", "value": value}
        for (step, layer), value in norms.items()
    ]
    rows.append({**rows[0], "stat": "grad_rms", "value": 7.0})
    ratio = gradient_ratio(pd.DataFrame(rows))
    assert ratio.to_dict() == pytest.approx({0: 1.5, 3: 8000.0})  # the others are no ratios


def test_runs_that_did_not_train_are_refused(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "trained"), make_run(tmp_path, "measured", val_losses=(4.0,))]
    with pytest.raises(ConfigError, match="must be a training run"):
        compare(runs, tmp_path / "both.png")
    assert not (tmp_path / "both.png").exists()
