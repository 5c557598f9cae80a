"""What a run recorded, and whether two of them recorded and computed the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

# What two runs need not share: times, and the memory of the process.
TIMED = {"metrics.csv": ["tokens_per_s", "memory_mb"], "memory.csv": ["measured_bytes"]}


def summary_of(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return values


def state_of(run: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / name, weights_only=True)
    return state


def wandb_records(run: Path) -> list[dict[str, Any]]:
    """What the file of an offline W&B run holds, read by W&B's own tool."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    tool = Path(sys.executable).with_name("wandb")
    command = [str(tool), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_equal(one: Any, other: Any, where: str) -> None:
    """Nested state, tensors bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
        assert torch.equal(*bits), where
    else:
        assert one == other, where


def assert_same_run(run: Path, whole: Path) -> None:
    """Every CSV file byte for byte, what was timed aside; weights and optimizer bit for bit."""
    names = sorted(path.name for path in whole.glob("*.csv"))
    assert sorted(path.name for path in run.glob("*.csv")) == names
    for name in names:
        if name in TIMED:
            tables = [
                pd.read_csv(place / name, dtype=str).drop(columns=TIMED[name])
                for place in (run, whole)
            ]
            pd.testing.assert_frame_equal(*tables)
        else:
            assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert not [path.name for path in run.rglob("*.tmp")]
    ends = [summary_of(place) for place in (run, whole)]
    losses = ("train_loss", "val_loss", "spikes", "spike_steps", "stuck", "clip_share")
    for name in ("status", "steps", "tokens", "grad_norm", "diverged_at_step", *losses):
        assert ends[0].get(name) == ends[1].get(name), name
    if (whole / "checkpoint.pt").is_file():
        states = [state_of(place) for place in (run, whole)]
        for name in ("model", "optimizer", "random", "step", "tokenizer", "corpus_sha256"):
            assert_equal(states[0][name], states[1][name], name)
        assert_equal(*(state.get("scaler") for state in states), "scaler")
        for name in ("settled", "losses", "spikes", "spike_steps", "clipped"):
            progress = [state["progress"][name] for state in states]
            assert_equal(*progress, f"progress.{name}")
    for name in ("sample.txt", "best.pt"):
        assert (run / name).is_file() == (whole / name).is_file(), name
    if (whole / "sample.txt").is_file():
        assert (run / "sample.txt").read_bytes() == (whole / "sample.txt").read_bytes()
    if (whole / "best.pt").is_file():
        best = [state_of(place, "best.pt") for place in (run, whole)]
        assert_equal(best[0]["model"], best[1]["model"], "best")
