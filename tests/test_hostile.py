"""Input that nobody would give in good faith, and what a run tells of whoever ran it."""

import contextlib
import csv
import io
import json
import logging
import os
import pickle
import random
import re
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run as cli_module
from conftest import ROOT, Cli
from experiments.analysis.histories import read_checked_csv
from experiments.jobs import launch
from experiments.jobs import sweep as sweep_module
from experiments.jobs.resume import read_config
from experiments.jobs.sweep import write_runs_csv
from experiments.records.directory import write_config
from experiments.records.summary import Summary
from experiments.report import run_pictures as plots
from experiments.report import write_report
from experiments.report.__main__ import main as report_main
from experiments.settings.compose import setting_names, to_values
from experiments.settings.identity import flatten
from experiments.settings.typed import as_typed, for_hydra, quoted
from experiments.training.checkpoint import checksum, read_checkpoint
from experiments.training.loop import Trainer
from made_runs import HOSTILE, make_run
from same_run import snapshot, summary_of

# ---- Fuzzing

# Settings that lead out of the run's directory on purpose, or to somebody else's machine, and
# those by which a valid run may take as long as its user likes.
PLACES = {"data.cache_dir", "wandb.mode", "resume", "generate.checkpoint"}
LENGTHS = {
    *("trainer.steps", "generate.tokens", "init_gradients.seeds", "init_gradients.batches"),
    *("paper_figure.seeds", "paper_figure.batches", "paper_figure.depths"),
}
NAMES = [name for name in setting_names() if name not in PLACES]
BOUNDED = [name for name in NAMES if name not in LENGTHS]
JUNK = ["", "nor", "norm.", ".norm", "norm..kind", "_target_", "hydra.verbose", "+seed", "++x", "~"]

