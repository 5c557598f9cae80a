"""Figures of what the probes saw inside the blocks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.analysis.arms import Arm, Layout
from experiments.report.chart import (
    Axis,
    Chart,
    Panel,
    Series,
    number,
)
from experiments.report.drawing import (
    left_out_note,
    name_extremes,
    seeds_note,
)
from experiments.report.facets import (
    BLOCK,
    MOST_PANELS,
    Facet,
    comparable,
    facets_of,
    frames_of,
    grid_of,
    lost_note,
)
from experiments.report.gradients import blocks_panels
from experiments.report.headings import (
    title_of_statistic,
)
from experiments.report.style import on_scale
from normscope.stats import Statistic

# Statistics of which the first step matters most: the update that warm-up makes small.
FIRST = {"update_ratio"}
SAME = 0.01  # share by which values at a step may differ that are called the same
# How to read a statistic over the blocks.
READ = {
    "activation_rms": "A rising line: each block adds to the residual stream. A flat line: a norm "
    "sets the stream back to one size.",
    "attention_entropy": "1: attention is spread evenly over all tokens it may see. Near 0: it "
    "looks at a single token.",
    "expert_max_load": "1: every expert gets its equal share of tokens. Higher: one gets more.",
    "expert_entropy": "1: the experts share the tokens evenly. Lower: a few do most of the work.",
    "token_cosine": "1: the block's output is alike for all tokens, so it tells them apart no "
    "longer. 0: the tokens are unrelated.",
    "stream_kurtosis": "3: values are spread as in a normal distribution. Far more: a few values "
    "are huge.",
    "angular_distance": "How far a block turns the residual stream: 0 not at all, 0.5 by a right "
    "angle. Blocks that hardly turn it do little.",
    "update_ratio": "By what share of its size one update changes a block's weights.",
    "layer_drop": "How much the loss rises when this one block is left out. Near 0: the block does "
    "little.",
}


def inside(layout: Layout, statistic: Statistic) -> Chart | None:
    """A probed statistic over the blocks, at the probes of a slider."""

    def probed(arm: Arm) -> list[pd.DataFrame]:
        tables = [h.probes[statistic.name] for h in arm.histories if statistic.name in h.probes]
        return [on_scale(table.where(np.isfinite(table))) for table in tables]

    whole, layout = layout, layout.where(lambda arm: bool(probed(arm)))
    without = len(whole.panels) - len(layout.panels)
    layout = layout.thinned(MOST_PANELS)
    facets, grid = facets_of(layout, probed), grid_of(layout)
    if not facets:
        return None
    tables = {facet.keys: probed(facet.arm) for facet in facets}
    frames = frames_of([t for each in tables.values() for t in each], len(facets))
    note = ""
    if len(frames) > 1 and are_alike(facets, tables, frames[0]):
        note = f" At step {frames[0]} all arms have the same values, which are not shown."
        frames = frames[1:]
    if len(frames) == 1:
        note += f" Measured at step {frames[0]}."
    if without:
        note += f" {without} of {len(whole.panels)} panels have nothing to measure and are "
        note += "left out."
    rule = ""
    if len(layout.factors) > 1:
        rule = " The heading names two arms that differ in one setting, and those like either."
    panels, frame = blocks_panels(facets, grid, tables, frames), frames[-1]
    if statistic.name in FIRST:
        frame = frames[0]
    ends = ends_by_block(panels, facets, frame)
    return Chart(
        statistic.name,
        title_of_statistic(statistic, series_at(panels, named(comparable(facets)), frame), frame),
        READ.get(statistic.name, "One point for each block; the first block is on the left."),
        f"{statistic.axis}. {seeds_note([f.arm for f in facets])}{lost_note(facets)}{rule}"
        f"{left_out_note(layout)}{note}",
        f"{statistic.title}. First to last block at step {frame}, {statistic.words}: "
        f"{name_extremes(ends)}.",
        panels,
        BLOCK,
        Axis(statistic.words.partition(";")[0], statistic.scale, shows=statistic.shows),
        grid.rows,
        grid.columns,
        frame=frame,
    )


def named(facets: Sequence[Facet]) -> list[Facet]:
    """The arms as a heading calls them: also that they learned nothing."""
    return [
        replace(facet, label=f"stuck {facet.label}")
        if facet.arm.stuck == len(facet.arm.histories)
        else facet
        for facet in facets
    ]


def are_alike(
    facets: Sequence[Facet], tables: dict[tuple[str, ...], list[pd.DataFrame]], step: int
) -> bool:
    """Whether several arms have the same values at a step, within SAME."""
    rows = [[t.loc[step] for t in tables[f.keys] if step in t.index] for f in facets]
    # Runs of an arm may have different numbers of blocks: each has the mean of those that have it.
    means = [pd.concat(each, axis=1).mean(axis=1).to_numpy() for each in rows if each]
    if len(means) < 2 or len({len(mean) for mean in means}) > 1:
        return False
    return all(bool(np.allclose(mean, means[0], rtol=SAME, atol=0)) for mean in means[1:])


def series_at(
    panels: Sequence[Panel], facets: Sequence[Facet], frame: int
) -> list[tuple[Facet, Series]]:
    """Each arm with its series at a step."""
    by_keys = {s.keys: s for panel in panels for s in panel.series if s.frame == frame}
    return [(facet, by_keys[facet.keys]) for facet in facets if facet.keys in by_keys]


def ends_by_block(
    panels: Sequence[Panel], facets: Sequence[Facet], frame: int
) -> list[tuple[float, str]]:
    """First and last block of each arm at a step, with words."""
    return [
        (s.middle[-1], f"{f.label} from {number(s.middle[0])} to {number(s.middle[-1])}")
        for f, s in series_at(panels, facets, frame)
    ]
