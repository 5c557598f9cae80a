"""What runs leave on the disk, predicted before they start."""

import itertools
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.data.corpus import Corpus, load_corpus
from experiments.machine.console import print_line, size_text
from experiments.settings.schema import Settings, TrainerSettings
from experiments.training.checkpoint import checkpoints_in
from experiments.training.log_interval import automatic_log_every
from experiments.training.memory import lasting_bytes
from experiments.training.precision import parameter_precision
from gpt import GPT, ConfigError
from normscope.anatomy import anatomy_of
from normscope.gradients import ParameterNorms
from normscope.stats import (
    ACTIVATIONS,
    ATTENTION,
    EACH_EXPERT,
    EXPERTS,
    GRADIENTS,
    MIXING,
    STREAM_GRADIENTS,
    STREAM_PAIRS,
    STREAMS,
    SUMS,
    UPDATES,
    WINDOWS,
    Point,
    Row,
)

log = logging.getLogger(__name__)

# As measured of runs of the default size and of toys.
ROW_BYTES = 19  # of a row of gradients.csv without its words: numbers, commas, line end
METRICS_BYTES = 70  # of a row of metrics.csv
TABLES_BYTES = 20_000  # of settings, summary and small tables
PICTURES_BYTES = 500_000  # of a job; a run by itself has a page of 1.2 MB, too
WANDB_SHARE = {"summary": 0.5, "full": 3}  # of W&B's file, in bytes of the CSV files
ENTRY_BYTES = 350  # of a checkpoint's tensor without its numbers

LARGE_SHARE = 0.5  # of what is free: a run that needs more says so


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes that one run takes.

    records      what stays: CSV files, W&B's file, pictures, best.pt
    checkpoints  what it can be resumed from
    checkpoint   one of these: a new one is written before the oldest goes
    """

    records: int
    checkpoints: int = 0
    checkpoint: int = 0


def predict_disk(runs: Iterable[Settings]) -> list[DiskNeeds]:
    """What each run should take; one that cannot run takes nothing.

    Right within a quarter for runs that train or measure gradients, pictures and W&B aside; of
    other runs, which leave little, not worked out.
    """
    found: dict[str, DiskNeeds] = {}
    corpora: dict[str, Corpus] = {}

    def corpus_of(settings: Settings) -> Corpus:
        key = repr((settings.data, settings.tokenizer, settings.sequence_length))
        if key not in corpora:
            corpora[key] = load_corpus(settings)
        return corpora[key]

    needs = []
    for settings in runs:
        key = repr(without_rates(settings))  # a grid has few models, and many runs of each
        if key not in found:
            try:
                found[key] = needs_of(settings, corpus_of)
            except (ConfigError, OSError):  # the run itself will say why
                found[key] = DiskNeeds(0)
        needs.append(found[key])
    return needs


def without_rates(settings: Settings) -> Settings:
    """The settings without those that most grids vary and no file's size depends on."""
    optimizer = replace(settings.optimizer, lr=0.0)
    schedule = replace(settings.schedule, warmup_steps=0)
    return replace(settings, seed=0, optimizer=optimizer, schedule=schedule)


def needs_of(settings: Settings, corpus_of: Callable[[Settings], Corpus]) -> DiskNeeds:
    """What one run should take."""
    if settings.runner not in ("train", "memory", "init_gradients"):
        return DiskNeeds(TABLES_BYTES)
    tokenizer = corpus_of(settings).tokenizer
    with FakeTensorMode(allow_non_fake_inputs=True), parameter_precision(settings):
        model = GPT(settings.model_config(tokenizer.vocab_size))
        parameters, state = lasting_bytes(model, settings)
    norms = ParameterNorms(anatomy_of(model))
    if settings.runner == "init_gradients":
        return DiskNeeds(records_bytes(settings, untrained_bytes(settings, norms)))
    tensors = len(norms.parameters) * round(1 + 1.5 * state / parameters)
    checkpoint = parameters + state + tensors * ENTRY_BYTES + TABLES_BYTES
    checkpoint += len(json.dumps(tokenizer.state()))
    best = checkpoint if settings.trainer.keep_best else 0
    records = records_bytes(settings, trained_bytes(settings, norms)) + best
    return DiskNeeds(records, kept(settings.trainer) * checkpoint, checkpoint)


def kept(trainer: TrainerSettings) -> int:
    """How many checkpoints a run has at its end, best.pt aside."""
    every = trainer.checkpoint_every
    written = 1 + (trainer.steps - 1) // every if every else 1
    return min(trainer.keep, written)


def records_bytes(settings: Settings, csv: int) -> int:
    """Bytes of all that a run records, `csv` of them in CSV files."""
    pictures = PICTURES_BYTES if settings.pictures else 0
    wandb = int(csv * WANDB_SHARE[settings.wandb.detail]) + pictures
    if settings.wandb.mode == "disabled":
        wandb = 0
    return csv + pictures + wandb + TABLES_BYTES


