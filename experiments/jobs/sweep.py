"""A grid of runs: what its jobs are called, which are due, and what came out of them."""

import contextlib
import csv
import io
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.analysis.runs import (
    COMPLETED,
    Run,
    find_runs,
    needs_run,
    read_summary,
    sort_key,
    varying_settings,
)
from experiments.jobs.launch import display_path
from experiments.machine.console import one_line, print_error, print_line, print_table
from experiments.machine.files import safe_file_name, write_atomically
from experiments.machine.signals import Interrupted, forward_signals, stop_signal
from experiments.records.directory import is_locked
from experiments.records.sink import escape_cell, format_cell
from experiments.records.summary import write_summary
from experiments.settings.identity import digest
from experiments.settings.schema import RERUNS
from gpt import ConfigError
from gpt.checks import check_choice

log = logging.getLogger(__name__)

HASH_DIGITS = 8  # of a job's settings in its directory's name: 200 jobs collide once in 10^5 sweeps
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
POLL_SECONDS = 0.5  # seconds between two looks at jobs in other processes

# Columns of runs.csv after the swept values: name, and where summary.json has it.
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("init", ("init",)),
    ("final_norm", ("final_norm",)),
    ("steps", ("steps",)),
    ("tokens", ("tokens",)),
    ("diverged_at_step", ("diverged_at_step",)),
    ("train_loss", ("train_loss",)),
    ("val_loss", ("val_loss",)),
    ("initial_val_loss", ("initial_val_loss",)),
    ("unigram_validation_loss", ("corpus", "unigram_validation_loss")),
    ("stuck", ("stuck",)),
    ("spikes", ("spikes",)),
    ("clip_share", ("clip_share",)),
    ("grad_norm_first_block_initial", ("grad_norm", "first_step", "first_block")),
    ("grad_norm_last_block_initial", ("grad_norm", "first_step", "last_block")),
    ("grad_norm_first_block_final", ("grad_norm", "last_step", "first_block")),
    ("grad_norm_last_block_final", ("grad_norm", "last_step", "last_block")),
    ("parameters", ("parameters",)),
    ("peak_memory_mb", ("peak_memory_mb",)),
    ("tokens_per_s", ("tokens_per_s",)),
    ("training_seconds", ("training_seconds",)),
    ("seconds", ("seconds",)),
)


@dataclass(frozen=True)
class Job:
    """One cell of the grid: what is overridden, and where it runs."""

    overrides: tuple[str, ...]
    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name


def name_job(values: Mapping[str, Any], overrides: Sequence[str], swept: Sequence[str]) -> str:
    """A job's directory: its swept choices, its seed, and a hash of all that makes its results."""
    chosen = dict(override.split("=", 1) for override in overrides)
    parts = [str((values.get("norm") or {}).get("placement", values.get("runner")))]
    for key in swept:
        if key in ("norm", "norm.placement", "seed"):
            continue
        is_group = "." not in key and isinstance(values.get(key), dict)
        parts.append(chosen[key] if is_group else key.rpartition(".")[2] + chosen[key])
    parts.append(f"seed{values.get('seed')}")
    return f"{safe_file_name('-'.join(parts))}-{digest(values)[:HASH_DIGITS]}"


def name_sweep(experiment: str, swept: Sequence[str], base: Mapping[str, Any]) -> str:
    """A sweep's directory: the experiment, what the command sweeps, and a hash of the rest.

    The seed has no part in it, nor has the order of the names: more seeds land beside the first.
    """
    names = sorted(key.rpartition(".")[2] for key in swept if key != "seed")
    words = "-".join([experiment, "+".join(names)]).strip("-")
    return f"{safe_file_name(words)}-{digest({**base, 'seed': None})[:6]}"


def plan_jobs(
    grid: Sequence[Sequence[str]],
    swept: Sequence[str],
    folder: Path,
    compose: Callable[[Sequence[str]], Mapping[str, Any]],
) -> list[Job]:
    """The jobs of a grid. One whose settings ran in `folder` under another name keeps that name."""
    present = {path.name.rpartition("-")[2]: path for path in folder.glob("*-*") if path.is_dir()}
    jobs: dict[str, Job] = {}
    for overrides in grid:
        name = name_job(compose(overrides), overrides, swept)
        key = name.rpartition("-")[2]
        directory = present.get(key, folder / name)
        jobs.setdefault(key, Job(tuple(overrides), directory))  # equal settings run once
    return list(jobs.values())


