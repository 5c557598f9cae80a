"""Published claims, measured again and judged by a rule that was stated before."""

from experiments.claims.measuring import measure_claims
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Measure the claims that the budget allows, or those named.

    claims.csv has a row per prediction, with its verdict; measurements.csv every measured value;
    claims.html shows both, and claims.md the scoreboard. Training runs are kept in `claims.runs`
    and skipped where they are there already.
    """
    return measure_claims(settings, recorder)
