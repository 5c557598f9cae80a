"""One open run: its directory, its sinks and its summary."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.machine.files import write_atomically
from experiments.machine.versions import versions
from experiments.machine.world import ALONE, World
from experiments.records.sink import Metrics, Sink, Table
from experiments.records.sinks import open_sinks
from experiments.records.summary import Summary
from experiments.settings.identity import digest, result_settings
from experiments.settings.schema import Settings
from normscope.mixing import MixingRow
from normscope.stats import Row


class Recorder:
    """Everything that a runner records goes through here, to every sink alike.

    The sinks open at the first record, so that a run that is refused before it leaves none.

    state  of the checkpoint from which the run continues; records after that are cut off
    world  of the process; only its first process writes
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        overrides: Sequence[str] = (),
        state: dict[str, Any] | None = None,
        world: World = ALONE,
    ) -> None:
        self.directory, self.world = directory, world
        self.settings = settings
        self.started = time.monotonic()  # which no change of the clock touches
        self.tables: dict[str, Table] = {}
        self.sinks: list[Sink] | None = None  # until the first record
        self.stored: dict[str, Any] = {}  # what the checkpoint kept of the records
        self.resumed_at: list[int] = []
        self.checkpoint = state
        self.summary = Summary(
            status="running",
            runner=settings.runner,
            seed=settings.seed,
            settings_sha256=digest(dataclasses.asdict(settings)),
            settings=result_settings(dataclasses.asdict(settings)),
            overrides=list(overrides),
        )
        if state is not None:
            self.stored = state["records"]
            self.started -= self.stored["seconds"]
            self.resumed_at = [*self.stored["resumed_at"], state["step"]]
            self.summary.resumed_at_steps = self.resumed_at
        self.write_summary()

    def open(self) -> list[Sink]:
        """The sinks, opened at the first call.

        Called before the first record where memory is measured: what a sink loads is not the
        model's.
        """
        if self.sinks is None:
            first = self.world.is_first
            self.sinks = open_sinks(self.directory, self.settings, self.stored) if first else []
        return self.sinks

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the records: they are on the disk once this returns."""
        state = dict(self.stored)  # also of a sink that this run leaves out, and a later one has
        for sink in self.open():
            state |= sink.state()
        seconds = time.monotonic() - self.started
        return state | {"seconds": seconds, "resumed_at": self.resumed_at}

    def step(self, step: int, metrics: Metrics, rows: Sequence[Row] = ()) -> None:
        """Record one step's single values and its values by layer."""
        for sink in self.open():
            sink.step(step, metrics, rows)

    def mixing(self, step: int, rows: Sequence[MixingRow]) -> None:
        """Record how much of the stream each sublayer wrote."""
        for sink in self.open():
            sink.mixing(step, rows)

    def table(self, name: str, table: Table) -> None:
        """Record a whole table, as NAME.csv."""
        self.tables[name] = table
        for sink in self.open():
            sink.table(name, table)

    def text(self, name: str, text: str) -> None:
        """Record a text file."""
        self.open()
        if self.world.is_first:
            write_atomically(self.directory / name, text.encode())

    def close(self, status: str, pictures: Sequence[Path], error: str | None = None) -> None:
        """End the run: summary, then every sink, whatever the status."""
        self.summary.status, self.summary.error = status, error
        self.summary.seconds = round(time.monotonic() - self.started, 3)
        self.summary.versions = versions(self.summary.device)
        with contextlib.ExitStack() as stack:  # which calls each, whatever the others raise
            for sink in reversed(self.sinks or []):
                stack.callback(sink.finish, self.summary, pictures)
            self.write_summary()

    def write_summary(self) -> None:
        if self.world.is_first:
            self.summary.write(self.directory)
