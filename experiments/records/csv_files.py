"""CSV files: metrics.csv, gradients.csv and mixing.csv, which grow, and a file for each table."""

import contextlib
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from experiments.machine.files import line_end_offset, write_atomically
from experiments.records.sink import (
    GRADIENT_COLUMNS,
    METRIC_COLUMNS,
    MIXING_COLUMNS,
    Metrics,
    Table,
    Value,
    format_cell,
)
from experiments.records.summary import Summary
from experiments.settings.schema import Settings
from normscope.mixing import MixingRow
from normscope.stats import Row


class CsvSink:
    """The files that grow, flushed as they do, and one CSV file for each table."""

    def __init__(self, directory: Path, settings: Settings, records: Mapping[str, Any]) -> None:
        self.directory = directory
        self.metric_columns: Sequence[str] = METRIC_COLUMNS
        self.files: dict[str, IO[str]] = {}
        self.rows: dict[str, int] = {}  # of the files that grow, without their head
        for name, count in records.get("rows", {}).items():
            self._continue(name, count)

    @staticmethod
    def is_wanted(settings: Settings) -> bool:
        """Always: these files are what everything else is made from."""
        return True

    def state(self) -> dict[str, Any]:
        """The rows of each file that grows, which are on the disk once this returns."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return {"rows": dict(self.rows)}

    def _continue(self, name: str, count: int) -> None:
        """Append to a file after its first `count` rows; what came after them is cut off."""
        path = self.directory / name
        os.truncate(path, line_end_offset(path, count + 1))
        if name == "metrics.csv":  # an earlier version may have begun it, with fewer columns
            with path.open(encoding="utf-8", newline="") as file:
                self.metric_columns = next(csv.reader(file))
        self.files[name] = path.open("a", encoding="utf-8", newline="")
        self.rows[name] = count

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row]) -> None:
        if metrics:
            values = {"step": step, **metrics}
            columns = self.metric_columns
            self._append("metrics.csv", columns, [[values.get(column) for column in columns]])
        if rows:
            self._append("gradients.csv", GRADIENT_COLUMNS, [[step, *row] for row in rows])

    def mixing(self, step: int, rows: Sequence[MixingRow]) -> None:
        self._append("mixing.csv", MIXING_COLUMNS, [[step, *row] for row in rows])

    def _append(self, name: str, columns: Sequence[str], lines: Sequence[Sequence[Value]]) -> None:
        if name not in self.files:
            self.files[name] = (self.directory / name).open("w", encoding="utf-8", newline="")
            csv.writer(self.files[name], lineterminator="\n").writerow(columns)
            self.rows[name] = 0
        file = self.files[name]
        if not os.fstat(file.fileno()).st_nlink:  # writes to a removed file succeed, and are lost
            raise FileNotFoundError(f"{self.directory / name} was removed while the run went on")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([format_cell(value) for value in line] for line in lines)
        file.flush()
        self.rows[name] += len(lines)

    def table(self, name: str, table: Table) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(table[0])
        writer.writerows([format_cell(value) for value in row.values()] for row in table)
        write_atomically(self.directory / f"{name}.csv", buffer.getvalue().encode())

    def finish(self, summary: Summary, pictures: Sequence[Path]) -> None:
        try:
            self.state()
        finally:
            for file in self.files.values():
                with contextlib.suppress(OSError):  # each row was flushed already
                    file.close()
