"""Measuring the chosen claims: theory in processes of its own, training runs as a sweep."""

import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.claims import CLAIMS
from experiments.claims.claim import Claim, Evidence, Judged, judge, overall
from experiments.claims.lab import BUDGETS, Lab
from experiments.console import progress, say, show_table
from experiments.device import pick_device
from experiments.interruption import Interrupted, asked, listening, telling_processes
from experiments.launch import THREADS_IN_A_SWEEP, launch_job
from experiments.launch import threads as threads_set
from experiments.recorder import Recorder
from experiments.report.claims import write_claims_page
from experiments.runner import Outcome
from experiments.runs import Run, read_summary
from experiments.settings import Settings
from experiments.sweep import Job, Sweep, duration, plan, thread_share
from gpt import ConfigError
from gpt.config import check_choice
from gpt.registry import choice_hint

# Overrides of the command that are about this experiment, not about its runs.
ABOUT_CLAIMS = ("experiment=", "claims.", "hydra.", "seed=", "threads=", "wandb.name=")
NAMED = ("init", "model.n_layers", "optimizer.lr", "schedule.warmup_steps", "norm.qk")


def measure_claims(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure and judge the chosen claims; records what `experiments.runners.claims` says."""
    check_choice("claims.budget", settings.claims.budget, BUDGETS)
    chosen = chosen_claims(settings)
    recorder.open_wandb()
    told = [o for o in recorder.summary["overrides"] if not o.startswith(ABOUT_CLAIMS)]
    lab = Lab(settings, told)
    threads = settings.threads or THREADS_IN_A_SWEEP
    on_cpu = pick_device(settings.device).type == "cpu"
    workers = max(1, (os.cpu_count() or 1) // threads) if on_cpu else 1
    theory = [claim for claim in chosen if not claim.trains]
    trained = [claim for claim in chosen if claim.trains]
    found = measure_theory(theory, lab, workers, threads)
    if trained:
        started = time.monotonic()
        train_arms(trained, lab, settings, workers, threads)
        spent = (time.monotonic() - started) / len(trained)  # runs are shared between claims
        for claim in trained:
            found[claim.name] = claim.measure(lab), spent
    return record(chosen, found, lab, settings, recorder)


def chosen_claims(settings: Settings) -> list[Claim]:
    """What is to be measured. Raises ConfigError for an unknown name or too small a budget."""
    budget, only = settings.claims.budget, settings.claims.only
    affordable = BUDGETS[budget].runs > 0
    if only is None:
        return [claim for claim in CLAIMS.values() if affordable or not claim.trains]
    chosen = []
    for name in only.split(","):
        if name not in CLAIMS:
            raise ConfigError("claims.only", name, choice_hint(name, CLAIMS))
        if CLAIMS[name].trains and not affordable:
            valid = f"{name} needs training: claims.budget=standard or full"
            raise ConfigError("claims.budget", budget, valid)
        chosen.append(CLAIMS[name])
    return chosen


def measure_theory(
    chosen: Sequence[Claim], lab: Lab, workers: int, threads: int
) -> dict[str, tuple[Evidence, float]]:
    """Evidence and seconds of each claim, several at once in processes of their own."""
    found: dict[str, tuple[Evidence, float]] = {}
    with progress("claims", len(chosen)) as tell:

        def ended(name: str, evidence: Evidence, seconds: float) -> None:
            found[name] = evidence, seconds
            tell(len(found), f"{name} {overall(judged(CLAIMS[name], evidence))}")

        if min(workers, len(chosen)) < 2:
            for claim in chosen:
                with threads_set(threads):
                    ended(claim.name, *timed(claim, lab))
            return found
        with worker_pool(min(workers, len(chosen)), threads) as pool:
            conf = config_folder()
            futures = {  # the longest are not at the front
                pool.submit(measure_elsewhere, conf, claim.name, lab.base, lab.told): claim.name
                for claim in reversed(chosen)
            }
            for future in as_completed(futures):
                ended(futures[future], *future.result())
                if signal := asked():
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise Interrupted(signal)
    return found


def timed(claim: Claim, lab: Lab) -> tuple[Evidence, float]:
    """Evidence, and the seconds it took."""
    started = time.monotonic()
    evidence = claim.measure(lab)
    return evidence, time.monotonic() - started


def measure_elsewhere(
    conf: str, name: str, settings: Settings, told: list[str]
) -> tuple[Evidence, float]:
    """As `timed`, in a process that composes its own configs from the folder `conf`."""
    with (
        listening(),
        threads_set(settings.threads or THREADS_IN_A_SWEEP),
        initialize_config_dir(conf, version_base="1.3"),
    ):
        return timed(CLAIMS[name], Lab(settings, told))


def config_folder() -> str:
    """Where the composed config comes from."""
    (main,) = (s for s in HydraConfig.get().runtime.config_sources if s.provider == "main")
    return str(main.path)


@contextmanager
def worker_pool(workers: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes with `threads` each, which learn of signals that come here."""
    context = multiprocessing.get_context("spawn")
    with (
        thread_share(threads),
        telling_processes(),
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        yield pool


def train_arms(
    chosen: Sequence[Claim], lab: Lab, settings: Settings, workers: int, threads: int
) -> None:
    """Let every run be there that the claims need, and give them to the lab."""
    arms: dict[tuple[str, ...], None] = {}
    for claim in chosen:
        assert claim.arms is not None
        arms |= dict.fromkeys(map(tuple, claim.arms(lab.budget).values()))
    configs: dict[tuple[str, ...], DictConfig] = {}

    def composed(overrides: Sequence[str]) -> DictConfig:
        *rest, seed = overrides
        if tuple(rest) not in configs:  # a tenth of a second each
            configs[tuple(rest)] = compose("config", rest)
        config = configs[tuple(rest)].copy()
        config.seed = int(seed.removeprefix("seed="))
        return config

    grid = [[*lab.told, *arm, f"seed={seed}"] for arm in arms for seed in lab.run_seeds]
    folder = Path(settings.claims.runs).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = plan(grid, NAMED, folder, composed)
    by_overrides = {job.overrides: job for job in jobs}

    def launch(due: Sequence[Job]) -> None:
        if workers < 2:
            for job in due:
                launch_job(composed(job.overrides), job.overrides, job.directory)
            return
        with worker_pool(min(workers, len(due)), threads) as pool:
            futures = [
                pool.submit(
                    launch_job, composed(job.overrides), job.overrides, job.directory, False
                )
                for job in due
            ]
            for future in as_completed(futures):
                future.result()

    sweep = Sweep(folder, jobs, settings.sweep.rerun, workers > 1, threads, alone=False)
    sweep.run(launch)
    lab.runs = {
        arm: [
            Run(job.directory, {"seed": seed} | read_summary(job.directory))
            for seed in lab.run_seeds
            for job in [by_overrides[(*lab.told, *arm, f"seed={seed}")]]
        ]
        for arm in arms
    }


def judged(claim: Claim, evidence: Evidence) -> list[Judged]:
    """Each prediction of a claim beside its values."""
    return [judge(p, evidence.values.get(p.name, [])) for p in claim.predictions]


def record(
    chosen: Sequence[Claim],
    found: Mapping[str, tuple[Evidence, float]],
    lab: Lab,
    settings: Settings,
    recorder: Recorder,
) -> Outcome:
    """Write the tables and the page, and show the scoreboard."""
    rows: list[dict[str, str | float | int | None]] = []
    points: list[dict[str, str | float | int | None]] = []
    board = []
    for claim in chosen:
        evidence, seconds = found[claim.name]
        results = judged(claim, evidence)
        verdict = overall(results)
        for result in results:
            rows.append(row_of(claim, result, verdict, seconds, settings))
        axes = {"claim": claim.name, "x_name": claim.axes.x, "y_name": claim.axes.y}
        points += [
            {
                **axes,
                "arm": point.arm,
                "x": known(point.x),
                "seed": point.seed,
                "value": known(point.value),
            }
            for point in evidence.points
        ]
        points += [
            {**axes, "arm": name, "x": None, "seed": None, "value": height}
            for name, height in evidence.lines.items()
        ]
        board.append(
            {
                "claim": claim.name,
                "source": claim.source.arxiv or "own finding",
                "verdict": verdict,
                "time": duration(seconds),
            }
        )
    recorder.table("claims", rows)
    recorder.table("measurements", points)
    recorder.summary |= {
        "budget": settings.claims.budget,
        "claims": {row["claim"]: row["verdict"] for row in board},
    }
    recorder.write_summary()
    page = write_claims_page(recorder.directory)
    show_table("Claims", board)
    say(f"\nReport: {page}")
    verdicts = [row["verdict"] for row in board]
    return Outcome(
        shown={word: str(verdicts.count(word)) for word in dict.fromkeys(sorted(verdicts))}
    )


def known(value: float) -> float | None:
    """A number, or None where there is none."""
    return None if math.isnan(value) else value


def row_of(
    claim: Claim, result: Judged, verdict: str, seconds: float, settings: Settings
) -> dict[str, str | float | int | None]:
    """A line of claims.csv: one prediction of a claim."""
    prediction = result.prediction
    return {
        "claim": claim.name,
        "title": claim.title,
        "finding": "own" if claim.own else "published",
        "paper": claim.source.paper,
        "arxiv": f"arXiv {claim.source.arxiv}" if claim.source.arxiv else None,
        "where": claim.source.where or None,
        "statement": claim.statement,
        "setting": claim.setting,
        "remark": claim.remark or None,
        "number": prediction.name,
        "prediction": prediction.words,
        "predicted_low": bound(prediction.low),
        "predicted_high": bound(prediction.high),
        "measured": known(result.mean),
        "ci_low": known(result.low),
        "ci_high": known(result.high),
        "seeds": result.seeds,
        "verdict": result.verdict,
        "claim_verdict": verdict,
        "seconds": round(seconds, 1),
        "figure": f"figures/{claim.name}.png",
        "command": f"python run.py experiment=claims claims.only={claim.name} "
        f"claims.budget={settings.claims.budget}",
    }


def bound(value: float) -> float | None:
    """A bound of a prediction; None where there is none."""
    return value if math.isfinite(value) else None
