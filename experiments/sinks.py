"""Where records go: CSV files always, W&B beside them. The sinks know records, not models."""

import contextlib
import csv
import html
import io
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, Protocol

from experiments.console import one_line, printable
from experiments.files import end_of_line, write_atomically
from experiments.records import Metrics, Row, Table, Value
from experiments.settings import WandbSettings, without_home

log = logging.getLogger(__name__)
P = ParamSpec("P")

METRIC_COLUMNS = (
    "step",
    "tokens",
    "train_loss",
    "val_loss",
    "lr",
    "grad_norm",
    "clip_factor",
    "tokens_per_s",
    "memory_mb",
)
PATIENCE, FAREWELL = 60.0, 5.0  # seconds for W&B to start or end, and to end once it has failed
GRADIENT_COLUMNS = ("step", "layer", "component", "stat", "value")


class Sink(Protocol):
    """Takes what a run records. `step` is the number of updates made before the measurement."""

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None: ...

    def table(self, name: str, table: Table) -> None: ...

    def finish(self, summary: Mapping[str, Any], pictures: Sequence[Path]) -> None: ...


def written(value: Value) -> str:
    """As it stands in a CSV file: empty where not measured, nine digits, enough for float32."""
    if value is None:
        return ""
    if isinstance(value, str):
        return safe_cell(value)
    return format(value, ".9g") if isinstance(value, float) else str(value)


def safe_cell(text: str) -> str:
    """`text` for a cell that a spreadsheet shows and does not compute, on one line.

    A leading ' tells spreadsheets so (OWASP, "CSV Injection").
    """
    shown = printable(text).replace("\n", "\\n")
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


class CsvSink:
    """metrics.csv and gradients.csv, flushed as they grow, and one CSV file for each table."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files: dict[str, IO[str]] = {}
        self.rows: dict[str, int] = {}  # of the files that grow, without their head

    def sync(self) -> dict[str, int]:
        """Put on the disk what was written; returns the rows of each file that grows."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return dict(self.rows)

    def resume(self, rows: Mapping[str, int]) -> None:
        """Go on after the first `rows` of each file; what came after them is cut off."""
        for name, count in rows.items():
            path = self.directory / name
            os.truncate(path, end_of_line(path, count + 1))
            self.files[name] = path.open("a", newline="")
            self.rows[name] = count

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None:
        if metrics:
            values = {"step": step, **metrics}
            self._append("metrics.csv", METRIC_COLUMNS, [[values.get(c) for c in METRIC_COLUMNS]])
        if rows:
            self._append("gradients.csv", GRADIENT_COLUMNS, [[step, *row] for row in rows])

    def _append(self, name: str, columns: Sequence[str], lines: Sequence[Sequence[Value]]) -> None:
        if name not in self.files:
            self.files[name] = (self.directory / name).open("w", newline="")
            csv.writer(self.files[name], lineterminator="\n").writerow(columns)
            self.rows[name] = 0
        file = self.files[name]
        if not os.fstat(file.fileno()).st_nlink:  # writes to a removed file succeed, and are lost
            raise FileNotFoundError(f"{self.directory / name} was removed while the run went on")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([written(value) for value in line] for line in lines)
        file.flush()
        self.rows[name] += len(lines)

    def table(self, name: str, table: Table) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(table[0])
        writer.writerows([written(value) for value in row.values()] for row in table)
        write_atomically(self.directory / f"{name}.csv", buffer.getvalue().encode())

    def finish(self, summary: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        for file in self.files.values():
            with contextlib.suppress(OSError):  # each row was flushed, and `sync` came before
                file.close()


def harmless(
    method: Callable[Concatenate["WandbSink", P], None],
) -> Callable[Concatenate["WandbSink", P], None]:
    """A failure inside W&B costs one warning and the rest of its record, never the run."""

    def guarded(self: "WandbSink", *args: P.args, **kwargs: P.kwargs) -> None:
        if self.run is None:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.give_up(error)

    return guarded


def html_table(table: Table) -> str:
    """The rows as an HTML table."""
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in table[0])]
    for row in table:
        rows.append("".join(f"<td>{html.escape(written(value))}</td>" for value in row.values()))
    return "<table>" + "".join(f"<tr>{cells}</tr>" for cells in rows) + "</table>"


