"""Compose the config and hand it to a runner: `python run.py norm=post_ln`."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # PyTorch takes seconds to load, in which Ctrl-C would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.jobs.launch import launch, launch_job, reject, wants_traceback
from experiments.machine.console import print_error, print_line, terminal
from experiments.machine.environment import environment
from experiments.machine.files import hide_home
from experiments.machine.signals import SIGNAL_EXIT_BASE, Interrupted, exit_code, handle_signals
from experiments.settings.compose import to_values
from experiments.settings.explain import CONF, check_chosen, commas_in_texts, explain_composition
from experiments.settings.typed import as_typed, hydra_arguments
from experiments.settings.weights import with_weights
from gpt import ConfigError

BAD_INPUT = 1
VARIABLES = {
    # Makes Hydra raise its errors instead of printing them, so that each becomes one line here.
    "HYDRA_FULL_ERROR": "1",
    # PyTorch's optimizers load its compiler, which makes its folder at once and fails where it
    # cannot. Any folder will do that is there: a run that compiles names its own.
    "TORCHINDUCTOR_CACHE_DIR": CONF,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Bad input gives one line on stderr."""
    with terminal(), environment(VARIABLES):
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
        values = with_weights(to_values(config), overrides)
    except ConfigError as error:
        return reject(directory, error)
    return launch(values, overrides, directory)


def run_sweep_job(config: DictConfig) -> int:
    """Run a job of a sweep; returns the exit code. In series a signal stops the whole sweep."""
    job = HydraConfig.get()
    in_series = job.launcher["_target_"].endswith("BasicLauncher")
    directory = Path(job.runtime.output_dir)
    # Jobs in parallel would draw their progress bars over each other.
    overrides = overrides_of(job)
    values = with_weights(to_values(config), overrides)
    code = launch_job(values, overrides, directory, bars=in_series)
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


if __name__ == "__main__":
    sys.exit(main())
