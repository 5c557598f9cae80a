"""Charts: their scales, and that a page and a picture show the same."""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_page
from matplotlib.colors import to_hex
from playwright.sync_api import Browser, Page

from experiments.analysis.arms import Layout, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import PLACEMENT, find_runs
from experiments.machine.plotting import plain_matplotlib
from experiments.report import write_report
from experiments.report.chart import (
    Axis,
    Cells,
    Chart,
    ColourScale,
    Corner,
    Panel,
    Reference,
    Region,
    Series,
    arrows,
    corner_of,
    fitted,
    log_ticks,
    names,
    number,
    of_runs,
    percentile_limits,
    tick_words,
)
from experiments.report.facets import key_of, legend_of
from experiments.report.figures import answer
from experiments.report.gradients import gradient_ratio, gradients_by_layer
from experiments.report.interactive import described, embedded
from experiments.report.page import render
from experiments.report.palette import look_of
from experiments.report.picture import Shown
from experiments.report.static import STYLE, draw
from made_runs import HOSTILE, make_run
from normscope.stats import drawn

PRE, POST, NONE = map(look_of, ("pre_ln", "post_ln", "no_norm"))


def chart_of(*panels: Panel, x: Axis | None = None, y: Axis | None = None, **more: Any) -> Chart:
    words = ("made", "a finding", "how to read it", "a caption", "what is seen")
    return Chart(*words, panels, x or Axis("step", whole=True), y or Axis("loss"), **more)


@pytest.mark.parametrize(
    ("curves", "scale", "ends"),
    [
        ([[2.0, 4.0], [2.5, 5.0], [3.0, 2400.0]], "linear", [2.0, 5.0]),
        ([[2.0, 4.0], [2.5, 5.0], [-2400.0, 3.0]], "linear", [2.0, 5.0]),
        ([[2.0, 4.0], [100.0, 900.0]], "linear", [2.0, 900.0]),  # neither is the odd one
        ([[1e-2, 1.0], [1e-1, 10.0], [1.0, 1e13]], "log", [1e-2, 10.0]),
        ([[1e-2, 1.0], [1e-1, 10.0], [1e-1, 10.0]], "log", [1e-2, 10.0]),  # of few decades
        # One explodes and one vanishes: without either alone the scale would hardly be narrower.
        ([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1e5, 1e6], [1e-5, 1e-4]], "log", [1.0, 4.0]),
        ([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0], [1e5, 1e6], [1e5, 1e6]], "log", [1.0, 4.0]),
        # So many are no exception: they spread.
        ([[1.0, 10.0], [10.0, 1e2], [1e2, 1e3], [1e3, 1e4]], "log", [1.0, 1e4]),
        ([[1.0], [1.0], [2.0], [3.0]], "linear", [1.0, 3.0]),
        ([[2.0, np.nan, 4.0], [np.inf]], "linear", [2.0, 4.0]),
        ([[0.0, -1.0, 3.0, 30.0]], "log", [3.0, 30.0]),
        ([[np.nan]], "linear", []),
    ],
)
def test_one_bad_curve_does_not_decide_a_scale(curves: Any, scale: Any, ends: list[float]) -> None:
    assert fitted([np.array(curve) for curve in curves], scale) == pytest.approx(ends)


def test_what_leaves_a_panel_has_an_arrow_with_its_value() -> None:
    panel = Panel(
        [
            Series("a", PRE, [0, 1, 2], [4.0, 3.0, 2.0]),
            Series("b", POST, [0, 1, 2], [4.0, 3.5, 3.0]),
            Series("c", NONE, [0, 1, 2], [4.0, 700.0, 2243.0], keys=("c",)),
            Series("c", NONE, [0, 1, 2], [3.0, 800.0, 1000.0], keys=("c",), kind="dots"),
            Series("d", PRE, [0, 1, 2], [3.0, 2.5, -900.0]),
        ]
    )
    chart = chart_of(panel)
    x, y = chart.axes(panel)
    assert y.limits == pytest.approx((1.9, 4.1))
    found = [(a.series, a.x, a.is_up, a.text, a.level) for a in arrows(panel, x, y)]
    assert found == [(2, 2.0, True, "to 2,243", 0), (4, 2.0, False, "to -900", 0)]
    with plain_matplotlib(STYLE):
        (axis,) = draw(chart).axes
    assert axis.get_ylim() == pytest.approx((1.9, 4.1))
    assert {"to 2,243", "to -900"} <= {text.get_text() for text in axis.texts}


def test_an_arm_leaves_a_scale_with_all_its_steps() -> None:
    """Of a slider's steps one alone would make no scale narrower: the others would hold it open."""
    arms = {"a": 1.0, "b": 2.0, "c": 3.0, "exploded": 1e6}
    series = [
        Series(name, PRE, [1, 2], [value, 2 * value], keys=(name,), frame=frame)
        for name, value in arms.items()
        for frame in (0, 10, 20)
    ]
    _, y = chart_of(Panel(series), y=Axis("gradient norm", "log")).axes(Panel(series))
    assert y.limits == pytest.approx((1.0, 6.0), rel=0.1)


