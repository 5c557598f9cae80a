"""Figures of papers: their numbers against others' of the same, their pictures, bad input."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import initialize_config_dir

import run
from configs import settings_of
from conftest import TOY, Cli
from experiments.analysis.paper_figures import MEASURED, PAPER_FIGURES, PREDICTED
from experiments.claims.lab import Lab
from experiments.claims.settings import (
    ff_weights,
    in_xiongs_setting,
    mean_norms,
    sequence_grads,
    variances,
)
from experiments.records.summary import read_summary
from experiments.report import write_report
from experiments.report.paper_pictures import paper_figure
from experiments.report.static import draw
from experiments.runners.paper_figure import Bench, Found, expected

FIGURES = list(PAPER_FIGURES)


@pytest.fixture(scope="module")
def of_text(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """As `toy`, for several runs of this file."""
    cache = tmp_path_factory.mktemp("cache")
    text = ("data=text", f"data.path={text_file}", "tokenizer=char", f"data.cache_dir={cache}")
    return (*TOY, *text)


@pytest.fixture(scope="module")
def runs(of_text: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each figure; Xiong et al.'s with 2 and 8 blocks, from one seed."""
    folder = tmp_path_factory.mktemp("figures")
    for name in FIGURES:
        own = ("paper_figure.depths=[2,8]", "paper_figure.seeds=1")
        more = own if name == "xiong_figure_3" else ()
        arguments = (f"experiment={name}", *of_text, *more, "pictures=false")
        assert run.main([f"hydra.run.dir={folder / name}", *arguments]) == 0
    return {name: folder / name for name in FIGURES}


def line(runs: dict[str, Path], name: str, panel: str, arm: str, seed: int) -> list[float]:
    """The values of a measured line."""
    points = pd.read_csv(runs[name] / "paper_figure.csv")
    chosen = (points["panel"] == panel) & (points["arm"] == arm) & (points["seed"] == seed)
    return points.loc[chosen, "value"].tolist()


def test_a_gpts_gradients_are_those_of_init_gradients(
    runs: dict[str, Path], of_text: tuple[str, ...], cli: Cli
) -> None:
    model = ("norm=post_ln", "activation=relu", "model.feed_forward.ratio=2")
    _, other = cli("experiment=init_gradients", *of_text, *model)
    single = pd.read_csv(other / "init_gradients.csv")
    for letter, tensor in (("a", "feed_forward.fc_in.weight"), ("b", "feed_forward.fc_out.weight")):
        chosen = single[(single["component"] == tensor) & (single["stat"] == "mean_grad_norm")]
        norms = chosen.loc[chosen["seed"] == 0, "value"].tolist()
        found = line(runs, "xiong_figure_3", f"GPT ({letter})", "post_ln", 0)
        assert found == pytest.approx(norms, rel=1e-5)


def test_the_theorys_gradients_are_those_of_its_claim(runs: dict[str, Path]) -> None:
    with initialize_config_dir(run.CONF, version_base="1.3"):
        model, tokens, targets = in_xiongs_setting(Lab(), "pre_ln", 0, 2)
    norms = mean_norms(sequence_grads(model, tokens, targets, model.blocks))
    found = line(runs, "xiong_figure_3", "section 3.3 (b)", "pre_ln", 0)
    assert found == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize(("letter", "arm", "power"), [("c", "pre_ln", -0.5), ("d", "post_ln", 0.0)])
def test_in_the_theorys_setting_the_last_gradient_has_the_theorems_slope(
    runs: dict[str, Path], letter: str, arm: str, power: float
) -> None:
    """Within 0.1: four times what slopes differ by from seed to seed."""
    shallow, deep = line(runs, "xiong_figure_3", f"section 3.3 ({letter})", arm, 0)
    assert math.log(deep / shallow) / math.log(8 / 2) == pytest.approx(power, abs=0.1)


@pytest.fixture
def bench(of_text: tuple[str, ...]) -> Bench:
    return Bench(settings_of(*of_text, "experiment=xiong_figure_3", "trainer.precision=float64"))


def test_the_expected_gradient_of_a_decoder_is_that_of_the_mean_loss(bench: Bench) -> None:
    model = bench.translator("post_ln", 0, 2)
    loss = (bench.loss(model, 0, 0) + bench.loss(model, 0, 1)) / 2
    weights = [block.feed_forward.fc_out.weight for block in model.decoder.blocks]
    norms = [grad.norm().item() for grad in torch.autograd.grad(loss, weights)]
    assert expected(bench, model, 0)["b"] == pytest.approx(norms, rel=1e-9)


def test_a_decoder_reads_what_follows_on_what_its_encoder_read(bench: Bench) -> None:
    """Its loss depends on either half of a window, and only the second half's targets count."""
    model = bench.translator("pre_ln", 0, 2)
    tokens, targets = bench.batch(0, 0)
    half = tokens.shape[1] // 2
    logits = model(tokens[:, :half], tokens[:, half:])
    by_hand = -logits.log_softmax(-1).gather(-1, targets[:, half:, None]).mean()
    assert bench.loss(model, 0, 0).item() == pytest.approx(by_hand.item(), rel=1e-12)


