"""A run's directory: its lock, and the config and overrides that the run was started with."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from experiments.machine.files import remove_temporary_files, write_atomically
from gpt import ConfigError

LOCK, CONFIG_FOLDER = ".lock", ".hydra"


class DirectoryInUse(ConfigError):
    """Another process runs in the directory."""


@contextmanager
def locked(directory: Path, new: bool = True) -> Iterator[None]:
    """Within: no other process runs in `directory`, and half-written files are gone from it.

    new  whether the directory must be empty

    Raises DirectoryInUse while another process runs in it, ConfigError where it should be empty
    and is not. The lock ends with its process.
    """
    if new:
        require_empty(directory)
    lock = FileLock(directory / LOCK, blocking=False)
    try:
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
    if not (directory / LOCK).is_file():
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
