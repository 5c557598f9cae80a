"""Checks of single values; each raises a ConfigError that names the field as it was given."""

from collections.abc import Iterable

from gpt.registry import ConfigError, choice_hint


def check_whole(field: str, value: object, at_least: int, at_most: int | None = None) -> None:
    """Raise ConfigError unless `value` is an integer in [at_least, at_most]."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < at_least:  # type: ignore[operator]
        raise ConfigError(field, value, f"must be a whole number of at least {at_least}")
    if at_most is not None and value > at_most:  # type: ignore[operator]
        raise ConfigError(field, value, f"must be at most {at_most:,}")


def check_number(field: str, value: object, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless `value` is a finite number in [low, high]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high and value != float("inf")):  # type: ignore[operator]
        bounds = f"in [{low:g}, {high:g}]" if high < float("inf") else f"of at least {low:g}"
        raise ConfigError(field, value, f"must be a finite number {bounds}")


def check_flag(field: str, value: object) -> None:
    """Raise ConfigError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(field, value, "must be true or false")


def check_choice(field: str, value: object, known: Iterable[str]) -> None:
    """Raise ConfigError with the nearest names unless `value` is one of `known`."""
    names = set(known)
    if not isinstance(value, str) or value not in names:
        raise ConfigError(field, value, choice_hint(value, names))
