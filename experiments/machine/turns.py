"""Steps of several contenders, timed in turn, so that what slows the machine down slows all."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from experiments.machine.console import ReportProgress, one_line

WARMUP = 5  # rounds that are not counted: of kernels, caches, the optimizer's state, a compiler

Step = Callable[[int], None]  # by its number


@dataclass
class Timed:
    """What was found of one contender.

    seconds  of its step in each round
    error    why it took no further part
    """

    seconds: list[float] = field(default_factory=list)
    error: str | None = None


def take_turns(
    steps: Mapping[str, Step],
    found: Mapping[str, Timed],
    rounds: int,
    device: torch.device,
    report: ReportProgress,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """In each round each takes a step, in an order that is drawn anew; the first are not counted.

    One whose step raises is left out from then on and says why.
    """
    order, shuffle = list(steps), random.Random(0).shuffle
    for number in range(WARMUP + rounds):
        shuffle(order)
        for name in list(order):
            try:
                seconds = timed(steps[name], number, device, clock)
            except Exception as error:  # other people's code, of any version
                found[name].error = described(error)
                found[name].seconds.clear()
                order.remove(name)
            else:
                if number >= WARMUP:
                    found[name].seconds.append(seconds)
        report(number + 1)


def timed(step: Step, number: int, device: torch.device, clock: Callable[[], float]) -> float:
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


Quartiles = tuple[float | None, float | None, float | None]


def quartiles(values: Sequence[float]) -> Quartiles:
    """The lower quartile, the median and the upper one; None of nothing."""
    if not values:
        return None, None, None
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(low), float(middle), float(high)


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Round by round, so that what slows a whole round down is in both; none without a pair."""
    if len(seconds) != len(reference):
        return []
    return [own / other for own, other in zip(seconds, reference, strict=True)]
