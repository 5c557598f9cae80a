"""One open run: its directory, its sinks and its summary."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.machine.files import write_atomically
from experiments.machine.versions import versions
from experiments.machine.world import ALONE, World
from experiments.records.csv_files import CsvSink
from experiments.records.sink import Metrics, Sink, Table
from experiments.records.summary import write_summary
from experiments.records.wandb_run import WandbSink
from experiments.settings.identity import digest, result_settings
from experiments.settings.schema import Settings
from normscope.stats import Row


class Recorder:
    """Everything that a runner records goes through here, to every sink alike.

    state  of the checkpoint from which the run goes on; its records after that are cut off
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
        self.csv = CsvSink(directory)
        self.sinks: list[Sink] = [self.csv] if world.is_first else []
        self.wandb_id: str | None = None
        self.resumed_at: list[int] = []
        self.checkpoint = state
        self.summary: dict[str, Any] = {
            "status": "running",
            "runner": settings.runner,
            "seed": settings.seed,
            "settings_sha256": digest(dataclasses.asdict(settings)),
            "settings": result_settings(dataclasses.asdict(settings)),
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
        if self.settings.wandb.mode != "disabled" and self.world.is_first:
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
        if self.world.is_first:
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
        if self.world.is_first:
            write_summary(self.directory, self.summary)


def block_summary(rows: Sequence[Row]) -> dict[str, float]:
    """Gradient norms of the first and the last block; empty for a model without blocks."""
    blocks = {r.layer: r.value for r in rows if (r.component, r.stat) == ("block", "grad_norm")}
    if not blocks:
        return {}
    return {"first_block": blocks[min(blocks)], "last_block": blocks[max(blocks)]}
