"""Text from a prompt, by the model of a checkpoint or by an untrained one."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, fields

import torch

from experiments.data.corpus import load_corpus
from experiments.data.pretrained import PretrainedTokenizer
from experiments.data.tokenizer import Tokenizer
from experiments.machine.console import print_line, streamed
from experiments.machine.device import pick_device
from experiments.records.recorder import Recorder
from experiments.runner import Outcome
from experiments.settings.identity import flatten
from experiments.settings.schema import Settings
from experiments.settings.typed import names_of
from experiments.training.build import build_model, untrained_model
from experiments.training.checkpoint import load_model
from experiments.training.setup import describe_model
from experiments.training.text import prompt_tokens, write_sample
from gpt import GPT, Architecture, ConfigError, GPTConfig, parameter_count

log = logging.getLogger(__name__)


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """Continue `generate.prompt`, shown as it is written; leaves sample.txt."""
    options = settings.generate
    if options.prompt is None:
        raise ConfigError("generate.prompt", None, "must be the text to continue")
    device = pick_device(settings.device)
    recorder.summary.device = str(device)
    if options.checkpoint is None:
        model, tokenizer = untrained(settings, recorder, device)
    else:
        model, tokenizer = load_model(options.checkpoint, device)
        warn_of_other_model(settings, recorder.summary.overrides or (), model.config, tokenizer)
    prompt = prompt_tokens(options, tokenizer)
    with streamed() as show:
        sample = write_sample(model, tokenizer, prompt, settings, recorder, show)
    finding = "a trained model wrote this"
    if options.checkpoint is None and settings.model.weights is None:
        finding = "no training went into these words: the weights are as they were drawn"
    return Outcome(closing=sample.speed, finding=finding)


def untrained(
    settings: Settings, recorder: Recorder, device: torch.device
) -> tuple[GPT, Tokenizer]:
    """The model and the tokenizer that a run would begin with; says what its weights are."""
    weights, path = settings.model.weights, settings.tokenizer.path
    if weights is not None and path is not None:  # no text is needed
        tokenizer: Tokenizer = PretrainedTokenizer.read(path)
        model = build_model(settings.model_config(tokenizer.vocab_size), settings, device)
    else:
        corpus = load_corpus(settings)
        tokenizer, model = corpus.tokenizer, untrained_model(settings, corpus, device)
    config = model.config
    describe_model(recorder, config)
    what = "untrained, since there is no generate.checkpoint" if weights is None else weights
    print_line(
        f"{what}: {config.norm.placement}, "
        f"{config.n_layers} blocks of width {config.emb_dim}, {parameter_count(config):,} "
        f"parameters, init {config.init.scheme}, seed {settings.seed}"
    )
    return model, tokenizer


def warn_of_other_model(
    settings: Settings, overrides: Sequence[str], config: GPTConfig, tokenizer: Tokenizer
) -> None:
    """Say which of the command line's settings a checkpoint's model and tokenizer do not have."""
    sizes = {field.name for field in fields(Architecture)}
    held = {
        f"model.{name}" if name.split(".")[0] in sizes else name: value
        for name, value in flatten(asdict(config))
    } | {"tokenizer.name": tokenizer.name}
    typed = names_of(overrides)
    others = [
        f"{name}={value} (it has {held[name]})"
        for name, value in flatten(asdict(settings))
        if any(f"{name}.".startswith(f"{given}.") for given in typed)
        and value is not None
        and held.get(name, value) != value
    ]
    if others:
        log.warning("the checkpoint has a model of its own, not %s", ", ".join(others))
