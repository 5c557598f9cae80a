"""Texts that do not fit in memory: the same tokens as of a short one, in little memory."""

import codecs
import hashlib
import logging
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import FITTED
from conftest import Cli
from experiments.data import tokenizer as tokenizers
from experiments.data.corpus import cached_tokens, kjv, windows
from experiments.data.stored import StoredTokens
from experiments.data.tokenizer import TOKENIZERS, gpt2_encoding, gpt2_token_bytes, token_counts
from experiments.machine import known
from experiments.settings import texts
from experiments.settings.schema import DataSettings
from experiments.settings.texts import LongText, open_text, read_text, text_sha256
from gpt import ConfigError
from same_run import summary_of

WORDS = "In a beginning\r\n\r\n was  'the' word, don't \u00e9t\u00e9 \u65e5\u672c\U0001f347 12,3\n"


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Every text counts as long, and is read in pieces of so many bytes by three threads."""
    monkeypatch.setattr(known, "LARGE", -1)
    monkeypatch.setattr(known, "FRESH", -60)  # what was just written is settled

    def use(size: int) -> None:
        for module in (texts, tokenizers):
            monkeypatch.setattr(module, "PIECE", size)

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield use
    torch.set_num_threads(before)


def folder_of(place: Path) -> Path:
    """Texts that end in the middle of everything, one with a byte order mark."""
    (place / "b").mkdir(parents=True)
    (place / "a.txt").write_text(WORDS * 20 + "cut", encoding="utf-8-sig", newline="")
    (place / "b" / "empty.txt").touch()
    (place / "b" / "one.txt").write_text(" \n  " * 30 + WORDS * 3, newline="")
    return place


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("size", [5, 61, 2**20])
def test_a_long_text_has_the_tokens_of_a_short_one(
    tmp_path: Path, long: Callable[[int], None], name: str, size: int
) -> None:
    """The same cache file, to the byte, and the same windows."""
    long(size)
    path = str(folder_of(tmp_path / "text"))
    short, text = read_text(path), open_text(path)
    assert isinstance(text, LongText)
    assert (len(text), text[:]) == (len(short), short)
    digest = hashlib.sha256(short).hexdigest()
    assert text.sha256(str(tmp_path / "cache")) == text_sha256(path) == digest
    tokenizer, tokens = cached_tokens(text, digest, name, str(tmp_path / "cache"))
    fitted, expected = TOKENIZERS[name].fit(short)
    assert isinstance(tokens, StoredTokens)
    assert tokens[:].tolist() == expected.tolist()
    assert tokens[:].dtype == expected.dtype
    assert tokenizer.state() == fitted.state()
    cached_tokens(short, digest, name, str(tmp_path / "other"))
    (cache,) = (tmp_path / "other").glob("*.v2")
    assert (tmp_path / "cache" / cache.name).read_bytes() == cache.read_bytes()
    starts = np.array([0, 17, len(tokens) - 9])
    for found, same in zip(windows(tokens, starts, 8), windows(expected, starts, 8), strict=True):
        assert torch.equal(found, same)
    counts = token_counts(expected, fitted.vocab_size)
    for _ in range(2):
        found = tokens.counts(fitted.vocab_size, str(tmp_path / "cache"))
        assert found.tolist() == counts.tolist()


def tokens_in_threads(content: bytes, size: int) -> list[int]:
    """GPT-2's tokens of a text in pieces of so many bytes, by the threads that there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "PIECE", size)
        return TOKENIZERS["gpt2"].fit(content)[1].tolist()


@pytest.mark.usefixtures("long")
def test_a_book_in_threads_has_the_tokens_of_the_whole() -> None:
    content = kjv(DataSettings("kjv"))[:1_000_000]
    expected = gpt2_encoding().encode_ordinary(content.decode())
    assert tokens_in_threads(content, 2**11) == expected


