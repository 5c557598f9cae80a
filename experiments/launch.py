"""One run from start to end: its directory, its runner, its pictures, its last words."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from experiments.console import complain, printable, say, show_values
from experiments.recorder import Recorder, claim_directory
from experiments.runner import RUNNERS, Outcome
from experiments.settings import from_hydra
from gpt import ConfigError

INTERRUPTED = 130  # 128 + SIGINT, as shells count it


def launch(config: DictConfig, overrides: Sequence[str], directory: Path) -> int:
    """Run what `config` asks for in `directory`; returns the exit code.

    0 for finished and diverged, 1 for failed, 130 for interrupted. What was recorded before a
    failure stays, and summary.json says what happened.
    """
    try:
        settings = from_hydra(config)
        claim_directory(directory, config, overrides)
    except (ConfigError, OSError) as error:
        remove_if_empty(directory)
        complain(f"error: {error}")
        return 1
    recorder = Recorder(directory, settings)
    try:
        outcome = RUNNERS[settings.runner](settings, recorder)
    except KeyboardInterrupt:
        recorder.close("interrupted", [])
        complain(f"interrupted; what was recorded is in {shorten(directory)}")
        return INTERRUPTED
    except Exception as error:
        reason = one_line(error)
        recorder.close("failed", [], error=reason)
        complain(f"error: {reason}")
        if wants_traceback():
            raise
        return 1
    recorder.write_summary()  # the pictures read it
    pictures = draw(directory)
    recorder.close(outcome.status, pictures)
    tell(outcome, recorder)
    return 0


def draw(directory: Path) -> list[Path]:
    """The run's pictures; one that cannot be drawn costs a warning."""
    from experiments.plots import draw_run  # loads pandas and matplotlib, not needed before

    try:
        return draw_run(directory)
    except Exception as error:
        logging.getLogger(__name__).warning("no pictures: %s", one_line(error))
        if wants_traceback():
            raise
        return []


def tell(outcome: Outcome, recorder: Recorder) -> None:
    """The closing table, the sample, and where the files are."""
    summary = recorder.summary
    status = outcome.status
    if outcome.status == "diverged":
        status += f": {summary['reason']}"
    shown = {"status": status, **outcome.shown, "time": f"{summary['seconds']:.1f} s"}
    placement = f" ({summary['placement']})" if "placement" in summary else ""
    show_values(summary["runner"] + placement, shown)
    if outcome.sample:
        say("\nSample (what the model continued):")
        say("  " + outcome.sample.strip().replace("\n", "\n  "))
    say(f"\nFiles: {shorten(recorder.directory)}")


def shorten(directory: Path) -> str:
    """The path from here, where that is shorter."""
    return printable(min(str(directory), os.path.relpath(directory), key=len))


def one_line(error: BaseException) -> str:
    """An error as one line; of errors that are not ours, with their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigError):
        return text
    hint = "" if isinstance(error, OSError) else "; set NORMSCOPE_DEBUG=1 for the traceback"
    return f"{type(error).__name__}: {text}{hint}"


def wants_traceback() -> bool:
    """Whether errors should come with their traceback."""
    return os.environ.get("NORMSCOPE_DEBUG") == "1"


def remove_if_empty(directory: Path) -> None:
    """Take back a directory in which nothing happened."""
    with contextlib.suppress(OSError):
        directory.rmdir()
