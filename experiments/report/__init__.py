"""Reads any number of runs and writes one page about them: `python -m experiments.report DIR`.

It needs only the CSV and JSON files of the runs.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import COMPLETED, Run, find_runs
from experiments.machine.console import progress
from experiments.machine.files import hide_home, write_atomically
from experiments.machine.plotting import mpl  # noqa: F401, must come before any other matplotlib
from experiments.report.figures import makers
from experiments.report.page import draw_picture, render
from experiments.settings.identity import defaults, flatten
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

    Raises ConfigError where there are no runs, or `by` has a name that is no setting. A file that
    cannot be read costs a warning, which the page shows too.
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
        distinct = once_each(list(runs.values()))
        factors = factors_of(distinct, by)
        histories = []
        with progress("reading runs", len(distinct), lines=False) as report_progress:
            for run in distinct:
                histories.append(read_history(run))
                report_progress(len(histories))
        arms = form_arms(histories, factors)
        layout = Layout(arms, factors)
        pictures = []
        figures = makers(layout, arms)
        with progress("drawing", len(figures), lines=False) as report_progress:
            for done, make in enumerate(figures, start=1):
                picture = draw_picture(make, out / "figures", formats)
                pictures += [] if picture is None else [picture]
                report_progress(done)
    page = render(folders, out, distinct, arms, layout, pictures, warnings)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    write_atomically(path, hide_home(page).encode())
    return path


def once_each(runs: Sequence[Run]) -> list[Run]:
    """The runs without repetitions: two runs of equal settings and seed would count as two seeds.

    The first completed one is used; a warning names the others.
    """
    used: dict[object, Run] = {}
    usual = dict(flatten(defaults()))
    for run in sorted(runs, key=lambda run: run.status not in COMPLETED):
        key = identity_of(run, usual)
        first = used.setdefault(key, run)
        if first is not run:
            log.warning("%s repeats %s and is left out", run.directory, first.directory)
    return [run for run in runs if any(run is other for other in used.values())]


def identity_of(run: Run, usual: Mapping[str, object]) -> object:
    """What repetitions of a run share: all settings but the usual, of which 0.4 lacked some.

    The hash of version 0.4 is another, since settings had other names. Runs that recorded no
    settings are distinguished by their hash, those without one by their directory.
    """
    if run.summary.settings_sha256 is None:
        return run.directory
    if run.summary.settings is None:
        return run.summary.settings_sha256
    return frozenset((n, v) for n, v in run.settings.items() if n not in usual or usual[n] != v)


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
