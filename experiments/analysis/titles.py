"""Titles of runs and comparisons, in words."""

import math
import re
from collections.abc import Mapping, Sequence

from experiments.analysis.arms import RATE, WARMUP, Arm, Key, Layout, numeric
from experiments.analysis.paper_figures import PAPER_FIGURES
from experiments.analysis.runs import CHANGE, MODEL, PLACEMENT, Run, Value, sort_key
from experiments.analysis.words import (
    count_words,
    join_words,
    noun_of,
    number_words,
    placement_words,
    setting_words,
    value_words,
)
from gpt import PLACEMENTS

MOST_IN_TITLE = 4  # levels of one factor; more are counted


def title_of(layout: Layout, arms: Sequence[Arm]) -> str:
    """What was compared: `Pre-LN and Post-LN with and without warm-up`.

    Of a single run or of one arm, what it is: `Post-LN, 8 blocks, 400 steps`.
    """
    if layout.factors:
        title = title_of_sizes(layout) or title_of_factors(layout, arms)
    else:
        title = title_of_arm(arms[0])
    return title[:1].upper() + title[1:]


def runs_of(arms: Sequence[Arm]) -> list[Run]:
    """The runs of all arms."""
    return [history.run for arm in arms for history in arm.histories]


def shared(runs: Sequence[Run], name: str) -> Value:
    """A setting's value where all runs have the same one; None else."""
    values = {run.settings.get(name) for run in runs}
    return values.pop() if len(values) == 1 else None


# Titles


def title_of_arm(arm: Arm) -> str:
    """Placement, size and length of runs that differ in the seed alone."""
    runs = runs_of([arm])
    runner, placement = (shared(runs, name) for name in ("runner", PLACEMENT))
    if runner == "paper_figure":
        return title_of_paper(str(shared(runs, "paper_figure.name")))
    blocks, steps = (shared(runs, name) for name in ("model.n_layers", "trainer.steps"))
    parts = [placement_words(str(placement)) if placement else arm.label]
    if warmup_is_unusual(runs):
        parts[0] += " without warm-up"
    if isinstance(blocks, int):
        parts.append(count_words(blocks, "block"))
    if isinstance(steps, int) and runner in ("train", None):
        parts.append(count_words(steps, "step"))
    if len(runs) > 1:
        parts.append(count_words(len(runs), "run" if arm.pooled_settings() else "seed"))
    opening = OPENINGS.get(str(runner), "")
    return opening + ", ".join(parts) if runner not in ALONE else ALONE[str(runner)]


def title_of_paper(name: str) -> str:
    """The paper and its figure; the bare name of one that only another version knows."""
    return f"{PAPER_FIGURES[name].paper}, measured again" if name in PAPER_FIGURES else name


# Of runners that measure no model of the settings, and of those that do not train it.
ALONE = {
    "activations": "Activations and their derivatives",
    "shortcut": "Gradients with and without shortcuts",
    "model_sizes": "Published sizes",
    "claims": "Published claims",
    "generate": "A text",
    "export": "A model for other libraries",
}
OPENINGS = {
    "init_gradients": "Gradients at initialisation: ",
    "parameters": "Parameters: ",
    "memory": "Memory of a step: ",
}


def warmup_is_unusual(runs: Sequence[Run]) -> bool:
    """Whether they trained without the warm-up that is the default."""
    return shared(runs, "runner") in ("train", None) and shared(runs, WARMUP) == 0


def title_of_factors(layout: Layout, arms: Sequence[Arm]) -> str:
    """The placements, or the one that all share, and what else varies.

    Where the placements were not all run with the same values, each with its own: `Post-LN with and
    without warm-up, and Pre-LN without`.
    """
    runs = runs_of(arms)
    opening = OPENINGS.get(str(shared(runs, "runner")), "")
    others = sorted((name for name in layout.factors if name != PLACEMENT), key=title_rank)
    if PLACEMENT not in layout.factors:
        placement = shared(runs, PLACEMENT)
        head = placement_words(str(placement)) if placement else "All runs"
        return opening + head + phrases_of(others, layout.levels) + not_all(layout)
    groups = grids_of(layout)
    if groups is None or len(groups) == 1:
        head = level_words(PLACEMENT, layout.levels[PLACEMENT])
        return opening + head + phrases_of(others, layout.levels) + not_all(layout)
    same = [name for name in others if len({str(levels[name]) for levels, _ in groups}) == 1]
    own = [name for name in others if name not in same]
    parts = [level_words(PLACEMENT, names) + phrases_of(own, of) for of, names in groups]
    if parts[0].endswith(" with and without warm-up"):
        parts[1:] = [re.sub(" without warm-up$", " without", part) for part in parts[1:]]
    return opening + ", and ".join(parts) + ("," if same else "") + phrases_of(same, layout.levels)


