"""Chapter 4 of the book, step by step: the notes' numbers beside those computed here."""

from experiments.lecture.lecture import give_lecture
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Compute every step; lecture.csv has a row per number, lecture.html shows them.

    A number that comes out otherwise, as under another PyTorch, is counted and fails nothing.
    """
    return give_lecture(settings, recorder)
