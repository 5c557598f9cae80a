"""How many parameters, and how many bytes, without allocating them."""

import logging

import torch

from experiments.data.corpus import load_corpus
from experiments.machine.console import megabytes, print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.setup import BF16_BYTES, FLOAT32_BYTES, describe_model, record_parameters
from gpt import GPT
from normscope.anatomy import parameter_table

log = logging.getLogger(__name__)


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """The table of counts and bytes per layer and component, for any size."""
    vocab_size = settings.model.vocab_size
    if vocab_size is None:
        vocab_size = load_corpus(settings).tokenizer.vocab_size
    config = settings.model_config(vocab_size)
    with torch.device("meta"):
        model = GPT(config)
    describe_model(recorder, config)
    total = record_parameters(model, recorder)
    components: dict[str, int] = {}
    for row in parameter_table(model):
        component = str(row["component"])
        components[component] = components.get(component, 0) + int(row["parameters"])
    print_table(
        "Parameters by component",
        [
            {
                "component": component,
                "parameters": f"{count:,}",
                "share": f"{count / total:.1%}",
                "float32": megabytes(count * FLOAT32_BYTES),
                "bf16": megabytes(count * BF16_BYTES),
            }
            for component, count in [*components.items(), ("total", total)]
        ],
    )
    return Outcome(results={"parameters": f"{total:,}"})
