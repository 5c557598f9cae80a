"""One run from start to end: its directory, its runner, its pictures, what it prints at its end."""

import contextlib
import dataclasses
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.analysis.runs import COMPLETED, Run, needs_run
from experiments.jobs.check import check_effects, check_weights, checked_settings
from experiments.jobs.results import compared, print_conclusion
from experiments.jobs.resume import (
    check_resumable,
    check_text,
    load_newest_state,
    merge_overrides,
    read_config,
    resumed_threads,
)
from experiments.machine.console import (
    one_line,
    print_error,
    print_line,
    print_traceback,
    print_values,
    printable,
    prints_lines,
    silenced,
    terminal,
)
from experiments.machine.device import threads_within_quota, warn_of_many_threads
from experiments.machine.files import typed_path
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
from experiments.records.summary import Summary
from experiments.runner import Outcome, find_runner
from experiments.settings.identity import digest, result_settings
from experiments.settings.schema import Settings
from experiments.settings.typed import names_of
from experiments.training.checkpoint import State, delete_checkpoints
from experiments.training.precision import float32_products
from gpt import ConfigError

log = logging.getLogger(__name__)

FAILED = 1
# Jobs in series get one thread as well: more threads add in another order, which changes the last
# bits, and a sweep must give the same numbers in series and in parallel.
THREADS_IN_A_SWEEP = 1
MOST_OF_GROUP, MOST_OF_TAG = 121, 64  # characters: W&B takes 128 of a group, with a hash, and 64

Values = Mapping[str, Any]  # a composed config as nested dictionaries, every value resolved


def launch(values: Values, overrides: Sequence[str], directory: Path) -> int:
    """Run the config `values` in `directory`, or resume an earlier run; returns the exit code.

    0 for finished and diverged, 1 for failed, 128 + the signal for interrupted. Records written
    before a failure are kept, and summary.json has the reason.
    """
    try:
        if values["resume"] is not None:
            if not values["resume"]:
                raise ConfigError("resume", values["resume"], "must be the directory of a run")
            run_directory = typed_path(values["resume"])
            if run_directory.resolve() != directory.resolve():
                valid = "cannot be combined with resume, which writes into the run's own directory"
                raise ConfigError("hydra.run.dir", str(directory), valid)
            return resume_run(values, overrides, run_directory)
        settings = checked_settings(values)
        check_effects([settings], names_of(overrides))
        check_weights(settings)
        with locked(directory):
            write_config(directory, values, overrides)
            return run(settings, overrides, directory)
    except (ConfigError, OSError) as error:
        return reject(directory, error)


def reject(directory: Path, error: Exception) -> int:
    """Print why nothing runs in `directory`; returns the exit code."""
    remove_if_empty(directory)
    print_error(f"error: {one_line(error)}")
    return FAILED


def resume_run(composed: Values, overrides: Sequence[str], directory: Path) -> int:
    """Resume the run in `directory` from its newest checkpoint; without one, from the beginning.

    composed  the config of this command line, of which only what it overrides is used
    """
    if not (directory / CONFIG_FOLDER / "config.yaml").is_file():
        valid = f"must be the directory of a run; it has no {CONFIG_FOLDER}/config.yaml"
        raise ConfigError("resume", str(composed["resume"]), valid)
    with locked(directory, new=False):
        stored, stored_overrides = read_config(directory)
        new_overrides = [o for o in overrides if not o.startswith("resume=")]
        values = merge_overrides(stored, composed, new_overrides)
        settings = checked_settings(values)
        state = load_newest_state(directory)
        # The checkpoint has the settings that its numbers were computed with, .hydra/config.yaml
        # those of the latest start; somebody may have edited the file since.
        for earlier in filter(None, (stored, state and state["settings"])):
            check_resumable(settings, earlier, 0 if state is None else state["step"])
        earlier_run, path = Run.read(directory), settings.data.path
        status = earlier_run.status
        has_more_steps = settings.trainer.steps > stored["trainer"]["steps"]
        is_extended = has_more_steps and settings.runner == "train" and earlier_run.made_all_steps
        is_complete = status in COMPLETED and not is_extended
        began_with = earlier_run.summary.corpus.sha256 if state is None else state["corpus_sha256"]
        if path and began_with and not (is_complete and path == stored["data"]["path"]):
            check_text(settings.data, path, began_with)
        if is_complete:
            print_line(f"nothing to do: the run in {display_path(directory)} has already {status}")
            return 0
        if state is None:
            print_line(
                f"the run in {display_path(directory)} has no checkpoint: starting from the "
                "beginning"
            )
            delete_run(directory)
        by_name = {o.split("=", 1)[0]: o for o in [*stored_overrides, *new_overrides]}
        combined = list(by_name.values())
        write_config(directory, values, combined)
        return run(settings, combined, directory, state)


