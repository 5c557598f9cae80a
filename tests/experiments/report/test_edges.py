"""Pictures and words at the edges: huge and tiny numbers, failures, names of every kind."""

import json
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.findings import verdict_of
from experiments.analysis.histories import read_csv, read_history
from experiments.analysis.numbers import fit_power
from experiments.analysis.runs import find_runs
from experiments.analysis.tuning import tune
from experiments.machine.plotting import plain_matplotlib
from experiments.records.summary import CorpusSummary, Summary
from experiments.report import losses as loss_figures
from experiments.report import run_pictures, write_report
from experiments.report.chart import Chart, arrows
from experiments.report.comparison import compare
from experiments.report.figures import makers
from experiments.report.interactive import embedded
from experiments.report.lettering import in_font, plain_text, warnings_of_ours
from experiments.report.page import render
from experiments.report.static import STYLE, draw
from experiments.report.style import loss_limits
from experiments.report.tables import Table, best_table, results_table
from experiments.report.words import endings
from gpt import ACTIVATIONS
from made_runs import make_run

TINY, HUGE = 5e-324, 1e300


def compared(folder: Path) -> tuple[Layout, list[Any]]:
    runs = find_runs(folder)
    factors = factors_of(runs, None)
    arms = form_arms([read_history(run) for run in runs], factors)
    return Layout(arms, factors), arms


def drawings(folder: Path) -> dict[str, Chart]:
    layout, arms = compared(folder)
    return {drawn.name: drawn for make in makers(layout, arms) if (drawn := make()) is not None}


def render_chart(chart: Chart) -> Figure:
    """A chart as a picture, laid out; its data is fit for a page, too."""
    assert embedded([chart])
    with plain_matplotlib(STYLE):
        figure = draw(chart)
        figure.draw_without_rendering()
    return figure


def frame(table: Table) -> pd.DataFrame:
    rows = [[cell.shown for cell in row] for row in table.rows]
    return pd.DataFrame(rows, columns=table.columns).set_index("arm")


def change_summary(run: Path, **values: Any) -> None:
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_norms(run: Path, norms: Mapping[tuple[int, int], float]) -> None:
    """gradients.csv with one gradient norm for each (step, block), and as many streams."""
    lines = ["step,layer,component,stat,value"]
    for (step, layer), value in norms.items():
        lines.append(f"{step},{layer},block,grad_norm,{value!r}")
        lines.append(f"{step},{layer},output,activation_rms,{value!r}")
    (run / "gradients.csv").write_text("\n".join(lines) + "\n")


# What can be compared fills a figure


@pytest.mark.parametrize(
    ("curves", "levels", "limits"),
    [
        # One starts at 38 and ends at 1,332: the two that start alike are shown, and they alone.
        ([[9.2, 6.0], [9.4, 7.0], [38.0, 1332.0]], [6.4], (5.81, 9.87)),
        ([[9.2, 6.0], [38.0, 7.0]], [], (5.82, 9.66)),  # it learns, but starts far above
        ([[9.2, math.nan], [9.0, 8.0, math.inf]], [], (7.92, 9.66)),
        ([[38.0, 1332.0]], [6.4], (0.0, 1398.6)),  # nothing else to see: the whole rise
        ([[4.0, 0.01]], [], (0.0, 4.2)),  # never below 0
        ([[2.0, 2.0]], [], (1.995, 2.1)),
        ([[math.nan]], [], (0.0, 1.05)),
        ([], [], (0.0, 1.05)),
        ([[0.0, 0.0]], [], (0.0, 1.0)),
        ([[3.0, 2.0]], [1e300, 1e301, math.inf], (1.94, 3.15)),
    ],
)
def test_the_scale_of_losses_holds_what_can_be_compared(
    curves: list[list[float]], levels: list[float], limits: tuple[float, float]
) -> None:
    assert loss_limits(curves, levels) == pytest.approx(limits, abs=0.005)


