"""What comes before and after the loop: model and trainer set up, the ending told."""

import logging

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
from experiments.training.loop import Diverged, Trainer
from experiments.training.memory import explain_out_of_memory, predict, warn_of_little_memory
from gpt import GPT, PLACEMENTS, GPTConfig
from gpt.init import init_gain
from normscope.anatomy import parameter_table

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
    recorder.open_wandb()
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
    trainer = Trainer(model, corpus, settings, recorder, device, meter, predicted)
    if recorder.checkpoint is not None:
        warn_of_other_versions(recorder.checkpoint)
        trainer.restore(recorder.checkpoint)
        recorder.checkpoint = None  # as large as the model and its optimizer
        print_line(f"goes on after step {trainer.done} of {settings.trainer.steps}")
    else:
        trainer.profile()
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
    outcome, recorder = Outcome(), trainer.recorder
    try:
        with explain_out_of_memory(trainer.predicted):
            trainer.run()
    except Diverged as diverged:
        outcome.status = "diverged"
        recorder.summary |= {"diverged_at_step": diverged.step, "reason": str(diverged)}
    recorder.table("memory", trainer.memory_table())
    summary = recorder.summary
    val_loss = list(trainer.val_losses.values())[-1]
    frequencies = summary["corpus"]["unigram_validation_loss"]
    counts = trainer.counts()
    summary |= {
        "steps": trainer.options.steps,
        "log_every": trainer.log_every,
        "train_loss": trainer.train_loss,
        "val_loss": val_loss,
        "initial_val_loss": trainer.val_losses[0],
        "stuck": outcome.status == "finished" and is_stuck(val_loss, frequencies),
        **counts,
        "training_seconds": round(trainer.training_seconds, 3),
        "tokens_per_s": trainer.tokens_per_s(),
        "peak_memory_mb": round(trainer.meter.highest() / MB, 1),
        "grad_norm": trainer.block_norms,
    }
    outcome.shown = {
        "train loss": format_loss(trainer.train_loss),
        "validation loss": f"{val_loss:.3f} nats (token frequencies alone: {frequencies:.3f})",
        "parameters": f"{summary['parameters']:,}",
        "peak memory, whole process": megabytes(trainer.meter.highest()),
    }
    if trainer.spikes:
        first = trainer.spike_steps[0]
        outcome.shown["loss spikes"] = f"{trainer.spikes}, the first at step {first}"
    if trainer.clipped:
        outcome.shown["clipped"] = f"{counts['clip_share']:.0%} of the steps"
    for when, blocks in trainer.block_norms.items():
        if blocks:
            outcome.shown[f"gradient norm, {when.replace('_', ' ')}"] = (
                f"first block {blocks['first_block']:.4g}, last block {blocks['last_block']:.4g}"
            )
    return outcome


def format_loss(value: float | None) -> str:
    """A loss in nats."""
    return "not measured" if value is None else f"{value:.3f} nats"
