"""Tokenizers that were published with a model, as the Hub's tokenizer.json describes them."""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data.tokenizer import (
    TOKENIZERS,
    Tokenizer,
    Tokens,
    bytes_of_letters,
    smallest_kind,
)
from experiments.machine.console import one_line
from experiments.machine.files import typed_path
from experiments.settings.weights import TOKENIZER
from gpt import ConfigError


@TOKENIZERS("pretrained")
class PretrainedTokenizer(Tokenizer):
    """What a tokenizer.json says, by the library `tokenizers`. Nothing is put around a text.

    content  of the file, which is all of its state
    """

    name = "pretrained"

    def __init__(self, content: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            valid = 'needs the library tokenizers: pip install -c constraints.txt -e ".[hub]"'
            raise ConfigError("tokenizer", self.name, valid) from None
        self.content = content
        self.library = Library.from_str(content)
        self.vocab_size = self.library.get_vocab_size(with_added_tokens=True)
        added = self.library.get_added_tokens_decoder()
        self.separators = [number for number, token in added.items() if token.special]

    @classmethod
    def read(cls, path: str | None) -> "PretrainedTokenizer":
        """That of a tokenizer.json, or of the directory in which one lies. Raises ConfigError."""
        file = file_of(path)
        try:
            return cls(file.read_text(encoding="utf-8"))
        except ConfigError:
            raise
        except Exception as error:  # the library has one class for all of its errors
            raise ConfigError(
                "tokenizer.path", path, f"cannot be read: {one_line(error)}"
            ) from None

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls(state["content"])

    def state(self) -> dict[str, Any]:
        return {"content": self.content}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.library.encode(text, add_special_tokens=False).ids
        return ids

    def tokens(self, text: bytes) -> Tokens:
        """The ids of a whole text in UTF-8, in the smallest type that holds them."""
        return np.array(self.encode(text.decode()), smallest_kind(self.vocab_size))

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.texts[i] for i in ids if i < self.vocab_size)

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(text) for text in self.texts], np.int64)

    @functools.cached_property
    def texts(self) -> list[bytes]:
        """The text of each token, of which it may be a part of a character.

        By the token's name: an added one is its own text; else it is written with a letter for each
        byte, as GPT-2's, or with U+2581 for a space and <0x0A> for a byte, as SentencePiece's.
        """
        added = self.library.get_added_tokens_decoder()
        by_letter = '"ByteLevel"' in json.dumps(json.loads(self.content).get("decoder"))
        text_of = bytes_of_name if by_letter else text_of_name
        names = [self.library.id_to_token(number) or "" for number in range(self.vocab_size)]
        return [
            name.encode() if number in added else text_of(name) for number, name in enumerate(names)
        ]


def bytes_of_name(name: str) -> bytes:
    """The bytes of a name that has a letter for each."""
    return bytes(bytes_of_letters()[letter] for letter in name)


def text_of_name(name: str) -> bytes:
    """The text of a name of SentencePiece's."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes.fromhex(byte[1])
    return name.replace("\u2581", " ").encode()


def file_of(path: str | None) -> Path:
    """The tokenizer.json that is meant by a path to it or to its directory. Raises ConfigError."""
    if path is None:
        valid = f"must name a {TOKENIZER} or the directory in which one lies"
        raise ConfigError("tokenizer.path", path, valid)
    file = typed_path(path)
    file = file / TOKENIZER if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(
            "tokenizer.path", path, f"must be a {TOKENIZER}, or a directory that has one"
        )
    return file


def content_name(path: str | None) -> str:
    """A name that says what a tokenizer.json says; empty without one."""
    return "" if path is None else "-" + hashlib.sha256(file_of(path).read_bytes()).hexdigest()[:16]
