"""What measuring costs: `python -m tests.benchmarks.statistics > normscope/costs.py`.

Processor time, of all threads, of the default model: of each statistic's own function, for all
places of the model together, and of all that is done at each moment, over that of a training step.
The median over several probed steps. `python -m normscope > docs/measurements.md` shows it.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from experiments.data.corpus import load_corpus
from experiments.jobs.check import checked_settings
from experiments.machine.device import pick_device
from experiments.machine.memory import PeakMeter
from experiments.settings.compose import to_values
from experiments.training.build import build_model
from experiments.training.engine import Engine
from experiments.training.memory import StepMemory, predict
from normscope.stats import (
    ACTIVATIONS,
    ATTENTION,
    MIXING,
    STREAM_GRADIENTS,
    STREAM_PAIRS,
    STREAMS,
    SUMS,
)
from run import CONF

ROUNDS, WARMUP = 5, 1
# Whose functions are given tensors; elsewhere they divide two numbers that were there before.
OF_TENSORS = (ACTIVATIONS, SUMS, ATTENTION, STREAMS, STREAM_GRADIENTS, STREAM_PAIRS, MIXING)

HEAD = '''\
"""What measuring costs, in processor time over that of a training step of the default run.

Made by `python -m tests.benchmarks.statistics > normscope/costs.py`, on a CPU with {threads}.
"""
'''


def seconds_of(act: Callable[[], object]) -> float:
    """Processor time that it takes."""
    started = time.process_time()
    act()
    return time.process_time() - started


def make_engine() -> Engine:
    """Of a default run, as its first step finds it."""
    with initialize_config_dir(CONF, version_base="1.3"):
        settings = checked_settings(to_values(compose("config")))
    corpus, device = load_corpus(settings), pick_device("cpu")
    config = settings.model_config(corpus.tokenizer.vocab_size)
    torch.manual_seed(0)
    model = build_model(config, settings, device)
    memory = StepMemory(PeakMeter(device), predict(settings, config), {})
    return Engine(model, corpus, settings, device, memory)


def time_functions(spent: dict[str, float]) -> None:
    """Let each function add what it takes to `spent`."""
    for point in OF_TENSORS:
        for name, statistic in point.statistics.items():
            assert statistic.measure is not None
            timed = partial(measured, spent, name, statistic.measure)
            point.statistics[name] = replace(statistic, measure=timed)


def measured(spent: dict[str, float], name: str, measure: Callable[..., Any], *given: Any) -> Any:
    """What it measures; its time is added to `spent`."""
    started = time.process_time()
    value = measure(*given)
    spent[name] = spent.get(name, 0.0) + time.process_time() - started
    return value


def one_round(engine: Engine, step: int, spent: dict[str, float]) -> dict[str, float]:
    """Seconds of a training step, of each moment and of each function."""
    spent.clear()
    probes, (tokens, targets) = engine.probes, engine.probe_windows()
    losses = (
        engine.probe_loss(*one) for one in zip(tokens.split(1), targets.split(1), strict=True)
    )
    training = seconds_of(lambda: engine.gradients(step))
    norms = probes.norms
    moments = {
        "step": seconds_of(
            lambda: (
                norms.gradient_rows(norms.gradients_on_host(norms.gradients()), each=True),
                probes.on_step(partial(engine.probe_loss, tokens, targets)),
            )
        )
    }
    before = seconds_of(probes.before_update)
    training += seconds_of(engine.optimizer.step)
    moments["update"] = before + seconds_of(probes.after_update)
    engine.clear_gradients()
    moments["mixing"] = seconds_of(lambda: probes.mixing(partial(engine.probe_forward, tokens)))
    loss = engine.validation_loss()
    moments["end"] = seconds_of(lambda: probes.at_end(engine.validation_loss, loss, losses))
    return {name: value / training for name, value in (moments | spent).items()}


def main() -> None:
    engine, spent = make_engine(), dict[str, float]()
    time_functions(spent)
    rounds = [one_round(engine, step, spent) for step in range(ROUNDS + WARMUP)][WARMUP:]
    count = torch.get_num_threads()
    print(HEAD.format(threads=f"{count} thread{'s' * (count > 1)}"))
    print("COSTS = {")
    for name in rounds[0]:
        median = statistics.median(shares[name] for shares in rounds)
        print(f'    "{name}": {float(f"{median:.2g}")},')
    print("}")


if __name__ == "__main__":
    main()
