"""Command line: `python -m experiments.benchmark`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from experiments.benchmark.contenders import CONTENDERS, REFERENCE, TITLES, TYPES, Case
from experiments.benchmark.results import (
    Line,
    beside_fastest_peer,
    draw,
    lines_of,
    print_lines,
    write_csv,
)
from experiments.benchmark.rounds import (
    Measured,
    compare,
    measure_memory,
    with_instrumented,
)
from experiments.benchmark.shapes import SHAPES, USUAL_SHAPES
from experiments.machine.console import one_line, print_error, print_line, progress, terminal
from experiments.machine.device import threads_within_quota, warn_of_many_threads
from experiments.machine.turns import WARMUP
from gpt import ConfigError
from gpt.registry import choice_hint

USUAL_PRECISION = {"cpu": "float32", "cuda": "bf16"}
COMPILED = {"no": [False], "yes": [True], "both": [False, True]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code. Bad input gives one line on stderr."""
    with terminal():
        try:
            run(parse(arguments))
        except (ConfigError, OSError) as error:
            print_error(f"error: {one_line(error)}")
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options as typed."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark",
        description="Time a training step of this project beside those of its peers.",
    )
    parser.add_argument(
        "--shapes", help=f"with commas between, from {', '.join(SHAPES)} (default: by the device)"
    )
    parser.add_argument(
        "--peers", help=f"with commas between, from {', '.join(TITLES)} (default: all)"
    )
    parser.add_argument(
        "--rounds", default="30", help="in each of which every contender takes a step (default 30)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument(
        "--precision", help="float32 or bf16 (default: float32 on a CPU, bf16 on a GPU)"
    )
    parser.add_argument(
        "--compile", default="no", help="no, yes, or both one after the other (default no)"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument(
        "--out", type=Path, help="directory for the results (default outputs/benchmark/TIME)"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Every comparison; what was measured is on the disk before anything else is."""
    cases, names = cases_of(options), contenders_of(options.peers)
    rounds = whole_number("--rounds", options.rounds)
    if (threads := threads_within_quota()) is not None:
        torch.set_num_threads(threads)
    warn_of_many_threads()
    out = options.out or Path("outputs/benchmark") / time.strftime("%Y-%m-%d_%H-%M-%S")
    table, lines = new_file(out / "benchmark.csv"), list[Line]()
    for case in cases:
        for found in one_comparison(case, names, rounds, not options.no_memory):
            of_case = lines_of(case, found)
            write_csv([*lines, *of_case], table)
        lines += of_case
        print_lines(case, of_case)
        if sentence := beside_fastest_peer(found):
            print_line(sentence)
    print_line(f"\n{table}")
    print_line(str(draw(lines, out / "benchmark.png")))


def one_comparison(
    case: Case, names: Sequence[str], rounds: int, with_memory: bool
) -> Iterator[dict[str, Measured]]:
    """What was found at one shape, by `names`: once all were timed, and again with their memory."""
    compiled = ", compiled" if case.compiled else ""
    taking_steps = [name for name in names if name in CONTENDERS]
    with progress(f"{case.shape.name}{compiled}", WARMUP + rounds) as report:
        found = compare(case, taking_steps, rounds, report)
    yield in_order(names, found)
    if with_memory:
        with progress(f"{case.shape.name}{compiled}, memory", len(found)) as report:
            measure_memory(case, found, report)
        yield in_order(names, found)


def in_order(names: Sequence[str], found: Mapping[str, Measured]) -> dict[str, Measured]:
    """Those that were chosen, the default run among them."""
    put_together = with_instrumented(found)
    return {name: put_together[name] for name in names}


def cases_of(options: argparse.Namespace) -> list[Case]:
    """A comparison for each shape, and for each way of computing it."""
    known = one_of("--device", options.device, USUAL_PRECISION)
    if known == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device", known, "this machine has none; choose cpu")
    device = torch.device(known)
    precision = one_of("--precision", options.precision or USUAL_PRECISION[known], TYPES)
    compiled = COMPILED[one_of("--compile", options.compile, COMPILED)]
    shapes = options.shapes.split(",") if options.shapes else USUAL_SHAPES[known]
    chosen = [SHAPES[one_of("--shapes", name, SHAPES)] for name in shapes]
    return [Case(shape, device, precision, each) for shape in chosen for each in compiled]


def contenders_of(peers: str | None) -> list[str]:
    """Those that were chosen, and those without which there is no figure of them."""
    chosen = [one_of("--peers", name, TITLES) for name in (peers or ",".join(TITLES)).split(",")]
    needed = {REFERENCE, *chosen}
    if "instrumented" in chosen:
        needed |= {"records", "probed"}
    return [name for name in TITLES if name in needed]


def one_of(option: str, value: str, known: Collection[str]) -> str:
    """`value`, which must be one of those that are known."""
    if value not in known:
        raise ConfigError(option, value, choice_hint(value, known))
    return value


def whole_number(option: str, value: str) -> int:
    """`value` as a number of at least 1."""
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(option, value, "must be a whole number of at least 1")
    return int(value)


def new_file(path: Path) -> Path:
    """A path in a folder that can be written, at which nothing is: no measurement is lost."""
    folder = path.parent
    if path.exists():
        raise ConfigError("--out", str(folder), f"has a {path.name} already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return path
    except OSError as error:
        valid = f"must be a directory that can be written: {error.strerror}"
        raise ConfigError("--out", str(folder), valid) from None


if __name__ == "__main__":
    sys.exit(main())
