"""Figures and tables over learning rates, on runs whose right answers are known."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from experiments.analysis.arms import WARMUP, Layout, factors_of, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import PLACEMENT, find_runs
from experiments.analysis.tuning import describe_grids, tune
from experiments.report.chart import Axis, Chart, Panel, Series, arrows
from experiments.report.drawing import DIVERGED
from experiments.report.facets import facets_of
from experiments.report.figures import answer
from experiments.report.losses import loss, title_of_losses
from experiments.report.page import looks_of_arms, tuned_in_words
from experiments.report.palette import look_of
from experiments.report.rates import rate_maps, rate_sensitivity
from experiments.report.static import draw
from experiments.report.tables import Table, best_table, results_table
from made_runs import make_run

Losses = Mapping[tuple[str, float], Sequence[float | str]]
RATES = (1e-4, 1e-3, 1e-2)


def layout_of(folder: Path, losses: Losses) -> Layout:
    """The layout of runs with these final losses, seed by seed, after 4.0; or with a status."""
    for (placement, rate), each in losses.items():
        for seed, end in enumerate(each):
            options = {"placement": placement, "lr": rate, "seed": seed}
            name = f"{placement}{rate}{seed}"
            if isinstance(end, str):
                make_run(folder, name, status=end, val_losses=(4.0, 9.0), **options)
            else:
                make_run(folder, name, val_losses=(4.0, end), **options)
    runs = find_runs(folder)
    factors = factors_of(runs, None)
    return Layout(form_arms([read_history(run) for run in runs], factors), factors)


def over_rates(**arms: Sequence[float | str]) -> Losses:
    """One run of each arm at each of RATES."""
    return {
        (name, rate): [end]
        for name, ends in arms.items()
        for rate, end in zip(RATES, ends, strict=True)
    }


def sensitivity_chart(layout: Layout) -> Chart:
    chart = rate_sensitivity(layout)
    assert chart is not None
    return chart


def column(table: Table, name: str) -> dict[str, str]:
    index = table.columns.index(name)
    return {row[0].shown: row[index].shown for row in table.rows}


def test_an_arm_with_a_run_that_did_not_learn_is_named_and_never_called_least(
    tmp_path: Path,
) -> None:
    """Its median hides the run: by the medians alone it would depend least."""
    layout = layout_of(
        tmp_path,
        {
            **{("post_ln", rate): [2.0, 2.0, 2.0] for rate in RATES[:2]},
            ("post_ln", 1e-2): [2.0, 2.0, 3.0],
            **over_rates(pre_ln=(2.6, 2.0, 2.3), b2t=(2.2, 2.0, 2.1)),
        },
    )
    chart = sensitivity_chart(layout)
    assert chart.title == (
        "Some runs of Post-LN did not learn; of the others, Pre-LN depends most on the learning "
        "rate (0.30 nats above the best on average), B2T least (0.10 nats)"
    )
    assert "Post-LN 0.00 nats, best at lr 0.0001, the grid's edge, not all runs" in chart.caption
    assert "Runs did not learn: Post-LN at lr 0.01." in chart.caption


def test_an_arm_that_never_learned_has_no_sensitivity_and_no_best_rate(tmp_path: Path) -> None:
    ends = over_rates(no_norm=(3.0, 3.5, "diverged"), pre_ln=(2.6, 2.0, 2.3))
    layout = layout_of(tmp_path, ends)
    chart = sensitivity_chart(layout)
    assert chart.title == (
        "No norm never learned; of the others, Pre-LN is on average 0.30 nats above its best"
    )
    assert chart.y.limits is not None
    assert chart.y.limits[1] == pytest.approx(2.73)  # it does not squeeze the others
    marks = {series.keys for series in chart.panels[0].series if series.kind == "dots"}
    assert marks == {("norm.placement=pre_ln",)}
    assert column(best_table(tune(layout)), "LR sensitivity") == {"pre_ln": "0.300", "no_norm": ""}


def test_every_arm_of_a_colour_that_did_not_learn_is_named_once(tmp_path: Path) -> None:
    for placement, warmup, rate in (
        (placement, warmup, rate)
        for placement in ("pre_ln", "post_ln")
        for warmup in (0, 10)
        for rate in (1e-3, 1e-2)
    ):
        end = 3.1 if (placement, rate) == ("post_ln", 1e-2) else 2.0 + 2 * warmup * rate
        name = f"{placement}{warmup}{rate}"
        make_run(tmp_path, name, placement=placement, warmup=warmup, lr=rate, val_losses=(4.0, end))
    chart = sensitivity_chart(layout_of(tmp_path, {}))
    assert chart.title == (
        "Some runs of every Post-LN arm did not learn; of the others, both are best at the grid's "
        "edge (lr 0.001), so a wider grid must tell how much the learning rate matters"
    )
    maps = rate_maps(layout_of(tmp_path, {}))
    assert maps is not None
    assert maps.title == (
        "Settings of learning rate and warm-up in which all runs learn: Pre-LN in 4 of 4; Post-LN "
        "in 2 of 4"
    )
    assert maps.caption.startswith(
        "min(final, initial) validation loss. Stuck: no better than token frequencies. Best of "
    )  # one seed


def test_arms_that_hardly_differ_are_tied(tmp_path: Path) -> None:
    """Means 0.100, 0.103 and 0.400 above the best: the first two differ by less than 0.01."""
    layout = layout_of(
        tmp_path, over_rates(b2t=(2.2, 2.0, 2.1), keel=(2.2, 2.0, 2.11), pre_ln=(2.8, 2.0, 2.4))
    )
    assert sensitivity_chart(layout).title == (
        "Pre-LN depends most on the learning rate (0.40 nats above the best on average), B2T and "
        "Keel least (tied at 0.10 nats)"
    )


def test_arms_that_are_all_tied_are_in_no_order(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, over_rates(b2t=(2.2, 2.0, 2.1), keel=(2.1, 2.0, 2.2)))
    assert sensitivity_chart(layout).title == (
        "B2T and Keel depend on the learning rate alike (tied at 0.10 nats above the best on "
        "average)"
    )


def test_one_of_two_arms_at_the_edge_is_named(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, over_rates(b2t=(2.2, 2.0, 2.1), pre_ln=(2.8, 2.4, 2.0)))
    chart = sensitivity_chart(layout)
    assert chart.title == (
        "B2T is on average 0.10 nats above its best; Pre-LN is best at the grid's edge (lr 0.01), "
        "so a wider grid must tell how much the learning rate matters"
    )
    rates = column(best_table(tune(layout)), "best learning rate")
    assert rates == {"b2t": "0.001", "pre_ln": "0.01 (edge)"}


def test_a_sweep_that_is_still_going_on_compares_no_arms(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path,
        {
            ("pre_ln", 1e-3): [2.0],
            ("pre_ln", 1e-2): ["running"],
            ("post_ln", 1e-3): [2.5, "interrupted"],
            ("post_ln", 1e-2): [2.2],
        },
    )
    chart = sensitivity_chart(layout)
    assert chart.title == "LR sensitivity is not compared, since the arms' learning rates differ"
    assert "Post-LN 0.15 nats" in chart.caption
    assert "Pre-LN 0.00" not in chart.caption
    assert describe_grids(tune(layout)) == (
        "The arms did not have the same learning rates and seeds: seed 0 at lr 0.001, 0.01 (1 of 2 "
        "arms), but seed 0 at lr 0.001 and no loss at lr 0.01 (pre_ln)."
    )
    best = best_table(tune(layout))
    assert "LR sensitivity" not in best.columns or not column(best, "LR sensitivity")["pre_ln"]
    learned = {"pre_ln": "1 of 1, 1 not ended", "post_ln": "2 of 2, 1 not ended"}
    assert column(best, "learned") == learned
    results = results_table([*layout.by_key.values()])
    assert column(results, "learned")["post_ln, lr 0.001"] == "1 of 1, 1 not ended"


def test_a_run_that_diverged_has_no_final_loss_in_tables_and_headings(tmp_path: Path) -> None:
    layout = layout_of(
        tmp_path, {("pre_ln", 1e-3): [2.0, 2.1, "diverged"], ("no_norm", 1e-3): ["diverged"] * 3}
    )
    results = results_table([*layout.by_key.values()])
    assert column(results, "validation loss (nats)") == {
        "pre_ln": "2.100 (2.000 to diverged)",
        "no_norm": "diverged",
    }
    drawn = loss(layout)
    assert drawn is not None
    assert drawn.title == (
        "Pre-LN ends at a validation loss of 2.10 nats, No norm diverged; diverged: Pre-LN in 1 "
        "of 3"
    )
    assert title_of_losses([], layout) == "Loss, step by step"


def test_the_best_table_does_not_show_an_initial_loss_as_a_final_one(tmp_path: Path) -> None:
    ends = over_rates(no_norm=("diverged",) * 3, pre_ln=(2.6, 2.0, 2.3))
    best = best_table(tune(layout_of(tmp_path, ends)))
    assert column(best, "validation loss (nats)") == {"pre_ln": "2.000", "no_norm": "diverged"}
    maps = sensitivity_chart(layout_of(tmp_path, {}))
    assert DIVERGED in maps.caption


@pytest.mark.parametrize(("values", "at", "text"), [((1, 20, 900, 30), 2, "to 900")])
def test_the_number_at_an_arrow_is_where_the_curve_had_it(
    values: Sequence[float], at: int, text: str
) -> None:
    series = Series("a", look_of("pre_ln"), [0, 1, 2, 3], values)
    (arrow,) = arrows(Panel([series]), Axis("x", limits=(0, 3)), Axis("y", limits=(0, 10)))
    assert (arrow.x, arrow.text) == (at, text)


def test_settings_that_a_figure_does_not_show_are_named(tmp_path: Path) -> None:
    for rate in range(1, 14):
        for placement in ("pre_ln", "post_ln"):
            make_run(tmp_path, f"{placement}{rate}", placement=placement, lr=rate / 1000)
    drawn = loss(layout_of(tmp_path, {}))
    assert drawn is not None
    assert drawn.caption.endswith(" Not shown, 1 of 13 settings: at lr 0.007.")


def test_the_best_is_marked_above_all_lines_larger_than_a_point_and_with_a_rim(
    tmp_path: Path,
) -> None:
    layout = layout_of(tmp_path, over_rates(b2t=(2.2, 2.0, 2.1), pre_ln=(2.8, 2.4, 2.0)))
    chart = sensitivity_chart(layout)
    (axis,) = draw(chart).axes
    lines = [line for line in axis.lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    marks = [line for line in axis.lines if len(line.get_xdata()) == 1]  # type: ignore[arg-type]
    assert {line.get_marker() for line in marks} == {"*", "P"}
    assert axis.lines.index(marks[0]) > axis.lines.index(lines[-1])
    assert all(mark.get_markersize() >= 2 * lines[0].get_markersize() for mark in marks)
    assert all(mark.get_markeredgecolor() == "white" for mark in marks)
    assert all(mark.get_markeredgewidth() > 0 for mark in marks)


@pytest.mark.parametrize(("end", "extend"), [(2.5, "neither"), (900.0, "max")])
def test_a_colour_bar_is_pointed_only_where_a_value_is_beyond_it(
    tmp_path: Path, end: float, extend: str
) -> None:
    for rate in (1e-3, 1e-2):
        for warmup in (0, 10):
            for placement, first, last in (("pre_ln", 4.0, 2.0), ("post_ln", 4.0, 2.2)):
                options = {"placement": placement, "lr": rate, "warmup": warmup}
                make_run(tmp_path, f"{options}", val_losses=(first, last + rate), **options)  # type: ignore[arg-type]
            make_run(
                tmp_path,
                f"no{rate}{warmup}",
                placement="no_norm",
                lr=rate,
                warmup=warmup,
                val_losses=(max(4.0, math.sqrt(end)), end),
            )
    maps = rate_maps(layout_of(tmp_path, {}))
    assert maps is not None
    bar = draw(maps).axes[-1]
    assert bar._colorbar.extend == extend  # type: ignore[attr-defined]


def test_an_arm_has_one_dash_in_all_tables_and_figures(tmp_path: Path) -> None:
    """Its warm-up decides; in a view of all arms each learning rate must be another line, too."""
    for rate in (1e-3, 1e-2):
        for warmup in (0, 10):
            for placement in ("pre_ln", "post_ln"):
                name = f"{placement}{rate}{warmup}"
                make_run(tmp_path, name, placement=placement, lr=rate, warmup=warmup)
    layout = layout_of(tmp_path, {})
    wanted = {
        (placement, warmup): look_of(placement).varied(dash)
        for placement in ("pre_ln", "post_ln")
        for dash, warmup in enumerate((0, 10))
    }
    arms = [*layout.by_key.values()]
    of_results = looks_of_arms(layout, arms)
    for arm, look in zip(arms, of_results, strict=True):
        values = dict(zip(layout.factors, arm.key, strict=True))
        assert look == wanted[str(values[PLACEMENT]), int(values[WARMUP] or 0)]
    in_words = tuned_in_words(layout)
    assert in_words is not None
    assert {*in_words[1]} == {*wanted.values()}
    lines = [s for p in sensitivity_chart(layout).panels for s in p.series if s.kind == "line"]
    assert {series.look for series in lines} == {*wanted.values()}
    lead = answer(layout)
    assert lead is not None
    assert len({series.look for series in lead.panels[0].series if series.name}) == 8


def test_a_placement_keeps_its_dash_at_each_rate_where_others_share_its_colour(
    tmp_path: Path,
) -> None:
    """DeepNorm and Keel have one colour: dashed, DeepNorm would be taken for Keel."""
    layout = layout_of(tmp_path, over_rates(deepnorm=(2.0, 2.1, 2.2), keel=(2.3, 2.4, 2.5)))
    facets = facets_of(layout)
    assert len(facets) == 6
    for facet in facets:
        placement = dict(zip(layout.factors, facet.arm.key, strict=True))[PLACEMENT]
        assert facet.look.dash == look_of(str(placement)).dash
    plain = layout_of(tmp_path / "plain", over_rates(pre_ln=(2.0, 2.1, 2.2), post_ln=(2, 2, 2)))
    assert len({facet.look.dash for facet in facets_of(plain)}) == 3