SMALL = st.sampled_from([-1, 0, 1, 2, 3, 5, 8, 16])
NUMBERS = st.one_of(
    SMALL,
    st.sampled_from([10**15, 2**63, -(2**63), 10**30]),
    st.sampled_from(["0.5", "-0.5", "1e-320", "1e38", "1e400", "nan", "inf", "-inf", "1_0", "0x1"]),
)
STRANGE = """
null true off post_ln relu [] {} [1,2] {a:1} [1, } a,b 1,2 ${oc.env:HOME} ${norm} ${seed} ${ ???
${hydra:run.dir} ../../x /dev/zero ' " \\ =1+1 @x ! é $(touch\u00a0x) <script>alert(1)</script>
"""
WORDS = st.one_of(
    st.sampled_from(STRANGE.split()),
    st.sampled_from(["a b", "a\nb", "\x1b[2J", "\u202e", "\x00", "!!python/name:os.system"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=12),
)
VALUES = st.one_of(NUMBERS, WORDS)
OVERRIDES = st.one_of(
    st.builds("{}={}".format, st.sampled_from(BOUNDED), VALUES),
    st.builds("{}={}".format, st.sampled_from(sorted(LENGTHS)), SMALL),
    st.builds("{}={}".format, st.sampled_from(JUNK), VALUES),
    WORDS.filter(lambda text: not text.startswith("-")),  # those are Hydra's own options
)
# Strange contents of a YAML file, as plain data and as text.
LIKELY = st.sampled_from([1, 2, 0.5, 1.0, 0, True, False, None])
LEAVES = st.one_of(st.none(), st.booleans(), SMALL, st.floats(), WORDS)
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def cases(default: int, long: int) -> Any:
    """Marks of a test that runs on some cases, and on more with -m long; always the same ones."""
    return pytest.mark.parametrize("count", [default, pytest.param(long, marks=pytest.mark.long)])


def fuzz(count: int) -> Any:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def alarm(seconds: int = 60) -> Iterator[None]:
    """Within: what takes longer fails, wherever it hangs."""

    def ring(number: int, frame: object) -> None:
        raise AssertionError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Ground:
    """A folder in which nothing may appear but a run's directory and the token cache."""

    def __init__(self, folder: Path, toy: tuple[str, ...]) -> None:
        self.folder, self.toy = folder, toy
        self.number = 0
        self.ended = {0: 0, 1: 0}

    def check(self, start: Any) -> None:
        """`start` gives an exit code: of a run that is whole, or one line tells why not."""
        self.number += 1
        directory = self.folder / f"run{self.number}"
        out, err = io.StringIO(), io.StringIO()
        with alarm(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = start(directory)
        said = out.getvalue() + err.getvalue()
        assert "Traceback" not in said
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", said)
        errors = [line for line in err.getvalue().splitlines() if "WARNING" not in line]
        assert (code, len(errors)) in ((0, 0), (1, 1)), (code, said)
        if code == 0:
            assert summary_of(directory)["status"] in ("finished", "diverged")
        else:
            assert errors[0].startswith("error: ")
            assert len(errors[0]) > len("error: ") + 5
        self.ended[code] += 1
        present = {path.name for path in self.folder.iterdir()}
        assert present <= {"cache", "conf", *(f"run{n}" for n in range(self.number + 1))}


@pytest.fixture
def ground(toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.chdir(tmp_path)
    return Ground(tmp_path, toy)


@cases(default=60, long=2000)
def test_any_overrides(ground: Ground, count: int) -> None:
    @fuzz(count)
    @given(st.lists(OVERRIDES, min_size=1, max_size=3))
    def every(overrides: list[str]) -> None:
        def start(directory: Path) -> int:
            arguments = [*ground.toy, *overrides, "wandb.mode=disabled"]
            return cli_module.main([f"hydra.run.dir={directory}", *arguments])

        ground.check(start)

    every()
    print(f"{ground.number} overrides: {ground.ended[0]} ran, {ground.ended[1]} refused")
    assert min(ground.ended.values()) > count // 20


def mutated(values: dict[str, Any], name: str, value: Any) -> str:
    """YAML of nested `values` with another value at a dotted name."""
    changed = json.loads(json.dumps(values))
    *parents, last = name.split(".")
    there = changed
    for parent in parents:
        there = there[parent]
    there[last] = value
    return yaml.safe_dump(changed, allow_unicode=True)


@cases(default=15, long=1000)
def test_any_config_file(ground: Ground, count: int) -> None:
    """A file of a folder that --config-dir adds."""
    sections = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())
    sections = [name for name in sections if name not in ("hydra", "experiment", "wandb", "data")]

    @fuzz(count)
    @given(st.sampled_from(sections), st.one_of(DATA.map(yaml.safe_dump), WORDS), st.data())
    def every(section: str, text: str, data: Any) -> None:
        names = [n for n in BOUNDED if n.startswith(f"{section}.")]
        if names and data.draw(st.sampled_from([True, True, False])):
            (option, *_) = sorted((ROOT / "conf" / section).glob("*.yaml"))
            sound = yaml.safe_load(option.read_text())
            if isinstance(sound, dict) and "defaults" not in sound:
                name = data.draw(st.sampled_from(names)).partition(".")[2]
                text = mutated(sound, name, data.draw(LIKELY | DATA))
        try_file(section, text)

    def try_file(section: str, text: str) -> None:
        folder = ground.folder / "conf" / section
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fuzzed.yaml").write_text(text)

        def start(directory: Path) -> int:
            arguments = [*ground.toy, f"{section}=fuzzed", "wandb.mode=disabled"]
            place = f"hydra.run.dir={directory}"
            return cli_module.main([f"--config-dir={ground.folder / 'conf'}", place, *arguments])

        ground.check(start)

    try_file("schedule", "name: constant")  # of few at random ones none may be sound
    every()
    print(f"{ground.number} files: {ground.ended[0]} ran, {ground.ended[1]} refused")
    assert min(ground.ended.values()) > count // 20


@cases(default=30, long=3000)
def test_any_run_directory(ground: Ground, count: int) -> None:
    """resume= of a directory whose .hydra/ holds anything."""
    with initialize_config_dir(cli_module.CONF, version_base="1.3"):
        place = f"data.cache_dir={ground.folder}/cache"
        values = to_values(compose("config", overrides=[f"resume={ground.folder}", place]))
        toy = [override for override in ground.toy if not override.startswith("hydra")]
        sound_values = to_values(compose("config", overrides=toy))
    launch.launch(sound_values, [], ground_directory := make(ground.folder / "run0"))
    sound = yaml.safe_load((ground_directory / ".hydra" / "config.yaml").read_text())
    leaves = [name for name in BOUNDED if "." in name]

    @fuzz(count)
    @given(st.data())
    def every(data: Any) -> None:
        kind = data.draw(st.sampled_from(["value", "value", "text", "data", "overrides"]))
        text, overrides = yaml.safe_dump(sound), "[]"
        if kind == "value":
            text = mutated(sound, data.draw(st.sampled_from(leaves)), data.draw(DATA))
        elif kind == "text":
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(WORDS) + text[at:]
        elif kind == "data":
            text = yaml.safe_dump(data.draw(DATA))
        else:
            overrides = yaml.safe_dump(data.draw(DATA))

        def start(directory: Path) -> int:
            (directory / ".hydra").mkdir(parents=True)
            (directory / ".hydra" / "config.yaml").write_text(text)
            (directory / ".hydra" / "overrides.yaml").write_text(overrides)
            given = [f"resume={directory}"]
            return launch.launch(values | {"resume": str(directory)}, given, directory)

        ground.check(start)

    every()
    print(f"{ground.number} directories: {ground.ended[0]} ran, {ground.ended[1]} refused")
    assert min(ground.ended.values()) > count // 20


def make(directory: Path) -> Path:
    directory.mkdir()
    return directory


# ---- Texts

TEXTS = [
    "Let there be light!",
    "Don't fear",
    "wept; and",
    "x=1",
    "Hello, world",
    "1.10",
    "true",
    "1e5",
    "007",
    "2024_10",
    "",
    " around ",
    "two\nlines\r\n",
    "\ttab",
    r"C:\new\text.txt",
    "C:\\dir\\",
    r"\'",
    "'",
    '"',
    "'a' and 'b'",
    'it\'s "so"',
    "''",
    "#",
    "100 %",
    "$HOME",
    "{a: 1}",
    "[a, b]",
    "[",
    "choice(a,b)",
    "range(1,3)",
    "a,b",
    "~",
    "-m",
    "NULL",
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\u202e\ufeff\u2028",
    "caf\u00e9",
    "a\x85b\x1b[2J",
]
OWN_QUOTES = ("''",)  # of Hydra, around the whole value


def random_texts(count: int) -> list[str]:
    """Of the letters that mean something to Hydra, OmegaConf or YAML, and of any others."""
    draw = random.Random(0)
    alphabet = "'\"\\\\,;:=()[]{}$#!&*?|>%@~+-_. \t\nabn019\u00e9\u4e2d\U0001f600"
    letters = [c for c in map(chr, range(1, 0x2FFF)) if c.isprintable() or c.isspace()]
    return [
        "".join(draw.choices(draw.choice([alphabet, alphabet, letters]), k=draw.randint(1, 12)))
        for _ in range(count)
    ]


def is_plain(text: str) -> bool:
    """Whether none of the three exceptions holds: a reference, the word null, quotes around."""
    return "${" not in text and text != "null" and text.strip(" \t")[:1] not in ("'", '"')


@cases(default=100, long=20_000)
def test_any_text_is_read_letter_by_letter_and_recorded_as_typed(count: int) -> None:
    parser = OverridesParser.create()
    for text in filter(is_plain, [*TEXTS, *random_texts(count)]):
        typed = f"generate.prompt={text}"
        given = for_hydra(typed)
        assert parser.parse_override(given).value() == text, text
        assert as_typed(given) == typed, text


@cases(default=100, long=5000)
def test_quotes_in_any_text_are_read_letter_by_letter(count: int) -> None:
    """Those that do not stand around the whole of it; and those that do once more are kept."""
    parser = OverridesParser.create()
    for text in random_texts(count):
        given = f"generate.prompt={quoted(text)}"
        assert parser.parse_override(given).value() == text
        if "${" not in text and text != "???":
            assert for_hydra(given) == given
            assert parser.parse_override(for_hydra(as_typed(given))).value() == text


DIRECTORIES: list[Path] = []  # of the runs and jobs that `composed` has seen


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[str]]]:
    """Settings and overrides of each run or job, which is not run."""
    seen: list[tuple[dict[str, Any], list[str]]] = []

    def note(values: Any, overrides: list[str], directory: Path) -> int:
        seen.append((values, overrides))
        return 0

    def note_job(values: Any, overrides: list[str], directory: Path, bars: bool) -> int:
        DIRECTORIES.append(directory)
        directory.mkdir(parents=True, exist_ok=True)
        Summary(status="finished").write(directory)  # or the sweep has failed
        return note(values, overrides, directory)

    DIRECTORIES.clear()
    monkeypatch.setattr(cli_module, "launch", note)
    monkeypatch.setattr(cli_module, "launch_job", note_job)
    monkeypatch.setattr(sweep_module.Sweep, "_report", lambda self: None)
    monkeypatch.setattr(sweep_module, "check_effects", lambda runs, typed: None)
    return seen