def test_an_arm_that_rises_leaves_the_others_their_figure(tmp_path: Path) -> None:
    make_run(tmp_path, "pre", val_losses=(4.0, 3.0, 2.0))
    make_run(tmp_path, "post", placement="post_ln", val_losses=(4.1, 3.9, 3.0))
    make_run(tmp_path, "none", placement="no_norm", val_losses=(38.0, 700.0, 1332.0))
    drawn = drawings(tmp_path)["loss"]
    (panel,) = drawn.panels
    x, y = drawn.axes(panel)
    assert y.limits == pytest.approx((1.88475, 4.305))
    (arrow,) = arrows(panel, x, y)
    assert panel.series[arrow.series].label == "No norm"
    assert (arrow.x, arrow.is_up, arrow.text) == (2, True, "to 1,332")
    layout, arms = compared(tmp_path)
    assert "No norm diverged in 1 of 1 run (the loss rose from 38.0 to 1,332 nats)" in verdict_of(
        layout, arms
    )


def test_colours_of_a_map_are_for_losses_that_can_be_compared(tmp_path: Path) -> None:
    for placement, first, last in (("pre_ln", 4.0, 2.0), ("no_norm", 38.0, 900.0)):
        for rate in (1e-3, 1e-2):
            for warmup in (0, 10):
                name = f"{placement}{rate}{warmup}"
                losses = (first, last + 10 * rate)
                options = {"lr": rate, "warmup": warmup, "val_losses": losses}
                make_run(tmp_path, name, placement=placement, **options)
    drawn = drawings(tmp_path)
    maps = drawn["lr_warmup_maps"]
    assert maps.colours is not None
    assert maps.colours.limits == pytest.approx((2.01, 4.2))
    assert "above the scale" in maps.colours.high
    cells = {panel.title: panel.cells for panel in maps.panels}["No norm"]
    assert cells is not None
    assert {text for row in cells.texts for text in row} == {"diverged\n1 of 1 loss rose"}
    rates = drawn["lr_sensitivity"]
    assert rates.y.limits == pytest.approx((2.00025, 2.205))
    assert "Pre-LN without warm-up 0.04 nats, best at lr 0.001" in rates.alt
    assert "No norm" not in rates.alt


def test_a_single_run_that_rises_is_drawn_whole_and_a_spike_is_cut() -> None:
    def drawn(losses: Sequence[float]) -> Figure:
        steps = range(len(losses))
        metrics = pd.DataFrame({"step": steps, "train_loss": losses, "val_loss": losses})
        corpus = CorpusSummary(unigram_validation_loss=3.0, unigram_entropy=2.9)
        return run_pictures.loss(metrics, Summary(placement="pre_ln", corpus=corpus))

    (axis,) = drawn([38.0, 500.0, 1332.0]).axes
    assert axis.get_ylim() == pytest.approx((0.0, 1398.6))
    (axis,) = drawn([4.0, 900.0, 3.0, 2.0]).axes
    assert axis.get_ylim() == pytest.approx((1.89, 4.2))
    assert "to 900" in [text.get_text() for text in axis.texts]


# Words


def test_the_two_ways_to_diverge_are_counted_apart(tmp_path: Path) -> None:
    make_run(tmp_path, "a", val_losses=(4.0, 2.0))
    make_run(tmp_path, "b", placement="no_norm", val_losses=(4.0, 5.1))  # as 0.5 recorded it
    rose = {"divergence": "loss rose", "reason": "validation loss rose from 4 to 9 nats"}
    make_run(
        tmp_path, "c", placement="no_norm", seed=1, val_losses=(4.0, 9), status="diverged", **rose
    )
    make_run(tmp_path, "d", placement="no_norm", seed=2, status="diverged", reason="not finite")
    make_run(tmp_path, "e", placement="no_norm", seed=3, val_losses=(4.0, 4.9))  # stuck
    layout, arms = compared(tmp_path)
    counts = frame(results_table(arms)).loc["no_norm"]
    names = ["learned", "not finite", "loss rose", "stuck", "validation loss (nats)"]
    assert counts[names].tolist() == ["0 of 4", "1", "2", "1", "diverged (4.900 to diverged)"]
    assert endings(arms) == (
        "2 diverged (loss rose: no_norm), 2 finished and 1 diverged (not finite: no_norm); "
        "1 of the finished learned no more than token frequencies (no_norm)"
    )
    page = render(tmp_path, find_runs(tmp_path), arms, layout, [], [])
    assert "validation loss rose from 4 to 5.1 nats" in page
    assert page.count(">5.100<") == 1  # its training loss: it has no final validation loss
    assert "diverged (loss rose)" in page


