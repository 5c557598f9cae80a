"""Steps of all contenders in turn, and the memory of each by itself."""

import gc
import multiprocessing
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import torch

from experiments.benchmark.contenders import CONTENDERS, Case, Contender
from experiments.benchmark.shapes import defaults
from experiments.machine.console import ReportProgress, one_line
from experiments.machine.memory import PeakMeter

WARMUP = 5  # rounds that are not counted: of kernels, caches, the optimizer's state, a compiler
MEMORY_STEPS = 3
PROGRAMS = 64  # that the compiler keeps of one function, which several contenders share


@dataclass
class Measured:
    """What was found of one contender.

    seconds     of its step in each round
    parameters  that it trains
    peak_bytes  above those before its model was made; None where not measured
    error       why it took no further part
    """

    seconds: list[float] = field(default_factory=list)
    parameters: int | None = None
    peak_bytes: int | None = None
    error: str | None = None


def compare(
    case: Case, names: Sequence[str], rounds: int, report: ReportProgress
) -> dict[str, Measured]:
    """Time the contenders against each other, in one process; closes what they opened.

    In each round each takes a step, in an order that is drawn anew. One that cannot be made, or
    whose step raises, is left out from then on and says why.
    """
    found = {name: Measured() for name in names}
    with (own := case.fresh()).closing, torch._dynamo.config.patch(recompile_limit=PROGRAMS):
        take_turns(made(own, found), found, rounds, own.device, report)
    del own
    torch.compiler.reset()  # or it would keep these models
    gc.collect()
    torch.cuda.empty_cache()  # for the processes in which memory is measured
    return found


def made(case: Case, found: Mapping[str, Measured]) -> dict[str, Contender]:
    """Those that can be made, in the order in which they have to be."""
    contenders = {}
    for name in sorted(found, key=[*CONTENDERS].index):
        try:
            contenders[name] = CONTENDERS[name](case)
            found[name].parameters = contenders[name].parameters
        except Exception as error:  # other people's code, of any version, or none at all
            found[name].error = described(error)
    return contenders


def take_turns(
    contenders: Mapping[str, Contender],
    found: Mapping[str, Measured],
    rounds: int,
    device: torch.device,
    report: ReportProgress,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Steps in turn, those of the first rounds not counted."""
    order, shuffle = list(contenders), random.Random(0).shuffle
    for number in range(WARMUP + rounds):
        shuffle(order)
        for name in list(order):
            try:
                seconds = timed(contenders[name].step, number, device, clock)
            except Exception as error:
                found[name].error = described(error)
                found[name].seconds.clear()
                order.remove(name)
            else:
                if number >= WARMUP:
                    found[name].seconds.append(seconds)
        report(number + 1)


def timed(
    step: Callable[[int], None], number: int, device: torch.device, clock: Callable[[], float]
) -> float:
    """Seconds of one step, on a GPU until it has computed all of it."""
    wait_for(device)
    started = clock()
    step(number)
    wait_for(device)
    return clock() - started


def wait_for(device: torch.device) -> None:
    """Until everything that was begun is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def described(error: BaseException) -> str:
    """An error with the name of its type, of a missing package or of anything else."""
    return f"{type(error).__name__}: {one_line(error)}"[:200]


def with_probes_at_interval(records: Sequence[float], probed: Sequence[float]) -> list[float]:
    """Seconds of a mean step of the default run, round by round.

    ((n - 1) r + p) / n, n the steps from one probe to the next, r a step with its row alone, p one
    with probes.
    """
    n = defaults().trainer.probe_every
    assert n is not None
    return [((n - 1) * r + p) / n for r, p in zip(records, probed, strict=True)]


def with_instrumented(found: Mapping[str, Measured]) -> dict[str, Measured]:
    """And the default run, put together from its two kinds of steps where both are there."""
    if not {"records", "probed"} <= found.keys():
        return dict(found)
    records, probed = found["records"], found["probed"]
    peaks = [kind.peak_bytes for kind in (records, probed) if kind.peak_bytes is not None]
    failed = not (records.seconds and probed.seconds)
    instrumented = Measured(
        [] if failed else with_probes_at_interval(records.seconds, probed.seconds),
        records.parameters,
        max(peaks, default=None),
        records.error or probed.error,
    )
    return {**found, "instrumented": instrumented}


def measure_memory(case: Case, found: Mapping[str, Measured], report: ReportProgress) -> None:
    """Let each contender take a few steps in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    for done, (name, measured) in enumerate(found.items(), 1):
        if measured.error is None:
            try:
                with ProcessPoolExecutor(1, spawn) as pool:
                    threads = torch.get_num_threads()
                    peak = pool.submit(peak_bytes, case.fresh(), name, threads)
                    measured.peak_bytes = peak.result()
            except Exception as error:  # or the process was ended for want of memory
                measured.error = f"memory not measured, {described(error)}"
        report(done)


def peak_bytes(case: Case, name: str, threads: int) -> int | None:
    """Bytes that a contender's model and steps take, above what the process had before.

    It is made once before, since what libraries load is no part of it, and its first step only
    makes the optimizer's state.
    """
    torch.set_num_threads(threads)
    with (first := case.fresh()).closing:
        CONTENDERS[name](first)
    del first
    with case.closing:
        assert case.text.batches  # there before, as in a comparison
        meter = PeakMeter(case.device)
        before = meter.start
        contender = CONTENDERS[name](case)
        contender.step(0)
        meter.restart()
        for number in range(1, MEMORY_STEPS):
            contender.step(number)
        wait_for(case.device)
        start, rise = meter.start, meter.rise()
        return None if before is None or start is None or rise is None else start + rise - before
