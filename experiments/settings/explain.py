"""Why a command line cannot be run: one line with what was typed and what would be valid."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from experiments.machine.console import one_line
from experiments.settings.compose import setting_names, siblings, unknown_setting, wrong_value
from experiments.settings.typed import FIELDS, FORM, FormError, is_text, quoted
from gpt import ConfigError
from gpt.published import COUNTS_ALONE
from gpt.registry import choice_hint

CONF = str(Path(__file__).parents[2].resolve() / "conf")
EXTRAS = {"hydra/launcher=joblib": 'install it with pip install -e ".[joblib]". '}


def check_chosen(overrides: Sequence[str]) -> None:
    """Raise ConfigError for an option of a folder of conf/ that Hydra would not read as a name."""
    for override in overrides:
        name, _, value = override.partition("=")
        if options := options_of(name):
            with contextlib.suppress(HydraException):  # it is explained where Hydra composes
                read = OverridesParser.create().parse_override(override).value()
                chosen = read.list if isinstance(read, ChoiceSweep) else [read]
                if any(one is None or isinstance(one, int | float) or one == "" for one in chosen):
                    raise ConfigError(name, value, choice_hint(value, options))


def commas_in_texts(typed: Sequence[str], read: Sequence[str]) -> Iterator[str]:
    """A line for each text of a sweep whose commas could have been meant in another way."""
    for argument in typed if {"-m", "--multirun"} & set(typed) else ():
        name, _, value = argument.partition("=")
        if not is_text(argument) or "," not in value or argument in read:
            continue
        if f"{name}={quoted(value)}" in read:
            yield f"{argument!r} is one text; in a sweep put each between quotes: {name}='a','b'"
        elif ", " in value and not re.search("['\"]", value):
            yield f"{argument!r} is a sweep; one text stands between quotes: {name}={quoted(value)}"


def explain_composition(error: BaseException) -> str:
    """One line for an error in the command line or in a YAML file."""
    if isinstance(error, ConfigError | FormError):
        return one_line(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group == "model" and name in COUNTS_ALONE:
            valid = "counted by experiment=model_sizes and no more: it cannot be made or trained "
            valid += "here, where there is no multi-head latent attention"
            return one_line(ConfigError(group, name, valid))
        extra = EXTRAS.get(f"{group}={name}", "")
        return f"{group}={name!r} is not valid: {extra}{choice_hint(name, error.options)}"
    if isinstance(error, OverrideParseException):
        return explain_unreadable(error.override)
    absent = re.match(r"Could not override '(.*?)'", str(error))
    if absent and absent[1].startswith("hydra.launcher."):
        return f"{absent[1]!r} is not valid: of hydra/launcher=joblib, whose n_jobs run at once"
    if absent and absent[1].startswith("hydra."):
        known = [name for name in FIELDS if name.startswith("hydra.")]
        hint = choice_hint(absent[1], siblings(absent[1], known))
        return f"{absent[1]!r} is not valid: no such setting; {hint}"
    if absent and absent[1] not in setting_names():
        return f"{absent[1]!r} is not valid: {unknown_setting(absent[1])}"
    several = re.match(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)=(.*)'", str(error)
    )
    if several:
        return one_line(ConfigError(several[1], several[2], "one value, or with -m a run for each"))
    merged = re.match(r"Error merging override \+*([\w.]+)=(.*)", str(error), re.DOTALL)
    if merged and merged[1] in setting_names():
        return one_line(wrong_value(merged[1], merged[2]))
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename!r} is not valid: must be a directory"
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    lines = [str(cause).strip().splitlines()[0] for cause in causes if str(cause).strip()]
    if not isinstance(error, HydraException):  # the message does not name the override
        lines.append(f"in {' '.join(sys.argv[1:])}")
    return ": ".join(dict.fromkeys(lines)) or one_line(error)


def options_of(name: str) -> list[str]:
    """The options of a folder of conf/; none for any other name."""
    is_folder = re.fullmatch(r"(?!hydra$)\w+", name)
    return [path.stem for path in (Path(CONF) / name).glob("*.yaml")] if is_folder else []


def explain_unreadable(override: str) -> str:
    """One line for an override that does not fit Hydra's grammar; a text always does."""
    name, _, value = override.lstrip("+").partition("=")
    if options := options_of(name):
        return one_line(ConfigError(name, value, choice_hint(value, options)))
    if name in setting_names():
        return one_line(wrong_value(name, value))
    return f"{override!r} is not valid: {FORM}"
