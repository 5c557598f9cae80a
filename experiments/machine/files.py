"""Files that are written whole or not at all, and their names."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

NAME_BYTES = 80  # of `safe_file_name`
TEMPORARY = ".tmp"  # ending of the name of a file while it is being written


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write to `path` so that readers see the old file or the whole new one, never a part.

    After the block the content survives a crash of the machine.
    """
    descriptor, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY
    )
    try:
        with in_hand(descriptor):
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                # The content must be on the disk before the name points to it: after a power cut
                # some file systems would otherwise show the new name with an empty file.
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp lets only the owner read
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


@contextmanager
def in_hand(descriptor: int) -> Iterator[None]:
    """Within: an open file is locked, closed or not, where there are locks of this kind."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            fcntl.flock(kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def sync_directory(directory: Path) -> None:
    """Put the names in `directory` on the disk, where the system can do so.

    A rename is only safe from a crash once the directory itself was synced.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_file(path) as file:
        file.write(content)


def remove_temporary_files(directory: Path) -> None:
    """Remove what killed writers left behind. No other process may be writing there."""
    for path in directory.glob(f".*{TEMPORARY}"):
        path.unlink()


def remove_abandoned_files(directory: Path) -> None:
    """Remove what killed writers left behind, and leave what living ones are writing.

    Those have a lock on it, see `in_hand`. An empty file may be about to be locked, and takes no
    room; where locks cannot tell everything stays.
    """
    for path in directory.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(ImportError, OSError), path.open("r+b") as file:
            import fcntl

            if os.fstat(file.fileno()).st_size:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def line_end_offset(path: Path, count: int) -> int:
    """Offset in bytes of the end of line number `count`. ValueError for a file with fewer."""
    with path.open("rb") as file:
        for number in range(count):
            if not file.readline().endswith(b"\n"):
                raise ValueError(f"{path.name} has {number} whole lines, not {count}")
        return file.tell()


def safe_file_name(text: str) -> str:
    """`text` as part of a file name: letters, digits, dot, dash and underscore, 80 bytes at most.

    Some file systems allow no more than 143 bytes, and letters may take four each.
    """
    name = re.sub(r"[^\w.-]+|^\.+", "_", text)
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


def typed_path(text: str) -> Path:
    """The path of a setting. ~ is the home directory, or where there is none a plain name."""
    return Path(os.path.expanduser(text))


def home_directory() -> str:
    """The user's home directory; empty where there is none, or none of the user's own.

    A container's user may have no entry in the system's list, and no HOME.
    """
    try:
        home = str(Path.home())
    except RuntimeError:
        return ""
    return home if len(home) > 1 else ""


def hide_home(value: Any) -> Any:
    """Nested `value` with ~ for the home directory, so that records do not name the user."""
    home = home_directory()
    place = re.compile(rf"(?<![\w/.-]){re.escape(home)}(?=/|$)")

    def hidden(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hidden(item) for key, item in value.items()}
        if isinstance(value, list):
            return [hidden(item) for item in value]
        return place.sub("~", value) if home and isinstance(value, str) else value

    return hidden(value)
