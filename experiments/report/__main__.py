"""Command line: `python -m experiments.report DIR [DIR ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.machine.console import one_line, print_error, print_line, terminal
from experiments.report import FORMATS, write_report
from experiments.report.claims_page import write_claims_page
from experiments.report.lecture_page import write_lecture_page
from gpt import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit code. Bad input gives one line on stderr."""
    with terminal():
        return report(arguments)


def report(arguments: Sequence[str] | None) -> int:
    """Write the report about what the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description=(
            "Write one page about a run, about any number of runs and sweeps, or about claims. A "
            "run may still be going on."
        ),
    )
    parser.add_argument(
        "folders",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="directory of a run, of a sweep, or of a run of experiment=claims or lecture",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=(
            "directory for report.html and, but for a single run in its own directory, figures/ "
            "(default: DIR; for several, outputs/report). Not for claims, whose claims.html, "
            "claims.md and figures/ are written into DIR"
        ),
    )
    parser.add_argument(
        "--by",
        help=(
            "settings that separate arms, such as norm,model.n_layers (default: all that vary). "
            "Not for claims"
        ),
    )
    parser.add_argument(
        "--format",
        default="png,svg",
        help=f"of the files in figures/, from {', '.join(FORMATS)}; claims have png and svg",
    )
    options = parser.parse_args(arguments)
    formats = options.format.split(",")
    out = options.out or (
        options.folders[0] if len(options.folders) == 1 else Path("outputs/report")
    )
    by = None if options.by is None else [name for name in options.by.split(",") if name]
    try:
        if by == []:
            raise ConfigError("--by", options.by, "must name at least one setting")
        for kind in formats:
            if kind not in FORMATS:
                raise ConfigError("--format", kind, f"choose from: {', '.join(FORMATS)}")
        for folder in options.folders:
            if not folder.is_dir():
                raise ConfigError("DIR", str(folder), "must be a directory of runs")
        if [(folder / "claims.csv").is_file() for folder in options.folders] == [True]:
            print_line(str(write_claims_page(options.folders[0])))
        elif [(folder / "lecture.csv").is_file() for folder in options.folders] == [True]:
            print_line(str(write_lecture_page(options.folders[0])))
        else:
            print_line(str(write_report(options.folders, out, by, formats)))
    except (ConfigError, OSError) as error:
        print_error(f"error: {one_line(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
