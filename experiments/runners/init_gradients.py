"""Gradient norms at initialisation, over batches and seeds, without training."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from experiments.data.corpus import Corpus, load_corpus
from experiments.machine.console import print_table, progress
from experiments.machine.device import pick_device
from experiments.records.recorder import Recorder
from experiments.records.summary import BlockNorms, CorpusSummary
from experiments.runner import Outcome
from experiments.settings.identity import block_of_seeds
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from experiments.training.loss import language_model_loss
from experiments.training.setup import describe_model, print_setup, record_parameters
from gpt import GPT, ConfigError
from normscope.anatomy import AFTER, BEFORE, anatomy_of
from normscope.gradients import ParameterNorms
from normscope.stats import Row

SHOWN = ("block", *BEFORE, *AFTER)  # the rest is recorded


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Gradient norms per component, block and tensor: means over batches and seeds, and spread.

    grad_norm       the mean over batches of the norm of one batch's gradient
    grad_rms        the same of norm / sqrt(count)
    mean_grad_norm  the norm of the gradient averaged over the batches, which is what Figure 3 of
                    Xiong et al. 2020, arXiv 2002.04745, shows

    Each seed of `block_of_seeds` draws a model and its own batches. init_gradients.csv has every
    single value, without a batch where it is of all; gradients.csv at step 0 has the mean over
    seeds, and as `grad_norm_std` and so on the sample standard deviation over seeds (absent with
    one seed).
    """
    if settings.trainer.precision == "fp16":
        valid = "small gradients are 0 in it, and only training scales its loss"
        raise ConfigError("trainer.precision", "fp16", valid)
    options = settings.init_gradients
    seeds = block_of_seeds(settings.seed, options.seeds)
    device = pick_device(settings.device)
    corpus = load_corpus(settings)
    config = settings.model_config(corpus.tokenizer.vocab_size)
    single: list[dict[str, int | str | float | None]] = []
    means: dict[tuple[int, str, str], list[float]] = {}
    with progress("seeds", options.seeds) as report:
        for done, seed in enumerate(seeds, start=1):
            torch.manual_seed(seed)
            model = build_model(config, settings, device)
            if done == 1:
                recorder.summary.device = str(device)
                recorder.summary.corpus = CorpusSummary(**corpus.statistics())
                describe_model(recorder, config)
                print_setup(settings, corpus, record_parameters(model, recorder), device)
            norms = ParameterNorms(anatomy_of(model))
            batches, mean = norms.of_losses(losses(model, corpus, settings, seed, device))
            measured: dict[int | None, list[Row]] = {
                batch: norms.gradient_rows(vector, each=True)
                for batch, vector in enumerate(batches)
            }
            measured[None] = norms.rows(mean, "mean_grad_norm", each=True)
            of_seed: dict[tuple[int, str, str], list[float]] = {}
            for batch, rows in measured.items():
                for row in rows:
                    single.append({"seed": seed, "batch": batch, **row._asdict()})
                    of_seed.setdefault((row.layer, row.component, row.stat), []).append(row.value)
            for key, values in of_seed.items():
                means.setdefault(key, []).append(float(np.mean(values)))
            report(done)
    recorder.table("init_gradients", single)
    rows = [Row(*key, float(np.mean(values))) for key, values in means.items()]
    if options.seeds > 1:
        rows += [
            Row(layer, component, f"{stat}_std", float(np.std(values, ddof=1)))
            for (layer, component, stat), values in means.items()
        ]
    recorder.step(0, {}, rows)
    shown = {(row.layer, row.component, row.stat): row.value for row in rows}
    recorder.summary.seeds, recorder.summary.first_seed = options.seeds, seeds[0]
    recorder.summary.grad_norm.first_step = BlockNorms.from_rows(rows)
    print_table(
        f"Gradient norms at initialisation: {options.seeds} seeds x {options.batches} batches",
        [
            {
                "block": row.layer + 1 if 0 <= row.layer < config.n_layers else "",
                "component": row.component,
                "grad_norm": f"{row.value:.4g}",
                "std over seeds": f"{shown[row.layer, row.component, 'grad_norm_std']:.2g}"
                if options.seeds > 1
                else "",
                "of the mean": f"{shown[row.layer, row.component, 'mean_grad_norm']:.4g}",
                "grad_rms": f"{shown[row.layer, row.component, 'grad_rms']:.3g}",
            }
            for row in rows
            if row.stat == "grad_norm" and row.component in SHOWN
        ],
    )
    return Outcome()


def losses(
    model: GPT, corpus: Corpus, settings: Settings, seed: int, device: torch.device
) -> Iterator[Tensor]:
    """The loss of each batch; the first also sets what the placement sets from data."""
    for batch in range(settings.init_gradients.batches):
        windows = corpus.batch(seed, batch, settings.trainer.batch_size, settings.sequence_length)
        tokens, targets = (part.to(device) for part in windows)
        if batch == 0:
            model.profile(tokens)
        yield language_model_loss(model, tokens, targets, settings.trainer.precision)
