"""Shared ground of the tests: toy sizes, and a way to run the command line in this process."""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.hydra import Hydra
from playwright.sync_api import Browser, sync_playwright

import run
from composing import compose_quickly
from experiments import report
from experiments.analysis.arms import Arm, Layout
from experiments.jobs import launch
from experiments.jobs import sweep as sweep_module
from experiments.lecture import steps as lecture_steps
from experiments.report import lecture_page, picture
from experiments.report.chart import Chart
from experiments.report.figures import makers
from experiments.runners import model_sizes
from experiments.settings.schema import Settings
from experiments.training import setup
from experiments.training.memory import predict
from gpt import GPTConfig

ROOT = Path(__file__).parent.parent

# A model and a schedule on which every code path takes a second.
TOY = (
    "model.emb_dim=16",
    "model.n_heads=2",
    "model.n_layers=2",
    "model.context_length=16",
    "trainer.steps=3",
    "trainer.batch_size=2",
    "trainer.eval_every=2",
    "trainer.eval_tokens=32",
    "trainer.probe_every=2",
    "trainer.probe_tokens=32",
    "schedule.warmup_steps=1",
    "init_gradients.seeds=2",
    "init_gradients.batches=2",
    "paper_figure.seeds=2",
    "paper_figure.batches=2",
    "paper_figure.depths=[2,3]",
    "generate.tokens=4",
    "device=cpu",
    "wandb.mode=disabled",
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SMALL_BOOK = GPTConfig(50257, 16, 12, 2, 1)  # in place of the lecture's model

Cli = Callable[..., tuple[int, Path]]
Sweep = Callable[..., tuple[int, Path]]


def pytest_configure() -> None:
    os.environ.setdefault("WANDB_SILENT", "true")
    # Tests run on all cores at once, so each computes on one, its subprocesses too.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    gc.disable()  # of what is imported from here on nothing becomes garbage
    compose_quickly()


def pytest_collection_finish() -> None:
    """Each run collects garbage before it measures memory: not what all test files imported."""
    gc.freeze()
    gc.enable()
    imported.update(sys.modules)


def pytest_runtest_logfinish() -> None:
    """Nor what a test imported in addition."""
    if not imported.issuperset(sys.modules):
        imported.update(sys.modules)
        gc.collect()
        gc.freeze()


imported: set[str] = set()  # modules that collections of garbage leave out
predictions: dict[str, dict[str, int]] = {}


def predict_once(settings: Settings, config: GPTConfig) -> dict[str, int]:
    """As `predict`, which takes a fifth of a toy run, for equal settings once."""
    decides = (settings.device, settings.sequence_length, settings.optimizer, settings.trainer)
    key = repr((decides, config))
    if key not in predictions:
        predictions[key] = predict(settings, config)
    return dict(predictions[key])


def undrawn(chart: Chart, folder: Path, formats: Sequence[str]) -> list[Path]:
    """As `save_chart`, with the folder alone."""
    folder.mkdir(exist_ok=True)
    return []


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a toy run's time, except in tests marked `pictures`.

    Pictures; and Hydra's first composition of two, which only looks whether hydra.mode is set. And
    unless the test is `long`: all published sizes but one, predictions that were made before,
    waiting for the disk, since no test cuts the power, and the lecture's model of 124M parameters.
    """
    if request.node.get_closest_marker("long") is None:
        monkeypatch.setattr(model_sizes, "size_names", lambda: ["micro", "gpt2_124m"])
        monkeypatch.setattr(setup, "predict", predict_once)
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        monkeypatch.setattr(lecture_steps, "book_config", lambda: SMALL_BOOK)
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(launch, "draw_pictures", lambda directory: [])
        monkeypatch.setattr(launch, "write_page", lambda directory: None)
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        monkeypatch.setattr(lecture_page, "save_chart", undrawn)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have their figures' words: each is made, with its caption, but not rendered."""

    monkeypatch.setattr(picture, "save_chart", lambda *_: [])


@pytest.fixture
def figures_alone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets reports have the figures of these functions of experiments/report/figures.py alone."""

    def choose(*names: str) -> None:
        def chosen(layout: Layout, arms: Sequence[Arm]) -> list[Any]:
            return [make for make in makers(layout, arms) if make.func.__name__ in names]

        monkeypatch.setattr(report, "makers", chosen)

    return choose


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window, started once; `test_page.tab_of` gives its tab."""
    if CHROMIUM is None:
        if os.environ.get("NORMSCOPE_REQUIRE_BROWSER") == "1":
            pytest.fail("Chromium is not installed")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 26 letters, spaces and line ends, about 6,000 characters long."""
    words = ["".join(chr(97 + (i * j + j) % 26) for j in range(1, 7)) for i in range(900)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(" ".join(words[i : i + 9]) for i in range(0, 900, 9)) + "\n")
    return path


@pytest.fixture
def toy(text_file: Path, tmp_path: Path) -> tuple[str, ...]:
    """Overrides that make any runner take a second, on a text of letters."""
    return (
        *TOY,
        "data=text",
        f"data.path={text_file}",
        "tokenizer=char",
        f"data.cache_dir={tmp_path}/cache",
    )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run `python run.py ...` in this process; gives the exit code and the run's directory."""
    count = iter(range(100))

    def call(*arguments: str) -> tuple[int, Path]:
        directory = tmp_path / f"run{next(count)}"
        return run.main([f"hydra.run.dir={directory}", *arguments]), directory

    return call


@pytest.fixture
def sweep(toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run `python run.py -m ...` in this process; gives the exit code and the sweep's folder.

    The report is left out: other tests look at it.
    """
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)

    def call(*arguments: str, folder: str = "sweep") -> tuple[int, Path]:
        place = f"hydra.sweep.dir={tmp_path / folder}"
        return run.main(["-m", *toy, place, *arguments]), tmp_path / folder

    return call
