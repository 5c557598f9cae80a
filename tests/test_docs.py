"""README.md and docs/: commands run, tables and links are true, the README stays short."""

import functools
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hub import publish

import gpt
import run as cli_module
from conftest import ROOT, TOY, Cli
from experiments.claims import CLAIMS, board
from experiments.claims.claim import Evidence, Point
from experiments.claims.lab import Lab
from experiments.data import corpus
from experiments.jobs import sweep
from experiments.jobs.check import checked_settings
from experiments.jobs.sweep import Job, Sweep, plan_jobs
from experiments.report import __main__ as report
from experiments.report import run_pictures
from experiments.runner import runner_names
from experiments.runners import atlas
from experiments.settings.schema import DataSettings
from gpt import PLACEMENTS

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MOST_WORDS = 1100

# Commands that are not run here, by how they begin.
NOT_RUN = {
    "pip install": "downloads packages; the gate runs it in a new environment",
    "pytest": "is what runs this",
    "python -m experiments.claims": "needs a board; test_claims_page.py has one",
    "python -m experiments.benchmark": "measures for an hour; test_benchmark.py has a toy shape",
    "python run.py device=cuda": "needs a GPU; test_compiled.py compiles on a CPU",
    "python run.py experiment=export": "writes what a family can say; test_weights.py does",
}
JOBLIB = "hydra/launcher=joblib"  # is left out of a command: test_sweep.py runs jobs in parallel


def words_of(text: str) -> list[str]:
    """Words outside tables; code and link targets count."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("|")).split()


def test_the_readme_is_one_page() -> None:
    text = README.read_text()
    assert len(words_of(text)) <= MOST_WORDS
    first = text.split("\n\n")[1]
    assert len(first.split()) <= 20


def test_the_readme_lists_every_placement_with_its_paper() -> None:
    section = README.read_text().split("\n## Placements\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", section, re.MULTILINE))
    assert set(rows) == set(PLACEMENTS)
    for name, placement in PLACEMENTS.items():
        for paper in re.findall(r"arXiv (\d+\.\d+)", placement.__doc__ or ""):
            assert paper in rows[name], name


def anchors(page: Path) -> set[str]:
    """The fragments by which a page's headings are reached on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    for path, fragment in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not fragment or fragment in anchors(target), fragment


def test_tests_that_the_pages_name_exist() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        for name in re.findall(r"`(test_\w+)`", page.read_text()):
            assert f"def {name}(" in tests, name


# Files and columns


