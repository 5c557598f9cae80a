"""The sentences of the report, generated from the numbers."""

import math
from collections.abc import Mapping, Sequence

from experiments.analysis.arms import (
    Arm,
    Layout,
    format_value,
    label_value,
    numeric,
    short_name,
)
from experiments.analysis.numbers import median
from experiments.analysis.runs import Value
from experiments.analysis.scaling import scalings
from experiments.analysis.tuning import MOST_NAMED, name_some, tune
from experiments.report.drawing import INCOMPARABLE, format_number, plural
from experiments.report.rates import WARMUP

MOST_LEVELS = 6  # of one factor named in a sentence; more are counted


def join_words(words: Sequence[str]) -> str:
    """A list in English: commas, and an `and` before the last."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def headline(layout: Layout, arms: Sequence[Arm]) -> str:
    """One sentence with what was compared and the main result."""
    runs = sum(len(arm.histories) for arm in arms)
    result = describe_scaling(layout) or describe_warmup(layout) or describe_tuned(layout)
    result = result or describe_losses(layout, arms)
    opening = plural(runs, "run")
    if layout.factors:
        opening += f" {'compares' if runs == 1 else 'compare'} {describe_factors(layout)}"
    else:
        opening += f" of one setting ({arms[0].label})"
    if runs > 1:
        opening += f", {describe_counts(arms)}"
    warning = f" {INCOMPARABLE}." if result and not layout.unit.comparable else ""
    return opening + (f": {result}." if result else ".") + warning


def describe_factors(layout: Layout) -> str:
    """The factors with their levels."""
    factors = []
    for name in [*filter(None, [layout.colour_factor]), *layout.panel_factors]:
        levels, noun = layout.levels[name], short_name(name)
        if len(levels) > MOST_LEVELS:
            factors.append(plural(len(levels), noun))
        elif all(isinstance(level, str) for level in levels):
            factors.append(join_words([str(level) for level in levels]))
        else:
            values = [label_value(name, level).removeprefix(f"{noun} ") for level in levels]
            factors.append(f"{noun} {join_words(values)}")
    return " over ".join(factors[:2]) + "".join(f", and over {factor}" for factor in factors[2:])


def describe_counts(arms: Sequence[Arm]) -> str:
    """How many runs each arm has, and over how many seeds each run averages, where it does."""
    counts = sorted({len(arm.histories) for arm in arms})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = "one run for each" if counts == [1] else f"{number} seeds for each"
    pooled = list(dict.fromkeys(short_name(name) for arm in arms for name in arm.pooled_settings()))
    if pooled:
        text = f"{number} runs for each, pooled over {join_words(pooled)}"
    seeds_of_runs = {history.run.summary.seeds for arm in arms for history in arm.histories}
    (seeds,) = seeds_of_runs if len(seeds_of_runs) == 1 else (None,)
    return f"{text} (each over {seeds} seeds)" if seeds else text


def describe_scaling(layout: Layout) -> str:
    """How the last block's gradient norm at initialisation changes with the model's size."""
    for factor in (name for name in layout.factors if name.startswith("model.")):
        found = [
            s for s in scalings(layout, factor) if s.quantity == "last block, at initialisation"
        ]
        if not found or len(found) > MOST_NAMED:
            continue
        changes = [
            "from {} to {}".format(*map(format_number, s.ends())) + f" under {s.label} ({s.fit})"
            for s in found
        ]
        least, most = min(found[0].x), max(found[0].x)
        return (
            f"from {short_name(factor)} {least:g} to {most:g} the last block's gradient norm at "
            f"initialisation changes {join_words(changes)}"
        )
    return ""


def describe_warmup(layout: Layout) -> str:
    """How many runs did not learn with each amount of warm-up, and the losses at which rates."""
    levels = numeric(layout.levels.get(WARMUP, []))
    has_colours = layout.colour_factor is not None and layout.colour_factor != WARMUP
    if len(levels) < 2 or (has_colours and len(layout.colour_levels) > MOST_NAMED):
        return ""
    named, opening = levels, "by steps of warm-up"
    if len(levels) > MOST_NAMED:
        named = [levels[0], levels[len(levels) // 2], levels[-1]]
        opening += f", of {len(levels)} the least, the middle and the greatest"
    results = []
    for colour in layout.colour_levels if has_colours else [None]:
        by_warmup = []
        for level in named:
            wanted = {WARMUP: level} | ({layout.colour_factor: colour} if has_colours else {})
            by_warmup.append(describe_level(layout, level, wanted))
        label = f"{layout.colour_label(colour)} " if has_colours else ""
        results.append(label + ", ".join(by_warmup))
    quantity = f"the median validation loss in {layout.unit.name}"
    if set(layout.factors) > {WARMUP, layout.colour_factor}:
        quantity += ", from the least to the greatest,"
    return f"{opening}, {quantity} is " + "; ".join(results)


def describe_level(layout: Layout, level: float, wanted: Mapping[str | None, Value]) -> str:
    """The least and the greatest median loss with these values, and how many did not learn."""
    others = [name for name in layout.factors if name not in wanted]
    arms, losses = arms_with_values(layout, wanted), []
    for arm in arms:
        values = dict(zip(layout.factors, arm.key, strict=True))
        place = ", ".join(label_value(name, values[name]) for name in others)
        if not math.isnan(loss := median(arm.capped_losses())):
            losses.append((loss, f"{format_number(loss)}{f' at {place}' if place else ''}"))
    ends = (
        dict.fromkeys(text for _, text in (min(losses), max(losses))) if losses else ["not known"]
    )
    return f"{' to '.join(ends)} with {format_value(level)} ({did_not_learn(arms)})"


def arms_with_values(layout: Layout, wanted: Mapping[str | None, Value]) -> list[Arm]:
    """The arms that have these values of these factors."""
    keyed = [(dict(zip(layout.factors, key, strict=True)), a) for key, a in layout.by_key.items()]
    return [arm for values, arm in keyed if wanted.items() <= values.items()]


def did_not_learn(arms: Sequence[Arm]) -> str:
    """How many runs diverged or are stuck."""
    count, total = sum(arm.not_learned for arm in arms), sum(len(arm.histories) for arm in arms)
    return f"{count} of {plural(total, 'run')} did not learn"


def failures(arms: Sequence[Arm]) -> str:
    """The same where there are any, after what was said before; empty where all learned."""
    return f"; {did_not_learn(arms)}" if any(arm.not_learned for arm in arms) else ""


def describe_tuned(layout: Layout) -> str:
    """The best and the worst arm, each at its own best learning rate."""
    tuned_arms = [tuned for tuned in tune(layout) if tuned.best is not None]
    losses = [
        (
            tuned.medians[tuned.best],
            f"{tuned.label} at {tuned.describe_best()}{failures([tuned.all_runs()])}",
        )
        for tuned in tuned_arms
        if tuned.best is not None
    ]
    if len(losses) < 2:
        return ""
    quantity = "with the best learning rate of each arm, the median validation loss"
    return least_and_most(quantity, losses, f" {layout.unit.name}") + of_all(layout, losses)


def describe_losses(layout: Layout, arms: Sequence[Arm]) -> str:
    """Median validation loss at the end; without losses, the gradient at initialisation."""
    losses = [
        (median(arm.final_losses()), f"{arm.label}{failures([arm])}")
        for arm in arms
        if arm.final_losses()
    ]
    if losses:
        quantity = "the median validation loss at the end"
        return least_and_most(quantity, losses, f" {layout.unit.name}") + of_all(layout, losses)
    norms = [(arm.median(lambda s: s.grad_norm.first_step.last_block), arm.label) for arm in arms]
    norms = [(norm, label) for norm, label in norms if not math.isnan(norm)]
    quantity = "the last block's gradient norm at initialisation"
    return least_and_most(quantity, norms, "") if norms else ""


def of_all(layout: Layout, losses: Sequence[object]) -> str:
    """How many runs did not learn in all, where the arms were not named one by one."""
    is_named = 1 < len(losses) <= MOST_NAMED
    return "" if is_named else failures([*layout.by_key.values()])


def least_and_most(quantity: str, values: list[tuple[float, str]], unit: str) -> str:
    """Each value with its arm; of many, the least and the greatest."""
    values = sorted(values)
    if len(values) == 1:
        return f"{quantity} is {with_unit(values[0][0], unit)}"
    verb = "is"
    if len(values) > MOST_NAMED:
        verb, values = "lies between", [values[0], values[-1]]
    described = [f"{with_unit(value, unit)} ({label})" for value, label in values]
    return f"{quantity} {verb} {join_words(described)}"


def with_unit(value: float, unit: str) -> str:
    """A number with its unit. Infinity, which means that a run diverged, has none."""
    return format_number(value) + (unit if math.isfinite(value) else "")


def endings(arms: Sequence[Arm]) -> str:
    """How many runs ended in which way, and in which arms they did not finish."""
    labels: dict[tuple[str, str | None], list[str]] = {}  # of each run's arm, by how it ended
    for arm in arms:
        for history in arm.histories:
            labels.setdefault((history.run.status, history.run.divergence), []).append(arm.label)
    parts = []
    for (status, divergence), of_runs in sorted(labels.items(), key=lambda item: -len(item[1])):
        part = f"{len(of_runs)} {status}"
        if status in ("diverged", "failed"):
            part += in_which_arms([*dict.fromkeys(of_runs)], len(arms), divergence)
        parts.append(part)
    sentence = join_words(parts)
    stuck = [arm for arm in arms if arm.stuck]
    if stuck:
        where = in_which_arms([arm.label for arm in stuck], len(arms))
        count = sum(arm.stuck for arm in stuck)
        sentence += f"; {count} of the finished learned no more than token frequencies{where}"
    return sentence


def in_which_arms(labels: Sequence[str], total: int, how: str | None = None) -> str:
    """In brackets how runs ended, and in which arms unless there is only one arm at all."""
    words = ": ".join(filter(None, [how, name_some(labels) if total > 1 else None]))
    return f" ({words})" if words else ""
