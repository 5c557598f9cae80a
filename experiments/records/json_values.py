"""Dataclasses as the values of a JSON file, and back from files that may come from anybody."""

import dataclasses
import math
from types import NoneType
from typing import Any, get_args, get_origin

from experiments.machine.console import printable
from gpt.checks import hints_of

WHOLE_LIMIT = 2**63  # a whole number beyond it is nothing that a run has counted


def measured_values(section: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested, without those that are None and sections of only such."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            value = measured_values(value) or None
        if value is not None:
            values[item.name] = value
    return values


def as_json(value: Any) -> Any:
    """`value` with each number that is not finite as a string, since JSON has none."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def escape_strings(value: Any) -> Any:
    """`value` with control characters in its words as escapes."""
    if isinstance(value, dict):
        return {escape_strings(key): escape_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape_strings(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def read_section(kind: type, values: Any) -> Any:
    """A dataclass from the dictionary of a JSON file, sections within it, too.

    A value that is not of its field's type counts as absent, and so does what is no dictionary.
    """
    given = values if isinstance(values, dict) else {}
    types = hints_of(kind)
    read = {
        name: read_section(types[name], given.get(name))
        if dataclasses.is_dataclass(types[name])
        else read_field(types[name], given.get(name))
        for name in types
    }
    return kind(**read)


def read_field(kind: Any, value: Any) -> Any:
    """`value` if it is of the type `kind`, of which None is a part; else None.

    Of lists and dictionaries, the entries that are of their type.
    """
    (kind,) = set(get_args(kind)) - {NoneType}
    parts = get_args(kind)
    if get_origin(kind) is list:
        return [v for v in value if fits(parts[0], v)] if isinstance(value, list) else None
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            return None
        return {key: v for key, v in value.items() if fits(parts[1], v)}
    if kind is float and value in ("nan", "inf", "-inf"):
        return float(value)
    return value if fits(kind, value) else None


def fits(kind: Any, value: Any) -> bool:
    """Whether a value from JSON is of a plain type; a whole number is a float, too."""
    if kind in (int, float) and type(value) is int:
        return abs(value) < WHOLE_LIMIT
    return kind is Any or type(value) is kind
