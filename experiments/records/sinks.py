"""The sinks of this project: where every record goes. A new one is added here, and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.records.csv_files import CsvSink
from experiments.records.sink import Sink
from experiments.records.wandb_run import WandbSink
from experiments.settings.schema import Settings

# In the order in which each record reaches them: what may be slow or fail comes last.
SINKS: list[type[Sink]] = [CsvSink, WandbSink]


def open_sinks(directory: Path, settings: Settings, records: Mapping[str, Any]) -> list[Sink]:
    """Those that the settings want, open; `records` is what a checkpoint kept of them."""
    return [sink(directory, settings, records) for sink in SINKS if sink.is_wanted(settings)]
