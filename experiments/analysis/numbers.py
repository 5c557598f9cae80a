"""The statistics of the report: medians over seeds, power laws, sensitivity to learning rates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
CLOSE = 0.05  # nats; seeds of one arm of a small model differ by about as much, and by more
SEEN = 0.01  # nats; losses are shown in hundredths

Frame = pd.DataFrame


@dataclass(frozen=True)
class Fit:
    """y = c x^slope, fitted by least squares in log-log, with the slope's confidence interval."""

    slope: float
    low: float  # nan with fewer than three points
    high: float
    intercept: float  # ln c, since c itself can be too large for a number
    miss: float  # the factor by which the point farthest from the line differs from it

    def at(self, x: np.ndarray) -> np.ndarray:
        return exponential(self.intercept + self.slope * np.log(x))

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"exponent {self.slope:+z.2f}"
        interval = f"{CONFIDENCE:.0%} interval {self.low:+z.2f} to {self.high:+z.2f}"
        return f"exponent {self.slope:+z.2f}, {interval}"


def exponential(x: np.ndarray) -> np.ndarray:
    """e^x, infinite where it is too large for a number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x)


def fit_power(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Fit a power law to positive, finite points; None without two different x.

    The interval is that of an ordinary least-squares slope: Student's t with n - 2 degrees of
    freedom, under independent errors of equal spread in log y. Every run is a point of its own.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if 0 < a < math.inf and 0 < b < math.inf]
    if len({a for a, _ in points}) < 2:
        return None
    log_x, log_y = np.log(np.array(points)).T
    line = stats.linregress(log_x, log_y)
    spread = math.nan
    if len(points) > 2:
        spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(points) - 2)) * float(line.stderr)
    slope = float(line.slope)
    intercept = float(line.intercept)
    miss = float(exponential(np.abs(log_y - slope * log_x - intercept).max()))
    return Fit(slope, slope - spread, slope + spread, intercept, miss)


@dataclass(frozen=True)
class Band:
    """Median, least and greatest value over seeds, by step."""

    median: pd.Series
    low: pd.Series
    high: pd.Series

    def thinned(self, most: int = 400) -> "Band":
        """The steps with a finite median, at most `most` of them, evenly spread."""
        steps = self.median[np.isfinite(self.median)].index
        if len(steps) > most:
            steps = steps[np.linspace(0, len(steps) - 1, most).round().astype(int)]
        return Band(self.median[steps], self.low[steps], self.high[steps])


def band(series: Sequence[pd.Series], diverged: Sequence[bool] | None = None) -> Band:
    """Median, least and greatest value over runs, at every step that any of them has.

    diverged  for each run. After its last value such a run counts as infinite: without it the
              median over seeds would improve when the worst run ends.
    """
    table = pd.concat(list(series), axis=1, keys=range(len(series))).sort_index()
    for column, is_infinite in enumerate(diverged or []):
        if is_infinite:
            last = table[column].last_valid_index()
            after = table.index > last if last is not None else np.ones(len(table), dtype=bool)
            table.loc[after, column] = np.inf
    finite = table.where(np.isfinite(table))
    with np.errstate(invalid="ignore"):  # inf - inf, where half of the runs are infinite, is nan
        median = table.median(axis=1)
    return Band(median, finite.min(axis=1), finite.max(axis=1))


def median(values: Sequence[float]) -> float:
    """Median, in which infinite values count as infinite; nan without values."""
    if not values:
        return math.nan
    with np.errstate(invalid="ignore"):
        return float(np.median(values))


def margin_of(samples: Sequence[Sequence[float]]) -> float:
    """How far the medians of two arms may be apart, in nats, and say nothing about which is better.

    That is the range over the seeds of an arm: the median of those of arms with two runs or more,
    and CLOSE where no arm has two.
    """
    ranges = [max(losses) - min(losses) for losses in samples if len(losses) > 1]
    return max(median(ranges), SEEN) if ranges else CLOSE


def spread_text(values: Sequence[float]) -> str:
    """The median and the range of values over seeds, as they are shown; empty without values."""
    centre = median(values)
    if math.isnan(centre):
        return ""
    text = loss_text(centre)
    if min(values) < max(values):
        text += f" ({loss_text(min(values))} to {loss_text(max(values))})"
    return text


def number_text(value: float, form: str = ",.4g") -> str:
    """A number as it is shown; empty where it is nan, which means not measured."""
    return "" if math.isnan(value) else format(value, form)


def sensitivity(losses: Sequence[float]) -> float:
    """LR sensitivity: the mean of the final losses over a grid of learning rates minus the best.

    A loss is min(final, initial), and the initial one for a run that diverged. Wortsman et al.
    2023, arXiv 2309.14322.
    """
    return float(np.mean(losses)) - min(losses)


def loss_text(value: float, digits: int = 3) -> str:
    """A loss with as many digits behind the point, unless it is too large for that.

    That of a run that diverged is infinite, so that it is worse than any other.
    """
    if math.isinf(value):
        return "diverged"
    return f"{value:z,.{digits}f}" if abs(value) < 1e5 else f"{value:.3g}"
