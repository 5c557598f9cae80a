"""The rule that gives claims their verdicts.

A claim is looked at after 6, 12, 24 and 48 seeds, with alpha = 0.005, 0.010, 0.015 and 0.020, until
it is decided. The alphas sum to 0.05, so that by the union bound a verdict is wrong with a
probability of at most 0.05, however the looks depend on one another.

At a look every number has a two-sided interval of level 1 - alpha. That of a mean is the wider, at
each end, of Student's t and of Hall's (1992, Journal of the Royal Statistical Society B 54, 221 to
228), which corrects t for skewness: t alone is wrong more often than alpha where seeds are skewed.
That of a share is Clopper and Pearson's, which is exact; a paired rate is the share, of the seeds
whose outcomes differ, of those that go as claimed. Then a prediction

    holds           if the interval lies in its region (of a sign: above the margin)
    does not hold   if they do not overlap
    is opposite     of a direction: if the interval lies below -margin, or below one half
    has no effect   of a sign: if the interval lies between -margin and +margin; it does not hold
                    either if it lies below +margin without that
    is open         otherwise, and where a value is not finite

What would contradict a claim of several predictions is corrected for their number by Holm's method.
What confirms it is not: it holds only if all its predictions hold. A claim whose controls fail has
an invalid test, and one whose controls are open is open.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.analysis.verdicts import (  # noqa: F401 - what the rule is known by
    ALPHA,
    ALPHAS,
    CONTRADICTIONS,
    FAILS,
    HOLDS,
    INVALID,
    LOOKS,
    NO_EFFECT,
    OPEN,
    OPPOSITE,
    RATE,
    SIGN,
)
from experiments.claims.claim import Claim, Prediction

Values = Mapping[str, Sequence[float]]  # by the name of the number, in the order of the seeds


@dataclass(frozen=True)
class Result:
    """A prediction with what its verdict was read from.

    seeds      number of seeds: of the look at which the verdict fell, or all
    mean, sd   over these seeds
    low, high  bounds of their interval
    verdict    "" of a number that is only shown
    look       at which the verdict fell; 0 while it is open
    closes_at  the look at which the present mean and deviation would decide it; 0: none
    """

    prediction: Prediction
    seeds: int
    mean: float
    sd: float
    low: float
    high: float
    verdict: str
    look: int = 0
    closes_at: int = 0


def judge(claim: Claim, values: Values) -> list[Result]:
    """The result of each prediction of a claim, from the looks that its seeds suffice for."""
    seeds = min((len(values.get(p.name, ())) for p in claim.predictions), default=0)
    looks = [look for look in LOOKS if look <= seeds]
    decided: dict[str, tuple[str, int]] = {}
    for look in looks:
        verdicts = verdicts_at(claim, {name: v[:look] for name, v in values.items()}, look)
        for name, verdict in verdicts.items():
            if verdict != OPEN:
                decided.setdefault(name, (verdict, look))
    return [
        result_of(p, values.get(p.name, ()), decided.get(p.name, (OPEN, 0)), looks)
        for p in claim.predictions
    ]


def result_of(
    prediction: Prediction,
    values: Sequence[float],
    decided: tuple[str, int],
    looks: Sequence[int],
) -> Result:
    """The numbers of a prediction, with the verdict that fell.

    Seeds after its look, measured for other predictions of the claim, take no part: the interval
    would be another one than the verdict's.
    """
    verdict, look = decided if prediction.kind else ("", 0)
    numbers = np.asarray(values[: look or None], dtype=float)
    is_finite = bool(np.isfinite(numbers).all())
    mean = float(numbers.mean()) if len(numbers) and is_finite else math.nan
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 and is_finite else math.nan
    last_look = look or (looks[-1] if looks else LOOKS[0])
    low, high = interval(prediction, numbers, ALPHAS[last_look])
    closes_at = closing_look(prediction, numbers) if verdict == OPEN else 0
    return Result(prediction, len(numbers), mean, sd, low, high, verdict, look, closes_at)


def verdicts_at(claim: Claim, values: Values, look: int) -> dict[str, str]:
    """The verdict of each prediction at one look."""
    alpha = ALPHAS[look]

    def verdict(prediction: Prediction, level: float) -> str:
        return compare(prediction, *interval(prediction, values[prediction.name], level))

    verdicts = {p.name: verdict(p, alpha) for p in claim.predictions if p.kind}
    # Holm: the contradictions that remain at alpha over the number of those not yet found.
    judged, found = claim.judged, dict[str, str]()
    while True:
        level = alpha / max(1, len(judged) - len(found))
        new = {p.name: verdict(p, level) for p in judged if p.name not in found}
        new = {name: word for name, word in new.items() if word in CONTRADICTIONS}
        if not new:
            break
        found |= new
    for prediction in judged:
        if verdicts[prediction.name] in CONTRADICTIONS:
            verdicts[prediction.name] = found.get(prediction.name, OPEN)
    return verdicts


def compare(prediction: Prediction, low: float, high: float) -> str:
    """The verdict of a prediction whose number lies between `low` and `high`."""
    if math.isnan(low) or math.isnan(high):
        return OPEN
    if prediction.kind == SIGN:
        margin = prediction.margin
        if low > margin:
            return HOLDS
        if high < -margin:
            return OPPOSITE
        if margin > 0 and high <= margin:
            return NO_EFFECT if low >= -margin else FAILS
        return OPEN
    if prediction.is_paired:
        return HOLDS if low > 0.5 else OPPOSITE if high < 0.5 else OPEN
    if prediction.low <= low and high <= prediction.high:
        return HOLDS
    return FAILS if high < prediction.low or low > prediction.high else OPEN


def verdict_of(claim: Claim, results: Iterable[Result]) -> str:
    """The verdict of a claim, from those of its predictions."""
    results = list(results)
    controls = {r.verdict for r in results if r.prediction.is_control}
    verdicts = [r.verdict for r in results if r.verdict and not r.prediction.is_control]
    if controls & {*CONTRADICTIONS}:
        return INVALID
    if OPEN in controls or not verdicts:
        return OPEN
    if contradictions := {word for word in verdicts if word in CONTRADICTIONS}:
        return contradictions.pop() if len(verdicts) == 1 else FAILS
    return OPEN if OPEN in verdicts else HOLDS


def interval(
    prediction: Prediction, values: Sequence[float] | np.ndarray, alpha: float
) -> tuple[float, float]:
    """Bounds of the interval of level 1 - alpha; nan where there is none."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return math.nan, math.nan
    if prediction.kind == RATE:
        if prediction.is_paired:
            return share_interval(int((numbers > 0).sum()), int((numbers != 0).sum()), alpha)
        return share_interval(int((numbers > 0).sum()), len(numbers), alpha)
    low, high = mean_interval(numbers, alpha)
    return float(low), float(high)


