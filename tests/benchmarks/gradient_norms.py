"""What the per-step gradient norms cost: `python -m tests.benchmarks.gradient_norms`.

Steps of the default model with and without them in turn, in one process; prints the median share
of a step and its quartiles over the pairs.
"""

import math
import statistics
import time

import torch
from hydra import compose, initialize_config_dir

from experiments.data.corpus import load_corpus
from experiments.jobs.check import checked_settings
from experiments.settings.compose import to_values
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer
from gpt import GPT
from normscope import anatomy_of
from normscope.gradients import ParameterNorms
from run import CONF

PAIRS, WARMUP = 60, 5


def main() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        settings = checked_settings(to_values(compose("config")))
    corpus = load_corpus(settings)
    torch.manual_seed(0)
    model = GPT(settings.model_config(corpus.tokenizer.vocab_size))
    optimizer = make_optimizer(model, settings.optimizer)
    norms = ParameterNorms(anatomy_of(model))
    options = settings.trainer

    def seconds(step: int, measured: bool) -> float:
        batch = corpus.batch(0, step, options.batch_size, settings.sequence_length)
        started = time.perf_counter()
        language_model_loss(model, *batch, options.precision).backward()
        if measured:
            vector = norms.gradients().cpu().double()
            math.isfinite(float(vector.norm()))
            norms.gradient_rows(vector)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    shares = []
    for pair in range(PAIRS + WARMUP):
        with_norms, without = seconds(2 * pair, True), seconds(2 * pair + 1, False)
        shares.append(with_norms / without - 1)
    low, middle, high = statistics.quantiles(shares[WARMUP:], n=4)
    print(f"gradient norms: {middle:+.2%} of a step, quartiles {low:+.2%} to {high:+.2%}")


if __name__ == "__main__":
    main()
