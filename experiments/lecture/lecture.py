"""The whole lecture: every step computed, printed as it comes, and recorded."""

import logging
from pathlib import Path

import pandas as pd

from experiments.analysis.chapter import STEPS, Step
from experiments.analysis.lecture import RUNS, Lecture, read_arms
from experiments.lecture.arms import arm_checks, check_arms, train_arms
from experiments.lecture.steps import COMPUTED, Tables, book_model
from experiments.machine.console import one_line, print_line, print_table
from experiments.machine.versions import versions
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings

log = logging.getLogger(__name__)


def give_lecture(settings: Settings, recorder: Recorder) -> Outcome:
    """Compute, print and record every step, and write the page."""
    overrides = recorder.summary.overrides or []
    check_arms(settings, overrides)
    lecture = Lecture()
    try:
        for number, step in enumerate(STEPS, start=1):
            if step.name in COMPUTED:
                compute(step, lecture, recorder)
            else:
                train_arms(settings, overrides, recorder.directory)
                lecture.arms = list(read_arms(recorder.directory / RUNS))
                lecture.checks += arm_checks(lecture.arms)
            print_step(number, step, lecture)
    finally:
        book_model.cache_clear()  # 622 MB
    recorder.table("lecture", lecture.rows())
    recorder.summary.device, recorder.summary.versions = "cpu", versions()
    recorder.write_summary()  # the page reads it
    page = write_page(recorder.directory)
    if page is not None:
        print_line(f"\nPage: {page}")
    return outcome_of(lecture)


def compute(step: Step, lecture: Lecture, recorder: Recorder) -> None:
    """Put a step's numbers and tables into the lecture, the tables into files, too."""
    tables: Tables = {}
    lecture.checks += COMPUTED[step.name](tables)
    for name, table in tables.items():
        recorder.table(name, table)
        lecture.tables[name] = pd.DataFrame(list(table))


def print_step(number: int, step: Step, lecture: Lecture) -> None:
    """A step as a compact table under its finding, and the command that goes further."""
    section = f"the book, {step.section}" if step.section else "beyond the book"
    print_table(
        f"{number}. {step.title(lecture)} ({section})",
        [
            {"what": check.what, "notes": check.notes, "here": check.here, "equal": check.equal}
            for check in lecture.of(step.name)
        ],
    )
    print_line(f"further: {step.command}")


def outcome_of(lecture: Lecture) -> Outcome:
    """How many of the notes' numbers came out, and which did not."""
    compared, different = lecture.compared, lecture.different
    equal = f"{len(compared) - len(different)} of {len(compared)}"
    results = {"equal to the notes": f"{equal} numbers"}
    if different:
        results["differs"] = "; ".join(f"{check.step}: {check.what}" for check in different)
    return Outcome(results=results, finding=f"{equal} numbers come out as the notes print them")


def write_page(directory: Path) -> Path | None:
    """Write the page; None, with a warning, where that fails: the tables are there already."""
    try:
        from experiments.report.lecture_page import write_lecture_page  # loads matplotlib

        return write_lecture_page(directory)
    except Exception as error:
        log.warning("the page was not written: %s: %s", type(error).__name__, one_line(error))
        return None
