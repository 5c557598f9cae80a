"""The user's own tokens: which files of a folder hold them, and what tells two sets apart."""

import functools
import hashlib
import json
from pathlib import Path

from experiments.machine.console import progress
from experiments.machine.files import typed_path
from experiments.machine.known import Stamp, known, stamp
from experiments.settings.texts import files_of, unreadable
from gpt import ConfigError

SHARDS = "tokens"  # data.name
ENDING = ".bin"
PARTS = ("train", "val")  # one of which a file's name must have in it, if any has

Files = dict[str, list[Path]]


def shards_of(path: str | None) -> Files:
    """The files with the tokens at `path`, by part, each part in the order of its paths.

    Where the names do not say both which are for training and which for validation, all files are
    one part under the empty name. Raises ConfigError.
    """
    if not path:
        valid = f"must name a folder with {ENDING} files of tokens, or one such file"
        raise ConfigError("data.path", path, valid)
    files = files_of(path)
    if files != [typed_path(path)]:
        files = [file for file in files if file.suffix == ENDING]
    if not files:
        raise ConfigError("data.path", path, f"must hold {ENDING} files of tokens; it has none")
    parts = {part: [file for file in files if part in file.name.lower()] for part in PARTS}
    if not all(parts.values()):
        return {"": files}
    for file in files:
        if sum(part in file.name.lower() for part in PARTS) != 1:
            valid = f"must be one of {' and '.join(PARTS)} by its name, as others of its folder are"
            raise ConfigError("data.path", str(file), valid)
    return parts


def stamp_of(file: Path) -> tuple[str, Stamp]:
    """A file's absolute path and its stamp. Raises ConfigError unless it is a regular file."""
    try:
        status = file.stat()
        if not file.is_file():
            raise ConfigError("data.path", str(file), "must be a regular file or a folder")
    except (OSError, ValueError) as error:
        raise unreadable(str(file), error) from None
    return str(file.absolute()), stamp(status)


def shards_sha256(path: str | None, folder: str | None) -> str:
    """sha256 of the parts at `path`: of the sha256 of each file, in its place. Raises ConfigError.

    That of each large file is worked out once and kept in `folder`, if there is one.
    """
    found = shards_of(path)
    stamps = {part: [stamp_of(file) for file in files] for part, files in found.items()}
    total = sum(size for files in stamps.values() for _, (_, size, _) in files)
    done, digests = 0, dict[str, list[str]]()
    with progress("reading the tokens, MiB", total >> 20, lines=False) as report:
        for part, files in stamps.items():
            digests[part] = []
            for name, file_stamp in files:
                digests[part].append(file_sha256(name, file_stamp, folder))
                done += file_stamp[1]
                report(done >> 20)
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


@functools.lru_cache(10_000)
def file_sha256(name: str, file_stamp: Stamp, folder: str | None) -> str:
    """sha256 of the file of this stamp. Raises ConfigError where it cannot be read, or changes."""

    def work_out() -> str:
        try:
            with open(name, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(name, error) from None

    answer: str = known(folder, "sha256 of a file", [(name, file_stamp)], work_out)
    if stamp_of(Path(name))[1] != file_stamp:
        raise ConfigError("data.path", name, "was changed while it was read; try again")
    return answer
