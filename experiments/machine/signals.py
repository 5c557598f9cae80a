"""Being asked to stop: Ctrl-C, SIGTERM, and the SIGUSR1 that Slurm can send before a time limit.

A signal stops at once whatever is not worth finishing; a training loop finishes its step first.
Processes that a sweep has started are told through a file, whether the signal reached them or not.
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

SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
STOP_FILE = "NORMSCOPE_STOP_FILE"  # variable that tells a sweep's processes where to look

SIGNAL_EXIT_BASE = 128  # and the signal's number make the exit code, as shells count it

_deferring = False  # whether a first signal is only noted
_received = 0  # the signal that was


class Interrupted(KeyboardInterrupt):
    """A signal asked for an end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def exit_code(error: KeyboardInterrupt) -> int:
    """Of a process that a signal ended."""
    return SIGNAL_EXIT_BASE + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def stop_signal() -> int:
    """The signal that asked for an end, of this process or of the sweep it works for; or 0."""
    if _received or STOP_FILE not in os.environ:
        return _received
    try:
        return int(Path(os.environ[STOP_FILE]).read_text() or 0)
    except (OSError, ValueError):
        return 0


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if not _deferring or _received:
        raise Interrupted(number)
    _received = number
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # written past the buffers, which may be in use
        os.write(2, f"\n{name}: finishing what is in hand; again to stop at once\n".encode())
        if STOP_FILE in os.environ:
            Path(os.environ[STOP_FILE]).write_text(str(int(number)))


def _only_record(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number


@contextmanager
def handle_signals() -> Iterator[None]:
    """Within: each of SIGNALS raises Interrupted, where nothing is being finished.

    In a process of a sweep signals are only noted, from then on. Does nothing outside the main
    thread.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    of_sweep = STOP_FILE in os.environ
    handler = _only_record if of_sweep else _handle
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        _received = 0
        for number, old in before.items():
            if not of_sweep:
                signal.signal(number, old)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Within: a first signal is only noted, for `asked` to tell; a second raises Interrupted."""
    global _deferring
    before, _deferring = _deferring, True
    try:
        yield
    finally:
        _deferring = before


@contextmanager
def forward_signals() -> Iterator[None]:
    """Within: processes that start learn through a file of a signal that comes here."""
    before = os.environ.get(STOP_FILE)
    with tempfile.TemporaryDirectory() as folder, defer_signals():
        os.environ[STOP_FILE] = str(Path(folder) / "stop")
        try:
            yield
        finally:
            del os.environ[STOP_FILE]
            if before is not None:
                os.environ[STOP_FILE] = before
