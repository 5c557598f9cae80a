"""What runs say, in words: a title, one sentence, what was held equal, and what to run next.

All take the layout and the arms that a report has, and read no figure.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.analysis.arms import RATE, WARMUP, Arm, Key, Layout, format_value
from experiments.analysis.histories import NATS, History
from experiments.analysis.next_steps import HIGHER_RATE, next_command
from experiments.analysis.numbers import loss_text, margin_of, median
from experiments.analysis.runs import (
    COMPLETED,
    LOSS_ROSE,
    NOT_FINITE,
    PLACEMENT,
    Run,
    Value,
    differing_settings,
    is_determined_by,
    sort_key,
)
from experiments.analysis.scaling import Scaling, scalings
from experiments.analysis.titles import in_order, runs_of, shared, title_of
from experiments.analysis.tuning import TunedArm, tune
from experiments.analysis.words import (
    capital,
    count_words,
    join_words,
    noun_of,
    placement_words,
    setting_words,
    times_text,
    value_words,
)

__all__ = ["held_equal", "next_command", "title_of", "verdict_of"]

MOST_CLAUSES = 5  # of a sentence that names each arm; of more the ends and the failures
MOST_FAILING = 4  # arms named among the failures
MOST_TOLD = 2  # of them that each have a clause of their own before a trend
MOST_MEDIANS = 6  # of a trend, one after the other
FAR_ABOVE = 1.05  # of the loss of token frequencies: that of a run which was too short for them
MEDIANS_FROM = 3  # losses; fewer are shown themselves


def verdict_of(layout: Layout, arms: Sequence[Arm]) -> str:
    """One sentence with what the runs show, in which no failure hides behind a best value.

    A run failed that diverged, or that learned no more than token frequencies. Losses are medians
    over three or more seeds, and the values themselves of one or two.
    """
    runs = runs_of(arms)
    if not any(run.status in COMPLETED for run in runs):
        return sentence([f"nothing was measured: {'; '.join(unfinished(arms))}"])
    if len(runs) == 1 and runs[0].summary.finding:
        return sentence([runs[0].summary.finding.removesuffix(".")])
    if any(arm.final_losses() for arm in arms):
        parts = [*of_training(layout, arms), *below_full_rate(layout, runs)]
    else:
        parts = of_gradients(layout, arms) or of_sizes(arms) or ["its files say what was measured"]
    return sentence([*parts, *pooled(arms), *unfinished(arms)])


def sentence(parts: Sequence[str]) -> str:
    """Clauses as one sentence."""
    return f"{capital('; '.join(parts))}."


def below_full_rate(layout: Layout, runs: Sequence[Run]) -> list[str]:
    """That all of several runs end inside the warm-up that they share."""
    steps = steps_within_warmup(runs)
    if not steps or len(runs) == 1 or WARMUP in layout.factors:
        return []
    words = f"all {steps:,} steps are within the {shared(runs, WARMUP):,} of warm-up"
    return [f"{words}, so no run reached the full learning rate"]


def pooled(arms: Sequence[Arm]) -> list[str]:
    """In what the runs of an arm differ beside the seed."""
    names = dict.fromkeys(noun_of(name) for arm in arms for name in arm.pooled_settings())
    return [f"each arm pools runs that differ in {join_words([*names])}"] if names else []


def unfinished(arms: Sequence[Arm]) -> list[str]:
    """How many runs failed with an error, and how many have not ended."""
    runs = runs_of(arms)
    failed = [run for run in runs if run.status == "failed"]
    left = [run for run in runs if run.status not in (*COMPLETED, "failed")]
    parts = []
    if failed:
        reasons = {run.reason for run in failed}
        why = f" ({reasons.pop()})" if len(reasons) == 1 and "" not in reasons else ""
        parts.append(f"{share(len(failed), len(runs))} stopped with an error{why}")
    if left:
        verb = "has" if len(left) == 1 else "have"
        parts.append(f"{share(len(left), len(runs))} {verb} not ended")
    return parts


def share(count: int, total: int) -> str:
    """So many of all runs."""
    return f"{count} of {count_words(total, 'run')}"


# Training


@dataclass(frozen=True)
class Group:
    """Arms that differ in the learning rate alone, or one arm where it does not vary.

    values  of the other factors, by name; of the placement in any case, where all runs share it
    tuned   the arms by learning rate; None where it does not vary
    all     the runs of all rates as one arm
    """

    values: Mapping[str, Value]
    all: Arm
    tuned: TunedArm | None = None

    @property
    def placement(self) -> Value:
        return self.values.get(PLACEMENT)

    @property
    def ended(self) -> int:
        """How many runs have their result."""
        return self.all.count(*COMPLETED)

    @property
    def has_ended(self) -> bool:
        """Whether all runs have."""
        return self.ended == len(self.all.histories)

    @property
    def failed_share(self) -> float:
        return self.all.not_learned / self.ended

    @property
    def best_arm(self) -> Arm:
        """At its best rate."""
        if self.tuned is None or self.tuned.best is None:
            return self.all
        return self.tuned.arms[self.tuned.best]

    @property
    def loss(self) -> float:
        """The median of the runs that learned, at the best rate; infinite where none did."""
        losses = learned_losses(self.best_arm)
        return median(losses) if losses else math.inf


def groups_of(layout: Layout, arms: Sequence[Arm]) -> list[Group]:
    """The arms, those together that differ in the learning rate alone, Pre-LN first."""
    names = list(layout.factors)
    found: list[tuple[Key, Arm, TunedArm | None]] = [(arm.key, arm, None) for arm in arms]
    if tuned_arms := tune(layout):
        names.remove(RATE)
        found = [(tuned.key, tuned.all_runs(), tuned) for tuned in tuned_arms]
    placement = shared(runs_of(arms), PLACEMENT)
    groups = []
    for key, arm, tuned in found:
        values = dict(zip(names, key, strict=True))
        if placement is not None:
            values = {PLACEMENT: placement, **values}
        groups.append(Group(values, arm, tuned))
    order = in_order(PLACEMENT, [*dict.fromkeys(group.placement for group in groups)])
    return sorted(groups, key=lambda group: order.index(group.placement))


def of_training(layout: Layout, arms: Sequence[Arm]) -> list[str]:
    """The clauses about runs that trained."""
    groups = [group for group in groups_of(layout, arms) if group.ended]
    if not layout.unit.comparable:
        return incomparable(groups)
    if len(runs_of(arms)) == 1:
        return of_one_run(arms[0])
    if "model.n_layers" in layout.factors and (clauses := of_depths(layout)):
        return [*failures_first(groups), *clauses]
    clauses = clauses_of(groups)
    if len(clauses) > MOST_CLAUSES:
        return of_many(layout, groups)
    if len(clauses) == 1 or any(group.all.not_learned for group in groups):
        return clauses
    return [f"{all_runs(groups)} learned: {clauses[0]}", *clauses[1:], *differences(layout)]


def all_runs(groups: Sequence[Group]) -> str:
    """Every run of some groups; where others are still going on, every one that has ended."""
    total = sum(group.ended for group in groups)
    words = {1: "the run", 2: "both runs"}.get(total, f"all {total:,} runs")
    if all(group.has_ended for group in groups):
        return words
    return f"{words} that {'has' if total == 1 else 'have'} ended"


def incomparable(groups: Sequence[Group]) -> list[str]:
    """Where losses are of different tokens: whether runs learned, and no ranks."""
    clauses = all_failures(groups) or [f"{all_runs(groups)} learned more than token frequencies"]
    why = "nats per token of different tokenizers or texts cannot be compared"
    return [*clauses, why]


def clauses_of(groups: Sequence[Group]) -> list[str]:
    """A clause for each group, those that failed first, of each placement one after the other.

    Groups of a placement share a clause where learning rates vary and runs failed, and where none
    of their runs failed but others did.
    """
    clauses: list[str] = []
    before, fails = None, has_failed(groups)
    for placement in by_failures(groups):
        own = [group for group in groups if group.placement == placement]
        own.sort(key=lambda group: -group.failed_share)
        if len(groups) > len(own) > 1 and fails and not has_failed(own):
            clauses.append(f"{name_of(own[0])} {together(own)}")
            continue
        if len(own) > 1 and own[0].tuned is not None and has_failed(own):
            clauses.append(f"{name_of(own[0])} {failing_in(own)}")
            continue
        for group in own:
            is_first = not any("token frequencies" in clause for clause in clauses)
            clauses.append(f"{subject_of(before, group)} {outcome_of(group, is_first, fails)}")
            before = group
    return clauses


def has_failed(groups: Sequence[Group]) -> bool:
    """Whether a run of theirs did not learn."""
    return any(group.all.not_learned for group in groups)


def by_failures(groups: Sequence[Group]) -> list[Value]:
    """The placements, those of which most runs failed first."""
    shares: dict[Value, list[float]] = {}
    for group in groups:
        shares.setdefault(group.placement, []).append(group.failed_share)
    return sorted(shares, key=lambda placement: -sum(shares[placement]) / len(shares[placement]))


def subject_of(before: Group | None, group: Group) -> str:
    """What a clause speaks of: `Post-LN without warm-up`, then `with 60 steps of warm-up it`."""
    modifiers = modifiers_of(group)
    if before is not None and before.placement == group.placement and modifiers:
        return f"{modifiers} it"
    return " ".join(filter(None, [name_of(group), modifiers]))


def name_of(group: Group) -> str:
    """The placement of a group; `the model` where its runs have several."""
    return "the model" if group.placement is None else placement_words(str(group.placement))


def modifiers_of(group: Group) -> str:
    """The other factors: `with SGD, without clipping`."""
    steps = steps_within_warmup(runs_of([group.all]))
    words = [
        f"with all {steps:,} steps within {v:,} of warm-up"
        if n == WARMUP and steps
        else setting_words(n, v)
        for n, v in group.values.items()
        if n != PLACEMENT
    ]
    return ", ".join(words)


def steps_within_warmup(runs: Sequence[Run]) -> int:
    """The steps of runs that end inside their warm-up, below the full rate; 0 of others."""
    steps, warmup = shared(runs, "trainer.steps"), shared(runs, WARMUP)
    if isinstance(steps, int) and isinstance(warmup, int) and warmup >= steps:
        return steps
    return 0


def outcome_of(group: Group, explain: bool, beside_failures: bool) -> str:
    """What became of the runs of a group.

    explain          whether to say what token frequencies alone give
    beside_failures  whether runs of any group failed
    """
    if group.tuned is not None:
        return over_rates(group.tuned, group)
    arm = group.all
    if not arm.not_learned:
        return learned_in(arm, beside_failures)
    text = (
        f"{how_failed(arm)} in {share(arm.not_learned, group.ended)}{failed_losses(arm, explain)}"
    )
    if arm.learned:
        others = "the other" if arm.learned == 1 else "the others"
        text += f" and reached {losses_text(arm, learned_losses(arm))} in {others}"
    return text


def learned_in(arm: Arm, count: bool) -> str:
    """`learned in 3 of 3, median 2.41 nats`; of one run or two `reached 2.38 nats`.

    count  whether runs are counted, which beside arms that failed they are
    """
    losses = learned_losses(arm)
    if not count or len(losses) < MEDIANS_FROM:
        return f"reached {losses_text(arm, losses)}"
    median_text = losses_text(arm, losses).removeprefix("a ").replace("median of", "median")
    return f"learned in {len(losses)} of {len(losses)}, {median_text}"


def losses_text(arm: Arm, losses: Sequence[float]) -> str:
    """The median of three losses or more, one or two as they are, with their unit."""
    if len(losses) >= MEDIANS_FROM:
        return f"a median of {loss_text(median(losses), 2)} {arm.unit.name}"
    texts = dict.fromkeys(loss_text(loss, 2) for loss in sorted(losses))
    return f"{join_words([*texts])} {arm.unit.name}"


def learned_losses(arm: Arm) -> list[float]:
    """The final losses of the runs that learned."""
    return [
        loss
        for history in arm.histories
        if history.run.status == "finished" and not history.run.is_stuck
        if (loss := history.final_loss) is not None
    ]


def how_failed(arm: Arm, present: bool = False) -> str:
    """`learned nothing`, `diverged`, or `failed` where runs did either."""
    words = ("learns nothing", "diverges", "fails") if present else PAST
    return words[0 if arm.stuck == arm.not_learned else 1 if not arm.stuck else 2]


PAST = ("learned nothing", "diverged", "failed")


def failed_losses(arm: Arm, explain: bool) -> str:
    """In brackets where the losses ended that did not fall, or how runs diverged."""
    stuck = [h.final_loss for h in arm.histories if h.run.is_stuck and h.final_loss is not None]
    frequencies = shared_frequencies([arm]) if arm.unit is NATS else None
    parts = []
    if arm.stuck and arm.not_learned > arm.stuck:
        parts.append(f"{arm.stuck} learned nothing, {arm.not_learned - arm.stuck} diverged")
    elif stuck:
        parts.append(f"{loss_text(median(stuck), 2)} {arm.unit.name}")
        if explain and frequencies is not None:
            parts.append(f"token frequencies alone give {loss_text(frequencies, 2)}")
    else:
        parts.append(how_diverged(arm))
    return f" ({'; '.join(parts)})"


def shared_frequencies(arms: Sequence[Arm]) -> float | None:
    """The validation loss of token frequencies alone, where all runs have the same one."""
    levels = {run.summary.corpus.unigram_validation_loss for run in runs_of(arms)}
    return levels.pop() if len(levels) == 1 else None


def how_diverged(arm: Arm) -> str:
    """Whether losses rose, and how far the worst, or were not finite."""
    runs = runs_of([arm])
    rose = [run.summary for run in runs if run.divergence == LOSS_ROSE]
    reasons = []
    if rose:
        worst = max(rose, key=lambda summary: summary.val_loss or 0.0)
        initial, final = worst.initial_val_loss or math.nan, worst.val_loss or math.nan
        ends = f"from {short_loss(initial)} to {short_loss(final)} nats"
        reasons.append(f"the loss rose {ends}" if len(rose) == 1 else f"losses rose, one {ends}")
    if arm.diverged(NOT_FINITE):
        reasons.append("a loss or a gradient was not finite")
    return ", or ".join(reasons)


def short_loss(loss: float) -> str:
    """A loss that may be large: 2.41, 38.2, 1,332."""
    return loss_text(loss, 2 if loss < 10 else 1 if loss < 100 else 0)


def over_rates(tuned: TunedArm, group: Group) -> str:
    """At which learning rates runs failed, in how many of them, and the best rate."""
    if not group.all.not_learned:
        return f"{learns_where(tuned, group)}, at best {best_of([group])}"
    arm, places = failing_of(tuned)
    if arm.stuck == group.ended and group.has_ended:
        places = "at any rate"
    text = f"{how_failed(arm, present=True)} {places} "
    text += f"({share(arm.not_learned, arm.count(*COMPLETED))})"
    return f"{text}; its best is {best_of([group])}" if math.isfinite(group.loss) else text


def learns_where(tuned: TunedArm, group: Group) -> str:
    """That all runs learn at every rate; of a sweep that goes on, at the rates that have ended."""
    if group.has_ended:
        return "learns at every rate"
    rates = [f"{rate:g}" for rate, arm in tuned.arms.items() if arm.count(*COMPLETED)]
    return f"learned in {all_runs([group])} (lr {join_words(rates)})"


def failing_in(groups: Sequence[Group]) -> str:
    """How and at which learning rates runs of a placement failed: once for all its groups."""
    places: dict[str, dict[str, list[str]]] = {}  # by how and at which rates
    for group in groups:
        if group.tuned is not None and group.all.not_learned:
            arm, rates = failing_of(group.tuned)
            count = share(arm.not_learned, arm.count(*COMPLETED))
            if places:
                count = f"{arm.not_learned} of {arm.count(*COMPLETED)}"
            of_how = places.setdefault(how_failed(arm, present=True), {})
            of_how.setdefault(rates, []).append(f"{modifiers_of(group)} ({count})")
    ways = [
        f"{how} {join_words([f'{rates} {join_words(each)}' for rates, each in of_how.items()])}"
        for how, of_how in places.items()
    ]
    has_best = any(math.isfinite(group.loss) for group in groups)
    return join_words(ways) + (f"; its best is {best_of(groups)}" if has_best else "")


def failing_of(tuned: TunedArm) -> tuple[Arm, str]:
    """The runs at the learning rates at which some failed, as one arm, and these rates in words."""
    failing = [rate for rate, arm in tuned.arms.items() if arm.not_learned]
    histories = [history for rate in failing for history in tuned.arms[rate].histories]
    return Arm((), "", histories), which_rates(failing, [*tuned.arms])


def which_rates(failing: Sequence[float], rates: Sequence[float]) -> str:
    """Some of the learning rates in words: `at lr 0.003 and above`."""
    if len(failing) == len(rates):
        return "at every rate"
    if len(failing) > 1 and list(failing) == list(rates[-len(failing) :]):
        return f"at lr {failing[0]:g} and above"
    if len(failing) > 1 and list(failing) == list(rates[: len(failing)]):
        return f"at lr {failing[-1]:g} and below"
    return f"at lr {join_words([f'{rate:g}' for rate in failing])}"


def best_of(groups: Sequence[Group]) -> str:
    """The lowest loss of some groups of one placement, and where it was."""
    best = min(groups, key=lambda group: group.loss)
    where = [modifiers_of(best)] if len(groups) > 1 else []
    if best.tuned is not None:
        where.append(f"at {best.tuned.describe_best()}")
    brackets = f" {', '.join(filter(None, where))}"
    return losses_text(best.all, learned_losses(best.best_arm)) + brackets


def together(groups: Sequence[Group]) -> str:
    """What became of groups of one placement of which no run failed."""
    return f"learned in {all_runs(groups)}, at best {best_of(groups)}"


def of_many(layout: Layout, groups: Sequence[Group]) -> list[str]:
    """Of more groups than a sentence can name: the lowest, the highest, the failures.

    Only one that differs from all others by more than the seeds do is called the best.
    """
    ranked = sorted((g for g in groups if math.isfinite(g.loss)), key=lambda group: group.loss)
    clauses = ranks(layout, groups, ranked) if len(ranked) > 1 else []
    return [*clauses, *(all_failures(groups) or [f"{all_runs(groups)} learned"])]


def ranks(layout: Layout, groups: Sequence[Group], ranked: Sequence[Group]) -> list[str]:
    """Which groups end lowest and highest, as far as their runs can tell."""
    noun = "placement" if {*layout.factors} - {RATE} == {PLACEMENT} else "arm"
    samples = [learned_losses(group.best_arm) for group in ranked]
    margin, has_seeds = margin_of(samples), max(map(len, samples)) > 1
    close = sum(group.loss - ranked[0].loss <= margin for group in ranked)
    rates = how_tuned(groups)
    (lowest, low), (highest, high) = place_of(ranked[0]), place_of(ranked[-1])
    learned = " of those that learned" if len(ranked) < len(groups) else ""
    of_all = f"of {count_words(len(groups), noun)}"
    if close == 1 and has_seeds:
        opening = f"{of_all}, {rates}," if rates else of_all
        return [f"{opening} {lowest} ({low}) is best and {highest} ({high}) worst{learned}"]
    opening = f"{rates}, {close} {of_all}" if rates else f"{close} {of_all}"
    within = f"within {margin:.2f} {ranked[0].all.unit.name} of the lowest, {low} ({lowest})"
    why = "one run each, so this is no ranking"
    if has_seeds:
        why = "seeds of an arm differ by as much, so these are not ranked"
    return [
        f"{opening} {'ends' if close == 1 else 'end'} {within}",
        *(why, f"the highest{learned} is {high} ({highest})"),
    ]


def how_tuned(groups: Sequence[Group]) -> str:
    """That each group is at its best learning rate; empty where the rate does not vary."""
    tuned = [group.tuned for group in groups if group.tuned is not None]
    if not tuned:
        return ""
    if any(len(each.losses) < len(each.arms) for each in tuned):
        return "each at its best rate so far"
    if all(len(each.losses) == 2 for each in tuned):
        return "each at the better of its two rates"
    return "each at its best rate"


def place_of(group: Group) -> tuple[str, str]:
    """Where a group was best, and its loss there: `DeepNorm at lr 0.01` and `2.32 nats`."""
    where = subject_of(None, group)
    if group.tuned is not None:
        is_edge_anyway = len(group.tuned.losses) <= 2  # each of two rates is one
        rate = f"lr {group.tuned.best:g}" if is_edge_anyway else group.tuned.describe_best()
        where += f"{', ' if modifiers_of(group) else ' '}at {rate}"
    return where, losses_text(group.all, learned_losses(group.best_arm))


def all_failures(groups: Sequence[Group]) -> list[str]:
    """How many runs failed in all, and in which groups most of theirs; empty where none did."""
    failing = sorted(
        (g for g in groups if g.all.not_learned), key=lambda group: -group.failed_share
    )
    if not failing:
        return []
    total = sum(group.ended for group in groups)
    count = sum(group.all.not_learned for group in failing)
    named = [
        f"{subject_of(None, group)} in {group.all.not_learned} of {group.ended}"
        for group in failing[:MOST_FAILING]
    ]
    if len(failing) > MOST_FAILING:
        named.append(count_words(len(failing) - MOST_FAILING, "more arm"))
    return [f"{share(count, total)} did not learn ({', '.join(named)})"]


def failures_first(groups: Sequence[Group]) -> list[str]:
    """The clauses that lead a verdict about a trend: what did not learn, and under what it did not.

    Of one or two such groups how they failed, of more their number.
    """
    failing = [group for group in groups if group.all.not_learned]
    if not failing:
        return []
    clauses = all_failures(groups)
    if len(failing) <= MOST_TOLD:
        clauses = [
            f"{subject_of(None, group)} {outcome_of(group, not index, True)}"
            for index, group in enumerate(failing)
        ]
        learned = sum(group.ended for group in groups if group not in failing)
        clauses += [f"{all_others(learned)} learned"] if learned else []
    runs = runs_of([group.all for group in groups])
    under = [
        setting_words(name, value)
        for name in (RATE, WARMUP)
        if (value := shared(runs, name)) is not None
    ]
    return [f"{' '.join(under)} {clauses[0]}".strip(), *clauses[1:]]


def all_others(count: int) -> str:
    """Every one of so many other runs."""
    return {1: "the other run", 2: "both other runs"}.get(count, f"all {count:,} other runs")


def of_one_run(arm: Arm) -> list[str]:
    """What a single run came to, and what its first and last blocks received."""
    (run,) = runs_of([arm])
    summary, steps = run.summary, run.settings.get("trainer.steps")
    name = placement_words(str(run.settings.get(PLACEMENT, "the model")))
    within = f" in {count_words(int(steps), 'step')}" if isinstance(steps, int) else ""
    if steps_within_warmup([run]):
        name += f", all {steps:,} steps within its {run.settings[WARMUP]:,} of warm-up,"
        within = ""
    elif WARMUP in run.settings:
        name += f" {setting_words(WARMUP, run.settings[WARMUP])}"
    frequencies = summary.corpus.unigram_validation_loss
    if run.divergence:
        return [f"{name} diverged: {run.reason or how_diverged(arm)}"]
    loss = f"{loss_text(summary.val_loss or math.nan, 2)} nats"
    if frequencies is None:
        return [f"{name} reached {loss}{within}"]
    alone = f"token frequencies alone give {loss_text(frequencies, 2)}"
    if run.is_stuck:
        is_far = (summary.val_loss or 0.0) > FAR_ABOVE * frequencies
        what = "did not get as far as token frequencies" if is_far else "learned nothing"
        return [f"{name} {what}{within}: its validation loss is {loss}, and {alone}"]
    return [f"{name} learned{within}: its validation loss is {loss}, where {alone}"]


def differences(layout: Layout) -> list[str]:
    """Which factors make no difference beyond the range of the seeds, where nothing failed."""
    arms = layout.by_key
    if any(len(arm.final_losses()) < 2 for arm in arms.values()):
        return ["with one run for each the range over seeds is not known"]
    names = [name for name in layout.factors if name != RATE]
    same = [name for name in names if makes_no_difference(layout, name)]
    if not same:
        return []
    what = join_words([nouns_in_clause(name) for name in same])
    text = f"{what} {'makes' if len(same) == 1 else 'make'} no difference beyond the seeds' range"
    rate = shared(runs_of([*arms.values()]), RATE)
    if isinstance(rate, float) and rate < HIGHER_RATE and {PLACEMENT, WARMUP} & {*same}:
        text += f" at lr {rate:g}: try a higher one, such as optimizer.lr={HIGHER_RATE:g}"
    return [text]


def nouns_in_clause(name: str) -> str:
    """A factor as the subject of a clause."""
    return "the placement" if name == PLACEMENT else noun_of(name)


def makes_no_difference(layout: Layout, name: str) -> bool:
    """Whether arms that differ in one factor alone have ranges over seeds that overlap."""
    index = layout.factors.index(name)
    pairs = [
        (one, other)
        for (a, one), (b, other) in itertools.combinations(layout.by_key.items(), 2)
        if a[:index] + a[index + 1 :] == b[:index] + b[index + 1 :]
    ]
    return bool(pairs) and all(overlap(one.final_losses(), b.final_losses()) for one, b in pairs)


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the ranges of two samples share a value."""
    return max(min(one), min(other)) <= min(max(one), max(other))


