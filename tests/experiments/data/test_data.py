"""Corpora, tokenizers, the token cache and the batches."""

import hashlib
import logging
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import FITTED
from experiments.data.corpus import KJV_SHA256, Corpus, cached_tokens, kjv, text, windows
from experiments.data.tokenizer import TOKENIZERS, ByteTokenizer, CompactTokenizer, Tokenizer
from experiments.settings.schema import DataSettings
from gpt import ConfigError

SAMPLE = "Bread, wine and 3 figs;\nthe wine was d\u00e9j\u00e0 vu \U0001f347.\n" * 3
UTF8 = SAMPLE.encode()
SHARED = Path(__file__).parents[4] / "shared" / "data"


def settings(path: Path | None) -> DataSettings:
    return DataSettings("text", None if path is None else str(path), 0.9, "unused")


def test_kjv_is_the_text_it_should_be(tmp_path: Path) -> None:
    bible = kjv(settings(None))
    digest = hashlib.sha256(bible).hexdigest()
    assert digest == KJV_SHA256
    assert bible.startswith(b"In the beginning God created the heavens and the earth.\nAnd the")
    assert bible.endswith(b"Amen.")
    lines = bible.decode().split("\n")
    order = ["Now these are the names of the children of Israel", "The book of the generation of"]
    places = [next(i for i, line in enumerate(lines) if line.startswith(o)) for o in order]
    assert places == sorted(places)
    tokenizer, tokens = cached_tokens(bible, digest, "gpt2_compact", str(tmp_path))
    assert tokenizer.vocab_size == len(np.unique(tokens)) == 9835
    assert round(len(tokens) / 1e6, 2) == 1.02
    assert round(len(bible) / 1e6, 2) == 4.14


@pytest.mark.parametrize("name", FITTED)
def test_tokenizers_give_the_text_back(name: str) -> None:
    tokenizer, tokens = TOKENIZERS[name].fit(UTF8)
    assert tokenizer.decode(tokens.tolist()) == SAMPLE
    assert b"".join(tokenizer.to_bytes([token]) for token in tokens.tolist()) == UTF8
    assert tokenizer.to_bytes([tokenizer.vocab_size]) == b""  # which a larger model may give
    assert tokenizer.encode(SAMPLE) == tokens.tolist()
    assert max(tokens.tolist()) < tokenizer.vocab_size
    restored = TOKENIZERS[name].restore(tokenizer.state())
    assert restored.encode(SAMPLE) == tokens.tolist()
    assert restored.vocab_size == tokenizer.vocab_size
    assert tokenizer.name == name


def test_compact_keeps_gpt2_order_and_leaves_no_gaps() -> None:
    tokenizer, tokens = CompactTokenizer.fit(UTF8)
    assert isinstance(tokenizer, CompactTokenizer)
    assert tokenizer.gpt2_ids == sorted(set(TOKENIZERS["gpt2"].fit(UTF8)[1].tolist()))
    assert sorted(set(tokens.tolist())) == list(range(tokenizer.vocab_size))


@pytest.mark.parametrize(
    ("name", "prompt", "words"),
    [
        ("gpt2_compact", "Bread and submarines", r"its token '.*' does not occur in the corpus"),
        ("char", "Bread & wine", "its character '&' does not occur"),
    ],
)
def test_unknown_text_is_named(name: str, prompt: str, words: str) -> None:
    tokenizer, _ = TOKENIZERS[name].fit(UTF8)
    with pytest.raises(ConfigError, match=words):
        tokenizer.encode(prompt)


def test_gpt2_pattern_agrees_with_tiktoken_on_hard_text() -> None:
    """White space runs, contractions and a special token's text survive the round trip."""
    hard = "  I'll  \t go\n\n\n now <|endoftext|> 12345 \u00a0don't  "
    tokenizer, tokens = TOKENIZERS["gpt2"].fit(hard.encode())
    assert tokenizer.decode(tokens.tolist()) == hard
    assert 50256 not in tokens


def test_cache_is_used_checked_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hashlib.sha256(UTF8).hexdigest()
    _, first = cached_tokens(UTF8, digest, "byte", str(tmp_path))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()

    def fit(text: bytes) -> tuple[ByteTokenizer, np.ndarray]:
        raise AssertionError("the cache was not used")

    with monkeypatch.context() as patch:
        patch.setattr(ByteTokenizer, "fit", fit)
        tokenizer, again = cached_tokens(UTF8, digest, "byte", str(tmp_path))
    assert again.tolist() == first.tolist()
    assert tokenizer.decode(again.tolist()) == SAMPLE

    for damaged in (content[:-7], content[:200] + b"x" + content[201:], b""):
        file.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            _, made_again = cached_tokens(UTF8, digest, "byte", str(tmp_path))
        assert made_again.tolist() == first.tolist()
        assert "damaged" in caplog.text
        assert file.read_bytes() == content
        caplog.clear()
    assert list(tmp_path.iterdir()) == [file]

    pytest.importorskip("fcntl")
    (tmp_path / f".{file.name}.x1_.tmp").write_bytes(content[:-7])  # of a process that was killed
    cached_tokens(UTF8, digest, "byte", str(tmp_path))
    assert list(tmp_path.iterdir()) == [file]


