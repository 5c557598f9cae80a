"""Named choices: one table per kind of choice, filled where each choice is written."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A value that cannot be used: names the field, the value, and what would be valid."""

    def __init__(self, field: str, value: object, valid: str) -> None:
        self.field, self.value, self.valid = field, value, valid
        super().__init__(f"{field}={value!r} is not valid: {valid}")


def choice_hint(value: object, known: Iterable[str]) -> str:
    """What could have been meant by `value`: the nearest of `known`, then all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}Choose from: {', '.join(names)}"


class Registry(dict[str, T], Generic[T]):
    """Maps names to choices of one kind; an unknown name is a `ConfigError` with the near ones."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field = field

    def __call__(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a class or function under `name`."""

        def enter(choice: T) -> T:
            self[name] = choice
            return choice

        return enter

    def __missing__(self, name: str) -> Any:
        raise ConfigError(self.field, name, choice_hint(name, self))


# The tables stand below all that fills them, so that a description of a model can be checked
# without the parts it names; importing the package `gpt` fills them.
PLACEMENTS: Registry[Any] = Registry("norm.placement")  # subclasses of gpt.block.Block
NORMS: Registry[Any] = Registry("norm.kind")  # module classes, made from (width, eps)
ACTIVATIONS: Registry[Callable[[Any], Any]] = Registry("activation")  # elementwise
POSITIONS: Registry[Any] = Registry("position.kind")  # see gpt.position
INITS: Registry[Callable[[Any, Any], None]] = Registry("init.scheme")  # (weights, config): redraw
