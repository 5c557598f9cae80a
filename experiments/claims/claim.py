"""Claims, and the rule that gives each its verdict.

A claim is a published statement in the form of predictions: each is an interval for a number. The
number is measured once per seed, and the mean over seeds has a 95 % confidence interval (Student's
t). A prediction is

    reproduced       if the confidence interval lies inside the predicted interval
    not reproduced   if the two intervals do not overlap
    undecided        otherwise, and with fewer than three seeds or a number that is not finite

A claim is reproduced if all its predictions are, not reproduced if any of them is not, and
undecided otherwise. Numbers without a prediction are shown for comparison and have no verdict.
Where a prediction was changed after trial measurements, the claim's remark has the earlier one and
its result; the reported numbers were measured on other seeds.
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

Arms = Mapping[str, Sequence[str]]  # overrides of an arm's training runs, by the arm's name
# Of a Lab and of its Budget. Their module imports this one, so their types cannot be named here.
Measure = Callable[[Any], "Evidence"]
ArmsOf = Callable[[Any], Arms]


@dataclass(frozen=True)
class Source:
    """The source of a statement: the paper, its arXiv number, and the place in it."""

    paper: str
    arxiv: str
    where: str


OWN = Source("this project", "", "")


@dataclass(frozen=True)
class Prediction:
    """`low` <= number <= `high`. A number without bounds is shown without a verdict.

    name  of the number, with its unit
    text  the prediction in the words of the source
    """

    name: str
    text: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def has_bounds(self) -> bool:
        return math.isfinite(self.low) or math.isfinite(self.high)


@dataclass(frozen=True)
class AxisLabels:
    """Labels of a claim's figure. Without x the arms stand side by side."""

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
    """The result of a claim's measurement.

    values  for each prediction, by its name: a number per seed
    points  to draw
    lines   heights of horizontal lines to compare with, by name
    """

    values: dict[str, list[float]] = field(default_factory=partial(defaultdict, list))
    points: list[Point] = field(default_factory=list)
    lines: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Evidence") -> None:
        """Add the result of another measurement, which has other predictions."""
        self.values |= other.values
        self.points += other.points
        self.lines |= other.lines


@dataclass(frozen=True)
class Claim:
    """One claim: the statement and its source, the measurement, the predictions.

    setting  of the measurement, with {placeholders} for what the budget decides
    arms     the arms of its training runs under a budget; None for a claim about initialisation
    remark   written after the measurement: reasons for the result, and earlier predictions
    """

    name: str
    title: str
    source: Source
    statement: str
    setting: str
    predictions: tuple[Prediction, ...]
    axes: AxisLabels
    measure: Measure
    arms: ArmsOf | None = None
    remark: str = ""

    @property
    def trains(self) -> bool:
        return self.arms is not None

    @property
    def own(self) -> bool:
        """Whether it is a finding of this project that no paper has."""
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
    axes: AxisLabels,
    arms: ArmsOf | None = None,
    remark: str = "",
) -> Callable[[Measure], Measure]:
    """Decorator that makes a measurement the claim `name`, in CLAIMS."""

    def register(measure: Measure) -> Measure:
        CLAIMS[name] = Claim(
            name=name,
            title=title,
            source=source,
            statement=statement,
            setting=setting,
            predictions=tuple(predictions),
            axes=axes,
            measure=measure,
            arms=arms,
            remark=remark,
        )
        return measure

    return register


@dataclass(frozen=True)
class Result:
    """A prediction with the measured number."""

    prediction: Prediction
    seeds: int
    mean: float
    low: float  # bounds of the mean's confidence interval
    high: float
    verdict: str  # empty for a number without bounds


def judge(prediction: Prediction, values: Sequence[float]) -> Result:
    """Apply the rule at the top of this module."""
    mean, low, high = confidence(values)
    if not prediction.has_bounds:
        verdict = ""
    elif len(values) < LEAST_SEEDS or math.isnan(low):
        verdict = UNDECIDED
    elif prediction.low <= low and high <= prediction.high:
        verdict = REPRODUCED
    elif high < prediction.low or low > prediction.high:
        verdict = NOT_REPRODUCED
    else:
        verdict = UNDECIDED
    return Result(prediction, len(values), mean, low, high, verdict)


def confidence(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and the bounds of its 95 % interval, mean -+ t s / sqrt(n).

    The bounds are nan with fewer than two values, or where one is not finite.
    """
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return (float(numbers.mean()) if len(numbers) else math.nan), math.nan, math.nan
    mean = float(numbers.mean())
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1))
    half_width *= float(numbers.std(ddof=1)) / len(numbers) ** 0.5
    return mean, mean - half_width, mean + half_width


def overall(results: Iterable[Result]) -> str:
    """The verdict of a claim, from those of its predictions."""
    verdicts = {result.verdict for result in results}
    for verdict in (NOT_REPRODUCED, UNDECIDED, REPRODUCED):
        if verdict in verdicts:
            return verdict
    return UNDECIDED


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in ln x: the exponent of a power law."""
    return log_slope(np.log(x).tolist(), y)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in x: the rate of an exponential."""
    with np.errstate(divide="ignore"):  # the logarithm of 0 makes the slope nan
        logs = np.log(y)
    return float(np.polyfit(x, logs, 1)[0]) if np.isfinite(logs).all() else math.nan
