"""The user's own texts: read as UTF-8, and told apart by their content, wherever they lie."""

import codecs
import copy
import functools
import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Union

from experiments.machine.console import progress
from experiments.machine.files import typed_path
from experiments.machine.known import is_large, known, stamp
from gpt import ConfigError

MIB = 2**20
PIECE = MIB  # bytes of a text that are worked on at a time
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class TextFile:
    """One file of a long text, as bytes of which only the slice that is asked for is read.

    Without its byte order mark, and with `end` after it. Raises ConfigError where it cannot be
    read, or was changed since.
    """

    def __init__(self, path: Path, end: bytes) -> None:
        self.path, self.end = path, end
        try:
            with path.open("rb") as file:
                self.stamp = stamp(os.fstat(file.fileno()))
                marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        except (OSError, ValueError) as error:
            raise unreadable(str(path), error) from None
        self.start = len(codecs.BOM_UTF8) if marked else 0
        self.size = self.stamp[1] - self.start

    def __len__(self) -> int:
        return self.size + len(self.end)

    def __getitem__(self, asked: slice) -> bytes:
        start, stop, _ = asked.indices(len(self))
        try:
            with self.path.open("rb") as file:
                found = stamp(os.fstat(file.fileno()))
                file.seek(self.start + start)
                content = file.read(max(0, min(stop, self.size) - start))
        except OSError as error:
            raise unreadable(str(self.path), error) from None
        if found != self.stamp:
            raise changed(self.path)
        return content + self.end[: max(0, stop - self.size)]


