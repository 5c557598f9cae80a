"""What a training step should take in memory, beside what it takes."""

from experiments.data.corpus import load_corpus
from experiments.machine.console import megabytes, print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.setup import prepare, run_trainer


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """A few training steps, for memory.csv: predicted against measured bytes."""
    outcome = run_trainer(prepare(settings, recorder, load_corpus(settings)))
    print_table(
        "Memory of one training step",
        [
            {
                "kind": row["kind"],
                "predicted": megabytes(row["predicted_bytes"]),  # type: ignore[arg-type]
                "measured": megabytes(row["measured_bytes"]),  # type: ignore[arg-type]
            }
            for row in recorder.tables["memory"]
        ],
    )
    return outcome
