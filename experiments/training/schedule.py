"""Learning rate schedules: functions of the step alone."""

import math
from collections.abc import Callable

from experiments.settings.schema import ScheduleSettings
from gpt.registry import Registry

SCHEDULES: Registry[Callable[[float], float]] = Registry("schedule.name")


@SCHEDULES("constant")
def constant(done: float) -> float:
    """1."""
    return 1.0


@SCHEDULES("linear")
def linear(done: float) -> float:
    """1 - t, with t the share of the steps after warm-up that are done."""
    return 1.0 - done


@SCHEDULES("cosine")
def cosine(done: float) -> float:
    """(1 + cos(pi t)) / 2. Loshchilov and Hutter 2016, arXiv 1608.03983, without restarts."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def learning_rate(schedule: ScheduleSettings, peak: float, step: int, steps: int) -> float:
    """The learning rate of update number `step` (0 .. steps - 1).

    peak (step + 1) / warmup_steps during warm-up, then from peak to final_ratio x peak along the
    schedule's curve; a constant one stays at peak.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    curve = SCHEDULES[schedule.name](done)
    return peak * (schedule.final_ratio + (1.0 - schedule.final_ratio) * curve)
