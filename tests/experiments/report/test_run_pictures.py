"""A run's pictures: blocks from 1, spikes that hide nothing, one line for each thing."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from experiments.analysis.runs import Run
from experiments.records.summary import CorpusSummary, Summary
from experiments.report import run_pictures
from experiments.report.comparison import looks_of_runs
from experiments.report.palette import LOOKS, categories, look_of
from made_runs import make_run

SUMMARY = Summary(
    placement="post_ln",
    norm="layer_norm",
    n_layers=3,
    emb_dim=8,
    init="xavier",
    seed=0,
    warmup_steps=0,
    corpus=CorpusSummary(unigram_validation_loss=3.0, unigram_entropy=2.9),
)


def rows(stat, component, values):
    """Values by (step, layer), as gradients.csv has them."""
    return [
        {"step": step, "layer": layer, "component": component, "stat": stat, "value": value}
        for (step, layer), value in values.items()
    ]


def norms(spike=1.0):
    """200 steps of three blocks, of which the last gets 4 times what the first does."""
    values = {(step, layer): (1 + layer) ** 2 / 10 for step in range(200) for layer in range(3)}
    values |= {(50, layer): spike * values[50, layer] for layer in range(3)}
    return pd.DataFrame(rows("grad_norm", "block", values))


def places(axis: Axes) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axis.lines]  # type: ignore[arg-type]


def test_blocks_are_counted_from_1() -> None:
    by_layer = run_pictures.gradient_by_layer(norms(), SUMMARY)
    assert by_layer is not None
    assert places(by_layer.axes[0]) == [[1, 2, 3]] * 3
    heat = run_pictures.gradient_heatmap(norms(), SUMMARY)
    assert heat is not None
    assert heat.axes[0].get_ylim() == (0.5, 3.5)
    table = pd.DataFrame({"layer": [0, 1], "without_shortcut": [1e-3, 1], "with_shortcut": [1, 2]})
    assert places(run_pictures.shortcut(table, Summary()).axes[0]) == [[1, 2]] * 2
    assert run_pictures.place_text(0, "attention") == "1 A"
    assert run_pictures.place_text(-1, "embedding") == "embedding"


def test_titles_say_what_the_picture_shows() -> None:
    by_layer = run_pictures.gradient_by_layer(norms(), SUMMARY)
    assert by_layer is not None
    finding, run = by_layer.axes[0].get_title().split("\n")
    assert finding == "Last block's gradient / first's: 9 at step 0, 9 at step 100, 9 at step 199"
    assert run == "Post-LN, 3 x 8, LayerNorm, init xavier, seed 0, without warm-up"


def test_a_spike_takes_no_colour_from_the_heat_map() -> None:
    for spike in (1.0, 1e6):
        figure = run_pictures.gradient_heatmap(norms(spike), SUMMARY)
        assert figure is not None
        heat, bar = figure.axes
        (mesh,) = heat.collections
        assert (mesh.norm.vmin, mesh.norm.vmax) == pytest.approx((0.1, 0.9))
        assert "1st to 99th percentile" in bar.get_ylabel()


def test_cells_without_a_colour_are_named_and_no_grey_of_the_map() -> None:
    table = norms()
    table.loc[0, "value"] = np.inf
    figure = run_pictures.gradient_heatmap(table, SUMMARY)
    assert figure is not None
    assert "(white: 0 or not finite)" in figure.axes[0].get_title()


def test_each_line_of_the_activations_has_a_place_of_its_own() -> None:
    values = {(step, layer): 1.0 + layer + step for step in (0, 5, 9) for layer in range(3)}
    parts = ("input", "attention", "feed_forward", "output")
    table = [row for part in parts for row in rows("activation_rms", part, values)]
    entropy = rows("attention_entropy", "attention", dict.fromkeys(values, 0.5))
    figure = run_pictures.activations_by_layer(pd.DataFrame(table + entropy), SUMMARY)
    assert figure is not None
    stream, *others = figure.axes
    assert places(stream) == [[0, 1, 2, 3]] * 3
    assert list(stream.lines[0].get_ydata()) == [1.0, 1.0, 2.0, 3.0]  # what enters, then outputs
    assert [places(axis) for axis in others] == [[[1, 2, 3]] * 3] * 3
    assert [line.get_label() for line in stream.lines] == ["step 0", "step 5", "step 9"]


def test_a_loss_has_one_line_for_token_frequencies_and_a_number_at_its_spike() -> None:
    losses = [4.0, 3.9, 12.56, 3.5, 2.0]
    metrics = pd.DataFrame({"step": range(5), "train_loss": losses, "val_loss": losses})
    (axis,) = run_pictures.loss(metrics, SUMMARY).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels[2:] == ["token frequencies alone (3.00)"]
    assert axis.get_ylim()[1] == pytest.approx(4.2)
    assert [text.get_text() for text in axis.texts] == ["to 12.6"]
    assert {line.get_color() for line in axis.lines} == {look_of("post_ln").light, "0.35"}


def test_memory_is_in_mebibytes() -> None:
    table = pd.DataFrame({"kind": ["peak"], "predicted_bytes": [2**21], "measured_bytes": [2**22]})
    (axis,) = run_pictures.memory(table, SUMMARY).axes
    assert axis.get_ylabel() == "memory (MiB)"
    assert [text.get_text() for text in axis.texts] == ["2", "4"]


def test_runs_look_as_their_placements_and_the_dash_says_the_rest(tmp_path) -> None:
    made = [{"warmup": 0, "placement": "post_ln"}, {"warmup": 9, "placement": "post_ln"}]
    made.append({"warmup": 9})
    runs = [make_run(tmp_path, f"run{i}", **options) for i, options in enumerate(made)]
    post, pre = LOOKS["post_ln"], LOOKS["pre_ln"]
    read = [Run.read(run) for run in runs]
    assert looks_of_runs(read) == [post, post.varied(1), pre.varied(1)]
    seeds = [make_run(tmp_path, f"seed{i}", seed=i) for i in range(4)]
    assert looks_of_runs([Run.read(run) for run in seeds]) == categories(4)
