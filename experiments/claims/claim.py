"""Claims: published statements as predictions about numbers that are measured once per seed.

A prediction is of one of three kinds:

    law   a number lies in a region
    sign  a number exceeds a margin, which is 0 or the least effect that matters
    rate  a share of seeds lies in a region; or, of paired seeds, those in which only the first arm
          succeeded outnumber those in which only the second did

`experiments.claims.rule` judges them. A control is a prediction of the same form that must hold, or
the measurement could not have shown what it was made to show.
"""

import ast
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from experiments.analysis.verdicts import (  # noqa: F401 - for the modules with the claims, too
    BLOCKS,
    DISTANCES,
    GPT_LAW,
    LAW,
    RATE,
    SIGN,
    THEOREM,
    TRAINING,
)
from gpt.registry import Registry

# How the text of a claim was read. What nobody could read gets no verdict.
UNREAD = "not read"
READ = ("paper", "official code", "abstract", "secondary source", UNREAD)

# Of a Lab and a seed. The lab's module imports this one, so its type cannot be named here.
Measure = Callable[[Any, int], "Evidence"]


@dataclass(frozen=True)
class Source:
    """The source of a statement: the paper, its arXiv number, the place in it, how it was read."""

    paper: str
    arxiv: str = ""
    where: str = ""
    read: str = "paper"

    def __post_init__(self) -> None:
        assert self.read in READ, self.read


OWN = Source("this project")


@dataclass(frozen=True)
class Prediction:
    """What a claim says of one number. Without a kind the number is shown, and not judged.

    name        of the number, with its unit
    text        the prediction in words
    low, high   the region of a law, or of a share
    margin      of a sign: effects between -margin and +margin count as none
    is_paired   of a rate: the values are 1, 0 or -1 where only the first arm succeeded, both or
                neither did, only the second did
    is_control  whether the claim's test is invalid where it fails
    """

    name: str
    text: str = ""
    kind: str = ""
    low: float = -math.inf
    high: float = math.inf
    margin: float = 0.0
    is_paired: bool = False
    is_control: bool = False

    @property
    def is_directed(self) -> bool:
        """Whether it names a direction, so that the opposite can come out."""
        return self.kind == SIGN or self.is_paired


def law(name: str, text: str, low: float = -math.inf, high: float = math.inf) -> Prediction:
    """`low` <= number <= `high`."""
    return Prediction(name, text, LAW, low, high)


def sign(name: str, text: str, margin: float = 0.0) -> Prediction:
    """Number > `margin`."""
    return Prediction(name, text, SIGN, margin=margin)


def rate(name: str, text: str, low: float = 0.0, high: float = 1.0) -> Prediction:
    """`low` <= share of the seeds with value 1 <= `high`; the others have value 0."""
    return Prediction(name, text, RATE, low, high)


def paired_rate(name: str, text: str) -> Prediction:
    """Of the seeds in which one arm alone succeeds, it is the first in more than a half."""
    return Prediction(name, text, RATE, 0.5, 1.0, is_paired=True)


def control(prediction: Prediction) -> Prediction:
    """The prediction as one that must hold for the test to be valid."""
    return replace(prediction, is_control=True)


def shown(name: str, text: str = "") -> Prediction:
    """A number that is shown beside the judged ones."""
    return Prediction(name, text)


@dataclass(frozen=True)
class AxisLabels:
    """Labels of a claim's figure, on which a law should be a line.

    Without x the arms stand side by side. `log_x` and `log_y` are for power laws.
    """

    y: str
    x: str = ""
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Guide:
    """What is predicted, drawn into the figure of a claim.

    label  in the legend
    of     y as a function of x, and of y_0, the mean of the arm `arm` at its first x, x_0; a band
           has `to`, its upper bound
    arm    "" where nothing is anchored (x_0 = y_0 = 1)
    """

    label: str
    of: Callable[[float, float, float], float]
    to: Callable[[float, float, float], float] | None = None
    arm: str = ""


def power(label: str, exponent: float, arm: str) -> Guide:
    """y_0 (x / x_0)^exponent: a line on two log scales."""
    return Guide(label, lambda x, x_0, y_0: y_0 * (x / x_0) ** exponent, arm=arm)


def level(label: str, height: float) -> Guide:
    """A horizontal line."""
    return Guide(label, lambda *_: height)


