"""How many parameters, how many bytes, and what a token costs, without allocating anything."""

from typing import cast

from experiments.data.corpus import load_corpus
from experiments.machine.console import megabytes, print_table
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.setup import (
    BF16_BYTES,
    FLOAT32_BYTES,
    describe_model,
    four_bit_bytes,
    record_parameters,
)
from gpt import GPTConfig, cached_values
from gpt.count import attention_flops_per_token, meta_model


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """The table of counts and bytes per layer and component, for any size."""
    vocab_size = settings.model.vocab_size
    if vocab_size is None:
        vocab_size = load_corpus(settings).tokenizer.vocab_size
    config = settings.model_config(vocab_size)
    describe_model(recorder, config)
    total = record_parameters(meta_model(config), recorder)
    counts: dict[str, tuple[int, int]] = {}
    for row in recorder.tables["parameters"]:
        component = str(row["component"])
        parameters, active = counts.get(component, (0, 0))
        parameters += cast(int, row["parameters"])
        counts[component] = parameters, active + cast(int, row["active"])
    totals = total, recorder.summary.active_parameters or 0
    print_table(
        "Parameters by component",
        [
            {
                "component": component,
                "parameters": f"{count:,}",
                "share": f"{count / total:.1%}",
                "active": f"{met:,}",
                "float32": megabytes(count * FLOAT32_BYTES),
                "bf16": megabytes(count * BF16_BYTES),
                "4 bits": megabytes(four_bit_bytes(count)),
            }
            for component, (count, met) in [*counts.items(), ("total", totals)]
        ],
    )
    results = {"parameters": f"{total:,}", "active, of one token": f"{totals[1]:,}"}
    results |= costs_of(config, recorder.summary.flops_per_token or 0.0)
    largest = max(counts, key=lambda component: counts[component][0])
    finding = (
        f"of {total:,} parameters, {megabytes(total * FLOAT32_BYTES)} in float32, the largest "
        f"share is that of the {largest.replace('_', ' ')}, {counts[largest][0] / total:.0%}"
    )
    return Outcome(results=results, finding=finding)


def costs_of(config: GPTConfig, flops: float) -> dict[str, str]:
    """What a token costs, in words; `flops` of its forward pass: see gpt/count.py."""
    length, each = config.context_length, cached_values(config, 1) * BF16_BYTES
    windows = sum(config.window(layer) > 0 for layer in range(config.n_layers))
    kept = f"{each:,} bytes in bf16"
    if windows:
        growing = each * (config.n_layers - windows) // config.n_layers
        kept += f", {growing:,} beyond the windows of {windows} layers"
    of_attention = attention_flops_per_token(config)
    return {
        "keys and values per token": kept,
        f"those of {length:,} tokens": megabytes(cached_values(config) * BF16_BYTES),
        "forward pass per token": f"{flops / 1e9:,.4g} GFLOPs in a text of {length:,} tokens, "
        f"{(flops - of_attention) / 1e9:,.4g} of matrices and {of_attention / 1e9:,.4g} of "
        "attention",
    }