def trained_bytes(settings: Settings, norms: ParameterNorms) -> int:
    """Bytes of metrics.csv, gradients.csv and mixing.csv of a training run."""
    trainer = settings.trainer
    steps, digits = trainer.steps, len(str(trainer.steps))
    blocks = sum(component == "block" for _, component in norms.groups)
    logged = rows_at(norms.groups, GRADIENTS)
    streams = rows_of_streams(blocks, settings.model.experts.count)
    every_place = norms.groups | norms.tensors
    probed = [*rows_at(every_place, GRADIENTS), *rows_at(every_place, UPDATES), *streams]
    if trainer.probe_every is None:
        probed, streams = [], []
    log_every = trainer.log_every or automatic_log_every(settings, logged, probed)
    probed_every = [trainer.probe_every] if trainer.probe_every else []
    probes = count_multiples(steps, probed_every)
    # A step that is evaluated or probed is recorded, too.
    recorded = count_multiples(steps, [log_every, trainer.eval_every, *probed_every])
    at_end = [*streams, *(rows_at(norms.groups, WINDOWS) if trainer.end_probes else [])]
    return (
        (recorded + 1) * METRICS_BYTES
        + (recorded - probes) * csv_bytes(logged, digits)
        + probes * csv_bytes(probed, digits)
        + csv_bytes(at_end, digits)
        + trainer.mixing * 2 * csv_bytes(rows_of_mixing(blocks), digits + 3)  # a layer more
    )


def untrained_bytes(settings: Settings, norms: ParameterNorms) -> int:
    """Bytes of init_gradients.csv, beside which gradients.csv is small."""
    options = settings.init_gradients
    rows = rows_at(norms.groups | norms.tensors, GRADIENTS)
    digits = len(f"{settings.seed * options.seeds},{options.batches}")
    return options.seeds * (options.batches + 1) * csv_bytes(rows, digits)


def count_multiples(steps: int, intervals: Sequence[int]) -> int:
    """How many of the steps 0 .. steps - 1 are multiples of at least one interval."""
    return sum(
        (-1) ** (size + 1) * -(-steps // math.lcm(*chosen))
        for size in range(1, len(intervals) + 1)
        for chosen in itertools.combinations(intervals, size)
    )


def csv_bytes(rows: Sequence[Row], digits: int) -> int:
    """What rows take in gradients.csv, where the number before them has so many digits."""
    return sum(ROW_BYTES + digits + len(row.component) + len(row.stat) for row in rows)


def rows_at(places: Iterable[tuple[int, str]], point: Point) -> list[Row]:
    """The rows of a point of the catalogue at places, each a layer and a component."""
    return [Row(*place, stat, 0.0) for place in places for stat in point.statistics]


def rows_of_streams(blocks: int, experts: int) -> list[Row]:
    """The rows of all that flows through blocks: at most, some placements lack a part."""
    of_experts = [f"feed_forward.expert_{expert}" for expert in range(experts)]
    rows = rows_at(((layer, part) for layer in range(blocks) for part in of_experts), EACH_EXPERT)
    if experts:
        rows += rows_at(((layer, "feed_forward") for layer in range(blocks)), EXPERTS)
    for point in (ACTIVATIONS, SUMS, ATTENTION, STREAMS, STREAM_GRADIENTS):
        rows += rows_at(((layer, part) for layer in range(blocks) for part in point.of), point)
    distances = [2**n for n in range(blocks.bit_length())]  # in blocks
    starts = (start for n in distances for start in range(blocks + 1 - n))
    return rows + rows_at(((start, "block") for start in starts), STREAM_PAIRS)


def rows_of_mixing(blocks: int) -> list[Row]:
    """The rows of all states of blocks, with as many terms as have been written by then."""
    states = [(layer, part) for layer in range(blocks) for part in MIXING.of[:-1]]
    terms = {(layer, part): 2 + 2 * layer + (1 if part == "sum_1" else 2) for layer, part in states}
    terms[blocks, MIXING.of[-1]] = 2 + 2 * blocks
    places = (
        (layer, part + "feed_forward") for (layer, part), n in terms.items() for _ in range(n)
    )
    return rows_at(places, MIXING)


def check_room(settings: Settings, directory: Path, state: int) -> None:
    """Say where a run's checkpoints are much of what is free on the disk; warn where they are more.

    state  bytes of the model and the optimizer
    """
    trainer = settings.trainer
    there = sum(path.stat().st_size for path in checkpoints_in(directory))
    needed = (kept(trainer) + 1 + trainer.keep_best) * state - there
    free = shutil.disk_usage(directory).free
    words = f"checkpoints take about {size_text(needed)} on disk, {size_text(free)} are free"
    if needed > free:
        log.warning("%s; trainer.keep=1 keeps one alone", words)
    elif needed > free * LARGE_SHARE:
        print_line(words)
