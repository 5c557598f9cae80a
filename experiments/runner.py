"""What a runner is: settings in, records out; each has a file in experiments/runners."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from experiments.records.recorder import Recorder
from experiments.settings.schema import Settings

FOLDER = Path(__file__).parent / "runners"


@dataclass
class Outcome:
    """What a runner returns for the terminal, beside its records.

    status   finished or diverged
    results  names and values for the closing table
    prompt   what the model was given to continue
    sample   what it wrote
    closing  the line after these
    finding  what the numbers show, in one sentence; empty where they are those of a model's
             gradients or training, of which experiments/analysis/findings.py says it
    """

    status: str = "finished"
    results: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    sample: str = ""
    closing: str = ""
    finding: str = ""


Runner = Callable[[Settings, Recorder], Outcome]


def runner_names() -> list[str]:
    """Every runner: the names of the files in experiments/runners."""
    return sorted(module.name for module in pkgutil.iter_modules([str(FOLDER)]))


def find_runner(name: str) -> Runner:
    """The function `run` of experiments/runners/NAME.py, which is imported now.

    By name, since runners stand above all that launches them.
    """
    return cast(Runner, importlib.import_module(f"experiments.runners.{name}").run)