TEXT_SETTINGS = [f"wandb.{name}" for name in ("project", "entity", "group", "name")]
TEXT_SETTINGS += [
    "generate.prompt",
    "data.path",
    "claims.only",
    "claims.runs",
    "generate.checkpoint",
]


@pytest.mark.parametrize("options", [[], pytest.param(["-m"], marks=pytest.mark.long)])
def test_texts_arrive_letter_by_letter(
    options: list[str], composed: list[Any], tmp_path: Path
) -> None:
    """Alone, in a sweep, and from the files that a resumed run reads."""
    texts = [text for text in TEXTS if not (options and text in ("a,b", "Hello, world"))]
    texts = [text for text in texts if not (options and text.startswith(("choice", "range")))]
    places = [f"hydra.{kind}.dir={tmp_path}/out" for kind in ("run", "sweep")]
    for start in range(0, len(texts), len(TEXT_SETTINGS)):
        given = dict(zip(TEXT_SETTINGS, texts[start:], strict=False))
        given = {name: text for name, text in given.items() if text not in OWN_QUOTES}
        arguments = [f"{name}={text}" for name, text in given.items()]
        assert cli_module.main([*options, *places, *arguments]) == 0
        values, overrides = composed.pop()
        read = dict(flatten(values))
        paths = {name: os.path.abspath(given[name]) for name in ["data.path"] if given.get(name)}
        assert {name: read[name] for name in given} == given | paths
        assert overrides == arguments
        write_config(tmp_path, values, overrides)
        again, overrides_again = read_config(tmp_path)
        assert (again, overrides_again) == (values, arguments)


