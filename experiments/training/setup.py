"""What comes before and after the loop: model and trainer set up, the outcome recorded."""

import logging
from collections import Counter
from dataclasses import asdict
from typing import cast

import torch

from experiments.analysis.runs import LOSS_ROSE, NOT_FINITE, describe_rise, is_stuck, loss_rose
from experiments.data.corpus import Corpus
from experiments.machine.console import megabytes, print_line
from experiments.machine.device import pick_device
from experiments.machine.memory import PeakMeter, in_mb
from experiments.records.recorder import Recorder
from experiments.records.summary import CorpusSummary
from experiments.runner import Outcome
from experiments.settings.schema import Settings
from experiments.training.build import build_model, profile_model
from experiments.training.checkpoint import warn_of_other_versions
from experiments.training.disk import check_room
from experiments.training.engine import Engine
from experiments.training.loop import Diverged, Trainer
from experiments.training.loss import uniform_loss
from experiments.training.memory import (
    StepMemory,
    explain_out_of_memory,
    predict,
    warn_of_little_memory,
)
from experiments.training.precision import faster_precision
from experiments.training.tally import Tally
from gpt import GPT, PLACEMENTS, GPTConfig
from gpt.count import cached_values, flops_per_token_of, is_of_experts, met_parameters
from gpt.init import embedding_std, init_gain
from normscope.anatomy import Place, anatomy_of

log = logging.getLogger(__name__)


FLOAT32_BYTES, BF16_BYTES = 4, 2


def describe_model(recorder: Recorder, config: GPTConfig) -> None:
    """Put the model into the summary, and what its placement fixes."""
    placement = config.placement
    name, scheme = config.norm.placement, config.init.scheme
    for kind in placement.kinds(config):
        if scheme in PLACEMENTS[kind].unfit_inits:
            log.warning("the paper of %s advises against init=%s", kind, scheme)
    warn_of_absent_kinds(config)
    summary, fixed = recorder.summary, dict(placement.fixes(config))
    summary.placement = name
    summary.final_norm, summary.qk_norm = bool(fixed.pop("final_norm")), bool(fixed.pop("qk_norm"))
    summary.other = fixed
    summary.paper_final_norm = placement.paper_final_norm(config)
    summary.paper_init = placement.init
    summary.norm, summary.shortcut = config.norm.kind, config.shortcut
    summary.activation, summary.init = config.activation, scheme
    summary.embedding_std = embedding_std(config)
    summary.n_layers, summary.emb_dim = config.n_layers, config.emb_dim
    summary.init_gain = init_gain(scheme, config.n_layers)


def warn_of_absent_kinds(config: GPTConfig) -> None:
    """Say which kinds of blocks a placement that mixes several has no block of."""
    placement = config.placement
    names = placement.absent_kinds(config) if config.n_layers else []
    if names:
        options = [f"norm.options.{n}={v}" for n, v in asdict(placement.options(config)).items()]
        log.warning(
            "none of the %d blocks of norm=%s is %s (%s)",
            config.n_layers,
            config.norm.placement,
            " or ".join(names),
            ", ".join([f"model.n_layers={config.n_layers}", *options]),
        )


def record_parameters(model: GPT, recorder: Recorder) -> int:
    """Record parameters.csv, and what a token costs; returns the total, tied weights once."""
    config, summary = model.config, recorder.summary
    recorder.table("parameters", parameter_rows(model))
    rows = recorder.tables["parameters"]
    summary.parameters = sum(cast(int, row["parameters"]) for row in rows)
    summary.active_parameters = sum(cast(int, row["active"]) for row in rows)
    summary.ff_dim = config.ff_dim
    summary.flops_per_token = flops_per_token_of(model)
    summary.cache_bytes = cached_values(config) * BF16_BYTES
    return summary.parameters


def parameter_rows(model: GPT) -> list[dict[str, int | str]]:
    """The rows of parameters.csv, by layer and component."""
    met, counts = met_parameters(model), Counter[tuple[int, str]]()
    active = Counter[tuple[int, str]]()
    for place in anatomy_of(model).places():
        key = place.layer, component_of(place, model.config)
        counts[key] += place.parameter.numel()
        active[key] += met[place.name]
    return [
        {
            "layer": key[0],
            "component": key[1],
            "parameters": count,
            "bytes": count * model.head.weight.element_size(),
            "bytes_bf16": count * BF16_BYTES,
            "active": active[key],
            "bytes_4bit": four_bit_bytes(count),
        }
        for key, count in counts.items()
    ]


def component_of(place: Place, config: GPTConfig) -> str:
    """The component of a parameter, of a mixture of experts its experts apart from its router."""
    if place.component != "feed_forward" or not config.experts.count:
        return place.component
    return "experts" if is_of_experts(place.name) else "router"


