"""The report's figures in the order of its page, and the one that leads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from experiments.analysis.arms import Arm, Key, Layout, numeric
from experiments.analysis.tuning import layout_at_best, tune
from experiments.report.changes import what_each_step_changed
from experiments.report.chart import (
    Axis,
    Chart,
    Panel,
)
from experiments.report.drawing import (
    seeds_note,
    unit_note,
)
from experiments.report.facets import (
    BLOCK,
    MOST_IN_ANSWER,
    STEP,
    Facet,
    by_block,
    dash_of,
    dashed_factor,
    facets_of,
    frames_of,
    lost_note,
    switched_by_rate,
)
from experiments.report.gradients import (
    GRAD_NORM,
    gradient_maps,
    gradient_ratio,
    gradients_by_layer,
    most_uneven,
    scaled,
    titled,
    with_blocks,
)
from experiments.report.losses import (
    ends_of,
    limits_of_losses,
    loss,
    loss_series,
    title_of_best,
    title_of_losses,
    token_frequencies,
)
from experiments.report.paper_pictures import figures_of_papers
from experiments.report.power_laws import scaling
from experiments.report.probes import inside
from experiments.report.rates import ranking, rate_maps, rate_sensitivity
from normscope.stats import drawn


def answer(layout: Layout) -> Chart | None:
    """All arms in one view: their losses, and the gradient norm of their blocks.

    Where there are too many arms, each at its best learning rate; None where these are too many.
    """
    note, rates = "", {}
    if len(layout.by_key) > MOST_IN_ANSWER and len(tune(layout)) > 1:
        rates = {tuned.key: tuned.describe_best() for tuned in tune(layout) if tuned.losses}
        layout, note = layout_at_best(layout), " Each arm at its best learning rate."
    facets = [in_one_panel(facet, layout) for facet in facets_of(layout)]
    facets = switched_by_rate(facets) if rates else facets
    told = [with_rate(facet, rates) for facet in facets]
    if len(facets) > MOST_IN_ANSWER:
        return None
    losses = [series for facet in facets for series in loss_series(facet, layout)]
    tables = {facet.label: with_blocks(facet.arm) for facet in facets}
    most = most_uneven(facets)
    frames = frames_of([t for each in tables.values() for t in each], len(facets), most.step)
    blocks = [s for f in facets for s in by_block(f, tables[f.label], frames)]
    if not losses or not blocks:
        return None
    named = {series.label: series for series in reversed(losses)}
    losses = [replace(s, name=s.label) if named.get(s.label) is s else s for s in losses]
    left = Panel(losses, 0, 0, "Loss", references=token_frequencies(facets, layout))
    by_blocks = Panel(blocks, 0, 1, "Gradient norm by block", BLOCK)
    norms = Axis("gradient norm", "log")
    (right,), _ = scaled([by_blocks], norms, False, titled(facets, most))
    return Chart(
        "answer",
        f"{title_of_best(told, layout) if rates else title_of_losses(told, layout)}"
        f"{most.words('; ')}",
        "Loss: a lower curve has learned more. Gradient norm: a flat line gives every block the "
        "same gradient; move the slider to see it change.",
        f"{seeds_note([f.arm for f in facets])} Loss: line, training (a running median); dots, "
        f"validation. Gradient norms: {GRAD_NORM.axis}, before clipping.{most.range_note}"
        f"{lost_note(facets)}{note}"
        f"{unit_note(layout.unit)}",
        f"Loss against steps, and gradient norm by block. {ends_of(told)}",
        [left, right],
        STEP,
        replace(Axis(layout.unit.axis), limits=limits_of_losses(facets, layout)),
        widths=(3, 2),
        frame=most.step,
    )


def in_one_panel(facet: Facet, layout: Layout) -> Facet:
    """An arm where all share a panel: under its whole name, with a dash for each other setting."""
    has_dash = len(layout.panel_factors) == 1 and dashed_factor(layout) is not None
    own = dash_of(layout, layout.panels[facet.panel])
    look = facet.look if has_dash else facet.look.varied(facet.panel - own)
    return replace(facet, name=facet.label, look=look)


def with_rate(facet: Facet, rates: Mapping[Key, str]) -> Facet:
    """An arm with its best learning rate in brackets behind its name, where it is among `rates`."""
    rate = rates.get(facet.arm.key)
    return replace(facet, label=f"{facet.label} ({rate})") if rate else facet


Maker = Callable[[], Chart | None]


def makers(layout: Layout, arms: Sequence[Arm]) -> list[Maker]:
    """Functions that make a figure, in the order of the page; None where its data is missing.

    Where learning rates vary, the page begins with them: no other figure has all arms fairly.
    """
    sizes = [
        name
        for name in layout.factors
        if name.startswith("model.") and len(numeric(layout.levels[name])) > 1
    ]
    return [
        *figures_of_papers([history.run for arm in arms for history in arm.histories]),
        partial(rate_maps, layout),
        partial(ranking, layout),
        partial(answer, layout),
        partial(what_each_step_changed, layout, arms),
        partial(loss, layout),
        partial(gradients_by_layer, layout),
        partial(gradient_maps, layout),
        partial(gradient_ratio, layout),
        *(partial(scaling, layout, name) for name in sizes),
        partial(rate_sensitivity, layout),
        *(partial(inside, layout, statistic) for statistic in drawn()),
    ]
