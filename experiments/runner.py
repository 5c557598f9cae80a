"""What a runner is: checked settings in, records out."""

from collections.abc import Callable
from dataclasses import dataclass, field

from experiments.recorder import Recorder
from experiments.settings import Settings
from gpt.registry import Registry


@dataclass
class Outcome:
    """What a runner has to tell beside its records.

    status  finished or diverged
    shown   names and values for the closing table
    prompt  what the model was given to continue
    sample  what it wrote
    """

    status: str = "finished"
    shown: dict[str, str] = field(default_factory=dict)
    prompt: str = ""
    sample: str = ""


RUNNERS: Registry[Callable[[Settings, Recorder], Outcome]] = Registry("runner")
