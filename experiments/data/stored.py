"""Tokens that stay on the disk: of whatever is read there, only a slice is in memory."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from experiments.data.tokenizer import Tokens, parts
from experiments.machine.console import ReportProgress, progress
from experiments.machine.known import Stamp, known, stamp
from gpt import ConfigError


@dataclass(frozen=True)
class Stretch:
    """Some of the tokens in a file, one after the other.

    source  the file; where it is open it may be removed meanwhile
    stamp   that it must still have
    kind    of the numbers, as NumPy writes it
    offset  of the first of them in the file, in bytes
    count   how many
    """

    source: Path | BinaryIO
    stamp: Stamp
    kind: str
    offset: int
    count: int

    @property
    def name(self) -> str:
        return str(self.source if isinstance(self.source, Path) else self.source.name)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, asked: slice) -> Tokens:
        """Mapped for as long as the slice is copied: what stays mapped counts as this process's
        memory, and ends the process where the file is cut off. Raises ConfigError where the file
        has changed."""
        start, stop, _ = asked.indices(self.count)
        if start >= stop:
            return np.empty(0, self.kind)
        if self._stamp_now() != self.stamp:
            raise ConfigError("data.path", self.name, "was changed since the run began to read it")
        place = self.offset + start * np.dtype(self.kind).itemsize
        mapped: Tokens = np.memmap(self.source, self.kind, "r", place, (stop - start,))
        return np.array(mapped)

    def _stamp_now(self) -> Stamp:
        try:
            at = self.source if isinstance(self.source, Path) else self.source.fileno()
            return stamp(os.stat(at))
        except OSError as error:
            valid = f"cannot be read any more: {error.strerror}"
            raise ConfigError("data.path", self.name, valid) from None

    def between(self, first: int, last: int) -> "Stretch":
        """The tokens first .. last - 1 of this stretch."""
        size = np.dtype(self.kind).itemsize
        return replace(self, offset=self.offset + first * size, count=last - first)

    def counts(
        self, vocab_size: int, folder: str, report: Callable[[int], None]
    ) -> NDArray[np.int64]:
        """How often each token occurs, (vocab_size,); of a large file kept in `folder`.

        report  is told how many were read

        Raises ConfigError for the first token that is not below vocab_size.
        """

        def work_out() -> list[int]:
            counts, done = np.zeros(vocab_size, np.int64), 0
            for part in parts(self):
                if part.max() >= vocab_size:
                    place = int(np.argmax(part >= vocab_size))
                    raise too_large(self.name, done + place, int(part[place]), vocab_size)
                counts += np.bincount(part, minlength=vocab_size)
                done += len(part)
                report(done)
            return counts.tolist()

        question = f"counts of {vocab_size} in {self.count} {self.kind} from {self.offset}"
        files = [(str(Path(self.name).absolute()), self.stamp)]
        return np.array(known(folder, question, files, work_out), np.int64)


class StoredTokens:
    """Stretches of tokens as one sequence, whose slices are arrays.

    A slice goes over the end of a stretch into the next: where a set was cut into files is not
    seen in the tokens.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self.stretches = stretches
        self.starts = [0, *accumulate(map(len, stretches))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, asked: slice) -> Tokens:
        start, stop, _ = asked.indices(len(self))
        found = [stretch[:] for stretch in self._inside(start, stop)]
        return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint8), *found])

    def between(self, first: int, last: int) -> "StoredTokens":
        """The tokens first .. last - 1, still on the disk."""
        return StoredTokens([*self._inside(first, last)])

    def _inside(self, first: int, last: int) -> Iterator[Stretch]:
        """What of each stretch lies there."""
        place = max(0, int(np.searchsorted(self.starts, first, "right")) - 1)
        while place < len(self.stretches) and self.starts[place] < last:
            start, stretch = self.starts[place], self.stretches[place]
            yield stretch.between(max(first - start, 0), min(last - start, len(stretch)))
            place += 1

    def counts(self, vocab_size: int, folder: str) -> NDArray[np.int64]:
        """How often each token occurs, (vocab_size,), see `Stretch.counts`."""
        total = np.zeros(vocab_size, np.int64)
        with progress("counting tokens, millions", len(self) // 10**6, lines=False) as report:
            for start, stretch in zip(self.starts, self.stretches, strict=False):
                total += stretch.counts(vocab_size, folder, partial(tell_millions, report, start))
        return total


def tell_millions(report: ReportProgress, before: int, done: int) -> None:
    """Show how many tokens were counted, `before` of them in other files."""
    report((before + done) // 10**6)


def too_large(file: str, place: int, token: int, vocab_size: int) -> ConfigError:
    """Why a file's tokens are not those of the tokenizer."""
    valid = f"its token {place:,} is {token}, and the tokenizer has {vocab_size:,}; say with which "
    valid += "it was made: tokenizer=pretrained tokenizer.path=DIR, or tokenizer=ids"
    return ConfigError("data.path", file, f"{valid} model.vocab_size=N")


def put_aside(tokens: Iterable[Tokens], file: BinaryIO) -> StoredTokens:
    """Write tokens of one kind to a file that is open to read and write; gives them from there."""
    kind, count, offset = "u1", 0, file.tell()
    for part in tokens:
        file.write(part.data)
        kind, count = part.dtype.str, count + len(part)
    file.flush()
    return StoredTokens([Stretch(file, stamp(os.fstat(file.fileno())), kind, offset, count)])