# Losses of different tokens


def tokenized(folder: Path, name: str, tokenizer: str, nats: float, bits: float | None) -> None:
    corpus = {"name": "made", "sha256": "00", "unigram_validation_loss": 8.0}
    run = make_run(folder, name, val_losses=(9.0, 5.0, nats), val_bits_per_byte=bits, corpus=corpus)
    settings = json.loads((run / "summary.json").read_text())["settings"]
    change_summary(run, settings={**settings, "tokenizer": {"name": tokenizer}})
    if bits is not None:
        metrics = pd.read_csv(run / "metrics.csv")
        metrics["val_bits_per_byte"] = metrics["val_loss"] * bits / nats
        metrics.to_csv(run / "metrics.csv", index=False)


def test_other_tokens_are_compared_in_bits_per_byte(tmp_path: Path) -> None:
    """Fewer nats per token and more bits per byte: the second decides."""
    tokenized(tmp_path, "byte", "byte", nats=2.0, bits=2.885)
    tokenized(tmp_path, "gpt2", "gpt2", nats=4.0, bits=1.6)
    layout, arms = compared(tmp_path)
    assert verdict_of(layout, arms) == (
        "Both runs learned: Pre-LN with tokenizer byte reached 2.88 bits per byte; with tokenizer "
        "gpt2 it reached 1.60 bits per byte; with one run for each the range over seeds is not "
        "known."
    )
    results = frame(results_table(arms))
    assert results["bits per byte"].tolist() == ["2.885", "1.600"]
    assert results["validation loss (nats)"].tolist() == ["2.000", "4.000"]
    drawn = drawings(tmp_path)["loss"]
    assert drawn.y.label == "validation loss (bits per byte)"
    (panel,) = drawn.panels
    assert [list(series.y) for series in panel.series] == [
        pytest.approx([9 * 2.885 / 2, 5 * 2.885 / 2, 2.885]),
        pytest.approx([3.6, 2.0, 1.6]),
    ]
    assert "bits per byte" in drawn.caption


def test_the_best_learning_rate_is_that_of_the_fewest_bits(tmp_path: Path) -> None:
    for tokenizer, scale in (("byte", 1.44), ("gpt2", 0.4)):
        for rate, nats in ((1e-3, 3.0), (1e-2, 2.0)):
            name = f"{tokenizer}{rate}"
            tokenized(tmp_path, name, tokenizer, nats, nats * scale)
            settings = json.loads((tmp_path / name / "summary.json").read_text())["settings"]
            change_summary(tmp_path / name, settings={**settings, "optimizer": {"lr": rate}})
    best = frame(best_table(tune(compared(tmp_path)[0])))
    assert best.index.tolist() == ["tokenizer gpt2", "tokenizer byte"]
    assert best["validation loss (bits per byte)"].tolist() == ["0.800", "2.880"]
    assert best["LR sensitivity"].tolist() == ["0.200", "0.720"]


def test_other_tokens_without_bits_per_byte_are_not_called_comparable(tmp_path: Path) -> None:
    tokenized(tmp_path, "byte", "byte", nats=2.0, bits=None)
    tokenized(tmp_path, "gpt2", "gpt2", nats=4.0, bits=1.6)
    words = verdict_of(*compared(tmp_path))
    assert words == (
        "Both runs learned more than token frequencies; nats per token of different tokenizers or "
        "texts cannot be compared."
    )
    assert "cannot be compared" in drawings(tmp_path)["loss"].caption


def test_a_comparison_of_other_tokens_is_in_bits_per_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(
        "experiments.report.comparison.save", lambda figure, path: saved.append(figure) or path
    )
    tokenized(tmp_path, "byte", "byte", nats=2.0, bits=2.885)
    tokenized(tmp_path, "gpt2", "gpt2", nats=4.0, bits=1.6)
    compare([tmp_path / "byte", tmp_path / "gpt2"], tmp_path / "both.png")
    assert saved[0].axes[1].get_ylabel() == "loss (bits per byte),\nmarks: validation"
    assert saved[0].axes[1].get_ylim()[1] == pytest.approx(1.05 * 9 * 1.6 / 4)
    change_summary(tmp_path / "byte", val_bits_per_byte=None)
    compare([tmp_path / "byte", tmp_path / "gpt2"], tmp_path / "both.png")
    assert "cannot be compared" in saved[1].axes[1].get_title()