def launch_job(values: Values, overrides: Sequence[str], directory: Path, bars: bool = True) -> int:
    """As `launch`, for a job of a sweep: prints nothing, since the sweep reports its jobs.

    Resumes its own earlier attempt, or replaces it. Does nothing where another process runs the
    job or has completed it meanwhile, or where the sweep was asked to stop. Records an invalid
    config as a failed job.
    """
    # The terminal, too, since a worker process of a parallel sweep has only this.
    with terminal(), silenced(bars), handle_signals():
        try:
            if stop_signal() or not needs_run(directory, rerun_setting(values)):
                return 0
            with locked(directory, new=False):
                code = run_job(values, overrides, directory)
                if code == FAILED and not (directory / "summary.json").is_file():
                    reason = "its directory was removed while the run went on"
                    record_rejected_job(values, overrides, directory, reason)
                return code
        except DirectoryInUse:
            return 0
        except (ConfigError, OSError) as error:
            record_rejected_job(values, overrides, directory, one_line(error))
            return FAILED


def rerun_setting(values: Values) -> Any:
    """sweep.rerun of values that are not checked yet."""
    return (values.get("sweep") or {}).get("rerun")


def run_job(values: Values, overrides: Sequence[str], directory: Path) -> int:
    """Run a job in its own directory; returns the exit code.

    Its checkpoints are what it would be resumed from, and take most of the disk: with its result
    they go, unless they are asked for.
    """
    settings = sweep_job_settings(checked_settings(values), overrides, directory)
    if not digest(values).startswith(directory.name.rpartition("-")[2]):  # the text is part of it
        valid = "was changed while the sweep ran; run the same command again"
        raise ConfigError("data.path", settings.data.path, valid)
    state = None
    if settings.sweep.rerun != "all":
        try:
            state = load_newest_state(directory)
            if state is not None:
                check_resumable(settings, state["settings"], state["step"])
        except ConfigError as error:
            log.warning(
                "%s cannot be resumed and starts from the beginning: %s",
                directory.name,
                one_line(error),
            )
            state = None
    if state is None:
        delete_run(directory)
        require_empty(directory)
    write_config(directory, values, overrides)
    code = run(settings, overrides, directory, state, in_sweep=True)
    if code == 0 and not settings.sweep.keep_checkpoints:
        delete_checkpoints(directory)
    return code


def sweep_job_settings(settings: Settings, overrides: Sequence[str], directory: Path) -> Settings:
    """`settings` with the W&B group, name and tags of a job of a sweep, where they are not set.

    The group is the arm: its values, and a hash of all that can change a result but the seed.
    """
    wandb = settings.wandb
    choices = [o for o in overrides if not o.startswith(("seed=", "wandb.", "sweep.", "data."))]
    words = directory.name.rpartition("-")[0]
    arm = words.removesuffix(f"seed{settings.seed}").removesuffix("-")
    same = digest({**dataclasses.asdict(settings), "seed": None})[:6]
    grouped = dataclasses.replace(
        wandb,
        group=wandb.group or f"{arm[:MOST_OF_GROUP]}-{same}",
        name=wandb.name or words,
        tags=[*wandb.tags, *(tag[:MOST_OF_TAG] for tag in (directory.parent.name, *choices))],
    )
    return dataclasses.replace(settings, wandb=grouped)


def record_rejected_job(
    values: Values, overrides: Sequence[str], directory: Path, message: str
) -> None:
    """Write summary.json of a job that could not run, such as one with an invalid config."""
    summary = Summary(
        status="failed",
        runner=values.get("runner"),
        seed=values.get("seed"),
        settings_sha256=digest(values),
        settings=result_settings(values),
        overrides=list(overrides),
        error=message,
    )
    with contextlib.suppress(OSError):  # the sweep then counts the job as not started
        directory.mkdir(parents=True, exist_ok=True)
        summary.write(directory)


