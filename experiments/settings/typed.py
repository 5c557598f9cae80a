"""What is typed after `python run.py`, as Hydra must be given it, and back.

Hydra has a grammar of its own: it reads `1.10` as a number and `a,b` as a sweep, and refuses
`Don't`. A setting that is a text is taken letter by letter instead, so its value is put between
quotes before Hydra reads it, and they are taken away again from what is recorded and named.
"""

import argparse
import functools
import re
from collections.abc import Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import (
    CommonTokenStream,
    InputStream,
    OverrideLexer,
    OverrideParser,
    OverridesParser,
    create_functions,
)
from hydra.core.override_parser.overrides_visitor import HydraErrorListener, HydraOverrideVisitor
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import StringNode
from omegaconf.errors import OmegaConfBaseException

from experiments.settings.compose import meant_settings, setting_fields
from gpt import ConfigError
from gpt.checks import without_none

FIELDS = setting_fields() | setting_fields(HydraConf, "hydra.")
OVERRIDE = re.compile(r"(\+{0,2})([\w.]+)=(.*)", re.DOTALL)
FORM = "must have the form name=value"


class FormError(ValueError):
    """An argument of the command line that is neither an option nor name=value."""

    def __init__(self, argument: str, valid: str) -> None:
        super().__init__(f"{argument!r} is not valid: {valid}")


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra must be given it: options first, then overrides, texts quoted.

    Raises FormError or ConfigError for the first argument that cannot be meant.
    """
    for argument in arguments:
        if re.search("[\0\ud800-\udfff]", argument):
            raise FormError(argument, "must be UTF-8 without a NUL character")
    parser = get_args_parser()
    parser.exit_on_error = False
    check_options(arguments, parser)
    try:
        options, more = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise FormError(str(error.argument_name), error.message) from None
    overrides, others = [*options.overrides, *more], list(arguments)
    for position, override in enumerate(overrides):
        others.remove(override)
        check_form(overrides, position)
    sweep = options.multirun or "hydra.mode=MULTIRUN" in overrides
    return [*others, *(for_hydra(override, sweep) for override in overrides)]


def check_options(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raise FormError for the first argument that begins with a dash and is no option of Hydra."""
    known = [name for action in parser._actions for name in action.option_strings]
    for position, argument in enumerate(arguments):
        name = argument.split("=")[0]
        begun = [option for option in known if name.startswith("--") and option.startswith(name)]
        if argument.startswith("-") and name not in known and len(begun) != 1:
            raise FormError(argument, f"{FORM}{example(argument, arguments[position + 1 :])}")


def check_form(overrides: Sequence[str], position: int) -> None:
    """Raise FormError unless the override has the form name=value."""
    override, before = overrides[position], overrides[position - 1] if position else ""
    name, equals, _ = override.partition("=")
    if name.startswith("~"):
        if not name.startswith("~hydra"):
            raise FormError(override, "a setting can be given another value, and not be deleted")
        return
    if equals and name == name.strip():
        return
    if before.endswith("="):
        raise FormError(override, f"{FORM}, such as {before}{override}")
    shown = example(override, overrides[position + 1 :])
    if not shown and not equals and is_text(before):
        raise FormError(override, f"a text with spaces stands between quotes, as '{before} ...'")
    raise FormError(override, f"{FORM}{shown}")


def is_text(override: str) -> bool:
    """Whether an override is one of a setting that is a text."""
    match = OVERRIDE.fullmatch(override)
    return match is not None and without_none(FIELDS.get(match[2], (None,))[0])[0] is str


def example(argument: str, after: Sequence[str]) -> str:
    """How an argument such as `--norm post_ln` or `norm:post_ln` is written; empty if unknown."""
    words = [
        word for word in re.split(r"[=:\s]+", " ".join([argument.lstrip("-"), *after])) if word
    ]
    name = words[0].replace("-", "_") if words else ""
    meant = [name] if name in (*FIELDS, "experiment") else meant_settings(name)
    return f", such as {meant[0]}={(words[1:] or ['...'])[0]}" if meant else ""


class LetterByLetter(HydraOverrideVisitor):
    """Reads each single value in Hydra's grammar as the text that stands there.

    optional  whether null is no text
    """

    def __init__(self, optional: bool) -> None:
        super().__init__(create_functions())
        self.optional = optional

    def visitPrimitive(self, ctx: Any) -> Any:  # noqa: N802
        """The text between Hydra's own quotes, or as typed, spaces around it aside."""
        value = super().visitPrimitive(ctx)
        if isinstance(value, QuotedString):
            return value
        text = ctx.start.getInputStream().getText(ctx.start.start, ctx.stop.stop).strip(" \t")
        return None if self.optional and text == "null" else QuotedString(text, Quote.single)

    def visitFunction(self, ctx: Any) -> Any:  # noqa: N802
        """Functions such as range() count, and keep their numbers."""
        if ctx.ID().getText() in ("choice", "shuffle"):
            return super().visitFunction(ctx)
        return HydraOverrideVisitor(self.functions).visitFunction(ctx)


