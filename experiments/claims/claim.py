"""What a claim is, and the rule by which its verdict is found.

A claim is a published statement, put as predictions: each says in which interval a number lies.
The number is measured once per seed. Its mean has a 95 % confidence interval, Student's t over the
seeds. A prediction is

    reproduced       where the confidence interval lies inside the predicted interval
    not reproduced   where the two have no point in common
    undecided        otherwise, and with fewer than three seeds or a number that is not finite

and a claim is reproduced where all its predictions are, not reproduced where any is not, else
undecided. Numbers shown for comparison, without a prediction, have no verdict. Where a prediction
was put otherwise at first, and changed after a look at trial measurements, the claim's remark says
what it was and how it came out; what is reported was measured on other seeds.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from experiments.analysis.numbers import CONFIDENCE
from gpt.registry import Registry

LEAST_SEEDS = 3
REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"

Arms = Mapping[str, Sequence[str]]  # names to overrides of the training runs
# Of a lab and of its budget, which know claims: experiments/claims/lab.py.
Measure = Callable[[Any], "Evidence"]
ArmsOf = Callable[[Any], Arms]


@dataclass(frozen=True)
class Source:
    """Where a statement stands: the paper, its arXiv number, and the place in it."""

    paper: str
    arxiv: str
    where: str


OWN = Source("this project", "", "")


@dataclass(frozen=True)
class Prediction:
    """`low` <= number <= `high`. Without bounds the number is shown and not judged.

    name   of the number, with its unit
    words  what is predicted, as the source says it
    """

    name: str
    words: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def judged(self) -> bool:
        return math.isfinite(self.low) or math.isfinite(self.high)


@dataclass(frozen=True)
class Axes:
    """What a claim's points are drawn over: a number x, or the arms side by side without it."""

    y: str
    x: str = ""


@dataclass(frozen=True)
class Point:
    """One measured value of one arm, at x (nan where arms have no x), for one seed."""

    arm: str
    x: float
    seed: int
    value: float


@dataclass
class Evidence:
    """What a claim's measurement gives: values per seed for each prediction, points to draw.

    lines  heights that mean something, by name
    """

    values: dict[str, list[float]] = field(default_factory=partial(defaultdict, list))
    points: list[Point] = field(default_factory=list)
    lines: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Evidence") -> None:
        """Join what another measurement gave, of other numbers."""
        self.values |= other.values
        self.points += other.points
        self.lines |= other.lines


@dataclass(frozen=True)
class Claim:
    """One claim: what is said and where, how it is measured, what is predicted.

    arms    of its training runs under a budget; None: it is theory, measured at initialisation
    remark  on how it came out, written after it was measured: why, and what else was tried
    """

    name: str
    title: str
    source: Source
    statement: str
    setting: str
    predictions: tuple[Prediction, ...]
    axes: Axes
    measure: Measure
    arms: ArmsOf | None = None
    remark: str = ""

    @property
    def trains(self) -> bool:
        return self.arms is not None

    @property
    def own(self) -> bool:
        """Whether it is a finding of this project, published nowhere else."""
        return self.source is OWN


CLAIMS: Registry[Claim] = Registry("claims.only")


def claim(
    name: str,
    *,
    title: str,
    source: Source,
    statement: str,
    setting: str,
    predictions: Iterable[Prediction],
    axes: Axes,
    arms: ArmsOf | None = None,
    remark: str = "",
) -> Callable[[Measure], Measure]:
    """Decorator that enters a measurement as the claim `name`."""

    def enter(measure: Measure) -> Measure:
        told = (name, title, source, statement, setting, tuple(predictions), axes)
        CLAIMS[name] = Claim(*told, measure, arms, remark)
        return measure

    return enter


@dataclass(frozen=True)
class Judged:
    """A prediction beside what was measured."""

    prediction: Prediction
    seeds: int
    mean: float
    low: float  # of the mean's confidence interval
    high: float
    verdict: str  # empty where nothing was predicted


def judge(prediction: Prediction, values: Sequence[float]) -> Judged:
    """Apply the rule at the top of this module."""
    mean, low, high = confidence(values)
    if not prediction.judged:
        verdict = ""
    elif len(values) < LEAST_SEEDS or math.isnan(low):
        verdict = UNDECIDED
    elif prediction.low <= low and high <= prediction.high:
        verdict = REPRODUCED
    elif high < prediction.low or low > prediction.high:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    return Judged(prediction, len(values), mean, low, high, verdict)


def confidence(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the bounds of its 95 % interval: mean -+ t s / sqrt(n), nan where not finite."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return (float(numbers.mean()) if len(numbers) else math.nan), math.nan, math.nan
    mean = float(numbers.mean())
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1))
    reach *= float(numbers.std(ddof=1)) / len(numbers) ** 0.5
    return mean, mean - reach, mean + reach


def overall(judged: Iterable[Judged]) -> str:
    """The verdict of a claim, from those of its predictions."""
    verdicts = {one.verdict for one in judged}
    for verdict in (NOT_REPRODUCED, UNDECIDED, REPRODUCED):
        if verdict in verdicts:
            return verdict
    return UNDECIDED


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in ln x: the exponent of a power law."""
    return per_unit(np.log(x).tolist(), y)


def per_unit(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in x: the rate of an exponential."""
    with np.errstate(divide="ignore"):  # a zero has no slope: nan
        logs = np.log(y)
    return float(np.polyfit(x, logs, 1)[0]) if np.isfinite(logs).all() else math.nan