@pytest.mark.parametrize(("count", "top"), [(3, 5000.0), (7, 10.0)])
def test_a_log_scale_of_a_few_decades_holds_all_of_few_arms(count: int, top: float) -> None:
    values = [[1.0, 10.0]] * count + [[5.0, 5000.0]]
    panel = Panel([Series("arm", PRE, [1, 2], each) for each in values])
    _, y = chart_of(panel, y=Axis("rms", "log")).axes(panel)
    assert y.limits == pytest.approx((1.0, top), rel=0.55)


def ranged(y: list[float], low: list[float], high: list[float]) -> Series:
    return Series("arm", PRE, range(len(y)), y, low, high, runs=3, keys=("arm",))


@pytest.mark.parametrize(
    ("scale", "series", "limits", "found"),
    [
        # A band that leaves its line half of the scale or more is on it.
        ("linear", ranged([2.0, 4.0], [1.5, 3.0], [2.5, 5.5]), (1.3, 5.7), []),
        ("log", ranged([1e-3, 1.0], [1e-4, 0.1], [1e-2, 2.0]), (6.1e-5, 3.3), []),
        # One that would leave it less is cut at that end, and says how far it goes.
        ("linear", ranged([2.0, 4.0], [1.5, 3.0], [2.5, 900.0]), (1.375, 4.125), ["range to 900"]),
        ("log", ranged([1.0, 2.0], [1e-4, 1.0], [2.0, 3.0]), (0.947, 3.17), ["range to 0.0001"]),
        # A line that leaves counts before the range around it.
        (
            "linear",
            ranged([1.0, 9.0], [0.5, 8.0], [1.5, 99.0]),
            (0.0, 5.0),
            ["to 9"],
        ),
    ],
)
def test_a_scale_holds_ranges_unless_they_flatten_lines(
    scale: Any, series: Series, limits: tuple[float, float], found: list[str]
) -> None:
    panel = Panel([series])
    given = limits if found == ["to 9"] else None
    x, y = chart_of(panel, y=Axis("value", scale, given)).axes(panel)
    assert y.limits == pytest.approx(limits, rel=0.02)
    assert [arrow.text for arrow in arrows(panel, x, y)] == found


def test_an_axis_makes_no_mountain_of_a_small_difference() -> None:
    """A log scale spans a factor of two or more, and a natural 0 or 1 is on its axis."""
    flat = Panel([Series("arm", PRE, [1, 2, 3], [0.994, 1.02, 1.08])])
    _, y = chart_of(flat, y=Axis("root mean square", "log")).axes(flat)
    assert y.limits is not None
    assert y.limits[0] < 0.75 < 1.4 < y.limits[1]
    rise = Panel([Series("arm", PRE, [1, 2], [0.045, 0.07])])
    _, y = chart_of(rise, y=Axis("rise of the loss", shows=(0.0,))).axes(rise)
    assert y.limits == pytest.approx((-0.0035, 0.0735))


def test_statistics_with_a_natural_value_show_it() -> None:
    shows = {statistic.name: statistic.shows for statistic in drawn()}
    assert shows["layer_drop"] == shows["angular_distance"] == (0.0,)
    assert shows["attention_entropy"] == shows["expert_entropy"] == (0.0, 1.0)
    assert shows["activation_rms"] == ()


@pytest.mark.parametrize(
    ("limits", "most", "ticks"),
    [
        ((0.08, 2.3), 10, [0.1, 0.2, 0.5, 1, 2]),
        ((2e-4, 4e-3), 10, [2e-4, 5e-4, 1e-3, 2e-3]),
        ((0.73, 1.46), 10, [0.8, 1.0, 1.2, 1.4]),
        ((1e-3, 10), 10, [1e-3, 1e-2, 0.1, 1, 10]),
        ((1e-3, 10), 13, [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10]),
        ((1e-9, 1e13), 8, [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6, 1e9, 1e12]),
    ],
)
def test_no_tick_of_a_log_scale_is_missing(limits: Any, most: int, ticks: list[float]) -> None:
    assert log_ticks(limits, most) == ticks


def test_a_picture_has_these_ticks_also_beside_its_colours() -> None:
    cells = Cells([0, 1], [1, 2], [[0.1, 2.0], [0.3, 1.0]])
    chart = chart_of(
        Panel([Series("arm", PRE, [1, 2], [0.1, 2.0])], y=Axis("norm", "log")),
        Panel(column=1, cells=cells),
        colours=ColourScale("norm", (0.1, 2.0), "log"),
    )
    with plain_matplotlib(STYLE):
        figure = draw(chart)
        figure.draw_without_rendering()
    words = ["0.1", "0.2", "0.5", "1", "2"]
    for axis in (figure.axes[0], figure.axes[-1]):
        labels = [*axis.get_yticklabels(), *axis.get_yticklabels(minor=True)]
        assert [label.get_text() for label in labels if label.get_text()] == words


def test_words_inside_a_panel_are_above_its_curves_and_have_a_halo() -> None:
    panel = Panel(
        [Series("arm", PRE, [0, 1, 2], [3.0, 2.0, 9e3], [2.0, 1.0, 1.0], [4.0, 3.0, 9e3])],
        references=[Reference("level", y=3.0), Reference("slope", points=((0, 1), (1, 2)))],
        regions=[Region("region", y=(1.0, 2.0))],
    )
    with plain_matplotlib(STYLE):
        (axis,) = draw(chart_of(panel, y=Axis("loss", limits=(0.0, 5.0)))).axes
    assert {text.get_text() for text in axis.texts} == {"level", "slope", "region", "to 9,000"}
    for text in axis.texts:
        assert text.get_path_effects()
        assert text.zorder > max(line.zorder for line in axis.lines)


