"""A sweep, which is a grid of runs: its jobs' names, which of them must run, and their results.

Several processes may work on one sweep: worker processes, or the same command started twice. They
agree through the run directories alone. A job's lock says whether a process runs it, and its
summary.json says how it ended.
"""

import contextlib
import logging
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.analysis.runs import COMPLETED, Run, needs_run, runs_in
from experiments.jobs.check import check_effects, check_weights, checked_settings
from experiments.jobs.launch import display_path
from experiments.jobs.results import compared, print_arms, print_conclusion, write_runs_csv
from experiments.machine.console import one_line, print_error, print_line, print_table, size_text
from experiments.machine.device import THREAD_VARIABLES
from experiments.machine.environment import environment
from experiments.machine.files import TEMPORARY, safe_file_name
from experiments.machine.limits import usable_cores
from experiments.machine.signals import Interrupted, forward_signals, stop_signal
from experiments.records.directory import is_locked
from experiments.records.summary import read_summary, summary_time
from experiments.settings.identity import digest
from experiments.settings.schema import RERUNS, Settings
from experiments.settings.typed import as_typed, names_of
from experiments.training.disk import predict_disk
from gpt import ConfigError
from gpt.checks import check_choice

log = logging.getLogger(__name__)

# Of a hash in a directory's name: two of 200 jobs have the same in 1 of 200,000 sweeps.
HASH_DIGITS = 8
POLL_SECONDS = 0.5  # between two looks at the summaries of jobs in other processes
CSV_SHARE = 0.05  # of a sweep's time, at most, in which runs.csv is written between jobs


@dataclass(frozen=True)
class Job:
    """One run of the grid: its overrides, the directory it runs in, and its config.

    values  the config as it was composed; empty where it is not known
    """

    overrides: tuple[str, ...]
    directory: Path
    values: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.directory.name


Launch = Callable[[Sequence[Job]], object]


def name_job(values: Mapping[str, Any], overrides: Sequence[str], swept: Sequence[str]) -> str:
    """A job's directory name: its swept values, its seed, and a hash of its result settings."""
    typed = dict(as_typed(override).split("=", 1) for override in overrides)
    parts = [str((values.get("norm") or {}).get("placement", values.get("runner")))]
    for key in swept:
        if key in ("norm", "norm.placement", "seed") or key not in typed:
            continue
        is_group = "." not in key and isinstance(values.get(key), dict)
        parts.append(typed[key] if is_group else key.rpartition(".")[2] + typed[key])
    parts.append(f"seed{values.get('seed')}")
    return f"{safe_file_name('-'.join(parts))}-{digest(values)[:HASH_DIGITS]}"