class WithoutHome(logging.Filter):
    """Puts ~ for the home directory in what is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record, and keeps it."""
        record.msg, record.args = without_home(record.getMessage()), ()
        return True


def keep_home_out_of_its_log() -> None:
    """W&B writes a log into the run's directory, which may be shown to others."""
    logger = logging.getLogger("wandb")
    if not any(isinstance(kept, WithoutHome) for kept in logger.filters):
        logger.addFilter(WithoutHome())


def at_most(seconds: float, act: Callable[[], object]) -> None:
    """Call `act`, which is left behind after `seconds`.

    Raises RuntimeError for whatever it raised, TimeoutError where it has not ended.
    """
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            act()
        except BaseException as error:  # a cancelled task, say
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer for {seconds:g} s")
    if raised:
        raise RuntimeError(one_line(raised[0])) from raised[0]


class WandbSink:
    """The same records as a W&B run: offline by default, to be synced when the user likes.

    Metrics keep their CSV names; a value of layer 3's attention is `grad_norm/layer_3/attention`.
    A run of 8 blocks has 1,000 to 1,200 names, of 12 up to 1,750, all placements of either together
    below 4,000: W&B asks for fewer than 10,000 in a project.
    """

    def __init__(
        self,
        settings: WandbSettings,
        directory: Path,
        job_type: str,
        config: dict[str, Any],
        run_id: str | None = None,
    ) -> None:
        self.run: Any = None
        try:
            import wandb  # takes a second, which runs with wandb.mode=disabled need not wait for

            self.wandb = wandb
            keep_home_out_of_its_log()
            self.run = wandb.init(
                mode="online" if settings.mode == "online" else "offline",
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                job_type=job_type,
                tags=settings.tags,
                name=settings.name or directory.name,
                dir=directory,
                config=config,
                id=run_id,
                resume=None if run_id is None else "allow",
                reinit="finish_previous",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=PATIENCE,
                    finish_timeout=PATIENCE,
                    disable_git=True,
                    disable_code=True,
                    disable_job_creation=True,
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )
            self.run.define_metric("*", step_metric="step")
            for link in directory.glob("wandb/*/logs/debug-core.log"):
                link.unlink()  # leads into the home directory
        except Exception as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        text = "W&B failed and is left out from here on; the CSV files go on: %s"
        log.warning(text, one_line(error))
        run, self.run = self.run, None
        with contextlib.suppress(Exception):
            if run is not None:
                at_most(FAREWELL, lambda: run.finish(exit_code=1))
        with contextlib.suppress(Exception):  # or it would speak up, or wait, when Python ends
            at_most(FAREWELL, lambda: self.wandb.teardown(exit_code=1))

    @harmless
    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None:
        values = {name: value for name, value in metrics.items() if value is not None}
        layers = {f"{row.stat}/layer_{row.layer}/{row.component}": row.value for row in rows}
        self.run.log({"step": step, **values, **layers})

    @harmless
    def table(self, name: str, table: Table) -> None:
        # Not wandb.Table, whose record tells where on this machine its file lies.
        self.run.log({f"tables/{name}": self.wandb.Html(html_table(table), inject=False)})

    @harmless
    def finish(self, summary: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        def end() -> None:
            for picture in pictures:
                self.run.log({f"plots/{picture.stem}": self.wandb.Image(str(picture))})
            self.run.summary.update(without_home(dict(summary)))
            failed = summary["status"] in ("failed", "interrupted")
            self.run.finish(exit_code=1 if failed else 0)

        at_most(PATIENCE, end)  # its own limit does not hold where its process hangs
