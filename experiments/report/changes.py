"""What a page says of runs that go from one architecture to another by one change at a time."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.analysis.arms import RATE, Arm, Layout
from experiments.analysis.histories import History
from experiments.analysis.numbers import median
from experiments.analysis.runs import CHANGE, PLACEMENT, Value
from experiments.analysis.words import placement_words
from experiments.records.summary import Summary
from experiments.report.chart import Axis, Chart, Panel, Series
from experiments.report.drawing import plural
from experiments.report.facets import key_of
from experiments.report.palette import Look, categories, look_of
from experiments.report.tables import Cell, Table, compact, number_cell, predicted_mib, spread_cell
from experiments.settings.explain import CONF
from experiments.settings.sizes import published_model
from gpt import (
    ACTIVATIONS,
    NORMS,
    PLACEMENTS,
    GPTConfig,
    YarnConfig,
    active_parameter_count,
    cached_values,
    flops_per_token,
    parameter_count,
)

# The two that the lecture draws side by side.
FROM, TO = ("GPT-2 XL (2019)", "gpt2_1558m"), ("GPT-OSS 20B (2025)", "gpt_oss_20b")
BF16_BYTES = 2
NO_DIFFERENCE = Cell("\N{EN DASH}", "")
FORMULAS = {"quick_gelu": "x sigmoid(1.702 x)"}


@dataclass(frozen=True)
class Quantity:
    """Something that a step of the way changes.

    of     its value for a run; None where it was not measured
    scale  of its axis: from 0, log where it spans much, or as wide as the values
    """

    name: str
    of: Callable[[History], float | None]
    scale: Literal["from 0", "log", "values"] = "from 0"


def in_millions(value: float | None) -> float | None:
    """A count in millions."""
    return None if value is None else value / 1e6


def summary_of(history: History) -> Summary:
    """The summary of its run."""
    return history.run.summary


def last_over_first(history: History) -> float | None:
    """Last block's gradient norm over the first's, at the last logged step."""
    end = history.run.summary.grad_norm.last_step
    return end.last_block / end.first_block if end.last_block and end.first_block else None


QUANTITIES = (
    Quantity("validation loss (nats per token)", lambda h: h.final_loss, "values"),
    Quantity("parameters (millions)", lambda h: in_millions(summary_of(h).parameters)),
    Quantity(
        "active parameters (millions)", lambda h: in_millions(summary_of(h).active_parameters)
    ),
    Quantity("MFLOPs per token, forward", lambda h: in_millions(summary_of(h).flops_per_token)),
    Quantity("peak memory of a step, predicted (MiB)", predicted_mib),
    Quantity("tokens per second", lambda h: summary_of(h).tokens_per_s),
    Quantity(
        "keys and values of a context (KiB in bf16)",
        lambda h: None if (size := summary_of(h).cache_bytes) is None else size / 1024,
    ),
    Quantity(
        "gradient norm of the first block, at the end",
        lambda h: summary_of(h).grad_norm.last_step.first_block,
        "log",
    ),
    Quantity(
        "gradient norm of the last block, at the end",
        lambda h: summary_of(h).grad_norm.last_step.last_block,
        "log",
    ),
    Quantity("last block's over the first's, at the end", last_over_first, "log"),
)


def has_changes(layout: Layout) -> bool:
    """Whether the runs are steps of such a way."""
    return CHANGE in layout.factors and len(layout.levels[CHANGE]) > 1


def what_each_step_changed(layout: Layout, arms: Sequence[Arm]) -> Chart | None:
    """A panel for each quantity: every run a dot, and a line through the medians of each arm."""
    if not has_changes(layout):
        return None
    shown = [q for q in QUANTITIES if any(values_of(arm, q) for arm in arms)]
    changes = [str(change) for change in layout.levels[CHANGE]]
    groups = groups_of(layout, arms)
    looks = [look_of(name) if name in PLACEMENTS else None for name in groups]
    if None in looks:
        looks = [*categories(len(groups))]
    panels = []
    for index, quantity in enumerate(shown):
        series = []
        for place, (label, look) in enumerate(zip(groups, looks, strict=True)):
            assert look is not None
            aside = 0.12 * (place - (len(groups) - 1) / 2)
            series += series_of(quantity, changes, groups[label], label, look, aside)
        panels.append(Panel(series, *divmod(index, 2), quantity.name, y=axis_of(quantity, series)))
    seeds = plural(max(len(arm.histories) for arm in arms), "seed")
    caption = (
        f"Each change is added to those before it. Dots: single runs, up to {seeds}; line: their "
        f"median. {matched_in(groups)} A run that diverged has no dot in the losses."
    )
    ends = [
        ", ".join(
            f"{label} {median(values_of(list(of_group.values())[end], QUANTITIES[0])):.3f}"
            for label, of_group in groups.items()
        )
        for end in (0, -1)
    ]
    loss = f"Median validation loss with the first: {ends[0]}; with the last: {ends[1]}."
    return Chart(
        "changes",
        f"Validation loss with the first change: {ends[0]}; with the last: {ends[1]}",
        "Each step to the right adds one change. A jump in a panel: that change made the "
        "difference.",
        caption,
        f"{len(shown)} quantities by change. {loss}",
        panels,
        Axis(
            "",
            limits=(-0.5, len(changes) - 0.5),
            ticks=tuple((float(i), words_of(change)) for i, change in enumerate(changes)),
        ),
        Axis("value"),
    )


def series_of(
    quantity: Quantity,
    changes: Sequence[str],
    of_group: Mapping[str, Arm],
    label: str,
    look: Look,
    aside: float,
) -> list[Series]:
    """The line through an arm's medians, and its runs, drawn a little aside."""
    places = [float(changes.index(change)) for change in of_group]
    values = [values_of(arm, quantity) for arm in of_group.values()]
    dots = [
        (place + aside, value)
        for place, each in zip(places, values, strict=True)
        for value in each
        if math.isfinite(value)
    ]
    name = placement_words(label) if label in PLACEMENTS else label
    line = Series(name, look, places, [median(each) for each in values], width=1.6)
    points = Series(name, look, [x for x, _ in dots], [y for _, y in dots], kind="dots")
    keys = (key_of(PLACEMENT, label),)
    return [replace(line, keys=keys), replace(points, keys=keys)]