def name_sweep(experiment: str, swept: Sequence[str], base: Mapping[str, Any]) -> str:
    """A sweep's directory name: the experiment, the swept names, and a hash of all other settings.

    The seed and the order of the names do not change it, so that a command with more seeds finds
    the runs of the first.
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
    """The jobs of a grid, each set of settings once.

    A job is found again by the hash in its directory's name. The rest of the name depends on what
    else is swept, and can differ for the same settings under another command; a copy with another
    name counts only where there is none of the job's own.

    Raises ConfigError where no job is valid, for a setting without effect in any job, and for
    weights that the model of a job has no place for.
    """
    present: dict[str, Path] = {}
    for path in sorted(folder.glob("*-*")):
        if path.is_dir():
            present.setdefault(path.name.rpartition("-")[2], path)
    jobs: dict[str, Job] = {}
    for overrides in grid:
        values = compose(overrides)
        name = name_job(values, overrides, swept)
        key = name.rpartition("-")[2]
        own = folder / name
        directory = own if own.is_dir() else present.get(key, own)
        jobs.setdefault(key, Job(tuple(overrides), directory, values))
    valid = valid_settings(jobs.values())
    if jobs and not valid:
        checked_settings(next(iter(jobs.values())).values)  # says why
    check_effects(valid, {name for overrides in grid for name in names_of(overrides)})
    for settings in valid:
        check_weights(settings)
    return list(jobs.values())


def valid_settings(jobs: Iterable[Job]) -> list[Settings]:
    """Of those jobs whose config is known and valid; the others will be recorded as failed."""
    valid = []
    for job in (job for job in jobs if job.values):
        with contextlib.suppress(ConfigError):
            valid.append(checked_settings(job.values))
    return valid


def check_sweep(base: Mapping[str, Any], swept: Mapping[str, str]) -> None:
    """Raise ConfigError for a setting of the sweep itself that is not valid.

    base   the config without the swept values
    swept  names of the swept settings, with their values as typed
    """
    if base["sweep"]["rerun"] is not None:
        check_choice("sweep.rerun", base["sweep"]["rerun"], RERUNS)
    resume = swept.get("resume", base["resume"])
    if resume is not None:
        valid = "resumes a single run; to continue a sweep, run its command again without resume"
        raise ConfigError("resume", resume, valid)


def threads_in_children(count: int) -> contextlib.AbstractContextManager[None]:
    """Within: processes started here compute with `count` threads.

    By environment variables, since the numerical libraries read them once, when they are loaded.
    """
    return environment(dict.fromkeys(THREAD_VARIABLES, str(count)))


class Sweep:
    """Runs those jobs of a grid that must run, and reports on all of them.

    folder      the sweep's directory
    jobs        all jobs of the grid
    rerun       sweep.rerun
    parallel    whether jobs run in other processes
    threads     of each job
    standalone  whether the command is this sweep; False where it is a part of an experiment
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[Job],
        rerun: str | None,
        parallel: bool,
        threads: int,
        standalone: bool = True,
    ) -> None:
        self.folder, self.jobs, self.parallel, self.threads = folder, jobs, parallel, threads
        self.standalone = standalone
        self.to_run = [job for job in jobs if needs_run(job.directory, rerun)]
        self.skipped = {job for job in jobs if job not in self.to_run}
        # An earlier attempt left a summary, too: only one that was written since is of this sweep.
        self.times_before = {job: summary_time(job.directory) for job in self.to_run}
        self.reported: set[Job] = set()  # jobs whose end was printed
        self.report: Path | None = None
        self.started = time.monotonic()
        self.csv_due = self.started

    def run(self, launch: Launch) -> int:
        """Run the jobs and print their results; returns the exit code.

        launch  runs the jobs it is given, in this process or in others. Where a process is lost,
                it may raise, or leave jobs out.
        """
        if self.to_run:
            require_writable(self.folder)
        self._print_plan()
        interruption: KeyboardInterrupt | None = None
        try:
            if self.parallel:
                self._run_in_parallel(launch)
            else:
                self._run_in_series(launch)
        except KeyboardInterrupt as error:
            interruption = error
        write_runs_csv(self.folder)
        if interruption is None and self.standalone:
            self._report()
        self._print_outcomes()
        if interruption is not None:
            print_line("interrupted: run the same command again to continue")
            raise interruption
        left = [job for job in self.to_run if status_of(job) == "absent"]
        return int(bool(left) or any(status_of(job) == "failed" for job in self.jobs))

    def _print_plan(self) -> None:
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        jobs = "1 job" if len(self.jobs) == 1 else f"{len(self.jobs)} jobs"
        plan = f"{jobs} in {display_path(self.folder)}: {len(self.to_run)} to run{skipped}"
        needed, free = self._disk_needed(), shutil.disk_usage(self.folder).free
        if needed:
            plan += f"; about {size_text(needed)} on disk, {size_text(free)} free"
        print_line(plan)
        if needed > free:
            log.warning("the sweep is predicted to take more of the disk than is free")
        cores = usable_cores()
        has_idle_cores = cores > self.threads and len(self.to_run) > 1
        if self.standalone and not self.parallel and has_idle_cores:
            print_line(
                f"one job at a time, on {self.threads} of {cores} cores; hydra/launcher=joblib "
                'runs several at once (pip install -e ".[joblib]")'
            )

    def _disk_needed(self) -> int:
        """Bytes that the jobs should take at most: what all leave, and the checkpoints at one time.

        The largest first, as many as run at once; those that a finished job keeps count for all.
        """
        valid = valid_settings(self.to_run)
        needs = predict_disk(valid)
        kept = [
            need.checkpoints * settings.sweep.keep_checkpoints
            for need, settings in zip(needs, valid, strict=True)
        ]
        at_once = max(1, usable_cores() // self.threads) if self.parallel else 1
        passing = sorted(
            (n.checkpoints - k + n.checkpoint for n, k in zip(needs, kept, strict=True)),
            reverse=True,
        )
        return sum(need.records for need in needs) + sum(kept) + sum(passing[:at_once])

    def _run_in_series(self, launch: Launch) -> None:
        for job in self.to_run:
            print_line(f"job {self._position(len(self.reported) + 1)}: {job.name}")
            launch([job])
            self._print_end(job)
            self._refresh_runs_csv()

    def _refresh_runs_csv(self) -> None:
        """Write runs.csv between two jobs, unless its share of the time would be too large.

        All runs are read for it. After each of many short jobs that would take longer than the job.
        """
        began = time.monotonic()
        if began >= self.csv_due:
            write_runs_csv(self.folder)
            now = time.monotonic()
            self.csv_due = now + (now - began) / CSV_SHARE

    def _run_in_parallel(self, launch: Launch) -> None:
        """Launch all jobs, and again those that a crashed worker process left undone.

        When a worker dies, as the kernel kills it when memory runs out, the launcher gives up all
        jobs that had not ended. Only the one that the worker was running is counted as failed.
        """
        waiting = list(self.to_run)
        while waiting:
            try:
                with self._printing_ends(), threads_in_children(self.threads), forward_signals():
                    launch(waiting)
            except Exception as error:  # of the launcher: jobs catch their own errors
                log.warning("a worker process crashed or was killed: %s", one_line(error)[:200])
            self._print_new_ends()
            if signal := stop_signal():
                raise Interrupted(signal)
            for job in filter(self._is_lost, waiting):
                summary = read_summary(job.directory)
                summary.status, summary.error = "failed", "its process was killed or crashed"
                summary.write(job.directory)
            self._print_new_ends()
            rest = [
                job for job in waiting if job not in self.reported and not is_locked(job.directory)
            ]
            # Without progress the launcher cannot run them at all: trying again would never end.
            waiting = rest if len(rest) < len(waiting) else []

    @contextlib.contextmanager
    def _printing_ends(self) -> Iterator[None]:
        """Within: the end of each job is printed when it comes, by a thread.

        The launcher returns only after the last job, and does not report on the others.
        """
        stop = threading.Event()

        def poll() -> None:
            while not stop.wait(POLL_SECONDS):
                self._print_new_ends()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _print_new_ends(self) -> None:
        for job in self.to_run:
            if job in self.reported or not self._has_started(job):
                continue
            if status_of(job) not in ("running", "absent"):
                self._print_end(job)

    def _print_end(self, job: Job) -> None:
        """Print how a job ended, and how long the others will take at the pace so far."""
        self.reported.add(job)
        run = Run.read(job.directory)
        heading, details = f"job {self._position(len(self.reported))} {status_of(job)}", []
        if self.parallel:
            details.append(job.name)
        if run.status == "running":  # by another process, which has the lock
            heading = f"job {self._position(len(self.reported))} runs in another process"
        elif run.reason:
            details.append(run.reason)
        elif (loss := run.summary.val_loss) is not None:
            details.append(f"validation loss {loss:.3f}")
        if run.status != "running" and (seconds := run.summary.seconds) is not None:
            details.append(f"{seconds:.0f} s")
        words = f"{heading}: {', '.join(details) or job.name}"
        left = len(self.to_run) - len(self.reported)
        if left:
            pace = (time.monotonic() - self.started) / len(self.reported)
            words += f" ({duration(pace * left)} left)"
        print_line(words)

    def _position(self, number: int) -> str:
        return f"{number + len(self.skipped)} of {len(self.jobs)}"

    def _has_started(self, job: Job) -> bool:
        """Whether the job has written a summary since this sweep began."""
        return summary_time(job.directory) != self.times_before[job]

    def _is_lost(self, job: Job) -> bool:
        """Whether the process that ran the job has died: its lock ended with it."""
        is_running = self._has_started(job) and status_of(job) == "running"
        return is_running and not is_locked(job.directory)

    def _report(self) -> None:
        """Write the sweep's report. A sweep without one still has its CSV files."""
        try:
            # Loads matplotlib, which would delay the first job.
            from experiments.report import write_report

            self.report = write_report([self.folder], self.folder)
        except Exception as error:
            log.warning("the report was not written: %s: %s", type(error).__name__, one_line(error))

    def _print_outcomes(self) -> None:
        """Print how many jobs had which outcome, and why jobs failed or diverged."""
        outcomes = Counter(self._outcome(job) for job in self.jobs)
        rows = [{"outcome": outcome, "jobs": count} for outcome, count in outcomes.items()]
        print_table(f"{len(self.jobs)} jobs", [*rows])
        for job in self.jobs:
            run = Run.read(job.directory)
            if run.status in ("failed", "diverged"):
                show = print_error if run.status == "failed" else print_line
                show(f"{run.status}: {job.name}: {run.reason}")
        runs = runs_in([self.folder]) if self.standalone else []
        layout, arms = compared(runs)
        print_arms(arms)
        files = [self.folder / "runs.csv", *filter(None, [self.report])]
        print_line("\nFiles: " + ", ".join(map(display_path, files)))
        if runs:
            print_conclusion(layout, arms)

    def _outcome(self, job: Job) -> str:
        run = Run.read(job.directory)
        status = status_of(job)
        if job in self.skipped and status in COMPLETED:
            return f"skipped, {run.outcome} before"
        if status == "running":
            return "running in another process" if is_locked(job.directory) else "crashed"
        return "not started" if status == "absent" else run.outcome


def require_writable(folder: Path) -> None:
    """Raise ConfigError for a folder in which no file can be made."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".sweep.", suffix=TEMPORARY):
            pass
    except OSError as error:
        valid = f"cannot be written: {error.strerror}"
        raise ConfigError("hydra.sweep.dir", str(folder), valid) from None


def status_of(job: Job) -> str:
    """The status in the job's summary; absent without one."""
    return read_summary(job.directory).status or "absent"


def duration(seconds: float) -> str:
    """A time to wait, such as 45 s, 10 min or 2.0 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
