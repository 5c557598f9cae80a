"""The activations and their derivatives, as curves."""

from collections.abc import Mapping

from experiments.analysis.words import join_words
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
    at = {(row["activation"], round(float(row["x"]), 2)): float(row["derivative"]) for row in table}
    print_table(
        "Derivative: what the gradient is multiplied by",
        [
            {"activation": name, **{f"x = {x:g}": f"{at[name, x]:.3f}" for x in SHOWN_AT}}
            for name in ACTIVATIONS
        ],
    )
    return Outcome(finding=finding_at(-2.0, {name: at[name, -2.0] for name in ACTIVATIONS}))


def finding_at(x: float, slopes: Mapping[str, float]) -> str:
    """What the activations let through of the gradient at an input, by their derivatives there."""
    none = [name for name, slope in slopes.items() if slope == 0]
    some = [slope for slope in slopes.values() if slope]
    passed = f"the others let {min(some):.2f} to {max(some):.2f} of it through"
    return f"at x = {x:g} {join_words(none)} stop the gradient; {passed}"
