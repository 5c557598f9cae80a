"""Token files as they are found in the field: read where they lie, or refused in one line."""

import itertools
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hub import tokenizer_json
from numpy.typing import NDArray

import run as cli_module
from configs import settings_of
from conftest import TOY, Cli
from experiments.data import stored
from experiments.data.corpus import Corpus, load_corpus, windows
from experiments.data.pretrained import PretrainedTokenizer
from experiments.data.tokenizer import IdTokenizer, gpt2_encoding, gpt2_token_bytes
from experiments.machine import known
from experiments.settings import shards
from experiments.settings.shards import shards_sha256
from gpt import ConfigError
from same_run import summary_of

END_OF_TEXT = 50256
NUMBERS = ("tokenizer=ids", "model.vocab_size=50257")
IDS = np.random.default_rng(0).integers(0, 50257, 3000)


def header(count: int, magic: int = 20240520, version: int = 1, kind: str = "<i4") -> bytes:
    """As llm.c's dev/data/data_common.py writes it."""
    numbers = np.zeros(256, kind)
    numbers[:3] = magic, version, count
    return numbers.tobytes()


def plain(ids: NDArray[np.int64]) -> bytes:
    """A file as nanoGPT's prepare.py writes it."""
    return ids.astype("<u2").tobytes()


def gpt2_shard(ids: NDArray[np.int64]) -> bytes:
    return header(len(ids)) + plain(ids)


def llama_shard(ids: NDArray[np.int64]) -> bytes:
    return header(len(ids), 20240801, 7) + ids.astype("<u4").tobytes()


