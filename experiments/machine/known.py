"""What was worked out about large files, kept on the disk until one of them changes."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.machine.console import one_line
from experiments.machine.files import typed_path, write_atomically

log = logging.getLogger(__name__)

LARGE = 2**26  # bytes; smaller files are read again each time
FRESH = 2.0  # seconds in which a file can change without its stamp: some file systems count twos

Stamp = tuple[int, int, int]


def stamp(status: os.stat_result) -> Stamp:
    """What changes when a file is written or replaced: its time, size and number."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_large(size: int) -> bool:
    """Whether so many bytes stay on the disk, and what is known about them is kept."""
    return size > LARGE


def known(
    folder: str | None,
    question: str,
    files: Sequence[tuple[str, Stamp]],
    work_out: Callable[[], Any],
) -> Any:
    """The answer to a question about files, which is plain JSON; of large ones kept in `folder`.

    folder    None: nothing is kept
    files     their absolute paths and stamps: an answer holds for files of these stamps alone
    work_out  the answer from the files' content; must raise if they change meanwhile

    What is kept and damaged is worked out again; what cannot be kept costs a warning. About a file
    that was written a moment ago nothing is kept.
    """
    if folder is None or not is_large(sum(size for _, (_, size, _) in files)):
        return work_out()
    name = hashlib.sha256(json.dumps([question, files]).encode()).hexdigest()[:32]
    path = typed_path(folder) / f"{name}.known"
    try:
        return _checked(path.read_bytes())
    except (OSError, ValueError):
        pass
    settled = time.time() - FRESH
    answer = work_out()
    if max(time_ns for _, (time_ns, _, _) in files) < settled * 1e9:
        content = json.dumps(answer).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        except OSError as error:
            log.warning("what was read will be read again the next time: %s", one_line(error))
    return answer


def _checked(stored: bytes) -> Any:
    """The answer in a file of `known`. Raises ValueError where it is no longer what was written."""
    digest, _, content = stored.partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its content does not match its hash")
    return json.loads(content)
