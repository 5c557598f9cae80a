"""The report on files made by hand, whose right answers are known."""

import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.findings import verdict_of
from experiments.analysis.histories import read_history
from experiments.analysis.numbers import fit_power
from experiments.analysis.runs import PLACEMENT, Run, find_runs
from experiments.analysis.scaling import MOST_MISS, Scaling, scalings
from experiments.analysis.tuning import describe_grids, tune
from experiments.jobs.sweep import write_runs_csv
from experiments.records.summary import Summary
from experiments.report import figures, gradients, power_laws, write_report
from experiments.report import losses as loss_figures
from experiments.report.__main__ import main
from experiments.report.chart import Chart, arrows
from experiments.report.facets import facets_of, legend_of
from experiments.report.figures import makers
from experiments.report.page import differences, render
from experiments.report.palette import look_of
from experiments.report.rates import rate_sensitivity
from experiments.report.tables import Table, best_table, results_table
from gpt import ConfigError
from made_runs import HOSTILE, make_run

VOID = {"meta", "link", "img", "source", "input", "br"}


def arms_of(folder: Path, by: Sequence[str] | None = None) -> tuple[Layout, list[Any]]:
    runs = find_runs(folder)
    factors = factors_of(runs, by)
    arms = form_arms([read_history(run) for run in runs], factors)
    return Layout(arms, factors), arms


def drawings(layout: Layout, arms: Sequence[Any]) -> dict[str, Chart]:
    """Every figure by its name."""
    return {drawn.name: drawn for make in makers(layout, arms) if (drawn := make()) is not None}


class Page(HTMLParser):
    """Elements with their attributes, ids, text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(filter(None, self.text))


def frame(table: Table) -> pd.DataFrame:
    """A table as text."""
    rows = [[cell.shown for cell in row] for row in table.rows]
    return pd.DataFrame(rows, columns=table.columns).set_index(table.columns[0])


def tables_of(page: Path) -> list[pd.DataFrame]:
    """The page's tables as text, by the markup alone."""
    found = []
    for table in re.findall(r"<table.*?</table>", page.read_text(), re.DOTALL):
        rows = []
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL):
            cells = re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
            rows.append([re.sub(r"<[^>]+>", "", cell).strip() for cell in cells])
        found.append(pd.DataFrame(rows[1:], columns=rows[0]).set_index(rows[0][0]))
    return found


def listed(page: Path) -> dict[str, str]:
    """The page's lists of names and values as one."""
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.read_text())
    return {re.sub(r"&#39;", "'", name): value for name, value in pairs}


@pytest.mark.usefixtures("unrendered")
def test_results_count_and_summarise_each_arm(tmp_path: Path) -> None:
    for seed, loss in enumerate((1.0, 2.0, 4.5)):
        make_run(tmp_path, f"a{seed}", seed=seed, val_losses=(4.0, loss))
    make_run(tmp_path, "b0", placement="post_ln", val_losses=(4.0, 2.5))
    gone = {"status": "diverged", "diverged_at_step": 1, "reason": "loss was not finite at step 1"}
    make_run(tmp_path, "b1", placement="post_ln", seed=1, val_losses=(4.0, 3.5), **gone)
    make_run(tmp_path, "b2", placement="post_ln", seed=2, val_losses=(4.0, 2.985))
    make_run(tmp_path, "b3", placement="post_ln", seed=3, status="failed", error="it broke")
    page = write_report([tmp_path], tmp_path, formats=())
    results = tables_of(page)[0]
    assert results.loc["Pre-LN", "validation loss (nats)"] == "2.000 (1.000 to 4.500)"
    # The failed run has no loss; the diverged one is worst: the median of 2.5, 2.985, inf.
    assert results.loc["Post-LN", "validation loss (nats)"] == "2.985 (2.500 to diverged)"
    assert results["learned"].to_dict() == {"Pre-LN": "2 of 3", "Post-LN": "1 of 4"}
    assert results["not finite"].to_dict() == {"Pre-LN": "", "Post-LN": "1"}
    assert results["failed"].to_dict() == {"Pre-LN": "", "Post-LN": "1"}
    assert "loss rose" not in results  # nobody's did
    assert "last block's gradient norm, at the end 0.5" in Page(page.read_text()).words
    same = "parameters 1,234; tokens 10; peak memory of a step, predicted (MiB) 2.0."
    assert f"The same in every row: {same}" in Page(page.read_text()).words
    words = Page(page.read_text()).words
    assert (
        "Post-LN failed in 2 of 3 runs (1 learned nothing, 1 diverged) and reached 2.50 nats in "
        "the other; Pre-LN learned nothing in 1 of 3 runs (4.50 nats; token frequencies alone give "
        "3.00) and reached 1.00 and 2.00 nats in the others; 1 of 7 runs stopped with an error"
        in words
    )
    assert (
        "5 finished, 1 diverged (not finite: Post-LN) and 1 failed (Post-LN); 2 of the finished "
        "learned no more than token frequencies (Post-LN; Pre-LN)" in words
    )
    assert "it broke" in words
    (loss,) = (f for f in Page(page.read_text()).all("figure") if f["data-chart"] == "loss")
    assert "Pre-LN: 2; " in f"{loss['aria-label']}; "


def test_scaling_finds_the_slope_that_was_put_in(
    tmp_path: Path, figures_alone: Callable[..., None]
) -> None:
    figures_alone("scaling")
    for depth in (2, 4, 8):
        for seed in (0, 1):
            name = f"{depth}-{seed}"
            make_run(tmp_path, f"a{name}", n_layers=depth, seed=seed, last_block=2 * depth**-0.5)
            make_run(
                tmp_path, f"b{name}", n_layers=depth, seed=seed, last_block=3, placement="post_ln"
            )
    layout, arms = arms_of(tmp_path)
    assert len(arms) == 6
    found = {(s.quantity, s.level): s for s in scalings(layout, "model.n_layers")}
    pre = found["last block, at initialisation", "pre_ln"]
    assert pre.fit is not None
    assert pre.fit.slope == pytest.approx(-0.5)
    assert len(pre.x) == 6
    post = found["last block, at the end", "post_ln"].fit
    assert post is not None
    assert post.slope == pytest.approx(0, abs=1e-12)
    page = write_report([tmp_path], tmp_path, formats=("svg",))
    words = Page(page.read_text()).words
    assert (
        "From 2 to 8 blocks the last block's gradient norm at initialisation goes from 3 to 3 "
        "under Post-LN" in words
    )
    assert "from 1.41 to 0.707 under Pre-LN (exponent -0.50, 95% interval -0.50 to -0.50)" in words
    assert (
        "Pre-LN: the gradient norm of the last block, at initialisation, falls as the power -0.50 "
        "of the number of blocks (95 % interval -0.50 to -0.50)" in words
    )
    chart = power_laws.scaling(layout, "model.n_layers")
    assert chart is not None
    for series in (series for panel in chart.panels for series in panel.series):
        placement = "pre_ln" if series.label == "Pre-LN" else "post_ln"
        assert series.look == look_of(placement)
    assert (tmp_path / "figures" / "scaling_n_layers.svg").is_file()


