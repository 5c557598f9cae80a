"""One run from start to end: its directory, its runner, its pictures, its last words."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.console import complain, one_line, printable, say, show_values
from experiments.recorder import Recorder, claim_directory
from experiments.runner import RUNNERS, Outcome
from experiments.settings import from_hydra
from gpt import ConfigError

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count it


def launch(config: DictConfig, overrides: Sequence[str], directory: Path) -> int:
    """Run what `config` asks for in `directory`; returns the exit code.

    0 for finished and diverged, 1 for failed, 130 for interrupted. What was recorded before a
    failure stays, and summary.json says what happened.
    """
    try:
        settings = from_hydra(config)
        claim_directory(directory, config, overrides)
        recorder = Recorder(directory, settings)
    except (ConfigError, OmegaConfBaseException, OSError) as error:
        remove_if_empty(directory)
        complain(f"error: {one_line(error)}")
        return FAILED
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