# Without training


def of_depths(layout: Layout) -> list[str]:
    """How the last block's gradient at initialisation changes with the number of blocks."""
    found = [s for s in scalings(layout, "model.n_layers") if s.quantity == AT_START]
    if not found or len(found) > MOST_CLAUSES:
        return []
    blocks = f"{min(found[0].x):g} to {max(found[0].x):g} blocks"
    what = "the last block's gradient norm at initialisation"
    steady = [s for s in found if s.is_monotone]
    changes = [
        f"from {' to '.join(f'{end:.3g}' for end in s.ends())}{under(s, found)}{exponent_of(s)}"
        for s in steady
    ]
    clauses = [f"from {blocks} {what} goes {join_words(changes)}"] if changes else []
    for scaling in found:
        if scaling not in steady:
            subject = "it" if clauses else f"from {blocks} {what}"
            clauses.append(
                f"{subject} has no steady trend{under(scaling, found)}: {run_of(scaling)}"
            )
    return clauses


def under(scaling: Scaling, found: Sequence[Scaling]) -> str:
    """Of which arms a trend is, where there are several."""
    return f" under {scaling.label}" if len(found) > 1 else ""


def exponent_of(scaling: Scaling) -> str:
    """In brackets the exponent of a power law; empty where the points are no straight line."""
    return f" ({scaling.fit})" if scaling.is_straight else ""


