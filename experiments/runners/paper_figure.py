"""Published figures, measured again at a size that two cores have."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.analysis.paper_figures import (
    BLOCK,
    BY_BLOCK,
    DECODER,
    LAST_STEP,
    LN_SCALING,
    MEASURED,
    ONE_STEP,
    PAPER_FIGURES,
    PRE_LN,
    PREDICTED,
    SCALED,
    SGD_STEP,
    THEORY,
    TRANSLATOR,
)
from experiments.analysis.words import count_words
from experiments.claims.claim import slope
from experiments.claims.lab import Lab
from experiments.claims.registered import FIRST_BLOCK
from experiments.claims.settings import (
    in_xiongs_setting,
    variances,
)
from experiments.claims.updates import output_of, sgd_step
from experiments.claims.vanishing import EncoderDecoder
from experiments.data.corpus import Corpus, load_corpus
from experiments.machine.console import print_table, progress
from experiments.machine.device import pick_device
from experiments.records.recorder import Recorder
from experiments.records.summary import CorpusSummary
from experiments.runner import Outcome
from experiments.settings.identity import block_of_seeds
from experiments.settings.schema import Settings
from experiments.training.build import build_model
from experiments.training.loss import language_model_loss
from experiments.training.optimizer import make_optimizer
from experiments.training.schedule import learning_rate
from gpt import GPT, ConfigError, GPTConfig
from normscope.anatomy import anatomy_of
from normscope.gradients import ParameterNorms

PRECISIONS = ("float32", "float64")
XAVIER = "xavier"
PLACEMENTS = ("pre_ln", "post_ln")


@dataclass
class Found:
    """The lines of a figure: a value for each panel, arm, seed and x, and what is predicted."""

    rows: list[dict[str, int | str | float | None]] = field(default_factory=list)

    def line(
        self, panel: str, arm: str, seed: int | None, xs: Iterable[float], ys: Iterable[float]
    ) -> None:
        """Add the points of an arm under a seed; without one what is predicted of it."""
        kind = PREDICTED if seed is None else MEASURED
        self.rows += [
            {"panel": panel, "kind": kind, "arm": arm, "seed": seed, "x": x, "value": y}
            for x, y in zip(xs, ys, strict=True)
        ]

    def median(self, panel: str, arm: str) -> dict[float, float]:
        """Of an arm, the median over the seeds at each x."""
        values: dict[float, list[float]] = {}
        for row in self.rows:
            if (row["panel"], row["kind"], row["arm"]) == (panel, MEASURED, arm):
                values.setdefault(float(row["x"] or 0), []).append(float(row["value"] or 0))
        return {x: float(np.median(of_x)) for x, of_x in values.items()}

    def predict(
        self, panel: str, arm: str, label: str, law: Callable[[float], float], last: bool = False
    ) -> None:
        """Add law(x) / law(x_0) times the median of an arm at x_0, its first x or its last."""
        median = self.median(panel, arm)
        x_0 = max(median) if last else min(median)
        self.line(panel, label, None, median, [median[x_0] * law(x) / law(x_0) for x in median])

    def slope(self, panel: str, arm: str) -> float:
        """Log-log slope of the medians."""
        median = self.median(panel, arm)
        return slope(list(median), list(median.values()))

    def ratio(self, panel: str, arm: str) -> float:
        """The median at the last x over that at the first."""
        median = list(self.median(panel, arm).values())
        return quotient(median[-1], median[0])


def quotient(a: float, b: float) -> float:
    """a / b; nan where b is 0."""
    return a / b if b else math.nan


class Bench:
    """Models of a command's settings under any placement and depth, their batches and steps."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.device = settings, pick_device(settings.device)
        self.corpus: Corpus = load_corpus(settings)
        self.theory, self.found = Lab(), Found()

    def of(self, placement: str, depth: int, init: str) -> tuple[Settings, GPTConfig]:
        """The settings under another placement, depth and initialisation, and their model."""
        norm = replace(self.settings.norm, placement=placement, options={})
        model = replace(self.settings.model, n_layers=depth)
        init_config = replace(self.settings.init, scheme=init)
        settings = replace(self.settings, norm=norm, model=model, init=init_config)
        return settings, settings.model_config(self.corpus.tokenizer.vocab_size)

    def gpt(self, placement: str, seed: int, depth: int, init: str = XAVIER) -> GPT:
        """A model drawn from `seed`."""
        settings, config = self.of(placement, depth, init)
        torch.manual_seed(seed)
        model = build_model(config, settings, self.device)
        model.profile(self.batch(seed, 0)[0])
        return model

    def translator(self, placement: str, seed: int, depth: int) -> EncoderDecoder:
        """An encoder and a decoder of `depth` blocks each, drawn from `seed`."""
        _, config = self.of(placement, depth, XAVIER)
        torch.manual_seed(seed)
        model = EncoderDecoder(config).to(self.device)
        return model.double() if self.settings.trainer.precision == "float64" else model

    def batch(self, seed: int, number: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets (B, T), as a run of this seed draws them at this step."""
        options = self.settings
        length = options.sequence_length
        tokens, targets = self.corpus.batch(seed, number, options.trainer.batch_size, length)
        return tokens.to(self.device), targets.to(self.device)

    def loss(self, model: nn.Module, seed: int, number: int) -> Tensor:
        """Of a GPT on a batch; an encoder reads the first half of it, its decoder the second."""
        tokens, targets = self.batch(seed, number)
        if isinstance(model, GPT):
            return language_model_loss(model, tokens, targets, self.settings.trainer.precision)
        half = tokens.shape[1] // 2
        logits = model(tokens[:, :half], tokens[:, half:])
        return F.cross_entropy(logits.flatten(0, 1), targets[:, half:].flatten())

    def updates(self, model: nn.Module, seed: int, steps: int) -> Iterator[int]:
        """Train a model; gives the number of updates made, before each of them and at the end.

        On batches that no measurement is made on.
        """
        trainer, schedule, first = self.settings.trainer, self.settings.schedule, self.measured
        optimizer = make_optimizer(model, self.settings.optimizer)
        for step in range(steps):
            yield step
            for group in optimizer.param_groups:
                peak = self.settings.optimizer.lr
                group["lr"] = learning_rate(schedule, peak, step, trainer.steps)
            optimizer.zero_grad()
            self.loss(model, seed, first + step).backward()
            optimizer.step()
        yield steps

    @property
    def measured(self) -> int:
        """How many batches a gradient is averaged over."""
        return self.settings.paper_figure.batches

    @property
    def depths(self) -> list[int]:
        """Numbers of blocks, from the least."""
        return sorted(set(self.settings.paper_figure.depths))


def run(settings: Settings, recorder: Recorder) -> Outcome:
    """The figure `paper_figure.name`: paper_figure.csv has every point, and what is predicted."""
    options = settings.paper_figure
    seeds = block_of_seeds(settings.seed, options.seeds)
    check(settings, seeds)
    bench = Bench(settings)
    recorder.summary.device = str(bench.device)
    recorder.summary.corpus = CorpusSummary(**bench.corpus.statistics())
    recorder.summary.seeds, recorder.summary.first_seed = options.seeds, seeds[0]
    measure, conclude = FIGURES[options.name]
    with progress("seeds", len(seeds)) as report:
        for done, seed in enumerate(seeds, start=1):
            measure(bench, seed)
            report(done)
    finding = conclude(bench.found)
    rows = [{"figure": options.name, **row} for row in bench.found.rows]
    recorder.table("paper_figure", rows)
    figure = PAPER_FIGURES[options.name]
    print_table(
        f"{figure.paper}: medians of {count_words(options.seeds, 'seed')}", medians(bench.found)
    )
    return Outcome(
        closing=f"Not as in the paper: {figure.ours}.",
        finding=f"{finding}. In the paper {figure.published}",
    )


def check(settings: Settings, seeds: Sequence[int]) -> None:
    """Raise ConfigError for what the figures cannot be measured with."""
    if settings.trainer.precision not in PRECISIONS:
        valid = f"published figures are measured in {' or '.join(PRECISIONS)}"
        raise ConfigError("trainer.precision", settings.trainer.precision, valid)
    if settings.sequence_length < 2:
        valid = "must be at least 2: an encoder reads the first half of a window"
        raise ConfigError("trainer.sequence_length", settings.sequence_length, valid)
    if not settings.paper_figure.depths:
        raise ConfigError("paper_figure.depths", [], "must have at least one number of blocks")
    if max(seeds) >= FIRST_BLOCK:
        valid = f"would draw from seed {max(seeds)}; those from {FIRST_BLOCK} on are of claims"
        raise ConfigError("seed", settings.seed, valid)


def medians(found: Found) -> list[dict[str, str]]:
    """A row for each measured line that is not a block's: its first and its last median."""
    lines = dict.fromkeys(
        (str(row["panel"]), str(row["arm"]))
        for row in found.rows
        if row["kind"] == MEASURED and not str(row["arm"]).startswith(BLOCK)
    )
    table = []
    for panel, arm in lines:
        values = found.median(panel, arm)
        first, last = min(values), max(values)
        table.append(
            {
                "panel": panel,
                "arm": arm,
                "first": f"{values[first]:.3g} at {first:g}",
                "last": f"{values[last]:.3g} at {last:g}",
            }
        )
    return table


AFTER_WARM_UP = "post_ln, after warm-up"
Norms = dict[str, list[float]]  # of the gradients of a weight in each block, by panel
WEIGHTS = {"a": "feed_forward.fc_in.weight", "b": "feed_forward.fc_out.weight"}
APPENDIX_F = "appendix F: a term (2/3)^((L - l)/2)"


def xiong_figure_3(bench: Bench, seed: int) -> None:
    """Gradient norms of the feed-forward weights: by block of the shallowest, of the last by depth.

    Of an encoder-decoder as the paper's and of a GPT the norm of the gradient averaged over
    batches; in the setting of Theorem 1, which is about one sequence, the mean over sequences of
    the norm of the gradient of its loss.
    """

    def in_theory(placement: str, depth: int) -> Norms:
        model, tokens, targets = in_xiongs_setting(bench.theory, placement, seed, depth)
        pairs = zip(tokens, targets, strict=True)
        losses = (F.cross_entropy(model(x[None])[0], y) for x, y in pairs)
        return mean_of_norms(model, losses)

    for row, make in ((TRANSLATOR, bench.translator), (DECODER, bench.gpt)):

        def in_training(placement: str, depth: int) -> Norms:
            return expected(bench, make(placement, seed, depth), seed)  # noqa: B023 - called here

        draw_row(bench, row, seed, in_training)
        model = make("post_ln", seed, bench.depths[0])
        for _ in bench.updates(model, seed, bench.settings.schedule.warmup_steps):
            pass
        draw_by_block(bench, row, AFTER_WARM_UP, seed, expected(bench, model, seed))
    draw_row(bench, THEORY, seed, in_theory)


def draw_row(bench: Bench, row: str, seed: int, norms_of: Callable[[str, int], Norms]) -> None:
    """The panels of one setting, from the norms under a placement at a depth."""
    for placement, letter in (("pre_ln", "c"), ("post_ln", "d")):
        for depth in bench.depths:
            norms = norms_of(placement, depth)
            bench.found.line(f"{row} ({letter})", placement, seed, [depth], norms["b"][-1:])
            if depth == bench.depths[0]:
                draw_by_block(bench, row, placement, seed, norms)


def draw_by_block(bench: Bench, row: str, arm: str, seed: int, norms: Norms) -> None:
    """Panels (a) and (b) of one setting."""
    for letter, of_blocks in norms.items():
        blocks = range(1, len(of_blocks) + 1)
        bench.found.line(f"{row} ({letter})", arm, seed, blocks, of_blocks)


def expected(bench: Bench, model: nn.Module, seed: int) -> Norms:
    """Norms of the gradient averaged over batches; of an encoder-decoder those of its decoder."""
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    norms = ParameterNorms(anatomy_of(stack))
    losses = (bench.loss(model, seed, number) for number in range(bench.measured))
    return of_weights(norms, norms.of_losses(losses)[1])


def mean_of_norms(model: nn.Module, losses: Iterable[Tensor]) -> Norms:
    """Means of the norms of the gradient of each loss."""
    norms = ParameterNorms(anatomy_of(model))
    single, _ = norms.of_losses(losses)
    each = [of_weights(norms, of_loss) for of_loss in single]
    return {key: np.mean([of[key] for of in each], axis=0).tolist() for key in WEIGHTS}


def of_weights(norms: ParameterNorms, values: Tensor) -> Norms:
    """The norms of W_1 and W_2 of each block."""
    by_place = norms.by_place(values, each=True)
    return {
        letter: [norm for (_, tensor), norm in by_place.items() if tensor == name]
        for letter, name in WEIGHTS.items()
    }


def growth(block: float) -> float:
    """Of Post-LN's gradient, by the term of appendix F: (2/3)^((L - l)/2)."""
    return (2 / 3) ** (-block / 2)


def conclude_xiong(found: Found) -> str:
    """Adds the predictions; what the numbers show."""
    for row in (TRANSLATOR, DECODER, THEORY):
        for letter in WEIGHTS:
            panel = f"{row} ({letter})"
            found.predict(panel, "post_ln", APPENDIX_F, growth, last=True)
            found.predict(panel, "pre_ln", "section 3.3: the same in all layers", lambda _: 1.0)
        found.predict(f"{row} (c)", "pre_ln", "Theorem 1: L^(-1/2)", lambda depth: depth**-0.5)
        found.predict(f"{row} (d)", "post_ln", "Theorem 1: the same at every depth", lambda _: 1.0)
    grown = {
        (row, arm): found.ratio(f"{row} (b)", arm)
        for row in (TRANSLATOR, DECODER)
        for arm in PLACEMENTS
    }
    last = list(found.median(f"{TRANSLATOR} (d)", "post_ln").values())
    falls = found.slope(f"{TRANSLATOR} (c)", "pre_ln")
    return (
        "from the decoder's first block to its last the gradient of W_2 changes by a factor of "
        f"{grown[TRANSLATOR, 'post_ln']:.2g} under Post-LN and {grown[TRANSLATOR, 'pre_ln']:.2g} "
        f"under Pre-LN; in the last block it is {min(last):.2g} to {max(last):.2g} at all depths "
        f"under Post-LN, and goes as L^{falls:.2f} under Pre-LN; in a GPT, which attends to no "
        f"encoder, the factors are {grown[DECODER, 'post_ln']:.2g} and "
        f"{grown[DECODER, 'pre_ln']:.2g}"
    )


def wang_figure_5(bench: Bench, seed: int) -> None:
    """RMS change of what the head reads by the first steps: |F(x, theta_i) - F(x, theta_0)|."""
    steps = bench.settings.trainer.steps
    x, _ = bench.batch(seed, 0)
    for placement, init in (("post_ln", XAVIER), ("deepnorm", "deepnorm")):
        for depth in bench.depths:
            model = bench.gpt(placement, seed, depth, init)
            before = output_of(model, x)
            by_sgd = deepcopy(model)
            bench.loss(by_sgd, seed, 0).backward()
            sgd_step(by_sgd)
            moved = {0: change(by_sgd, x, before)}
            for step in bench.updates(model, seed, steps):
                if step in (1, steps):
                    moved[step] = change(model, x, before)
            for panel, step in ((ONE_STEP, 1), (LAST_STEP, steps), (SGD_STEP, 0)):
                bench.found.line(panel, placement, seed, [depth], [moved[step]])


def change(model: GPT, x: Tensor, before: Tensor) -> float:
    """Root mean square over all elements."""
    return (output_of(model, x) - before).square().mean().sqrt().item()


def conclude_wang(found: Found) -> str:
    """Adds the predictions; what the numbers show."""
    panels = (ONE_STEP, LAST_STEP, SGD_STEP)
    for panel in panels:
        found.predict(panel, "deepnorm", "section 4.3: the same at every depth", lambda _: 1.0)
    slopes = [[found.slope(panel, arm) for arm in ("post_ln", "deepnorm")] for panel in panels]
    deepest = [list(found.median(ONE_STEP, arm).values())[-1] for arm in ("post_ln", "deepnorm")]
    return (
        f"one step of Adam moves the deepest Post-LN {quotient(*deepest):.2g} times as far as "
        f"DeepNorm; with the depth its update goes as L^{slopes[0][0]:.2f}, DeepNorm's as "
        f"L^{slopes[0][1]:.2f}, and under one step of SGD, of which the theory speaks, as "
        f"L^{slopes[2][0]:.2f} and L^{slopes[2][1]:.2f}"
    )


CURSE_ARMS = {  # by panel: the arm, its placement, its initialisation
    PRE_LN: ("pre_ln", "pre_ln", "gpt2"),
    SCALED: ("pre_ln, scaled initialisation", "pre_ln", "gpt2_scaled"),
    LN_SCALING: ("ln_scaling", "ln_scaling", "gpt2"),
}


def sun_figure_4(bench: Bench, seed: int) -> None:
    """Variance of the stream after each block, on validation windows, through training."""
    trainer, depth = bench.settings.trainer, bench.settings.model.n_layers
    windows, _ = bench.corpus.fixed_windows(trainer.eval_tokens, bench.settings.sequence_length)
    windows = windows.to(bench.device)
    for panel, (arm, placement, init) in CURSE_ARMS.items():
        model = bench.gpt(placement, seed, depth, init)
        for step in bench.updates(model, seed, trainer.steps):
            if step % trainer.eval_every == 0 or step == trainer.steps:
                by_block = variances(model, windows)
                for block, variance in enumerate(by_block, start=1):
                    bench.found.line(panel, f"{BLOCK}{block}", seed, [step], [variance])
        bench.found.line(BY_BLOCK, arm, seed, range(1, depth + 1), by_block)


def conclude_sun(found: Found) -> str:
    """Adds the prediction; what the numbers show."""
    found.predict(BY_BLOCK, "pre_ln", "Lemma 3.2: at least linear", lambda block: block)
    last = {
        panel: list(found.median(BY_BLOCK, arm).values())[-1]
        for panel, (arm, *_) in CURSE_ARMS.items()
    }
    return (
        f"after the last step the variance behind the last block is {last[PRE_LN]:.3g} under "
        f"Pre-LN, {last[SCALED]:.3g} with scaled initialisation and {last[LN_SCALING]:.3g} with "
        "LayerNorm Scaling"
    )


FIGURES: dict[str, tuple[Callable[[Bench, int], None], Callable[[Found], str]]] = {
    "xiong_figure_3": (xiong_figure_3, conclude_xiong),
    "wang_figure_5": (wang_figure_5, conclude_wang),
    "sun_figure_4": (sun_figure_4, conclude_sun),
}
