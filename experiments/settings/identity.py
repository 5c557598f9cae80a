"""When two runs are the same: what can change a result, and its hash; and what they may draw."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from experiments.settings.schema import Settings
from experiments.settings.shards import SHARDS, shards_sha256
from experiments.settings.texts import text_sha256
from gpt import PLACEMENTS, ConfigError
from gpt.checks import hints_of, valid_of

SEEDS = 2**32  # PyTorch's generator on the CPU knows no more: it drops the higher bits of a seed

# What settings of version 0.4 are called now.
RENAMED = {
    "norm.fraction": "norm.options.fraction",
    "norm.embedding_norm": "norm.options.embedding_norm",
    "norm.scale_start": "norm.options.scale_start",
    "model.ff_ratio": "model.feed_forward.ratio",
    "model.causal": "model.attention.causal",
}


def result_settings(values: Mapping[str, Any], kind: Any = Settings) -> dict[str, Any]:
    """Of nested settings those that can change a result, as their fields state.

    Names that no field has are kept.
    """
    hints, kept = hints_of(kind), dict(values)
    for field in fields(kind):
        if field.name not in values:
            continue
        if not valid_of(field).affects_results:
            del kept[field.name]
        elif is_dataclass(hints[field.name]) and isinstance(values[field.name], dict):
            kept[field.name] = result_settings(values[field.name], hints[field.name])
    return kept


def defaults(kind: Any = Settings) -> dict[str, Any]:
    """Nested defaults of the settings that have one."""
    found: dict[str, Any] = {}
    for name, hint in hints_of(kind).items():
        if is_dataclass(hint):
            found[name] = defaults(hint)
    return found | {
        field.name: default_of(field)
        for field in fields(kind)
        if field.name not in found and default_of(field) is not MISSING
    }


def without_newer(values: Mapping[str, Any], kind: Any = Settings) -> dict[str, Any]:
    """Nested settings without those that are newer than recorded runs and at their default."""
    hints, own, kept = hints_of(kind), {field.name: field for field in fields(kind)}, {}
    for name, value in values.items():
        if name in own and is_dataclass(hints[name]) and isinstance(value, dict):
            inner = without_newer(value, hints[name])
            if inner or not value:
                kept[name] = inner
        elif name not in own or not (valid_of(own[name]).newer and value == default_of(own[name])):
            kept[name] = value
    return kept


def newer_options(norm: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the chosen placement that are newer than recorded runs, at their default."""
    placement = PLACEMENTS.get(norm.get("placement", ""))
    return {
        field.name: default_of(field)
        for field in (fields(placement.Options) if placement else ())
        if valid_of(field).newer
    }


def without_newer_options(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nested settings without the options that `newer_options` gives."""
    norm = values.get("norm")
    if not isinstance(norm, dict) or not norm.get("options"):
        return values
    usual = newer_options(norm).items()
    options = {name: v for name, v in norm["options"].items() if (name, v) not in usual}
    return {**values, "norm": {**norm, "options": options}}


def default_of(field: "Field[Any]") -> Any:
    """The default of a field; MISSING where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def by_content(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nested settings in which the sha256 of the text, or of the tokens, stands for its path.

    Runs on equal texts are the same, wherever these lie. A text that cannot be read keeps its path.
    """
    data = values.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("path"), str):
        return values
    try:
        return {**values, "data": {**data, "path": content_sha256(data, data["path"])}}
    except ConfigError:
        return values


def content_sha256(data: Mapping[str, Any], path: str) -> str:
    """sha256 of what lies at `path`: the text, or the tokens, whichever `data` names."""
    read = shards_sha256 if data.get("name") == SHARDS else text_sha256
    return read(path, data.get("cache_dir"))


def digest(values: Mapping[str, Any]) -> str:
    """sha256 of the nested settings that can change a result, the text by its content."""
    chosen = without_newer(without_newer_options(result_settings(by_content(values))))
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def block_of_seeds(seed: int, count: int) -> list[int]:
    """The seeds of a run that draws `count` models: seed * count + i, i = 0 .. count - 1.

    Runs of one count share none, whatever their `seed`, as long as the greatest and the least of
    these lie less than SEEDS / count - 1 apart: the seeds are taken modulo SEEDS.
    """
    return [(seed * count + i) % SEEDS for i in range(count)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names and values; a list as its JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, list) else value


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of this version or of 0.4, under the names of this version.

    An option that was null, as where the placement has none, is left out.
    """
    renamed = {name: dict(v) if isinstance(v, dict) else v for name, v in values.items()}
    for old, new in RENAMED.items():
        section, name = old.split(".")
        if isinstance(renamed.get(section), dict) and name in renamed[section]:
            value = renamed[section].pop(name)
            _, inner, leaf = new.split(".")
            if value is not None:
                renamed[section][inner] = {**renamed[section].get(inner, {}), leaf: value}
    return renamed