def place(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.bin").write_bytes(content)
    return folder


def corpus_at(path: Path, cache: Path, *overrides: str) -> Corpus:
    small = ("model=micro", f"data.cache_dir={cache}", "trainer.sequence_length=16")
    return load_corpus(settings_of("data=tokens", f"data.path={path}", *small, *overrides))


def same_batches(one: Corpus, other: Corpus) -> bool:
    return all(
        torch.equal(a, b)
        for step in range(20)
        for a, b in zip(one.batch(1, step, 8, 16), other.batch(1, step, 8, 16), strict=True)
    )


@pytest.fixture
def large_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets files above so many bytes count as large, and be settled as soon as they are written."""

    def use(size: int) -> None:
        monkeypatch.setattr(known, "LARGE", size)
        monkeypatch.setattr(known, "FRESH", -60)

    return use


# ---- What is read


def test_files_of_nanogpt_are_read_as_its_own_script_reads_them(tmp_path: Path) -> None:
    """np.memmap("train.bin", np.uint16): the same numbers, in windows drawn as from a text."""
    folder = place(tmp_path / "data", train=plain(IDS[:2500]), val=plain(IDS[2500:]))
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # must not be unpickled
    corpus = corpus_at(folder, tmp_path / "cache")
    assert corpus.train[:].tolist() == np.memmap(folder / "train.bin", np.uint16).tolist()
    assert corpus.validation[:].tolist() == IDS[2500:].tolist()
    starts = np.random.default_rng([3, 7]).integers(0, 2500 - 16, size=4)
    x, y = corpus.batch(seed=3, step=7, rows=4, length=16)
    assert x.tolist() == [IDS[start : start + 16].tolist() for start in starts]
    assert y.tolist() == [IDS[start + 1 : start + 17].tolist() for start in starts]
    assert corpus.fixed_windows(32, 16)[1][-1, -1] == IDS[-1]
    assert corpus.tokenizer.vocab_size == 50257


def test_where_a_set_was_cut_into_files_is_not_seen(tmp_path: Path) -> None:
    """The stream goes on in the next file, as the files were cut from it; the first is small."""
    cuts = [0, 5, 700, 701, 2500]
    pieces = [IDS[a:b] for a, b in itertools.pairwise(cuts)]
    many = {f"fineweb_train_{i:06}": gpt2_shard(part) for i, part in enumerate(pieces, 1)}
    val = gpt2_shard(IDS[2500:])
    single = {"fineweb_train_000001": gpt2_shard(IDS[:2500])}
    one = place(tmp_path / "one", fineweb_val_000000=val, **single)
    cut = place(tmp_path / "cut", fineweb_val_000000=val, **many)
    whole, parts = (corpus_at(folder, tmp_path / "cache") for folder in (one, cut))
    assert parts.train[:].tolist() == whole.train[:].tolist() == IDS[:2500].tolist()
    assert parts.train[3:703].tolist() == IDS[3:703].tolist()
    assert same_batches(whole, parts)
    facts, others = whole.statistics(), parts.statistics()
    assert facts.pop("sha256") != others.pop("sha256")  # other files
    assert facts == others
    assert facts["distinct_tokens"] == len(np.unique(IDS))


@pytest.mark.parametrize("shard", [gpt2_shard, llama_shard, plain])
def test_a_file_or_files_without_such_names_are_split_as_a_text(
    tmp_path: Path, shard: Callable[[NDArray[np.int64]], bytes]
) -> None:
    folder = place(tmp_path / "data", a=shard(IDS[:1000]), b=shard(IDS[1000:]))
    single = tmp_path / "tokens of mine"
    single.write_bytes(shard(IDS))
    for path in (folder, single):
        corpus = corpus_at(path, tmp_path / "cache", "data.train_share=0.7")
        assert corpus.train[:].tolist() == IDS[:2100].tolist()
        assert corpus.validation[:].tolist() == IDS[2100:].tolist()


def test_ids_beyond_sixteen_bits_are_read(tmp_path: Path) -> None:
    ids = IDS * 2 + 20_000
    vocabulary = ("tokenizer=ids", "model.vocab_size=128256")
    for name, content in (("with", llama_shard(ids)), ("without", ids.astype("<u4").tobytes())):
        corpus = corpus_at(place(tmp_path / name, x=content), tmp_path / "cache", *vocabulary)
        assert corpus.train[:].tolist() == ids[:2700].tolist()
        assert corpus.batch(0, 0, 2, 16)[0].max() > 2**16


def test_numbers_about_a_set_are_those_of_its_text(tmp_path: Path) -> None:
    """Bytes are those of the decoded tokens; one between two documents has no text of its own."""
    text = "In the beginning was the word; d\u00e9j\u00e0 vu.\n" * 50
    ids = np.array([END_OF_TEXT, *gpt2_encoding().encode_ordinary(text)] * 2)
    corpus = corpus_at(place(tmp_path / "data", x=plain(ids)), tmp_path / "cache")
    assert corpus.statistics()["bytes"] == 2 * len(text.encode())
    targets = torch.tensor([ids[:300].tolist()])
    size = len(gpt2_encoding().decode_bytes(ids[1:300].tolist()))
    assert corpus.bits_per_byte(2.0, targets) == pytest.approx(2 / math.log(2) * 300 / size)
    assert corpus.bits_per_byte(2.0, torch.tensor([[END_OF_TEXT]])) is None
    assert gpt2_token_bytes()[END_OF_TEXT] == len("<|endoftext|>")  # as its text is in a text


def test_tokens_of_a_published_vocabulary_have_its_text(tmp_path: Path) -> None:
    """Its special token stands between documents."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    tokenizer = PretrainedTokenizer.read(str(tmp_path))
    (special,) = tokenizer.separators
    ids = np.array([*tokenizer.encode("one, two"), special] * 50)
    chosen = ("tokenizer=pretrained", f"tokenizer.path={tmp_path}")
    corpus = corpus_at(place(tmp_path / "data", x=plain(ids)), tmp_path / "cache", *chosen)
    assert corpus.statistics()["bytes"] == 50 * len("one, two")
    assert corpus.tokenizer.decode(corpus.train[: len(ids) // 50].tolist()) == "one, two<|end|>"


# ---- What is refused


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, r"data' .* must hold .bin files of tokens; it has none"),
        ({"a": b""}, r"a.bin' .* must hold tokens; it is empty"),
        ({"a": header(0)}, r"a.bin' .* must hold tokens; it has none"),
        ({"a": plain(IDS)[:-1]}, r"whole tokens of 2 bytes; it has 5,999 bytes"),
        ({"a": llama_shard(IDS)[:-2]}, r"whole tokens of 4 bytes"),
        ({"a": gpt2_shard(IDS)[:-2]}, r"is truncated: its header says 3,000 .* holds 2,999"),
        ({"a": gpt2_shard(IDS) + b"00"}, r"more than it should: .* 3,000 tokens, .* 3,001"),
        ({"a": gpt2_shard(IDS)[:500]}, r"ends within its header, which takes 1024 bytes"),
        ({"a": header(9, kind=">i4") + plain(IDS)}, r"little-endian; its header is big-endian"),
        ({"a": header(9, version=2) + plain(IDS)}, r"its header is of version 2; 20240520 of v"),
        ({"a": header(9, 20240522)}, r"holds multiple-choice questions"),
        ({"a": header(9, 20990101)}, r"has the magic number 20990101; 20240520 of version 1 and"),
        ({"a": plain(IDS), "b": gpt2_shard(IDS)}, r"b.bin' .* a header of 16-bit .* no header"),
        ({"a": llama_shard(IDS), "b": gpt2_shard(IDS)}, r"16-bit tokens, and a.bin has .* 32-bit"),
        ({"train": plain(IDS), "val": plain(IDS), "x": plain(IDS)}, r"x.bin' .* one of train and"),
        ({"train": plain(IDS), "val": plain(IDS), "train_val": plain(IDS)}, r"must be one of tr"),
        ({"train": plain(IDS), "val": plain(IDS[:16])}, r"part has 16 tokens, and one window"),
        (
            {"train": plain(IDS), "val": plain(np.array([1, 2, 50257, 3, 60000] * 9))},
            r"val.bin' .* its token 2 is 50257, and the tokenizer has 50,257; say with which",
        ),
    ],
)
def test_what_holds_no_tokens_is_named(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    folder = place(tmp_path / "data", **files)
    with pytest.raises(ConfigError, match=words) as refused:
        corpus_at(folder, tmp_path / "cache")
    assert refused.value.field == "data.path"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("tokenizer=char",), r"tokenizer='char' is not valid: is made from a text"),
        (("tokenizer=gpt2_compact",), r"choose gpt2, pretrained or ids"),
        (("tokenizer=ids",), r"model.vocab_size=None .* must say how many"),
        (("data=kjv", *NUMBERS), r"tokenizer='ids' .* belongs to data=tokens"),
        (("data.path=null",), r"data.path=None .* folder with .bin files"),
        (("data.path=/no/such",), r"data.path='/no/such' .* No such file"),
    ],
)
def test_settings_that_do_not_go_with_tokens_are_named(
    tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        corpus_at(place(tmp_path / "data", x=plain(IDS)), tmp_path / "cache", *overrides)


def test_numbers_are_their_own_text() -> None:
    tokenizer = IdTokenizer(300)
    assert tokenizer.encode("7 299\n0") == [7, 299, 0]
    assert tokenizer.decode([7, 299, 0]) == "7 299 0 "
    assert tokenizer.restore(tokenizer.state()).vocab_size == 300
    for prompt in ("7 300", "-1", "1.5", "\u0663", "9" * 5000):
        with pytest.raises(ConfigError, match="must be numbers below 300 with tokenizer=ids"):
            tokenizer.encode(prompt)


def test_a_file_that_changes_while_a_run_reads_it_ends_the_run(tmp_path: Path) -> None:
    folder = place(tmp_path / "data", x=plain(IDS))
    corpus = corpus_at(folder, tmp_path / "cache")
    with (folder / "x.bin").open("r+b") as file:
        file.truncate(100)  # what stayed mapped would end the process
    with pytest.raises(ConfigError, match=r"x.bin' .* was changed since the run began"):
        corpus.batch(0, 0, 4, 16)
    (folder / "x.bin").unlink()
    with pytest.raises(ConfigError, match=r"cannot be read any more: No such file"):
        corpus.batch(0, 0, 4, 16)


# ---- What is known about large files


def test_large_files_are_read_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_from: Callable[[int], None]
) -> None:
    """Until they change: then the changed one is read again, and all that is known follows."""
    large_from(100)
    folder = place(tmp_path / "data", train=plain(IDS[:2500]), val=plain(IDS[2500:]))
    first = corpus_at(folder, tmp_path / "cache").statistics()
    shards.file_sha256.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(stored, "parts", lambda tokens: pytest.fail("it was counted again"))
        patch.setattr(shards.hashlib, "file_digest", lambda *_: pytest.fail("it was hashed again"))
        assert corpus_at(folder, tmp_path / "cache").statistics() == first
    (folder / "val.bin").write_bytes(plain(IDS[:500]))
    os.utime(folder / "val.bin", (1, 1))
    second = corpus_at(folder, tmp_path / "cache").statistics()
    assert second["sha256"] != first["sha256"]
    assert second["unigram_validation_loss"] != first["unigram_validation_loss"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"0" * 64 + b"\n1"])
