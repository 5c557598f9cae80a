"""Reads any number of runs and writes one page about them: `python -m experiments.report DIR`.

It needs only the CSV and JSON files of the runs.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import name_models, runs_in, warn_of_shared_seeds
from experiments.machine.console import progress
from experiments.machine.files import hide_home, write_atomically
from experiments.machine.plotting import mpl  # noqa: F401, must come before any other matplotlib
from experiments.report.figures import makers
from experiments.report.page import in_words, render
from experiments.report.picture import Shown, draw_chart
from experiments.report.sizes import are_sizes, by_size, sizes_chart
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

    by       settings that separate arms; None: all that vary, except for the seed
    formats  file formats of the figures, from FORMATS

    A single run's page beside it has no figures/: its pictures are in plots/.

    Raises ConfigError where there are no runs, or `by` has a name that is no setting. A file that
    cannot be read costs a warning, which the page shows too.
    """
    with collected_warnings() as warnings:
        distinct = runs_in(folders)
        if not distinct:
            raise ConfigError("DIR", ", ".join(map(str, folders)), "must hold at least one run")
        name_models(distinct)
        warn_of_shared_seeds(distinct)
        factors = factors_of(distinct, by)
        histories = []
        with progress("reading runs", len(distinct), lines=False) as report_progress:
            for run in distinct:
                histories.append(read_history(run))
                report_progress(len(histories))
        arms = form_arms(histories, factors)
        layout, sizes = Layout(arms, factors), are_sizes(arms)
        if sizes:
            arms = by_size(arms)
        if [run.directory for run in distinct] == [out]:
            formats = ()  # its own pictures are there, in plots/
        shown: list[Shown | None] = []
        figures = [] if sizes else makers(layout, arms)
        with progress("drawing", len(figures), lines=False) as report_progress:
            for done, make in enumerate(figures, start=1):
                shown.append(draw_chart(make, out / "figures", formats))
                report_progress(done)
        if sizes:
            make_sizes = partial(sizes_chart, in_words(layout, arms)[0])
            shown.append(draw_chart(make_sizes, out / "figures", formats))
    figures_there = [figure for figure in shown if figure is not None]
    page = render(out, distinct, arms, layout, figures_there, warnings)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    write_atomically(path, hide_home(page).encode())
    return path


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Within: the warnings of the project's loggers are also collected in a list."""
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