def axis_of(quantity: Quantity, series: Sequence[Series]) -> Axis:
    """The axis of a quantity: from 0, log where it spans much, or as wide as the values."""
    values = [v for each in series for v in each.y if math.isfinite(v)]
    if quantity.scale == "log" and values and 0 < 5 * min(values) < max(values):
        return Axis(quantity.name, "log")
    if quantity.scale == "from 0" and values:
        return Axis(quantity.name, limits=(0.0, 1.08 * max(values) or 1.0))
    return Axis(quantity.name)


def groups_of(layout: Layout, arms: Sequence[Arm]) -> dict[str, dict[str, Arm]]:
    """The arms by all factors but the change, and in each group by the change."""
    groups: dict[str, dict[str, Arm]] = {}
    others = [index for index, name in enumerate(layout.factors) if name != CHANGE]
    change = layout.factors.index(CHANGE)
    for arm in arms:
        label = ", ".join(str(arm.key[index]) for index in others)
        label = label or str(arm.histories[0].run.setting(PLACEMENT))
        groups.setdefault(label, {})[str(arm.key[change])] = arm
    return groups


def values_of(arm: Arm, quantity: Quantity) -> list[float]:
    """A quantity of each run of an arm that has it."""
    values = [quantity.of(history) for history in arm.histories]
    return [value for value in values if value is not None and not math.isnan(value)]


def words_of(change: str) -> str:
    """The name of a change without its number: 03_rotary is rotary."""
    return change.partition("_")[2].replace("_", " ") or change


