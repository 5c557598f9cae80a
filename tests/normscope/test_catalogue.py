"""The catalogue of statistics, against what runs write, and what a new entry costs."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from conftest import ROOT, Cli
from experiments.report import write_report
from made_runs import make_run
from normscope import Probes, anatomy_of, catalogue
from normscope.__main__ import page
from normscope.costs import COSTS
from normscope.stats import ACTIVATIONS, MIXING, MOMENTS, STREAMS, described

NORMED = ("norm=peri_ln", "norm.options.embedding_norm=true")  # of the embeddings, too
RUNS = (
    ("experiment=train", "norm=residual_dual", "norm.final=true", "trainer.mixing=true"),
    ("experiment=train", *NORMED, "model.n_layers=4", "trainer.steps=1"),
    ("experiment=train", "norm=admin"),
    ("experiment=init_gradients", *NORMED),
    ("experiment=init_gradients", "norm=admin"),
    ("experiment=shortcut",),
    ("experiment=train", "model.experts.count=3", "model.experts.active=2", "trainer.steps=1"),
)
EXPERT = re.compile(r"feed_forward\.expert_\d+")


def test_what_runs_write_is_the_catalogue(cli: Cli, toy: tuple[str, ...]) -> None:
    """Each statistic, and each component of which it is said to be measured."""
    written: dict[str, set[str]] = {}
    stats = set()
    for run in RUNS:
        code, directory = cli(*toy, *run)
        assert code == 0
        files = [directory / f"{name}.csv" for name in ("gradients", "mixing")]
        tables = [pd.read_csv(file, keep_default_na=False) for file in files if file.is_file()]
        rows = pd.concat(tables)
        for component, stat in set(zip(rows["component"], rows["stat"], strict=True)):
            stats.add(stat)
            entry = described(stat)
            if component not in entry.of:
                component = "each expert" if EXPERT.fullmatch(component) else "each tensor"
            assert component in entry.of, (component, stat)
            written.setdefault(entry.name, set()).add(component)
    assert written == {entry.name: set(entry.of) for entry in catalogue()}
    assert {"angular_distance", "angular_distance_2", "angular_distance_4"} <= stats
    assert {"stream_cosine", "stream_cosine_2", "stream_cosine_4"} <= stats


def test_entries_are_whole() -> None:
    for entry in catalogue():
        assert entry.moment in MOMENTS
        assert entry.drawn is None or entry.drawn in entry.of
        assert all((entry.equation, entry.words, entry.axis, entry.title))
    names = [entry.name for entry in catalogue()]
    assert len(names) == len(set(names))
    assert set(COSTS) <= {*names, *MOMENTS}
    assert {*ACTIVATIONS.statistics, *STREAMS.statistics, *MIXING.statistics} <= set(COSTS)
    assert described("angular_distance_16").name == "angular_distance"
    for unknown in ("angular_distance_", "grad_norm_2", "loss"):
        with pytest.raises(KeyError):
            described(unknown)


def test_the_page_is_the_catalogue() -> None:
    """`python -m normscope > docs/measurements.md` makes it again."""
    assert (ROOT / "docs" / "measurements.md").read_text() == page()
    for entry in catalogue():
        assert f"| `{entry.name}`" in page()
        assert f"`{entry.equation}`" in page()
        assert entry.source in page()


def test_a_new_statistic_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decorated function: the rows, the catalogue, the page and a figure follow from it."""
    monkeypatch.setattr(ACTIVATIONS, "statistics", dict(ACTIVATIONS.statistics))

    @ACTIVATIONS.measures(
        "activation_mean_abs",
        "sum abs(x) / n",
        "mean magnitude",
        axis="mean magnitude of the stream after the block",
        drawn="output",
    )
    def activation_mean_abs(x: Tensor) -> Tensor:
        return x.float().abs().mean()

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    x = torch.randn(3, 4)
    rows = Probes(anatomy_of(model)).on_step(lambda: model(x).square().mean())
    values = {
        row.layer: row.value for row in rows if row[1:3] == ("output", activation_mean_abs.__name__)
    }
    expected = {0: model[0](x).abs().mean().item(), 1: model(x).abs().mean().item()}
    assert values == pytest.approx(expected)
    assert "activation_mean_abs" in [entry.name for entry in catalogue()]
    assert "| `activation_mean_abs` | mean magnitude | `sum abs(x) / n` |" in page()

    run = make_run(tmp_path, "run")
    with (run / "gradients.csv").open("a") as file:
        for row in rows:
            file.write(f"0,{row.layer},{row.component},{row.stat},{row.value}\n")
    write_report([run], tmp_path / "page", formats=("png",))
    assert (tmp_path / "page" / "figures" / "activation_mean_abs.png").is_file()
    assert "Mean magnitude by layer" in (tmp_path / "page" / "report.html").read_text()