def test_texts_of_neighbouring_arrows_are_below_each_other() -> None:
    series = [Series(str(i), PRE, [i, 50, 100], [4, 9e3 + i, 4], keys=(str(i),)) for i in range(3)]
    panel = Panel(series)
    y = Axis("loss", limits=(0.0, 5.0))
    assert [arrow.level for arrow in arrows(panel, *chart_of(panel, y=y).axes(panel))] == [0, 1, 2]


def test_an_arrow_in_a_crowd_has_a_name() -> None:
    series = [Series(f"arm {index}", PRE, [1, 2], [1, 2]) for index in range(7)]
    panel = Panel([*series, Series("No norm", NONE, [1, 2], [1, 92])], y=Axis("rms", limits=(0, 3)))
    (arrow,) = arrows(panel, *chart_of(panel).axes(panel))
    assert arrow.text == "No norm to 92"


def test_texts_of_arrows_at_other_steps_take_no_room() -> None:
    series = [
        Series(name, PRE, [1, 2], [value, 1], keys=(name,), frame=frame)
        for frame in (0, 10, 20)
        for name, value in (("a", 50), ("b", 60))
    ]
    panel = Panel(series, y=Axis("norm", limits=(0, 2)))
    found = [(arrow.text, arrow.level) for arrow in arrows(panel, *chart_of(panel).axes(panel))]
    assert found == [("to 50", 0), ("to 60", 1)] * 3


def test_one_run_is_a_value_two_are_two_and_more_have_a_median_and_a_range() -> None:
    runs = [pd.Series([4.0, value], index=[0, 10]) for value in (3.0, 1.0, 2.5)]
    one, two, three = (of_runs("arm", PRE, runs[:count]) for count in (1, 2, 3))
    assert one is not None
    assert two is not None
    assert three is not None
    assert (one.x, one.y, one.low) == ([0, 10], [4.0, 3.0], ())
    assert (two.y, two.low, two.high) == ((), [4.0, 1.0], [4.0, 3.0])
    assert (three.y, three.low, three.high) == ([4.0, 2.5], [4.0, 1.0], [4.0, 3.0])
    assert of_runs("arm", PRE, [pd.Series([np.nan])]) is None


def test_a_run_that_diverged_does_not_better_the_median_and_leaves_one_value_of_two() -> None:
    short, long = pd.Series([4.0], index=[0]), pd.Series([4.0, 2.0], index=[0, 1])
    three = of_runs("arm", PRE, [short, short, long], [True, True, False])
    assert three is not None
    assert three.y == [4.0, np.inf]
    two = of_runs("arm", PRE, [short, long], [True, False])
    assert two is not None
    assert two.low == [4.0, 2.0]
    assert two.high == [4.0, pytest.approx(np.nan, nan_ok=True)]


def test_names_beside_curves_keep_a_gap_and_their_order() -> None:
    ends = (2.0, 2.01, 2.02, 4.0)
    series = [Series(f"arm {end}", PRE, [0, 1], [4, end], name=f"arm {end}") for end in ends]
    y = Axis("loss", limits=(2.0, 4.0))
    found = names(Panel(series, references=[Reference("level", y=3.0)]), y)
    assert [name.text for name in found] == ["arm 2.0", "arm 2.01", "arm 2.02", "level", "arm 4.0"]
    heights = np.array([name.height for name in found])
    assert np.diff(heights).min() > 0.084  # a line of text in a panel of 160 pixels
    assert (heights[0], heights[-1]) == (0.0, 1.0)


def test_many_names_beside_curves_stay_beside_the_panel() -> None:
    series = [Series("arm", PRE, [0, 1], [4, 3], name=f"arm {index}") for index in range(31)]
    heights = [name.height for name in names(Panel(series), Axis("loss", limits=(2.0, 4.0)))]
    assert heights == pytest.approx(np.linspace(0, 1, 31))


def test_ends_of_a_colour_scale_are_percentiles() -> None:
    values = np.concatenate([np.linspace(1, 2, 998), [1e-9, 1e9], [np.nan, np.inf, 0.0]])
    low, high = percentile_limits(values, "log")
    assert 1 < low < 1.02
    assert 1.98 < high < 2
    assert (
        percentile_limits(np.array([3.0]), "log")[0] < 3 < percentile_limits(values, "log")[1] + 2
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2243.4, "2,243"),
        (1e13, "1e13"),
        (-0.5, "-0.5"),
        (3e-8, "3e-8"),
        (1.384e-4, "0.000138"),
        (1.384e-5, "1.38e-5"),
        (0.0, "0"),
        (2.345, "2.35"),
    ],
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert number(value) == words


def sliding() -> Chart:
    """Two arms over four blocks at steps 0, 50 and 120."""
    series = [
        Series(name, look, [1, 2, 3, 4], [1 + step, 2, 3, 4 + step], keys=(key,), frame=step)
        for step in (0, 50, 120)
        for name, key, look in (("Pre-LN", "p=pre", PRE), ("Post-LN", "p=post", POST))
    ]
    losses = [
        Series("Pre-LN", PRE, [0, 60, 120], [4, 3, 2], keys=("p=pre",), name="Pre-LN"),
        Series("Post-LN", POST, [0, 60, 120], (), [4, 3, 3], [5, 4, 3.5], keys=("p=post",)),
    ]
    right = Panel(series, 0, 1, "by block", x=Axis("block", whole=True), y=Axis("norm", "log"))
    left = Panel(losses, 0, 0, "Loss", references=[Reference("frequencies", y=3.0)])
    return chart_of(left, right, widths=(3, 2))