def documented(heading: str) -> list[str]:
    """The names in the first column of the table below a heading of docs/outputs.md."""
    text = (ROOT / "docs" / "outputs.md").read_text()
    section = re.split(r"\n#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1)[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def files_of(runner: str) -> set[str]:
    """What docs/outputs.md says that a runner leaves; pictures and W&B are left out of tests."""
    text = (ROOT / "docs" / "outputs.md").read_text()
    section = text.split("## The directory of a run\n")[1].split("\n### ")[0]
    files: set[str] = set()
    for names, runners in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        if runners == "all" or runner in runners.split(", "):
            files |= set(re.findall(r"`([^`]+)`", names))
    return files - {"wandb/", "plots/", "report.html"}


@pytest.fixture
def small_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim that the pages name, with made numbers, in this process."""
    for name in set(CLAIMS) - {"depth_law"}:
        monkeypatch.delitem(CLAIMS, name)
    numbers = {p.name: 1.0 for p in CLAIMS["depth_law"].predictions}
    points = [Point("post_ln", x, 1.0) for x in (2.0, 4.0)]

    def measure(lab: Lab, seed: int) -> Evidence:
        return Evidence(dict(numbers), list(points))

    monkeypatch.setitem(CLAIMS, "depth_law", replace(CLAIMS["depth_law"], measure=measure))
    for module in (board, atlas):
        monkeypatch.setattr(module, "workers_for", lambda *_: 1)
    monkeypatch.setattr(board, "FOR_RUNS", ("",))


EXTRA = {  # what makes a runner leave all that it can
    "train": (
        "trainer.keep_best=true",
        "trainer.checkpoint_every=1",
        "trainer.clip=1",
        "trainer.mixing=true",
        "norm=sub_ln",
    ),
    "generate": ("generate.prompt=ab", "generate.checkpoint={train}"),
    "export": ("export.checkpoint={gpt2}",),
    "init_gradients": ("norm=deepnorm",),
    "parameters": ("norm=mix_ln",),
    "atlas": (
        *("atlas.only=pre_ln,post_ln", "atlas.runs={gpt2}/../atlas"),
        *("atlas.rounds=1", "atlas.timed=[]"),
    ),
}
# A checkpoint to write text from comes first.
RUNNERS = sorted(runner_names(), key=lambda name: name != "train")


@pytest.mark.usefixtures("small_claims")
def test_what_a_run_leaves_is_documented(cli: Cli, toy: tuple[str, ...]) -> None:
    """Every file of every runner, and of each table its columns in their order."""
    # Of a published family, to be written as such.
    as_gpt2 = ("norm=pre_ln", "activation=gelu", "model.qkv_bias=true")
    directories: dict[str, Path] = {"gpt2": cli(*toy, *as_gpt2)[1]}
    for runner in RUNNERS:
        arguments = [o.format(**directories) for o in EXTRA.get(runner, ())]
        experiment = {"paper_figure": "wang_figure_5"}.get(runner, runner)
        code, directories[runner] = cli(f"experiment={experiment}", *toy, *arguments)
        assert code == 0
        left = {
            re.sub(r"checkpoint-\d+", "checkpoint-STEP", path.name) + "/" * path.is_dir()
            for path in directories[runner].iterdir()
        }
        assert left == files_of(runner), runner
        for path in directories[runner].glob("*.csv"):
            assert documented(f"`{path.name}`") == list(pd.read_csv(path, nrows=0)), path.name


def test_the_keys_of_summaries_are_documented(cli: Cli, toy: tuple[str, ...]) -> None:
    known = set(documented("`summary.json`"))
    seen: set[str] = set()
    for arguments in (
        ("norm=sub_ln", "trainer.clip=1"),
        ("norm=deepnorm", "optimizer.lr=1e30", "trainer.steps=9"),
        *(
            ("experiment=init_gradients", f"norm={norm}")
            for norm in ("mix_ln", "peri_ln", "ln_scaling", "keel", "siamese", "per_block")
        ),
        ("generate.prompt=UPPER",),
        ("experiment=parameters",),
    ):
        _, directory = cli(*toy, *arguments)
        seen |= set(json.loads((directory / "summary.json").read_text()))
    assert seen <= known
    assert known - seen <= {"resumed_at_steps", "budget", "claims"}


def test_the_table_of_a_sweep_is_documented(
    toy: tuple[str, ...], tmp_path: Path, figures_alone: Callable[..., None]
) -> None:
    figures_alone("loss")
    folder = tmp_path / "sweep"
    assert cli_module.main(["-m", f"hydra.sweep.dir={folder}", *toy, "norm=pre_ln,post_ln"]) == 0
    files = {path.name + "/" * path.is_dir() for path in folder.iterdir()}
    jobs = {name for name in files if name.startswith(("pre_ln", "post_ln"))}
    assert files - jobs == set(documented("The directory of a sweep"))
    columns = list(pd.read_csv(folder / "runs.csv", nrows=0))
    assert [name for name in columns if name != "norm.placement"] == documented("`runs.csv`")


# Commands


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(block: str) -> list[str]:
    """The commands of a block, without their comments."""
    lines = block.replace("\\\n", " ").splitlines()
    bare = [line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")]
    return [command for line in bare for command in line.split(" && ")]


def blocks_to_run() -> list[list[str]]:
    """Commands by block, each at its first occurrence, without those that are not run."""
    seen: set[str] = set()
    blocks = []
    for block in (block for page in PAGES for block in blocks_of(page, "bash")):
        commands = [c for c in commands_of(block) if not c.startswith(tuple(NOT_RUN))]
        blocks.append([command for command in commands if command not in seen])
        seen |= set(commands)
    return [block for block in blocks if block]


def smallest(experiment: str) -> list[str]:
    """Overrides that leave one job of an experiment that is a grid."""
    values = yaml.safe_load((ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text())
    sweeper = values.get("hydra", {}).get("sweeper", {})
    params = dict(sweeper.get("params", {}))
    for beside in sweeper.get("beside", {}).values():
        params |= beside
    return [
        f"{name}={'pre_ln' if levels == '${every:norm}' else str(levels).split(',')[0]}"
        for name, levels in params.items()
    ]


AMOUNTS = {  # that a command may name, without another way through the code: as in TOY
    name: value
    for name, value in (override.split("=") for override in TOY)
    if name in ("trainer.steps", "schedule.warmup_steps", "generate.tokens")
}


def at_toy_size(arguments: list[str], cache: Path) -> list[str]:
    """Arguments of run.py with toy sizes before them, which they may override but for amounts."""
    if "--help" in arguments or "--cfg" in arguments:
        return arguments
    flags = [argument for argument in arguments if argument.startswith("-")]
    values = [argument for argument in arguments if argument not in (*flags, JOBLIB)]
    amounts = [f"{n}={most}" for n, most in AMOUNTS.items() if amount(values, n) > int(most)]
    for argument in list(values):
        if argument.startswith("experiment="):
            values += smallest(argument.removeprefix("experiment="))
    published = any(argument.startswith("model.weights=") for argument in values)
    counted = "experiment=parameters" in values  # costs nothing at its own size
    toy = [o for o in TOY if not ((published or counted) and o.startswith("model."))]
    if "experiment=atlas" in values:
        toy += ["atlas.only=pre_ln", "atlas.rounds=1", "atlas.timed=[]"]
    return [*flags, *toy, f"data.cache_dir={cache}", *values, *amounts]


def amount(values: list[str], name: str) -> int:
    """What a command says of an amount; 0: nothing."""
    return max((int(v.partition("=")[2]) for v in values if v.startswith(f"{name}=")), default=0)


def first_and_last(*arguments: Any) -> list[Job]:
    """Of a grid's jobs, all of which must be valid; test_sweep.py runs all jobs of grids."""
    jobs = plan_jobs(*arguments)
    for job in jobs:
        checked_settings(job.values)
    return [job for job in jobs if job in (jobs[0], jobs[-1])]


@pytest.fixture(scope="session")
def corpus_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Bible is tokenised once, not in each test that reads it."""
    return tmp_path_factory.mktemp("cache")


@functools.cache
def bible() -> bytes:
    """The first eighth of the embedded corpus, put together once."""
    whole = corpus.kjv(DataSettings("kjv"))
    return whole[: len(whole) // 8]


@pytest.mark.usefixtures("small_claims", "unrendered")
@pytest.mark.parametrize("commands", blocks_to_run(), ids=lambda commands: commands[0])
def test_commands_run(
    text_file: Path,
    tmp_path: Path,
    corpus_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[str],
) -> None:
    """The commands of one block, one after the other in one directory."""
    (tmp_path / "my.txt").write_text(text_file.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Sweep, "_report", lambda self: None)  # test_report.py looks at it
    monkeypatch.setattr(sweep, "plan_jobs", first_and_last)
    monkeypatch.setitem(corpus.CORPORA, "kjv", lambda data: bible())
    monkeypatch.setattr(board, "write_page", lambda directory: directory)
    places = {"SWEEP_DIR": str(tmp_path / "some"), "RUN_DIR": str(tmp_path / "some" / "run")}
    if any(place in command for place in places for command in commands):
        arguments = ["data.train_share=0.5", f"hydra.run.dir={places['RUN_DIR']}"]
        assert cli_module.main(at_toy_size(arguments, corpus_cache)) == 0
    places["TOKENS_DIR"] = str(tmp_path / "tokens")
    (tmp_path / "tokens").mkdir()
    for name in ("train", "val"):
        (tmp_path / "tokens" / f"{name}.bin").write_bytes(bytes(range(160)))
    places["HUB_DIR"] = str(tmp_path / "published")
    if any("HUB_DIR" in command for command in commands):
        publish("llama", Path(places["HUB_DIR"]))
    for command in commands:
        for name, place in places.items():
            command = command.replace(name, place)
        match shlex.split(command):
            case ["python", "run.py", *arguments]:
                code = cli_module.main(at_toy_size(arguments, corpus_cache))
            case ["python", "-m", "experiments.report", *arguments]:
                code = report.main(arguments)
            case ["python", "-m", "experiments.plots", *arguments]:
                code = run_pictures.main(arguments)
            case _:
                pytest.fail(f"not a command of this project: {command}")
        assert code == 0, command


PROGRAMS = [  # test_extending.py adds the blocks of the other page to their files
    block for page in PAGES if page.stem != "extending" for block in blocks_of(page, "python")
]


@pytest.mark.parametrize("code", PROGRAMS, ids=lambda code: None)
def test_python_runs(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Each block as it is, with a small model in place of the book's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        gpt, "GPT_CONFIG_124M", gpt.GPT_CONFIG_124M | {"emb_dim": 12, "n_layers": 1}
    )
    if "RUN_DIR" in code:
        code = code.replace("RUN_DIR", str(cli(*toy, "trainer.mixing=true")[1]))
    exec(code, {})
