"""How an arm came to learn nothing, in the order of its steps, beside arms that learned."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.arms import RATE, WARMUP, Layout
from experiments.analysis.numbers import loss_text, median
from experiments.analysis.runs import PLACEMENT
from experiments.analysis.words import setting_words, three_digits, value_words
from experiments.report.facets import Facet, facets_of
from experiments.report.gradients import medians_of, ratios_of

UNEVEN = 10.0  # times as much gradient in the last block as in the first, or as little
ALIKE = 0.9  # cosine between different tokens whose states are nearly the same
Values = dict[int, np.ndarray]


@dataclass(frozen=True)
class Moment:
    """A sentence about a step, and the name of the figure that shows it."""

    words: str
    figure: str


@dataclass(frozen=True)
class Rescued:
    """An arm that learned, the setting in which it differs from the one that did not, and how."""

    facet: Facet
    setting: str
    words: str


@dataclass(frozen=True)
class Failure:
    """An arm that learned nothing, what was measured of it in order, and the most runs of one."""

    label: str
    moments: list[Moment]
    runs: int


def failure_of(layout: Layout) -> Failure | None:
    """The course of the arm that differs least from one that learned; None without such a pair."""
    facets = facets_of(layout)
    stuck = [facet for facet in facets if facet.arm.stuck == len(facet.arm.histories)]
    beside = [(facet, rescued_of(facet, facets, layout)) for facet in stuck]
    pairs = [(facet, learned) for facet, learned in beside if learned]
    if not pairs or not layout.unit.comparable:
        return None
    facet, learned = min(pairs, key=lambda pair: distance(pair[0], pair[1][0].facet, layout))
    makers = (at_start, first_update, when_uneven, most_uneven, tokens_alike, what_is_left)
    moments = [moment for make in makers if (moment := make(facet, learned)) is not None]
    runs = max(len(each.arm.histories) for each in (facet, *(other.facet for other in learned)))
    return Failure(facet.label, moments, runs)


def rescued_of(stuck: Facet, facets: Sequence[Facet], layout: Layout) -> list[Rescued]:
    """The nearest arm of the same placement that learned in every run, and one of another.

    Each differs in one setting alone. Empty without the first one.
    """
    learned = [f for f in facets if f.arm.learned == len(f.arm.histories)]
    near = [f for f in learned if len(different(stuck, f, layout)) == 1]
    same = [f for f in near if different(stuck, f, layout) != [PLACEMENT]]
    others = [f for f in near if f not in same]
    nearest = sorted(same, key=lambda facet: distance(stuck, facet, layout))
    chosen = [*nearest[:1], *others[:1]] if nearest else []
    return [rescued(stuck, facet, layout) for facet in chosen]


def rescued(stuck: Facet, facet: Facet, layout: Layout) -> Rescued:
    """An arm with the level in which it differs: with 60 steps of warm-up, Pre-LN."""
    (name,) = different(stuck, facet, layout)
    level = facet.arm.key[layout.factors.index(name)]
    return Rescued(
        facet, name, value_words(name, level) if name == PLACEMENT else setting_words(name, level)
    )


def different(one: Facet, other: Facet, layout: Layout) -> list[str]:
    """The factors in which two arms differ."""
    levels = zip(layout.factors, one.arm.key, other.arm.key, strict=True)
    return [name for name, level, own in levels if level != own]


def distance(one: Facet, other: Facet, layout: Layout) -> tuple[int, int]:
    """How far apart two arms are that differ in one factor: warm-up first, then the rate."""
    (name,) = different(one, other, layout)
    place, levels = layout.factors.index(name), layout.levels[name]
    steps = abs(levels.index(one.arm.key[place]) - levels.index(other.arm.key[place]))
    return {WARMUP: 0, RATE: 1}.get(name, 2), steps


def compared(
    stuck: Facet, learned: Sequence[Rescued], number_of: Callable[[Facet], float | None]
) -> tuple[str, str]:
    """A number of the arm, and in brackets those of the others that have it."""
    named = [(each.words, number_of(each.facet)) for each in learned]
    others = "; ".join(f"{words} {text(value)}" for words, value in named if value is not None)
    own = number_of(stuck)
    assert own is not None
    return text(own), f" ({others})" if others else ""


def text(value: float) -> str:
    """A number with two digits, a large one with three: 0.046, 0.7, 1.0, 18, 3,670."""
    if value >= 100:
        return three_digits(value)
    short = float(f"{value:.2g}")
    return f"{short:.1f}" if 1 <= short < 10 else f"{short:g}"


def ratio_at(step: int) -> Callable[[Facet], float | None]:
    """The last block's gradient over the first's at a step."""

    def ratio(facet: Facet) -> float | None:
        shown = ratios_of(facet)["shown"]
        return float(shown[step]) if step in shown.index else None

    return ratio


def probed(facet: Facet, name: str) -> Values:
    """The median over the runs of a statistic, by step and block."""
    tables = [h.probes[name] for h in facet.arm.histories if name in h.probes]
    if not tables:
        return {}
    medians = medians_of(tables)
    rows = zip(medians.index, medians.to_numpy(float), strict=True)
    return {int(step): row for step, row in rows if np.isfinite(row).all()}


def at_start(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """Whether the first and the last block began alike."""
    ratios = ratios_of(stuck)["shown"]
    if ratios.empty or ratios.index[0] != 0:
        return None
    found = compared(stuck, learned, ratio_at(0))
    begins = "It begins nearly even" if 0.5 <= ratios.iloc[0] <= 2 else "It begins uneven"
    return Moment(
        f"{begins}: at step 0 the last block gets {found[0]} times the gradient of the first"
        f"{found[1]}.",
        "gradient_ratio",
    )


def first_update(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """How much the first update that was probed changes the weights."""
    steps = probed(stuck, "update_ratio")
    if not steps or min(steps) != 0:
        return None

    def share(facet: Facet) -> float | None:
        row = probed(facet, "update_ratio").get(0)
        return None if row is None else 100 * float(np.median(row))

    found = compared(stuck, learned, share)
    words = f"The first update changes a block's weights by {found[0]} % of their norm{found[1]}."
    if learned[0].setting == WARMUP:
        words += " Warm-up lets the learning rate rise over its steps, so the first are small."
    return Moment(words, "update_ratio")


def when_uneven(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """The first step at which one end of the network gets hardly any gradient."""
    ratios = ratios_of(stuck)["shown"]
    uneven = ratios.index[np.abs(np.log(ratios)) >= math.log(UNEVEN)].tolist()
    if not uneven:
        return None
    found = compared(stuck, learned, ratio_at(uneven[0]))
    return Moment(
        f"At step {uneven[0]} the last block gets {found[0]} times the gradient of the first"
        f"{found[1]}.",
        "gradient_ratio",
    )


def most_uneven(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """How uneven the gradients became, and whether they came back."""
    own = course_of(stuck)
    if not own:
        return None
    courses = [(each.words, course_of(each.facet)) for each in learned]
    others = "; ".join(f"{words} {course}" for words, course in courses if course)
    return Moment(
        f"At its most uneven the last block gets {own}{f' ({others})' if others else ''}.",
        "gradient_ratio",
    )


def course_of(facet: Facet) -> str:
    """The ratio farthest from 1, its step, and the last ratio; empty where none was measured."""
    ratios = ratios_of(facet)["shown"]
    if ratios.empty:
        return ""
    at = np.abs(np.log(ratios)).idxmax()
    return f"{text(ratios[at])} times at step {at}, then {text(ratios.iloc[-1])} at the last step"


def tokens_alike(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """After which block the states of different tokens have become nearly the same at the end."""
    own = probed(stuck, "token_cosine")
    if len(own) < 2:
        return None
    first, step = min(own), max(own)
    tables = [probed(each.facet, "token_cosine") for each in learned]
    others = [t[step] for t in tables if step in t and len(t[step]) == len(own[step])]
    if not others:
        return None
    before = np.max([own[first], *others], axis=0)
    apart = np.where(own[step] >= ALIKE, own[step] - before, -math.inf)
    block = int(apart.argmax())
    if apart[block] < 1 - ALIKE:
        return None

    def cosine(facet: Facet) -> float | None:
        row = probed(facet, "token_cosine").get(step)
        return None if row is None or block >= len(row) else float(row[block])

    found = compared(stuck, learned, cosine)
    return Moment(
        f"At step {step} the states of different tokens after block {block + 1} are nearly the "
        f"same: their mean cosine is {found[0]}, at step {first} it was {text(own[first][block])}"
        f"{found[1]}. What comes after it reads nearly the same for each token.",
        "token_cosine",
    )


def what_is_left(stuck: Facet, learned: Sequence[Rescued]) -> Moment | None:
    """The loss, beside that of token frequencies alone."""
    alone = stuck.arm.histories[0].run.summary.corpus.unigram_validation_loss
    losses = [
        f"{each.words} {loss_text(median(each.facet.arm.final_losses()), 2)}" for each in learned
    ]
    own = loss_text(median(stuck.arm.final_losses()), 2)
    beside = f"; token frequencies alone give {loss_text(alone, 2)}" if alone else ""
    return Moment(f"It ends at {own} nats ({'; '.join(losses)}){beside}.", "loss")
