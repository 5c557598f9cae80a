"""One open run: its directory, its sinks and its summary."""

import dataclasses
import importlib.metadata
import json
import math
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from experiments.files import remove_unfinished, write_atomically
from experiments.records import Metrics, Row, Table
from experiments.settings import Settings, telling, without_home
from experiments.sinks import CsvSink, Sink, WandbSink
from gpt import ConfigError

PACKAGES = (
    "normscope",
    "torch",
    "hydra-core",
    "wandb",
    "tiktoken",
    "numpy",
    "pandas",
    "matplotlib",
)

LOCK, ASKED = ".lock", ".hydra"


class Busy(ConfigError):
    """Another process has the directory."""


class Recorder:
    """Everything that a runner records goes through here, to every sink alike.

    state  of the checkpoint from which the run goes on; its records after that are cut off
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        overrides: Sequence[str] = (),
        state: dict[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.started = time.monotonic()  # which no change of the clock touches
        self.tables: dict[str, Table] = {}
        self.csv = CsvSink(directory)
        self.sinks: list[Sink] = [self.csv]
        self.wandb_id: str | None = None
        self.resumed_at: list[int] = []
        self.checkpoint = state
        self.summary: dict[str, Any] = {
            "status": "running",
            "runner": settings.runner,
            "seed": settings.seed,
            "settings_sha256": settings.digest(),
            "settings": telling(dataclasses.asdict(settings)),
            "overrides": list(overrides),
        }
        if state is not None:
            records = state["records"]
            self.csv.resume(records["rows"])
            self.wandb_id = records["wandb_id"]
            self.started -= records["seconds"]
            self.resumed_at = [*records["resumed_at"], state["step"]]
            self.summary["resumed_at_steps"] = self.resumed_at
        self.write_summary()

    def open_wandb(self) -> None:
        """Start W&B, when it is wanted: late, so that a run refused early leaves none."""
        if self.settings.wandb.mode != "disabled":
            config = dataclasses.asdict(self.settings)
            settings = self.settings
            sink = WandbSink(settings.wandb, self.directory, settings.runner, config, self.wandb_id)
            self.sinks.append(sink)
            self.wandb_id = getattr(sink.run, "id", None)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the records: they are on the disk once this returns."""
        return {
            "rows": self.csv.sync(),
            "wandb_id": self.wandb_id,
            "seconds": time.monotonic() - self.started,
            "resumed_at": self.resumed_at,
        }

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row] = ()) -> None:
        """Record one step's single values and its values by layer."""
        for sink in self.sinks:
            sink.step(step, metrics, rows)

    def table(self, name: str, table: Table) -> None:
        """Record a whole table, as NAME.csv."""
        self.tables[name] = table
        for sink in self.sinks:
            sink.table(name, table)

    def text(self, name: str, text: str) -> None:
        """Record a text file."""
        write_atomically(self.directory / name, text.encode())

    def close(self, status: str, pictures: Sequence[Path], **more: Any) -> None:
        """End the run: summary, then every sink, whatever the status."""
        self.summary |= {
            "status": status,
            "seconds": round(time.monotonic() - self.started, 3),
            "versions": versions(),
            **more,
        }
        try:
            self.write_summary()
            self.csv.sync()
        finally:
            for sink in self.sinks:
                sink.finish(self.summary, pictures)

    def write_summary(self) -> None:
        write_summary(self.directory, self.summary)


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, whole or not at all."""
    text = json.dumps(as_json(without_home(summary)), indent=2, allow_nan=False)
    write_atomically(directory / "summary.json", f"{text}\n".encode())


def as_json(value: Any) -> Any:
    """`value` with each number that is not finite as a string, since JSON has none."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def block_summary(rows: Sequence[Row]) -> dict[str, float]:
    """Gradient norms of the first and the last block; empty for a model without blocks."""
    blocks = {r.layer: r.value for r in rows if (r.component, r.stat) == ("block", "grad_norm")}
    if not blocks:
        return {}
    return {"first_block": blocks[min(blocks)], "last_block": blocks[max(blocks)]}


def versions() -> dict[str, str]:
    """What computed the numbers."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        **packages,
        "torch": str(torch.__version__),  # with the kind of build
    }


@contextmanager
def claimed(directory: Path, new: bool = True) -> Iterator[None]:
    """Within: no other process runs in `directory`, and half-written files are gone from it.

    new  whether the directory must be empty

    Raises Busy while another process runs in it, ConfigError where it should be empty and is not.
    The lock ends with its process.
    """
    if new:
        refuse_content(directory)
    lock = FileLock(directory / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        name = "hydra.run.dir" if new else "resume"
        raise Busy(name, str(directory), "another process runs in it") from None
    try:
        if new:
            refuse_content(directory)
        remove_unfinished(directory)
        remove_unfinished(directory / ASKED)
        yield
    finally:
        lock.release()


def write_asked(directory: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write what was asked for into .hydra/, every value resolved.

    The config comes last: without it nothing has begun.
    """
    folder = directory / ASKED
    folder.mkdir(exist_ok=True)
    for name, content in (("overrides", list(overrides)), ("config", dict(values))):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(folder / f"{name}.yaml", text.encode())


def is_busy(directory: Path) -> bool:
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


def refuse_content(directory: Path) -> None:
    """Raise ConfigError for a directory in which anything has begun."""
    begun = (directory / ASKED / "config.yaml").exists()
    if any(begun or path.name not in (LOCK, ASKED) for path in directory.iterdir()):
        valid = "must be a new or empty directory; nothing in it was changed"
        raise ConfigError("hydra.run.dir", str(directory), valid)


def discard_run(directory: Path) -> None:
    """Remove what an earlier run left; a directory without a run stays as it is."""
    if not ((directory / "summary.json").is_file() or (directory / ASKED).is_dir()):
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
