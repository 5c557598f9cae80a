"""Reads any number of runs and writes one page about them: `python -m experiments.report DIR`.

It needs only the CSV and JSON files that runs leave.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import COMPLETED, Run, find_runs
from experiments.machine.console import progress
from experiments.machine.files import hide_home, write_atomically
from experiments.report.figures import makers
from experiments.report.page import draw_picture, render
from gpt import ConfigError

log = logging.getLogger(__name__)

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
                log.warning("%s holds no runs", folder)
            runs |= {run.directory.resolve(): run for run in found}
        if not runs:
            raise ConfigError("DIR", ", ".join(map(str, folders)), "must hold at least one run")
        chosen = once_each(list(runs.values()))
        factors = factors_of(chosen, by)
        histories = []
        with progress("reading runs", len(chosen), lines=False) as tell:
            for run in chosen:
                histories.append(read_history(run))
                tell(len(histories))
        arms = form_arms(histories, factors)
        layout = Layout(arms, factors)
        pictures = []
        figures = makers(layout, arms)
        with progress("drawing", len(figures), lines=False) as tell:
            for done, make in enumerate(figures, start=1):
                pictures.append(draw_picture(make, out / "figures", formats))
                tell(done)
    page = render(
        folders, out, chosen, arms, layout, [p for p in pictures if p is not None], warnings
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    write_atomically(path, hide_home(page).encode())
    return path


def once_each(runs: Sequence[Run]) -> list[Run]:
    """Each run once: one of equal settings and seed stands for all, lest it counts as two seeds.

    The first that has an answer is taken; the others are named in a warning.
    """
    kept: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: run.status not in COMPLETED):
        key = run.summary.get("settings_sha256") or run.directory
        first = kept.setdefault(key, run)
        if first is not run:
            log.warning("%s repeats %s and is left out", run.directory, first.directory)
    return [run for run in runs if any(run is other for other in kept.values())]


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