def test_training_begins_where_the_measurement_ends(bench: Bench) -> None:
    """No update is made on a batch that a gradient is measured on."""
    numbers: list[int] = []
    model = bench.gpt("post_ln", 0, 2)
    loss = bench.loss
    bench.loss = lambda *arguments: numbers.append(arguments[-1]) or loss(*arguments)  # type: ignore[func-returns-value,method-assign]
    before = ff_weights(model)[0].clone()
    assert list(bench.updates(model, 0, 3)) == [0, 1, 2, 3]
    assert numbers == [2, 3, 4]
    assert not torch.equal(ff_weights(model)[0], before)


def test_an_update_without_a_rate_moves_nothing(of_text: tuple[str, ...], cli: Cli) -> None:
    _, directory = cli("experiment=wang_figure_5", *of_text, "optimizer.lr=0")
    points = pd.read_csv(directory / "paper_figure.csv")
    by_adam = points["panel"].str.startswith("Adam")
    assert (points.loc[by_adam, "value"] == 0).all()
    assert (points.loc[~by_adam & (points["kind"] == MEASURED), "value"] > 0).all()


def test_variances_begin_with_the_models_own_and_end_by_block(
    runs: dict[str, Path], of_text: tuple[str, ...]
) -> None:
    bench = Bench(settings_of(*of_text, "experiment=sun_figure_4"))
    model = bench.gpt("ln_scaling", 1, 2, "gpt2")
    windows, _ = bench.corpus.fixed_windows(32, 16)
    for block, variance in enumerate(variances(model, windows), start=1):
        by_step = line(runs, "sun_figure_4", "LayerNorm Scaling", f"block {block}", 1)
        assert by_step[0] == pytest.approx(variance, rel=1e-6)
        assert len(by_step) == 3  # at steps 0 and 2, and after the last, which is the third
        by_block = line(runs, "sun_figure_4", "by block", "ln_scaling", 1)
        assert by_block[block - 1] == by_step[-1]


@pytest.mark.parametrize("last", [False, True])
def test_a_prediction_passes_through_the_median(last: bool) -> None:
    found = Found()
    for seed, values in enumerate([(8.0, 5.0), (4.0, 4.0), (1.0, 1.0)]):
        found.line("(c)", "pre_ln", seed, (6, 24), values)
    found.predict("(c)", "pre_ln", "L^(-1/2)", lambda depth: depth**-0.5, last)
    predicted = [row["value"] for row in found.rows if row["kind"] == PREDICTED]
    assert predicted == pytest.approx([8, 4] if last else [4, 2])
    assert found.slope("(c)", "pre_ln") == pytest.approx(0, abs=1e-12)
    assert found.ratio("(c)", "pre_ln") == 1


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_has_the_papers_panels_on_its_axes_and_what_is_predicted(
    runs: dict[str, Path], name: str
) -> None:
    points = pd.read_csv(runs[name] / "paper_figure.csv")
    chart = paper_figure(points, read_summary(runs[name]))
    assert chart is not None
    assert [panel.title for panel in chart.panels] == [
        panel.title for panel in PAPER_FIGURES[name].panels.values()
    ]
    for panel, described in zip(chart.panels, PAPER_FIGURES[name].panels.values(), strict=True):
        x, y = chart.axes(panel)
        assert (x.label, y.label) == (described.x, described.y)
        assert (x.scale == "log", y.scale == "log") == (described.log_x, described.log_y)
        assert y.limits is not None
        if not described.log_y:
            assert y.limits[0] == 0  # and all is within the scale
            assert y.limits[1] > max(max(series.shown) for series in panel.series)
    drawn = {series.label for panel in chart.panels for series in panel.series}
    assert drawn >= set(points.loc[points["kind"] == PREDICTED, "arm"])
    assert len(draw(chart).axes) == len(chart.panels)


def test_a_report_has_the_figure_and_a_legend_of_its_lines(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = write_report([runs["wang_figure_5"]], tmp_path, formats=()).read_text()
    assert "<h1>Wang et al. 2022 (DeepNet), Figure 5, measured again</h1>" in page
    assert 'data-chart="wang_figure_5"' in page
    for label in ("Post-LN", "DeepNorm", "section 4.3: the same at every depth"):
        assert f'data-key="{label}"' in page
    assert "was not drawn" not in page


def test_each_figure_says_what_it_shows_beside_the_paper(
    of_text: tuple[str, ...], cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    _, directory = cli("experiment=wang_figure_5", *of_text)
    out = capsys.readouterr().out
    finding = read_summary(directory).finding
    assert finding is not None
    published = PAPER_FIGURES["wang_figure_5"].published
    assert finding.endswith(f". In the paper {published}")
    assert f"{finding[0].upper()}{finding[1:]}.\n" in out
    assert out.rstrip().endswith("next: python run.py experiment=sun_figure_4")


@pytest.mark.parametrize(
    ("override", "valid"),
    [
        ("paper_figure.depths=[6,0]", "must be a list of whole numbers of at least 1, such as"),
        ("paper_figure.depths=[]", "must have at least one number of blocks"),
        ("paper_figure.seeds=0", "must be a whole number of at least 1"),
        ("paper_figure.name=xiong_figure3", "did you mean 'xiong_figure_3'?"),
        ("seed=500", "would draw from seed 1001; those from 1000 on are of claims"),
        ("trainer.precision=bf16", "published figures are measured in float32 or float64"),
        ("trainer.sequence_length=1", "must be at least 2"),
    ],
)
def test_bad_input_costs_one_line(
    cli: Cli, toy: tuple[str, ...], capsys: Any, override: str, valid: str
) -> None:
    code, _ = cli("experiment=xiong_figure_3", *toy, override)
    assert code == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {override.split('=')[0]}=")
    assert valid in error