@pytest.mark.parametrize(("frame", "thick"), [(None, 120), (50, 50)])
def test_a_picture_has_the_first_step_and_that_of_its_heading(
    frame: int | None, thick: int
) -> None:
    chart = dataclasses.replace(sliding(), frame=frame)
    with plain_matplotlib(STYLE):
        figure = draw(chart)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["Pre-LN", "Post-LN", "thin: step 0", f"thick: step {thick}"]
    lines = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[1].lines]
    assert lines == [[1, 2, 3, 4]] * 2 + [[1 + thick, 2, 3, 4 + thick]] * 2
    steps = [np.asarray(line.get_xdata()).tolist() for line in figure.axes[0].lines]
    assert [thick, thick] in steps


def test_a_picture_of_a_crowd_has_one_step_alone() -> None:
    series = [
        Series(f"arm {index}", PRE, [1, 2], [index, step], frame=step)
        for index in range(7)
        for step in (0, 50)
    ]
    for some, lines in ((series, 7), (series[:12], 12)):
        with plain_matplotlib(STYLE):
            (axis,) = draw(chart_of(Panel(some))).axes
        assert len(axis.lines) == lines


def test_a_label_in_a_picture_looks_as_in_the_first_panel() -> None:
    panels = [
        Panel([Series("Post-LN", look, [0, 1], [2, 1])], column=column)
        for column, look in enumerate((POST, POST.varied(1)))
    ]
    with plain_matplotlib(STYLE):
        (handle,) = draw(chart_of(*panels)).legends[0].get_lines()
    assert handle.get_linestyle() == "-"


@pytest.mark.parametrize(
    ("curve", "corner"),
    [
        ([9.0, 3.5, 3.2, 3.1, 3.1], Corner(is_below=True)),
        ([9.0, 1.0, 1.0, 1.0, 1.0], Corner(is_right=True)),
        ([9.0, 9.0, 9.0, 1.0, 1.0], Corner()),
        ([2.5, 2.6, 5.0, 3.4, 3.4], Corner(is_right=True, is_below=True)),
        ([3.3, 2.6, 1.0, 2.9, 2.6], Corner(is_right=True)),
    ],
)
def test_the_words_of_a_level_are_where_the_fewest_curves_run(
    curve: list[float], corner: Corner
) -> None:
    level = Reference("token frequencies", y=3.0)
    panel = Panel([Series("arm", PRE, range(5), curve)], references=[level])
    x, y = Axis("step", limits=(0, 4)), Axis("loss", limits=(0, 10))
    assert corner_of(level, panel, x, y) == corner
    chart = chart_of(panel, x=x, y=y)
    (found,) = described(chart)["panels"][0]["references"]
    assert (found["is_right"], found["is_below"]) == (corner.is_right, corner.is_below)
    with plain_matplotlib(STYLE):
        (axis,) = draw(chart).axes
    (text,) = axis.texts
    assert text.get_ha() == ("right" if corner.is_right else "left")
    assert text.get_va() == ("top" if corner.is_below else "baseline")


def test_words_of_a_level_stay_inside_the_panel() -> None:
    level = Reference("equal", y=0.0)
    panel = Panel([Series("arm", PRE, range(2), [0.1, 0.1])], references=[level])
    x, y = Axis("step", limits=(0, 1)), Axis("ratio", limits=(-0.01, 1))
    assert not corner_of(level, panel, x, y).is_below


def test_a_page_and_a_picture_have_the_same_data_colours_and_limits() -> None:
    chart = sliding()
    with plain_matplotlib(STYLE):
        figure = draw(chart)
    for axis, panel in zip(figure.axes, described(chart)["panels"], strict=True):
        assert axis.get_xlim() == pytest.approx(panel["x"]["limits"])
        assert axis.get_ylim() == pytest.approx(panel["y"]["limits"])
        assert axis.get_title(loc="left") == panel["title"]
        shown = [s for s in panel["series"] if s["frame"] in (None, 0, 120)]
        drawn = {
            (to_hex(line.get_color()), *map(float, np.ravel(line.get_xydata())))
            for line in axis.lines
        }
        for series in shown:
            for values in filter(None, (series["y"], series["low"], series["high"])):
                points = np.ravel(np.column_stack([series["x"], values]))
                assert (series["light"], *points) in drawn