def matched_in(groups: Mapping[str, Mapping[str, Arm]]) -> str:
    """What the steps have alike, in a sentence, and how far they are apart in it."""
    arms = [arm for group in groups.values() for arm in group.values()]
    alike: dict[Value, tuple[str, Callable[[Summary], float | None]]] = {
        "parameters": ("of parameters", lambda s: s.parameters),
        "flops": ("of FLOPs per token in a forward pass", lambda s: s.flops_per_token),
    }
    ways = settings_in(arms, "match")
    if len(ways) > 1 or ways[0] not in alike:
        return "The steps are not matched in one quantity."
    words, value = alike[ways[0]]
    apart = widest([arm.median(value) for arm in group.values()] for group in groups.values())
    return (
        f"All steps have the same number {words} (match={ways[0]}){apart}: the width of the "
        "feed-forward layers is chosen so."
    )


def widest(groups: Iterable[Sequence[float]]) -> str:
    """How far values of a group are apart, at the most; empty where they were not recorded."""
    spreads = [max(values) / min(values) - 1 for values in groups if all(v > 0 for v in values)]
    return f", at most {max(spreads):.2%} apart" if spreads else ""


def settings_in(arms: Sequence[Arm], name: str) -> list[Value]:
    """The different values of a setting over all runs."""
    return list(dict.fromkeys(h.run.setting(name) for arm in arms for h in arm.histories))


def changes_table(layout: Layout, arms: Sequence[Arm]) -> Table:
    """Each change with its losses over the seeds, and with the sizes of one arm."""
    groups = groups_of(layout, arms)
    main = [f"loss, {label}" for label in groups]
    main += [f"over the step before, {label}" for label in groups]
    columns = ["change", *main]
    columns += ["feed-forward width", "parameters", "active", "MFLOPs per token"]
    rows = []
    for change in map(str, layout.levels[CHANGE]):
        arm = next(group[change] for group in groups.values() if change in group)
        rows.append(
            [
                Cell(words_of(change), change),
                *(losses_cell(group.get(change)) for group in groups.values()),
                *(difference_cell(group, change) for group in groups.values()),
                number_cell(arm.median(lambda s: s.ff_dim), ",.0f"),
                number_cell(arm.median(lambda s: s.parameters), ",.0f"),
                number_cell(arm.median(lambda s: s.active_parameters), ",.0f"),
                number_cell(arm.median(lambda s: s.flops_per_token) / 1e6, ",.3f"),
            ]
        )
    return compact(Table(columns, rows, frozenset(main)))


def sizes_of(layout: Layout, arms: Sequence[Arm]) -> str:
    """Whose sizes the table has: of the first placement, or of the first that has the step."""
    groups = groups_of(layout, arms)
    first, *others = groups
    if len(groups[first]) == len(layout.levels[CHANGE]):
        return first
    return f"the first of {', '.join([first, *others])} that has the step"


def losses_cell(arm: Arm | None) -> Cell:
    """The median and the range of an arm's losses, and of how many seeds."""
    losses = values_of(arm, QUANTITIES[0]) if arm else []
    cell = spread_cell(losses)
    return replace(cell, shown=f"{cell.shown}, {plural(len(losses), 'seed')}") if losses else cell


def difference_cell(group: Mapping[str, Arm], change: str) -> Cell:
    """Loss over that of the step before: empty without one, a dash where one did not learn."""
    before = next((name for name in group if number_of(name) == number_of(change) - 1), None)
    if before is None or change not in group:
        return number_cell(None)
    if any(not group[name].learned or group[name].not_learned for name in (before, change)):
        return NO_DIFFERENCE
    after, earlier = (median(values_of(group[name], QUANTITIES[0])) for name in (change, before))
    return number_cell(after - earlier, "+.3f")


def number_of(change: str) -> float:
    """The place of a change on the way: 3 for 03_rotary, nan for one that has none."""
    number = change.partition("_")[0]
    return int(number) if number.isdecimal() else math.nan


