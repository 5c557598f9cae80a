"""Measures the selected claims: theory in worker processes, training runs as a sweep."""

import dataclasses
import functools
import logging
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from experiments.analysis.runs import Run
from experiments.claims import CLAIMS
from experiments.claims.claim import Claim, Evidence, Result, judge, overall
from experiments.claims.lab import BUDGETS, Lab
from experiments.jobs.launch import THREADS_IN_A_SWEEP, launch_job, set_threads
from experiments.jobs.sweep import HASH_DIGITS, Job, Sweep, duration, plan_jobs, threads_in_children
from experiments.machine.console import one_line, print_line, print_table, progress
from experiments.machine.device import pick_device
from experiments.machine.files import typed_path
from experiments.machine.limits import usable_cores
from experiments.machine.signals import (
    SIGNAL_EXIT_BASE,
    Interrupted,
    forward_signals,
    handle_signals,
    stop_signal,
)
from experiments.records.recorder import Recorder
from experiments.records.sink import Table, Value
from experiments.records.summary import read_summary
from experiments.runner import Outcome
from experiments.settings.compose import to_values
from experiments.settings.identity import digest
from experiments.settings.schema import Settings
from experiments.settings.typed import as_typed, for_hydra
from gpt import ConfigError
from gpt.checks import check_choice
from gpt.registry import choice_hint

log = logging.getLogger(__name__)

# Overrides that a command may have: those about the claims themselves, and those that hold for
# every training run. Any other setting belongs to the claims, and changing it would change them.
ABOUT_CLAIMS = ("experiment=", "claims.", "hydra.", "seed=", "resume=", "pictures=", "wandb.name=")
FOR_RUNS = ("device=", "threads=", "data.cache_dir=", "wandb.", "sweep.")
# Settings in the directory names of training runs.
NAMED = ("init", "model.n_layers", "optimizer.lr", "schedule.warmup_steps", "norm.qk")


class Measured(NamedTuple):
    """The result of measuring a claim, and the seconds it took."""

    evidence: Evidence
    seconds: float


