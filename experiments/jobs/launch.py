"""One run from start to end: its directory, its runner, its pictures, its last words."""

import contextlib
import dataclasses
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.analysis.runs import COMPLETED, needs_run, read_summary
from experiments.jobs.check import checked_settings
from experiments.jobs.resume import (
    check_resumable,
    load_newest_state,
    merge_overrides,
    read_config,
    resumed_threads,
)
from experiments.machine.console import (
    one_line,
    print_error,
    print_line,
    print_values,
    printable,
    show_warnings,
    silenced,
)
from experiments.machine.signals import exit_code, handle_signals, stop_signal
from experiments.records.directory import (
    CONFIG_FOLDER,
    DirectoryInUse,
    delete_run,
    locked,
    require_empty,
    write_config,
)
from experiments.records.recorder import Recorder
from experiments.records.summary import write_summary
from experiments.runner import Outcome, find_runner
from experiments.settings.identity import digest, result_settings
from experiments.settings.schema import Settings
from experiments.training.checkpoint import State
from gpt import ConfigError

log = logging.getLogger(__name__)

FAILED = 1
THREADS_IN_A_SWEEP = 1  # in series too: the last bits of a sum depend on who adds what


Values = Mapping[str, Any]  # a composed config as nested dictionaries, every value resolved


def launch(values: Values, overrides: Sequence[str], directory: Path) -> int:
    """Run what `values` ask for in `directory`; returns the exit code.

    0 for finished and diverged, 1 for failed, 128 + the signal for interrupted. What was recorded
    before a failure stays, and summary.json says what happened.
    """
    try:
        if values["resume"] is not None:
            place = Path(values["resume"]).expanduser()
            if place.resolve() != directory.resolve():
                valid = "cannot be given with resume, which goes on where the run is"
                raise ConfigError("hydra.run.dir", str(directory), valid)
            return resume_run(values, overrides, place)
        settings = checked_settings(values)
        with locked(directory):
            write_config(directory, values, overrides)
            return run(settings, overrides, directory)
    except (ConfigError, OSError) as error:
        return reject(directory, error)


def reject(directory: Path, error: Exception) -> int:
    """Say why nothing runs in `directory`; returns the exit code."""
    remove_if_empty(directory)
    print_error(f"error: {one_line(error)}")
    return FAILED


def resume_run(asked_for: Values, overrides: Sequence[str], directory: Path) -> int:
    """Go on with the run in `directory`, from its newest checkpoint or from its start."""
    if not (directory / CONFIG_FOLDER / "config.yaml").is_file():
        valid = f"must be the directory of a run that began; it has no {CONFIG_FOLDER}/config.yaml"
        raise ConfigError("resume", str(asked_for["resume"]), valid)
    with locked(directory, new=False):
        stored, told = read_config(directory)
        added = [o for o in overrides if not o.startswith("resume=")]
        values = merge_overrides(stored, asked_for, added)
        settings = checked_settings(values)
        state = load_newest_state(directory)
        for before in filter(None, (stored, state and state["settings"])):
            check_resumable(settings, before, 0 if state is None else state["step"])
        status = read_summary(directory).get("status")
        longer = settings.trainer.steps > stored["trainer"]["steps"]
        grows = longer and settings.runner == "train"
        if status in COMPLETED and not (grows and status == "finished"):
            print_line(f"nothing to do: the run in {display_path(directory)} has {status}")
            return 0
        if state is None:
            print_line("it has no checkpoint and starts again")
            delete_run(directory)
        combined = list({o.split("=", 1)[0]: o for o in [*told, *added]}.values())
        write_config(directory, values, combined)
        return run(settings, combined, directory, state)


def launch_job(values: Values, overrides: Sequence[str], directory: Path, bars: bool = True) -> int:
    """As `launch`, for a job of a sweep, which tells of it: here nothing is said.

    Goes on with its own earlier attempt, or replaces it. Does nothing where another process has
    the job in hand or has ended it meanwhile, or the sweep is to stop; records a refused config
    as a failed job.
    """
    show_warnings()  # in a process of its own nobody has done so
    with silenced(bars), handle_signals():
        try:
            if stop_signal() or not needs_run(directory, rerun_setting(values)):
                return 0
            with locked(directory, new=False):
                return run_job(values, overrides, directory)
        except DirectoryInUse:
            return 0
        except (ConfigError, OSError) as error:
            record_rejected_job(values, overrides, directory, one_line(error))
            return FAILED


def rerun_setting(values: Values) -> Any:
    """Its sweep.rerun, which nobody has checked yet."""
    return (values.get("sweep") or {}).get("rerun")


