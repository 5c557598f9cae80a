"""What a training step should take in memory, beside what it takes."""

from collections.abc import Mapping, Sequence

from experiments.data.corpus import load_corpus
from experiments.machine.console import megabytes, print_table
from experiments.records.recorder import Recorder
from experiments.records.sink import Value
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
    outcome.finding = finding_of(recorder.tables["memory"])
    return outcome


def finding_of(rows: Sequence[Mapping[str, Value]]) -> str:
    """How near the prediction came, and what most of the memory is."""
    predicted = {str(row["kind"]): float(row["predicted_bytes"] or 0) for row in rows}
    peak = predicted.pop("peak")
    kind = max(predicted, key=lambda name: predicted[name])
    measured = {row["kind"]: row["measured_bytes"] for row in rows}["peak"]
    took = "" if measured is None else f" and took {megabytes(float(measured))}"
    text = f"a training step was predicted to take {megabytes(peak)}{took}"
    return f"{text}; {predicted[kind] / peak:.0%} of the prediction are {kind}"
