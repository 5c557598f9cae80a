"""What the report says in sentences, generated from the numbers."""

import math
from collections import Counter
from collections.abc import Sequence

from experiments.analysis.arms import Arm, Layout, label_value, numeric, short_name
from experiments.analysis.numbers import median
from experiments.analysis.tuning import MOST_NAMED, name_some, tune
from experiments.report.drawing import format_number, plural
from experiments.report.figures import LAST_INITIAL, scalings
from experiments.report.rates import WARMUP

MOST_LEVELS = 6  # of one factor in a sentence


def join_words(words: Sequence[str]) -> str:
    """Words with commas and an `and`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def headline(layout: Layout, arms: Sequence[Arm]) -> str:
    """What was compared, and what came out, in one sentence with the numbers."""
    runs = sum(len(arm.histories) for arm in arms)
    finding = scaling_words(layout) or warmup_words(layout) or tuned_words(layout)
    finding = finding or loss_words(arms)
    opening = plural(runs, "run")
    if layout.factors:
        opening += f" {'compares' if runs == 1 else 'compare'} {compared(layout)}"
    else:
        opening += f" of one setting ({arms[0].label})"
    if runs > 1:
        opening += f", {seeds_words(arms)}"
    return opening + (f": {finding}." if finding else ".")


def compared(layout: Layout) -> str:
    """The factors with their levels."""
    words = []
    for name in [*filter(None, [layout.hue]), *layout.rest]:
        levels = layout.levels[name]
        if len(levels) > MOST_LEVELS:
            words.append(plural(len(levels), short_name(name)))
        elif all(isinstance(level, str) for level in levels):
            words.append(join_words([str(level) for level in levels]))
        else:
            shown = [
                label_value(name, level).removeprefix(f"{short_name(name)} ") for level in levels
            ]
            words.append(f"{short_name(name)} {join_words(shown)}")
    return " over ".join(words[:2]) + "".join(f", and over {word}" for word in words[2:])


def seeds_words(arms: Sequence[Arm]) -> str:
    """How many runs each arm has, and over how many seeds a run of its own went."""
    counts = sorted({len(arm.histories) for arm in arms})
    most = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = "one run for each" if counts == [1] else f"{most} seeds for each"
    pooled = list(dict.fromkeys(short_name(name) for arm in arms for name in arm.pooled()))
    if pooled:
        words = f"{most} runs for each, pooled over {join_words(pooled)}"
    inner = {history.run.summary.get("seeds") for arm in arms for history in arm.histories}
    (only,) = inner if len(inner) == 1 else (None,)
    return f"{words} (over {only} seeds of its own)" if only else words


def scaling_words(layout: Layout) -> str:
    """How the last block's gradient norm at initialisation changes with the model's size."""
    numbers = [name for name in layout.factors if name.startswith("model.")]
    for factor in numbers:
        found = [
            s for s in scalings(layout, factor) if s.quantity == "last block, at initialisation"
        ]
        if not found or len(found) > MOST_NAMED:
            continue
        word = short_name(factor)
        ends = [
            "from {} to {}".format(*map(format_number, s.ends())) + f" under {s.label} ({s.fit})"
            for s in found
        ]
        least, most = min(found[0].x), max(found[0].x)
        return (
            f"from {word} {least:g} to {most:g} the last block's gradient norm at initialisation "
            f"goes {join_words(ends)}"
        )
    return ""


def warmup_words(layout: Layout) -> str:
    """What the least and the most warm-up reach, at the best of the other settings."""
    levels = numeric(layout.levels.get(WARMUP, []))
    if len(levels) < 2 or len(layout.hues) > MOST_NAMED:
        return ""
    place = layout.factors.index(WARMUP)
    apart = layout.hue is not None and layout.hue != WARMUP
    hue_place = layout.factors.index(layout.hue) if layout.hue and apart else None
    words = []
    for hue in layout.hues if apart else [None]:
        reached = []
        for level in (levels[0], levels[-1]):
            arms = [
                arm
                for arm in layout.by_key.values()
                if arm.key[place] == level and (hue_place is None or arm.key[hue_place] == hue)
            ]
            losses = [median(arm.capped_losses()) for arm in arms]
            worst = sum(arm.stuck + arm.count("diverged") for arm in arms)
            total = sum(len(arm.histories) for arm in arms)
            best = min((loss for loss in losses if not math.isnan(loss)), default=math.nan)
            reached.append(
                f"{format_number(best)} with {level} ({worst} of {total} runs did not learn)"
            )
        words.append(" and ".join(reached))
        if apart:
            words[-1] = f"{layout.hue_label(hue)} {words[-1]}"
    return "the best median validation loss by steps of warm-up is " + "; ".join(words)


def tuned_words(layout: Layout) -> str:
    """The best and the worst arm, each at its own best learning rate."""
    found = [(one.medians[one.best], one) for one in tune(layout) if one.best is not None]
    if len(found) < 2:
        return ""
    losses = [(loss, f"{one.label} at {one.where()}") for loss, one in found]
    what = "with the best learning rate of each arm, the median validation loss"
    return least_and_most(what, losses, " nats")


def loss_words(arms: Sequence[Arm]) -> str:
    """Median validation loss at the end; without losses, the gradient at initialisation."""
    losses = [(median(arm.final_losses()), arm.label) for arm in arms if arm.final_losses()]
    if losses:
        return least_and_most("the median validation loss at the end", losses, " nats")
    norms = [(arm.median(*LAST_INITIAL), arm.label) for arm in arms]
    norms = [(norm, label) for norm, label in norms if not math.isnan(norm)]
    what = "the last block's gradient norm at initialisation"
    return least_and_most(what, norms, "") if norms else ""


def least_and_most(what: str, values: list[tuple[float, str]], unit: str) -> str:
    """Each value with its arm; of many, the least and the greatest."""
    values = sorted(values)
    if len(values) == 1:
        return f"{what} is {with_unit(values[0][0], unit)}"
    few = len(values) <= MOST_NAMED
    shown = values if few else [values[0], values[-1]]
    between = "is" if few else "lies between"
    each = [f"{with_unit(value, unit)} ({label})" for value, label in shown]
    return f"{what} {between} {join_words(each)}"


def with_unit(value: float, unit: str) -> str:
    """A number with its unit; infinity, which stands for divergence, has none."""
    return format_number(value) + (unit if math.isfinite(value) else "")


def endings(arms: Sequence[Arm]) -> str:
    """How the runs ended, counted, and in which arms they did not finish."""
    counts = Counter(history.run.status for arm in arms for history in arm.histories)
    words = []
    for status, count in counts.most_common():
        words.append(f"{count} {status}")
        if status in ("diverged", "failed"):
            words[-1] += in_which_arms([arm.label for arm in arms if arm.count(status)], len(arms))
    told = join_words(words)
    stuck = [arm for arm in arms if arm.stuck]
    if stuck:
        told += f"; {sum(arm.stuck for arm in stuck)} of the finished learned no more than token "
        told += "frequencies" + in_which_arms([arm.label for arm in stuck], len(arms))
    return told


def in_which_arms(labels: Sequence[str], total: int) -> str:
    """In which arms something happened, where that tells more than a number."""
    return "" if total == 1 else f" ({name_some(labels)})"
