"""What a field of a description may hold, stated where the field stands, and checked in one place.

Each check raises a ConfigError that names the field as it is typed, its value and what is valid.
"""

import dataclasses
import functools
import math
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from gpt.registry import ConfigError, choice_hint


@dataclass(frozen=True)
class Valid:
    """What a field may hold beside its type.

    at_least, at_most  bounds of a number, inclusive
    above, below       bounds of a number, exclusive
    choices            names, or a table of them that may be filled later
    affects_results    whether another value can change what a run measures
    """

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    choices: Iterable[str] | None = None
    affects_results: bool = True
    newer: bool = False


ANYTHING = Valid()
FLAG_OR_NAME = bool | str
# The type of each field of a dataclass; to find it out takes longer than to check a value.
hints_of: Callable[[Any], Mapping[str, Any]] = functools.cache(get_type_hints)


def setting(
    default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING, **valid: Any
) -> Any:
    """A dataclass field whose bounds are stated: `setting(0.1, at_least=0.0)`, see Valid.

    factory  makes a default that can change, such as a dictionary; excludes `default`
    """
    metadata = {"valid": Valid(**valid)}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def valid_of(field: "dataclasses.Field[Any]") -> Valid:
    """What a field may hold; anything of its type where nothing is stated."""
    found: Valid = field.metadata.get("valid", ANYTHING)
    return found


def check_fields(description: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first field whose value is not of its type or out of its bounds.

    A field that is a dataclass is checked field by field, its name before theirs.

    prefix  before each field's name, such as `norm.`
    """
    hints = hints_of(type(description))
    for field in dataclasses.fields(description):
        name, value = prefix + field.name, getattr(description, field.name)
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{name}.")
        else:
            check_value(name, value, hints[field.name], valid_of(field))


def check_value(name: str, value: object, hint: Any, valid: Valid = ANYTHING) -> None:
    """Raise ConfigError unless `value` is of the type `hint` and `valid`.

    Names, numbers, lists of either and flags are checked, and flags that may be names, alone or
    `| None`; of other types nothing is known.
    """
    kind, optional = without_none(hint)
    if optional and value is None:
        return
    if kind in (int, float):
        fits = is_number(value, kind, valid)
    elif kind in (list[int], list[float]):
        (of,) = get_args(kind)
        fits = isinstance(value, list) and all(is_number(item, of, valid) for item in value)
    elif kind is str and valid.choices is not None:
        return check_choice(name, value, valid.choices)
    elif kind == list[str]:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if isinstance(value, list) and valid.choices is not None:
            for item in value:
                check_choice(name, item, valid.choices)
    elif kind == FLAG_OR_NAME:
        fits = isinstance(value, bool) or value in list(valid.choices or ())
    elif kind in (bool, str):
        fits = isinstance(value, kind)
    else:
        fits = not dataclasses.is_dataclass(kind)
    if not fits:
        raise ConfigError(name, value, f"must be {in_words(hint, valid)}")


def without_none(hint: Any) -> tuple[Any, bool]:
    """The type `hint` without `| None`, and whether it had that."""
    if get_origin(hint) not in (Union, types.UnionType) or type(None) not in get_args(hint):
        return hint, False
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return functools.reduce(operator.or_, kinds), True


def in_words(hint: Any, valid: Valid = ANYTHING) -> str:
    """What a field of the type `hint` may hold, such as `a finite number above 0, or null`."""
    kind, optional = without_none(hint)
    if kind in (int, float):
        words = ("a whole number" if kind is int else "a finite number") + bounds_in_words(valid)
    elif kind == FLAG_OR_NAME:
        words = ", ".join(["true", "false", *(valid.choices or ())])
    elif get_origin(kind) is dict:
        words = "names with their values"
    elif get_origin(kind) is list:
        items, example = {
            str: ("names", "[a,b]"),
            int: ("whole numbers", "[128,16]"),
            float: ("finite numbers", "[0.9,0.95]"),
        }[get_args(kind)[0]]
        words = f"a list of {items}{bounds_in_words(valid)}, such as {example}"
    else:
        names = {bool: "true or false", str: "a text"}
        words = names.get(kind) or f"a {getattr(kind, '__name__', kind)}"
    return words + (", or null" if optional else "")


def is_number(value: object, kind: type, valid: Valid) -> bool:
    """Whether `value` is a finite number of the kind, int or float, in bounds."""
    fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return bool(
        fits
        and -math.inf < value < math.inf  # type: ignore[operator]
        and valid.at_least <= value <= valid.at_most  # type: ignore[operator]
        and valid.above < value < valid.below  # type: ignore[operator]
    )


def bounds_in_words(valid: Valid) -> str:
    """The bounds as they stand in a message; empty without any."""
    low, high = valid.at_least, valid.at_most
    if math.isfinite(low) and math.isfinite(high):
        return f" in [{low:,}, {high:,}]"
    if math.isfinite(valid.above) and math.isfinite(valid.below):
        return f" strictly between {valid.above:,} and {valid.below:,}"
    words = (("of at least", low), ("of at most", high), ("above", valid.above))
    return "".join(f" {word} {bound:,}" for word, bound in words if math.isfinite(bound))


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise ConfigError with the nearest names unless `value` is one of `known`."""
    names = set(known)
    if not isinstance(value, str) or value not in names:
        raise ConfigError(name, value, choice_hint(value, names))