def band(label: str, low: Callable[[float], float], high: Callable[[float], float]) -> Guide:
    """The region between two bounds, which are functions of x."""
    return Guide(label, lambda x, *_: low(x), lambda x, *_: high(x))


@dataclass(frozen=True)
class Point:
    """One measured value of one arm, at x (nan where arms have no x)."""

    arm: str
    x: float
    value: float


@dataclass
class Evidence:
    """What a claim's measurement gives under one seed.

    values  the number of each prediction, by its name
    points  to draw
    """

    values: dict[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    def curve(self, arm: str, xs: Iterable[float], ys: Iterable[float]) -> None:
        """Add the points of an arm."""
        self.points += [Point(arm, float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


@dataclass(frozen=True)
class Claim:
    """One statement of one paper: source, measurement, predictions.

    title       the statement as a sentence
    statement   the paper's own statement, in full, in our words
    setting     of the measurement
    distance    of the setting from the paper's (DISTANCES)
    meaning     what follows for somebody who trains models
    remark      written after the measurement: reasons for the result, and earlier predictions
    """

    name: str
    block: str
    title: str
    source: Source
    statement: str
    setting: str
    distance: str
    predictions: tuple[Prediction, ...]
    axes: AxisLabels
    guides: tuple[Guide, ...]
    measure: Measure
    meaning: str = ""
    remark: str = ""

    @property
    def trains(self) -> bool:
        return self.block == TRAINING

    @property
    def own(self) -> bool:
        """Whether it is a finding of this project that no paper has."""
        return self.source is OWN

    @property
    def judged(self) -> tuple[Prediction, ...]:
        """The predictions of the statement; without controls and numbers that are only shown."""
        return tuple(p for p in self.predictions if p.kind and not p.is_control)

    @property
    def hash(self) -> str:
        """Of what is registered: the predictions, the setting, and the measurement's code.

        Formatting, comments and docstring of the code do not count, nor does its decorator, which
        holds remarks that are written later. A change in what the code calls is not seen: the
        record of a board names the commit it was run from.
        """
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(self.measure))).body
        assert isinstance(function, ast.FunctionDef)
        has_docstring = ast.get_docstring(function) is not None
        code = [ast.dump(part) for part in function.body[has_docstring:]]
        predictions = [asdict(prediction) for prediction in self.predictions]
        text = json.dumps([self.name, self.block, self.setting, predictions, code])
        return hashlib.sha256(text.encode()).hexdigest()


CLAIMS: Registry[Claim] = Registry("claims.only")


def claim(
    name: str,
    *,
    block: str,
    title: str,
    source: Source,
    statement: str,
    setting: str,
    distance: str,
    predictions: Iterable[Prediction],
    axes: AxisLabels,
    guides: Iterable[Guide] = (),
    meaning: str = "",
    remark: str = "",
) -> Callable[[Measure], Measure]:
    """Decorator that makes a measurement the claim `name`, in CLAIMS."""
    assert name not in CLAIMS, name
    assert block in BLOCKS, block
    assert distance in DISTANCES, distance

    def register(measure: Measure) -> Measure:
        CLAIMS[name] = Claim(
            name,
            block,
            title,
            source,
            statement,
            setting,
            distance,
            tuple(predictions),
            axes,
            tuple(guides),
            measure,
            meaning,
            remark,
        )
        return measure

    return register


def guide_points(
    guide: Guide, points: Mapping[str, Mapping[float, float]]
) -> list[tuple[float, float, float]]:
    """(x, y, upper y or nan) of a guide at every x of the claim's points.

    points  mean of each arm, by x
    """
    anchor = points.get(guide.arm, {})
    x_0 = min(anchor, default=1.0)
    y_0 = anchor.get(x_0, 1.0)
    xs = sorted(anchor or {x for arm in points.values() for x in arm if not math.isnan(x)})
    xs = xs or [math.nan]
    return [(x, guide.of(x, x_0, y_0), guide.to(x, x_0, y_0) if guide.to else math.nan) for x in xs]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in ln x: the exponent of a power law."""
    return log_slope(np.log(x).tolist(), y)


def log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least-squares slope of ln y in x: the rate of an exponential."""
    with np.errstate(divide="ignore"):  # the logarithm of 0 makes the slope nan
        logs = np.log(y)
    return float(np.polyfit(x, logs, 1)[0]) if np.isfinite(logs).all() else math.nan