def run_of(scaling: Scaling) -> str:
    """The medians of a trend one after the other, or between what they are."""
    values = list(scaling.medians.values())
    if len(values) > MOST_MEDIANS:
        return f"between {min(values):.3g} and {max(values):.3g}"
    return join_words([f"{value:.3g}" for value in values])


AT_START = "last block, at initialisation"


def of_gradients(layout: Layout, arms: Sequence[Arm]) -> list[str]:
    """What the last block receives at initialisation, beside the first."""
    if "model.n_layers" in layout.factors and (clauses := of_depths(layout)):
        return clauses
    found = [(ratio, group) for group in groups_of(layout, arms) if (ratio := ratio_of(group.all))]
    if not found:
        return []
    if len(found) > MOST_CLAUSES:
        found = sorted(found, key=lambda item: item[0])
        found = [found[0], found[-1]]
        opening = f"of {len(arms)} arms at initialisation the last block's gradient is at least "
        ends = [f"{times_text(ratio)} the first's ({subject_of(None, g)})" for ratio, g in found]
        return [f"{opening}{ends[0]} and at most {ends[1]}"]
    parts = [f"{times_text(ratio)} the first's under {subject_of(None, g)}" for ratio, g in found]
    return [f"at initialisation the last block's gradient is {join_words(parts)}"]


