"""The book's small network: what a shortcut does to the gradient."""

from experiments.analysis.words import times_text
from experiments.lecture.parts import ARMS, shortcut_table
from experiments.machine.console import print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from normscope.stats import Row


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Mean absolute gradient of each layer's weight, without and with shortcuts."""
    table = shortcut_table(settings.seed, settings.activation)
    recorder.table("shortcut", table)
    recorder.step(
        0,
        {},
        [Row(int(row["layer"]), arm, "mean_abs_grad", row[arm]) for arm in ARMS for row in table],
    )
    print_table(
        "Mean absolute gradient of each layer's weight",
        [{k: f"{v:.3g}" if k in ARMS else v + 1 for k, v in row.items()} for row in table],
    )
    ratio = table[0]["with_shortcut"] / table[0]["without_shortcut"]
    finding = f"without shortcuts the first layer gets {times_text(ratio)} less gradient than with"
    return Outcome(finding=finding)