@pytest.mark.parametrize(
    ("losses", "status", "title"),
    [
        (
            (2.45, 2.55),
            "finished",
            "No arm differs from the others beyond the runs' range: validation losses are 2.40 to "
            "2.55 nats",
        ),
        (
            (2.55, 2.65),
            "finished",
            "Pre-LN ends at a validation loss of 2.40 and 2.50 nats, Post-LN at 2.55 and 2.65",
        ),
        (
            (2.45, 2.55),
            "diverged",
            "Pre-LN ends at a validation loss of 2.40 and 2.50 nats, Post-LN at 2.45 and diverged",
        ),
    ],
)
def test_an_arm_is_best_where_its_runs_are_and_a_failure_is_named(
    tmp_path: Path, losses: Sequence[float], status: str, title: str
) -> None:
    for seed, loss in enumerate((2.4, 2.5)):
        make_run(tmp_path, f"a{seed}", seed=seed, val_losses=(4.0, loss))
        more = {"seed": seed, "status": status if seed else "finished", "placement": "post_ln"}
        make_run(tmp_path, f"b{seed}", val_losses=(4.0, losses[seed]), **more)
    chart = loss_figures.loss(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.title == title


def test_the_answer_compares_the_best_of_each_placement_at_rates_that_it_names(
    tmp_path: Path,
) -> None:
    """Post-LN without warm-up is far worse at its best rate than with, and no rival of Pre-LN."""
    best = {("pre_ln", 0): 2.2, ("pre_ln", 9): 2.1, ("post_ln", 0): 2.9, ("post_ln", 9): 2.4}
    for (placement, warmup), loss in best.items():
        for index, rate in enumerate((1e-3, 3e-3, 1e-2)):
            away = abs(index - (2 if placement == "pre_ln" else 1))
            options = {"placement": placement, "warmup": warmup, "lr": rate}
            name = f"{placement}{warmup}{rate}"
            make_run(tmp_path, name, val_losses=(4.0, loss + away), **options)
    chart = figures.answer(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.title.startswith(
        "Each placement at its best: Pre-LN with 9 steps of warm-up (lr 0.01, the grid's edge) "
        "ends at a validation loss of 2.10 nats, Post-LN with 9 steps of warm-up (lr 0.003) at 2.40"
    )


def test_a_heading_counts_the_arms_near_the_lowest(tmp_path: Path) -> None:
    for name, end in (("pre_ln", 2.3), ("b2t", 2.33), ("deepnorm", 2.34), ("post_ln", 2.9)):
        make_run(tmp_path, name, placement=name, val_losses=(4.0, end))
    chart = loss_figures.loss(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.title == (
        "3 of 4 placements end within 0.05 nats of the lowest, 2.30 (Pre-LN); Post-LN ends at 2.90"
    )


def test_a_heading_names_all_of_three_arms(tmp_path: Path) -> None:
    for name, end in (("pre_ln", 2.3), ("b2t", 2.33), ("post_ln", 2.9)):
        make_run(tmp_path, name, placement=name, val_losses=(4.0, end))
    chart = loss_figures.loss(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.title == (
        "Pre-LN ends at a validation loss of 2.30 nats, B2T at 2.33, Post-LN at 2.90"
    )


@pytest.mark.usefixtures("unrendered")
def test_runs_of_an_arm_may_have_different_numbers_of_blocks(tmp_path: Path) -> None:
    for placement, layers in itertools.product(("pre_ln", "post_ln"), (2, 3)):
        make_run(tmp_path, f"{placement}{layers}", placement=placement, n_layers=layers)
    runs = [read_history(run) for run in find_runs(tmp_path)]
    arms = form_arms(runs, [PLACEMENT])
    drawn = drawings(Layout(arms, [PLACEMENT]), arms)
    (panel,) = drawn["activation_rms"].panels
    assert [s.x for s in panel.series] == [[1, 2, 3]] * 4  # two arms; alike at the first of 3 steps


@pytest.mark.parametrize("lost", [{"status": "diverged"}, {"val_losses": (48.0, 30.0, 13.0)}])
@pytest.mark.usefixtures("unrendered")
def test_a_heading_does_not_compare_with_what_is_lost(tmp_path: Path, lost: dict[str, Any]) -> None:
    """It would be about the run that exploded; the figure shows it, and its caption names it."""
    make_run(tmp_path, "pre_ln", last_block=0.2)
    make_run(tmp_path, "post_ln", placement="post_ln", last_block=6.0)
    run = make_run(tmp_path, "none", placement="no_norm", last_block=1e-9, **lost)
    rows = (run / "gradients.csv").read_text()
    (run / "gradients.csv").write_text(rows.replace("activation_rms,", "activation_rms,9000"))
    drawn = drawings(*arms_of(tmp_path))
    note = (
        " The heading does not speak of No norm, where every run diverged or ended far above the "
        "loss of token frequencies."
    )
    for name, words in (
        ("gradients_by_layer", "Post-LN: the last block gets up to 6 times the first's gradient"),
        ("gradient_ratio", "Post-LN: the last block gets up to 6 times the first's gradient"),
        ("activation_rms", "Root mean square at step 2 hardly differs between the arms: 1 to 2"),
    ):
        assert drawn[name].title.startswith(words)
        assert note in drawn[name].caption
        assert len(drawn[name].panels[0].series) % 3 == 0
    make_run(tmp_path, "seed1", placement="no_norm", seed=1, last_block=1e-3)
    assert drawings(*arms_of(tmp_path))["gradient_ratio"].title.startswith("No norm: the first")


def test_the_figure_that_leads_shows_the_arm_of_its_heading_whole(tmp_path: Path) -> None:
    """Beside so many it would else leave the scale, as any other that is so far from them."""
    for place, name in enumerate(("pre_ln", "b2t", "keel", "admin", "mix_ln", "peri_ln", "sub_ln")):
        make_run(tmp_path, name, placement=name, last_block=1 + place / 10)
    make_run(tmp_path, "post_ln", placement="post_ln", last_block=1e5)
    chart = figures.answer(arms_of(tmp_path)[0])
    assert chart is not None
    assert "Post-LN: the last block gets up to 100,000 times" in chart.title
    right = chart.panels[1]
    assert arrows(right, *chart.axes(right)) == []


def test_a_heading_starts_with_a_capital(tmp_path: Path) -> None:
    for rate, end in ((1e-3, 2.4), (3e-3, 2.9)):
        make_run(tmp_path, f"{rate}", lr=rate, val_losses=(4.0, end))
    chart = loss_figures.loss(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.title == (
        "Learning rate 0.001 ends at a validation loss of 2.40 nats, learning rate 0.003 at 2.90"
    )


def test_an_exponent_that_can_be_0_is_no_headline() -> None:
    points = [1.0, 2.0, 4.0, 8.0]
    made = partial(Scaling, (), "post_ln", "Post-LN")
    steep, sure = [1.0, 1e-4, 1.0, 1e-4], [1.0, 0.7, 0.5, 0.36]
    found = [made(str(y), points, y, fit_power(points, y)) for y in (steep, sure)]
    title = power_laws.scaling_title(found, "width")
    assert title.startswith(f"Post-LN: the gradient norm of the {sure}, falls as the power -0.49 ")
    assert power_laws.scaling_title(found[:1], "width") == (
        "Of no gradient norm it is known that it changes with the width"
    )


def test_runs_that_did_not_learn_are_in_no_line_of_the_end(tmp_path: Path) -> None:
    """Three of them, at the deepest, made an exponent of -0.1 one of -3.5."""
    for depth, seed in itertools.product((2, 4, 8), (0, 1, 2)):
        name, size = f"{depth}-{seed}", (1 + seed / 100) * depth**-0.1
        end = {"first_block": 1e-5 if depth == 8 else size, "last_block": size}
        start = {"first_block": size, "last_block": size}
        make_run(
            tmp_path,
            name,
            placement="post_ln",
            n_layers=depth,
            seed=seed,
            val_losses=(4.0, 3.1 if depth == 8 else 2.0),
            grad_norm={"first_step": start, "last_step": end},
        )
        make_run(tmp_path, f"pre{name}", n_layers=depth, seed=seed)
    layout, _ = arms_of(tmp_path)
    found = {s.quantity: s for s in scalings(layout, "model.n_layers") if s.level == "post_ln"}
    assert len(found["first block, at initialisation"].x) == 9
    end = found["first block, at the end"]
    assert end.fit is not None
    assert end.fit.slope == pytest.approx(-0.1)
    assert sorted(end.unlearned) == [(8.0, 1e-5)] * 3
    chart = power_laws.scaling(layout, "model.n_layers")
    assert chart is not None
    assert "without the 3 runs that did not learn" in chart.caption
    assert chart.title == (
        "Post-LN: the gradient norm of the last block, at initialisation, falls as the power -0.10 "
        "of the number of blocks (95 % interval -0.11 to -0.09); 3 runs that did not learn left "
        "out at the end"
    )
    panel = next(panel for panel in chart.panels if "first block, at the e" in panel.title)
    assert panel.title == "first block, at the end: exponent +0.00 (Pre-LN), -0.10 (Post-LN)"
    x, y = chart.axes(panel)
    assert y.limits is not None
    assert y.limits[0] > 0.4  # what did not learn has an arrow
    assert [arrow.text for arrow in arrows(panel, x, y)] == ["to 1e-5"]


def test_a_number_of_blocks_that_is_switched_off_takes_its_runs_from_a_trend(
    tmp_path: Path,
) -> None:
    for depth, placement in itertools.product((2, 4), ("pre_ln", "no_norm")):
        make_run(tmp_path, f"{placement}{depth}", placement=placement, n_layers=depth)
    layout, _ = arms_of(tmp_path)
    chart = power_laws.scaling(layout, "model.n_layers")
    assert chart is not None
    dots = [s for panel in chart.panels for s in panel.series if s.kind == "dots"]
    assert len(dots) == 4 * 4
    for series in dots:
        (x,) = set(series.x)
        placement = "pre_ln" if series.label == "Pre-LN" else "no_norm"
        assert series.keys == (f"norm.placement={placement}", f"model.n_layers={x:g}")


def test_a_line_that_points_do_not_follow_is_called_no_power() -> None:
    x = [2.0, 4.0, 8.0, 16.0]
    y = [1.0, 1.1, 1.2, 40.0]
    bent = Scaling((), "post_ln", "Post-LN", "last block, at the end", x, y, fit_power(x, y))
    assert bent.fit is not None
    assert bent.fit.miss > MOST_MISS
    sure = replace(bent, fit=replace(bent.fit, low=0.1))
    assert power_laws.scaling_title([sure], "number of blocks") == (
        "Post-LN: the gradient norm of the last block, at the end, goes from 1 to 40 as the "
        "number of blocks goes from 2 to 16"
    )
    two = Scaling((), "", "", "", [2.0, 2.0, 4.0, 4.0], [1.0, 1.1, 2.0, 2.1], None)
    assert not replace(two, fit=fit_power(two.x, two.y)).is_straight


def test_no_arm_takes_the_scale_of_gradients_from_the_others(tmp_path: Path) -> None:
    """One that vanishes, in one row of panels: that row alone reaches down to it, and wholly."""
    for rate, warmup, placement in itertools.product((1e-3, 1e-2), (0, 30), ("pre_ln", "post_ln")):
        is_gone = (rate, warmup, placement) == (1e-2, 0, "post_ln")
        make_run(
            tmp_path,
            f"{rate}{warmup}{placement}",
            lr=rate,
            warmup=warmup,
            placement=placement,
            last_block=1e8 if is_gone else 1.5,
        )
    layout, _ = arms_of(tmp_path)
    for make in (gradients.gradient_ratio, gradients.gradients_by_layer):
        chart = make(layout)
        assert chart is not None
        assert "100,000,000 times" in chart.title
        assert "Each row of panels has its own scale. " in chart.caption
        ends = {(panel.row, chart.axes(panel)[1].limits) for panel in chart.panels}
        highest = sorted(limits[1] for _, limits in ends if limits is not None)
        assert len(highest) == 2  # one scale in each row
        assert 1.5 < highest[0] < 3
        assert 1e8 < highest[1] < 1e9
        assert all(arrows(panel, *chart.axes(panel)) == [] for panel in chart.panels)


def test_arms_that_are_alike_share_one_scale_of_gradients(tmp_path: Path) -> None:
    for warmup, last in ((0, 2.0), (30, 1.9)):
        make_run(tmp_path, str(warmup), warmup=warmup, last_block=last)
        make_run(tmp_path, f"post{warmup}", warmup=warmup, last_block=last, placement="post_ln")
    chart = gradients.gradient_ratio(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.caption.startswith("All panels have one scale. ")
    assert len({chart.axes(panel)[1].limits for panel in chart.panels}) == 1


def test_panels_of_fewer_blocks_are_not_left_empty(tmp_path: Path) -> None:
    for blocks, placement in itertools.product((2, 16), ("pre_ln", "post_ln")):
        make_run(tmp_path, f"{blocks}{placement}", n_layers=blocks, placement=placement)
    layout, _ = arms_of(tmp_path)
    by_layer, maps = gradients.gradients_by_layer(layout), gradients.gradient_maps(layout)
    assert by_layer is not None
    assert maps is not None
    ends = [by_layer.axes(panel)[0].limits for panel in by_layer.panels]
    assert ends == [pytest.approx((0.98, 2.02)), pytest.approx((0.7, 16.3))]
    heights = [maps.axes(panel)[1].limits for panel in maps.panels]
    assert heights == [(0.5, 2.5), (0.5, 2.5), (0.5, 16.5), (0.5, 16.5)]


def test_no_arm_takes_the_colours_of_the_maps_and_one_that_leaves_them_says_how_far(
    tmp_path: Path,
) -> None:
    for placement, last in (("pre_ln", 0.5), ("post_ln", 0.4), ("no_norm", 1e6), ("b2t", 1e-6)):
        make_run(tmp_path, placement, placement=placement, last_block=last)
    chart = gradients.gradient_maps(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.colours is not None
    assert chart.colours.limits == (0.4, 1.0)
    titles = {panel.title for panel in chart.panels}
    assert titles == {"Pre-LN", "Post-LN", "No norm: up to 1e6", "B2T: down to 1e-6"}
    assert "A panel whose values go further says how far" in chart.caption


def test_few_maps_share_all_their_colours_if_these_span_few_decades(tmp_path: Path) -> None:
    """Else an arm whose first blocks starve looks as dark as one beside it that does not."""
    for placement, last in (("pre_ln", 0.5), ("b2t", 0.6), ("post_ln", 3e-4)):
        make_run(tmp_path, placement, placement=placement, last_block=last)
    chart = gradients.gradient_maps(arms_of(tmp_path)[0])
    assert chart is not None
    assert chart.colours is not None
    assert chart.colours.limits == pytest.approx((3e-4, 1.0))
    assert [panel.title for panel in chart.panels] == ["Pre-LN", "Post-LN", "B2T"]


def test_arms_at_their_best_rates_are_named_with_them(tmp_path: Path) -> None:
    for index, rate in itertools.product(range(13), (1e-3, 1e-2)):
        is_best = (rate == 1e-2) == (index == 0)
        losses = (4.0, 2.0 if is_best else 2.5)
        make_run(tmp_path, f"{index}{rate}", placement=f"p{index}", lr=rate, val_losses=losses)
    chart = gradients.gradient_maps(arms_of(tmp_path)[0])
    assert chart is not None
    titles = [panel.title for panel in chart.panels]
    assert titles[:2] == ["P0 at lr 0.01", "P1 at lr 0.001"]
    assert len(titles) == 13


def test_medians_of_runs_of_different_lengths_are_of_the_same_steps(tmp_path: Path) -> None:
    """Thinned before their medians, a step had some of its runs alone."""
    for seed, steps in enumerate((301, 283, 211)):
        run = make_run(tmp_path, str(seed), seed=seed)
        rows = [
            f"{step},{layer},block,grad_norm,{(1 + seed) * (1 + 99 * (step == 101))}"
            for step in range(steps)
            for layer in (0, 1)
        ]
        text = "\n".join(["step,layer,component,stat,value", *rows])
        (run / "gradients.csv").write_text(text + "\n")
    make_run(tmp_path, "b", placement="post_ln", val_losses=[4.0] * 4)
    make_run(tmp_path, "c", placement="b2t", val_losses=[4.0] * 4)
    chart = gradients.gradient_maps(arms_of(tmp_path)[0])
    assert chart is not None
    (cells,) = (p.cells for p in chart.panels if p.cells and "pre_ln" in p.cells.keys[0])
    shown = dict(zip(cells.x, cells.values[0], strict=True))
    assert {value for step, value in shown.items() if step < 211 and step != 101} == {2.0}
    assert {value for step, value in shown.items() if 211 <= step < 283} == {1.5}
    assert len(shown) <= loss_figures.MOST_POINTS + 1


@pytest.mark.parametrize(
    "settings",
    [
        ("n_layers", (2, 4), "placement", ("pre_ln", "post_ln"), "warmup", (0, 10)),
        ("lr", (1e-3, 1e-2), "placement", ("pre_ln", "post_ln"), "warmup", (0, 10)),
        ("init", ("he", "xavier"), "lr", (1e-3, 1e-2)),
    ],
    ids=["depth", "rates", "init"],
)
def test_every_switch_of_a_legend_hides_something_in_every_figure(
    tmp_path: Path, settings: Sequence[Any]
) -> None:
    """But for what a figure has as its axis, or shows at the best learning rate alone."""
    names, levels = settings[::2], settings[1::2]
    for values in itertools.product(*levels):
        make_run(tmp_path, "-".join(map(str, values)), **dict(zip(names, values, strict=True)))
    layout, arms = arms_of(tmp_path)
    groups = [{entry["key"] for entry in group["entries"]} for group in legend_of(layout)]
    assert len(groups) == len(names)
    for name, chart in drawings(layout, arms).items():
        drawn = [item for panel in chart.panels for item in (*panel.series, panel.cells) if item]
        keys = {key for item in drawn for key in item.keys}
        found = [group <= keys for group in groups]
        assert any(found), name
        assert all(whole or not group & keys for whole, group in zip(found, groups, strict=True))
        assert keys <= set().union(*groups), name


@pytest.mark.usefixtures("unrendered")
def test_very_many_arms_are_rows_of_a_map_the_best_at_the_top(tmp_path: Path) -> None:
    """What learned nothing takes no part of the colour scale, whatever its loss is."""
    ends = {"pre_ln": 2.0, "keel": 2.04, "b2t": 2.06, "span": 2.3, "admin": 2.4, "sub_ln": 2.2}
    ends["siamese"] = 2.5
    stuck = {"post_ln": 3.0, "no_norm": 900.0}
    for norm, loss in (ends | stuck).items():
        for rate, less in ((1e-3, 0.1), (1e-2, 0.0)):
            final = loss - less if norm in ends else loss
            make_run(tmp_path, f"{norm}-{rate}", placement=norm, lr=rate, val_losses=(4.0, final))
    layout, arms = arms_of(tmp_path)
    drawn = drawings(layout, arms)
    chart = drawn["ranking"]
    assert (
        chart.title == "2 of 9 end within 0.05 nats of the lowest validation loss, 1.900 (Pre-LN)"
    )
    rows = [name for _, name in reversed(chart.y.ticks)]
    assert rows[-2:] == ["Post-LN", "No norm"]
    assert rows[:-2] == ["Pre-LN", "Keel", "B2T", "Sub-LN", "SpanNorm", "Admin", "SiameseNorm"]
    (panel,) = chart.panels
    assert panel.cells is not None
    texts = dict(zip(rows, reversed(panel.cells.texts), strict=True))
    assert texts["Keel"] == ["1.94*", "2.04"]
    assert texts["Post-LN"] == ["3.00, stuck", "3.00, stuck"]
    assert chart.colours is not None
    assert chart.colours.limits == (1.9, 2.5)
    assert chart.colours.high == "worst, or not all runs learned"
    assert chart.how_to_read.startswith("A row is a placement, the lowest loss at the top.")
    assert chart.caption.startswith(
        "One run per cell. min(final, initial) validation loss. Diverged: not finite, or the loss "
    )
    assert " Stuck: no better than token frequencies. LR sensitivity, the mean " in chart.caption
    assert "answer" not in drawn
    assert "lr_sensitivity" not in drawn  # each placement has two rates in its row
    assert drawn["loss"].title.startswith("2 of 18 combinations end within 0.05 nats of the")
    shutil.rmtree(tmp_path / "b2t-0.001")
    shutil.rmtree(tmp_path / "b2t-0.01")
    drawn = drawings(*arms_of(tmp_path))
    assert "ranking" not in drawn
    assert "lr_sensitivity" in drawn


def test_learning_rate_maps_hold_medians_and_shares(tmp_path: Path) -> None:
    losses = {(1e-3, 0): 2.0, (1e-3, 10): 1.5, (1e-2, 0): 2.98, (1e-2, 10): 1.0}
    for (rate, warmup), loss in losses.items():
        for seed in (0, 1, 2):
            name = f"{rate}-{warmup}-{seed}"
            gone = rate == 1e-2 and warmup == 10 and seed == 2
            status = "diverged" if gone else "finished"
            values = (4.0, loss + 0.1 * seed)
            make_run(
                tmp_path, name, seed=seed, lr=rate, warmup=warmup, val_losses=values, status=status
            )
    layout, arms = arms_of(tmp_path)
    drawn = drawings(layout, arms)
    maps = drawn["lr_warmup_maps"]
    (panel,) = maps.panels
    assert panel.cells is not None
    # 1.0, 1.1 and, for the diverged run, the initial 4.0; 2.98, 3.08, 3.18 are all stuck at 3.
    assert panel.cells.texts == [
        ["2.10", "1.60"],
        ["3.08\n3 of 3 stuck", "1.10\n1 of 3 not finite*"],
    ]
    assert "1.100 at lr 0.01 (at the grid's edge), 10 steps of warm-up" in maps.caption
    sensitive = rate_sensitivity(layout)
    assert sensitive is not None
    # Without warm-up (2.1 + 3.08) / 2 - 2.1; with it (1.6 + 1.1) / 2 - 1.1.
    assert (
        "warm-up 0 0.49 nats, best at lr 0.001, the grid's edge, not all runs learned"
        in sensitive.alt
    )
    assert "warm-up 10 0.25 nats, best at lr 0.01, the grid's edge, not all" in sensitive.alt
    words = Page(write_report([tmp_path], tmp_path, formats=()).read_text()).words
    assert (
        "Pre-LN learns nothing at lr 0.01 without warm-up (3 of 3 runs) and diverges at lr 0.01 "
        "with 10 steps of warm-up (1 of 3); its best is 1.00 and 1.10 nats with 10 steps of "
        "warm-up, at lr 0.01, the grid's edge." in words
    )


def test_the_best_learning_rate_of_each_arm(tmp_path: Path) -> None:
    losses = {
        ("pre_ln", 1e-4): (2.9, 2.8, 2.7),
        ("pre_ln", 1e-3): (2.0, 2.1, 2.6),
        ("pre_ln", 1e-2): (1.0, 9.0, 2.2),  # 9 rose, and counts as the initial 4
        ("post_ln", 1e-4): (2.5, 2.4, 2.3),
        ("post_ln", 1e-3): (3.0, 2.985, 2.9),  # two of them stuck
        ("post_ln", 1e-2): (9.0, 9.0, 9.0),
    }
    for (placement, rate), each in losses.items():
        for seed, loss in enumerate(each):
            gone = {"status": "diverged"} if (placement, rate) == ("post_ln", 1e-2) else {}
            make_run(
                tmp_path,
                f"{placement}{rate}{seed}",
                placement=placement,
                lr=rate,
                seed=seed,
                val_losses=(4.0, loss),
                final_norm=placement == "pre_ln",
                tokens=5000,
                training_seconds=rate * 1000,
                **gone,
            )
    layout, _ = arms_of(tmp_path)
    assert describe_grids(tune(layout)) == "Every arm had seeds 0, 1, 2 at lr 0.0001, 0.001, 0.01."
    best = frame(best_table(tune(layout)))
    assert best.index.tolist() == ["pre_ln", "post_ln"]  # the lower loss first
    assert best.loc["pre_ln"].to_dict() == {
        "validation loss (nats)": "2.100 (2.000 to 2.600)",
        "best learning rate": "0.001",
        "learned": "8 of 9",
        "LR sensitivity": "0.267",  # (2.8 + 2.1 + 2.2) / 3 - 2.1
        "not finite": "",
        "loss rose": "1",
        "stuck": "",
        "final norm": "yes",
    }
    post = ["2.400 (2.300 to 2.500)", "0.0001 (edge)", "4 of 9", "0.728", "3", "", "2", "no"]
    assert best.loc["post_ln"].tolist() == post  # (2.4 + 2.985 + 4) / 3 - 2.4
    drawn = rate_sensitivity(layout)
    assert drawn is not None
    (panel,) = drawn.panels
    stars = {(*s.x, *s.y): (s.label, s.look) for s in panel.series if s.kind == "dots"}
    assert stars == {
        (1e-4, 2.4): ("best, at the edge of its rates", replace(look_of("post_ln"), mark="P")),
        (1e-3, 2.1): ("best", replace(look_of("pre_ln"), mark="*")),
    }

    broken = {"status": "failed", "error": "it broke"}
    make_run(tmp_path, "more", lr=1e-1, val_losses=(4.0, 3.0))
    make_run(tmp_path, "failed", lr=1e-3, seed=3, placement="post_ln", **broken)
    layout, arms = arms_of(tmp_path)
    assert describe_grids(tune(layout)) == (
        "The arms did not have the same learning rates and seeds: "
        "seeds 0, 1, 2 at lr 0.0001, 0.001, 0.01 (1 of 2 arms), but "
        "seeds 0, 1, 2 at lr 0.0001, 0.001, 0.01 and seed 0 at lr 0.1 (pre_ln)."
    )
    best = frame(best_table(tune(layout)))
    assert best["failed"].to_dict() == {"pre_ln": "", "post_ln": "1"}
    assert best["LR sensitivity"].to_dict() == {"pre_ln": "0.425", "post_ln": ""}
    words = Page(render(tmp_path, find_runs(tmp_path), arms, layout, [], [])).words
    assert "Best of each placement" in words
    assert "The arms did not have the same learning rates and seeds" in words
    assert (
        "Post-LN fails at lr 0.001 and above (5 of 6 runs); its best is a median of 2.40 nats at "
        "lr 0.0001, the grid's edge; Pre-LN fails at lr 0.01 and above (2 of 4 runs); its best is"
        in words
    )
    assert verdict_of(layout, arms) in words


def test_a_run_that_diverged_far_up_is_marked_at_the_upper_edge(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", seed=1, val_losses=(4.0, 1e6), status="diverged")
    drawn = drawings(*arms_of(tmp_path))["loss"]
    (panel,) = drawn.panels
    x, y = drawn.axes(panel)
    assert y.limits is not None
    assert y.limits[1] == pytest.approx(4.2)
    (cross,) = (series for series in panel.series if series.label == "not finite")
    assert (cross.x, cross.y) == ([1], [1e6])
    assert [(a.x, a.is_up, a.text) for a in arrows(panel, x, y)] == [(1.0, True, "to 1e6")]


def test_columns_of_what_training_counted(tmp_path: Path) -> None:
    for seed, (spikes, share) in enumerate(((0, 0.1), (4, 0.25), (6, 0.3))):
        make_run(tmp_path, f"a{seed}", seed=seed, spikes=spikes, clip_share=share, stuck=True)
    make_run(tmp_path, "b", placement="post_ln", spikes=2)
    _, arms = arms_of(tmp_path)
    results = frame(results_table(arms))
    assert results["spikes"].to_dict() == {"pre_ln": "4", "post_ln": "2"}
    assert results["clipped steps"].to_dict() == {"pre_ln": "25%", "post_ln": ""}
    assert results["learned"].tolist() == ["1 of 1", "3 of 3"]  # by the numbers: 2 is below 3
    write_runs_csv(tmp_path)
    rows = pd.read_csv(tmp_path / "runs.csv").set_index("name")
    counted = ["init", "stuck", "spikes", "clip_share"]
    assert rows.loc["a1", counted].tolist() == ["xavier", True, 4, 0.25]
    assert rows.loc["b", ["stuck", "clip_share", "tokens", "final_norm"]].isna().all()
    older = frame(results_table(form_arms([read_history(Run(tmp_path, Summary()))], [])))
    assert not {"spikes", "clipped steps", "init", "final norm"} & {*older.columns}


# Made up, so that it does not matter how many there are in gpt.
PLACEMENTS = (
    *("pre_ln", "post_ln", "no_norm", "sandwich", "peri_ln", "reordered", "deepnorm", "sub_ln"),
    *("residual_dual", "b2t", "mix_ln", "ln_scaling", "hybrid", "normformer", "admin"),
)


@pytest.mark.long
def test_fifteen_placements_over_four_learning_rates_are_distinguishable(tmp_path: Path) -> None:
    for index, placement in enumerate(PLACEMENTS):
        for rate in (3e-4, 1e-3, 3e-3, 1e-2):
            losses = (4.0, 2 + index / 19 + abs(math.log10(rate) + 2.5))
            make_run(
                tmp_path, f"{placement}{rate}", placement=placement, lr=rate, val_losses=losses
            )
    layout, arms = arms_of(tmp_path)
    facets = [facet for facet in facets_of(layout) if facet.panel == 0]
    assert len({facet.look for facet in facets}) == 15
    assert {facet.arm.key[0] for facet in facets} == {*PLACEMENTS}
    assert verdict_of(layout, arms) == (
        "Each at its best rate, 1 of 15 placements ends within 0.05 nats of the lowest, 2.02 nats "
        "(Pre-LN at lr 0.003); one run each, so this is no ranking; the highest is 2.76 nats "
        "(Admin at lr 0.003); 27 of 60 runs did not learn (B2T in 3 of 4, Mix-LN in 3 of 4, LN "
        "scaling in 3 of 4, HybridNorm in 3 of 4, 11 more arms)."
    )
    drawn = drawings(layout, arms)
    assert {"loss", "gradient_ratio", "update_ratio", "lr_sensitivity"} <= {*drawn}
    for chart in drawn.values():
        assert len(chart.alt) < 400, chart.alt
        assert len(chart.title) < 200, chart.title
        assert chart.shape[1] <= 3, chart.name
    for name in ("loss", "gradient_ratio"):
        chart = drawn[name]
        assert [chart.title_of(panel) for panel in chart.panels] == [
            f"At lr {rate}" for rate in ("0.0003", "0.001", "0.003", "0.01")
        ]
        for facet, series in zip(facets, chart.panels[0].series, strict=True):
            assert (series.label, series.look) == (facet.name, facet.look)
    rates = drawn["lr_sensitivity"]
    assert len(rates.panels) == 15
    for panel in rates.panels:
        assert [s.x for s in panel.series if s.kind == "dots"] == [[3e-3]]


def test_arms_by_name(tmp_path: Path) -> None:
    for index, (placement, lr) in enumerate(
        (p, rate) for p in ("pre_ln", "post_ln") for rate in (1e-3, 1e-2)
    ):
        make_run(tmp_path, f"r{index}", placement=placement, lr=lr)
    assert len(arms_of(tmp_path)[1]) == 4
    assert [arm.label for arm in arms_of(tmp_path, ["norm"])[1]] == ["post_ln", "pre_ln"]
    assert len(arms_of(tmp_path, ["norm", "optimizer.lr"])[1]) == 4
    with pytest.raises(ConfigError, match=r"--by='norn' is not valid: did you mean 'norm'"):
        arms_of(tmp_path, ["norn"])


def test_what_a_placement_also_chooses_is_no_arm_of_its_own(tmp_path: Path) -> None:
    tied = tmp_path / "tied"
    for seed in (0, 1):
        make_run(tied, f"pre{seed}", seed=seed, norm={"options": {}})
        make_run(tied, f"deep{seed}", placement="deepnorm", init="deepnorm", seed=seed)
        options = {"options": {"fraction": 0.25}}
        make_run(tied, f"mix{seed}", placement="mix_ln", norm=options, seed=seed)
    layout, arms = arms_of(tied)
    assert [arm.label for arm in arms] == ["deepnorm", "mix_ln", "pre_ln"]
    separates = {name: used for name, _, used in differences(find_runs(tied), layout.factors)}
    assert separates == {
        "seed": "no",
        "norm.placement": "yes",
        "init.scheme": "no",
    }
    crossed = tmp_path / "crossed"
    for placement, init in itertools.product(("pre_ln", "deepnorm"), ("xavier", "deepnorm")):
        make_run(crossed, f"{placement}-{init}", placement=placement, init=init)
    assert arms_of(crossed)[0].factors == ["norm.placement", "init.scheme"]
    make_run(tied, "half", placement="mix_ln", norm={"fraction": 0.5})  # its name in version 0.4
    assert arms_of(tied)[0].factors == ["norm.placement", "norm.options.fraction"]


def test_a_run_that_lacks_a_newer_option_had_its_default(tmp_path: Path) -> None:
    """As those that were recorded before there was GPAS."""
    for name, options in (("old", {}), ("off", {"gpas": False}), ("on", {"gpas": True})):
        make_run(tmp_path, name, seed=len(name), norm={"options": options})
    layout, arms = arms_of(tmp_path)
    assert layout.factors == ["norm.options.gpas"]
    assert [len(arm.histories) for arm in arms] == [2, 1]


@pytest.mark.usefixtures("unrendered")
def test_the_same_run_twice_is_one_seed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder, losses in (("one", (4.0, 1.0)), ("two", (4.0, 1.0))):
        make_run(tmp_path / folder, "same", val_losses=losses, settings_sha256="aa")
    make_run(tmp_path / "one", "other", seed=1, val_losses=(4.0, 2.0), settings_sha256="bb")
    renamed = {"norm": {"eps": 1e-5, "fraction": None}}  # as version 0.4 recorded it
    make_run(tmp_path / "two", "old", val_losses=(4.0, 3.0), settings_sha256="cc", **renamed)
    page = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "out", formats=())
    assert listed(page)["learned"] == "2 of 2"
    assert listed(page)["validation loss (nats)"] == "1.000 and 2.000"
    assert any("two/same repeats" in message for message in caplog.messages)


@pytest.mark.usefixtures("unrendered")
def test_pooled_settings_are_not_called_seeds(tmp_path: Path) -> None:
    for index, (placement, rate) in enumerate(
        (p, rate) for p in ("pre_ln", "post_ln") for rate in (1e-3, 1e-2)
    ):
        make_run(tmp_path, f"r{index}", placement=placement, lr=rate)
    words = Page(write_report([tmp_path], tmp_path, by=["norm"], formats=()).read_text()).words
    assert "each arm pools runs that differ in learning rate" in words
    words = Page(
        write_report([tmp_path], tmp_path, by=["model.n_layers"], formats=()).read_text()
    ).words
    assert "each arm pools runs that differ in placement and learning rate" in words


@pytest.mark.usefixtures("unrendered")
def test_ratio_of_blocks_is_that_of_the_medians_beside_it(tmp_path: Path) -> None:
    for seed, (first, last) in enumerate(((1.0, 5.0), (10.0, 10.0), (100.0, 200.0))):
        norms = {"first_block": first, "last_block": last}
        make_run(tmp_path, f"r{seed}", seed=seed, grad_norm={"last_step": norms})
    results = listed(write_report([tmp_path], tmp_path, formats=()))
    assert results["first block's gradient norm, at the end"] == "10"
    assert results["last block's gradient norm, at the end"] == "10"
    assert results["last over first, at the end"] == "1"  # of 5, 1 and 2 the median is 2


def test_a_running_median_keeps_both_ends() -> None:
    values = pd.Series(np.arange(200.0, 0.0, -1.0) ** 2)
    smooth = loss_figures.smoothed(values)
    assert (smooth.iloc[0], smooth.iloc[-1]) == (values.iloc[0], values.iloc[-1])
    assert smooth.tolist() == values.tolist()  # a monotonic curve is its own running median


@pytest.mark.long
def test_many_arms_leave_panels_out_and_say_so(tmp_path: Path) -> None:
    for rate in range(1, 6):
        for warmup in range(5):
            make_run(tmp_path, f"{rate}-{warmup}", lr=rate / 1000, warmup=warmup)
            make_run(tmp_path, f"{rate}_{warmup}", lr=rate / 1000, warmup=warmup, placement="b")
    layout, arms = arms_of(tmp_path)
    thinned = layout.thinned(12)
    assert len(layout.panels) == len(thinned.panels) + len(thinned.left_out) == 25
    assert len(thinned.panels) <= 12
    assert {(0.001, 0), (0.005, 4)} <= set(thinned.panels)
    figures = drawings(layout, arms)
    left_out = f"Not shown, {len(thinned.left_out)} of 25 settings: with "
    assert left_out in figures["loss"].caption
    assert left_out in figures["gradients_by_layer"].caption
    alone = "Only the best learning rate of each arm, 10 of 50."
    assert alone in figures["gradient_maps"].caption


def test_a_statistic_that_some_arms_lack_has_panels_of_the_others_alone(tmp_path: Path) -> None:
    for init, placement in itertools.product(("gpt2", "he", "xavier"), ("post_ln", "pre_ln")):
        run = make_run(tmp_path, f"{init}-{placement}", init=init, placement=placement)
        if init == "he":
            with (run / "gradients.csv").open("a") as file:
                file.writelines(f"0,{layer},feed_forward,expert_entropy,0.9\n" for layer in (0, 1))
    figures = drawings(*arms_of(tmp_path))
    titles = {
        name: [figures[name].title_of(panel) for panel in figures[name].panels]
        for name in ("activation_rms", "expert_entropy")
    }
    assert titles["activation_rms"] == ["With init gpt2", "With init he", "With init xavier"]
    assert titles["expert_entropy"] == ["With init he"]
    left_out = "2 of 3 panels have nothing to measure and are left out."
    assert left_out in figures["expert_entropy"].caption
    assert "left out" not in figures["activation_rms"].caption


def test_a_caption_speaks_of_ranges_only_where_they_are_drawn(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, f"run{seed}", seed=seed)
        if seed:
            figures = drawings(*arms_of(tmp_path))
            by_layer, maps = figures["gradients_by_layer"].caption, figures["gradient_maps"].caption
            of_three = "Median and range over 3 runs."
            assert ("Both runs." if seed == 1 else of_three) in by_layer
            assert ("Mean of two runs" if seed == 1 else "Median over the runs") in maps
            assert "ange over" not in maps


def test_one_run_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path, "alone")
    page = write_report([run], tmp_path / "out")
    words = Page(page.read_text()).words
    assert (
        "Pre-LN without warm-up learned: its validation loss is 2.00 nats, where token frequencies "
        "alone give 3.00." in words
    )
    assert "learned yes" in words
    for foreign in ("arm", "arms", "Median", "Medians", "1 of 1"):  # words about several runs
        assert not re.search(rf"\b{foreign}\b", page.read_text().partition("<script")[0]), foreign
    assert {path.stem for path in (page.parent / "figures").glob("*.png")} == {
        "answer",
        "loss",
        "gradients_by_layer",
        "gradient_maps",
        "gradient_ratio",
        "activation_rms",
        "update_ratio",
        "attention_entropy",
    }
    for path in (page.parent / "figures").iterdir():
        assert path.stat().st_size > 5000, path
    picture = matplotlib.image.imread(page.parent / "figures" / "loss.png")
    assert picture.shape[1] == 8.4 * 150  # inches and dots per inch


@pytest.mark.usefixtures("unrendered")
def test_torn_and_foreign_files_cost_a_warning_that_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path, "sound", seed=1)
    torn = make_run(tmp_path, "torn", val_losses=(4.0, 3.0, 2.5))
    metrics = (torn / "metrics.csv").read_text()
    (torn / "metrics.csv").write_text(metrics[: metrics.rindex("2.5")])
    empty = make_run(tmp_path, "empty", seed=2)
    (empty / "gradients.csv").write_text("")
    (empty / "memory.csv").write_bytes(b"\xff\xfe\x00garbage\n\x00")
    words = make_run(tmp_path, "words", seed=3)
    (words / "metrics.csv").write_text("step,val_loss\n0,four\n1,3.5\n")
    foreign = make_run(tmp_path, "foreign", seed=4)
    (foreign / "gradients.csv").write_text("name,price\napple,3\n")
    older = make_run(tmp_path, "older", seed=5)
    summary = json.loads((older / "summary.json").read_text())
    for key in ("settings", "overrides", "versions", "corpus"):
        del summary[key]
    (older / "summary.json").write_text(json.dumps(summary | {"placement": "pre_ln"}))
    broken = make_run(tmp_path, "broken", seed=6)
    (broken / "summary.json").write_text('{"status": "fini')
    without = tmp_path / "without"
    without.mkdir()
    (without / "metrics.csv").write_text("step\n")
    page = write_report([tmp_path, without], tmp_path / "out", formats=())
    for name in (
        "torn/metrics.csv",
        "empty/gradients.csv",
        "empty/memory.csv",
        "words/metrics.csv",
        "foreign/gradients.csv",
        "older/summary.json",
        "broken/summary.json",
        "without",
    ):
        assert any(name in message for message in caplog.messages), (name, caplog.messages)
        assert name in Page(page.read_text()).words
    history = read_history(Run(torn, Summary()))
    assert history.losses("val_loss").tolist() == [4.0, 3.0]


@pytest.mark.usefixtures("unrendered")
def test_a_figure_that_cannot_be_drawn_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(figures, "gradient_maps", broken)
    make_run(tmp_path, "a")
    page = write_report([tmp_path], tmp_path, formats=())
    assert "figure broken was not drawn: no such thing" in caplog.messages
    assert len(Page(page.read_text()).all("figure")) == 7


def test_everything_from_a_run_is_escaped(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "\u2215")
    more = {"error": f'{HOSTILE} & "quotes"', "device": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    run = make_run(tmp_path / "sweep", f"{name}\"'", placement=HOSTILE, status="failed", **more)
    summary = json.loads((run / "summary.json").read_text())
    summary["overrides"] = [f"norm={HOSTILE}", "data.path=a b"]
    (run / "summary.json").write_text(json.dumps(summary))
    make_run(tmp_path / "sweep", "other")
    page = write_report([tmp_path / "sweep"], tmp_path / "out", formats=())
    parsed = Page(page.read_text())
    assert len(parsed.all("script")) == page.read_text().count("\n<script")  # our own
    escaped = r"(&lt;|\\u003c)script(&gt;|\\u003e)alert\(1\)(&lt;|\\u003c).{1,6}script"
    assert "alert(1)" not in re.sub(escaped, "", page.read_text())
    assert "python run.py 'norm=<script>alert(1)</script>' 'data.path=a b'" in parsed.words
    (link,) = (a["href"] for a in parsed.all("a") if "alert" in str(a["href"]))
    assert link is not None
    assert not set("<>\"' ") & set(link)


def test_the_page_is_sound_html_that_asks_for_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", placement="post_ln")
    text = write_report([tmp_path], tmp_path).read_text()
    page = Page(text)
    assert text.startswith("<!doctype html>")
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for figure in page.all("figure"):
        assert len(str(figure["aria-label"])) > 40
    for link in page.all("a"):
        target = str(link["href"])
        assert target[1:] in ids if target.startswith("#") else (tmp_path / target).exists()
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
    assert "url(" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for field in page.all("input"):
        if "data-key" in field:  # inside its label
            continue
        assert any(label.get("for") == field["id"] for label in page.all("label"))


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figures_alone: Callable[..., None]
) -> None:
    figures_alone("loss")
    first = make_run(tmp_path / "first", "a")
    second = make_run(tmp_path / "second", "b", placement="post_ln")
    out = tmp_path / "out"
    assert main([str(first.parent), str(second), "--out", str(out), "--format", "pdf,png"]) == 0
    assert (out / "figures" / "loss.pdf").read_bytes().startswith(b"%PDF")
    assert not (out / "figures" / "loss.svg").exists()
    assert (
        "Both runs learned: Pre-LN reached 2.00 nats"
        in Page((out / "report.html").read_text()).words
    )
    assert main([str(first.parent)]) == 0
    assert (first.parent / "report.html").is_file()
    capsys.readouterr()
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, words in (
        ([str(tmp_path / "absent")], "must be a directory of runs"),
        ([str(empty)], "must hold at least one run"),
        ([str(first), "--format", "gif"], "--format='gif' is not valid: choose from: png"),
        ([str(first), "--by", "norn"], "--by='norn' is not valid"),
        ([str(first), "--by", ""], "--by='' is not valid: must name at least one setting"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("error: ") == 1
        assert "Traceback" not in error


@pytest.mark.usefixtures("unrendered")
def test_a_sweep_still_running_can_be_reported(tmp_path: Path) -> None:
    make_run(tmp_path, "done")
    make_run(tmp_path, "going", seed=1, val_losses=(4.0, 3.0), status="running")
    page = write_report([tmp_path], tmp_path, formats=())
    words = Page(page.read_text()).words
    assert "1 run had not ended when this page was written" in words
    assert listed(page)["validation loss (nats)"] == "2.000"
