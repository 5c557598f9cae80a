"""What a config.json says: the words in which a family reads one, and writes one.

A name in it that nobody reads is refused unless it leaves the function as it is, or asks for
nothing (null, false, 0 or empty).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_args, get_origin, get_type_hints

from gpt.checks import Valid, check_value, valid_of
from gpt.config import GPTConfig
from gpt.registry import ConfigError

Values = Mapping[str, Any]
NEEDED = object()  # in the place of a default

# What files, training and generation have to know, and the function does not.
WITHOUT_EFFECT = frozenset(
    (
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "auto_map",
        "begin_suppress_tokens",
        "bos_token_id",
        "cache_implementation",
        "classifier_dropout",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "id2label",
        "init_std",
        "initializer_range",
        "label2id",
        "model_type",
        "output_past",
        "pad_token_id",
        "prefix",
        "pretraining_tp",
        "return_dict",
        "sep_token_id",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)

# Their activations in our names; the first of two that are one is written.
ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "relu2": "squared_relu",
    "quick_gelu": "quick_gelu",
}


class Entry(Protocol):
    """What some names of a config.json say of our config."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those in the file that it reads."""

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """Of our names those in the file that say the same or nearly, so that an error names it."""

    def read(self, values: Values) -> dict[str, Any]:
        """From the file's values those of ours, by name such as `attention.kv_heads`."""

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """From our config, in which nothing is left open, values of the file."""


def refused(name: str, value: object, valid: str) -> ConfigError:
    """The error of a value of the file."""
    return ConfigError(f"config.json: {name}", value, valid)


def value_of(values: Values, name: str, default: Any = NEEDED) -> Any:
    """What the file says under a name, or the default where it says nothing, or null."""
    value = values.get(name)
    if value is None and default is NEEDED:
        raise refused(name, value, "is needed")
    return default if value is None else value


def check_as(ours: str, name: str, value: object) -> None:
    """Raise ConfigError, under the file's name, unless our field, or one item of it, may hold this.

    ours  a name such as `attention.kv_heads`
    """
    kind: Any = GPTConfig
    *sections, last = ours.split(".")
    for section in sections:
        kind = get_type_hints(kind)[section]
    hint = get_type_hints(kind)[last]
    (field,) = (field for field in fields(kind) if field.name == last)
    hint = get_args(hint)[0] if get_origin(hint) is list else hint
    check_value(f"config.json: {name}", value, hint, valid_of(field))


def whole_of(values: Values, name: str, default: Any, at_least: int = 1) -> int:
    """What the file says under a name, or the default; ConfigError unless a whole number."""
    value: int = value_of(values, name, default)
    check_value(f"config.json: {name}", value, int, Valid(at_least=at_least))
    return value


def flag_of(values: Values, name: str) -> bool:
    """What the file says under a name, or false; ConfigError unless true or false."""
    value: bool = value_of(values, name, False)
    check_value(f"config.json: {name}", value, bool)
    return value


def table_of(values: Values, name: str, default: Values) -> Values:
    """The table under a name, or the default; ConfigError for what is none."""
    value: Values = value_of(values, name, default)
    if not isinstance(value, Mapping):
        raise refused(name, value, "must be a table of names and values")
    return value


def ours_of(config: GPTConfig, name: str) -> Any:
    """The value of ours under a name such as `attention.kv_heads`."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@dataclass(frozen=True)
class Same:
    """One value, theirs and ours.

    theirs   its name in the file
    ours     our names for it, such as `attention.kv_heads`
    default  where the file says nothing
    words    what we call theirs, where they have other words for it; the rest is refused
    """

    theirs: str
    ours: tuple[str, ...]
    default: Any = NEEDED
    words: Mapping[Any, Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See Entry."""
        return (self.theirs,)

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """See Entry."""
        return dict.fromkeys(self.ours, self.theirs)

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        value = value_of(values, self.theirs, self.default)
        if self.words is not None:
            if value not in [*self.words]:  # which may be anything
                raise refused(
                    self.theirs, value, f"must be one of {', '.join(map(str, self.words))}"
                )
            value = self.words[value]
        elif value is not self.default:
            check_as(self.ours[0], self.theirs, value)
        return dict.fromkeys(self.ours, value)

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """See Entry."""
        value = ours_of(config, self.ours[0])
        words = [word for word, ours in (self.words or {}).items() if ours == value]
        return {self.theirs: words[0] if words else value}


def same(theirs: str, *ours: str, default: Any = NEEDED, words: Any = None) -> Same:
    """See Same."""
    return Same(theirs, ours, default, words)


@dataclass(frozen=True)
class Only:
    """A value of which one is implemented, which is the default."""

    theirs: str
    value: Any

    @property
    def names(self) -> tuple[str, ...]:
        """See Entry."""
        return (self.theirs,)

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """See Entry."""
        return {}

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        given = value_of(values, self.theirs, self.value)
        if given != self.value:
            raise refused(self.theirs, given, f"must be {self.value!r}: no other is implemented")
        return {}

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """See Entry."""
        return {self.theirs: self.value}


@dataclass(frozen=True)
class Computed:
    """A value from which ours is computed, and theirs from our config; the rest as in Same.

    kind  a number above 0, or bool
    """

    theirs: str
    ours: str
    to_ours: Callable[[Any, Values], Any]
    to_theirs: Callable[[GPTConfig], Any]
    default: Any = NEEDED
    kind: type = float

    @property
    def names(self) -> tuple[str, ...]:
        """See Entry."""
        return (self.theirs,)

    @property
    def theirs_of(self) -> Mapping[str, str]:
        """See Entry."""
        return {self.ours: self.theirs}

    def read(self, values: Values) -> dict[str, Any]:
        """See Entry."""
        value = value_of(values, self.theirs, self.default)
        check_value(f"config.json: {self.theirs}", value, self.kind, Valid(above=0))
        return {self.ours: self.to_ours(value, values)}

    def write(self, config: GPTConfig) -> dict[str, Any]:
        """See Entry."""
        return {self.theirs: self.to_theirs(config)}


def check_names(values: Values, known: Collection[str]) -> None:
    """Raise ConfigError for a name that asks for something of which nobody knows."""
    if values.get("quantization_config"):
        valid = "quantised weights are not read; store them as bfloat16 or float32 first"
        raise refused("quantization_config", values["quantization_config"], valid)
    for name, value in values.items():
        if value and name not in known and name not in WITHOUT_EFFECT:
            raise refused(name, value, "is not implemented; it may be absent, null, false or 0")
