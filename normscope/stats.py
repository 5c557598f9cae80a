"""The catalogue: every statistic that can be measured, described where it is measured.

A statistic is a small function at a `Point`: it gets what the point gives and returns one value.
The same decorator puts it into the rows, the catalogue, docs/measurements.md and, where `drawn`
names a component, among the figures of a report:

    @ACTIVATIONS.measures(
        "activation_mean_abs",
        "sum abs(x) / n",
        "mean magnitude",
        axis="mean magnitude of the stream after the block",
        drawn="output",
    )
    def activation_mean_abs(x: Tensor) -> Tensor:
        return x.float().abs().mean()
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

Measure = TypeVar("Measure", bound=Callable[..., Any])

# When a statistic is measured, and how a heading says it.
MOMENTS = {
    "step": "On a probed step",
    "update": "Around the update of a probed step",
    "end": "At the end",
    "mixing": "With trainer.mixing, before the first step and at the end, into mixing.csv",
    "untrained": "Without training",
}


class Row(NamedTuple):
    """One value measured at one place of a model, see `normscope.anatomy.Place`.

    `block` as component stands for all parameters of a block together, and the name of a parameter
    inside its layer, such as `feed_forward.fc_out.weight`, for that tensor alone.
    """

    layer: int
    component: str
    stat: str
    value: float


@dataclass(frozen=True)
class Statistic:
    """An entry of the catalogue.

    name      as in the column `stat`
    equation  with the letters of its point
    words     what it is, in the middle of a sentence
    of        the components of which it is measured, as in the column `component`
    moment    when, a key of MOMENTS
    axis      label of a figure's axis; by default the equation
    title     of a figure; by default the words, by layer
    scale     of a figure's axis; linear where values may be 0, or below
    shows     values that a figure's axis always has, such as a natural 0
    drawn     the component that a report draws over the blocks; None: no such figure
    live      whether it is followed while a run goes on, as in W&B, or stands in the files alone
    source    where it comes from
    suffix    a regular expression for what may follow the name
    measure   the function, None for what a caller computes by itself
    finish    what is left to do once the value has left the device
    """

    name: str
    equation: str
    words: str
    of: tuple[str, ...]
    moment: str
    axis: str
    title: str
    scale: Literal["log", "linear"] = "log"
    shows: tuple[float, ...] = ()
    drawn: str | None = None
    live: bool = True
    source: str = ""
    suffix: str = ""
    measure: Callable[..., Any] | None = None
    finish: Callable[[float], float] = float

    def describes(self, stat: str) -> bool:
        """Whether `stat`, of a row, is this statistic, with a suffix or without."""
        return re.fullmatch(re.escape(self.name) + f"({self.suffix})?", stat) is not None


class Point:
    """Where in a measurement functions of the same arguments stand, and what they measure.

    moment  when, a key of MOMENTS
    of      the components of which there is a value each
    given   what a function is given, as a heading; the letters of its equation
    remark  what holds for all of them
    suffix  a regular expression for what may follow a statistic's name
    """

    def __init__(
        self, moment: str, of: tuple[str, ...], given: str, remark: str = "", suffix: str = ""
    ) -> None:
        self.moment, self.of, self.given, self.remark = moment, of, given, remark
        self.suffix = suffix
        self.statistics: dict[str, Statistic] = {}

    def measures(
        self, name: str, equation: str, words: str, **entry: Any
    ) -> Callable[[Measure], Measure]:
        """Decorator: the function is what measures the statistic; None stands for "not measured".

        entry  more of `Statistic`
        """

        def register(measure: Measure) -> Measure:
            self.describe(name, equation, words, measure=measure, **entry)
            return measure

        return register

    def describe(self, name: str, equation: str, words: str, **entry: Any) -> None:
        """Enter a statistic into the catalogue."""
        of_all = {"of": self.of, "moment": self.moment, "suffix": self.suffix}
        by_default = {"axis": equation, "title": f"{words[:1].upper()}{words[1:]} by layer"}
        self.statistics[name] = Statistic(name, equation, words, **of_all | by_default | entry)

    def values(self, *given: Any) -> Iterator[tuple[str, Any]]:
        """Name and value of each statistic that is measured of what is given."""
        for statistic in self.statistics.values():
            assert statistic.measure is not None
            value = statistic.measure(*given)
            if value is not None:
                yield statistic.name, value

    def rows(self, given: Mapping[tuple[int, str], tuple[Any, ...]]) -> list[Row]:
        """Each statistic in turn at every place, (layer, component), of what is given there."""
        by_place = {place: dict(self.values(*there)) for place, there in given.items()}
        return [
            Row(*place, stat, values[stat])
            for stat in self.statistics
            for place, values in by_place.items()
            if stat in values
        ]


PARAMETERS = (
    "token_embedding",
    "position_embedding",
    "entry",
    "attention",
    "feed_forward",
    "norm",
    "placement",
    "block",
    "final_norm",
    "head",
)
UNIT = (
    "These depend on the unit in which the stream is written: dividing it by sqrt(k) after block k "
    "changes them and nothing else. Compare them within one placement, or as ratios; the "
    "gradients of parameters do not depend on it."
)

GRADIENTS = Point(
    "step",
    (*PARAMETERS, "each tensor"),
    "Gradients of parameters: G, the gradient of all parameters of a component, n their number",
    "Taken after accumulation and before clipping, on every logged step too, but of single tensors "
    "on probed steps alone. A parameter that had no part in the loss has a gradient of 0.",
)
ACTIVATIONS = Point(
    "step",
    (
        "input",
        "attention",
        "feed_forward",
        "added_1",
        "sum_1",
        "added_2",
        "sum_2",
        "output",
    ),
    "Activations: x (B, T, emb_dim), a tensor of a block, n the number of its elements",
    "`input` and `output` are the stream before and after the block; `attention` and "
    "`feed_forward` are what the branch's module gives; `added_1` and `added_2` are f, which the "
    "sublayer adds (the branch, after a norm on its output if there is one); `sum_1` and `sum_2` "
    "are x + f before any norm, whose size Lemma 2 of Xiong et al. 2020, arXiv 2002.04745, bounds. "
    + UNIT,
)
SUMS = Point(
    "step",
    ("attention", "feed_forward"),
    "Sums: x + f, where a branch adds f to x",
    "x is taken after the shortcut's scale, if it has one. Absent where the shortcut is off.",
)
ATTENTION = Point(
    "step",
    ("attention",),
    "Attention: logits and weights p (B, heads, T, T)",
    "Of attention modules that offer `scores(x)`, as this project's do. Where a window bounds what "
    "a token sees, that is what is visible; weights of which a sink takes a part are divided by "
    "their sum. Of models of the library "
    'transformers with `attn_implementation="eager"` the entropy, where no token is padding.',
)
EXPERTS = Point(
    "step",
    ("feed_forward",),
    "Experts: s (E,), of the choices that the tokens make, the share of each of E experts",
    "Of mixtures of experts that offer `load(x)` beside their `router`, as this project's do. A "
    "token that is sent to several experts makes as many choices.",
)
EACH_EXPERT = Point(
    "step",
    ("each expert",),
    "Each expert: its share s_e of the choices, and the number E of experts",
    "The component of expert e = 0 .. E - 1 is `feed_forward.expert_e`.",
)
STREAMS = Point(
    "step",
    ("input", "output"),
    "The stream: x (B, T, emb_dim), before and after a block, n the number of its elements",
    "These do not depend on the unit in which the stream is written.",
)
STREAM_GRADIENTS = Point(
    "step",
    ("input", "output"),
    "Gradients of the stream: g (B, T, emb_dim), of the mean loss by the stream there",
    UNIT,
)
STREAM_PAIRS = Point(
    "step",
    ("block",),
    "Pairs of streams: x, a block's input, and y, its output (B, T, emb_dim)",
    "With `_n` at the end of the name, y is the output n blocks further, n = 2, 4, 8, ...: of the "
    "first of these blocks, as long as n blocks remain.",
    suffix=r"_\d+",
)
UPDATES = Point(
    "update",
    (*PARAMETERS, "each tensor"),
    "Updates: W, the parameters of a component before the optimizer's step, and W' after it",
)
DROPPED_BLOCKS = Point(
    "end",
    ("block",),
    "Without a block: the validation loss with the identity in a block's place",
    "The identity is one on the block's state, which may hold two streams.",
)
WINDOWS = Point(
    "end",
    PARAMETERS,
    "Gradients of single windows: g_i, the gradient of the loss of window i = 1 .. W",
    "The mean of the norms is at least the norm of the mean, and far above it where the windows "
    "pull in different directions.",
)
MIXING = Point(
    "mixing",
    ("sum_1", "sum_2", "output", "final_norm"),
    "Depth mixing: s (B, T, emb_dim), a state of the stream, and t, the term of it that one source "
    "wrote",
    "With the statistics of all norms frozen as the forward pass found them, a norm is an affine "
    "map, and s is the sum of its terms. The columns `source_layer` and `source` say who wrote t: "
    "`attention` or `feed_forward` of a block; of layer -1 `embedding`, what enters the first "
    "block, and `norm_shifts`, what is left of the shifts b of all norms. What a branch wrote is "
    "what it gave, after the norm on its output if there is one, whose shift stands with the "
    "others. An elementwise norm, such as dyt, scales each element by what it made of it, its "
    "value at 0 being its shift. `sum_1` and `sum_2` are x + f before any norm, `output` is the "
    "stream after the block, and `final_norm`, of layer L, what the head reads, of both streams "
    "where there are two.",
)
UNTRAINED = Point(
    "untrained",
    (*PARAMETERS, "each tensor"),
    "Gradients at initialisation: G, the gradient of all parameters of a component, n their number",
    "Recorded at step 0 by the experiments that are named.",
)

POINTS = (
    GRADIENTS,
    ACTIVATIONS,
    SUMS,
    ATTENTION,
    EXPERTS,
    EACH_EXPERT,
    STREAMS,
    STREAM_GRADIENTS,
    STREAM_PAIRS,
    UPDATES,
    DROPPED_BLOCKS,
    WINDOWS,
    MIXING,
    UNTRAINED,
)


def catalogue() -> list[Statistic]:
    """Every statistic, in the order in which a run measures them."""
    return [statistic for point in POINTS for statistic in point.statistics.values()]


def drawn() -> list[Statistic]:
    """Those that a report draws over the blocks."""
    return [statistic for statistic in catalogue() if statistic.drawn is not None]


def described(stat: str) -> Statistic:
    """The entry of `stat` as it stands in a row. Raises KeyError where there is none."""
    for statistic in catalogue():
        if statistic.describes(stat):
            return statistic
    raise KeyError(stat)