# Lines


def test_every_line_of_any_number_is_drawn() -> None:
    names = [*ACTIVATIONS, *(f"another{i}" for i in range(20))]
    rows = [
        {"activation": name, "x": x, "value": x, "derivative": 1.0}
        for name in names
        for x in (-1.0, 1.0)
    ]
    figure = run_pictures.activations(pd.DataFrame(rows), Summary())
    assert figure is not None
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == names
        drawn = {(line.get_color(), str(line._dash_pattern)) for line in axis.lines}  # type: ignore[attr-defined]
        assert len(drawn) == len(names)
    table = pd.DataFrame({"layer": [0, 1], **{f"arm{i}": [1.0, 2.0] for i in range(9)}})
    assert len(run_pictures.shortcut(table, Summary()).axes[0].lines) == 9


def test_a_comparison_draws_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(
        "experiments.report.comparison.save", lambda figure, path: saved.append(figure) or path
    )
    losses = [(4.0, 0.1), (38.0, 1332.0), *[(4.0, 2.0)] * 7]
    runs = [make_run(tmp_path, f"r{i}", seed=i, val_losses=each) for i, each in enumerate(losses)]
    compare(runs, tmp_path / "all.png")
    above, below = saved[0].axes
    assert len([line for line in above.lines if not str(line.get_label()).startswith("_")]) == 9
    assert below.get_ylim() == pytest.approx((0.0, 4.2))
    assert "to 1,332" in [text.get_text() for text in below.texts]


# Numbers


EDGES: dict[str, dict[tuple[int, int], float]] = {
    "wide": {(0, 0): TINY, (0, 1): HUGE, (1, 0): HUGE, (1, 1): TINY},
    "zeros": {(0, 0): 0.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 0.0},
    "negative zeros": {(0, 0): -0.0, (0, 1): 1.0, (1, 0): -0.0, (1, 1): 1.0},
    "equal": {(0, 0): 1.0, (0, 1): 1.0, (1, 0): 1.0, (1, 1): 1.0},
    "infinite": {(0, 0): math.inf, (0, 1): math.nan, (1, 0): math.inf, (1, 1): math.nan},
    "mixed": {(0, 0): 1.0, (0, 1): math.inf, (1, 0): TINY, (1, 1): 0.0},
    "one block": {(0, 0): 1.0, (1, 0): 2.0},
    "one block, wide": {(0, 0): TINY, (1, 0): HUGE},
    "one step": {(0, 0): 1.0, (0, 1): 2.0},
    "one value": {(0, 0): TINY},
    "huge": {(0, 0): 1.7e308, (0, 1): 1.7e308, (1, 0): 1.7e308, (1, 1): 1.6e308},
}