def check_sweep(base: Mapping[str, Any], swept: Sequence[str]) -> None:
    """Raise ConfigError for a setting that concerns the sweep itself."""
    if base["sweep"]["rerun"] is not None:
        check_choice("sweep.rerun", base["sweep"]["rerun"], RERUNS)
    if base["resume"] is not None or "resume" in swept:
        valid = "is for one run; a sweep goes on when its command is given again"
        raise ConfigError("resume", base["resume"] or "a sweep", valid)


@contextlib.contextmanager
def threads_in_children(count: int) -> Iterator[None]:
    """Within: processes that start have `count` threads, from before their PyTorch starts."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(count))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Sweep:
    """Runs the due jobs of a grid and tells what came of all of them.

    folder    the sweep's directory
    jobs      all jobs of the grid
    rerun     sweep.rerun
    parallel  whether jobs run in other processes
    threads   of each job
    alone     whether it is what the command asked for, not a part of an experiment
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[Job],
        rerun: str | None,
        parallel: bool,
        threads: int,
        alone: bool = True,
    ) -> None:
        self.folder, self.jobs, self.parallel, self.threads = folder, jobs, parallel, threads
        self.alone = alone
        self.due = [job for job in jobs if needs_run(job.directory, rerun)]
        self.skipped = {job for job in jobs if job not in self.due}
        self.before = {job: self._written(job) for job in self.due}
        self.ended: set[Job] = set()
        self.report: Path | None = None
        self.started = time.monotonic()

    def run(self, launch: Callable[[Sequence[Job]], object]) -> int:
        """Launch what is due; returns the exit code. `launch` runs jobs, and may lose some."""
        self._announce()
        interruption: KeyboardInterrupt | None = None
        try:
            if self.parallel:
                self._in_parallel(launch)
            else:
                self._in_series(launch)
        except KeyboardInterrupt as error:
            interruption = error
        write_runs_csv(self.folder)
        if interruption is None and self.alone:
            self._report()
        self._table()
        if interruption is not None:
            print_line("interrupted: the same command goes on")
            raise interruption
        return int(any(self._status(job) == "failed" for job in self.jobs))

    def _announce(self) -> None:
        done = f", {len(self.skipped)} skipped" if self.skipped else ""
        jobs = "1 job" if len(self.jobs) == 1 else f"{len(self.jobs)} jobs"
        print_line(f"{jobs} in {display_path(self.folder)}: {len(self.due)} to run{done}")
        cores = os.cpu_count() or 1
        if self.alone and not self.parallel and cores > self.threads and len(self.due) > 1:
            print_line(
                f"one job at a time, {self.threads} of {cores} cores each; hydra/launcher=joblib "
                'runs several at once (pip install -e ".[joblib]")'
            )

    def _in_series(self, launch: Callable[[Sequence[Job]], object]) -> None:
        for job in self.due:
            print_line(f"job {self._count(len(self.ended) + 1)}: {job.name}")
            launch([job])
            self._end(job)
            write_runs_csv(self.folder)

    def _in_parallel(self, launch: Callable[[Sequence[Job]], object]) -> None:
        """Launch all at once and tell of each that ends; a lost process costs its own job alone."""
        waiting = list(self.due)
        while waiting:
            stop = threading.Event()
            watcher = threading.Thread(target=self._watch, args=(stop,), daemon=True)
            watcher.start()
            try:
                with threads_in_children(self.threads), forward_signals():
                    launch(waiting)
            except Exception as error:  # of the launcher: jobs catch their own
                log.warning("a worker was lost: %s", one_line(error)[:200])
            finally:
                stop.set()
                watcher.join()
            self._look()
            if signal := stop_signal():
                raise Interrupted(signal)
            lost = [job for job in waiting if self._is_lost(job)]
            for job in lost:
                summary = {"status": "failed", "error": "its process was killed or crashed"}
                write_summary(job.directory, read_summary(job.directory) | summary)
            self._look()
            still = [job for job in waiting if job not in self.ended and not self._is_busy(job)]
            waiting = still if len(still) < len(waiting) else []

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        for job in self.due:
            changed = self._written(job) != self.before[job]
            if job not in self.ended and changed and self._status(job) not in ("running", "absent"):
                self._end(job)

    def _end(self, job: Job) -> None:
        """Tell how a job ended, and how long the rest will take at the pace so far."""
        self.ended.add(job)
        run = Run(job.directory, read_summary(job.directory))
        words = [f"job {self._count(len(self.ended))} {self._status(job)}:"]
        loss, seconds = run.number("val_loss"), run.number("seconds")
        if run.status == "running":
            words[0] = f"job {self._count(len(self.ended))} is in hand elsewhere:"
            loss = seconds = None
        told = [
            job.name if self.parallel else "",
            run.reason,
            "" if loss is None or run.reason else f"validation loss {loss:.3f}",
            "" if seconds is None else f"{seconds:.0f} s",
        ]
        words.append(", ".join(filter(None, told)) or job.name)
        left = len(self.due) - len(self.ended)
        if left:
            pace = (time.monotonic() - self.started) / len(self.ended)
            words.append(f"({duration(pace * left)} left)")
        print_line(" ".join(words))

    def _count(self, number: int) -> str:
        return f"{number + len(self.skipped)} of {len(self.jobs)}"

    def _written(self, job: Job) -> int | None:
        """When the job's summary was last written; None where there is none."""
        try:
            return (job.directory / "summary.json").stat().st_mtime_ns
        except OSError:
            return None

    def _status(self, job: Job) -> str:
        return str(read_summary(job.directory).get("status", "absent"))

    def _is_busy(self, job: Job) -> bool:
        return is_locked(job.directory)

    def _is_lost(self, job: Job) -> bool:
        changed = self._written(job) != self.before[job]
        return changed and self._status(job) == "running" and not self._is_busy(job)

    def _report(self) -> None:
        """The sweep's report; without it, the CSV files are still there."""
        from experiments.report import write_report  # loads what the runs do not need

        try:
            self.report = write_report([self.folder], self.folder)
        except Exception as error:
            log.warning("the report is not made: %s: %s", type(error).__name__, one_line(error))

    def _table(self) -> None:
        """How many jobs ended how, and why those that did not finish did not."""
        outcomes: Counter[str] = Counter()
        for job in self.jobs:
            status = self._status(job)
            if job in self.skipped and status in COMPLETED:
                status = f"skipped, {status} before"
            elif status == "running":
                status = "running elsewhere" if self._is_busy(job) else "cut short"
            elif status == "absent":
                status = "not started"
            outcomes[status] += 1
        rows = [{"outcome": outcome, "jobs": count} for outcome, count in outcomes.items()]
        print_table(f"{len(self.jobs)} jobs", [*rows])
        for job in self.jobs:
            run = Run(job.directory, read_summary(job.directory))
            if run.status in ("failed", "diverged"):
                tell = print_error if run.status == "failed" else print_line
                tell(f"{run.status}: {job.name}: {run.reason}")
        files = [self.folder / "runs.csv", *filter(None, [self.report])]
        print_line("\nFiles: " + ", ".join(map(display_path, files)))


def write_runs_csv(folder: Path) -> None:
    """runs.csv in `folder`: a row for each run below it, whoever ran it."""
    runs = find_runs(folder)
    names = varying_settings(runs)
    runs.sort(key=lambda run: [sort_key(run.settings.get(name)) for name in [*names, "seed"]])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["name", *names, "seed", "status", "reason", *(name for name, _ in COLUMNS)]
    writer.writerow(map(escape_cell, head))
    for run in runs:
        values = [run.directory.name, *(run.settings.get(name) for name in names)]
        values += [run.seed, run.status, run.reason]
        values += [look_up(run.summary, path) for _, path in COLUMNS]
        writer.writerow([format_cell(value) for value in values])
    try:
        write_atomically(folder / "runs.csv", buffer.getvalue().encode())
    except OSError as error:
        log.warning("runs.csv is not written: %s", one_line(error))


def look_up(values: Any, path: Sequence[str]) -> Any:
    """A value in nested dictionaries; None where it is absent."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def duration(seconds: float) -> str:
    """A time to wait, in words a person reads at a glance."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
