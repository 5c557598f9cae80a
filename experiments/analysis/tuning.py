"""Each arm at its best learning rate, and whether all arms had the same chance to find it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.analysis.arms import RATE, Arm, Key, Layout, label_of, numeric
from experiments.analysis.numbers import median, sensitivity
from experiments.analysis.runs import sort_key

MOST_NAMED = 4  # arms in a sentence


@dataclass
class Tuned:
    """An arm over everything but the learning rate.

    key    values of the other factors
    label  these in words
    arms   by learning rate, in order
    """

    key: Key
    label: str
    arms: dict[float, Arm]

    @cached_property
    def losses(self) -> dict[float, list[float]]:
        """min(final, initial) validation loss of each run, where there is any."""
        found = {rate: arm.capped_losses() for rate, arm in self.arms.items()}
        return {rate: losses for rate, losses in found.items() if losses}

    @cached_property
    def medians(self) -> dict[float, float]:
        return {rate: median(losses) for rate, losses in self.losses.items()}

    @property
    def best(self) -> float | None:
        """The learning rate with the least median; None where no run has a loss."""
        return min(self.medians, key=lambda rate: self.medians[rate], default=None)

    @property
    def at_edge(self) -> bool:
        """Whether the best is the least or the greatest learning rate that gave a loss."""
        return bool(self.losses) and self.best in (min(self.losses), max(self.losses))

    def sensitivity(self, rates: Sequence[float]) -> float | None:
        """LR sensitivity; None unless every one of `rates` gave a loss."""
        if set(self.medians) < set(rates):
            return None
        return sensitivity(list(self.medians.values()))

    def where(self) -> str:
        """The best learning rate in words."""
        return f"lr {self.best:g}" + (", the grid's edge" if self.at_edge else "")

    def together(self) -> Arm:
        """All its runs, whatever their learning rate."""
        return Arm(self.key, self.label, [h for arm in self.arms.values() for h in arm.histories])


def tune(layout: Layout) -> list[Tuned]:
    """Every arm over its learning rates; none where they are not swept."""
    rates = numeric(layout.levels.get(RATE, []))
    if len(rates) < 2:
        return []
    names = [name for name in layout.factors if name != RATE]
    places = [layout.factors.index(name) for name in names]
    groups: dict[Key, dict[float, Arm]] = {}
    for key, arm in layout.by_key.items():
        rate = key[layout.factors.index(RATE)]
        if rate in rates:
            group = groups.setdefault(tuple(key[place] for place in places), {})
            group[float(rate)] = arm
    tuned = []
    for key, arms in groups.items():
        label = label_of(names, key, [h for arm in arms.values() for h in arm.histories])
        tuned.append(Tuned(key, label, dict(sorted(arms.items()))))
    return tuned


def at_best(layout: Layout) -> Layout:
    """Every arm at its best learning rate alone."""
    names = [name for name in layout.factors if name != RATE]
    arms = [
        Arm(one.key, f"{one.label}, lr {one.best:g}", one.arms[one.best].histories)
        for one in tune(layout)
        if one.best is not None
    ]
    return Layout(arms, names)


def budget(tuned: Sequence[Tuned]) -> str:
    """The learning rates and seeds that gave losses, and in which arms they are others."""
    grids: dict[str, list[str]] = {}
    for one in tuned:
        grids.setdefault(grid_words(one), []).append(one.label)
    if len(grids) == 1:
        return f"Every arm had {next(iter(grids))}."
    most = max(grids, key=lambda words: len(grids[words]))
    others = [f"{words} ({name_some(labels)})" for words, labels in grids.items() if words != most]
    usual = f"{most} ({len(grids[most])} of {len(tuned)} arms)"
    return f"The arms did not have equal budgets: {usual}, but {'; '.join(others)}."


def grid_words(one: Tuned) -> str:
    """An arm's learning rates and seeds, as far as they gave a loss."""
    seeds = {
        rate: sorted((h.run.seed for h in arm.histories if h.capped_loss is not None), key=sort_key)
        for rate, arm in one.arms.items()
    }
    by_seeds: dict[str, list[float]] = {}
    for rate, each in seeds.items():
        words = f"seed{'s' if len(each) > 1 else ''} {', '.join(map(str, each)) or 'none'}"
        if len(set(each)) < len(each):  # pooled over other settings
            words = f"{len(each)} runs"
        by_seeds.setdefault(words, []).append(rate)
    return " and ".join(
        f"{words} at lr {', '.join(f'{rate:g}' for rate in rates)}"
        for words, rates in by_seeds.items()
    )


def name_some(labels: Sequence[str]) -> str:
    """Some arms by name, the rest by number."""
    shown = [*labels[:MOST_NAMED]]
    if len(labels) > MOST_NAMED:
        shown.append(f"{len(labels) - MOST_NAMED} more arms")
    return "; ".join(shown)