class LongText:
    """A text that is too long for the memory, as bytes of which slices are read from its files."""

    def __init__(self, path: str, files: Sequence[Path]) -> None:
        self.path = path
        ends = [b"\n"] * (len(files) - 1) + [b""]
        self.files = [TextFile(file, end) for file, end in zip(files, ends, strict=True)]
        self.starts = [0, *accumulate(map(len, self.files))]
        self.report: Callable[[int], None] = lambda done: None

    def watched(self, report: Callable[[int], None]) -> "LongText":
        """The same text, which tells how far each slice reached."""
        same = copy.copy(self)
        same.report = report
        return same

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, asked: slice) -> bytes:
        start, stop, _ = asked.indices(len(self))
        found, place = [], max(0, bisect_right(self.starts, start) - 1)
        while place < len(self.files) and self.starts[place] < stop:
            before = self.starts[place]
            found.append(self.files[place][max(0, start - before) : stop - before])
            place += 1
        self.report(stop)
        return b"".join(found)

    def sha256(self, folder: str | None) -> str:
        """sha256 of the text, worked out once and kept in `folder`, if there is one.

        Raises ConfigError unless each file is UTF-8 and the whole more than white space.
        """
        files = [(str(file.path.absolute()), file.stamp) for file in self.files]
        answer: str = known(folder, "sha256 of a text", files, self._check)
        return answer

    def _check(self) -> str:
        digest, empty = hashlib.sha256(), True
        with progress("reading the text, MiB", len(self) // MIB, lines=False) as report:
            for file, start in zip(self.files, self.starts, strict=False):
                try:
                    for used, part, piece in decoded(file):
                        digest.update(part)
                        empty = empty and piece.isspace()
                        report((start + used) // MIB)
                except UnicodeDecodeError as error:
                    raise not_utf8(file.path, file[:4], error) from None
        if empty:
            raise no_text(self.path)
        return digest.hexdigest()


Text = Union[bytes, LongText]  # noqa: UP007


def decoded(text: Text | TextFile) -> Iterator[tuple[int, bytes, str]]:
    """How many bytes of a text were decoded, and the last of them as bytes and as characters.

    Raises UnicodeDecodeError, whose `start` counts from the beginning of the text.
    """
    start = 0
    while start < len(text):
        part = text[start : start + PIECE]
        try:
            piece, used = codecs.utf_8_decode(part, "strict", start + PIECE >= len(text))
        except UnicodeDecodeError as error:
            error.start += start
            raise
        start += used
        yield start, part[:used], piece


def pieces(text: Text) -> Iterator[str]:
    """A text in UTF-8, decoded in pieces of some 2^20 bytes that end between two characters.

    Decoded as a whole it would take up to four bytes a character. Raises UnicodeDecodeError, whose
    `start` counts from the beginning of the text.
    """
    return (piece for _, _, piece in decoded(text))


def open_text(path: str) -> Text:
    """The text at `path`, see `read_text`; one that is large stays on the disk.

    Whether a large one is UTF-8 is seen where it is read: `LongText.sha256` reads all of it.
    """
    files = files_of(path)
    try:
        size = sum(file.stat().st_size for file in files)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return LongText(path, files) if is_large(size) else read_text(path)


def sha256_of_text(text: Text, folder: str | None) -> str:
    """sha256 of a text in UTF-8. That of a long one is kept in `folder`."""
    return hashlib.sha256(text).hexdigest() if isinstance(text, bytes) else text.sha256(folder)


def read_text(path: str) -> bytes:
    """The UTF-8 of a file, or of all files of a folder and its subfolders in the order of their
    paths, with a line end between two of them.

    Hidden files and byte order marks at the start of a file are left out. Raises ConfigError where
    a file cannot be read as UTF-8, or the text is empty.
    """
    files = files_of(path)
    content = read_utf8(files[0]) if len(files) == 1 else b"\n".join(map(read_utf8, files))
    if all(piece.isspace() for piece in pieces(content)):
        raise no_text(path)
    return content


def files_of(path: str) -> list[Path]:
    """The files that make up a text: `path` itself, or those of the folder. Raises ConfigError."""
    place = typed_path(path)
    try:
        if not place.is_dir():
            return [place]
        return sorted(files_below(place))
    except (OSError, ValueError) as error:  # a folder that cannot be listed, or no name of a file
        raise unreadable(path, error) from None


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in `folder` and its subfolders that is not hidden. Links to folders are not
    followed, since they may form a circle."""

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and (file := Path(root, name)).is_file():
                yield file


def read_utf8(path: Path) -> bytes:
    """The content of one file without its byte order mark. Raises ConfigError unless it is UTF-8,
    or if it changes meanwhile."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise ConfigError("data.path", str(path), "must be a regular file or a folder")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            content = file.read()
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: its name has a null character
        raise unreadable(str(path), error) from None
    if stamp(before) != stamp(after):
        raise changed(path)
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        for _ in pieces(content):
            pass
    except UnicodeDecodeError as error:
        raise not_utf8(path, content, error) from None
    return content


def not_utf8(path: Path, content: bytes, error: UnicodeDecodeError) -> ConfigError:
    """Why a file is no text in UTF-8. Of its content the first bytes are looked at."""
    marked = (name for mark, name in OTHER_ENCODINGS.items() if content.startswith(mark))
    encoding = next(marked, None)
    found = f"it is {encoding}" if encoding else f"its byte {error.start} is not"
    return ConfigError("data.path", str(path), f"must be UTF-8 text; {found}")


def no_text(path: str) -> ConfigError:
    """Why a text of white space alone cannot be used."""
    return ConfigError("data.path", path, "must hold some text; it is empty")


def changed(path: Path) -> ConfigError:
    """Why a file cannot be used that is being written."""
    return ConfigError("data.path", str(path), "was changed while it was read; try again")


def unreadable(path: str, error: OSError | ValueError) -> ConfigError:
    """Why a file or folder cannot be read: `path`, or the one inside it that the error names."""
    if isinstance(error, OSError):
        return ConfigError("data.path", error.filename or path, f"cannot be read: {error.strerror}")
    return ConfigError("data.path", path, f"cannot be read: {error}")


def text_sha256(path: str, folder: str | None = None) -> str:
    """sha256 of the text at `path`; of a large one it is kept in `folder`, if there is one. Raises
    ConfigError where it cannot be read.

    A text whose files have not changed since the last call is not read again.
    """
    try:
        stamps = tuple((str(file), stamp(file.stat())) for file in files_of(path))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return sha256_of(path, stamps, folder)


@functools.lru_cache
def sha256_of(path: str, stamps: tuple[object, ...], folder: str | None) -> str:
    """sha256 of the text at `path`, whose files have these stamps."""
    return sha256_of_text(open_text(path), folder)
