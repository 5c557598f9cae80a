"""Command line: `python -m experiments.claims register` and `... docs RUN_DIR [FOLDER]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.claims import CLAIMS
from experiments.claims.docs import write_docs
from experiments.claims.registered import FILE, commit_of, register, registrations
from experiments.machine.console import one_line, print_error, print_line, print_table, terminal
from experiments.report.board import read_table
from gpt import ConfigError

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit code. Bad input gives one line on stderr."""
    with terminal():
        options = parse(arguments)
        try:
            if options.task == "register":
                register_claims(options.file, options.board)
            else:
                for path in write_docs(options.directory, options.folder):
                    print_line(str(path))
        except (ConfigError, OSError) as error:
            print_error(f"error: {one_line(error)}")
            return 1
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as typed."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.claims",
        description="Register claims before they are measured, and publish what came out.",
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    to_register = tasks.add_parser("register", help="give new and changed claims their seeds")
    to_register.add_argument(
        "--board",
        type=Path,
        default=DOCS / "claims.csv",
        help="the last published board, whose results are kept with what it replaces "
        "(default docs/claims.csv)",
    )
    to_register.add_argument(
        "--file", type=Path, default=HERE / FILE, help=f"to write (default {FILE} of this package)"
    )
    to_publish = tasks.add_parser("docs", help="write claims.md, its table and its figure")
    to_publish.add_argument(
        "directory", metavar="RUN_DIR", type=Path, help="of a run of experiment=claims"
    )
    to_publish.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=DOCS, help="default docs"
    )
    return parser.parse_args(arguments)


def register_claims(file: Path, board: Path) -> None:
    """Register new and changed claims, and print them.

    Raises ConfigError where the commit would not name the code of the claims.
    """
    commit = commit_of(HERE)
    if not commit or commit.endswith("+"):
        state = "changes that are not committed" if commit else "no git repository"
        raise ConfigError("register", state, "commit the claims first")
    replaced = {name: entries[-1].seeds for name, entries in registrations().items()}
    new = register(list(CLAIMS.values()), results_of(board), file, commit)
    rows = [
        {
            "claim": name,
            "seeds": f"{entry.seeds[0]} to {entry.seeds[-1]}",
            "replaces": f"{seeds[0]} to {seeds[-1]}" if (seeds := replaced.get(name)) else "",
            "hash": entry.hash[:12],
        }
        for name, entry in new.items()
    ]
    if rows:
        print_table("Registered", rows)
    print_line(f"{len(new)} of {len(CLAIMS)} claims were new or changed: {file}")


def results_of(board: Path) -> dict[str, str]:
    """What came out, by claim, of those that a board has as they are registered now."""
    rows = read_table(board)
    if rows.empty:
        return {}
    in_force = {name: entries[-1].hash for name, entries in registrations().items()}
    first = rows.drop_duplicates("claim")
    return {
        row["claim"]: f"{row['claim_verdict']}, {row['seeds']} seeds, {row['evidence']}"
        for row in first.to_dict("records")
        if row["hash"] == in_force.get(row["claim"])
    }


if __name__ == "__main__":
    sys.exit(main())
