"""The main job: train one model and record everything about it."""

import logging

import torch

from experiments.console import megabytes, say
from experiments.data import Corpus, load_corpus
from experiments.device import build_model, pick_device
from experiments.memory import (
    MB,
    PeakMeter,
    enough_memory,
    predict,
    warn_of_little_memory,
)
from experiments.recorder import Recorder
from experiments.resume import warn_of_other_versions
from experiments.runner import Outcome
from experiments.runners.generate import prompt_tokens, write_text
from experiments.runners.parameters import describe_model, record_parameters
from experiments.runs import is_stuck
from experiments.settings import Settings
from experiments.trainer import Diverged, Trainer
from gpt import ConfigError

log = logging.getLogger(__name__)


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Train, evaluate, measure; leaves every record of a run."""
    if not settings.model.causal:
        valid = "must be true for training, or the model sees what it is to predict"
        raise ConfigError("model.causal", settings.model.causal, valid)
    corpus = load_corpus(settings)
    prompt = prompt_tokens(settings.generate, corpus.tokenizer, corpus)
    warmup, steps = settings.schedule.warmup_steps, settings.trainer.steps
    if warmup >= steps:
        log.warning("all %d steps are warm-up (schedule.warmup_steps=%d)", steps, warmup)
    trainer = prepare(settings, recorder, corpus)
    outcome = run_trainer(trainer)
    if outcome.status == "finished":
        write_text(trainer.model, corpus.tokenizer, prompt, settings, recorder, outcome)
    return outcome


def prepare(settings: Settings, recorder: Recorder, corpus: Corpus) -> Trainer:
    """Model and trainer, with what is known before the first step recorded."""
    device = pick_device(settings.device)
    config = settings.model_config(corpus.tokenizer.vocab_size)
    predicted = predict(settings, config)
    warn_of_little_memory(device, predicted)
    recorder.open_wandb()
    meter = PeakMeter(device)
    torch.manual_seed(settings.seed)
    with enough_memory(predicted):
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
    announce(settings, corpus, parameters, device)
    trainer = Trainer(model, corpus, settings, recorder, device, meter, predicted)
    if recorder.checkpoint is not None:
        warn_of_other_versions(recorder.checkpoint)
        trainer.restore(recorder.checkpoint)
        recorder.checkpoint = None  # as large as the model and its optimizer
        say(f"goes on after step {trainer.done} of {settings.trainer.steps}")
    else:
        trainer.profile()
    return trainer


def announce(settings: Settings, corpus: Corpus, parameters: int, device: torch.device) -> None:
    """Say what is about to run."""
    say(
        f"{settings.norm.placement}, {settings.model.n_layers} blocks of width "
        f"{settings.model.emb_dim}, {parameters:,} parameters, init {settings.init.scheme}, "
        f"on {device}; {corpus.name}: {len(corpus.train):,} training tokens, "
        f"{corpus.tokenizer.vocab_size:,} in the vocabulary"
    )


def run_trainer(trainer: Trainer) -> Outcome:
    """Train; record how it ended, memory and the final figures."""
    outcome, recorder = Outcome(), trainer.recorder
    try:
        with enough_memory(trainer.predicted):
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
        "train loss": shown(trainer.train_loss),
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


def shown(value: float | None) -> str:
    """A loss in nats."""
    return "not measured" if value is None else f"{value:.3f} nats"