def ratio_of(arm: Arm) -> float:
    """The last block's gradient norm over the first's, medians over runs; 0: not measured."""
    first = arm.median(lambda summary: summary.grad_norm.first_step.first_block)
    last = arm.median(lambda summary: summary.grad_norm.first_step.last_block)
    return last / first if first > 0 and last > 0 else 0.0


def of_sizes(arms: Sequence[Arm]) -> list[str]:
    """How many parameters the smallest and the largest model have."""
    counts = [arm.median(lambda summary: summary.parameters) for arm in arms]
    sizes = sorted((count, a.label) for count, a in zip(counts, arms, strict=True) if count > 0)
    if not sizes:
        return []
    ends = [f"{name} has {count:,.0f}" for count, name in (sizes[0], sizes[-1])]
    if len(sizes) == 1:
        return [f"{ends[0]} parameters; nothing was trained"]
    ratio = times_text(sizes[-1][0] / sizes[0][0])
    return [f"{ends[0]} parameters and {ends[1]}, {ratio} as many", "nothing was trained"]


# What was held equal

HELD = {  # settings that a comparison usually holds equal, in the order in which they are named
    "init.scheme": "initialisation {}",
    "optimizer.name": "optimizer {}",
    RATE: "learning rate {}",
    WARMUP: "{} steps of warm-up",
    "trainer.steps": "{} steps",
    "trainer.batch_size": "batches of {} windows",
    "model.n_layers": "{} blocks",
    "model.emb_dim": "width {}",
    "tokenizer.name": "tokenizer {}",
}


