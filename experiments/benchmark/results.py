"""What a comparison found: rows of benchmark.csv, tables on the terminal, a picture."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from experiments.benchmark.contenders import REFERENCE, TITLES, Case
from experiments.benchmark.rounds import Measured
from experiments.machine.console import megabytes, print_table
from experiments.machine.device import device_name
from experiments.machine.files import write_atomically
from experiments.machine.turns import quartiles, ratios
from experiments.machine.versions import versions
from experiments.report.palette import categories
from experiments.report.style import panels, save

PEAK_FLOPS = 989e12  # per second, of an H100 or H200 in bf16 without sparsity, as NVIDIA states
PACKAGES = ("transformers", "x-transformers", "wandb")  # whose versions a row has, too
OWN = {"normscope", "records", "probed", "instrumented", "watch"}  # of the same model
PEERS = [name for name in TITLES if name not in {*OWN, "products"}]
COLUMNS_OF_PANELS = 3


@dataclass(frozen=True)
class Line:
    """One contender at one shape, as benchmark.csv has it.

    compiled      the steps of this comparison; never the probes, nor products alone
    seconds       of a step: the median over the rounds, with its quartiles
    tokens_per_s  tokens of a step over that median
    ratio         of its step to the bare step of normscope in the same round: the median, with its
                  quartiles
    peak_bytes    see `peak_bytes` of rounds.py
    flops         of a step, see `Shape.flops`
    mfu           flops per second over PEAK_FLOPS; on a CPU None
    error         why a figure is missing
    """

    shape: str
    contender: str
    layers: int
    width: int
    heads: int
    length: int
    batch: int
    vocabulary: int
    device: str
    precision: str
    compiled: bool
    parameters: int | None
    rounds: int
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    tokens_per_s: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    peak_bytes: int | None
    flops: int
    mfu: float | None
    error: str | None
    device_name: str
    threads: int
    versions: str


def lines_of(case: Case, found: Mapping[str, Measured]) -> list[Line]:
    """The rows of one comparison."""
    reference = found[REFERENCE].seconds
    return [line_of(case, name, measured, reference) for name, measured in found.items()]


def beside_fastest_peer(found: Mapping[str, Measured]) -> str | None:
    """In a sentence: the step with all records beside the bare step of the fastest peer."""
    peers = {name: quartiles(each.seconds)[1] for name, each in found.items() if name in PEERS}
    timed = {name: seconds for name, seconds in peers.items() if seconds is not None}
    if not timed or "instrumented" not in found:
        return None
    fastest = min(timed, key=timed.__getitem__)
    _, ratio, _ = quartiles(ratios(found["instrumented"].seconds, found[fastest].seconds))
    if ratio is None:
        return None
    peer = TITLES[fastest]
    return f"normscope with its default records takes {ratio:.2f} of the bare step of {peer}"


def line_of(case: Case, name: str, measured: Measured, reference: Sequence[float]) -> Line:
    """A row of benchmark.csv."""
    shape = case.shape
    low, median, high = quartiles(measured.seconds)
    ratio_low, ratio, ratio_high = quartiles(ratios(measured.seconds, reference))
    on_gpu = case.device.type == "cuda"
    return Line(
        shape=shape.name,
        contender=name,
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        length=shape.length,
        batch=shape.batch,
        vocabulary=shape.vocabulary,
        device=case.device.type,
        precision=case.precision,
        compiled=case.compiled,
        parameters=measured.parameters,
        rounds=len(measured.seconds),
        seconds=median,
        seconds_low=low,
        seconds_high=high,
        tokens_per_s=None if median is None else shape.tokens / median,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        peak_bytes=measured.peak_bytes,
        flops=shape.flops,
        mfu=shape.flops / median / PEAK_FLOPS if on_gpu and median is not None else None,
        error=measured.error,
        device_name=device_name(case.device),
        threads=torch.get_num_threads(),
        versions=all_versions(),
    )


def all_versions() -> str:
    """Of Python, PyTorch, this project and the peers that are installed."""
    known = {name: versions()[name] for name in ("python", "torch", "normscope")}
    for name in PACKAGES:
        try:
            known[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return " ".join(f"{name}={version}" for name, version in known.items())


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """All rows so far, whole or not at all."""
    write_atomically(path, pd.DataFrame(lines).to_csv(index=False).encode())


def print_lines(case: Case, lines: Sequence[Line]) -> None:
    """The table of one comparison."""
    shape = case.shape
    compiled = ", compiled" if case.compiled else ""
    print_table(
        f"{shape.name}: {shape.layers} x {shape.width}, windows {shape.batch} x {shape.length}, "
        f"vocabulary {shape.vocabulary:,}; {lines[0].device_name}, {case.precision}{compiled}",
        [cells(line) | notes for line, notes in zip(lines, notes_of(lines), strict=True)],
    )


def notes_of(lines: Sequence[Line]) -> list[dict[str, str]]:
    """A last column of what failed, where something did."""
    failed = any(line.error for line in lines)
    return [{"note": line.error or ""} if failed else {} for line in lines]


def cells(line: Line) -> dict[str, str]:
    """A row for people; ratios above 1 are slower than the bare step of normscope."""
    spread = (line.ratio_low, line.ratio_high)
    shown = {
        "step of": TITLES[line.contender],
        "ratio": number(line.ratio, ".2f"),
        "quartiles": "-" if None in spread else f"{spread[0]:.2f} to {spread[1]:.2f}",
        "ms": number(line.seconds and 1000 * line.seconds, ".2f"),
        "tokens/s": number(line.tokens_per_s, ",.0f"),
        "peak memory": "-" if line.peak_bytes is None else megabytes(line.peak_bytes),
        "parameters": number(line.parameters, ","),
    }
    if line.device == "cuda":
        shown["MFU"] = number(line.mfu, ".1%")
    return shown


def number(value: float | None, form: str) -> str:
    """As `form` writes it; a dash for what is not there."""
    return "-" if value is None else format(value, form)


def draw(lines: Sequence[Line], path: Path) -> Path:
    """Each contender's ratio with its quartiles, a panel for each comparison."""
    table = pd.DataFrame([asdict(line) for line in lines])
    names = [name for name in reversed(TITLES) if name in set(table["contender"])]
    groups = list(table.groupby(["shape", "compiled"], sort=False))
    columns = min(COLUMNS_OF_PANELS, len(groups))
    figure, axes = panels(-(-len(groups) // columns), columns, (4.6, 3.4))
    for axis in axes:
        axis.set_visible(False)
    for place, ((shape, compiled), rows) in enumerate(groups):
        axis = axes[place]
        axis.set_visible(True)
        draw_panel(axis, rows.set_index("contender"), names)
        axis.set_title(f"{shape}, compiled" if compiled else str(shape))
        axis.set_yticks(range(len(names)), [TITLES[name] for name in names])
        axis.tick_params(axis="y", labelleft=place % columns == 0)
    figure.supxlabel("time of a step / that of normscope's bare step")
    return save(figure, path)


def draw_panel(axis: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """The contenders below each other, always in the same places; a line at the bare step."""
    for group, look in zip((OWN, set(names) - OWN), categories(2), strict=True):
        shown = rows[rows.index.isin(group) & rows["ratio"].notna()]
        whiskers = (shown["ratio"] - shown["ratio_low"], shown["ratio_high"] - shown["ratio"])
        places = [names.index(name) for name in shown.index]
        axis.errorbar(shown["ratio"], places, xerr=whiskers, fmt="o", color=look.light, capsize=3)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.set_ylim(-0.5, len(names) - 0.5)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