def run_job(values: Values, overrides: Sequence[str], directory: Path) -> int:
    """Run a job in its own directory; returns the exit code."""
    settings = sweep_job_settings(checked_settings(values), overrides, directory)
    state = None
    if settings.sweep.rerun != "all":
        try:
            state = load_newest_state(directory)
            if state is not None:
                check_resumable(settings, state["settings"], state["step"])
        except ConfigError as error:
            log.warning("%s starts again: %s", directory.name, one_line(error))
            state = None
    if state is None:
        delete_run(directory)
        require_empty(directory)
    write_config(directory, values, overrides)
    return run(settings, overrides, directory, state, THREADS_IN_A_SWEEP)


def sweep_job_settings(settings: Settings, overrides: Sequence[str], directory: Path) -> Settings:
    """`settings` as a job of a sweep uses them: its threads, its place among the W&B runs."""
    told = settings.wandb
    choices = [
        o[:64] for o in overrides if not o.startswith(("seed=", "wandb.", "sweep.", "data."))
    ]
    wandb = dataclasses.replace(
        told,
        group=told.group or directory.parent.name,
        name=told.name or directory.name.rpartition("-")[0],
        tags=[*told.tags, *choices],
    )
    return dataclasses.replace(settings, wandb=wandb)


def record_rejected_job(
    values: Values, overrides: Sequence[str], directory: Path, message: str
) -> None:
    """summary.json of a job that no runner could take."""
    summary = {
        "status": "failed",
        "runner": values.get("runner"),
        "seed": values.get("seed"),
        "settings_sha256": digest(values),
        "settings": result_settings(values),
        "overrides": list(overrides),
        "error": message,
    }
    with contextlib.suppress(OSError):  # where nothing can be written, the sweep's table tells
        write_summary(directory, summary)


@contextlib.contextmanager
def set_threads(count: int | None) -> Iterator[None]:
    """Within: PyTorch computes on `count` cores; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    settings: Settings,
    overrides: Sequence[str],
    directory: Path,
    state: State | None = None,
    threads_if_unset: int | None = None,
) -> int:
    """Run in a directory that is the run's own; returns the exit code.

    state  of the checkpoint to go on from
    """
    with set_threads(resumed_threads(settings, state) or threads_if_unset):
        recorder = Recorder(directory, settings, overrides, state)
        return execute(settings, recorder)


def execute(settings: Settings, recorder: Recorder) -> int:
    """Let the runner run, draw its pictures, close its records, and tell; the exit code."""
    directory, message = recorder.directory, ""
    pictures: list[Path] = []
    try:
        outcome = find_runner(settings.runner)(settings, recorder)
        recorder.write_summary()  # the pictures read it
        pictures = draw_pictures(directory) if settings.pictures else []
    except KeyboardInterrupt as error:
        status, code = "interrupted", exit_code(error)
        message = f"python run.py resume={shlex.quote(display_path(directory))} goes on"
    except Exception as error:
        if wants_traceback():
            raise
        status, message, code = "failed", describe_error(error), FAILED
    else:
        status, code = outcome.status, 0
    try:
        recorder.close(status, pictures, **({"error": message} if status == "failed" else {}))
    except OSError as error:  # a full disk, say; what was written before is still there
        status, message, code = "failed", message or describe_error(error), code or FAILED
    if message:
        print_error(f"{'error' if status == 'failed' else status}: {message}")
    else:
        print_outcome(outcome, recorder)
    return code


def draw_pictures(directory: Path) -> list[Path]:
    """The run's pictures."""
    from experiments.report.run_pictures import draw_run

    return draw_run(directory)


def print_outcome(outcome: Outcome, recorder: Recorder) -> None:
    """The closing table, the sample, and where the files are."""
    summary = recorder.summary
    status = outcome.status
    if outcome.status == "diverged":
        status += f": {summary['reason']}"
    shown = {"status": status, **outcome.shown, "time": f"{summary['seconds']:.1f} s"}
    placement = f" ({summary['placement']})" if "placement" in summary else ""
    print_values(summary["runner"] + placement, shown)
    for title, text in (("Prompt", outcome.prompt), ("The model continued", outcome.sample)):
        if text:
            print_line(f"\n{title}:\n  " + text.strip().replace("\n", "\n  "))
    print_line(f"\nFiles: {display_path(recorder.directory)}")


def display_path(directory: Path) -> str:
    """The path from here, where that is shorter."""
    return printable(min(str(directory), os.path.relpath(directory), key=len))


def describe_error(error: Exception) -> str:
    """An error as one line; of errors that are not ours, with their kind."""
    if isinstance(error, ConfigError):
        return one_line(error)
    hint = "" if isinstance(error, OSError) else "; set NORMSCOPE_DEBUG=1 for the traceback"
    return f"{type(error).__name__}: {one_line(error)}{hint}"


def wants_traceback() -> bool:
    """Whether errors should come with their traceback."""
    return os.environ.get("NORMSCOPE_DEBUG") == "1"


def remove_if_empty(directory: Path) -> None:
    """Take back a directory in which nothing happened."""
    with contextlib.suppress(OSError):
        directory.rmdir()