def held_equal(layout: Layout, arms: Sequence[Arm]) -> str:
    """One line: what all arms share, and what else differs between them than what is compared."""
    runs = runs_of(arms)
    if len(arms) < 2:
        return ""
    equal = [*seeds_held(arms)]
    for name, words in HELD.items():
        value = shared(runs, name)
        if value is not None and name not in layout.factors:
            equal.append(words.format(format_value(value)))
    others = [name for name in differing_settings(runs) if name not in layout.factors]
    unequal = [*(unequal_setting(name, layout, runs) for name in others), *unequal_sizes(runs)]
    if not seeds_held(arms):
        unequal.insert(0, "the seeds")
    texts = [f"Equal in all arms: {', '.join(equal)}." if equal else ""]
    texts.append(f"Not equal: {', '.join(unequal)}." if unequal else "")
    return " ".join(filter(None, [*texts, *same_runs(layout)]))


def unequal_setting(name: str, layout: Layout, runs: Sequence[Run]) -> str:
    """A setting that differs: `initialisation (deepnorm in DeepNorm, xavier in the other 20)`.

    Without values where no factor of the comparison decides it.
    """
    noun = "initialisation" if name == "init.scheme" else noun_of(name)
    runs = [run for run in runs if name in run.settings]
    factor = next((f for f in layout.factors if is_determined_by(runs, name, f)), None)
    if factor is None:
        return noun
    levels: dict[Value, list[Value]] = {}
    for level in in_order(factor, layout.levels[factor]):
        values = {run.settings[name] for run in runs if run.setting(factor) == level}
        for value in values:
            levels.setdefault(value, []).append(level)
    return f"{noun} ({', '.join(where_words(factor, levels))})"


