"""Text that is written after training, from a checkpoint, or by an untrained model."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs import settings_of
from conftest import Cli
from experiments.data.tokenizer import ByteTokenizer
from experiments.machine.console import silenced, streamed
from experiments.records.recorder import Recorder
from experiments.training import text
from experiments.training.checkpoint import read_checkpoint, write_checkpoint
from gpt import GPT, GPTConfig


def test_text_from_a_checkpoint_alone(cli: Cli, toy: tuple[str, ...], text_file: Path) -> None:
    _, trained = cli(*toy, "tokenizer=gpt2_compact")
    prompt = text_file.read_text()[:20]
    arguments = (f"generate.checkpoint={trained}", f"generate.prompt='{prompt}'", "seed=3")
    common = ("experiment=generate", "wandb.mode=disabled", "generate.tokens=5", "device=cpu")
    samples = []
    for _ in range(2):
        code, run = cli(*common, *arguments)
        assert code == 0
        samples.append((run / "sample.txt").read_text())
    assert samples[0] == samples[1]
    assert samples[0].startswith(prompt)
    assert len(samples[0]) > len(prompt) + 1


def test_a_checkpoint_of_no_finite_weights_costs_one_line(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, trained = cli(*toy, "trainer.steps=1")
    state = read_checkpoint(trained / "checkpoint.pt")
    state["model"]["head.weight"][0, 0] = float("inf")
    write_checkpoint(trained / "checkpoint.pt", state)
    for runner in ("generate", "export"):
        path = f"{runner}.checkpoint={trained}"
        capsys.readouterr()
        code, _ = cli(f"experiment={runner}", path, "generate.prompt=a", "wandb.mode=disabled")
        assert code == 1
        assert "its head.weight has NaN or infinity in it" in capsys.readouterr().err


# ---- The model


def test_the_book_model_says_what_the_book_prints(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raschka, Build a Large Language Model (From Scratch), section 4.7: untrained, and so said."""
    model = ("model=book_124m", "init=torch", "seed=123", f"data.cache_dir={tmp_path}")
    options = ("generate.prompt=Hello, I am", "generate.temperature=0", "generate.tokens=6")
    code, run = cli("experiment=generate", *model, *options, "wandb.mode=disabled", "device=cpu")
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert re.match(r"untrained, .*: pre_ln, 12 blocks .* 163,009,536 parameters", lines[0])
    assert lines[1] == "Hello, I am Featureiman Byeswickattribute argue"
    assert re.fullmatch(
        r"4 prompt tokens and 6 new ones in \d+\.\d\d s, [\d.e+]+ new tokens/s", lines[-4]
    )
    assert lines[-2:] == [
        "No training went into these words: the weights are as they were drawn.",
        "next: python run.py experiment=train",
    ]
    assert (run / "sample.txt").read_text() == lines[1] + "\n"


