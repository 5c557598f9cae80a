"""One run from start to end: its directory, its runner, its pictures, its last words."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.console import complain, hushed, one_line, printable, say, show_values
from experiments.recorder import Busy, Recorder, claimed, write_summary
from experiments.runner import RUNNERS, Outcome
from experiments.runs import is_due
from experiments.settings import Settings, digest, from_hydra, plain, telling
from gpt import ConfigError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count it
THREADS_IN_A_SWEEP = 1  # in series too: the last bits of a sum depend on who adds what


def launch(config: DictConfig, overrides: Sequence[str], directory: Path) -> int:
    """Run what `config` asks for in `directory`; returns the exit code.

    0 for finished and diverged, 1 for failed, 130 for interrupted. What was recorded before a
    failure stays, and summary.json says what happened.
    """
    try:
        settings = from_hydra(config)
        with claimed(directory, config, overrides), threads(settings.threads):
            return run(settings, overrides, directory)
    except (ConfigError, OmegaConfBaseException, OSError) as error:
        remove_if_empty(directory)
        complain(f"error: {one_line(error)}")
        return FAILED


def launch_job(
    config: DictConfig, overrides: Sequence[str], directory: Path, bars: bool = True
) -> int:
    """As `launch`, for a job of a sweep, which tells of it: here nothing is said.

    Replaces its own earlier attempts. Does nothing where another process has the job in hand or
    has ended it meanwhile; records a refused config as a failed job.
    """
    with hushed(bars):
        try:
            if not is_due(directory, config.sweep.rerun):
                return 0
            with claimed(directory, config, overrides, replace=True):
                return run_job(config, overrides, directory)
        except Busy:
            return 0
        except (ConfigError, OSError) as error:
            record_refusal(config, overrides, directory, one_line(error))
            return FAILED


def run_job(config: DictConfig, overrides: Sequence[str], directory: Path) -> int:
    """Run a job in its own directory; returns the exit code."""
    try:
        settings = of_sweep(from_hydra(config), overrides, directory)
    except (ConfigError, OmegaConfBaseException) as error:
        record_refusal(config, overrides, directory, one_line(error))
        return FAILED
    with threads(settings.threads or THREADS_IN_A_SWEEP):
        return run(settings, overrides, directory)


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


def record_refusal(
    config: DictConfig, overrides: Sequence[str], directory: Path, message: str
) -> None:
    """summary.json of a job that no runner could take."""
    values = plain(config)
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


def run(settings: Settings, overrides: Sequence[str], directory: Path) -> int:
    """Run in a directory that is the run's own; returns the exit code."""
    recorder = Recorder(directory, settings, overrides)
    pictures: list[Path] = []
    try:
        outcome = RUNNERS[settings.runner](settings, recorder)
        recorder.write_summary()  # the pictures read it
        pictures = draw(directory)
    except KeyboardInterrupt:
        status, code = "interrupted", INTERRUPTED
        where = shorten(directory)
        message = f"what was recorded is in {where}; python -m experiments.plots {where} draws it"
    except Exception as error:
        if wants_traceback():
            raise
        status, message, code = "failed", explain(error), FAILED
    else:
        status, message, code = outcome.status, "", 0
    try:
        recorder.close(status, pictures, **({"error": message} if status == "failed" else {}))
    except OSError as error:  # a full disk, say; what was written before is still there
        message, code = message or explain(error), code or FAILED
    if message:
        complain(f"{'error' if status == 'failed' or code == FAILED else status}: {message}")
    else:
        tell(outcome, recorder)
    return code


def draw(directory: Path) -> list[Path]:
    """The run's pictures."""
    from experiments.plots import draw_run  # loads pandas and matplotlib, not needed before

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