def where_words(factor: str, levels: Mapping[Value, Sequence[Value]]) -> list[str]:
    """Values with the levels of a factor that have them; the value of most levels comes last."""
    words: list[str] = []
    for value, own in sorted(levels.items(), key=lambda item: len(item[1])):
        names = [value_words(factor, level) for level in own]
        is_rest = len(words) == len(levels) - 1 and len(own) > MOST_FAILING
        where = f"the other {len(own)}" if is_rest else join_words(names)
        text = "none" if value is None else format_value(value)
        words.append(f"{text} {'in' if factor == PLACEMENT else 'with'} {where}")
    return words


def seeds_held(arms: Sequence[Arm]) -> list[str]:
    """The seeds, where each arm has the same ones: they also decide the order of the data."""
    seeds = {tuple(sorted({run.seed for run in runs_of([arm])}, key=sort_key)) for arm in arms}
    if len(seeds) > 1 or None in (own := seeds.pop()):
        return []
    named = join_words([str(seed) for seed in own])
    noun = "seed" if len(own) == 1 else "seeds"
    return [f"{noun} {named} and {'its' if len(own) == 1 else 'their'} batches"]


def unequal_sizes(runs: Sequence[Run]) -> list[str]:
    """The parameters, where models of equal settings have more or fewer."""
    counts = {run.summary.parameters for run in runs} - {None}
    least, most = min(counts, default=0), max(counts, default=0)  # type: ignore[type-var]
    return [f"parameters ({least:,} to {most:,})"] if least != most else []