def test_what_is_kept_and_damaged_is_worked_out_again(
    tmp_path: Path, large_from: Callable[[int], None], damage: bytes
) -> None:
    large_from(0)
    files = [("/text", (1, 10, 1))]
    answers = iter([["right"], ["again"]])
    assert known.known(str(tmp_path), "?", files, lambda: next(answers)) == ["right"]
    assert known.known(str(tmp_path), "?", files, lambda: next(answers)) == ["right"]
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(damage)
    assert known.known(str(tmp_path), "?", files, lambda: next(answers)) == ["again"]
    assert known.known(str(tmp_path), "?", files, lambda: next(answers)) == ["again"]
    for other in ([("/else", (1, 10, 1))], [("/text", (2, 10, 1))], [("/text", (1, 10, 2))]):
        assert known.known(str(tmp_path), "?", other, lambda: "new") == "new"
    assert known.known(str(tmp_path), "other", files, lambda: "new") == "new"


def test_nothing_is_kept_of_small_files_and_of_those_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = (2**62, 10, 1)  # later than any clock
    for size, file_stamp in ((10, (1, 10, 1)), (9, now)):
        monkeypatch.setattr(known, "LARGE", size)
        assert known.known(str(tmp_path), "?", [("/text", file_stamp)], lambda: 1) == 1
    assert list(tmp_path.iterdir()) == []


