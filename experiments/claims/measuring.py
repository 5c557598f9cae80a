"""Measuring the chosen claims: theory in processes of its own, training runs as a sweep."""

import dataclasses
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from experiments.analysis.runs import Run, read_summary
from experiments.claims import CLAIMS
from experiments.claims.claim import Claim, Evidence, Judged, judge, overall
from experiments.claims.lab import BUDGETS, Lab
from experiments.jobs.launch import THREADS_IN_A_SWEEP, launch_job
from experiments.jobs.launch import set_threads as threads_set
from experiments.jobs.sweep import HASH_DIGITS, Job, Sweep, duration, plan_jobs, threads_in_children
from experiments.machine.console import one_line, print_line, print_table, progress
from experiments.machine.device import pick_device
from experiments.machine.signals import (
    SIGNAL_EXIT_BASE,
    Interrupted,
    forward_signals,
    handle_signals,
    stop_signal,
)
from experiments.records.recorder import Recorder
from experiments.records.sink import Table, Value
from experiments.report.claims_page import write_claims_page
from experiments.runner import Outcome
from experiments.settings.compose import to_values
from experiments.settings.identity import digest
from experiments.settings.schema import Settings
from gpt import ConfigError
from gpt.checks import check_choice
from gpt.registry import choice_hint

log = logging.getLogger(__name__)

# Overrides of the command: those about the claims themselves, and those that their runs may have
# too. Every other setting is part of a claim.
ABOUT_CLAIMS = ("experiment=", "claims.", "hydra.", "seed=", "resume=", "pictures=", "wandb.name=")
FOR_RUNS = ("device=", "threads=", "data.cache_dir=", "wandb.", "sweep.")
NAMED = ("init", "model.n_layers", "optimizer.lr", "schedule.warmup_steps", "norm.qk")

Found = dict[str, tuple[Evidence, float]]  # of each claim, with the seconds it took