def test_the_numbers_of_a_page_are_those_of_the_files(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", last_block=0.123456789, val_losses=(4.0, 3.21, 2.0))
    make_run(tmp_path, "b", placement="post_ln")
    data = data_of(write_report([tmp_path], tmp_path / "out", formats=()))
    metrics = pd.read_csv(run / "metrics.csv")
    (panel,) = data["loss"]["panels"]
    dots = next(s for s in panel["series"] if (s["label"], s["kind"]) == ("Pre-LN", "dots"))
    assert (dots["x"], dots["y"]) == (metrics.step.tolist(), metrics.val_loss.tolist())
    assert data["gradients_by_layer"]["frames"] == [0, 1, 2]
    rows = pd.read_csv(run / "gradients.csv").query("stat == 'grad_norm' and step == 2")
    (panel,) = data["gradients_by_layer"]["panels"]
    series = next(s for s in panel["series"] if (s["label"], s["frame"]) == ("Pre-LN", 2))
    assert series["x"] == [1, 2]  # blocks count from 1
    assert series["y"] == pytest.approx(rows.value.tolist(), rel=1e-4)


def data_of(page: Path) -> Any:
    """The data of a page's charts."""
    pattern = r'<script type="application/json" id="charts-data">(.*?)</script>'
    (text,) = re.findall(pattern, page.read_text(), re.DOTALL)
    return json.loads(text)


def test_no_word_can_leave_the_script_of_a_page() -> None:
    words = f'{HOSTILE} & "\u2028\u2029\\ </script><!--'
    panel = Panel([Series(words, PRE, [0, 1], [1.0, np.inf])], title=words)
    text = embedded([chart_of(panel)])
    assert not set("<>&\u2028\u2029") & set(text)
    (shown,) = json.loads(text)["made"]["panels"]
    assert (shown["title"], shown["series"][0]["y"]) == (words, [1, None])


def test_a_heading_has_the_ratio_that_its_figure_shows_where_its_slider_opens(
    tmp_path: Path,
) -> None:
    """Of 200 steps a slider and a curve show fewer; the medians are those of different runs."""
    for seed, (first, last) in enumerate(((0.01, 0.5), (0.04, 0.6), (0.02, 0.1))):
        run = make_run(tmp_path, f"seed{seed}", seed=seed, val_losses=[3.0] * 200)
        table = pd.read_csv(run / "gradients.csv")
        is_norm = (table["step"] == 117) & (table["stat"] == "grad_norm")
        table.loc[is_norm & (table["layer"] == 0), "value"] = first
        table.loc[is_norm & (table["layer"] == 1), "value"] = last
        table.to_csv(run / "gradients.csv", index=False)
    histories = [read_history(run) for run in find_runs(tmp_path)]
    layout = Layout(form_arms(histories, []), [])
    words = "he last block gets up to 25 times the first's gradient (median, step 117)"
    charts = [make(layout) for make in (answer, gradients_by_layer, gradient_ratio)]
    for chart in charts:
        assert chart is not None
        assert chart.title.endswith(words)
        assert " Single runs at step 117: 5 to 50 times." in chart.caption
    for chart in charts[:2]:
        assert chart is not None
        assert chart.frame == 117
        assert 117 in chart.frames
        assert len(chart.frames) == 12
        (shown,) = (s for panel in chart.panels for s in panel.series if s.frame == 117)
        assert shown.y[1] / shown.y[0] == pytest.approx(25)
    assert charts[2] is not None
    (line,) = charts[2].panels[0].series
    place = list(line.x).index(117)
    assert [column[place] for column in (line.y, line.low, line.high)] == pytest.approx([25, 5, 50])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("charts")
    for placement in ("pre_ln", "post_ln"):
        for warmup in (0, 10):
            make_run(folder, f"{placement}{warmup}", placement=placement, warmup=warmup)
    return write_report([folder], folder / "out", formats=())


@pytest.fixture(
    params=[(1280, "light"), (390, "dark")],
    ids=["screen", "phone"],
)
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A report of two placements with and without warm-up, which must not complain or ask."""
    width, scheme = request.param
    tab = test_page.tab_of(browser, {"width": width, "height": 900}, scheme)
    with test_page.opened(tab, report) as page:
        page.evaluate(DRAW)
        yield page


# Unfolds what is folded, and draws every chart.
DRAW = """async () => {
  for (const fold of document.querySelectorAll('details')) fold.open = true;
  await normscopeCharts.draw();
}"""


def test_an_arm_has_one_dash_in_all_figures_and_the_legend_shows_it(report: Path) -> None:
    factors = [PLACEMENT, "schedule.warmup_steps"]
    runs = [read_history(run) for run in find_runs(report.parent.parent)]
    layout = Layout(form_arms(runs, factors), factors)
    placements, warmups = legend_of(layout)
    assert [entry["look"].dash for entry in placements["entries"]] == [(), ()]
    assert [entry["look"].dash for entry in warmups["entries"]] == [(), PRE.varied(1).dash]
    for name, chart in data_of(report).items():
        for series in [s for panel in chart["panels"] for s in panel["series"]]:
            is_warmed = "schedule.warmup_steps=10" in series["keys"]
            assert (name, series["dash"]) == (name, [*PRE.varied(is_warmed).dash])


def signal(page: Page, chart: str, panel: int, name: str) -> Any:
    """A signal of the view of a panel."""
    return page.evaluate(
        """([chart, panel, name]) => normscopeCharts.charts
            .find(({ figure }) => figure.id === chart).views[panel].view.signal(name)""",
        [chart, panel, name],
    )


def test_the_legend_switches_arms_off_in_all_figures(page: Page) -> None:
    page.get_by_label("Post-LN", exact=True).uncheck()
    assert signal(page, "loss", 0, "off") == [2, 3]  # training and validation of the second arm
    assert len(signal(page, "gradients_by_layer", 0, "off")) == 3  # at three steps
    maps = page.locator("#gradient_maps .panel:visible")
    assert maps.count() == 2
    page.get_by_label("Post-LN", exact=True).check()
    assert signal(page, "loss", 0, "off") == []
    page.get_by_label("10", exact=True).press("Space")
    assert page.locator("#loss .panel:visible").count() == 1
    assert maps.count() == 2


def test_the_legend_switches_rows_and_columns_of_a_map_off(
    browser: Browser, tmp_path: Path
) -> None:
    keys = [(key_of(PLACEMENT, "pre_ln"),), (key_of(PLACEMENT, "post_ln"),)]
    table = [0, 1], [0, 1], [[2.0, 3.0], [4.0, np.nan]], [["a", "b"], ["c", "d"]], ("all",)
    rows, columns = Cells(*table, y_keys=keys), Cells(*table, x_keys=keys)
    panels = Panel(cells=rows), Panel((), 0, 1, cells=columns)
    chart = chart_of(*panels, colours=ColourScale("loss", (2.0, 4.0)))
    with shown(browser, tmp_path, chart) as page:

        def words() -> str:
            found = page.locator("#made .plot .mark-text text").all_text_contents()
            return "".join(word for word in found if word in "abcd")

        assert words() == "abcdabcd"
        page.get_by_label("Post-LN", exact=True).uncheck()
        assert words() == "abac"
        note = page.locator("#made .heading-note").first
        assert note.inner_text() == (
            "The heading, the order of rows and asterisks speak of all arms."
        )
        page.get_by_label("Pre-LN", exact=True).uncheck()
        assert page.locator("#made .panel:visible").count() == 0


def test_a_slider_moves_through_steps_by_their_numbers(page: Page) -> None:
    slider = page.locator("#gradients_by_layer input[type=range]")
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "step 2, 3 of 3"
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "step 0, 1 of 3"
    assert "0 (1 of 3 steps)" in page.locator("#gradients_by_layer .step").inner_text()
    assert signal(page, "gradients_by_layer", 0, "frame") == 0
    slider.press("ArrowRight")
    assert signal(page, "gradients_by_layer", 0, "frame") == 1


def test_values_are_read_by_pointer_and_by_keyboard(page: Page) -> None:
    plot, tip = page.locator("#loss .plot").first, page.locator("#loss .tip")
    box = plot.bounding_box()
    assert box is not None
    plot.hover(position={"x": box["width"] - 10, "y": 60})
    assert tip.inner_text().split("\n")[0] == "step 2"
    assert "Pre-LN: 2" in tip.inner_text()
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text().split("\n")[0] == "step 1"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    cells = page.locator("#gradient_maps .plot").first
    ticks = cells.locator(".role-axis-label text").all_text_contents()
    assert ticks == ["0", "1", "2", "1", "2"]  # of steps and blocks, none between two of them
    cells.scroll_into_view_if_needed()
    cells.hover(position={"x": 100, "y": 40})
    assert "block 2" in page.locator("#gradient_maps .tip").inner_text()


def test_a_tip_names_the_sliders_step_only_beside_what_the_slider_moves(page: Page) -> None:
    """As in a chart with both, such as losses beside the gradients of one step."""
    page.evaluate("for (const chart of normscopeCharts.charts) chart.frame ??= 1")
    page.locator("#gradients_by_layer input[type=range]").press("End")
    for name, words in (("loss", "step 2"), ("gradients_by_layer", "block 2, at step 2")):
        plot = page.locator(f"#{name} .plot").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        plot.hover(position={"x": box["width"] - 10, "y": 60})
        assert page.locator(f"#{name} .tip").inner_text().split("\n")[0] == words


def test_a_figure_is_zoomed_and_whole_again(page: Page) -> None:
    plot = page.locator("#loss .plot").first
    plot.scroll_into_view_if_needed()
    whole = signal(page, "loss", 0, "xdom")
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 80, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 120, steps=3)
    page.mouse.up()
    zoomed = signal(page, "loss", 0, "xdom")
    assert whole[0] < zoomed[0] < zoomed[1] < whole[1]
    assert signal(page, "loss", 1, "xdom") == zoomed  # panels with equal axes move together
    page.locator("#loss").get_by_role("button", name="Show all").click()
    assert signal(page, "loss", 0, "xdom") == whole
    plot.press("+")
    assert signal(page, "loss", 0, "xdom") != whole
    plot.press("0")
    assert signal(page, "loss", 0, "xdom") == whole


def test_colours_follow_the_scheme(page: Page) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_function(
            "(is) => normscopeCharts.charts[0].views[0].view.signal('dark') === is",
            arg=scheme == "dark",
        )
        assert getattr(PRE, scheme) in signal(page, "loss", 0, "colours")


def test_every_part_of_a_chart_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """Bars, steps, regions, guides, heat maps with words, and ticks with words."""
    panels = [
        Panel(
            [
                Series("bars", PRE, [0, 1], [1.0, 3.0], kind="bars"),
                Series("steps", POST, [0, 1], [1.0, 2.0], kind="steps"),
            ],
            regions=[Region("predicted", y=(1.0, None))],
            references=[
                Reference("slope -1", points=((0, 3), (1, 1))),
                Reference("here", x=0.5),
            ],
        ),
        Panel(
            column=1,
            x=Axis("warm-up", ticks=((0.0, "0"), (1.0, "60"))),
            y=Axis("rate", ticks=((0.0, "0.1"),)),
            cells=Cells([0, 1], [0], [[1.0, np.nan]], [["1.00", "none\nfailed"]]),
        ),
    ]
    chart = chart_of(*panels, colours=ColourScale("loss", (1.0, 2.0), low="good", high="bad"))
    with shown(browser, tmp_path, chart) as page:
        words = page.locator("#made svg text").all_text_contents()
        assert {"predicted", "slope -1", "here", "1.00", "nonefailed", "60", "0.1"} <= {*words}
        assert "dark: good; yellow: bad" in page.locator("#made").inner_text()


@contextmanager
def shown(browser: Browser, folder: Path, chart: Chart, **settings: Any) -> Iterator[Page]:
    """A page about a run of each of two placements, with this chart alone."""
    for placement in ("pre_ln", "post_ln"):
        make_run(folder, placement, placement=placement)
    runs = find_runs(folder)
    arms = form_arms([read_history(run) for run in runs], [PLACEMENT])
    path = folder / "page.html"
    path.write_text(render(folder, runs, arms, Layout(arms, [PLACEMENT]), [Shown(chart, [])], []))
    tab = browser.new_context(**settings).new_page() if settings else browser
    with test_page.opened(tab, path) as page:
        page.evaluate(DRAW)
        yield page
    if settings:
        page.context.close()


def lesson() -> Chart:
    """Losses beside the gradients at the step of a slider, under a heading about step 50."""
    keys = {name: (key_of(PLACEMENT, name),) for name in ("pre_ln", "post_ln")}
    losses = [
        Series("Pre-LN", PRE, [0, 60, 120], [4, 3, 2], keys=keys["pre_ln"], name="Pre-LN"),
        Series("Post-LN", POST.varied(1), [0, 60, 120], [4.1, 3.2, 3], keys=keys["post_ln"]),
    ]
    norms = {0: 0.2, 50: 3.784e-4, 120: 2.0}
    series = [
        Series(label, look, [1, 2], [norm, 1], [norm / 3, 1], [10.54 * norm, 1], **more)
        for step, norm in norms.items()
        for label, look, key in (("Pre-LN", PRE, "pre_ln"), ("Post-LN", POST.varied(1), "post_ln"))
        for more in ({"keys": keys[key], "frame": step, "runs": 3},)
    ]
    left = Panel(losses, 0, 0, "Loss", references=[Reference("frequencies", y=3.5)])
    right = Panel(series, 0, 1, "by block", x=Axis("block", whole=True), y=Axis("norm", "log"))
    chart = chart_of(left, right, widths=(3, 2), frame=50)
    return dataclasses.replace(chart, title="Post-LN gets little gradient at step 50")


PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def test_a_heading_says_when_the_figure_shows_something_else(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, tmp_path, lesson()) as page:
        note, slider = page.locator("#made .heading-note").first, page.locator("#made input")
        assert note.inner_text() == ""
        slider.press("Home")
        assert note.inner_text() == "The heading speaks of step 50."
        page.get_by_label("Post-LN", exact=True).uncheck()
        assert note.inner_text() == "The heading speaks of step 50 and of all arms."
        slider.press("ArrowRight")
        assert note.inner_text() == "The heading speaks of all arms."
        nothing = page.get_by_text("Nothing is selected. Tick an entry of the legend.")
        assert not nothing.is_visible()
        page.get_by_label("Pre-LN", exact=True).uncheck()
        assert nothing.is_visible()
        assert note.inner_text() == ""
        assert page.locator("#made .panel:visible").count() == 0


def test_a_line_that_another_one_hides_is_named(browser: Browser, tmp_path: Path) -> None:
    """Two models with the same values at a step: one of them seems to be missing."""
    series = [
        Series(label, look, [1, 2], [first, 1.0], keys=(key_of(PLACEMENT, key),), frame=step)
        for step, other in ((0, 0.5004), (50, 0.9))
        for label, key, look, first in (
            ("Pre-LN", "pre_ln", PRE, 0.5),
            ("Post-LN", "post_ln", POST, other),
        )
    ]
    panel = Panel(series, title="at lr 0.1", y=Axis("norm", limits=(0.0, 1.0)))
    with shown(browser, tmp_path, chart_of(panel, frame=0)) as page:
        note = page.locator("#made .heading-note").last
        assert note.inner_text() == "One line hides the other: At lr 0.1, Pre-LN and Post-LN."
        page.get_by_label("Pre-LN", exact=True).uncheck()
        assert note.inner_text() == ""
        page.get_by_label("Pre-LN", exact=True).check()
        page.locator("#made input").press("End")
        assert note.inner_text() == ""


def test_a_line_in_the_losses_follows_the_slider(browser: Browser, tmp_path: Path) -> None:
    chart = lesson()
    assert [panel["follows"] for panel in described(chart)["panels"]] == [True, False]
    alone = dataclasses.replace(chart, panels=[chart.panels[0]])
    assert not described(alone)["panels"][0]["follows"]
    with shown(browser, tmp_path, chart) as page:
        page.locator("#made input").press("End")
        found = page.evaluate(
            """async () => {
              await normscopeCharts.draw();
              return normscopeCharts.charts[0].views.map(({ plot, view }) => {
                const lines = [...plot.querySelectorAll('.mark-rule line[stroke-opacity="0.7"]')];
                const at = (line) => line.transform.baseVal.consolidate().matrix.e;
                return lines.map((line) => Math.abs(at(line) - view.scale('x')(120)) < 1);
              });
            }"""
        )
    assert found == [[True], []]


def test_names_and_levels_are_in_the_figure_at_every_width(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, tmp_path, lesson()) as page:
        loss, key = page.locator("#made .plot").first, page.locator("#made .key")
        assert {"Pre-LN", "frequencies"} <= {*loss.locator("svg text").all_text_contents()}
        assert not key.is_visible()
        page.set_viewport_size(PHONE["viewport"])
        key.wait_for()
        assert key.inner_text().split() == ["Pre-LN", "Post-LN"]
        dashes = [line.get_attribute("stroke-dasharray") for line in key.locator("line").all()]
        assert dashes == ["", " ".join(f"{2 * part:g}" for part in POST.varied(1).dash)]
        loss.get_by_text("frequencies").wait_for(state="attached")
        assert "Pre-LN" not in loss.locator("svg text").all_text_contents()
        words = loss.get_by_text("frequencies").evaluate(
            "(text) => [text.getAttribute('stroke'), getComputedStyle(text).paintOrder]"
        )
        assert words == ["#ffffff", "stroke"]
        page.get_by_label("Post-LN", exact=True).uncheck()
        assert key.inner_text().split() == ["Pre-LN"]
        swatch = page.locator(".legend .swatch line").first
        assert swatch.evaluate("(line) => line.getTotalLength()") == 32


def test_a_log_axis_of_a_page_has_the_ticks_of_the_picture(
    browser: Browser, tmp_path: Path
) -> None:
    limits = [(0.08, 2.3), (2e-4, 4e-3), (0.73, 1.46), (1e-9, 1e13)]
    panels = [
        Panel([Series("arm", PRE, [0, 1], ends)], index, 0, str(index), y=Axis("v", "log", ends))
        for index, ends in enumerate(limits)
    ]
    cells = Panel(row=4, cells=Cells([0, 1], [1, 2], [[0.1, 2.0], [0.3, 1.0]]))
    chart = chart_of(*panels, cells, colours=ColourScale("norm", limits[0], "log"))
    with shown(browser, tmp_path, chart) as page:
        ticks = [signal(page, "made", index, "yround") for index in range(4)]
        most = [
            page.locator("#made .plot").nth(i).evaluate("(b) => b.clientHeight / 24")
            for i in range(4)
        ]
        assert ticks == [log_ticks(each, most) for each, most in zip(limits, most, strict=True)]
        for index, each in enumerate(ticks):
            words = page.locator("#made .plot").nth(index).locator(".role-axis-label text")
            assert {tick_words(tick) for tick in each} <= {*words.all_text_contents()}
        colours = page.locator("#made .bar .role-legend-label text").all_text_contents()
        assert colours == ["0.1", "0.2", "0.5", "1", "2"]


def test_a_value_and_its_range_have_three_digits_and_one_notation(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, tmp_path, lesson()) as page:
        tip = page.locator("#made .tip")
        for step, words in (
            ("Home", "0.200 (0.0667 to 2.11)"),
            ("ArrowRight", "0.000378 (0.000126 to 0.00399)"),
        ):
            page.locator("#made input").press(step)
            page.locator("#made .plot").last.press("ArrowLeft")
            assert f"Pre-LN: {words}" in tip.inner_text().split("\n")
            page.keyboard.press("Escape")
        page.locator("#made .plot").first.press("ArrowRight")
        assert tip.inner_text().split() == ["step", "0", "Pre-LN:", "4.00", "Post-LN:", "4.10"]


def test_a_drag_zooms_selects_nothing_and_values_out_of_view_are_silent(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, tmp_path, lesson()) as page:
        assert page.get_by_text("Drag over a figure to zoom in.").is_visible()
        plot, tip = page.locator("#made .plot").first, page.locator("#made .tip")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 4)  # from the words of the axes
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + box["height"] - 120, steps=3)
        page.mouse.up()
        assert page.evaluate("getSelection().toString()") == ""
        plot.press("0")
        # Between the points at steps 0 and 60, then at step 60 above both curves.
        for domains in ({"xstep": [10, 50]}, {"xstep": [50, 70], "yloss": [3.4, 4]}):
            page.evaluate(
                """async (domains) => {
                  const [chart] = normscopeCharts.charts;
                  chart.zoom = new Map(Object.entries(domains));
                  document.querySelector('.legend input').dispatchEvent(new Event('change'));
                  await normscopeCharts.draw();
                }""",
                domains,
            )
            plot.hover(position={"x": 150, "y": 100})
            assert not tip.is_visible()
        plot.press("0")
        plot.hover(position={"x": 151, "y": 100})
        assert tip.is_visible()


def test_a_tap_shows_values_and_a_tap_elsewhere_hides_them(
    browser: Browser, tmp_path: Path
) -> None:
    with shown(browser, tmp_path, lesson(), **PHONE) as page:
        plot, tip = page.locator("#made .plot").first, page.locator("#made .tip")
        plot.tap(position={"x": 300, "y": 100})
        assert tip.inner_text().split("\n")[0] == "step 120"
        other = page.locator("#made .plot").last
        other.tap(position={"x": 100, "y": 100})
        assert tip.inner_text().split("\n")[0] == "block 1, at step 50"
        page.locator("h1").tap()
        assert not tip.is_visible()