@contextlib.contextmanager
def set_threads(count: int | None) -> Iterator[None]:
    """Within: PyTorch computes with `count` threads; None leaves their number as it is."""
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
    in_sweep: bool = False,
) -> int:
    """Run in a directory that is the run's own; returns the exit code.

    state     of the checkpoint from which the run is resumed
    in_sweep  it is a job, whose page is that of the sweep
    """
    usual = THREADS_IN_A_SWEEP if in_sweep else threads_within_quota()
    threads = resumed_threads(settings, state) or usual
    with set_threads(threads), float32_products(settings):
        warn_of_many_threads()
        recorder = Recorder(directory, settings, overrides, state)
        return execute(settings, recorder, has_page=not in_sweep)


def execute(settings: Settings, recorder: Recorder, has_page: bool) -> int:
    """Run the runner, draw its pictures, close its records and print the result; the exit code.

    has_page  a run that trains and has pictures leaves a page, too
    """
    directory, messages, failure = recorder.directory, dict[str, str](), None
    pictures: list[Path] = []
    try:
        outcome = find_runner(settings.runner)(settings, recorder)
        recorder.summary.finding = outcome.finding or None
        recorder.write_summary()  # the pictures read it
        pictures = draw_pictures(directory) if settings.pictures else []
    except KeyboardInterrupt as error:
        status, code = "interrupted", exit_code(error)
        quoted = shlex.quote(display_path(directory))
        messages[status] = f"continue with python run.py resume={quoted}"
    except Exception as error:
        status, code, failure = "failed", FAILED, error
        messages["error"] = describe_error(error)
    else:
        status, code = outcome.status, 0
    try:
        recorder.close(status, pictures, messages.get("error"))
    except OSError as error:  # such as a full disk; the records written before are still there
        code = code or FAILED
        messages.setdefault("error", describe_error(error))
    if failure is not None and wants_traceback():
        print_traceback(failure)
    for kind, message in messages.items():
        print_error(f"{kind}: {message}")
    if not messages:
        if has_page and settings.pictures and settings.runner == "train":
            write_page(directory)
        print_outcome(outcome, recorder)
    return code


def draw_pictures(directory: Path) -> list[Path]:
    """Draw the run's pictures; returns their paths. What cannot be drawn costs a warning."""
    try:
        from experiments.report.run_pictures import draw_run  # loads matplotlib: only for pictures

        return draw_run(directory)
    except Exception as error:  # such as of a library that is broken on this machine
        log.warning("no pictures are drawn: %s", one_line(error))
        return []


def write_page(directory: Path) -> None:
    """Write the run's report.html. What cannot be written costs a warning."""
    try:
        from experiments.report import write_report  # loads matplotlib: only for pictures

        write_report([directory], directory)
    except Exception as error:
        log.warning("no page is written: %s", one_line(error))


def print_outcome(outcome: Outcome, recorder: Recorder) -> None:
    """Print the closing table, the sample, and where the files are."""
    summary = recorder.summary
    status = outcome.status
    if outcome.status == "diverged":
        status += f": {summary.reason}"
    results = {"status": status, **outcome.results, "time": f"{summary.seconds:.1f} s"}
    placement = f" ({summary.placement})" if summary.placement else ""
    print_values(f"{summary.runner}{placement}", results)
    for title, text in (("Prompt", outcome.prompt), ("The model continued", outcome.sample)):
        if text:
            print_line(f"\n{title}:\n  " + text.strip().replace("\n", "\n  "))
    print_line(f"\nFiles: {display_path(recorder.directory)}")
    if outcome.closing:
        print_line(outcome.closing)
    if prints_lines():
        print_conclusion(*compared([Run.read(recorder.directory)]))


def display_path(directory: Path) -> str:
    """The path as printed: relative to the current directory where that is shorter."""
    try:
        relative = os.path.relpath(directory)
    except (OSError, ValueError):  # the current directory was removed, or is on another drive
        relative = str(directory)
    return printable(min(str(directory), relative, key=len))


def describe_error(error: Exception) -> str:
    """An error as one line, with the name of its type unless it is a ConfigError."""
    if isinstance(error, ConfigError):
        return one_line(error)
    is_plain = isinstance(error, OSError) or wants_traceback()
    hint = "" if is_plain else "; set NORMSCOPE_DEBUG=1 for the traceback"
    return f"{type(error).__name__}: {one_line(error)}{hint}"


def wants_traceback() -> bool:
    """Whether errors are shown with their traceback."""
    return os.environ.get("NORMSCOPE_DEBUG") == "1"


def remove_if_empty(directory: Path) -> None:
    """Remove a directory that was created for a run which did not start."""
    with contextlib.suppress(OSError):
        directory.rmdir()
