"""Steps of all contenders in turn, and the memory of each by itself."""

import gc
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from experiments.benchmark.contenders import CONTENDERS, Case, Contender
from experiments.benchmark.shapes import defaults
from experiments.machine.console import ReportProgress
from experiments.machine.memory import PeakMeter
from experiments.machine.turns import Timed, described, take_turns, wait_for

MEMORY_STEPS = 3
PROGRAMS = 64  # that the compiler keeps of one function, which several contenders share


@dataclass
class Measured(Timed):
    """And its size.

    parameters  that it trains
    peak_bytes  above those before its model was made; None where not measured
    """

    parameters: int | None = None
    peak_bytes: int | None = None


def compare(
    case: Case, names: Sequence[str], rounds: int, report: ReportProgress
) -> dict[str, Measured]:
    """Time the contenders against each other, in one process; closes what they opened.

    One that cannot be made is left out and says why.
    """
    found = {name: Measured() for name in names}
    with (own := case.fresh()).closing, torch._dynamo.config.patch(recompile_limit=PROGRAMS):
        steps = {name: contender.step for name, contender in made(own, found).items()}
        take_turns(steps, found, rounds, own.device, report)
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
        records.error or probed.error,
        records.parameters,
        max(peaks, default=None),
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