@pytest.mark.parametrize(
    "names",
    [
        [*EDGES],
        ["one value"],
        *(
            pytest.param(n, marks=pytest.mark.long)
            for n in (["zeros", "infinite"], ["wide"], ["equal"])
        ),
    ],
    ids=lambda names: ", ".join(names) if len(names) < 3 else "all",
)
def test_norms_at_the_edge_of_their_range_are_drawn_without_a_warning(
    names: Sequence[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in names:
        run = make_run(tmp_path, name, placement=name)
        write_norms(run, EDGES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # of another library
        for drawn in drawings(tmp_path).values():
            render_chart(drawn)
        gradients = read_csv(run / "gradients.csv")
        figures = [picture(gradients, Summary()) for picture in OF_GRADIENTS]
        for figure in filter(None, figures):
            figure.draw_without_rendering()
    assert caplog.messages == []


OF_GRADIENTS = (
    run_pictures.gradient_by_layer,
    run_pictures.gradient_heatmap,
    run_pictures.activations_by_layer,
)


def test_losses_at_the_edge_of_their_range(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of arms that rise to 1e300, start there, diverge at once, are exactly 0, or have one step."""
    at_once = {"status": "diverged", "diverged_at_step": 0, "reason": "loss was not finite"}
    for placement, losses, more in (
        ("rises", (4.0, HUGE), {}),
        ("falls", (HUGE, 4.0), {}),
        ("at_once", (math.nan,), at_once),
        ("infinite", (math.inf,), at_once),
        ("zero", (0.0, -0.0), {}),
        ("one_step", (4.0, 3.0), {}),
    ):
        for rate in (0.0, 1e-3):
            run = make_run(tmp_path, f"{placement}{rate}", placement=placement, lr=rate)
            rows = [f"{step},{loss},{loss}" for step, loss in enumerate(losses)]
            lines = ["step,train_loss,val_loss", *rows]
            (run / "metrics.csv").write_text("\n".join(lines) + "\n")
            (run / "gradients.csv").write_text("step,layer,component,stat,value\n")
            ends = [loss if math.isfinite(loss) else str(loss) for loss in losses]
            known = {"initial_val_loss": ends[0], "val_loss": ends[-1], "train_loss": ends[-1]}
            change_summary(run, **known, **more)
        figure = run_pictures.loss(read_csv(run / "metrics.csv"), Summary())
        figure.draw_without_rendering()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_report([tmp_path], tmp_path, formats=()).read_text()
    assert caplog.messages == []
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert "-0" not in cells
    assert "-0.000" not in cells
    assert max(map(len, cells)) < 100  # no 300 digits
    best = frame(best_table(tune(compared(tmp_path)[0])))
    assert best.index[0] == "zero"
    assert best.loc["zero", "validation loss (nats)"] == "0.000"
    assert best.loc["at_once", "validation loss (nats)"] == "diverged"


def test_a_first_loss_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    at_once = {"status": "diverged", "initial_val_loss": "nan", "val_loss": "nan"}
    for placement, rate, more in (("a", 1e-4, at_once), ("a", 1e-3, {}), ("b", 1e-4, {})):
        make_run(tmp_path, f"{placement}{rate}", placement=placement, lr=rate, **more)
    make_run(tmp_path, "b", placement="b", lr=1e-3, val_losses=(4.0, 2.9))
    words = verdict_of(*compared(tmp_path))
    assert "A diverges at lr 0.0001 (1 of 1 run); its best is 2.00 nats at lr 0.001" in words


def test_a_power_law_that_no_number_can_hold_does_not_stop_the_report(tmp_path: Path) -> None:
    """ln c = 2,800: e to that is no float."""
    for depth, norm in ((2, HUGE), (3, TINY)):
        for seed in (0, 1):
            run = make_run(tmp_path, f"{depth}{seed}", n_layers=depth, seed=seed)
            blocks = {"first_block": 1.0, "last_block": norm}
            change_summary(run, grad_norm={"first_step": blocks, "last_step": blocks})
    fit = fit_power([2, 3], [HUGE, TINY])
    assert fit is not None
    assert fit.at(np.array([2.0])) == pytest.approx([HUGE], rel=1e-9)
    words = verdict_of(*compared(tmp_path))
    assert "goes from 1e+300 to 4.94e-324" in words
    render_chart(drawings(tmp_path)["scaling_n_layers"])


def test_blocks_and_steps_are_counted_in_whole_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", n_layers=1, val_losses=(4.0, 3.0))
    with plain_matplotlib(STYLE):
        shown = [draw(drawn) for drawn in drawings(tmp_path).values()]
    gradients = pd.read_csv(run / "gradients.csv")
    summary = Summary(placement="pre_ln", n_layers=1, emb_dim=8)
    for picture in (run_pictures.gradient_by_layer, run_pictures.activations_by_layer):
        figure = picture(gradients, summary)
        assert figure is not None
        shown.append(figure)
    axes = [axis for figure in shown for axis in figure.axes if "cb" not in axis.get_label()]
    named = [a for a in axes if a.get_xlabel() in ("block", "step", "step (updates made)")]
    assert len(named) >= 7
    for axis in named:
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert ticks, axis.get_xlabel()
        assert all(float(tick).is_integer() for tick in ticks), (axis.get_xlabel(), ticks)


def test_an_arm_without_a_number_leaves_the_others_their_log_scale(tmp_path: Path) -> None:
    write_norms(make_run(tmp_path, "a", placement="at_once"), EDGES["infinite"])
    write_norms(make_run(tmp_path, "b"), {(0, 0): 1e-3, (0, 1): 10.0})
    drawn = drawings(tmp_path)
    for name in ("gradients_by_layer", "activation_rms"):
        (panel,) = drawn[name].panels
        low, high = drawn[name].axes(panel)[1].limits or (0, 0)
        assert drawn[name].y.scale == "log"
        assert 0 < low < high < 1e6, name


def test_rounding_leaves_no_negative_zero(tmp_path: Path) -> None:
    for depth in (2, 4, 8):
        for seed in (0, 1):
            norm = 0.7 * (1 + 1e-9 * (8 - depth))
            make_run(tmp_path, f"{depth}{seed}", n_layers=depth, seed=seed, last_block=norm)
    words = verdict_of(*compared(tmp_path))
    assert "exponent +0.00, 95% interval" in words
    assert "-0.00" not in words
    assert "-0.00" not in drawings(tmp_path)["scaling_n_layers"].alt


# Names

NAMES = (
    f"{'a' * 200}\u65e5\u672c\u8a9e",
    "spaces and $x^2$, \\frac with_underscores $\\frac{1}{0}$ " * 4,
    "$\\frac$ <b>&amp; {}%s%d{0} \U0001f600 \U0001f9e0 caf\u00e9 \u202eright to left",
)


@pytest.mark.long
def test_names_stand_as_they_are_in_every_picture(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, runs = tmp_path / "runs", []
    for index, name in enumerate([*NAMES, NAMES[-1]]):
        options = {"lr": 1e-3 if index < 2 else 1e-2, "warmup": 10 * (index % 2)}
        run = make_run(folder, f"r{index}", placement=name, **options)  # type: ignore[arg-type]
        runs.append(run)
    change_summary(run, placement=name, n_layers=2, emb_dim=8, norm=name, init=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report([folder], tmp_path / "out", formats=())
        monkeypatch.setattr(run_pictures, "PICTURES", run_pictures.PICTURES[:1])  # one title
        run_pictures.draw_run(run)
        compare(runs, tmp_path / "compared.png")
    assert caplog.messages == []
    assert capfd.readouterr().err == ""


def test_letters_that_the_font_lacks_are_escapes() -> None:
    assert in_font("caf\u00e9 \u03c6 $x$") == "caf\u00e9 \u03c6 $x$"
    assert in_font("\u65e5 \U0001f9e0") == "\\u65e5 \\U0001f9e0"


def test_a_dollar_is_no_formula(tmp_path: Path) -> None:
    names = ("$x1$", "B$")
    for name in names:
        make_run(tmp_path, name, placement=name)
    drawn = drawings(tmp_path)["loss"]
    with plain_matplotlib(STYLE):
        figure = draw(drawn)
    plain_text(figure)
    (legend,) = figure.legends
    shown = [text for text in legend.get_texts() if text.get_text() in names]
    assert len(shown) == 2
    assert not any(text.get_parse_math() for text in shown)


def test_thirty_levels_have_thirty_lines(tmp_path: Path) -> None:
    for index in range(30):
        name = f"a rather long name of a placement which is number {index}"
        make_run(tmp_path, f"r{index}", placement=name, val_losses=(4.0, 2 + index / 30))
    drawn = loss_figures.loss(compared(tmp_path)[0])
    assert drawn is not None
    (panel,) = drawn.panels
    assert len({series.look for series in panel.series}) == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = render_chart(drawn)
    (axis,) = figure.axes
    assert axis.get_window_extent().height > 200  # of 100 an inch: the legend leaves it room


def test_what_matplotlib_says_is_one_line_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talking(metrics: pd.DataFrame, summary: Summary) -> None:
        for _ in range(3):
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
        logging.getLogger("matplotlib.text").warning("posx and posy should be finite values")

    monkeypatch.setattr(run_pictures, "PICTURES", (("loss", "metrics", talking),))
    run_pictures.draw_run(make_run(tmp_path, "a"))
    assert caplog.messages == [
        "figure loss: posx and posy should be finite values",
        "figure loss: two lines",
    ]


def test_what_libraries_say_to_each_other_is_not_said_of_a_picture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As matplotlib 3.9 and a newer pyparsing do at every number beside an axis."""
    with warnings_of_ours("one"):
        warnings.warn("'parseString' deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("a letter is missing", UserWarning, stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["figure one: a letter is missing"]
