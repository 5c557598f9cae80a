"""The main job: train one model and record everything about it."""

import logging

from experiments.analysis.runs import NOT_FINITE
from experiments.data.corpus import load_corpus
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.setup import prepare, run_trainer
from experiments.training.text import prompt_tokens, write_sample
from gpt import ConfigError

log = logging.getLogger(__name__)


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Train, evaluate, measure; leaves every record of a run."""
    if not settings.model.attention.causal:
        valid = "must be true for training, or the model sees what it is to predict"
        raise ConfigError("model.attention.causal", settings.model.attention.causal, valid)
    corpus = load_corpus(settings)
    prompt = prompt_tokens(settings.generate, corpus.tokenizer, corpus)
    warmup, steps = settings.schedule.warmup_steps, settings.trainer.steps
    if warmup >= steps:
        log.warning("all %d steps are warm-up (schedule.warmup_steps=%d)", steps, warmup)
    trainer = prepare(settings, recorder, corpus)
    outcome = run_trainer(trainer)
    if recorder.summary.divergence != NOT_FINITE:
        model = trainer.engine.model
        sample = write_sample(model, corpus.tokenizer, prompt, settings, recorder)
        outcome.prompt, outcome.sample = sample.prompt, sample.continued
    return outcome
