"""How often a step is recorded, so that gradients.csv stays small."""

import math

from experiments.settings.schema import Settings
from normscope.stats import Row

GRADIENTS_CSV_LIMIT = 45e6  # bytes; leaves some below 50 MB
BYTES_OF_NUMBERS = 30  # in a row of gradients.csv: step, layer, value, commas, generously


def automatic_log_every(settings: Settings, logged: list[Row], probed: list[Row]) -> int:
    """1, or the smallest interval that keeps gradients.csv below its limit.

    Probes are written as often as the settings say; where they alone fill the file, the rest may
    take a tenth more.

    logged  the rows of a recorded step
    probed  those of a step that is probed, or of any where none is
    """
    steps, probe_every = settings.trainer.steps, settings.trainer.probe_every
    probes = steps / probe_every * csv_bytes(probed) if probe_every else 0.0
    left = max(GRADIENTS_CSV_LIMIT - probes, GRADIENTS_CSV_LIMIT / 10)
    return max(1, math.ceil(steps * csv_bytes(logged) / left))


def csv_bytes(rows: list[Row]) -> int:
    """At most what the rows take in gradients.csv."""
    return sum(BYTES_OF_NUMBERS + len(row.component) + len(row.stat) for row in rows)
