"""A run's directory: its lock, and the config and overrides that the run was started with."""

import errno
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from experiments.machine.files import TEMPORARY, remove_temporary_files, write_atomically
from gpt import ConfigError

log = logging.getLogger(__name__)

LOCK, CONFIG_FOLDER = ".lock", ".hydra"
# What a file system without locks answers, as some of those in a network do.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class DirectoryInUse(ConfigError):
    """Another process runs in the directory."""


@contextmanager
def locked(directory: Path, new: bool = True) -> Iterator[None]:
    """Within: no other process runs in `directory`, and half-written files are gone from it.

    new  whether the directory must be empty

    Raises DirectoryInUse while another process runs in it, ConfigError where it should be empty
    and is not. The lock ends with its process. A file system without locks costs a warning.
    """
    if new:
        require_empty(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK, blocking=False)
    try:
        if has_locks(directory):
            lock.acquire()
    except Timeout:
        name = "hydra.run.dir" if new else "resume"
        raise DirectoryInUse(name, str(directory), "another process runs in it") from None
    try:
        if new:
            require_empty(directory)
        remove_temporary_files(directory)
        remove_temporary_files(directory / CONFIG_FOLDER)
        yield
    finally:
        lock.release()


lockable: dict[int, bool] = {}  # by the number of a file system, as far as one was asked


def has_locks(directory: Path) -> bool:
    """Whether files in `directory` can be locked; a warning, once, where they cannot."""
    number = directory.stat().st_dev
    if number not in lockable:
        lockable[number] = can_lock(directory)
        if not lockable[number]:
            log.warning(
                "the file system of %s has no locks: nothing keeps a second process out of a run's "
                "directory, nor two sweeps from running the same job at once",
                directory,
            )
    return lockable[number]


def can_lock(directory: Path) -> bool:
    """Whether a file in `directory` can be locked: tried with a new one, which nobody else has."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks are of another kind and always there
        return True
    try:
        with tempfile.TemporaryFile(dir=directory, prefix=".lock.", suffix=TEMPORARY) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # another one, as of a read-only directory, the lock itself will meet
        return error.errno not in NO_LOCKS
    return True


def write_config(directory: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write the config, every value resolved, and the overrides into .hydra/.

    The config comes last: a directory without it counts as one in which no run has begun.
    """
    folder = directory / CONFIG_FOLDER
    folder.mkdir(exist_ok=True)
    for name, content in (("overrides", list(overrides)), ("config", dict(values))):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(folder / f"{name}.yaml", text.encode())


def is_locked(directory: Path) -> bool:
    """Whether a process runs in `directory`."""
    if not (directory / LOCK).is_file() or not has_locks(directory):
        return False
    lock = FileLock(directory / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def require_empty(directory: Path) -> None:
    """Raise ConfigError for a directory in which anything has begun."""
    begun = (directory / CONFIG_FOLDER / "config.yaml").exists()
    if any(begun or path.name not in (LOCK, CONFIG_FOLDER) for path in directory.iterdir()):
        valid = "must be a new or empty directory; nothing in it was changed"
        raise ConfigError("hydra.run.dir", str(directory), valid)


def delete_run(directory: Path) -> None:
    """Remove what an earlier run left; a directory without a run stays as it is."""
    if not ((directory / "summary.json").is_file() or (directory / CONFIG_FOLDER).is_dir()):
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