def descriptions(layout: Layout) -> list[tuple[str, str]]:
    """Each change in words: the comment at the head of its file in conf/change."""
    heads = {path.stem: head_of(path) for path in (Path(CONF) / "change").glob("*.yaml")}
    changes = [str(change) for change in layout.levels[CHANGE]]
    return [(words_of(change), heads[change]) for change in changes if change in heads]


def head_of(path: Path) -> str:
    """The comment at the head of a config, without the line of its package."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line[2:] for line in comment if "@package" not in line)


def not_said(layout: Layout, arms: Sequence[Arm]) -> list[str]:
    """What these runs cannot say, each sentence where it is true of them."""
    rates = settings_in(arms, RATE)
    return [
        "A difference smaller than the spread over the seeds may be chance, and a few seeds show "
        "that spread only roughly.",
        *[
            "Every step has the same learning rate, tuned for none of them; a change can look "
            "better or worse for that alone."
        ][: len(rates) == 1],
        "Grouped queries, windows and sinks are made for contexts of thousands of tokens, where "
        "they save memory and time. In a short context what they save is a small part of all "
        "memory, and what they cost in loss says little about a long one.",
        *experts_against_dense(layout, arms),
        "Experts pay where there is much to learn and many tokens to learn it from: here each "
        "expert sees a share of few. Their speed is that of a loop over experts, except in "
        "bfloat16 on a GPU, where it is that of one grouped product.",
        "Jobs that run at the same time slow each other down, and the last ones have the machine "
        "to themselves: tokens per second compare steps only where jobs ran one at a time.",
        *[
            "Dropout is for a text that is read many times. A short run reads less than the whole "
            "text, so dropout mostly slows it down."
        ][: read_in_part(arms)],
        "Rotary positions beyond the trained length (YaRN) are not among the changes: no context "
        f"is extended. {tokenizer_words(arms)}",
        "In another order each change would have been measured on top of others.",
    ]


def read_in_part(arms: Sequence[Arm]) -> bool:
    """Whether every run trained on fewer tokens than its training text has."""
    reads = [(h.tokens, summary_of(h).corpus.train_tokens) for arm in arms for h in arm.histories]
    return all(read is not None and whole is not None and read < whole for read, whole in reads)


def tokenizer_words(arms: Sequence[Arm]) -> str:
    """That all steps read the same tokens."""
    first, second = (published_model(name).vocab_size for _, name in (FROM, TO))
    names = " and ".join(f"tokenizer={name}" for name in settings_in(arms, "tokenizer.name"))
    return (
        f"Nor is the tokenizer ({first:,} tokens in GPT-2, {second:,} in GPT-OSS): all steps read "
        f"the tokens of {names}."
    )


def experts_against_dense(layout: Layout, arms: Sequence[Arm]) -> list[str]:
    """What the first step with experts has and takes against the last one without, by group."""
    found = []
    for label, group in groups_of(layout, arms).items():
        with_experts = [name for name in group if has_experts(group[name])]
        dense = [name for name in group if name < min(with_experts, default="")]
        if not dense:
            continue
        name, other = min(with_experts), max(dense)
        parameters, flops = (
            group[name].median(value) / (group[other].median(value) or math.nan)
            for value in (lambda s: s.parameters, lambda s: s.flops_per_token)
        )
        if not math.isnan(parameters + flops):
            found.append(
                f"{parameters:.2f} times the parameters and {flops:.2f} times the FLOPs per token "
                f"of {words_of(other)} ({label})"
            )
    if not found:
        return []
    return [
        f"The step to experts has {'; '.join(found)}. With equal parameters experts do less "
        "arithmetic than a dense layer, with equal arithmetic they have more parameters; neither "
        "is the fair comparison."
    ]


def has_experts(arm: Arm) -> bool:
    """Whether the models of an arm have experts."""
    count = arm.histories[0].run.setting("model.experts.count")
    return isinstance(count, int) and count > 0


def models_table() -> list[tuple[str, str, str]]:
    """Both published models: what, of the first, of the second."""
    configs = [published_model(name) for _, name in (FROM, TO)]
    shorter = min(config.context_length for config in configs)
    first, second = (described(config, shorter) for config in configs)
    return [(what, first[what], second[what]) for what in first]


def described(config: GPTConfig, length: int) -> dict[str, str]:
    """The parts and costs of a model, in words; costs in its whole context, and of `length`."""
    grouped = f", {config.kv_heads} of keys and values" if config.kv_heads < config.n_heads else ""
    heads = f"{config.n_heads} of width {config.head_dim}{grouped}"
    if config.heads_dim > config.emb_dim:
        heads += (
            f"; {config.n_heads} x {config.head_dim} = {config.heads_dim:,} is wider than the "
            f"embedding of {config.emb_dim:,}"
        )
    width = f"{config.emb_dim:,}"
    per_token = cached_values(config, 1) * BF16_BYTES
    short = cached_values(config, length) * BF16_BYTES / 2**20
    whole = f"{cached_values(config) * BF16_BYTES / 2**30:,.2f} GiB"
    return {
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.context_length:,}",
        "embedding": width,
        "blocks": str(config.n_layers),
        "heads": heads,
        "norm": f"{NORMS[config.norm.kind].__name__}, {config.norm.placement}",
        "feed-forward": feed_forward_words(config),
        "experts": f"{config.experts.active} of {config.experts.count} for a token"
        if config.experts.count
        else "none",
        "positions": position_words(config),
        "what a token sees": window_words(config),
        "sinks": "one for each head" if config.attention.sinks else "none",
        "biases": bias_words(config),
        "dropout": f"{config.drop_rate:g}" if config.drop_rate else "none",
        "head": "tied to the embedding" if config.tie_head else "a matrix of its own",
        "parameters": f"{parameter_count(config):,}",
        "active parameters": f"{active_parameter_count(config):,}",
        f"keys and values of {length:,} tokens, in bf16": f"{short:,.1f} MiB",
        "keys and values of its context, in bf16": f"{whole}; {per_token:,} bytes for one token",
        f"forward pass in a text of {length:,} tokens": gflops(flops_per_token(config, length)),
        "forward pass in a text of its context": gflops(flops_per_token(config)),
    }


def gflops(flops: float) -> str:
    """Operations per token, in words."""
    return f"{flops / 1e9:,.3g} GFLOPs per token"


def bias_words(config: GPTConfig) -> str:
    """Which linear layers have a bias."""
    if config.qkv_bias and config.bias:
        return "all linear layers" + ("" if config.head_bias else " but the head")
    of_some = {"queries, keys and values": config.qkv_bias, "the other layers": config.bias}
    return next((name for name, on in of_some.items() if on), "none")


def feed_forward_words(config: GPTConfig) -> str:
    """Activation and width of the feed-forward layers."""
    parts, layer = config.feed_forward, ACTIVATIONS[config.activation].__name__
    layer = FORMULAS.get(config.activation, layer)
    words = [f"SwiGLU with {layer}" if parts.gated else layer]
    words += [f"clamped at {parts.clamp:g}"] if parts.clamp is not None else []
    words += [f"{parts.offset:g} added to the up projection"] if parts.offset else []
    each = ", each expert" if config.experts.count else ""
    return f"{', '.join(words)}; {config.ff_dim:,} wide{each}"


def position_words(config: GPTConfig) -> str:
    """How tokens know their places."""
    position = config.position
    if position.kind != "rotary":
        return position.kind
    longer = ", YaRN" if position.yarn != YarnConfig() else ""
    return f"rotary, base {position.bases[0]:,.0f}{longer}"


def window_words(config: GPTConfig) -> str:
    """The windows of a period of layers."""
    windows = config.attention.windows
    if not any(windows):
        return "all before it"
    seen = " and ".join(f"{window} tokens" if window else "all" for window in windows)
    return f"{seen}, in alternate layers"
