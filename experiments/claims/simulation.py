"""How often the rule gives a wrong verdict, found by simulation where the truth is known."""

import functools
from collections.abc import Callable

import numpy as np
from scipy import stats

from experiments.claims.rule import ALPHAS, LOOKS, mean_interval, share_interval

BOARDS = 20_000
# Of the rule of version 0.4: three seeds, Student's t with 95 %; and a claim that was put again
# where it did not come out.
BEFORE_SEEDS, BEFORE_LEVEL, BEFORE_TRIALS = 3, 0.95, 3

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def lognormal(random: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Less its mean."""
    return np.exp(sigma * random.standard_normal(shape)) - np.exp(sigma**2 / 2)


# Seeds of which the true mean is 0, or which go one way as often as the other.
MEANS: dict[str, Draw] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "uniform": lambda random, shape: random.uniform(-1, 1, shape),
    "heavy tails (t, 3 degrees of freedom)": lambda random, shape: random.standard_t(3, shape),
    "skewed (gamma, skewness 1)": lambda random, shape: random.gamma(4, size=shape) - 4,
    "skewed (log-normal, skewness 1.75)": functools.partial(lognormal, sigma=0.5),
    "skewed (exponential, skewness 2)": lambda random, shape: random.exponential(size=shape) - 1,
    "skewed (log-normal, skewness 6.2)": functools.partial(lognormal, sigma=1.0),
}
SHARES: dict[str, Draw] = {
    "binary, paired (half of the seeds differ)": lambda random, shape: random.choice(
        [-1, 0, 0, 1], shape
    ),
    "binary, paired (all seeds differ)": lambda random, shape: random.choice([-1, 1], shape),
}


def false_verdicts(seed: int = 0, boards: int = BOARDS) -> dict[str, tuple[float, float]]:
    """The share of boards with a wrong verdict, by this rule and by the one of version 0.4.

    Nothing is to be found, so that every verdict for a direction is wrong. A board is wrong if any
    look is. Before: if any of three trials of three seeds was; of binary outcomes, if all three
    seeds agreed, which has an interval of no width.
    """
    random = np.random.default_rng(seed)
    found = {}
    for name, draw in {**MEANS, **SHARES}.items():
        values = draw(random, (boards, LOOKS[-1])).astype(float)
        intervals = mean_intervals if name in MEANS else paired_intervals
        wrong = np.zeros(boards, dtype=bool)
        null = 0.0 if name in MEANS else 0.5
        for look, alpha in ALPHAS.items():
            low, high = intervals(values[:, :look], alpha)
            wrong |= (low > null) | (high < null)
        found[name] = float(wrong.mean()), before(values)
    return found


def mean_intervals(values: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule's intervals of the mean of each row."""
    return mean_interval(values, alpha)


def paired_intervals(values: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The rule's intervals, in each row, of the share of the first arm among seeds that differ."""
    exact = functools.cache(share_interval)
    first, differing = (values > 0).sum(1), (values != 0).sum(1)
    bounds = np.array([exact(int(a), int(b), alpha) for a, b in zip(first, differing, strict=True)])
    return bounds[:, 0], bounds[:, 1]


def before(values: np.ndarray) -> float:
    """The share of wrong verdicts under the rule of version 0.4."""
    wrong = np.zeros(len(values), dtype=bool)
    quantile = stats.t.ppf((1 + BEFORE_LEVEL) / 2, BEFORE_SEEDS - 1)
    for trial in range(BEFORE_TRIALS):
        seeds = values[:, trial * BEFORE_SEEDS : (trial + 1) * BEFORE_SEEDS]
        half_width = quantile * seeds.std(1, ddof=1) / BEFORE_SEEDS**0.5
        wrong |= np.abs(seeds.mean(1)) > half_width
    return float(wrong.mean())


def markdown() -> str:
    """The table of the simulation, in Markdown."""
    lines = [
        f"| seeds are, without any effect | wrong verdicts, all looks | before: {BEFORE_TRIALS} "
        f"trials of {BEFORE_SEEDS} seeds |",
        "| --- | --- | --- |",
    ]
    for name, (now, then) in false_verdicts().items():
        lines.append(f"| {name} | {now:.3f} | {then:.3f} |")
    return "\n".join(lines) + "\n"