# Arms that are the same

MEASURED = ("step", "train_loss", "val_loss", "grad_norm")  # columns that no clock is in


def same_runs(layout: Layout) -> list[str]:
    """Which levels of a factor gave the same runs: equal losses and gradients at every step."""
    sentences = []
    for index, factor in enumerate(layout.factors):
        levels: dict[frozenset[object], list[Value]] = {}
        for level in in_order(factor, layout.levels[factor]):
            own = {key: arm for key, arm in layout.by_key.items() if key[index] == level}
            records = {(k[:index] + k[index + 1 :], recorded(arm)) for k, arm in own.items()}
            if all(record for _, record in records):
                levels.setdefault(frozenset(records), []).append(level)
        for same in levels.values():
            if len(same) > 1:
                names = join_words([value_words(factor, level) for level in same])
                what = "are the same function here" if factor == PLACEMENT else "give the same runs"
                sentences.append(f"{capital(names)} {what}: equal at every step.")
    return sentences


def recorded(arm: Arm) -> frozenset[tuple[Value, bytes]]:
    """The losses and gradients of an arm's runs, by seed; empty unless all have trained."""
    if any(len(history.losses("train_loss")) < 2 for history in arm.histories):
        return frozenset()
    return frozenset((history.run.seed, bytes_of(history)) for history in arm.histories)


def bytes_of(history: History) -> bytes:
    """All losses and gradient norms of a run as they were recorded."""
    columns = [name for name in MEASURED if name in history.metrics]
    return history.metrics[columns].to_numpy().tobytes() + history.blocks.to_numpy().tobytes()