def measure_claims(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure the selected claims and record the files of `experiments.runners.claims`."""
    check_choice("claims.budget", settings.claims.budget, BUDGETS)
    claims = select_claims(settings)
    lab = Lab(settings, overrides_for_runs(recorder.summary.overrides or []))
    threads = settings.threads or THREADS_IN_A_SWEEP
    is_on_cpu = pick_device(settings.device).type == "cpu"
    # Several processes on one GPU would compete for its memory.
    workers = max(1, usable_cores() // threads) if is_on_cpu else 1
    measured = measure_theory([c for c in claims if not c.trains], lab, workers, threads)
    measured |= measure_training([c for c in claims if c.trains], lab, workers, threads)
    return record_claims(claims, measured, settings, recorder)


def select_claims(settings: Settings) -> list[Claim]:
    """The claims to measure. Raises ConfigError for an unknown name or too small a budget."""
    budget, only = settings.claims.budget, settings.claims.only
    has_training = BUDGETS[budget].runs > 0
    if only is None:
        return [claim for claim in CLAIMS.values() if has_training or not claim.trains]
    claims = []
    for name in dict.fromkeys(only.split(",")):
        if name not in CLAIMS:
            raise ConfigError("claims.only", name, choice_hint(name, CLAIMS))
        if CLAIMS[name].trains and not has_training:
            valid = f"{name} needs training: claims.budget=standard or full"
            raise ConfigError("claims.budget", budget, valid)
        claims.append(CLAIMS[name])
    return claims


def overrides_for_runs(overrides: Sequence[str]) -> list[str]:
    """The overrides for every model and run, as Hydra must be given them.

    Raises ConfigError for those that claims fix.
    """
    for_runs = [override for override in overrides if not override.startswith(ABOUT_CLAIMS)]
    for override in for_runs:
        if not override.startswith(FOR_RUNS):
            name, _, value = override.partition("=")
            raise ConfigError(name, value, "each claim fixes its own settings; leave it out")
    return [*map(for_hydra, for_runs)]


def measure_theory(
    claims: Sequence[Claim], lab: Lab, workers: int, threads: int
) -> dict[str, Measured]:
    """Measure claims about models at initialisation, in `workers` processes; results by name."""
    measured: dict[str, Measured] = {}
    with progress("claims", max(1, len(claims))) as report_progress:

        def record(name: str, measure: Callable[[], Measured]) -> None:
            try:
                measured[name] = measure()
            except Exception as error:  # an error costs its own claim only; also a lost process
                log.warning("%s was not measured: %s", name, one_line(error))
                measured[name] = Measured(Evidence(), 0.0)
            verdict = overall(results_of(CLAIMS[name], measured[name].evidence))
            report_progress(len(measured), f"{name} {verdict}")

        if min(workers, len(claims)) < 2:
            for claim in claims:
                with set_threads(threads):
                    record(claim.name, functools.partial(measure_timed, claim, lab))
            return measured
        with threads_in_children(threads), forward_signals(), worker_pool(workers) as pool:
            conf = config_folder()
            futures = {  # from the last, since the slowest claims are there
                pool.submit(
                    measure_in_process, conf, claim.name, lab.base, lab.overrides
                ): claim.name
                for claim in reversed(claims)
            }
            for future in as_completed(futures):
                record(futures[future], future.result)
                if signal := stop_signal():
                    raise Interrupted(signal)
    return measured


def measure_timed(claim: Claim, lab: Lab) -> Measured:
    """Measure a claim in this process."""
    started = time.monotonic()
    evidence = claim.measure(lab)
    return Measured(evidence, time.monotonic() - started)


def measure_in_process(conf: str, name: str, settings: Settings, overrides: list[str]) -> Measured:
    """As `measure_timed`, in a worker process, which composes configs from the folder `conf`."""
    with (
        handle_signals(),
        set_threads(settings.threads or THREADS_IN_A_SWEEP),
        initialize_config_dir(conf, version_base="1.3"),
    ):
        return measure_timed(CLAIMS[name], Lab(settings, overrides))


def config_folder() -> str:
    """The folder of the configs that this command was composed from."""
    (main,) = (s for s in HydraConfig.get().runtime.config_sources if s.provider == "main")
    return str(main.path)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Within: a pool of processes, which are killed where a second signal interrupts the block.

    Without that the pool would wait for their work at its end.
    """
    # Not by fork: a forked copy of PyTorch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise


def measure_training(
    claims: Sequence[Claim], lab: Lab, workers: int, threads: int
) -> dict[str, Measured]:
    """Train the runs of the claims and measure these, with the seconds that the runs took."""
    if not claims:
        return {}
    lab.runs = trained_runs(claims, lab, workers, threads)
    measured: dict[str, Measured] = {}
    for claim in claims:
        runs = [run for group in lab.arms(claim.name).values() for run in group]
        seconds = sum(run.summary.seconds or 0.0 for run in runs)
        try:
            measured[claim.name] = Measured(claim.measure(lab), seconds)
        except Exception as error:  # such as of files that somebody has changed
            log.warning("%s was not measured: %s", claim.name, one_line(error))
            measured[claim.name] = Measured(Evidence(), seconds)
    return measured


def trained_runs(
    claims: Sequence[Claim], lab: Lab, workers: int, threads: int
) -> dict[tuple[str, ...], list[Run]]:
    """The runs of every arm, by the arm's overrides. Those without a result are trained first."""
    arms: dict[tuple[str, ...], None] = {}  # claims share arms: each is trained once
    for claim in claims:
        assert claim.arms is not None
        arms |= dict.fromkeys(map(tuple, claim.arms(lab.budget).values()))

    @functools.cache
    def values_of_arm(overrides: tuple[str, ...]) -> dict[str, Any]:
        return to_values(compose("config", list(overrides)))

    def values_of(overrides: Sequence[str]) -> dict[str, Any]:
        *rest, seed = overrides  # all seeds share one composition, which takes 0.1 s
        return values_of_arm(tuple(rest)) | {"seed": int(seed.removeprefix("seed="))}

    def overrides_of(arm: Sequence[str], seed: int) -> list[str]:
        return [*lab.overrides, *arm, f"seed={seed}"]

    settings = lab.base
    folder = typed_path(settings.claims.runs).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    grid = [overrides_of(arm, seed) for arm in arms for seed in lab.run_seeds]
    jobs = plan_jobs(grid, NAMED, folder, values_of)
    sweep = Sweep(folder, jobs, settings.sweep.rerun, workers > 1, threads, standalone=False)
    sweep.run(lambda to_run: launch_jobs(to_run, values_of, workers))
    by_hash = {job.name.rpartition("-")[2]: job.directory for job in jobs}

    def run_of(arm: Sequence[str], seed: int) -> Run:
        directory = by_hash[digest(values_of(overrides_of(arm, seed)))[:HASH_DIGITS]]
        summary = read_summary(directory)
        if summary.seed is None:  # of a run that left nothing
            summary.seed = seed
        return Run(directory, summary)

    return {arm: [run_of(arm, seed) for seed in lab.run_seeds] for arm in arms}


def launch_jobs(
    jobs: Sequence[Job], values_of: Callable[[Sequence[str]], dict[str, Any]], workers: int
) -> None:
    """Run jobs in `workers` processes, or with one worker in this process."""

    def typed(job: Job) -> list[str]:
        return [*map(as_typed, job.overrides)]

    if workers < 2:
        for job in jobs:
            code = launch_job(values_of(job.overrides), typed(job), job.directory)
            if code > SIGNAL_EXIT_BASE:
                raise Interrupted(code - SIGNAL_EXIT_BASE)
        return
    with worker_pool(min(workers, len(jobs))) as pool:
        futures = [
            pool.submit(launch_job, values_of(job.overrides), typed(job), job.directory, False)
            for job in jobs
        ]
        for future in as_completed(futures):
            future.result()


def results_of(claim: Claim, evidence: Evidence) -> list[Result]:
    """The result of each prediction of a claim."""
    return [judge(p, evidence.values.get(p.name, [])) for p in claim.predictions]


def record_claims(
    claims: Sequence[Claim],
    measured: Mapping[str, Measured],
    settings: Settings,
    recorder: Recorder,
) -> Outcome:
    """Write the tables and the page, and print the scoreboard."""
    results = {claim.name: results_of(claim, measured[claim.name].evidence) for claim in claims}
    verdicts = {name: overall(of_claim) for name, of_claim in results.items()}
    recorder.table(
        "claims",
        [
            row_of(claim, result, verdicts[claim.name], measured[claim.name].seconds, settings)
            for claim in claims
            for result in results[claim.name]
        ],
    )
    points = [row for claim in claims for row in point_rows(claim, measured[claim.name].evidence)]
    if points:
        recorder.table("measurements", points)
    recorder.summary.budget, recorder.summary.claims = settings.claims.budget, verdicts
    recorder.write_summary()  # the page reads it
    page = write_page(recorder.directory)
    scoreboard = [
        {
            "claim": claim.name,
            "source": claim.source.arxiv.split("; ")[0] or ("own" if claim.own else "book"),
            "verdict": verdicts[claim.name],
            "time": duration(measured[claim.name].seconds),
        }
        for claim in claims
    ]
    print_table("Claims", scoreboard)
    if page is not None:
        print_line(f"\nReport: {page}")
    counts = Counter(verdicts.values())
    return Outcome(results={verdict: str(count) for verdict, count in sorted(counts.items())})


def write_page(directory: Path) -> Path | None:
    """Write the page about the claims; None, with a warning, where that fails.

    The tables, from which it can be made again, are there already.
    """
    try:
        from experiments.report.claims_page import write_claims_page  # loads matplotlib

        return write_claims_page(directory)
    except Exception as error:
        log.warning("the page was not written: %s: %s", type(error).__name__, one_line(error))
        return None


def row_of(
    claim: Claim, result: Result, verdict: str, seconds: float, settings: Settings
) -> dict[str, Value]:
    """A row of claims.csv: one prediction of a claim."""
    prediction, budget = result.prediction, settings.claims.budget
    return {
        "claim": claim.name,
        "title": claim.title,
        "finding": "own" if claim.own else "published",
        "paper": claim.source.paper,
        "arxiv": f"arXiv {claim.source.arxiv}" if claim.source.arxiv else None,
        "where": claim.source.where or None,
        "statement": claim.statement,
        "setting": claim.setting.format(**BUDGETS[budget].placeholders()),
        "remark": claim.remark or None,
        "number": prediction.name,
        "prediction": prediction.text,
        "predicted_low": finite_or_none(prediction.low),
        "predicted_high": finite_or_none(prediction.high),
        "measured": finite_or_none(result.mean),
        "ci_low": finite_or_none(result.low),
        "ci_high": finite_or_none(result.high),
        "seeds": result.seeds,
        "verdict": result.verdict,
        "claim_verdict": verdict,
        "seconds": round(seconds, 1),
        "figure": f"figures/{claim.name}.png",
        "command": f"python run.py experiment=claims claims.only={claim.name} "
        f"claims.budget={budget} seed={settings.seed}",
    }


def point_rows(claim: Claim, evidence: Evidence) -> Table:
    """The rows of measurements.csv: a claim's points, and the heights of its lines."""
    labels: dict[str, Value] = {
        "claim": claim.name,
        "x_name": claim.axes.x,
        "y_name": claim.axes.y,
    }
    points = [
        {
            **labels,
            **dataclasses.asdict(point),
            "x": finite_or_none(point.x),
            "value": finite_or_none(point.value),
        }
        for point in evidence.points
    ]
    lines = [
        {**labels, "arm": name, "x": None, "seed": None, "value": height}
        for name, height in evidence.lines.items()
    ]
    return [*points, *lines]


def finite_or_none(value: float) -> float | None:
    """The value; None, an empty cell, where it is not finite."""
    return value if math.isfinite(value) else None