def parse(value: str, optional: bool) -> Override | None:
    """`value` in Hydra's grammar, letter by letter; None where that does not allow it."""
    listener = HydraErrorListener()
    lexer = OverrideLexer(InputStream(f"x={value}"))
    parser = OverrideParser(CommonTokenStream(lexer))
    for reader in (lexer, parser):
        reader.removeErrorListeners()
        reader.addErrorListener(listener)
    try:
        read: Override = LetterByLetter(optional).visit(parser.override())
    except (HydraException, RecursionError):
        return None
    return read


def for_hydra(argument: str, sweep: bool = False) -> str:
    """An override as Hydra must be given it to take texts letter by letter.

    sweep  whether commas between the values of a setting make a sweep, as with -m

    Raises ConfigError for a text that no setting can hold, and for a flag that is none.
    """
    match = OVERRIDE.fullmatch(argument)
    if match is None or match[2] not in FIELDS:
        return argument
    plus, name, value = match.groups()
    kind, optional = without_none(FIELDS[name][0])
    if kind is str:
        # Hydra cannot sweep over its own settings.
        value = text_for_hydra(name, value, optional, sweep and not name.startswith("hydra."))
    elif getattr(kind, "__args__", None) == (str,):
        value = list_for_hydra(name, value)
    elif kind is bool:
        check_flags(name, value, optional)
    return f"{plus}{name}={value}"


def text_for_hydra(name: str, value: str, optional: bool, sweep: bool) -> str:
    """The value of a text setting between quotes, or in a sweep each of its values.

    What is quoted as a whole stays: those quotes are Hydra's.
    """
    if optional and value == "null":
        return value
    begins_quoted = value.lstrip(" \t")[:1] in ("'", '"')
    read = parse(value, optional) if sweep or begins_quoted else None
    content = None if read is None else read.value()
    if sweep and isinstance(content, ChoiceSweep):
        assert read is not None
        return ",".join(map(quoted, checked_texts(name, read.sweep_iterator())))
    if begins_quoted and read is not None and isinstance(read._value, QuotedString):
        checked_texts(name, [content])
        return value
    return quoted(*checked_texts(name, [value]))


def list_for_hydra(name: str, value: str) -> str:
    """A list of texts, each between quotes; what is no list is left for Hydra to refuse."""
    read = parse(value, optional=False)
    lists: list[Any] = [value[1:-1].split(",") if value[:1] + value[-1:] == "[]" else value]
    if read is not None:
        content = read.value()
        lists = [*read.sweep_iterator()] if isinstance(content, ChoiceSweep) else [content]
    for texts in lists:
        if not isinstance(texts, list) or not all(isinstance(t, str | QuotedString) for t in texts):
            return value
    return ",".join(f"[{','.join(map(quoted, checked_texts(name, texts)))}]" for texts in lists)


def checked_texts(name: str, texts: Any) -> list[Any]:
    """The texts. Raises ConfigError for one that OmegaConf does not take as it stands."""
    texts = [text.text if isinstance(text, QuotedString) else text for text in texts]
    for text in texts:
        if text == "???":
            raise ConfigError(name, text, "??? stands for a value that is still missing")
        try:
            StringNode(text)
        except OmegaConfBaseException:
            valid = r"its ${ must begin a reference such as ${seed}; \${ stands for the characters"
            raise ConfigError(name, text, valid) from None
    return texts


def check_flags(name: str, value: str, optional: bool) -> None:
    """Raise ConfigError for a number other than 0 and 1, which OmegaConf takes as true."""
    for text in value.split(","):
        number = text.strip(" \t'\"")
        if re.fullmatch(r"[-+]?[\d_]+", number) and number not in ("0", "1"):
            or_null = ", or null" if optional else ""
            raise ConfigError(name, text, f"must be true or false{or_null}")


def quoted(text: str | None) -> str:
    """`text` between quotes as Hydra's grammar has them; null for None."""
    return "null" if text is None else QuotedString(text, Quote.single).with_quotes()


@functools.lru_cache(1000)  # the jobs of a sweep share most of theirs
def as_typed(override: str) -> str:
    """An override that Hydra was given, as it can be typed: texts without the quotes.

    They stay where the text would be read in another way without them.
    """
    match = OVERRIDE.fullmatch(override)
    if match is None or match[2] not in FIELDS:
        return override
    read = parse(match[3], optional=False)
    texts = None if read is None else read.value()
    if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        plain = f"[{','.join(texts)}]"
    elif read is not None and isinstance(read._value, QuotedString):
        plain = read._value.text
    else:
        return override
    plain = f"{match[1]}{match[2]}={plain}"
    try:
        return plain if same_value(for_hydra(plain), for_hydra(override)) else override
    except ConfigError:
        return override


def same_value(one: str, other: str) -> bool:
    """Whether Hydra reads the same value in two overrides."""
    parser = OverridesParser.create()
    return bool(parser.parse_override(one).value() == parser.parse_override(other).value())


def names_of(overrides: Sequence[str]) -> list[str]:
    """The settings that overrides set, in their order."""
    return [override.lstrip("+").split("=", 1)[0] for override in overrides]