def measure_claims(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure and judge the chosen claims; records what `experiments.runners.claims` says."""
    check_choice("claims.budget", settings.claims.budget, BUDGETS)
    chosen = select_claims(settings)
    lab = Lab(settings, overrides_for_runs(recorder.summary["overrides"]))
    threads = settings.threads or THREADS_IN_A_SWEEP
    on_cpu = pick_device(settings.device).type == "cpu"
    workers = max(1, (os.cpu_count() or 1) // threads) if on_cpu else 1
    found = measure_theory([c for c in chosen if not c.trains], lab, workers, threads)
    found |= measure_training([c for c in chosen if c.trains], lab, workers, threads)
    recorder.open_wandb()  # after the runs, for there is one W&B run at a time
    return record_claims(chosen, found, settings, recorder)


def select_claims(settings: Settings) -> list[Claim]:
    """What is to be measured. Raises ConfigError for an unknown name or too small a budget."""
    budget, only = settings.claims.budget, settings.claims.only
    affordable = BUDGETS[budget].runs > 0
    if only is None:
        return [claim for claim in CLAIMS.values() if affordable or not claim.trains]
    chosen = []
    for name in dict.fromkeys(only.split(",")):
        if name not in CLAIMS:
            raise ConfigError("claims.only", name, choice_hint(name, CLAIMS))
        if CLAIMS[name].trains and not affordable:
            valid = f"{name} needs training: claims.budget=standard or full"
            raise ConfigError("claims.budget", budget, valid)
        chosen.append(CLAIMS[name])
    return chosen


def overrides_for_runs(overrides: Sequence[str]) -> list[str]:
    """Those that hold for every model and run. Raises ConfigError for what a claim fixes itself."""
    told = [override for override in overrides if not override.startswith(ABOUT_CLAIMS)]
    for override in told:
        if not override.startswith(FOR_RUNS):
            name, _, value = override.partition("=")
            raise ConfigError(name, value, "each claim fixes its own setting; leave it out")
    return told


def measure_theory(chosen: Sequence[Claim], lab: Lab, workers: int, threads: int) -> Found:
    """Evidence and seconds of each claim, several at once in processes of their own."""
    found: Found = {}
    with progress("claims", max(1, len(chosen))) as tell:

        def ended(name: str, measured: Callable[[], tuple[Evidence, float]]) -> None:
            try:
                found[name] = measured()
            except Exception as error:  # a lost process, too: it costs what was in it
                log.warning("%s is not measured: %s", name, one_line(error))
                found[name] = Evidence(), 0.0
            tell(len(found), f"{name} {overall(judged(CLAIMS[name], found[name][0]))}")

        if min(workers, len(chosen)) < 2:
            for claim in chosen:
                with threads_set(threads):
                    ended(claim.name, lambda claim=claim: measure_timed(claim, lab))  # type: ignore[misc]
            return found
        with threads_in_children(threads), forward_signals(), worker_pool(workers) as pool:
            conf = config_folder()
            futures = {  # the longest are not at the front
                pool.submit(measure_in_process, conf, claim.name, lab.base, lab.told): claim.name
                for claim in reversed(chosen)
            }
            for future in as_completed(futures):
                ended(futures[future], future.result)
                if signal := stop_signal():
                    raise Interrupted(signal)
    return found


def measure_timed(claim: Claim, lab: Lab) -> tuple[Evidence, float]:
    """Evidence, and the seconds it took."""
    started = time.monotonic()
    evidence = claim.measure(lab)
    return evidence, time.monotonic() - started


def measure_in_process(
    conf: str, name: str, settings: Settings, told: list[str]
) -> tuple[Evidence, float]:
    """As `timed`, in a process that composes its own configs from the folder `conf`."""
    with (
        handle_signals(),
        threads_set(settings.threads or THREADS_IN_A_SWEEP),
        initialize_config_dir(conf, version_base="1.3"),
    ):
        return measure_timed(CLAIMS[name], Lab(settings, told))


def config_folder() -> str:
    """Where the composed config comes from."""
    (main,) = (s for s in HydraConfig.get().runtime.config_sources if s.provider == "main")
    return str(main.path)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes; where a second signal stops the work inside at once, they end at once, too."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise


def measure_training(chosen: Sequence[Claim], lab: Lab, workers: int, threads: int) -> Found:
    """Evidence of each claim, from runs that are shared, and the seconds of its runs in all."""
    if not chosen:
        return {}
    lab.runs = trained_runs(chosen, lab, workers, threads)
    found: Found = {}
    for claim in chosen:
        runs = [run for group in lab.arms(claim.name).values() for run in group]
        seconds = sum(run.number("seconds") or 0.0 for run in runs)
        try:
            found[claim.name] = claim.measure(lab), seconds
        except Exception as error:  # of files that somebody changed, say
            log.warning("%s is not measured: %s", claim.name, one_line(error))
            found[claim.name] = Evidence(), seconds
    return found


def trained_runs(
    chosen: Sequence[Claim], lab: Lab, workers: int, threads: int
) -> dict[tuple[str, ...], list[Run]]:
    """The runs of every arm, by its overrides; those that are not there yet are trained."""
    arms: dict[tuple[str, ...], None] = {}
    for claim in chosen:
        assert claim.arms is not None
        arms |= dict.fromkeys(map(tuple, claim.arms(lab.budget).values()))
    composed_without_seed: dict[tuple[str, ...], dict[str, Any]] = {}

    def composed(overrides: Sequence[str]) -> dict[str, Any]:
        *rest, seed = overrides
        if tuple(rest) not in composed_without_seed:  # a tenth of a second each
            composed_without_seed[tuple(rest)] = to_values(compose("config", rest))
        return composed_without_seed[tuple(rest)] | {"seed": int(seed.removeprefix("seed="))}

    def launch(due: Sequence[Job]) -> None:
        if workers < 2:
            for job in due:
                code = launch_job(composed(job.overrides), job.overrides, job.directory)
                if code > SIGNAL_EXIT_BASE:
                    raise Interrupted(code - SIGNAL_EXIT_BASE)
            return
        with worker_pool(min(workers, len(due))) as pool:
            futures = [
                pool.submit(
                    launch_job, composed(job.overrides), job.overrides, job.directory, False
                )
                for job in due
            ]
            for future in as_completed(futures):
                future.result()

    def overrides_of(arm: Sequence[str], seed: int) -> list[str]:
        return [*lab.told, *arm, f"seed={seed}"]

    settings = lab.base
    folder = Path(settings.claims.runs).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    grid = [overrides_of(arm, seed) for arm in arms for seed in lab.run_seeds]
    jobs = plan_jobs(grid, NAMED, folder, composed)
    Sweep(folder, jobs, settings.sweep.rerun, workers > 1, threads, standalone=False).run(launch)
    by_hash = {job.name.rpartition("-")[2]: job.directory for job in jobs}

    def run_of(arm: Sequence[str], seed: int) -> Run:
        directory = by_hash[digest(composed(overrides_of(arm, seed)))[:HASH_DIGITS]]
        return Run(directory, {"seed": seed} | read_summary(directory))

    return {arm: [run_of(arm, seed) for seed in lab.run_seeds] for arm in arms}


def judged(claim: Claim, evidence: Evidence) -> list[Judged]:
    """Each prediction of a claim beside its values."""
    return [judge(p, evidence.values.get(p.name, [])) for p in claim.predictions]


def record_claims(
    chosen: Sequence[Claim], found: Found, settings: Settings, recorder: Recorder
) -> Outcome:
    """Write the tables and the page, and show the scoreboard."""
    verdicts = {claim.name: overall(judged(claim, found[claim.name][0])) for claim in chosen}
    recorder.table(
        "claims",
        [
            row_of(claim, result, verdicts[claim.name], found[claim.name][1], settings)
            for claim in chosen
            for result in judged(claim, found[claim.name][0])
        ],
    )
    points = [row for claim in chosen for row in point_rows(claim, found[claim.name][0])]
    if points:
        recorder.table("measurements", points)
    recorder.summary |= {"budget": settings.claims.budget, "claims": verdicts}
    recorder.write_summary()
    page = write_claims_page(recorder.directory)
    board = [
        {
            "claim": claim.name,
            "source": claim.source.arxiv.split("; ")[0] or ("own" if claim.own else "book"),
            "verdict": verdicts[claim.name],
            "time": duration(found[claim.name][1]),
        }
        for claim in chosen
    ]
    print_table("Claims", board)
    print_line(f"\nReport: {page}")
    counts = {word: list(verdicts.values()).count(word) for word in sorted(set(verdicts.values()))}
    return Outcome(shown={word: str(count) for word, count in counts.items()})


def row_of(
    claim: Claim, result: Judged, verdict: str, seconds: float, settings: Settings
) -> dict[str, Value]:
    """A line of claims.csv: one prediction of a claim."""
    prediction, told = result.prediction, settings.claims
    return {
        "claim": claim.name,
        "title": claim.title,
        "finding": "own" if claim.own else "published",
        "paper": claim.source.paper,
        "arxiv": f"arXiv {claim.source.arxiv}" if claim.source.arxiv else None,
        "where": claim.source.where or None,
        "statement": claim.statement,
        "setting": claim.setting.format(**BUDGETS[told.budget].words()),
        "remark": claim.remark or None,
        "number": prediction.name,
        "prediction": prediction.words,
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
        f"claims.budget={told.budget} seed={settings.seed}",
    }


def point_rows(claim: Claim, evidence: Evidence) -> Table:
    """The lines of measurements.csv: a claim's points, and the heights of its lines."""
    axes: dict[str, Value] = {
        "claim": claim.name,
        "x_name": claim.axes.x,
        "y_name": claim.axes.y,
    }
    points = [
        {
            **axes,
            **dataclasses.asdict(point),
            "x": finite_or_none(point.x),
            "value": finite_or_none(point.value),
        }
        for point in evidence.points
    ]
    lines = [
        {**axes, "arm": name, "x": None, "seed": None, "value": height}
        for name, height in evidence.lines.items()
    ]
    return [*points, *lines]


def finite_or_none(value: float) -> float | None:
    """A number, or None where there is none."""
    return value if math.isfinite(value) else None