def test_a_prompt_with_every_sign_begins_the_sample_of_a_run_and_of_its_rest(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = 'Don\'t; "x=1", #1.10\n\\{[a]}% $HOME \N{GRINNING FACE} '
    arguments = [*toy, "tokenizer=byte", f"generate.prompt={prompt}"]
    directory = tmp_path / "run"
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    assert cli_module.main([*arguments, f"hydra.run.dir={directory}"]) == 143
    monkeypatch.setattr(Trainer, "_step", original)
    assert cli_module.main([f"resume={directory}", "wandb.tags=[1.10,don't]"]) == 0
    assert (directory / "sample.txt").read_text().startswith(prompt)
    recorded = yaml.safe_load((directory / ".hydra" / "overrides.yaml").read_text())
    assert f"generate.prompt={prompt}" in recorded
    assert "wandb.tags=[1.10,don't]" in recorded
    config = yaml.safe_load((directory / ".hydra" / "config.yaml").read_text())
    assert config["wandb"]["tags"] == ["1.10", "don't"]


def test_settings_of_hydra_are_read_letter_by_letter(
    composed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(cli_module, "launch", lambda values, overrides, place: seen.append(place))
    for name in ("2026_11_26", "1.10", "it's, so", "null"):
        cli_module.main([f"hydra.run.dir={name}", f"hydra.job.name={name}"])
    assert [place.name for place in seen] == ["2026_11_26", "1.10", "it's, so", "null"]
    assert cli_module.main(["-m", "hydra.sweep.dir=2026_11,26", "seed=0,1"]) == 0
    assert (tmp_path / "2026_11,26" / "runs.csv").is_file()


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ("1.10,true", "'1.10','true'"),
        ("'a, b',c", "'a, b','c'"),
        ("choice(007,1e5)", "'007','1e5'"),
        ("null,x", "null,'x'"),
        ("'a, b'", "'a, b'"),
        ("a!,b", "'a!,b'"),
        ("a,,b", "'a,,b'"),
        ("[a,b]", "'[a,b]'"),
        ("x\\", "'x\\\\'"),
    ],
)
def test_with_m_commas_separate_texts_where_hydra_can_read_them(values: str, given: str) -> None:
    name = "generate.prompt"
    assert for_hydra(f"{name}={values}", sweep=True) == f"{name}={given}"
    assert for_hydra(f"hydra.sweep.dir={values}", sweep=True).count("','") == 0


