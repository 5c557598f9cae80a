"""What is around a run and none of its settings: variables, the terminal, what a platform lacks."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import run as cli_module
from children import Child, Fault, Surroundings
from conftest import ROOT, Cli
from experiments.claims import CLAIMS, board
from experiments.claims.claim import Evidence
from experiments.claims.lab import Lab
from experiments.machine import console
from experiments.records.recorder import Recorder
from experiments.report import run_pictures as plots
from experiments.report.__main__ import main as report_main
from experiments.report.board import read_board
from experiments.report.claims_page import render_page
from experiments.report.drawing import ReportFigure
from experiments.report.picture import draw_picture
from experiments.report.style import new_figure
from experiments.training.loop import Trainer
from made_boards import write_board
from made_runs import make_run
from same_run import assert_same_run, state_of, summary_of, wandb_records

JAPANESE = "昔々ある所にお爺さんとお婆さんが住んでいました。\n" * 60


@pytest.fixture
def japanese(tmp_path: Path) -> str:
    """An override for a text of which hardly any terminal of Latin letters has a character."""
    path = tmp_path / "昔話.txt"
    path.write_text(JAPANESE, encoding="utf-8")
    return f"data.path='{path}'"


@contextlib.contextmanager
def printing_to(stream: Any, name: str = "stdout") -> Iterator[None]:
    """Within: sys.stdout is `stream`."""
    before = getattr(sys, name)
    setattr(sys, name, stream)
    try:
        yield
    finally:
        setattr(sys, name, before)


# ---- Pictures


def settings_of_matplotlib(folder: Path, content: bytes) -> str:
    path = folder / "matplotlibrc"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param(
            "MPLBACKEND", "module://matplotlib_inline.backend_inline", marks=pytest.mark.long
        ),
        pytest.param("MPLBACKEND", "nonsense", marks=pytest.mark.long),
        pytest.param("MPLCONFIGDIR", "/dev/null/absent", marks=pytest.mark.long),
        pytest.param(  # in the current folder, too
            "MATPLOTLIBRC", b"\xff\xfe not UTF-8", marks=pytest.mark.long
        ),
        pytest.param(
            "MATPLOTLIBRC",
            b"nonsense\nfigure.dpi: x\ntext.usetex: True\nbackend: TkAgg\n",
            marks=pytest.mark.long,
        ),
    ],
)
def test_no_variable_of_matplotlib_touches_a_picture(
    toy: tuple[str, ...], tmp_path: Path, variable: str, value: str | bytes
) -> None:
    if isinstance(value, bytes):
        value = settings_of_matplotlib(tmp_path, value)
    run = tmp_path / "run"
    child = Child(
        tmp_path,
        "experiment=shortcut",
        "wandb.mode=disabled",
        f"hydra.run.dir={run}",
        pictures=True,
        surroundings=Surroundings({variable: value}, folder=tmp_path),
    )
    code, output = child.wait()
    assert code == 0, output
    assert summary_of(run)["status"] == "finished"
    assert (run / "plots" / "shortcut.png").stat().st_size > 5000
    assert "WARNING" not in output


def test_pictures_look_the_same_whatever_style_is_set(tmp_path: Path) -> None:
    import matplotlib as mpl

    run = make_run(tmp_path, "run")
    drawn = [path.read_bytes() for path in plots.draw_run(run)]
    assert len(drawn) >= 4
    with mpl.rc_context({"text.usetex": True, "font.size": 40, "axes.facecolor": "black"}):
        again = [path.read_bytes() for path in plots.draw_run(run)]
        assert mpl.rcParams["font.size"] == 40
    assert again == drawn

    def make() -> ReportFigure:
        figure, (axis,) = new_figure()
        axis.set(xlabel="step", ylabel="loss")
        return ReportFigure("name", "title", "caption", "alt", figure)

    plain = draw_picture(make, tmp_path, ())
    assert plain is not None
    with mpl.rc_context({"text.usetex": True, "font.size": 40}):
        assert draw_picture(make, tmp_path, ()) == plain


@pytest.mark.pictures
def test_a_library_for_pictures_that_is_broken_costs_a_warning(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setitem(sys.modules, "experiments.report.run_pictures", None)
    code, run = cli("experiment=shortcut", *toy)
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert "no pictures are drawn: " in caplog.text


def test_a_sweep_without_its_report_has_its_results(
    toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setitem(sys.modules, "experiments.report", None)
    folder = tmp_path / "sweep"
    arguments = ["-m", "experiment=shortcut", *toy, "seed=0,1", f"hydra.sweep.dir={folder}"]
    assert cli_module.main(arguments) == 0
    assert "the report was not written: " in caplog.text
    assert pd.read_csv(folder / "runs.csv")["status"].tolist() == ["finished"] * 2


def test_claims_whose_page_cannot_be_drawn_have_their_verdicts(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setitem(sys.modules, "experiments.report.claims_page", None)
    names = [prediction.name for prediction in CLAIMS["depth_law"].predictions]

    def measure(lab: Lab, seed: int) -> Evidence:
        return Evidence(dict.fromkeys(names, 0.0))

    monkeypatch.setitem(CLAIMS, "depth_law", replace(CLAIMS["depth_law"], measure=measure))
    monkeypatch.setattr(board, "workers_for", lambda *_: 1)
    only = ("claims.only=depth_law", f"claims.runs={tmp_path}/kept")
    code, run = cli("experiment=claims", *only, "claims.budget=quick", "wandb.mode=disabled")
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert summary_of(run)["claims"] == {"depth_law": "test invalid"}
    assert "the page was not written: " in caplog.text


# ---- The terminal


@pytest.mark.parametrize(
    "encoding",
    ["ascii", *(pytest.param(name, marks=pytest.mark.long) for name in ("latin-1", "cp1252"))],
)
def test_a_terminal_shows_escapes_for_what_it_lacks(
    cli: Cli, toy: tuple[str, ...], japanese: str, encoding: str
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2))
    with printing_to(out), printing_to(err, "stderr"):
        code, run = cli(*toy, japanese, "generate.prompt='昔々'")
        assert (
            cli("experiment=generate", "generate.prompt='é'", f"generate.checkpoint={run}")[0] == 1
        )
    assert code == 0
    assert summary_of(run)["status"] == "finished"
    printed, errors = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    assert "\\u6614\\u3005" in printed
    assert errors.startswith("error: generate.prompt='")
    assert errors.count("\n") == 1
    assert (run / "sample.txt").read_text(encoding="utf-8").startswith("昔々")
    assert (out.errors, err.errors) == ("strict", "strict")  # as they were


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (cli_module.main, ["--help"]),
        (cli_module.main, ["--cfg", "job", "generate.prompt='昔々'"]),
        (plots.main, ["昔々"]),
        (report_main, ["昔々"]),
    ],
)
def test_other_commands_print_on_an_ascii_terminal(main: Any, arguments: list[str]) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict") for _ in range(2))
    with printing_to(out), printing_to(err, "stderr"):
        code = main(arguments)
    printed = (out.buffer.getvalue() + err.buffer.getvalue()).decode("ascii")
    assert "Traceback" not in printed
    assert code == (0 if main is cli_module.main else 1)
    assert arguments == ["--help"] or "\\u6614\\u3005" in printed


def test_a_full_disk_where_the_output_goes_ends_no_run(cli: Cli, toy: tuple[str, ...]) -> None:
    class Full(io.TextIOWrapper):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return number

    number = os.open(os.devnull, os.O_WRONLY)
    try:
        with printing_to(Full(io.BytesIO(), "utf-8")):
            code, run = cli(*toy)
    finally:
        console.console.quiet = False
    assert (code, summary_of(run)["status"]) == (0, "finished")


@pytest.mark.long
def test_a_process_without_output_writes_into_none_of_its_files(
    toy: tuple[str, ...], tmp_path: Path
) -> None:
    """What is printed goes by numbers 1 and 2, which the first files opened would else be given."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = (*toy, "trainer.log_every=1")
    closed = Surroundings(closed=True)
    assert cli_module.main([*options, f"hydra.run.dir={whole}"]) == 0
    fault = Fault("signals", 1, {"signals": [signal.SIGTERM]})
    child = Child(tmp_path, *options, f"hydra.run.dir={run}", fault=fault, surroundings=closed)
    assert child.wait()[0] == 128 + signal.SIGTERM
    for name in ("metrics.csv", "gradients.csv"):
        content = (run / name).read_text()
        assert "SIGTERM" not in content
        assert len(content.splitlines()) > 1
    assert Child(tmp_path, f"resume={run}", surroundings=closed).wait()[0] == 0
    assert_same_run(run, whole)


