"""How many runs of a report ended in which way."""

from collections.abc import Sequence

from experiments.analysis.arms import Arm
from experiments.analysis.tuning import name_some
from experiments.analysis.words import join_words


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