def test_a_sweep_over_texts_takes_each_letter_by_letter(
    composed: list[Any], tmp_path: Path, capsys: Any
) -> None:
    """And says what could have been meant where commas stand in them."""
    place = f"hydra.sweep.dir={tmp_path}"
    grid = ["generate.prompt=1.10, true", "data.path='a, b',c", "wandb.name=a!,b"]
    assert cli_module.main(["-m", place, *grid]) == 0
    prompts = [(v["generate"]["prompt"], Path(v["data"]["path"]).name) for v, _ in composed]
    assert prompts == [("1.10", "a, b"), ("1.10", "c"), ("true", "a, b"), ("true", "c")]
    assert composed[0][1] == ["generate.prompt=1.10", "data.path=a, b", "wandb.name=a!,b"]
    assert capsys.readouterr().err.splitlines() == [
        "'generate.prompt=1.10, true' is a sweep; one text stands between quotes: "
        "generate.prompt='1.10, true'",
        "'wandb.name=a!,b' is one text; in a sweep put each between quotes: wandb.name='a','b'",
    ]


def test_directories_of_jobs_are_named_as_before(composed: list[Any], tmp_path: Path) -> None:
    """So that sweeps of version 0.5 are found again; the hashes are that version's."""
    for grid, names in {
        ("norm=pre_ln,post_ln", "activation=relu"): {
            "pre_ln-seed0-42e88bc0",
            "post_ln-seed0-96ac02ab",
        },
        ("generate.prompt=In the beginning,And God", "trainer.precision=bf16", "wandb.name=x"): {
            "pre_ln-promptIn_the_beginning-seed0-cbc610d6",
            "pre_ln-promptAnd_God-seed0-b70fb624",
        },
        ("experiment=depth", "seed=0", "model.n_layers=2", "norm=pre_ln"): {
            "pre_ln-seed0-8bca20c9"
        },
        ("activation=choice(relu,silu)", "init.scheme='xavier'", "generate.prompt=null"): {
            "pre_ln-activationrelu-seed0-42e88bc0",
            "pre_ln-activationsilu-seed0-c0616aa0",
        },
    }.items():
        assert cli_module.main(["-m", f"hydra.sweep.dir={tmp_path}/{{name}}", *grid]) == 0
        assert {directory.name for directory in DIRECTORIES} == names
        DIRECTORIES.clear()


# ---- Checkpoints and directories from strangers


