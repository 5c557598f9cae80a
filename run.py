"""Compose the config and hand it to a runner: `python run.py norm=post_ln`."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # PyTorch takes seconds to load, in which Ctrl-C would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.jobs.launch import launch, launch_job, reject, wants_traceback
from experiments.machine.console import one_line, print_error, print_line, terminal
from experiments.machine.environment import environment
from experiments.machine.files import hide_home
from experiments.machine.signals import SIGNAL_EXIT_BASE, Interrupted, exit_code, handle_signals
from experiments.settings.compose import (
    setting_names,
    siblings,
    to_values,
    unknown_setting,
    wrong_value,
)
from experiments.settings.typed import (
    FIELDS,
    FORM,
    FormError,
    as_typed,
    hydra_arguments,
    is_text,
    quoted,
)
from gpt import ConfigError
from gpt.registry import choice_hint

BAD_INPUT = 1
EXTRAS = {"hydra/launcher=joblib": 'install it with pip install -e ".[joblib]". '}
CONF = str(Path(__file__).parent.resolve() / "conf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Bad input gives one line on stderr."""
    # Makes Hydra raise its errors instead of printing them, so that each becomes one line here.
    with terminal(), environment({"HYDRA_FULL_ERROR": "1"}):
        return run_command(sys.argv[1:] if arguments is None else arguments)


def run_command(arguments: Sequence[str]) -> int:
    """Compose the config and run what it says; returns the exit code."""
    exit_codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=CONF, config_name="config")
    def task(config: DictConfig) -> None:
        is_sweep_job = not OmegaConf.is_missing(HydraConfig.get().job, "num")
        exit_codes.append(run_sweep_job(config) if is_sweep_job else run_alone(config))

    before = sys.argv
    typed = [*map(expand_home, arguments)]
    try:
        sys.argv = [before[0], *hydra_arguments(typed)]
        check_chosen(typed)
        for note in commas_in_texts(typed, sys.argv):
            print_error(note)
        with handle_signals():
            task()
    except KeyboardInterrupt as error:
        return exit_code(error)
    except SystemExit as error:  # of --help and the like, or of a sweep with a failed job
        return int(error.code or 0)
    except Exception as error:  # anything that Hydra raises for a command line or a YAML file
        if wants_traceback():
            raise
        print_error(f"error: {explain_composition(error)}")
        return BAD_INPUT
    finally:
        sys.argv = before
    return max(exit_codes, default=0)


def run_alone(config: DictConfig) -> int:
    """Run or resume the one run of a command; returns the exit code."""
    job = HydraConfig.get()
    overrides, directory = overrides_of(job), Path(job.runtime.output_dir)
    overridden = {override.split("=", 1)[0]: override for override in overrides}
    for override in overrides:
        if override != (last := overridden[override.split("=", 1)[0]]):
            print_line(f"{override} is given again: {last} counts")
    if set(job.sweeper.get("params") or ()) - overridden.keys():
        print_error("this is one run of a grid; python run.py -m ... runs all of it")
    try:
        values = to_values(config)
    except ConfigError as error:
        return reject(directory, error)
    return launch(values, overrides, directory)


def run_sweep_job(config: DictConfig) -> int:
    """Run a job of a sweep; returns the exit code. In series a signal stops the whole sweep."""
    job = HydraConfig.get()
    in_series = job.launcher["_target_"].endswith("BasicLauncher")
    directory = Path(job.runtime.output_dir)
    # Jobs in parallel would draw their progress bars over each other.
    code = launch_job(to_values(config), overrides_of(job), directory, bars=in_series)
    if code > SIGNAL_EXIT_BASE and in_series:
        raise Interrupted(code - SIGNAL_EXIT_BASE)
    return code


def overrides_of(job: HydraConf) -> list[str]:
    """The overrides of a command or of a sweep's job, the home directory as ~."""
    overrides = OmegaConf.to_container(cast(ListConfig, job.overrides.task), resolve=False)
    return cast(list[str], hide_home([*map(as_typed, cast(list[str], overrides))]))


def expand_home(argument: str) -> str:
    """`name=~/...` with the home directory for ~, which shells replace only after a space."""
    return re.sub(r"^([^=]+=)~(?=/|$)", lambda match: match[1] + os.path.expanduser("~"), argument)


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
    if merged:
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


if __name__ == "__main__":
    sys.exit(main())
