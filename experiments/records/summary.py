"""summary.json: what a run was and how it ended."""

import json
import math
from pathlib import Path
from typing import Any

from experiments.machine.files import hide_home, write_atomically


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, whole or not at all."""
    text = json.dumps(as_json(hide_home(summary)), indent=2, allow_nan=False)
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
