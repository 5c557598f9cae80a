"""Runs that count as independent draw from seeds of their own."""

import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from conftest import Cli, Sweep
from experiments.analysis.runs import find_runs, warn_of_shared_seeds
from experiments.settings.identity import SEEDS, block_of_seeds
from made_runs import make_run


def test_jobs_that_average_over_seeds_share_none(sweep: Sweep, caplog: Any) -> None:
    grid = ("experiment=init_gradients", "init_gradients.seeds=5", "init_gradients.batches=1")
    code, folder = sweep(*grid, "seed=0,1,2")
    assert code == 0
    drawn = {
        json.loads((path.parent / "summary.json").read_text())["seed"]: pd.read_csv(path)["seed"]
        for path in folder.glob("*/init_gradients.csv")
    }
    assert set(drawn[0]) == {0, 1, 2, 3, 4}  # as in all versions before
    assert set(pd.concat(drawn.values())) == set(range(15))
    firsts = {run.seed: run.summary.first_seed for run in find_runs(folder)}
    assert firsts == {0: 0, 1: 5, 2: 10}
    warn_of_shared_seeds(find_runs(folder))
    assert not [r for r in caplog.records if r.name.startswith("experiments")]


@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_blocks_of_seeds_are_disjoint_and_known_to_pytorch(count: int) -> None:
    edge = SEEDS // count
    for seeds in (range(4), range(edge - 2, edge + 2), range(2**63 - 4, 2**63)):
        blocks = [block_of_seeds(seed, count) for seed in seeds]
        drawn = list(itertools.chain(*blocks))
        assert len(set(drawn)) == len(drawn) == 4 * count
        assert min(drawn) >= 0
        assert max(drawn) < SEEDS
    assert block_of_seeds(0, count) == list(range(count))


def test_pytorch_drops_what_lies_above_its_seeds() -> None:
    """Which is why blocks are taken modulo SEEDS."""

    def drawn(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return torch.randn(4).tolist()

    assert drawn(SEEDS + 3) == drawn(3)
    assert drawn(SEEDS - 1) != drawn(SEEDS // 2 - 1)


def test_the_largest_seed_runs(cli: Cli, toy: tuple[str, ...]) -> None:
    seed = 2**63 - 1
    code, run = cli("experiment=init_gradients", *toy, f"seed={seed}", "init_gradients.seeds=3")
    assert code == 0
    expected = [(3 * seed + i) % SEEDS for i in range(3)]
    assert pd.read_csv(run / "init_gradients.csv")["seed"].unique().tolist() == expected


def test_runs_that_share_seeds_are_named(tmp_path: Path, caplog: Any) -> None:
    """Those of earlier versions, whose blocks overlap, and seeds that PyTorch takes for one."""
    for seed in range(3):
        make_run(tmp_path, f"old{seed}", seed=seed, seeds=5)
    make_run(tmp_path, "old7", seed=7, seeds=5)
    make_run(tmp_path, "other", seed=1, seeds=5, lr=0.1)  # other settings: no repetition of them
    make_run(tmp_path, "small", seed=3, placement="post_ln")
    make_run(tmp_path, "large", seed=3 + SEEDS, placement="post_ln")
    warn_of_shared_seeds(find_runs(tmp_path))
    pairs = [{Path(str(path)).name for path in r.args} for r in caplog.records]
    assert pairs == [{"old0", "old1"}, {"old0", "old2"}, {"small", "large"}]
