"""Token files as they are found in the field: nanoGPT's, and those of llm.c and modded-nanogpt.

nanoGPT's (data/*/prepare.py in github.com/karpathy/nanoGPT) are numbers of 16 bits and nothing
else. llm.c's (dev/data/data_common.py in github.com/karpathy/llm.c) begin with 256 numbers of 32
bits: a magic number, a version, how many tokens follow, and zeros. Both are little-endian.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.stored import StoredTokens, Stretch
from experiments.settings.shards import Files, shards_of, stamp_of
from experiments.settings.texts import unreadable
from gpt import ConfigError

HEADER = np.dtype("<i4")
HEADER_BYTES = 256 * HEADER.itemsize
KINDS = {(20240520, 1): "<u2", (20240801, 7): "<u4"}  # by magic number and version
EVALUATION = 20240522  # of llm.c's multiple-choice questions
FEW = 2**16  # tokens: numbers of 16 bits tell as many apart


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say: the kind of its numbers, and how many there are."""

    kind: str
    count: int


@dataclass(frozen=True)
class Shards:
    """Files of tokens, by part, and what the header of each says, None without one."""

    path: str
    files: Files
    headers: Mapping[Path, Header | None]

    def parts(self, vocab_size: int, train_share: float) -> tuple[StoredTokens, StoredTokens]:
        """The tokens for training and those for validation.

        By the names of the files, or else the first train_share of all and the rest. Raises
        ConfigError where a file does not hold what it should.

        vocab_size  says how wide the numbers are where no header does
        """
        plain = "<u2" if vocab_size <= FEW else "<u4"
        found = [
            StoredTokens([stretch_of(file, self.headers[file], plain) for file in files])
            for files in self.files.values()
        ]
        if len(found) == 1:
            (whole,) = found
            cut = int(len(whole) * train_share)
            return whole.between(0, cut), whole.between(cut, len(whole))
        train, validation = found
        return train, validation


def open_shards(path: str | None) -> Shards:
    """The files at `path` with their headers. Raises ConfigError for one that is none of ours."""
    files = shards_of(path)
    headers = {file: header_of(file) for found in files.values() for file in found}
    (first, expected), *others = headers.items()
    for file, header in others:
        if kind_of(header) != kind_of(expected):
            valid = f"has {kind_of(header)}, and {first.name} has {kind_of(expected)}; "
            raise ConfigError("data.path", str(file), valid + "give one kind of files at a time")
    return Shards(str(path), files, headers)


def kind_of(header: Header | None) -> str:
    """In words."""
    if header is None:
        return "no header"
    return f"a header of {8 * np.dtype(header.kind).itemsize}-bit tokens"


def header_of(file: Path) -> Header | None:
    """What the header of a file says; None where it has none.

    Without a magic number that is known it counts as one where nearly all of it is zero, which the
    first five hundred tokens of a text are not. Raises ConfigError for an unknown one.
    """
    stamp_of(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(HEADER_BYTES)
    except OSError as error:
        raise unreadable(str(file), error) from None
    if not content:
        raise ConfigError("data.path", str(file), "must hold tokens; it is empty")
    numbers = np.frombuffer(content[: len(content) // 4 * 4], HEADER)
    magic, version, count = (int(number) for number in [*numbers[:3], 0, 0, 0][:3])
    swapped = int(numbers[:1].byteswap().sum())
    known_magic = [number for number, _ in KINDS]
    if magic in known_magic and len(content) < HEADER_BYTES:
        valid = f"ends within its header, which takes {HEADER_BYTES} bytes"
        raise ConfigError("data.path", str(file), valid)
    if (magic, version) in KINDS:
        return Header(KINDS[magic, version], count)
    if magic in known_magic:
        valid = f"its header is of version {version}; {in_words()} can be read"
        raise ConfigError("data.path", str(file), valid)
    if swapped in known_magic:
        raise ConfigError("data.path", str(file), "must be little-endian; its header is big-endian")
    if magic == EVALUATION:
        raise ConfigError("data.path", str(file), "holds multiple-choice questions, not a text")
    if magic and len(content) == HEADER_BYTES and not numbers[4:].any():
        valid = f"its header has the magic number {magic}; {in_words()} can be read"
        raise ConfigError("data.path", str(file), valid)
    return None


def in_words() -> str:
    """The headers that are known."""
    return " and ".join(f"{magic} of version {version}" for magic, version in KINDS)


def stretch_of(file: Path, header: Header | None, plain: str) -> Stretch:
    """The tokens of a file. Raises ConfigError where its size is not the one they should have.

    plain  the kind of the numbers in a file without a header
    """
    stamp = stamp_of(file)[1]
    kind = plain if header is None else header.kind
    offset = 0 if header is None else HEADER_BYTES
    width = np.dtype(kind).itemsize
    count, rest = divmod(stamp[1] - offset, width)
    if rest:
        valid = f"must hold whole tokens of {width} bytes; it has {stamp[1]:,} bytes"
        raise ConfigError("data.path", str(file), valid)
    if header is not None and header.count != count:
        problem = "is truncated" if count < header.count else "has more than it should"
        valid = f"{problem}: its header says {header.count:,} tokens, and it holds {count:,}"
        raise ConfigError("data.path", str(file), valid)
    if not count:
        raise ConfigError("data.path", str(file), "must hold tokens; it has none")
    return Stretch(file, stamp, kind, offset, count)
