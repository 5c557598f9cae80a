"""Power laws, medians and sensitivities, with answers computed by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.numbers import band, fit_power, median, sensitivity


def test_a_power_law_is_found_with_its_interval() -> None:
    x = [2.0, 4.0, 8.0, 16.0]
    exact = fit_power(x, [3 * a**-0.5 for a in x])
    assert exact is not None
    assert (exact.slope, math.exp(exact.intercept)) == pytest.approx((-0.5, 3.0))
    assert exact.high - exact.low == pytest.approx(0, abs=1e-7)
    noise = np.array([0.1, -0.2, 0.15, -0.05])
    fit = fit_power(x, [3 * a**-0.5 * math.exp(e) for a, e in zip(x, noise, strict=True)])
    assert fit is not None
    # The textbook formula: 4.302653 is the 97.5 % point of Student's t with 2 degrees of freedom.
    log_x = np.log(x) - np.mean(np.log(x))
    slope = -0.5 + (log_x @ noise) / (log_x @ log_x)
    residuals = noise - noise.mean() - (slope + 0.5) * log_x
    half = 4.302653 * math.sqrt(residuals @ residuals / 2 / (log_x @ log_x))
    assert (fit.slope, fit.low, fit.high) == pytest.approx(
        (slope, slope - half, slope + half),
        abs=1e-6,  # seven digits of t
    )
    assert fit.miss == pytest.approx(math.exp(np.abs(residuals).max()))
    assert fit_power([2, 2], [1, 3]) is None
    two = fit_power([2, 4], [1, 2])
    assert two is not None
    assert math.isnan(two.low)
    bad = [1.0, math.nan, -1.0, math.inf]
    assert fit_power([1, 2, 3, 4], bad) is None


def test_medians_over_seeds_and_what_a_diverged_run_does_to_them() -> None:
    runs = [pd.Series(values) for values in ([4.0, 2.0, 1.0], [4.0, 3.0, 5.0], [4.0, 9.0])]
    plain = band(runs)
    assert plain.median.tolist() == [4.0, 3.0, 3.0]
    assert (plain.low.tolist(), plain.high.tolist()) == ([4.0, 2.0, 1.0], [4.0, 9.0, 5.0])
    ended = band(runs, [False, False, True])
    assert ended.median.tolist() == [4.0, 3.0, 5.0]  # the median of 1, 5 and infinity
    assert ended.high.tolist() == [4.0, 9.0, 5.0]
    both = band(runs, [True, False, True])
    assert both.median.tolist() == [4.0, 3.0, 5.0]
    most = band([pd.Series([1.0]), pd.Series([1.0]), pd.Series([1.0, 2.0])], [True, True, False])
    assert most.median.tolist() == [1.0, math.inf]
    assert most.thinned().median.tolist() == [1.0]
    assert median([1.0, math.inf, 2.0]) == 2.0
    assert median([1.0, math.inf, math.inf]) == math.inf
    assert math.isnan(median([]))
    assert sensitivity([3.0, 1.0, 2.0]) == pytest.approx(1.0)
