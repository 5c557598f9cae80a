"""The book's small network: what a shortcut does to the gradient."""

import torch

from experiments.analysis.words import times_text
from experiments.machine.console import print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from gpt import DeepShortcutNet
from gpt.shortcut import mean_abs_gradients
from normscope.stats import Row

ARMS = {"without_shortcut": False, "with_shortcut": True}


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Mean absolute gradient of each layer's weight, without and with shortcuts.

    Input (1, 0, -1), target 0, mean squared error; both networks start from the same seed.
    Raschka, Build a Large Language Model (From Scratch), chapter 4.
    """
    gradients = {}
    for arm, on in ARMS.items():
        torch.manual_seed(settings.seed)
        net = DeepShortcutNet(shortcut=on, activation=settings.activation)
        gradients[arm] = mean_abs_gradients(net, torch.tensor([[1.0, 0.0, -1.0]]))
    table = [
        {"layer": layer, **{arm: gradients[arm][layer] for arm in ARMS}}
        for layer in range(len(gradients["with_shortcut"]))
    ]
    recorder.table("shortcut", table)
    recorder.step(
        0,
        {},
        [
            Row(layer, arm, "mean_abs_grad", value)
            for arm, values in gradients.items()
            for layer, value in enumerate(values)
        ],
    )
    print_table(
        "Mean absolute gradient of each layer's weight",
        [{k: f"{v:.3g}" if k in ARMS else v for k, v in row.items()} for row in table],
    )
    first = {arm: values[0] for arm, values in gradients.items()}
    ratio = first["with_shortcut"] / first["without_shortcut"]
    finding = f"without shortcuts the first layer gets {times_text(ratio)} less gradient than with"
    return Outcome(finding=finding)
