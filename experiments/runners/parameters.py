"""How many parameters, and how many bytes, without allocating them."""

import logging

import torch

from experiments.console import megabytes, show_table
from experiments.data import load_corpus
from experiments.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings import Settings
from gpt import GPT, PLACEMENTS, GPTConfig, parameter_table
from gpt.init import init_gain

log = logging.getLogger(__name__)

FLOAT32_BYTES, BF16_BYTES = 4, 2


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """The table of counts and bytes per layer and component, for any size."""
    room = settings.model.vocab_size
    vocab_size = load_corpus(settings).tokenizer.vocab_size if room is None else room
    config = settings.model_config(vocab_size)
    with torch.device("meta"):
        model = GPT(config)
    recorder.open_wandb()
    describe_model(recorder, config)
    total = record_parameters(model, recorder)
    components: dict[str, int] = {}
    for row in parameter_table(model):
        component = str(row["component"])
        components[component] = components.get(component, 0) + int(row["parameters"])
    show_table(
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
    return Outcome(shown={"parameters": f"{total:,}"})


def describe_model(recorder: Recorder, config: GPTConfig) -> None:
    """Put what the placement fixes into the summary, in the open."""
    placement = PLACEMENTS[config.placement]
    if config.init in placement.unfit_inits:
        log.warning("the paper of %s advises against init=%s", config.placement, config.init)
    recorder.summary |= {
        "placement": config.placement,
        **placement.fixes(config),
        "paper_final_norm": placement.final_norm,
        "paper_init": placement.init,
        "norm": config.norm,
        "shortcut": config.shortcut,
        "activation": config.activation,
        "init": config.init,
        "n_layers": config.n_layers,
        "emb_dim": config.emb_dim,
    }
    gain = init_gain(config.init, config.n_layers)
    if gain is not None:
        recorder.summary["init_gain"] = gain


def record_parameters(model: GPT, recorder: Recorder) -> int:
    """Record parameters.csv; returns the total, tied weights counted once."""
    rows = [
        {
            **row,
            "bytes": int(row["parameters"]) * model.head.weight.element_size(),
            "bytes_bf16": int(row["parameters"]) * BF16_BYTES,
        }
        for row in parameter_table(model)
    ]
    recorder.table("parameters", rows)
    total = sum(int(row["parameters"]) for row in rows)
    recorder.summary["parameters"] = total
    return total