def grids_of(layout: Layout) -> list[tuple[dict[str, list[Value]], list[Value]]] | None:
    """Placements by the levels of the other factors with which they were run, the most first.

    None where there are more than two such groups, or one was not run with all combinations.
    """
    place = layout.factors.index(PLACEMENT)
    keys: dict[Value, set[Key]] = {}
    for key in layout.by_key:
        keys.setdefault(key[place], set()).add(key[:place] + key[place + 1 :])
    grids: dict[frozenset[Key], list[Value]] = {}
    for placement in in_order(PLACEMENT, [*keys]):
        grids.setdefault(frozenset(keys[placement]), []).append(placement)
    others = [name for name in layout.factors if name != PLACEMENT]
    groups = []
    for of, placements in sorted(grids.items(), key=lambda item: -len(item[0])):
        levels = {n: sorted({k[i] for k in of}, key=sort_key) for i, n in enumerate(others)}
        if math.prod(map(len, levels.values())) > len(of):
            return None
        groups.append((levels, placements))
    return groups if len(groups) < 3 else None


def not_all(layout: Layout) -> str:
    """How many combinations were run, where it is not all of them."""
    every = math.prod(map(len, layout.levels.values()))
    return f", {len(layout.by_key)} of {every} combinations" if len(layout.by_key) < every else ""


def phrases_of(names: Sequence[str], levels: Mapping[str, Sequence[Value]]) -> str:
    """What varies beside the placement, each factor with its levels; empty without factors."""
    return " " + join_words([factor_phrase(n, levels[n]) for n in names]) if names else ""


def title_rank(name: str) -> tuple[bool, bool]:
    """Sort key of factors in a title: the learning rate last, before it what has no word of own."""
    return name == RATE, name not in (WARMUP, CHANGE)


def level_words(name: str, levels: Sequence[Value]) -> str:
    """A factor's levels, by name where they are few."""
    if len(levels) > MOST_IN_TITLE:
        return f"{number_words(len(levels))} {noun_of(name)}s"
    return join_words([value_words(name, level) for level in in_order(name, levels)])


def in_order(name: str, levels: Sequence[Value]) -> list[Value]:
    """Levels in their order; placements in that of the table, Pre-LN first."""
    if name != PLACEMENT:
        return list(levels)
    order = list(PLACEMENTS)
    return sorted(levels, key=lambda level: order.index(level) if level in order else len(order))


def factor_phrase(name: str, levels: Sequence[Value]) -> str:
    """A factor after the placements: `with and without warm-up`, `over four learning rates`."""
    numbers = numeric(levels)
    if len(levels) == 1:
        return setting_words(name, levels[0])
    if name == WARMUP and len(levels) == 2 and 0 in levels:
        return "with and without warm-up"
    if name == RATE:
        return f"over {number_words(len(levels))} learning rates"
    if name == CHANGE:
        return f"through {number_words(len(levels))} architectures"
    if name == "shortcut":
        return "with and without shortcuts"
    if name == "trainer.clip" and len(levels) == 2 and None in levels:
        return "with and without clipping"
    if name in UNITS and len(numbers) == len(levels):
        unit = UNITS[name]
        if len(levels) > 2:
            return f"from {numbers[0]:,} to {numbers[-1]:,} {unit}"
        return f"with {join_words([f'{number:,}' for number in numbers])} {unit}"
    return f"with {level_words(name, levels)}"


UNITS = {"model.n_layers": "blocks", WARMUP: "steps of warm-up", "trainer.steps": "steps"}


# Families of sizes in conf/model, by how their files' names begin.
FAMILY_WORDS = {
    "gpt2": "GPT-2",
    "pythia": "Pythia",
    "opt": "OPT",
    "gpt_neo": "GPT-Neo",
    "gpt_oss": "GPT-OSS",
    "llama": "LLaMA",
    "qwen3": "Qwen3",
    "gemma3": "Gemma 3",
}


def title_of_sizes(layout: Layout) -> str:
    """`GPT-2's sizes`, where nothing but the named model varies; empty otherwise."""
    names = [*map(str, layout.levels.get(MODEL, []))] if layout.factors == [MODEL] else []
    for beginning, family in FAMILY_WORDS.items():
        if names and all(name.startswith(f"{beginning}_") for name in names):
            return f"{family}'s sizes"
    return level_words(MODEL, names) if names else ""