class Payload:
    """Runs a command where it is unpickled by anything that trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def with_payload(mark: Path, whole: dict[str, Any]) -> dict[str, Any]:
    return {**whole, "progress": Payload(mark), "sha256": "0" * 64}


def zipped(path: Path, state: Any) -> None:
    torch.save(state, path)


def in_the_old_format(path: Path, state: Any) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, state: Any) -> None:
    path.write_bytes(pickle.dumps({**state, "model": {}, "optimizer": {}, "random": {}}))


@pytest.mark.parametrize(
    ("write", "use"),
    [
        (zipped, "resume"),
        (in_the_old_format, "resume"),
        (bare_pickle, "resume"),
        (zipped, "generate"),
        pytest.param(in_the_old_format, "generate", marks=pytest.mark.long),
        pytest.param(bare_pickle, "generate", marks=pytest.mark.long),
    ],
)
def test_a_checkpoint_with_a_pickled_payload_runs_nothing(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, capsys: Any, write: Any, use: str
) -> None:
    code, run = cli(*toy)
    assert code == 0
    summary = summary_of(run) | {"status": "interrupted"}
    (run / "summary.json").write_text(json.dumps(summary))
    state = read_checkpoint(run / "checkpoint.pt")
    mark = tmp_path / "was_run"
    write(run / "checkpoint.pt", with_payload(mark, state))
    capsys.readouterr()
    if use == "resume":
        code = cli_module.main([f"resume={run}"])
    else:
        arguments = ("experiment=generate", f"generate.checkpoint={run}", "wandb.mode=disabled")
        code, _ = cli(*arguments, "generate.prompt=a", "generate.tokens=2", "device=cpu")
    assert code == 1
    assert not mark.exists()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "checkpoint" in error
    with contextlib.suppress(Exception):
        torch.load(run / "checkpoint.pt", weights_only=False)
    assert mark.exists()  # it would have been run by a reader that trusts it


def test_checkpoints_that_would_grow_are_refused(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path
) -> None:
    """A few bytes that stand for terabytes: compressed, or one number repeated by its strides."""
    _, run = cli(*toy)
    state = read_checkpoint(run / "checkpoint.pt")
    state["model"]["head.weight"] = torch.zeros(1).expand(1 << 40)
    with pytest.raises(ValueError, match="larger than its content"):
        checksum(state)
    torch.save({**state, "sha256": "0" * 64}, run / "checkpoint.pt")
    with pytest.raises(ValueError, match="larger than its content"):
        read_checkpoint(run / "checkpoint.pt")
    small = tmp_path / "small.pt"
    with (
        zipfile.ZipFile(run / "checkpoint.pt") as archive,
        zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for entry in archive.infolist():
            compressed.writestr(entry.filename, archive.read(entry))
    with pytest.raises(ValueError, match="compressed"):
        read_checkpoint(small)


YAML_FROM_STRANGERS = (
    "seed: !!python/object/apply:os.mkdir [{mark}]",
    "seed: !!python/name:os.system",
    "seed: !!binary aGk=",
    "norm: {{_target_: os.mkdir, path: {mark}}}",
    "seed: ${{oc.env:NORMSCOPE_SECRET}}",
    "activation: ${{oc.env:NORMSCOPE_SECRET}}",
    "activation: ${{oc.decode:'1'}}",
    "shortcut: &a [x, x]\nseed: [*a, *a]",
    "seed: 1\n? [1, 2]\n: x",
)


def test_yaml_from_strangers_makes_nothing(
    cli: Cli,
    toy: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setenv("NORMSCOPE_SECRET", "hunter2")
    _, run = cli(*toy)
    summary = summary_of(run) | {"status": "interrupted"}
    (run / "summary.json").write_text(json.dumps(summary))
    mark = tmp_path / "was_run"
    path = run / ".hydra" / "config.yaml"
    sound = yaml.safe_load(path.read_text())
    for line in YAML_FROM_STRANGERS:
        text = line.format(mark=mark)
        names = re.findall(r"^(\w+):", text, re.MULTILINE)
        kept = {name: value for name, value in sound.items() if name not in names}
        path.write_text(f"{yaml.safe_dump(kept)}{text}\n")
        before = snapshot(run)
        capsys.readouterr()
        assert cli_module.main([f"resume={run}"]) == 1
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("error: ")
        assert "hunter2" not in printed.err + printed.out
        assert not mark.exists()
        assert snapshot(run) == before


# ---- Tables and names

NASTY = [
    "=HYPERLINK(1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "a\\..\\..\\x",
    "two\nlines",
    "\x1b[31mred\x07",
    "\tx",
    "\r=1",
    "right\u202eleft",
    HOSTILE.replace("/", "\u2215"),
    '"quoted"',
]


@pytest.fixture(params=[NASTY])
def nasty_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A sweep whose runs have such names, settings, reasons and figures."""
    folder = tmp_path / "nasty"
    for seed, name in enumerate(request.param):
        run = make_run(folder, name, placement=name, seed=seed, status="failed", error=name)
        summary = summary_of(run)
        summary["settings"]["data"] = {"path": f"../{name}/../../etc"}
        summary["overrides"] = [f"data.path={name}"]
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "memory.csv").write_bytes(b"\xff\x00\n")  # a warning that names the file
    return folder


def test_names_are_harmless_in_csv_files(nasty_folder: Path) -> None:
    write_runs_csv(nasty_folder)
    text = (nasty_folder / "runs.csv").read_text()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len(text.splitlines()) == len(rows) == len(NASTY) + 1  # a line each
    for row in rows:
        for cell in row:
            with contextlib.suppress(ValueError):
                float(cell)
                continue
            assert not cell.startswith(("=", "+", "-", "@")), cell
    assert {"'=HYPERLINK(1)", "two\\nlines"} <= {row[0] for row in rows}
    read = pd.read_csv(nasty_folder / "runs.csv")
    assert sorted(read["seed"]) == list(range(len(NASTY)))