def test_an_untrained_model_is_the_one_that_a_run_begins_with(
    cli: Cli, toy: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Also what its placement sets from data: a run that learns nothing has the same weights.

    What its checkpoint does not have is said in one line.
    """
    common = (*toy, "norm=admin", "optimizer.lr=0", "seed=3", "model.drop_rate=0.2")
    _, trained = cli(*common, "trainer.steps=1", "trainer.probe_every=null")
    common = ("experiment=generate", *common, "generate.prompt=ab", "generate.tokens=40")
    caplog.clear()
    texts = []
    for given in ("generate.checkpoint=null", f"generate.checkpoint={trained}"):
        code, run = cli(*common, given)
        assert code == 0
        texts.append((run / "sample.txt").read_text())
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2 + 40 + 1
    assert not caplog.messages
    others = ("norm=post_ln", "model.n_layers=3", "shortcut=false", "tokenizer=byte")
    assert cli(*common, given, *others)[0] == 0
    assert caplog.messages == [
        "the checkpoint has a model of its own, not shortcut=False (it has True), "
        "norm.placement=post_ln (it has admin), model.n_layers=3 (it has 2), "
        "tokenizer.name=byte (it has char)"
    ]


def test_a_nucleus_of_nothing_but_the_likeliest_is_greedy(cli: Cli, toy: tuple[str, ...]) -> None:
    written = ("experiment=generate", *toy, "generate.prompt=ab", "generate.tokens=20")
    texts = []
    for option in ("generate.top_p=1e-9", "generate.temperature=0"):
        _, run = cli(*written, option)
        texts.append((run / "sample.txt").read_text())
    assert texts[0] == texts[1]


# ---- As it is written


class Stream(io.TextIOWrapper):
    """What is printed on a terminal or into a pipe of some encoding, and all that was flushed."""

    def __init__(self, is_terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding, "backslashreplace", newline="")
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def written(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stream]:
    """Replace stdout by a stream, until the test ends."""

    def replace(*options: Any) -> Stream:
        stream = Stream(*options)
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return replace


PIECES = ["one ", "two\nth", "", "ree\x1b[2J", " end"]


@pytest.mark.parametrize(
    ("is_terminal", "seen"),
    [
        (True, ["one ", "one two\nth", "one two\nth", "one two\nthree\\x1b[2J"]),
        (False, ["", "one two\n", "one two\n", "one two\n"]),
    ],
)
def test_a_text_is_printed_as_it_comes(
    printed: Callable[..., Stream], is_terminal: bool, seen: list[str]
) -> None:
    """By the piece on a terminal, by the line elsewhere; its last line ends, too."""
    stream = printed(is_terminal)
    with streamed() as write:
        for piece, expected in zip(PIECES, seen, strict=False):
            write(piece)
            assert stream.written() == expected
        write(PIECES[-1])
    assert stream.written() == "one two\nthree\\x1b[2J end\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_text_that_is_interrupted_ends_its_line(
    printed: Callable[..., Stream], is_terminal: bool
) -> None:

    def write_and_stop() -> None:
        with streamed() as write:
            write("one\ntwo")
            raise KeyboardInterrupt

    stream = printed(is_terminal)
    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert stream.written() == "one\ntwo\n"


def test_a_terminal_in_latin_1_shows_escapes(printed: Callable[..., Stream]) -> None:
    stream = printed(True, "latin-1")
    with streamed() as write:
        write("d\u00e9j\u00e0 ")
        write("\u6614")
    assert stream.written() == "d\u00e9j\u00e0 \\u6614\n"


def test_the_jobs_of_a_sweep_print_no_text(printed: Callable[..., Stream]) -> None:
    stream = printed(True)
    with silenced(bars=True), streamed() as write:
        write("one\ntwo")
    assert stream.written() == ""


@pytest.fixture
def write_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], list[str]]:
    """Write a text by a model whose tokens are bytes; gives the pieces that are shown."""

    def call(continued: bytes) -> list[str]:
        def say(model: GPT, prompts: list[list[int]], *_: Any, on_token: Any, **__: Any) -> Any:
            for token in continued:
                on_token(0, token)
            return [[*prompts[0], *continued]]

        monkeypatch.setattr(text, "continue_tokens", say)
        settings = settings_of("wandb.mode=disabled")
        with torch.device("meta"):
            model = GPT(GPTConfig(256, 8, 4, 1, 0))
        pieces: list[str] = []
        recorder = Recorder(tmp_path, settings)
        prompt = list("\u6614".encode())
        text.write_sample(model, ByteTokenizer(), prompt, settings, recorder, pieces.append)
        recorder.close("finished", [])
        return [piece for piece in pieces if piece]

    return call


def test_a_character_is_shown_once_it_is_whole(
    write_bytes: Callable[[bytes], list[str]], tmp_path: Path
) -> None:
    """And what is none as U+FFFD, as in sample.txt."""
    assert write_bytes("a\u00e9\U0001f347".encode()) == ["\u6614", "a", "\u00e9", "\U0001f347"]
    assert write_bytes(b"\xc3(\xe6\x98") == ["\u6614", "\ufffd(", "\ufffd"]
    assert (tmp_path / "sample.txt").read_text(encoding="utf-8") == "\u6614\ufffd(\ufffd\n"
