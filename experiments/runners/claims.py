"""Published claims, measured again, with verdicts by a rule that was stated before."""

from experiments.claims.board import run_board
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure the claims that the budget allows, or those of claims.only.

    claims.csv has a row per prediction, with its verdict; measurements.csv has every measured
    value; claims.html shows both, and claims.md is the scoreboard. Training runs are stored in
    claims.runs, where finished ones are found again.
    """
    return run_board(settings, recorder)
