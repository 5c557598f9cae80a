"""Gradient norms at initialisation, over batches and seeds, without training."""

import numpy as np
import torch

from experiments.console import progress, show_table
from experiments.data import load_corpus
from experiments.device import build_model, pick_device
from experiments.loss import language_model_loss
from experiments.probes import ParameterNorms
from experiments.recorder import Recorder, block_summary
from experiments.records import Row
from experiments.runner import RUNNERS, Outcome
from experiments.runners.parameters import describe_model, record_parameters
from experiments.runners.train import announce
from experiments.settings import Settings

PARTS_OF_A_BLOCK = ("attention", "feed_forward", "norm")  # recorded, not shown


@RUNNERS("init_gradients")
def init_gradients(settings: Settings, recorder: Recorder) -> Outcome:
    """Mean over seeds and batches, and spread over seeds, of each component's gradient norm.

    Seeds are seed, seed + 1, ...; each draws a model and its own batches. init_gradients.csv has
    every single value; gradients.csv at step 0 has `grad_norm` and `grad_rms`, the mean over
    seeds of the mean over batches, and `grad_norm_std` and `grad_rms_std`, the sample standard
    deviation over seeds of the mean over batches (absent with one seed).
    """
    options, trainer = settings.init_gradients, settings.trainer
    device = pick_device(settings.device)
    corpus = load_corpus(settings)
    config = settings.model_config(corpus.tokenizer.vocab_size)
    recorder.open_wandb()
    single: list[dict[str, int | str | float]] = []
    means: dict[tuple[int, str, str], list[float]] = {}
    with progress("seeds", options.seeds) as report:
        for done, seed in enumerate(range(settings.seed, settings.seed + options.seeds), start=1):
            torch.manual_seed(seed)
            model = build_model(config, settings, device)
            if done == 1:
                recorder.summary |= {"device": str(device), "corpus": corpus.statistics()}
                describe_model(recorder, config)
                announce(settings, corpus, record_parameters(model, recorder), device)
            norms = ParameterNorms(model)
            sums: dict[tuple[int, str, str], float] = {}
            for batch in range(options.batches):
                tokens, targets = corpus.batch(
                    seed, batch, trainer.batch_size, settings.sequence_length
                )
                if batch == 0:
                    model.profile(tokens.to(device))
                model.zero_grad(set_to_none=True)
                language_model_loss(
                    model, tokens.to(device), targets.to(device), trainer.precision
                ).backward()
                for layer, component, stat, value in norms.gradient_rows(
                    norms.gradients_on_host(norms.gradients())
                ):
                    key = (layer, component, stat)
                    sums[key] = sums.get(key, 0.0) + value / options.batches
                    single.append(
                        {
                            "seed": seed,
                            "batch": batch,
                            "layer": layer,
                            "component": component,
                            "stat": stat,
                            "value": value,
                        }
                    )
            for key, mean in sums.items():
                means.setdefault(key, []).append(mean)
            report(done)
    recorder.table("init_gradients", single)
    rows = [Row(*key, float(np.mean(values))) for key, values in means.items()]
    if options.seeds > 1:
        rows += [
            Row(layer, component, f"{stat}_std", float(np.std(values, ddof=1)))
            for (layer, component, stat), values in means.items()
        ]
    recorder.step(0, {}, rows)
    values = {(row.layer, row.component, row.stat): row.value for row in rows}
    recorder.summary["seeds"] = options.seeds
    recorder.summary["grad_norm"] = {"first_step": block_summary(rows)}
    show_table(
        f"Gradient norms at initialisation: {options.seeds} seeds x {options.batches} batches",
        [
            {
                "layer": row.layer,
                "component": row.component,
                "grad_norm": f"{row.value:.4g}",
                "std over seeds": f"{values[row.layer, row.component, 'grad_norm_std']:.2g}"
                if options.seeds > 1
                else "",
                "grad_rms": f"{values[row.layer, row.component, 'grad_rms']:.3g}",
            }
            for row in rows
            if row.stat == "grad_norm" and row.component not in PARTS_OF_A_BLOCK
        ],
    )
    return Outcome()
