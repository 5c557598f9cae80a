"""Runs whose files are written by hand, so that the right answer is known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HOSTILE = "<script>alert(1)</script>"


def make_run(
    folder: Path,
    name: str,
    *,
    placement: str = "pre_ln",
    seed: int = 0,
    n_layers: int = 2,
    lr: float = 1e-3,
    warmup: int = 0,
    init: str = "xavier",
    norm: Mapping[str, Any] | None = None,
    val_losses: Sequence[float] = (4.0, 3.0, 2.0),
    last_block: float = 0.5,
    status: str = "finished",
    **more: Any,
) -> Path:
    """A run's CSV and JSON files: three steps of `n_layers` blocks."""
    directory = folder / name
    directory.mkdir(parents=True)
    rows = [
        f"{step},{step * 10},{loss},{loss},{lr},1,,100,5" for step, loss in enumerate(val_losses)
    ]
    columns = "step,tokens,train_loss,val_loss,lr,grad_norm,clip_factor,tokens_per_s,memory_mb"
    (directory / "metrics.csv").write_text("\n".join([columns, *rows]) + "\n")
    gradients = ["step,layer,component,stat,value"]
    for step in range(len(val_losses)):
        for layer in range(n_layers):
            share = layer / max(n_layers - 1, 1)
            value = 1.0 + share * (last_block - 1.0)  # from 1 in the first block
            gradients.append(f"{step},{layer},block,grad_norm,{value}")
            gradients.append(f"{step},{layer},output,activation_rms,{1 + layer}")
            gradients.append(f"{step},{layer},block,update_ratio,0.001")
            gradients.append(f"{step},{layer},attention,attention_entropy,0.9")
    (directory / "gradients.csv").write_text("\n".join(gradients) + "\n")
    memory = "kind,predicted_bytes,measured_bytes\nparameters,100,100\npeak,2097152,4194304\n"
    (directory / "memory.csv").write_text(memory)
    settings = {
        "runner": "train",
        "seed": seed,
        "norm": {"placement": placement, **(norm or {})},
        "init": {"scheme": init},
        "model": {"n_layers": n_layers},
        "optimizer": {"lr": lr},
        "schedule": {"warmup_steps": warmup},
    }
    blocks = {"first_block": 1.0, "last_block": last_block}
    summary = {
        "status": status,
        "seed": seed,
        "settings": settings,
        "overrides": [f"norm={placement}", f"seed={seed}", "sweep.rerun=all"],
        "train_loss": val_losses[-1],
        "val_loss": val_losses[-1],
        "initial_val_loss": val_losses[0],
        "init": init,
        "corpus": {"name": "made", "sha256": "00", "unigram_validation_loss": 3.0},
        "grad_norm": {"first_step": blocks, "last_step": blocks},
        "parameters": 1234,
        "versions": {"torch": "2.13.0", "threads": "1"},
        **more,
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def finish_at_once(
    values: Mapping[str, Any], overrides: Sequence[str], directory: Path, bars: bool
) -> int:
    """Stands in for `launch_job`: the job has finished without having run."""
    settings = {name: values[name] for name in ("seed", "norm", "activation")}
    summary = {"status": "finished", "seed": values["seed"], "settings": settings, "val_loss": 3.0}
    (directory / "summary.json").write_text(json.dumps(summary))
    return 0
