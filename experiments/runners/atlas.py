"""The atlas: every placement's diagram, and what short runs of it do."""

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from hydra import compose
from hydra.errors import HydraException

from experiments.analysis.runs import Run
from experiments.analysis.step_times import REFERENCE, StepTime, rows_of
from experiments.jobs.check import checked_settings
from experiments.jobs.launch import THREADS_IN_A_SWEEP
from experiments.jobs.sweep import Job, Sweep, plan_jobs, threads_in_children
from experiments.jobs.workers import launcher, worker_pool, workers_for
from experiments.machine.console import progress
from experiments.machine.files import typed_path
from experiments.machine.signals import forward_signals
from experiments.records.recorder import Recorder
from experiments.report.atlas_page import Placed, finding_of, write_atlas
from experiments.runner import Outcome
from experiments.settings.compose import to_values
from experiments.settings.explain import explain_composition
from experiments.settings.schema import Settings
from experiments.settings.typed import for_hydra
from experiments.training.step_times import step_times
from gpt import PLACEMENTS, ConfigError
from gpt.registry import choice_hint

# Overrides that are about the atlas; any other holds for each of its runs.
ABOUT_ATLAS = ("experiment=", "atlas.", "hydra.", "resume=", "wandb.name=", "sweep.")
WARMUP = "schedule.warmup_steps"


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Train each placement without warm-up and with it, where that was not done, and write the page

    Each run has this command's settings. They are stored in atlas.runs, where finished ones are
    found again. atlas.html shows all, with the time of each placement's step beside Pre-LN's.
    """
    names = chosen(settings.atlas.only)
    typed = recorder.summary.overrides or []
    warmups = dict.fromkeys((0, settings.schedule.warmup_steps))
    every = ("experiment=atlas", "runner=train", *overrides_for_runs(typed))
    grid = {
        (name, warmup): (*every, f"norm={name}", f"{WARMUP}={warmup}")
        for name in names
        for warmup in warmups
    }
    models = models_to_time(names, every, settings)  # which says before the runs what is not valid
    jobs = dict(zip(grid, train(list(grid.values()), settings), strict=True))
    times = time_steps(models, settings)
    if times:
        recorder.table("step_times", rows_of(times.values()))
    placed = [
        Placed(
            name,
            config_of(jobs[name, 0].values),
            {warmup: Run.read(jobs[name, warmup].directory) for warmup in warmups},
            times.get(name),
        )
        for name in names
    ]
    page = write_atlas(recorder.directory, placed)
    statuses = [run.status for entry in placed for run in entry.runs.values()]
    counts = {status: str(statuses.count(status)) for status in dict.fromkeys(statuses)}
    results = {"placements": str(len(names)), **counts}
    return Outcome(results=results, closing=f"Atlas: {page}", finding=finding_of(placed))


def chosen(only: str | None) -> list[str]:
    """The placements to show. Raises ConfigError for a name that none has."""
    names = list(PLACEMENTS) if only is None else list(dict.fromkeys(only.split(",")))
    for name in names:
        if name not in PLACEMENTS:
            raise ConfigError("atlas.only", name, choice_hint(name, PLACEMENTS))
    return names


def overrides_for_runs(overrides: Sequence[str]) -> list[str]:
    """The overrides for every run, as Hydra must be given them.

    Raises ConfigError for a placement, of which the atlas has all.
    """
    for override in overrides:
        name, _, value = override.partition("=")
        if name in ("norm", "norm.placement"):
            raise ConfigError(name, value, f"the atlas takes them all; some: atlas.only={value}")
    about = (*ABOUT_ATLAS, f"{WARMUP}=")
    return [for_hydra(override) for override in overrides if not override.startswith(about)]


def train(grid: Sequence[Sequence[str]], settings: Settings) -> list[Job]:
    """Run what is not there yet, several at once where there are cores for it."""
    folder = typed_path(settings.atlas.runs).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = plan_jobs(grid, ("norm", WARMUP), folder, values_of)
    threads = settings.threads or THREADS_IN_A_SWEEP
    workers = workers_for(settings.device, threads)
    sweep = Sweep(folder, jobs, settings.sweep.rerun, workers > 1, threads, standalone=False)
    with ExitStack() as within:
        pool = None
        if workers > 1 and sweep.to_run:
            within.enter_context(threads_in_children(threads))
            within.enter_context(forward_signals())
            pool = within.enter_context(worker_pool(workers))
        sweep.run(launcher(pool))
    return jobs


def models_to_time(
    names: Sequence[str], overrides: Sequence[str], settings: Settings
) -> dict[str, Settings]:
    """The settings of each placement, and of Pre-LN, as wide as atlas.timed says; or none.

    Raises ConfigError for what does not fit these sizes.
    """
    if not settings.atlas.rounds:
        return {}
    timed = [for_hydra(override) for override in settings.atlas.timed]
    try:
        return {
            name: checked_settings(composed((*overrides, f"norm={name}", *timed)))
            for name in dict.fromkeys((REFERENCE, *names))
        }
    except (ConfigError, HydraException) as error:
        reason = f"with it {explain_composition(error)}; atlas.rounds=0 times no steps"
        raise ConfigError("atlas.timed", settings.atlas.timed, reason) from None


def time_steps(models: Mapping[str, Settings], settings: Settings) -> dict[str, StepTime]:
    """What each placement's step takes, once no worker computes any more."""
    folder = typed_path(settings.atlas.runs)
    with progress("times of a step", len(models)) as report:
        times = step_times(models, settings.atlas.rounds, folder, report)
    return {time.placement: time for time in times}


@functools.cache
def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """The config of `python run.py OVERRIDES`."""
    return to_values(compose("config", list(overrides)))


def values_of(overrides: Sequence[str]) -> Mapping[str, Any]:
    """The config of a run."""
    return composed(tuple(overrides))


def config_of(values: Mapping[str, Any]) -> Any:
    """The model of a run, for any text."""
    settings = checked_settings(values)
    return settings.model_config(settings.model.vocab_size or 1)
