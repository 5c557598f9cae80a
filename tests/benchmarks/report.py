"""Time, memory and size of the report on 200 runs: `python -m tests.benchmarks.report [DIR]`.

The runs are made up: 2 placements x 4 learning rates x 5 lengths of warm-up x 5 seeds, 1,000
steps of 12 layers each, in files as a run writes them.
"""

import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

STEPS, LAYERS, PROBE_EVERY = 1000, 12, 50
COMPONENTS = ("attention", "feed_forward", "norm", "block")
OTHERS = ((-1, "token_embedding"), (-1, "position_embedding"), (LAYERS, "norm"), (LAYERS, "head"))


def make_run(folder: Path, placement: str, rate: float, warmup: int, seed: int) -> None:
    """One run's files."""
    random = np.random.default_rng([seed, warmup, int(rate * 1e6), len(placement)])
    name = f"{placement}-lr{rate}-warmup_steps{warmup}-seed{seed}"
    directory = folder / name
    directory.mkdir(parents=True)
    loss = 3 + 6 * np.exp(-np.arange(STEPS + 1) / 200) + 0.1 * random.standard_normal(STEPS + 1)
    with (directory / "metrics.csv").open("w") as file:
        file.write("step,tokens,train_loss,val_loss,lr,grad_norm,clip_factor,tokens_per_s\n")
        for step in range(STEPS + 1):
            val = f"{loss[step]:.9g}" if step % PROBE_EVERY == 0 else ""
            file.write(f"{step},{step * 1024},{loss[step]:.9g},{val},{rate},1.5,,12000\n")
    places = [(layer, part) for layer in range(LAYERS) for part in COMPONENTS] + [*OTHERS]
    with (directory / "gradients.csv").open("w") as file:
        file.write("step,layer,component,stat,value\n")
        for step in range(STEPS):
            values = random.lognormal(size=(2, len(places)))
            for stat, row in zip(("grad_norm", "grad_rms"), values, strict=True):
                file.writelines(
                    f"{step},{layer},{part},{stat},{value:.9g}\n"
                    for (layer, part), value in zip(places, row, strict=True)
                )
            if step % PROBE_EVERY == 0:
                for layer in range(LAYERS):
                    file.write(f"{step},{layer},output,activation_rms,{1 + layer}\n")
                    file.write(f"{step},{layer},block,update_ratio,0.001\n")
                    file.write(f"{step},{layer},attention,attention_entropy,0.9\n")
    (directory / "memory.csv").write_text("kind,predicted_bytes,measured_bytes\npeak,1000,1100\n")
    settings = {
        "runner": "train",
        "seed": seed,
        "norm": {"placement": placement},
        "optimizer": {"lr": rate},
        "schedule": {"warmup_steps": warmup},
        "model": {"n_layers": LAYERS},
    }
    ends = {"first_block": 0.3, "last_block": 0.2}
    summary = {
        "status": "finished",
        "seed": seed,
        "settings": settings,
        "overrides": [f"norm={placement}", f"optimizer.lr={rate}", f"seed={seed}"],
        "val_loss": float(loss[-1]),
        "initial_val_loss": float(loss[0]),
        "train_loss": float(loss[-1]),
        "corpus": {"unigram_validation_loss": 6.4},
        "grad_norm": {"first_step": ends, "last_step": ends},
        "parameters": 1000,
    }
    (directory / "summary.json").write_text(json.dumps(summary))


def main(arguments: Sequence[str]) -> None:
    """Make the runs where there are none, write the report, and tell what it cost."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[0] if arguments else temporary) / "200_runs"
        if not folder.is_dir():
            grid = itertools.product(
                ("pre_ln", "post_ln"), (3e-4, 1e-3, 3e-3, 1e-2), (0, 10, 30, 100, 300), range(5)
            )
            for placement, rate, warmup, seed in grid:
                make_run(folder, placement, rate, warmup, seed)
        started = time.perf_counter()
        from experiments.report import write_report

        page = write_report([folder], folder)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = page.stat().st_size / 1e6
        print(f"200 runs: {seconds:.1f} s, {peak:,.0f} MB at most, a page of {size:.1f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