@pytest.mark.parametrize("nasty_folder", [[*NASTY[5:11], NASTY[0]]], indirect=True)
def test_names_are_harmless_in_the_report_and_the_terminal(
    nasty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as where nobody listens yet
    assert report_main([str(nasty_folder), "--format=svg"]) == 0
    printed = capsys.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", printed.out + printed.err)
    assert printed.out == f"{nasty_folder / 'report.html'}\n"
    lines = printed.err.splitlines()
    assert all(line.startswith("WARNING: ") for line in lines)
    assert sum("memory.csv" in line for line in lines) == len(list(nasty_folder.glob("*/*.json")))
    page = (nasty_folder / "report.html").read_text()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", page)
    assert page.count("<script") == 4  # the data of the charts, Vega, and the page's own two
    for target in re.findall(r'href="([^"#]+)"', page):
        assert not target.startswith(("/", "..")), target
        assert target == "data:," or ":" not in target.partition("/")[0]


def test_figures_in_their_millions_are_refused(tmp_path: Path, caplog: Any, capsys: Any) -> None:
    """metrics.csv with 10^7 columns, in its first line or in a later one."""
    run = make_run(tmp_path, "wide")
    (run / "metrics.csv").write_text(f"step{',c' * 10**7}\n0{',1' * 10**7}\n")
    with pytest.raises(ValueError, match="longer than"):
        plots.read_csv(run / "metrics.csv")
    assert read_checked_csv(run / "metrics.csv", ("step",)).empty
    assert "one of its lines is longer than 10,000 bytes" in caplog.text
    (run / "metrics.csv").write_text(f"step,val_loss\n0{',' * 10**7}\n")
    caplog.clear()
    assert read_checked_csv(run / "metrics.csv", ("step",)).empty
    assert "metrics.csv is left out" in caplog.text
    other = make_run(tmp_path, "other")
    assert write_report([tmp_path], tmp_path / "out", formats=()).is_file()
    (run / "gradients.csv").write_text(f"step{',' * 10**7}\n")
    capsys.readouterr()
    assert plots.main([str(run), str(other)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_formulas_in_a_table_are_no_numbers(tmp_path: Path, caplog: Any) -> None:
    run = make_run(tmp_path, "formula")
    (run / "metrics.csv").write_text('step,val_loss\n0,"=1+1"\n1,2.5\n')
    assert read_checked_csv(run / "metrics.csv", ("step",))["val_loss"].tolist()[1:] == [2.5]
    assert "1 of 2 cells in column val_loss are not numbers" in caplog.text


# ---- Secrets


def test_no_file_says_who_ran_it(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """No environment variable, key or home directory, in any file of a run or of its report."""
    home = tmp_path / "home" / "ann_the_user"
    (home / "work").mkdir(parents=True)
    secrets = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "AWS_SECRET_ACCESS_KEY": "hunter2/hunter2/hunter2",
        "SOME_VARIABLE": "value_of_some_variable",
    }
    monkeypatch.setenv("HOME", str(home))
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    text = home / "work" / "words.txt"
    text.write_text(Path(next(o for o in toy if o.startswith("data.path="))[10:]).read_text())
    arguments = [*toy, f"data.path={text}", f"data.cache_dir={home}/cache", "wandb.mode=offline"]
    out = home / "work" / "out"
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        if self.settings.seed == 1 and number == 1:
            (self.recorder.directory / "absent" / "file").write_text("x")  # names its path
        if self.settings.seed == 2 and number == 1:
            signal.raise_signal(signal.SIGTERM)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    places = [out / name for name in ("fails", "stops")]
    assert cli_module.main([*arguments, "seed=1", f"hydra.run.dir={places[0]}"]) == 1
    assert cli_module.main([*arguments, "seed=2", f"hydra.run.dir={places[1]}"]) == 143
    monkeypatch.setattr(Trainer, "_step", original)
    assert cli_module.main([f"resume={places[1]}", "wandb.mode=offline"]) == 0
    sweep = ["-m", *arguments, "seed=0,1", f"hydra.sweep.dir={out / 'sweep'}"]
    assert cli_module.main([o for o in sweep if o != "wandb.mode=offline"]) == 0
    assert report_main([str(out), "--format=svg"]) == 0
    files = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    assert len([path for path in files if path.suffix == ".wandb"]) >= 3
    assert (out / "report.html") in files
    for path in files:
        linked = path.is_symlink()
        content = os.readlink(path).encode() if linked else path.read_bytes()
        for secret in (str(home), "ann_the_user", *secrets.values(), *list(secrets)[:2]):
            assert secret.encode() not in content, (path, secret)
    assert "~/work/words.txt" in (out / "stops" / ".hydra" / "config.yaml").read_text()