def share_interval(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    exact = stats.binomtest(successes, trials).proportion_ci(1 - alpha, method="exact")
    return float(exact.low), float(exact.high)


def mean_interval(values: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the interval of the mean over the last axis: the wider of Student's and Hall's."""
    n = values.shape[-1]
    mean, sd = values.mean(-1), values.std(-1, ddof=1)
    quantile = stats.t.ppf(1 - alpha / 2, n - 1)
    # Equal values have a deviation of rounding alone, of which the third moment means nothing.
    is_spread = sd > 1e-12 * np.abs(mean)
    safe = np.where(is_spread, sd, 1.0)
    third = ((values - mean[..., None]) ** 3).mean(-1) / safe**3
    skewness = np.where(is_spread, third * n**2 / ((n - 1) * (n - 2)), 0.0)
    se = sd / math.sqrt(n)
    low = mean - se * np.maximum(halls(quantile, skewness, n), quantile)
    high = mean - se * np.minimum(halls(-quantile, skewness, n), -quantile)
    return low, high


def halls(quantile: float, skewness: np.ndarray, n: int) -> np.ndarray:
    """Hall's quantile of (mean - mu) / se of n values with this skewness.

    The inverse of u + g u^2 / (3 sqrt n) + g^2 u^3 / (27 n) + g / (6 sqrt n), g the skewness.
    """
    g = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness)
    root = math.sqrt(n)
    cube = 1 + g * (quantile - g / (6 * root)) / root
    return np.asarray(3 * root / g * (np.cbrt(cube) - 1))


def closing_look(prediction: Prediction, values: np.ndarray) -> int:
    """The next look at which the present mean and deviation would decide; 0 where none would."""
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return 0
    for look in LOOKS:
        if look > n and compare(prediction, *projected(prediction, values, look)) != OPEN:
            return look
    return 0


def projected(prediction: Prediction, values: np.ndarray, look: int) -> tuple[float, float]:
    """The interval at a later look, if it finds the present mean and deviation, or share."""
    if prediction.kind == RATE:
        return interval(prediction, np.resize(values, look), ALPHAS[look])
    half_width = stats.t.ppf(1 - ALPHAS[look] / 2, look - 1) * values.std(ddof=1) / look**0.5
    return float(values.mean() - half_width), float(values.mean() + half_width)
