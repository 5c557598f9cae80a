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

from experiments.analysis.runs import ANSWERED, is_due, read_summary
from experiments.jobs.check import checked_settings
from experiments.jobs.resume import (
    find_state,
    read_asked,
    refuse_difference,
    threads_of,
    with_changes,
)
from experiments.machine.console import (
    complain,
    hushed,
    one_line,
    printable,
    say,
    show_values,
    tell_warnings,
)
from experiments.machine.signals import asked, exit_code, listening
from experiments.records.directory import (
    ASKED,
    Busy,
    claimed,
    discard_run,
    refuse_content,
    write_asked,
)
from experiments.records.recorder import Recorder
from experiments.records.summary import write_summary
from experiments.runner import Outcome, find_runner
from experiments.settings.identity import digest, telling
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
            return go_on(values, overrides, place)
        settings = checked_settings(values)
        with claimed(directory):
            write_asked(directory, values, overrides)
            return run(settings, overrides, directory)
    except (ConfigError, OSError) as error:
        return refuse(directory, error)


def refuse(directory: Path, error: Exception) -> int:
    """Say why nothing runs in `directory`; returns the exit code."""
    remove_if_empty(directory)
    complain(f"error: {one_line(error)}")
    return FAILED


def go_on(asked_for: Values, overrides: Sequence[str], directory: Path) -> int:
    """Go on with the run in `directory`, from its newest checkpoint or from its start."""
    if not (directory / ASKED / "config.yaml").is_file():
        valid = f"must be the directory of a run that began; it has no {ASKED}/config.yaml"
        raise ConfigError("resume", str(asked_for["resume"]), valid)
    with claimed(directory, new=False):
        stored, told = read_asked(directory)
        added = [o for o in overrides if not o.startswith("resume=")]
        values = with_changes(stored, asked_for, added)
        settings = checked_settings(values)
        state = find_state(directory)
        for before in filter(None, (stored, state and state["settings"])):
            refuse_difference(settings, before, 0 if state is None else state["step"])
        status = read_summary(directory).get("status")
        longer = settings.trainer.steps > stored["trainer"]["steps"]
        grows = longer and settings.runner == "train"
        if status in ANSWERED and not (grows and status == "finished"):
            say(f"nothing to do: the run in {shorten(directory)} has {status}")
            return 0
        if state is None:
            say("it has no checkpoint and starts again")
            discard_run(directory)
        combined = list({o.split("=", 1)[0]: o for o in [*told, *added]}.values())
        write_asked(directory, values, combined)
        return run(settings, combined, directory, state)


def launch_job(values: Values, overrides: Sequence[str], directory: Path, bars: bool = True) -> int:
    """As `launch`, for a job of a sweep, which tells of it: here nothing is said.

    Goes on with its own earlier attempt, or replaces it. Does nothing where another process has
    the job in hand or has ended it meanwhile, or the sweep is to stop; records a refused config
    as a failed job.
    """
    tell_warnings()  # in a process of its own nobody has done so
    with hushed(bars), listening():
        try:
            if asked() or not is_due(directory, rerun_of(values)):
                return 0
            with claimed(directory, new=False):
                return run_job(values, overrides, directory)
        except Busy:
            return 0
        except (ConfigError, OSError) as error:
            record_refusal(values, overrides, directory, one_line(error))
            return FAILED


def rerun_of(values: Values) -> Any:
    """Its sweep.rerun, which nobody has checked yet."""
    return (values.get("sweep") or {}).get("rerun")


def run_job(values: Values, overrides: Sequence[str], directory: Path) -> int:
    """Run a job in its own directory; returns the exit code."""
    settings = of_sweep(checked_settings(values), overrides, directory)
    state = None
    if settings.sweep.rerun != "all":
        try:
            state = find_state(directory)
            if state is not None:
                refuse_difference(settings, state["settings"], state["step"])
        except ConfigError as error:
            log.warning("%s starts again: %s", directory.name, one_line(error))
            state = None
    if state is None:
        discard_run(directory)
        refuse_content(directory)
    write_asked(directory, values, overrides)
    return run(settings, overrides, directory, state, THREADS_IN_A_SWEEP)


def of_sweep(settings: Settings, overrides: Sequence[str], directory: Path) -> Settings:
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


def record_refusal(values: Values, overrides: Sequence[str], directory: Path, message: str) -> None:
    """summary.json of a job that no runner could take."""
    summary = {
        "status": "failed",
        "runner": values.get("runner"),
        "seed": values.get("seed"),
        "settings_sha256": digest(values),
        "settings": telling(values),
        "overrides": list(overrides),
        "error": message,
    }
    with contextlib.suppress(OSError):  # where nothing can be written, the sweep's table tells
        write_summary(directory, summary)


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
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
    with threads(threads_of(settings, state) or threads_if_unset):
        recorder = Recorder(directory, settings, overrides, state)
        return carry_out(settings, recorder)


def carry_out(settings: Settings, recorder: Recorder) -> int:
    """Let the runner run, draw its pictures, close its records, and tell; the exit code."""
    directory, message = recorder.directory, ""
    pictures: list[Path] = []
    try:
        outcome = find_runner(settings.runner)(settings, recorder)
        recorder.write_summary()  # the pictures read it
        pictures = draw(directory) if settings.pictures else []
    except KeyboardInterrupt as error:
        status, code = "interrupted", exit_code(error)
        message = f"python run.py resume={shlex.quote(shorten(directory))} goes on"
    except Exception as error:
        if wants_traceback():
            raise
        status, message, code = "failed", explain(error), FAILED
    else:
        status, code = outcome.status, 0
    try:
        recorder.close(status, pictures, **({"error": message} if status == "failed" else {}))
    except OSError as error:  # a full disk, say; what was written before is still there
        status, message, code = "failed", message or explain(error), code or FAILED
    if message:
        complain(f"{'error' if status == 'failed' else status}: {message}")
    else:
        tell(outcome, recorder)
    return code


def draw(directory: Path) -> list[Path]:
    """The run's pictures."""
    from experiments.report.run_pictures import draw_run

    return draw_run(directory)


def tell(outcome: Outcome, recorder: Recorder) -> None:
    """The closing table, the sample, and where the files are."""
    summary = recorder.summary
    status = outcome.status
    if outcome.status == "diverged":
        status += f": {summary['reason']}"
    shown = {"status": status, **outcome.shown, "time": f"{summary['seconds']:.1f} s"}
    placement = f" ({summary['placement']})" if "placement" in summary else ""
    show_values(summary["runner"] + placement, shown)
    for title, text in (("Prompt", outcome.prompt), ("The model continued", outcome.sample)):
        if text:
            say(f"\n{title}:\n  " + text.strip().replace("\n", "\n  "))
    say(f"\nFiles: {shorten(recorder.directory)}")


def shorten(directory: Path) -> str:
    """The path from here, where that is shorter."""
    return printable(min(str(directory), os.path.relpath(directory), key=len))


def explain(error: Exception) -> str:
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
