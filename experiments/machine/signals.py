"""Requests to stop: Ctrl-C, SIGTERM, and the SIGUSR1 that Slurm can send before a time limit.

Work that is not worth finishing stops at the first signal. A training loop finishes its step and
writes a checkpoint first; a second signal stops it at once.

A sweep's worker processes read the request from a file. A signal may reach the sweep's process
alone (`kill PID`) or the whole process group (Ctrl-C), and a worker cannot know which: so it never
stops by itself, and stops in both cases when the file names a signal.
"""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from experiments.machine.environment import environment

SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
STOP_FILE = "NORMSCOPE_STOP_FILE"  # environment variable: the path of that file

SIGNAL_EXIT_BASE = 128  # shells report 128 + the signal's number as the exit code

_deferring = False  # whether a first signal is only recorded
_received = 0  # the recorded signal, or 0


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code of a process that a signal stopped."""
    return SIGNAL_EXIT_BASE + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def stop_signal() -> int:
    """The signal that asked this process, or the sweep it works for, to stop; 0 without one."""
    if _received or STOP_FILE not in os.environ:
        return _received
    try:
        return int(Path(os.environ[STOP_FILE]).read_text("utf-8") or 0)
    except (OSError, ValueError):  # no file yet, or one that is being written: read it next time
        return 0


def _stop_or_record(number: int, frame: FrameType | None) -> None:
    global _received
    if not _deferring or _received:
        raise Interrupted(number)
    _received = number
    name = signal.Signals(number).name
    message = f"\n{name}: stopping after the current step; repeat the signal to stop at once\n"
    # Not by print: the handler may have interrupted a print, whose buffer must not be entered
    # a second time. A full disk or a closed terminal must not stop the step either.
    with contextlib.suppress(OSError):
        os.write(2, message.encode())
        if STOP_FILE in os.environ:
            Path(os.environ[STOP_FILE]).write_text(str(int(number)), "utf-8")


def _record(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number


@contextmanager
def handle_signals() -> Iterator[None]:
    """Within: each of SIGNALS raises Interrupted, unless it is deferred.

    In a worker process of a sweep signals are only recorded, and still are after the block: the
    launcher reuses the process, and a signal between two jobs must not kill it. Does nothing
    outside the main thread, where Python allows no signal handlers.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_worker = STOP_FILE in os.environ
    handler = _record if is_worker else _stop_or_record
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        _received = 0
        for number, old_handler in previous.items():
            if not is_worker:
                signal.signal(number, old_handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Within: a first signal is only recorded, see `stop_signal`; a second raises Interrupted."""
    global _deferring
    before, _deferring = _deferring, True
    try:
        yield
    finally:
        _deferring = before


@contextmanager
def forward_signals() -> Iterator[None]:
    """Within: processes started here learn of a signal to this one, through a file."""
    with (
        tempfile.TemporaryDirectory() as folder,
        defer_signals(),
        environment({STOP_FILE: str(Path(folder) / "stop")}),
    ):
        yield
