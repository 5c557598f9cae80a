"""The user's own texts: read as UTF-8, and told apart by their content, wherever they lie."""

import codecs
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from experiments.machine.files import typed_path
from gpt import ConfigError

PIECE = 2**20  # bytes of a text that are worked on at a time
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def pieces(text: bytes) -> Iterator[str]:
    """A text in UTF-8, decoded in pieces of some 2^20 bytes that end between two characters.

    Decoded as a whole it would take up to four bytes a character. Raises UnicodeDecodeError, whose
    `start` counts from the beginning of the text.
    """
    start = 0
    while start < len(text):
        part = text[start : start + PIECE]
        try:
            piece, used = codecs.utf_8_decode(part, "strict", start + PIECE >= len(text))
        except UnicodeDecodeError as error:
            error.start += start
            raise
        yield piece
        start += used


def read_text(path: str) -> bytes:
    """The UTF-8 of a file, or of all files of a folder and its subfolders in the order of their
    paths, with a line end between two of them.

    Hidden files and byte order marks at the start of a file are left out. Raises ConfigError where
    a file cannot be read as UTF-8, or the text is empty.
    """
    files = files_of(path)
    content = read_utf8(files[0]) if len(files) == 1 else b"\n".join(map(read_utf8, files))
    if all(piece.isspace() for piece in pieces(content)):
        raise ConfigError("data.path", path, "must hold some text; it is empty")
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
        raise ConfigError("data.path", str(path), "was changed while it was read; try again")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        for _ in pieces(content):
            pass
    except UnicodeDecodeError as error:
        marked = (name for mark, name in OTHER_ENCODINGS.items() if content.startswith(mark))
        encoding = next(marked, None)
        found = f"it is {encoding}" if encoding else f"its byte {error.start} is not"
        raise ConfigError("data.path", str(path), f"must be UTF-8 text; {found}") from None
    return content


def unreadable(path: str, error: OSError | ValueError) -> ConfigError:
    """Why a file or folder cannot be read: `path`, or the one inside it that the error names."""
    if isinstance(error, OSError):
        return ConfigError("data.path", error.filename or path, f"cannot be read: {error.strerror}")
    return ConfigError("data.path", path, f"cannot be read: {error}")


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is written or replaced."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def text_sha256(path: str) -> str:
    """sha256 of the text at `path`. Raises ConfigError where it cannot be read.

    A text whose files have not changed since the last call is not read again.
    """
    try:
        stamps = tuple((str(file), stamp(file.stat())) for file in files_of(path))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return sha256_of(path, stamps)


@functools.lru_cache
def sha256_of(path: str, stamps: tuple[object, ...]) -> str:
    """sha256 of the text at `path`, whose files have these stamps."""
    return hashlib.sha256(read_text(path)).hexdigest()
