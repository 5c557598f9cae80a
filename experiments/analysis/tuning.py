"""Each arm at its best learning rate, and whether all arms had equal chances to find it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.analysis.arms import RATE, Arm, Key, Layout, label_of, numeric
from experiments.analysis.numbers import median, sensitivity
from experiments.analysis.runs import Value, sort_key

MOST_NAMED = 4  # arms named in a sentence; further ones are counted


@dataclass
class TunedArm:
    """The arms that differ in the learning rate alone.

    key    values of the other factors
    label  these values as text
    arms   by learning rate, sorted
    """

    key: Key
    label: str
    arms: dict[float, Arm]

    @cached_property
    def losses(self) -> dict[float, list[float]]:
        """min(final, initial) validation loss of each run, for the learning rates that have any."""
        by_rate = {rate: arm.capped_losses() for rate, arm in self.arms.items()}
        return {rate: losses for rate, losses in by_rate.items() if losses}

    @cached_property
    def medians(self) -> dict[float, float]:
        return {rate: median(losses) for rate, losses in self.losses.items()}

    @property
    def best(self) -> float | None:
        """The learning rate with the lowest median loss; None where no run has a loss."""
        return min(self.medians, key=lambda rate: self.medians[rate], default=None)

    @property
    def at_edge(self) -> bool:
        """Whether the best is the lowest or the highest learning rate with a loss.

        Then a better one may lie outside the grid.
        """
        return bool(self.losses) and self.best in (min(self.losses), max(self.losses))

    @property
    def has_learned(self) -> bool:
        """Whether a run learned at any learning rate."""
        return any(arm.learned for arm in self.arms.values())

    @property
    def failing(self) -> list[float]:
        """The learning rates at which a run ended without learning, which a median can hide."""
        return [rate for rate, arm in self.arms.items() if arm.not_learned]

    def sensitivity(self, rates: Sequence[float]) -> float | None:
        """LR sensitivity; None unless every one of `rates` has a loss that is finite.

        None also where fewer than two rates have one, and where no run learned: such an arm has no
        best learning rate from which another could differ.
        """
        if len(self.medians) < 2 or not self.has_learned:
            return None
        if set(self.medians) < set(rates) or math.inf in self.medians.values():
            return None
        return sensitivity(list(self.medians.values()))

    def describe_best(self) -> str:
        """The best learning rate, and whether it is at the edge of the grid."""
        return f"lr {self.best:g}" + (", the grid's edge" if self.at_edge else "")

    def all_runs(self) -> Arm:
        """Its runs of all learning rates as one arm."""
        return Arm(self.key, self.label, [h for arm in self.arms.values() for h in arm.histories])


def tune(layout: Layout) -> list[TunedArm]:
    """Every arm with its learning rates; an empty list where they do not vary."""
    rates = numeric(layout.levels.get(RATE, []))
    if len(rates) < 2:
        return []
    names = [name for name in layout.factors if name != RATE]
    indices = [layout.factors.index(name) for name in names]
    groups: dict[Key, dict[float, Arm]] = {}
    for key, arm in layout.by_key.items():
        rate = key[layout.factors.index(RATE)]
        if rate in rates:
            group = groups.setdefault(tuple(key[index] for index in indices), {})
            group[float(rate)] = arm
    tuned = []
    for key, arms in groups.items():
        label = label_of(names, key, [h for arm in arms.values() for h in arm.histories])
        tuned.append(TunedArm(key, label, dict(sorted(arms.items()))))
    return tuned


def layout_at_best(layout: Layout) -> Layout:
    """The layout with every arm at its best learning rate alone."""
    names = [name for name in layout.factors if name != RATE]
    arms = [
        Arm(tuned.key, f"{tuned.label}, lr {tuned.best:g}", tuned.arms[tuned.best].histories)
        for tuned in tune(layout)
        if tuned.best is not None
    ]
    return Layout(arms, names)


def describe_grids(tuned_arms: Sequence[TunedArm]) -> str:
    """The learning rates and seeds that have losses, and which arms have others than most."""
    labels_by_grid: dict[str, list[str]] = {}
    for tuned in tuned_arms:
        labels_by_grid.setdefault(describe_grid(tuned), []).append(tuned.label)
    if len(labels_by_grid) == 1:
        return f"Every arm had {next(iter(labels_by_grid))}."
    usual = max(labels_by_grid, key=lambda grid: len(labels_by_grid[grid]))
    others = [
        f"{grid} ({name_some(labels)})" for grid, labels in labels_by_grid.items() if grid != usual
    ]
    share = f"{len(labels_by_grid[usual])} of {len(tuned_arms)} arms"
    unequal = "The arms did not have the same learning rates and seeds"
    return f"{unequal}: {usual} ({share}), but {'; '.join(others)}."


def describe_grid(tuned: TunedArm) -> str:
    """An arm's learning rates and seeds, of the runs that have a loss."""
    rates_by_seeds: dict[str, list[float]] = {}
    for rate, arm in tuned.arms.items():
        seeds = sorted(
            (h.run.seed for h in arm.histories if h.capped_loss is not None), key=sort_key
        )
        rates_by_seeds.setdefault(describe_seeds(seeds), []).append(rate)
    return " and ".join(
        f"{seeds} at lr {', '.join(f'{rate:g}' for rate in rates)}"
        for seeds, rates in rates_by_seeds.items()
    )


def describe_seeds(seeds: Sequence[Value]) -> str:
    """The seeds of runs; only the number of runs where seeds repeat, since runs are pooled."""
    if len(set(seeds)) < len(seeds):
        return f"{len(seeds)} runs"
    if not seeds:
        return "no loss"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def name_some(labels: Sequence[str]) -> str:
    """The first MOST_NAMED labels, and the number of the others."""
    named = [*labels[:MOST_NAMED]]
    if len(labels) > MOST_NAMED:
        named.append(f"{len(labels) - MOST_NAMED} more arms")
    return "; ".join(named)
