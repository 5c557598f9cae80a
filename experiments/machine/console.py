"""What is printed on the terminal during a run and at its end."""

import contextlib
import io
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text


class QuietingConsole(Console):
    """Stops printing when nothing can be written any more, instead of ending the run.

    Its reader may have gone (`| head`), the disk of its file be full, its terminal closed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, highlight=False, markup=False)
        if self.width < 1:  # COLUMNS=0, with which rich prints nothing at all
            self.width = USUAL_WIDTH

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError:  # rich itself looks after a broken pipe alone
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Python flushes stdout at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


USUAL_WIDTH = 80  # characters
console = QuietingConsole()
error_console = QuietingConsole(stderr=True)

WIDEST = 10_000  # characters of a table's line
PLAIN_LINES = 10  # progress lines of one run where there is no terminal

_lines_on, _bars_on = True, True  # whether lines and progress bars are printed


@contextmanager
def silenced(bars: bool) -> Iterator[None]:
    """Within: no lines are printed, and progress bars only if `bars`.

    For the jobs of a sweep, which prints one line about each of them itself.
    """
    global _lines_on, _bars_on
    before, (_lines_on, _bars_on) = (_lines_on, _bars_on), (False, bars)
    try:
        yield
    finally:
        _lines_on, _bars_on = before


def prints_lines() -> bool:
    """Whether lines are printed: not by a job of a sweep."""
    return _lines_on


def printable(text: str) -> str:
    """`text` with control characters shown as escapes, so that none reaches the terminal."""
    if text.isprintable():  # nearly always, and a report reads many
        return text
    return "".join(c if c.isprintable() or c in "\n " else repr(c)[1:-1] for c in text)


def print_line(text: str = "") -> None:
    """Print a line, never wrapped or interpreted."""
    if _lines_on:
        console.print(printable(text), soft_wrap=True)


@contextmanager
def streamed() -> Iterator[Callable[[str], None]]:
    """Within: prints a text piece by piece, and at its end, whatever ends it, a line end.

    On a terminal each piece at once, elsewhere whole lines, which nothing else can come between.
    """
    waiting = ""

    def write(piece: str) -> None:
        nonlocal waiting
        waiting += piece
        ready = len(waiting) if console.file.isatty() else waiting.rfind("\n") + 1
        if ready and _lines_on:
            console.out(printable(waiting[:ready]), end="", highlight=False)
        waiting = waiting[ready:]

    try:
        yield write
    finally:
        print_line(waiting)


def print_error(text: str) -> None:
    """Print one line to stderr."""
    if _lines_on:
        error_console.print(" ".join(printable(text).split("\n")), soft_wrap=True)


def print_traceback(error: BaseException) -> None:
    """Print an error with its traceback to stderr, of a sweep's job, too."""
    error_console.print(printable("".join(traceback.format_exception(error))), soft_wrap=True)


class OneLineFormatter(logging.Formatter):
    """A log record as one printable line, whatever text of a file or an error it quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's, without characters that could move the cursor or start a line."""
        return " ".join(printable(super().format(record)).split("\n"))


@contextmanager
def terminal() -> Iterator[None]:
    """Within: nothing that is printed raises, by whatever library, and each warning is a line.

    Characters that the terminal lacks are shown as escapes. Warnings go to stderr, those of Python
    libraries too, and none of them is an error.
    """
    open_standard_streams()
    with escaped_output(), logged_to_stderr(), warnings.catch_warnings():
        warnings.filters[:] = [  # type: ignore[index]
            ("default", *rest) if action == "error" else (action, *rest)
            for action, *rest in warnings.filters
        ]
        warnings.showwarning = log_warning  # type: ignore[assignment]
        yield


def open_standard_streams() -> None:
    """Let what is printed lead nowhere where the process began without stdout or stderr.

    Else the next file that is opened would take the number of the absent one, and with it all that
    is written to that number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextmanager
def escaped_output() -> Iterator[None]:
    """Within: stdout and stderr write escapes for characters that their encoding lacks."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        _set_errors(stream, "backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            _set_errors(stream, errors)


def _set_errors(stream: io.TextIOWrapper, errors: str | None) -> None:
    with contextlib.suppress(OSError, ValueError):  # its disk is full, or it was closed
        stream.reconfigure(errors=errors)


@contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Within: what is logged goes to stderr, one line each, unless it goes somewhere already."""
    if logging.root.handlers:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter("%(levelname)s: %(message)s"))
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


def log_warning(message: Warning | str, category: type[Warning], *where: object) -> None:
    """Log what a library warns of by Python's `warnings`."""
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)


def print_values(title: str, values: Mapping[str, str]) -> None:
    """Print names and values in two columns, under a title."""
    print_line(f"\n{title}")
    width = max(map(len, values))
    for name, value in values.items():
        print_line(f"  {name:<{width}}  {value}")


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows of equal keys as a table, numbers to the right."""
    if not _lines_on:
        return
    table = RichTable(box=None, pad_edge=False)
    for name, value in rows[0].items():
        justify = "left" if isinstance(value, str) and value and not value[0].isdigit() else "right"
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(printable(str(value))) for value in row.values()))
    print_line(f"\n{title}")
    console.print(Uncut(table), soft_wrap=True)


class Uncut:
    """A table with all that its cells hold, however narrow the terminal."""

    def __init__(self, table: RichTable) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table as wide as it is."""
        return console.render(self.table, options.update(width=WIDEST))


def one_line(error: BaseException) -> str:
    """An error's message as one line; the name of its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


class ReportProgress(Protocol):
    """Show how far the work is: the units done, and a note beside them."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(description: str, total: int, lines: bool = True) -> Iterator[ReportProgress]:
    """A bar with the time left on a terminal; elsewhere a few plain lines, if `lines`."""
    if not _bars_on or not (lines or can_redraw()):
        yield lambda done, note="": None
    elif can_redraw():
        with progress_bar(description, total) as report:
            yield report
    else:
        yield progress_lines(description, total)


def can_redraw() -> bool:
    """Whether a bar can be redrawn in place.

    Not on a terminal that cannot move its cursor (TERM=dumb), nor in a file or a pipe, where
    colours may well be wanted (FORCE_COLOR).
    """
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[ReportProgress]:
    """A bar that is redrawn in place."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=not _lines_on) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)


def progress_lines(description: str, total: int) -> ReportProgress:
    """PLAIN_LINES lines, evenly spread, and one for the first unit, which shows the pace."""
    interval = total / PLAIN_LINES
    next_line = 1.0
    first: tuple[int, float] | None = None  # units done and time of the first line

    def report(done: int, note: str = "") -> None:
        nonlocal next_line, first
        if done < next_line:
            return
        next_line = interval * (math.floor(done / interval + 1e-9) + 1)
        line, now = f"{description} {done}/{total}  {note}".rstrip(), time.monotonic()
        if first is None:  # the time before it went into loading, so it predicts nothing
            first = done, now
        elif done < total:  # what comes after the last unit is not counted
            line += f"  {(now - first[1]) / (done - first[0]) * (total - done):.0f} s left"
        print_line(line)

    return report


def size_text(count: int) -> str:
    """Bytes in MiB or GiB, in two digits: for what is known about that well."""
    size, unit = (count / 2**20, "MiB") if count < 1000 * 2**20 else (count / 2**30, "GiB")
    return f"{float(f'{size:.2g}'):,.6g} {unit}"


def megabytes(count: int | float | None) -> str:
    """Bytes in MiB, or `not measured`."""
    return "not measured" if count is None else f"{count / 2**20:,.1f} MiB"
