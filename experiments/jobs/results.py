"""What a sweep came to: runs.csv, and on screen a line for each arm."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.analysis.runs import (
    Run,
    Value,
    find_runs,
    name_models,
    result_columns,
    sort_key,
    varying_settings,
)
from experiments.machine.console import one_line, print_line, print_table
from experiments.machine.files import write_atomically
from experiments.records.sink import escape_cell, format_cell
from experiments.records.summary import Summary

if TYPE_CHECKING:
    from experiments.analysis.arms import Arm, Layout

log = logging.getLogger(__name__)

MOST_ARMS = 20  # with a line on the screen


def write_runs_csv(folder: Path) -> None:
    """Write runs.csv in `folder`: a row for each run below it, of this command or another."""
    runs = find_runs(folder)
    names = varying_settings(runs)
    runs.sort(key=lambda run: [sort_key(run.settings.get(name)) for name in [*names, "seed"]])
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    endings = ["seed", "status", "divergence", "reason"]
    header = ["name", "path", *names, *endings, *result_columns(Summary())]
    writer.writerow(map(escape_cell, header))
    for run in runs:
        values: list[Value] = [run.directory.name, path_cell(run.directory, folder)]
        values += [run.settings.get(name) for name in names]
        values += [run.seed, run.status, run.divergence, run.reason]
        values += result_columns(run.summary).values()
        writer.writerow([format_cell(value) for value in values])
    try:
        write_atomically(folder / "runs.csv", buffer.getvalue().encode())
    except OSError as error:
        log.warning("runs.csv was not written: %s", one_line(error))


def path_cell(directory: Path, folder: Path) -> str:
    """The path of a run from the folder of runs.csv, so that it holds wherever that is moved."""
    path = directory.relative_to(folder).as_posix()
    return path if escape_cell(path) == path else f"./{path}"  # or a spreadsheet's ' would be in it


def compared(runs: Sequence[Run]) -> tuple["Layout", list["Arm"]]:
    """Runs as their report compares them, by their summaries alone."""
    # Loads pandas, which would delay the first job.
    from experiments.analysis.arms import Layout, factors_of, form_arms
    from experiments.analysis.histories import History

    name_models(runs)
    factors = factors_of(runs, by=None)
    arms = form_arms([History(run) for run in runs], factors)
    return Layout(arms, factors), arms


def print_arms(arms: Sequence["Arm"]) -> None:
    """Print a line for each arm, in the numbers of the report."""
    from experiments.analysis.arms import arm_rows

    rows = arm_rows(arms, MOST_ARMS)
    if rows:
        are_sizes = rows[0].keys() == {"arm", "parameters"}
        print_table("Sizes" if are_sizes else "Median over seeds (range)", rows[:MOST_ARMS])
    if len(rows) > MOST_ARMS:
        print_line(f"and {len(rows) - MOST_ARMS} more arms, which the report has")


def print_conclusion(layout: "Layout", arms: Sequence["Arm"]) -> None:
    """Print what the runs show, in the words of their report, and a command that goes on."""
    from experiments.analysis.findings import next_command, verdict_of

    print_line(f"\n{verdict_of(layout, arms)}")
    if command := next_command(layout, arms):
        print_line(f"next: {command}")
