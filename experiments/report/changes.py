"""What a page says of runs that go from one architecture to another by one change at a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.analysis.arms import Arm, Layout
from experiments.analysis.histories import History
from experiments.analysis.numbers import median
from experiments.analysis.runs import CHANGE, PLACEMENT
from experiments.records.summary import Summary
from experiments.report.drawing import (
    ReportFigure,
    add_legend,
    legend_key,
    lines_for,
    plural,
)
from experiments.report.style import log_if_wide, panels
from experiments.report.tables import MB, Cell, Table, number_cell, without_empty
from experiments.settings.sizes import published_model
from gpt import (
    ACTIVATIONS,
    NORMS,
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
NOT_SAID = (
    "Differences smaller than the range over the seeds are none, and of a few seeds that range is "
    "itself a guess.",
    "Every step has one learning rate, which was tuned for none of them; a change can look better "
    "or worse for that alone.",
    "Grouped queries, windows and sinks are made for contexts of thousands of tokens, where they "
    "save memory and time. In a short context they save next to nothing, and what they cost in "
    "loss says little about a long one.",
    "Experts pay where there is much to learn and many tokens to learn it from: here each expert "
    "sees a share of few. On a CPU their speed is that of a loop over experts, not that of a "
    "grouped product on a GPU.",
    "Dropout is for a text that is read many times. A short run does not read this one once, and "
    "dropout mostly slows it down.",
    "Rotary positions beyond the trained length (YaRN) are not among the changes: no context is "
    "extended. Nor is the tokenizer, of 50,257 and 201,088 tokens.",
    "In another order each change would have been measured on top of others.",
)


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


def step_memory(history: History) -> float | None:
    """Peak of a training step in MB."""
    if "peak" not in history.memory.index or "measured_bytes" not in history.memory:
        return None
    return float(history.memory.loc["peak", "measured_bytes"]) / MB  # type: ignore[arg-type]


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
    Quantity("peak memory of a step (MB)", step_memory),
    Quantity("tokens per second", lambda h: summary_of(h).tokens_per_s),
    Quantity(
        "keys and values of a context (KB in bf16)",
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


def what_each_step_changed(layout: Layout, arms: Sequence[Arm]) -> ReportFigure | None:
    """A panel for each quantity: every run a dot, and a line through the medians of each arm."""
    if not has_changes(layout):
        return None
    shown = [q for q in QUANTITIES if any(values_of(arm, q) for arm in arms)]
    changes = [str(change) for change in layout.levels[CHANGE]]
    groups = groups_of(layout, arms)
    figure, axes = panels(-(-len(shown) // 2), 2, (4.4, 2.5))
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    lines = lines_for(list(groups), list(groups))
    for axis, quantity in zip(axes, shown, strict=False):
        for index, line in enumerate(lines):
            of_group = groups[str(line.level)]
            places = [changes.index(change) for change in of_group]
            values = [values_of(arm, quantity) for arm in of_group.values()]
            axis.plot(places, [median(each) for each in values], linewidth=1.2, color=line.colour)
            aside = 0.12 * (index - (len(lines) - 1) / 2)
            for place, each in zip(places, values, strict=True):
                finite = [value for value in each if np.isfinite(value)]
                style = line.style | {"linestyle": "", "alpha": 0.75}
                axis.plot([place + aside] * len(finite), finite, markersize=3.5, **style)
        if quantity.scale == "log":
            log_if_wide(axis)
        elif quantity.scale == "from 0":
            axis.set_ylim(0, 1.08 * axis.dataLim.ymax)
        axis.set_title(quantity.name)
        axis.set_xlim(-0.5, len(changes) - 0.5)
        lowest = axis in axes[len(shown) - 2 : len(shown)]
        labels = [words_of(change) for change in changes] if lowest else []
        axis.set_xticks(range(len(changes)), labels or [""] * len(changes), rotation=60, ha="right")
    add_legend(figure, [legend_key(line) for line in lines])
    seeds = plural(max(len(arm.histories) for arm in arms), "seed")
    caption = (
        f"Each change is added to those before it. Dots: single runs, up to {seeds}; line: their "
        f"median. {matched_in(arms)} A run that diverged has no dot in the losses."
    )
    first, last = (
        ", ".join(
            f"{label} {median(values_of(arm, QUANTITIES[0])):.3f}"
            for label, of_group in groups.items()
            for arm in [list(of_group.values())[end]]
        )
        for end in (0, -1)
    )
    alt = f"Ten quantities by change. Median validation loss with the first: {first}; with the "
    alt += f"last: {last}."
    return ReportFigure("changes", "What each change did", caption, alt, figure)


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


def matched_in(arms: Sequence[Arm]) -> str:
    """What the steps have alike, in a sentence."""
    ways = {history.run.setting("match") for arm in arms for history in arm.histories}
    words = {"parameters": "of parameters", "flops": "of FLOPs per token in a forward pass"}
    way = ways.pop() if len(ways) == 1 else None
    if way not in words:
        return "The steps are not matched in one quantity."
    alike = f"All steps have the same number {words[str(way)]} (match={way}), but for rounding"
    return f"{alike}: the width of the feed-forward layers is chosen so."


def changes_table(layout: Layout, arms: Sequence[Arm]) -> Table:
    """Each change with the medians of its arms, over the seeds."""
    groups = groups_of(layout, arms)
    columns = ["change", "feed-forward width", "parameters", "active", "MFLOPs per token"]
    columns += [f"loss, {label}" for label in groups]
    columns += [f"over the step before, {label}" for label in groups]
    rows, before = [], dict.fromkeys(groups, float("nan"))
    for change in map(str, layout.levels[CHANGE]):
        arm = next(group[change] for group in groups.values() if change in group)
        losses = {
            label: median(values_of(group[change], QUANTITIES[0])) if change in group else np.nan
            for label, group in groups.items()
        }
        rows.append(
            [
                Cell(words_of(change), change),
                number_cell(arm.median(lambda s: s.ff_dim), ",.0f"),
                number_cell(arm.median(lambda s: s.parameters), ",.0f"),
                number_cell(arm.median(lambda s: s.active_parameters), ",.0f"),
                number_cell(arm.median(lambda s: s.flops_per_token) / 1e6, ",.3f"),
                *(number_cell(loss, ".3f") for loss in losses.values()),
                *(number_cell(losses[label] - before[label], "+.3f") for label in groups),
            ]
        )
        before = losses
    return without_empty(Table(columns, rows))


def models_table() -> list[tuple[str, str, str]]:
    """Both ends of the way in full size: what, of the first, of the second."""
    first, second = (described(published_model(name)) for _, name in (FROM, TO))
    return [(what, first[what], second[what]) for what in first]


def described(config: GPTConfig) -> dict[str, str]:
    """The parts and costs of a model, in words."""
    grouped = f", {config.kv_heads} of keys and values" if config.kv_heads < config.n_heads else ""
    biases = {"queries, keys and values": config.qkv_bias, "other layers": config.bias}
    biased = " and ".join(name for name, on in biases.items() if on)
    width = f"{config.emb_dim:,}"
    per_token = cached_values(config, 1) * BF16_BYTES
    whole = cached_values(config) * BF16_BYTES / 2**30
    return {
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.context_length:,}",
        "embedding": width,
        "blocks": str(config.n_layers),
        "heads": f"{config.n_heads} of width {config.head_dim}{grouped}",
        "norm": f"{NORMS[config.norm.kind].__name__}, {config.norm.placement}",
        "feed-forward": feed_forward_words(config),
        "experts": f"{config.experts.active} of {config.experts.count} for a token"
        if config.experts.count
        else "none",
        "positions": position_words(config),
        "what a token sees": window_words(config),
        "sinks": "one for each head" if config.attention.sinks else "none",
        "biases": biased or "none",
        "dropout": f"{config.drop_rate:g}" if config.drop_rate else "none",
        "head": "tied to the embedding" if config.tie_head else "a matrix of its own",
        "parameters": f"{parameter_count(config):,}",
        "active parameters": f"{active_parameter_count(config):,}",
        "keys and values in bf16": f"{per_token:,} bytes per token; {whole:,.2f} GB in all",
        "forward pass, per token": f"{flops_per_token(config) / 1e9:,.3g} GFLOPs",
    }


def feed_forward_words(config: GPTConfig) -> str:
    """Activation and width of the feed-forward layers."""
    gate = ACTIVATIONS[config.activation].__name__
    words = f"gated by {gate}" if config.feed_forward.gated else gate
    clamp = config.feed_forward.clamp
    words += f", clamped at {clamp:g}" if clamp is not None else ""
    return f"{words}, {config.ff_dim:,} wide"


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
    return f"by turns {seen}"
