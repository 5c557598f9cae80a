"""What a person sees while a run goes on, and at its end."""

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
    """Says no more when nobody reads on (`| head`), instead of ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = QuietingConsole(highlight=False, markup=False)
error_console = QuietingConsole(stderr=True, highlight=False, markup=False)

PLAIN_LINES = 10  # progress lines of one run where there is no terminal


_lines, _bars = True, True  # what is printed: lines, and on a terminal progress bars


@contextmanager
def silenced(bars: bool) -> Iterator[None]:
    """Within: no lines are printed, for somebody else tells; on a terminal bars, if wanted."""
    global _lines, _bars
    before, (_lines, _bars) = (_lines, _bars), (False, bars)
    try:
        yield
    finally:
        _lines, _bars = before


def printable(text: str) -> str:
    """`text` with control characters shown as escapes, so that none reaches the terminal."""
    return "".join(c if c.isprintable() or c in "\n " else repr(c)[1:-1] for c in text)


def print_line(text: str = "") -> None:
    """Print a line, never wrapped or interpreted."""
    if _lines:
        console.print(printable(text), soft_wrap=True)


def print_error(text: str) -> None:
    """Print one line to stderr."""
    if _lines:
        error_console.print(" ".join(printable(text).split("\n")), soft_wrap=True)


class OneLine(logging.Formatter):
    """A record as one printable line, whatever stood in what it tells of."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's, without what could move the cursor or start a line."""
        return " ".join(printable(super().format(record)).split("\n"))


def show_warnings() -> None:
    """Warnings go to stderr, a line each; asked for again, it changes nothing."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(OneLine("%(levelname)s: %(message)s"))
        logging.root.addHandler(handler)


def print_values(title: str, values: Mapping[str, str]) -> None:
    """Print names and values in two columns, under a title."""
    print_line(f"\n{title}")
    width = max(map(len, values))
    for name, value in values.items():
        print_line(f"  {name:<{width}}  {value}")


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows of equal keys as a table, numbers to the right."""
    if not _lines:
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
    """What an error says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class ReportProgress(Protocol):
    """Tell how far the work is: units done, and what to show beside."""

    def __call__(self, done: int, note: str = "") -> None: ...


@contextmanager
def progress(what: str, total: int, lines: bool = True) -> Iterator[ReportProgress]:
    """A bar with the time left on a terminal, a few plain lines elsewhere, if wanted."""
    if not _bars or not (lines or console.is_terminal):
        yield lambda done, note="": None
        return
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=console, transient=not _lines) as bar:
            task = bar.add_task(what, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
        return
    due, every = 1.0, total / PLAIN_LINES  # the first at once, to show the pace
    first: tuple[int, float] | None = None

    def plain(done: int, note: str = "") -> None:
        nonlocal due, first
        if done < due:
            return
        due = every * (math.floor(done / every + 1e-9) + 1)
        line, now = f"{what} {done}/{total}  {note}".rstrip(), time.monotonic()
        if first is None:  # what came before it, such as loading, says nothing of the rest
            first = done, now
        else:
            line += f"  {(now - first[1]) / (done - first[0]) * (total - done):.0f} s left"
        print_line(line)

    yield plain


def megabytes(count: int | float | None) -> str:
    """Bytes in MB of 2^20, or `not measured`."""
    return "not measured" if count is None else f"{count / 2**20:,.1f} MB"