@pytest.mark.parametrize("columns", ["1", "0", "x"])
def test_a_table_keeps_its_numbers_on_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    narrow = console.QuietingConsole()
    monkeypatch.setattr(console, "console", narrow)
    rows = [{"a long name": "x" * 300, "number": n} for n in (10**12, 7)]
    console.print_table("title", rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["a", "long", "name", "number"],
        ["x" * 300, "1000000000000"],
        ["x" * 300, "7"],
    ]


def test_a_bar_is_drawn_where_it_can_be_redrawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain lines in a file, though colours are wanted there, and on a dumb terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for variables, stream, is_bar in (
        ({"TERM": "xterm"}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, io.StringIO(), False),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(console, "console", console.QuietingConsole(file=stream))
        with console.progress("train", 3) as report:
            for done in (1, 2, 3):
                report(done, "note")
        assert ("\x1b" in stream.getvalue()) == is_bar
        assert ("train 2/3  note" in stream.getvalue()) != is_bar


# ---- What a platform may lack


@pytest.mark.long
def test_a_machine_without_the_modules_of_unix(toy: tuple[str, ...], tmp_path: Path) -> None:
    """As on Windows: the same run, where what cannot be measured is empty."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    hidden = ("resource", "pwd", "grp", "termios", "readline", "curses")
    assert cli_module.main([*toy, f"hydra.run.dir={whole}"]) == 0
    child = Child(tmp_path, *toy, f"hydra.run.dir={run}", surroundings=Surroundings(hidden=hidden))
    code, output = child.wait()
    assert code == 0, output
    assert_same_run(run, whole)


def test_memory_that_no_system_reports_is_not_measured(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from experiments.machine import memory

    monkeypatch.setattr(memory, "_read_sizes", lambda path: {})
    monkeypatch.setitem(sys.modules, "resource", None)
    code, run = cli(*toy)
    assert code == 0
    assert pd.read_csv(run / "metrics.csv")["memory_mb"].isna().all()
    assert "peak_memory_mb" not in summary_of(run)
    assert "not measured" in capsys.readouterr().out
    code, run = cli("experiment=memory", *toy)
    table = pd.read_csv(run / "memory.csv").set_index("kind")["measured_bytes"]
    assert table.isna().to_dict()["peak"]


def test_a_user_without_a_home_directory(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As in a container: no HOME, and no entry in the system's list of users."""
    monkeypatch.delenv("HOME")
    monkeypatch.setitem(sys.modules, "pwd", None)
    with pytest.raises(RuntimeError):
        Path.home()
    code, run = cli(*toy)
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert cli(*toy, "data.path='~/absent.txt'")[0] == 1
    assert cli_module.expand_home("data.path=~/absent.txt") == "data.path=~/absent.txt"
    assert "/~/absent.txt' is not valid: " in capsys.readouterr().err


def test_a_working_directory_that_was_removed(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            here.rmdir()
        original(self, number)

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy)
    os.chdir(tmp_path)
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert f"Files: {run}" in capsys.readouterr().out


# ---- Variables that libraries read


def test_a_folder_that_pytorch_cannot_make_ends_no_run(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimizers load its compiler, which makes a folder that nothing here needs."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        cache_dir()  # as when the compiler is loaded, which an earlier test may have caused
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/absent")
    with pytest.raises(OSError, match="absent"):
        cache_dir()
    code, run = cli(*toy)
    assert (code, summary_of(run)["status"]) == (0, "finished")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/dev/null/absent"


def started(run: Path) -> dict[str, Any]:
    """How an offline W&B run began, as W&B's own reader tells it."""
    record: dict[str, Any] = next(r["run"] for r in wandb_records(run) if r["type"] == "run")
    return record


@pytest.mark.long
def test_no_variable_makes_another_wandb_run_of_it(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: Any, capfd: Any
) -> None:
    """Nor does its process print its log where it has no other place for it."""
    variables = {
        "CONFIG_PATHS": "/nowhere.yaml",
        "DIR": "/dev/null/nowhere",
        "DISABLED": "true",
        "INIT_TIMEOUT": "nonsense",
        "JOB_TYPE": "other",
        "MODE": "disabled",
        "NAME": "other",
        "NOTES": "of another run",
        "PROJECT": "other",
        "RESUME": "must",
        "RUN_GROUP": "other",
        "RUN_ID": "another",
        "SERVICE": "3-1-unix-/nowhere",  # of a process that has ended
        "SWEEP_ID": "another",
        "TAGS": "a,b",
    }
    import wandb

    wandb.teardown()  # or its process is there already
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"WANDB_{name}", value)
        patch.setenv("HOME", "/dev/null")
        patch.setenv("WANDB_CACHE_DIR", "/dev/null/nowhere")
        before = dict(os.environ)
        runs = [cli(*toy, "wandb.mode=offline")[1] for _ in range(2)]
        left = dict(os.environ)
    assert "INFO" not in capfd.readouterr().err
    assert not [r for r in caplog.records if "W&B failed" in r.getMessage()]
    told = [started(run) for run in runs]
    assert len({run["run_id"] for run in told} | {"another"}) == 3
    for record, run in zip(told, runs, strict=True):
        assert record["display_name"] == run.name
        assert (record["project"], record["job_type"]) == ("normscope", "train")
        assert not {"run_group", "notes", "tags", "sweep_id"} & set(record)
    assert left == before


def test_no_server_is_told_how_wandb_fares(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B would, of an offline run too, and print a traceback where it cannot."""
    import wandb
    from wandb.env import error_reporting_enabled

    told: list[bool] = []
    monkeypatch.setattr(wandb, "init", lambda **_: told.append(error_reporting_enabled()))
    cli("experiment=shortcut", "wandb.mode=offline")
    assert told == [False]


def test_a_warning_of_a_library_is_one_line_and_no_error(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """PYTHONWARNINGS=error would make a failure of each."""
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        warnings.warn(f"of step {number}\nin two lines", UserWarning, stacklevel=1)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(logging.root, "handlers", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        code, run = cli(*toy)
        assert warnings.filters == filters
    assert (code, summary_of(run)["status"]) == (0, "finished")
    lines = capsys.readouterr().err.splitlines()
    assert "WARNING: UserWarning: of step 0 in two lines" in lines
    assert all(line.startswith("WARNING: ") for line in lines)
    assert logging.root.handlers == []


@pytest.mark.parametrize("zone", ["nonsense/zone", "é日本", "XXX-14"])
def test_any_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """The page has the time at which it was made, and can be written."""
    made = read_board(write_board(tmp_path))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        page = render_page(made, None, {})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", page.encode().decode())


# ---- Ends


def full_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full when a run's records are closed."""
    original = Recorder.close

    def close(self: Recorder, *arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "write_summary", raise_full)
            original(self, *arguments)

    def raise_full(self: Recorder) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recorder, "close", close)


def test_ctrl_c_on_a_full_disk_says_both(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    full_at_the_end(monkeypatch)
    original = Trainer._step

    def step(self: Trainer, number: int) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        original(self, number)

    monkeypatch.setattr(Trainer, "_step", step)
    code, run = cli(*toy)
    lines = [line for line in capsys.readouterr().err.splitlines() if ": " in line][-2:]
    assert code == 130
    assert lines[0].startswith("interrupted: continue with python run.py resume=")
    assert lines[1] == "error: OSError: [Errno 28] No space left on device"
    monkeypatch.undo()
    assert cli_module.main([f"resume={run}", "pictures=false"]) == 0
    assert state_of(run)["step"] == 3


def test_the_traceback_is_shown_once_the_records_are_closed(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def step(self: Trainer, number: int) -> None:
        raise error

    monkeypatch.setenv("NORMSCOPE_DEBUG", "1")
    monkeypatch.setattr(Trainer, "_step", step)
    for error in (ZeroDivisionError("of a bug"), FileNotFoundError("of a file")):
        code, run = cli(*toy, "wandb.mode=offline")
        printed = capsys.readouterr().err
        assert code == 1
        assert printed.count("Traceback (most recent call last)") == 1
        assert printed.splitlines()[-1] == f"error: {type(error).__name__}: {error}"
        assert summary_of(run)["status"] == "failed"
        assert summary_of(run)["error"] == f"{type(error).__name__}: {error}"
        import wandb

        assert wandb.run is None


@pytest.mark.pictures
def test_a_command_leaves_its_process_as_it_was(
    cli: Cli, toy: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables, handlers, filters, streams and PyTorch: nothing of a run outlives it."""
    import matplotlib as mpl
    import torch

    def state() -> list[Any]:
        return [
            {n: v for n, v in os.environ.items() if n != "PYTEST_CURRENT_TEST"},
            list(logging.root.handlers),
            list(warnings.filters),
            warnings.showwarning,
            [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
            (sys.argv, sys.stdout, sys.stderr, sys.path[:], Path.cwd()),
            (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()),
            dict(mpl.rcParams),
        ]

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)  # of whatever ran before
    before = state()
    assert cli(*toy, "trainer.precision=float64", "threads=2")[0] == 0
    assert cli(*toy, "norm=nope")[0] == 1
    assert cli_module.main(["--help"]) == 0
    assert state() == before


# ---- What is loaded


LOADED = """
import json, sys
import run
first = [run.main(["--help"]), [*sys.modules]]
then = [run.main(sys.argv[1:]), [*sys.modules]]
print(json.dumps([first, then]))
"""
PYTORCH_COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
# Each takes a tenth of a second or more to load.
NOT_FOR_A_RUN = {
    *("jinja2", "joblib", "matplotlib", "pandas", "scipy", "wandb"),
    *("safetensors", "tokenizers", "transformers"),
    *("experiments.claims", "experiments.report"),
}
FOR_THE_LAST_SENTENCE = {"pandas", "scipy"}  # when the training is over


def test_what_a_command_does_not_need_is_not_loaded(toy: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own: this one has loaded what other tests need."""
    command = [sys.executable, "-c", LOADED, *toy, "pictures=false"]
    place = f"hydra.run.dir={tmp_path / 'run'}"
    done = subprocess.run([*command, place], capture_output=True, check=True, text=True, cwd=ROOT)
    (help_code, at_help), (run_code, at_end) = json.loads(done.stdout.splitlines()[-1])
    assert (help_code, run_code) == (0, 0)
    assert not (NOT_FOR_A_RUN | PYTORCH_COMPILER | {"experiments.runners"}) & set(at_help)
    assert not (NOT_FOR_A_RUN - FOR_THE_LAST_SENTENCE) & set(at_end)
    runners = [name for name in at_end if name.startswith("experiments.runners.")]
    assert runners == ["experiments.runners.train"]
