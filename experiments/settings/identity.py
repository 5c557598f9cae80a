"""When two runs are the same: what can change a result, and its hash."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def result_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of nested settings, those that can change a result: not the logging, not the caches."""
    unheard = ("wandb", "sweep", "resume", "pictures")
    kept = {k: value for k, value in values.items() if k not in unheard}
    silent = {
        "data": {"cache_dir"},
        "claims": {"runs"},
        "trainer": {"checkpoint_every", "keep", "keep_best"},
    }
    for section, names in silent.items():
        if isinstance(kept.get(section), dict):
            kept[section] = {k: v for k, v in kept[section].items() if k not in names}
    return kept


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the nested settings that can change a result."""
    return hashlib.sha256(json.dumps(result_settings(values), sort_keys=True).encode()).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names and values; a list as its JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value
