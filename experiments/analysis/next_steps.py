"""Which command goes on from some runs."""

import re
import shlex
from collections.abc import Sequence

from experiments.analysis.arms import RATE, WARMUP, Arm, Layout
from experiments.analysis.runs import PLACEMENT, Run
from experiments.analysis.titles import runs_of

# From one experiment to the next: a path from the book's network to the papers' claims.
AFTER = {
    "activations": "experiment=shortcut",
    "shortcut": "experiment=init_gradients norm=post_ln",
    "init_gradients": "-m experiment=init_gradients norm=pre_ln,post_ln model.n_layers=2,4,8,16",
    "parameters": "experiment=model_sizes",
    "model_sizes": "experiment=parameters model=gpt2_1558m",
    "memory": "experiment=parameters",
    "generate": "experiment=train",
    "export": "experiment=model_sizes",
    "lecture": "-m experiment=lesson",
    "xiong_figure_3": "experiment=wang_figure_5",
    "wang_figure_5": "experiment=sun_figure_4",
    "sun_figure_4": "experiment=claims claims.budget=quick",
    "claims": "-m experiment=lesson",
    "train": "-m experiment=lesson",
    "lesson": "-m experiment=warmup",
    "warmup": "-m experiment=depth",
    "depth": "-m experiment=optimizers",
    "seeds": "-m experiment=warmup",
    "optimizers": "-m experiment=placements seed=0 optimizer.lr=1e-3",
    "placements": "experiment=claims claims.budget=quick",
    "atlas": "-m experiment=placements seed=0 optimizer.lr=1e-3",
    "gpt2_to_gpt_oss": "-m experiment=gpt2_to_gpt_oss match=flops",
}
# What each of these shows.
SHOWS = {
    "claims": "what papers claim of placements, measured again",
    "depth": "what the number of blocks does, from 2 to 16",
    "gpt2_to_gpt_oss": "the same changes at an equal number of operations",
    "init_gradients": "the gradient of each block before any training",
    "lesson": "Post-LN with and without warm-up beside Pre-LN, in a minute or two",
    "model_sizes": "every size that the project knows, beside what is published",
    "optimizers": "what AdamW, Muon and SGD do, with and without clipping",
    "parameters": "the parameters of each component",
    "placements": "all placements beside each other; takes hours",
    "shortcut": "a small network with and without shortcuts",
    "sun_figure_4": "a paper's figure, measured again",
    "train": "one model's training, step by step",
    "wang_figure_5": "a paper's figure, measured again",
    "warmup": "at which learning rates and lengths of warm-up each placement learns",
}
RATES = "3e-4,1e-3,3e-3,1e-2"
HIGHER_RATE = 3e-3  # at which AdamW shows what placement and warm-up do, in the smallest sizes
SEEDS = 3  # from which a range says something
# What a command of its own would say again, and what does not belong to what was run.
LEFT_OUT = ("sweep.", "wandb.", "hydra.", "pictures=", "resume=")


def next_command(layout: Layout, arms: Sequence[Arm]) -> str:
    """A command that goes on from these runs; empty where their own commands are not known.

    Of a run that did not end it continues that; else it changes the one thing about what was run
    that its outcome asks for, or begins the next experiment.
    """
    runs = runs_of(arms)
    if any(run.summary.overrides is None for run in runs):
        return ""
    name = experiment_of(runs)
    if len(runs) == 1 and runs[0].status in ("running", "interrupted"):
        return command(f"resume={runs[0].directory}")
    if len(runs) == 1 and name == "train":
        return command(*after_run(runs[0]))
    if name == "train" and any(arm.final_losses() for arm in arms):
        return command("-m", *after_grid(layout, arms))
    if name == "init_gradients" and "model.n_layers" in layout.factors:
        name = "claims"
    return command(*AFTER.get(name, AFTER["train"]).split())


def command(*arguments: str) -> str:
    """What is typed in a shell."""
    return shlex.join(["python", "run.py", *arguments])


def shown_by(next_one: str) -> str:
    """What a command of `next_command` shows; empty where it changes one thing about these runs."""
    found = re.search(r"experiment=(\w+)", next_one)
    return SHOWS[found[1]] if found else ""


def experiment_of(runs: Sequence[Run]) -> str:
    """The experiment that all runs were started as, or their runner; `train` where they differ."""
    chosen = {overrides_of(run).get("experiment", str(run.setting("runner"))) for run in runs}
    return chosen.pop() if len(chosen) == 1 else "train"


def overrides_of(run: Run) -> dict[str, str]:
    """What the command of a run set, by name."""
    kept = [item for item in run.summary.overrides or () if not item.startswith(LEFT_OUT)]
    return {name: value for name, _, value in (item.partition("=") for item in kept)}


def after_run(run: Run) -> list[str]:
    """The overrides of a training run with one change: placement, warm-up or learning rate."""
    given = overrides_of(run)
    warmup, rate = run.settings.get(WARMUP), run.settings.get(RATE)
    steps = run.settings.get("trainer.steps")
    rate = float(rate) if isinstance(rate, int | float) else HIGHER_RATE
    if run.status == "failed":
        change = {}
    elif run.divergence:
        change = {RATE: f"{rate / 10:g}"}
    elif run.is_stuck and warmup == 0:
        change = {WARMUP: str(max(1, steps // 2) if isinstance(steps, int) else 200)}
    elif run.is_stuck and isinstance(steps, int):
        change = {"trainer.steps": str(4 * steps)}
    elif run.setting(PLACEMENT) == "pre_ln":
        change = {"norm": "post_ln"}
    elif warmup:
        change = {WARMUP: "0"}
    elif not run.is_stuck and rate < HIGHER_RATE:
        change = {RATE: f"{HIGHER_RATE:g}"}
    else:
        return AFTER["train"].split()
    return [f"{name}={value}" for name, value in (given | change).items()]


def after_grid(layout: Layout, arms: Sequence[Arm]) -> list[str]:
    """The grid of some training runs over learning rates, or from more seeds."""
    runs, given = runs_of(arms), dict[str, list[str]]()
    for run in runs:
        for name, value in overrides_of(run).items():
            given.setdefault(name, [])
            given[name] += [value] if value not in given[name] else []
    seeds = {run.seed for run in runs}
    if len(seeds) < SEEDS:
        change = {"seed": ",".join(map(str, range(SEEDS)))}
    elif RATE not in layout.factors:
        change = {RATE: RATES}
    else:
        return AFTER["train"].split()[1:]
    grid = {name: ",".join(values) for name, values in given.items()}
    return [f"{name}={values}" for name, values in (grid | change).items()]
