"""The activations and their derivatives, as curves."""

from experiments.lecture.parts import activation_table
from experiments.machine.console import print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from gpt import ACTIVATIONS

SHOWN_AT = (-2.0, -0.5, 0.0, 0.5, 2.0)


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Value and derivative of every activation: what the gradient is multiplied by."""
    table = activation_table()
    recorder.table("activations", table)
    at = {(row["activation"], round(float(row["x"] or 0.0), 2)): row["derivative"] for row in table}
    print_table(
        "Derivative: what the gradient is multiplied by",
        [
            {"activation": name, **{f"x = {x:g}": f"{at[name, x]:.3f}" for x in SHOWN_AT}}
            for name in ACTIVATIONS
        ],
    )
    return Outcome()