@pytest.mark.long
@settings(deadline=None, derandomize=True, database=None, max_examples=10_000)
@given(
    st.lists(st.one_of(st.text(max_size=9), st.text("aZ1' \r\n\t!.\u3000\u00a0")), max_size=30),
    st.integers(4, 40),
)
def test_no_text_of_any_characters_is_cut_within_a_token(parts: list[str], size: int) -> None:
    """Where pieces end is said by few characters; here are all that Unicode has."""
    text = "".join(parts).encode()
    if text:
        expected = gpt2_encoding().encode_ordinary(text.decode())
        assert tokens_in_threads(text, size) == expected


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(
    st.lists(st.text(st.sampled_from("a\u00e9\u65e5\n\ufeff"), max_size=9), min_size=1, max_size=5),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_slices_of_a_long_text_are_those_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str], start: int, stop: int
) -> None:
    folder = tmp_path_factory.mktemp("text")
    for number, content in enumerate(contents):
        (folder / f"{number}.txt").write_text(content, newline="", encoding="utf-8")
    files = sorted(folder.iterdir())
    whole = b"\n".join(c.encode().removeprefix(codecs.BOM_UTF8) for c in contents)
    text = LongText(str(folder), files)
    assert text[start:stop] == whole[start:stop]
    assert text[start:] == whole[start:]
    assert len(text) == len(whole)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("h\u00e9llo".encode("utf-16"), "must be UTF-8 text; it is UTF-16"),
        (b"x" * 3_000_000 + b"\xe9" + b"x" * 3_000_000, "its byte 3000000 is not"),
        (codecs.BOM_UTF8 + b"cut in a letter \xc3", "its byte 16 is not"),
        ("\u2003\r\n\u00a0".encode(), "it is empty"),
    ],
)
@pytest.mark.usefixtures("long")
def test_what_is_no_long_text_is_named_as_of_a_short_one(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    for read in (text_sha256, read_text):
        with pytest.raises(ConfigError, match=words) as refused:
            read(str(path))
        assert refused.value.field == "data.path"


@pytest.mark.usefixtures("long")
def test_a_long_text_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 50)
    text = open_text(str(path))
    path.write_text(WORDS * 49)
    for read in (lambda: text[:9], lambda: cached_tokens(text, "0" * 64, "gpt2", str(tmp_path))):
        with pytest.raises(ConfigError, match=r"text.txt' .* was changed while it was read"):
            read()
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        text[:9]
    assert list(tmp_path.iterdir()) == []  # nor a part of a cache


@pytest.mark.parametrize("name", ["gpt2_compact", "char"])
def test_a_long_text_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Less than its own size: a short one takes three times that."""
    monkeypatch.setattr(known, "LARGE", 0)
    for module in (texts, tokenizers):
        monkeypatch.setattr(module, "PIECE", 2**17)
    path = tmp_path / "text.txt"
    path.write_text(WORDS * (6_000_000 // len(WORDS.encode())))
    gpt2_encoding(), gpt2_token_bytes()
    tracemalloc.start()
    text = open_text(str(path))
    assert isinstance(text, LongText)
    digest = text.sha256(str(tmp_path / "cache"))
    tokenizer, tokens = cached_tokens(text, digest, name, str(tmp_path / "cache"))
    assert isinstance(tokens, StoredTokens)
    tokens.counts(tokenizer.vocab_size, str(tmp_path / "cache"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(text)


@pytest.mark.usefixtures("long")
def test_a_large_cache_is_checked_once_and_may_go_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 50)
    text, cache = open_text(str(path)), str(tmp_path / "cache")
    expected = cached_tokens(text, "0" * 64, "gpt2", cache)[1][:].tolist()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was hashed again"))
        tokens = cached_tokens(text, "0" * 64, "gpt2", cache)[1]
    (file,) = (tmp_path / "cache").glob("*.v2")
    content = file.read_bytes()
    file.unlink()
    assert tokens[:].tolist() == expected
    file.write_bytes(content[:-3])
    with caplog.at_level(logging.WARNING):
        assert cached_tokens(text, "0" * 64, "gpt2", cache)[1][:].tolist() == expected
    assert "is damaged and is replaced" in caplog.text
    assert file.read_bytes() == content


@pytest.mark.usefixtures("long")
def test_tokens_of_a_long_text_that_cannot_be_kept_are_held_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 50)
    text = open_text(str(path))
    with caplog.at_level(logging.WARNING):
        tokenizer, tokens = cached_tokens(text, "0" * 64, "char", str(path))
    assert tokenizer.decode(tokens[:].tolist()) == WORDS * 50
    assert "the token cache was not written" in caplog.text


@pytest.mark.usefixtures("long")
def test_a_run_on_a_long_text_is_that_on_a_short_one(
    cli: Cli, toy: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_code, run = cli(*toy, f"data.cache_dir={tmp_path}/long")
    kept = {path.suffix for path in (tmp_path / "long").iterdir()}
    assert kept == {".v2", ".known"}
    monkeypatch.setattr(known, "LARGE", 2**26)
    short_code, other = cli(*toy)
    assert (long_code, short_code) == (0, 0)
    assert summary_of(run)["settings_sha256"] == summary_of(other)["settings_sha256"]
    assert summary_of(run)["corpus"] == summary_of(other)["corpus"]
    assert (run / "gradients.csv").read_text() == (other / "gradients.csv").read_text()


def test_how_far_a_long_text_is_tokenised_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(known, "LARGE", 0)
    path = tmp_path / "text.txt"
    path.write_text("and so on " * (3 * 2**20 // 10))
    os.truncate(path, 3 * 2**20 - 2)
    cached_tokens(open_text(str(path)), "0" * 64, "byte", str(tmp_path / "cache"))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed] == [f"tokenising, MiB {i}/2" for i in (1, 2)]