# ---- Runs


def test_runs_on_tokens_are_the_same_wherever_these_lie_and_go_on(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hash stands on the content; a run goes on from a moved set, and from no other."""
    folder = place(tmp_path / "data", train=plain(IDS[:2500]), val=plain(IDS[2500:]))
    places = ("data=tokens", f"data.cache_dir={tmp_path}/cache")
    arguments = (*TOY, *NUMBERS, *places, "schedule=constant")
    code, run = cli(*arguments, f"data.path={folder}")
    assert code == 0
    summary, metrics = summary_of(run), pd.read_csv(run / "metrics.csv")
    assert summary["corpus"]["sha256"] == shards_sha256(str(folder), None)
    assert "bytes" not in summary["corpus"]
    assert "val_bits_per_byte" not in summary
    assert metrics["val_bits_per_byte"].isna().all()
    sample = (run / "sample.txt").read_text().split()
    assert [int(number) for number in sample[:16]] == IDS[2500:2516].tolist()
    moved = shutil.copytree(folder, tmp_path / "moved")
    code, other = cli(*arguments, f"data.path={moved}", "trainer.steps=4")
    assert summary_of(other)["corpus"] == summary["corpus"]
    assert cli_module.main([f"resume={run}", f"data.path={moved}", "trainer.steps=4"]) == 0
    assert (run / "gradients.csv").read_text() == (other / "gradients.csv").read_text()
    (moved / "val.bin").write_bytes(plain(IDS[:500]))
    capsys.readouterr()
    assert cli_module.main([f"resume={run}", f"data.path={moved}", "trainer.steps=5"]) == 1
    assert "is not the text with which the run began" in capsys.readouterr().err


def test_windows_of_stored_tokens_are_those_of_an_array(tmp_path: Path) -> None:
    folder = place(tmp_path / "data", a=plain(IDS[:40]), b=plain(IDS[40:41]), c=plain(IDS[41:]))
    tokens = corpus_at(folder, tmp_path / "cache", "data.train_share=0.9").train
    starts = np.arange(0, 60)
    for found, expected in zip(windows(tokens, starts, 16), windows(IDS, starts, 16), strict=True):
        assert torch.equal(found, expected)
