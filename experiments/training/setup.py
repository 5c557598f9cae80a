"""What comes before and after the loop: model and trainer set up, the outcome recorded."""

import logging
from typing import Any

import torch

from experiments.analysis.runs import is_stuck
from experiments.data.corpus import Corpus
from experiments.machine.console import megabytes, print_line
from experiments.machine.device import pick_device
from experiments.machine.memory import MB, PeakMeter
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from experiments.training.checkpoint import warn_of_other_versions
from experiments.training.engine import Engine
from experiments.training.loop import Diverged, Trainer
from experiments.training.memory import (
    StepMemory,
    explain_out_of_memory,
    predict,
    warn_of_little_memory,
)
from experiments.training.tally import Tally
from gpt import GPT, PLACEMENTS, GPTConfig, parameter_table
from gpt.init import init_gain

log = logging.getLogger(__name__)


FLOAT32_BYTES, BF16_BYTES = 4, 2


def describe_model(recorder: Recorder, config: GPTConfig) -> None:
    """Put what the placement fixes into the summary, in the open."""
    placement = PLACEMENTS[config.norm.placement]
    name, scheme = config.norm.placement, config.init.scheme
    if scheme in placement.unfit_inits:
        log.warning("the paper of %s advises against init=%s", name, scheme)
    recorder.summary |= {
        "placement": name,
        **placement.fixes(config),
        "paper_final_norm": placement.final_norm,
        "paper_init": placement.init,
        "norm": config.norm.kind,
        "shortcut": config.shortcut,
        "activation": config.activation,
        "init": scheme,
        "n_layers": config.n_layers,
        "emb_dim": config.emb_dim,
    }
    gain = init_gain(scheme, config.n_layers)
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


def prepare(settings: Settings, recorder: Recorder, corpus: Corpus) -> Trainer:
    """Model and trainer, with what is known before the first step recorded."""
    device = pick_device(settings.device)
    config = settings.model_config(corpus.tokenizer.vocab_size)
    predicted = predict(settings, config)
    warn_of_little_memory(device, predicted)
    recorder.open()  # or what the sinks load would count as the model's memory
    meter = PeakMeter(device)
    torch.manual_seed(settings.seed)
    with explain_out_of_memory(predicted):
        model = build_model(config, settings, device)
    recorder.summary |= {
        "device": str(device),
        "corpus": corpus.statistics(),
        "optimizer": settings.optimizer.name,
        "lr": settings.optimizer.lr,
        "warmup_steps": settings.schedule.warmup_steps,
    }
    describe_model(recorder, config)
    parameters = record_parameters(model, recorder)
    recorder.write_summary()
    print_setup(settings, corpus, parameters, device)
    state = recorder.checkpoint
    if state is None:
        tally = Tally(log_every=settings.trainer.log_every)
    else:
        tally = Tally.from_state(state["progress"])
    memory = StepMemory(meter, predicted, tally.measured_bytes)
    engine = Engine(model, corpus, settings, device, memory, recorder.world)
    trainer = Trainer(engine, recorder, tally)
    if state is None:
        engine.profile()
        return trainer
    warn_of_other_versions(state)
    trainer.restore(state)
    recorder.checkpoint = None  # as large as the model and its optimizer
    print_line(f"goes on after step {trainer.done} of {settings.trainer.steps}")
    return trainer


def print_setup(settings: Settings, corpus: Corpus, parameters: int, device: torch.device) -> None:
    """Say what is about to run."""
    print_line(
        f"{settings.norm.placement}, {settings.model.n_layers} blocks of width "
        f"{settings.model.emb_dim}, {parameters:,} parameters, init {settings.init.scheme}, "
        f"on {device}; {corpus.name}: {len(corpus.train):,} training tokens, "
        f"{corpus.tokenizer.vocab_size:,} in the vocabulary"
    )


def run_trainer(trainer: Trainer) -> Outcome:
    """Train; record how it ended, memory and the final figures."""
    outcome, recorder, memory = Outcome(), trainer.recorder, trainer.engine.memory
    try:
        with explain_out_of_memory(memory.predicted):
            trainer.run()
    except Diverged as diverged:
        outcome.status = "diverged"
        recorder.summary |= {"diverged_at_step": diverged.step, "reason": str(diverged)}
    recorder.table("memory", memory.table())
    recorder.summary |= final_figures(trainer, outcome.status == "finished")
    outcome.results = closing_table(trainer)
    return outcome


def final_figures(trainer: Trainer, finished: bool) -> dict[str, Any]:
    """What the summary says of a run once it has ended."""
    tally, options = trainer.tally, trainer.options
    val_loss = list(tally.val_losses.values())[-1]
    frequencies = trainer.recorder.summary["corpus"]["unigram_validation_loss"]
    figures = {
        "steps": options.steps,
        "log_every": tally.log_every,
        "train_loss": tally.train_loss,
        "val_loss": val_loss,
        "initial_val_loss": tally.val_losses[0],
        "stuck": finished and is_stuck(val_loss, frequencies),
        "tokens": tally.checked_steps * trainer.engine.step_tokens,
        "spikes": tally.spikes,
        "spike_steps": tally.spike_steps,
    }
    if options.clip is not None and tally.clip_share is not None:
        figures["clip_share"] = tally.clip_share
    return figures | {
        "training_seconds": round(tally.training_seconds, 3),
        "tokens_per_s": tally.mean_speed(trainer.engine.step_tokens),
        "peak_memory_mb": round(trainer.engine.memory.meter.highest() / MB, 1),
        "grad_norm": tally.block_norms,
    }


def closing_table(trainer: Trainer) -> dict[str, str]:
    """Names and values that a person reads when a run has ended."""
    tally, summary = trainer.tally, trainer.recorder.summary
    frequencies = summary["corpus"]["unigram_validation_loss"]
    results = {
        "train loss": format_loss(tally.train_loss),
        "validation loss": f"{summary['val_loss']:.3f} nats "
        f"(token frequencies alone: {frequencies:.3f})",
        "parameters": f"{summary['parameters']:,}",
        "peak memory, whole process": megabytes(trainer.engine.memory.meter.highest()),
    }
    if tally.spikes:
        results["loss spikes"] = f"{tally.spikes}, the first at step {tally.spike_steps[0]}"
    if tally.clipped:
        results["clipped"] = f"{tally.clip_share:.0%} of the steps"
    for when, blocks in tally.block_norms.items():
        if blocks:
            results[f"gradient norm, {when.replace('_', ' ')}"] = (
                f"first block {blocks['first_block']:.4g}, last block {blocks['last_block']:.4g}"
            )
    return results


def format_loss(value: float | None) -> str:
    """A loss in nats."""
    return "not measured" if value is None else f"{value:.3f} nats"
