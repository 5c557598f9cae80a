"""Reads any number of runs and writes one page about them: `python -m experiments.report DIR`.

It needs only the CSV and JSON files that runs leave.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.files import write_atomically
from experiments.report.arms import Layout, factors_of, form_arms
from experiments.report.figures import all_figures
from experiments.report.histories import read_history
from experiments.report.page import render, save_picture
from experiments.runs import Run, find_runs
from gpt import ConfigError

FORMATS = ("png", "svg", "pdf")


def write_report(
    folders: Sequence[Path],
    out: Path,
    by: Sequence[str] | None = None,
    formats: Sequence[str] = ("png", "svg"),
) -> Path:
    """Write report.html and figures/ into `out`; returns the page's path.

    by       settings that tell arms apart; None: all that vary, the seed aside
    formats  of the figures beside the page, of FORMATS

    Raises ConfigError where there are no runs, or `by` names no setting. Anything that cannot be
    read is named in a warning, on the page too.
    """
    with collected_warnings() as warnings:
        runs: dict[Path, Run] = {}
        for folder in folders:
            found = find_runs(folder)
            if not found:
                logging.getLogger(__name__).warning("%s holds no runs", folder)
            runs |= {run.directory.resolve(): run for run in found}
        if not runs:
            raise ConfigError("DIR", ", ".join(map(str, folders)), "must hold at least one run")
        chosen = list(runs.values())
        factors = factors_of(chosen, by)
        histories = [read_history(run) for run in chosen]
        arms = form_arms(histories, factors)
        layout = Layout(arms, factors)
        figures = out / "figures"
        pictures = [save_picture(drawn, figures, formats) for drawn in all_figures(layout, arms)]
    page = render(folders, out, chosen, arms, layout, pictures, warnings)
    path = out / "report.html"
    write_atomically(path, page.encode())
    return path


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Within: what the project's loggers warn of is listed too."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logger = logging.getLogger("experiments")
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