def made(sha256: str, size: int, tokenizer: Tokenizer, *parts: np.ndarray) -> Corpus:
    return Corpus("text", sha256, size, tokenizer, *parts, tokenizer.token_bytes())


def corpus(count: int = 1000) -> Corpus:
    tokens = np.arange(count) % 251
    return made("0" * 64, count, ByteTokenizer(), tokens[:900], tokens[900:])


def test_batches_depend_on_seed_and_step_alone() -> None:
    whole = corpus()
    x, y = whole.batch(seed=3, step=7, rows=4, length=10)
    whole.batch(seed=3, step=8, rows=4, length=10)
    again = whole.batch(seed=3, step=7, rows=4, length=10)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert x.shape == y.shape == (4, 10)
    for seed, step in ((3, 8), (4, 7), (7, 3)):
        assert not torch.equal(x, whole.batch(seed, step, 4, 10)[0])


def test_no_two_steps_of_any_seeds_draw_the_same_batch() -> None:
    """Seeds of more than 32 bits among them, of which NumPy makes two words."""
    whole = corpus()
    seeds = (0, 5, 2**32, 5 + 2**32, 5 + 7 * 2**32, 2**63 - 1)
    drawn = [whole.batch(seed, step, 4, 4)[0] for seed in seeds for step in range(9)]
    assert len({str(batch.tolist()) for batch in drawn}) == len(drawn)
    usual = np.random.default_rng([5 + 2**32, 3]).integers(0, 900 - 4, size=4)
    tokens, _ = whole.batch(5 + 2**32, 3, 4, 4)
    assert tokens[:, 0].tolist() == (usual % 251).tolist()  # as in all versions before


def test_batches_reach_both_ends_and_fixed_windows_stay() -> None:
    short = corpus()
    starts = {int(short.batch(0, step, 64, 890)[0][0, 0]) for step in range(40)}
    assert starts == set(range(10))  # 2,560 draws miss one of ten with probability below 1e-100
    x, y = short.fixed_windows(tokens=30, length=10)
    assert x.shape == (3, 10)
    assert torch.equal(x, short.fixed_windows(30, 10)[0])
    assert x[0, 0] == short.validation[0]
    assert y[-1, -1] == short.validation[-1]
    assert len(short.fixed_windows(tokens=1, length=10)[0]) == 1


def test_windows_shift_by_one() -> None:
    x, y = windows(np.arange(20), np.array([0, 16]), 3)
    assert x.tolist() == [[0, 1, 2], [16, 17, 18]]
    assert y.tolist() == [[1, 2, 3], [17, 18, 19]]


def test_statistics() -> None:
    tokens = np.array([0, 0, 0, 1, 1, 2, 0, 3], np.uint8)
    facts = made("0", 8, ByteTokenizer(), tokens[:6], tokens[6:]).statistics()
    counts = Counter(tokens.tolist())
    entropy = -sum(n / 8 * log(n / 8) for n in counts.values())
    assert facts["unigram_entropy"] == pytest.approx(entropy)
    assert facts["unigram_validation_loss"] == pytest.approx(-(log(4 / 262) + log(1 / 262)) / 2)
    assert (facts["tokens"], facts["train_tokens"], facts["distinct_tokens"]) == (8, 6, 4)


def test_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"\xff")
    (tmp_path / "b" / "one.txt").write_text("one", encoding="utf-8-sig")
    (tmp_path / "a.md").write_text("zero")
    assert text(settings(tmp_path)) == b"zero\none"


def test_texts_that_cannot_be_used(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text(" \n")
    binary.write_bytes(b"fine so far \xff\xfe")
    for path, words in (
        (None, "data.path=None .* must name"),
        (tmp_path / "absent.txt", "cannot be read: No such file"),
        (empty, "it is empty"),
        (binary, "must be UTF-8 text; its byte 12 is not"),
    ):
        with pytest.raises(ConfigError, match=words):
            text(settings(path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the texts are not beside this checkout")
def test_characters_of_tinyshakespeare() -> None:
    """65 characters and a unigram entropy of 3.3 nats, as usually reported for this text."""
    tokenizer, tokens = TOKENIZERS["char"].fit(text(settings(SHARED / "tinyshakespeare.txt")))
    assert tokenizer.vocab_size == 65
    whole = made("0", 0, tokenizer, tokens, tokens[:1])
    assert whole.statistics()["unigram_entropy"] == pytest.approx(3.3, abs=0.05)
