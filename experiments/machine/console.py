"""What is printed on the terminal during a run and at its end."""

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text


class QuietingConsole(Console):
    """Stops printing when its reader has gone (`| head`), instead of ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Python flushes stdout at exit, which would fail on the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = QuietingConsole(highlight=False, markup=False)
error_console = QuietingConsole(stderr=True, highlight=False, markup=False)

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


def printable(text: str) -> str:
    """`text` with control characters shown as escapes, so that none reaches the terminal."""
    return "".join(c if c.isprintable() or c in "\n " else repr(c)[1:-1] for c in text)


def print_line(text: str = "") -> None:
    """Print a line, never wrapped or interpreted."""
    if _lines_on:
        console.print(printable(text), soft_wrap=True)


def print_error(text: str) -> None:
    """Print one line to stderr."""
    if _lines_on:
        error_console.print(" ".join(printable(text).split("\n")), soft_wrap=True)


class OneLineFormatter(logging.Formatter):
    """A log record as one printable line, whatever text of a file or an error it quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's, without characters that could move the cursor or start a line."""
        return " ".join(printable(super().format(record)).split("\n"))


def show_warnings() -> None:
    """Send warnings to stderr, one line each. Calling it again changes nothing."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(OneLineFormatter("%(levelname)s: %(message)s"))
        logging.root.addHandler(handler)


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
        justify = "left" if isinstance(value, str) and not value[:1].isdigit() else "right"
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(printable(str(value))) for value in row.values()))
    print_line(f"\n{title}")
    console.print(table)


def one_line(error: BaseException) -> str:
    """An error's message as one line; the name of its type where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


class ReportProgress(Protocol):
    """Show how far the work is: the units done, and a note beside them."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(description: str, total: int, lines: bool = True) -> Iterator[ReportProgress]:
    """A bar with the time left on a terminal; elsewhere a few plain lines, if `lines`."""
    if not _bars_on or not (lines or console.is_terminal):
        yield lambda done, note="": None
    elif console.is_terminal:
        with progress_bar(description, total) as report:
            yield report
    else:
        yield progress_lines(description, total)


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
        else:
            line += f"  {(now - first[1]) / (done - first[0]) * (total - done):.0f} s left"
        print_line(line)

    return report


def size_text(count: int) -> str:
    """Bytes in MB of 2^20 or GB of 2^30, in two digits: for what is known about that well."""
    size, unit = (count / 2**20, "MB") if count < 1000 * 2**20 else (count / 2**30, "GB")
    return f"{float(f'{size:.2g}'):,.6g} {unit}"


def megabytes(count: int | float | None) -> str:
    """Bytes in MB of 2^20, or `not measured`."""
    return "not measured" if count is None else f"{count / 2**20:,.1f} MB"
