"""Tokenizers that were published with a model, as the Hub's tokenizer.json describes them."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data.tokenizer import TOKENIZERS, Tokenizer, Tokens, smallest_kind
from experiments.machine.console import one_line
from experiments.machine.files import typed_path
from gpt import ConfigError

FILE = "tokenizer.json"


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
            valid = 'needs the library tokenizers: pip install -e ".[hub]"'
            raise ConfigError("tokenizer", self.name, valid) from None
        self.content = content
        self.library = Library.from_str(content)
        self.vocab_size = self.library.get_vocab_size(with_added_tokens=True)

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

    def decode(self, ids: list[int]) -> str:
        known = [i for i in ids if i < self.vocab_size]
        text: str = self.library.decode(known, skip_special_tokens=False)
        return text

    @functools.cached_property
    def writes_letters_for_bytes(self) -> bool:
        """Whether its vocabulary has one letter for each byte, as GPT-2's has."""
        return '"ByteLevel"' in json.dumps(json.loads(self.content).get("decoder"))

    def token_bytes(self) -> NDArray[np.int64]:
        added = self.library.get_added_tokens_decoder()
        names = map(self.library.id_to_token, range(self.vocab_size))
        return np.array(
            [
                len(name.encode()) if number in added else self.bytes_of(name)
                for number, name in enumerate(name or "" for name in names)
            ],
            np.int64,
        )

    def bytes_of(self, name: str) -> int:
        """Length in UTF-8 of the text of a token, by its name in the vocabulary."""
        if self.writes_letters_for_bytes:
            return len(name)
        if len(name) == len("<0x00>") and name.startswith("<0x") and name.endswith(">"):
            return 1
        return len(name.replace("\u2581", " ").encode())


def file_of(path: str | None) -> Path:
    """The tokenizer.json that is meant by a path to it or to its directory. Raises ConfigError."""
    if path is None:
        valid = f"must name a {FILE} or the directory in which one lies"
        raise ConfigError("tokenizer.path", path, valid)
    file = typed_path(path)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise ConfigError("tokenizer.path", path, f"must be a {FILE}, or a directory that has one")
    return file


def content_name(path: str | None) -> str:
    """A name that says what a tokenizer.json says; empty without one."""
    return "" if path is None else "-" + hashlib.sha256(file_of(path).read_bytes()).hexdigest()[:16]