def four_bit_bytes(count: int) -> int:
    """Bytes of as many numbers of four bits; the scales that they share are not counted."""
    return -(-count // 2)


def prepare(settings: Settings, recorder: Recorder, corpus: Corpus) -> Trainer:
    """Model and trainer, at the start or at the checkpoint from which the run continues."""
    device = pick_device(settings.device)
    config = settings.model_config(corpus.tokenizer.vocab_size)
    predicted = predict(settings, config)
    warn_of_little_memory(device, predicted)
    check_room(settings, recorder.directory, predicted["parameters"] + predicted["optimizer"])
    recorder.open()  # or what the sinks load would count as the model's memory
    meter = PeakMeter(device)
    torch.manual_seed(settings.seed)
    with explain_out_of_memory(predicted):
        model = build_model(config, settings, device, recorder.checkpoint is not None)
    describe_setup(model, settings, recorder, corpus, device)
    if hint := faster_precision(settings.trainer.precision, config, device):
        print_line(hint)
    state = recorder.checkpoint
    if state is None:
        tally = Tally(log_every=settings.trainer.log_every)
    else:
        tally = Tally.from_state(state["progress"])
    memory = StepMemory(meter, predicted, tally.measured_bytes)
    engine = Engine(model, corpus, settings, device, memory, recorder.world)
    trainer = Trainer(engine, recorder, tally)
    if state is None:
        profile_model(model, corpus, settings)
    else:
        warn_of_other_versions(state, str(device))
        trainer.restore(state)
        recorder.checkpoint = None  # as large as the model and its optimizer
        print_line(f"continues after step {trainer.done} of {settings.trainer.steps}")
    return trainer


def describe_setup(
    model: GPT, settings: Settings, recorder: Recorder, corpus: Corpus, device: torch.device
) -> None:
    """Record and print what is known before the first step."""
    summary = recorder.summary
    summary.device, summary.corpus = str(device), CorpusSummary(**corpus.statistics())
    summary.optimizer, summary.lr = settings.optimizer.name, settings.optimizer.lr
    summary.warmup_steps = settings.schedule.warmup_steps
    describe_model(recorder, model.config)
    parameters = record_parameters(model, recorder)
    recorder.write_summary()
    print_setup(settings, corpus, parameters, device)


def print_setup(settings: Settings, corpus: Corpus, parameters: int, device: torch.device) -> None:
    """Print what is about to run."""
    weights = settings.model.weights
    origin = f"weights of {weights}" if weights else f"init {settings.init.scheme}"
    print_line(
        f"{settings.norm.placement}, {settings.model.n_layers} blocks of width "
        f"{settings.model.emb_dim}, {parameters:,} parameters, {origin}, "
        f"on {device}; {corpus.name}: {len(corpus.train):,} training tokens, "
        f"{corpus.tokenizer.vocab_size:,} in the vocabulary"
    )


def run_trainer(trainer: Trainer) -> Outcome:
    """Train; record how it ended, memory and the final figures."""
    outcome, recorder, memory = Outcome(), trainer.recorder, trainer.engine.memory
    summary = recorder.summary
    try:
        with explain_out_of_memory(memory.predicted):
            trainer.run()
    except Diverged as diverged:
        summary.divergence, summary.reason = NOT_FINITE, str(diverged)
        summary.diverged_at_step = diverged.step
    recorder.table("memory", memory.table())
    summarise(trainer)
    outcome.status = "diverged" if summary.divergence else "finished"
    outcome.results = closing_table(trainer)
    return outcome


def summarise(trainer: Trainer) -> None:
    """Put into the summary what is known once a run has ended."""
    summary, tally, engine = trainer.recorder.summary, trainer.tally, trainer.engine
    summary.steps, summary.log_every = trainer.options.steps, tally.log_every
    summary.train_loss, summary.initial_val_loss = tally.train_loss, tally.val_losses[0]
    summary.val_loss = list(tally.val_losses.values())[-1]
    summary.val_bits_per_byte = engine.bits_per_byte(summary.val_loss)
    summary.uniform_loss = uniform_loss(engine.model)
    if summary.divergence is None and loss_rose(summary.initial_val_loss, summary.val_loss):
        summary.divergence, summary.reason = LOSS_ROSE, describe_rise(summary)
    frequencies = summary.corpus.unigram_validation_loss
    summary.stuck = not summary.divergence and is_stuck(summary.val_loss, frequencies)
    summary.tokens = tally.checked_steps * engine.step_tokens
    summary.spikes, summary.spike_steps = tally.spikes, tally.spike_steps
    summary.clip_share = None if trainer.options.clip is None else tally.clip_share
    summary.training_seconds = round(tally.training_seconds, 3)
    summary.tokens_per_s = tally.mean_speed(engine.step_tokens)
    peak = in_mb(engine.memory.meter.highest())
    summary.peak_memory_mb = None if peak is None else round(peak, 1)
    summary.grad_norm = tally.block_norms


def closing_table(trainer: Trainer) -> dict[str, str]:
    """Names and values that a person reads when a run has ended."""
    tally, summary = trainer.tally, trainer.recorder.summary
    frequencies = format_loss(summary.corpus.unigram_validation_loss)
    results = {
        "train loss": format_loss(summary.train_loss),
        "validation loss": f"{format_loss(summary.val_loss)} (token frequencies alone: "
        f"{frequencies.removesuffix(' nats')})",
        "validation bits per byte": format_bits(summary.val_bits_per_byte),
        "parameters": f"{summary.parameters:,}",
        "peak memory, whole process": megabytes(trainer.engine.memory.meter.highest()),
    }
    if tally.spikes:
        results["loss spikes"] = f"{tally.spikes}, the first at step {tally.spike_steps[0]}"
    if tally.clipped:
        results["clipped"] = f"{tally.clip_share:.0%} of the steps"
    for when, blocks in (
        ("first step", tally.block_norms.first_step),
        ("last step", tally.block_norms.last_step),
    ):
        if blocks.first_block is not None:
            results[f"gradient norm, {when}"] = (
                f"first block {blocks.first_block:.4g}, last block {blocks.last_block:.4g}"
            )
    return results


def format_bits(value: float | None) -> str:
    """Bits per byte, where the text of the tokens is known."""
    return "not measured" if value is None else f"{value:.3f}"


def format_loss(value: float | None) -> str:
    """A loss in nats."""
    return "not measured" if value is None else f"{value:.3f} nats"
