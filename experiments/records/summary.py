"""summary.json: what a run was and how it ended, as one dataclass that is written and read."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.machine.console import one_line
from experiments.machine.files import hide_home, write_atomically
from experiments.records.json_values import (
    as_json,
    escape_strings,
    measured_values,
    read_section,
)
from normscope.stats import Row

log = logging.getLogger(__name__)


@dataclass
class CorpusSummary:
    """corpus: the text.

    name                     data.name
    sha256                   of the text in UTF-8
    bytes                    of the text in UTF-8
    tokens, train_tokens     of the whole text, and of its training part
    distinct_tokens          in the whole text
    unigram_entropy          nats per token: the loss of token frequencies alone on the whole text
    unigram_validation_loss  nats per token: the loss, on the validation part, of the training
                             part's token frequencies
    """

    name: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    tokens: int | None = None
    train_tokens: int | None = None
    distinct_tokens: int | None = None
    unigram_entropy: float | None = None
    unigram_validation_loss: float | None = None


@dataclass
class BlockNorms:
    """Gradient norms of the first and the last block, all parameters of each together."""

    first_block: float | None = None
    last_block: float | None = None

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> "BlockNorms":
        """Those among the rows of a step; without any for a model without blocks."""
        blocks = {r.layer: r.value for r in rows if (r.component, r.stat) == ("block", "grad_norm")}
        if not blocks:
            return cls()
        return cls(blocks[min(blocks)], blocks[max(blocks)])


@dataclass
class GradNorms:
    """grad_norm: at the first and the last recorded step, before clipping."""

    first_step: BlockNorms = field(default_factory=BlockNorms)
    last_step: BlockNorms = field(default_factory=BlockNorms)


@dataclass
class Summary:
    """What a run was and how it ended.

    A field that is None was not measured or does not apply: summary.json has no such key then, nor
    one for a section in which nothing was measured. Only `paper_init` is written as null, where the
    placement's paper names no initialisation. Numbers that are not finite are the strings nan, inf
    and -inf there. Losses are in nats per token.

    status            running, finished, diverged, failed or interrupted
    runner, seed      as set
    settings_sha256   of all settings that can change a result
    settings          these settings, nested
    overrides         as on the command line
    resumed_at_steps  updates made before each resumption
    device            cpu, cuda or mps
    corpus            the text
    optimizer         optimizer.name
    lr                optimizer.lr, the peak learning rate
    warmup_steps      schedule.warmup_steps
    placement         norm.placement; from here to emb_dim: the model
    final_norm        whether there is a norm before the head
    qk_norm           whether there are norms on queries and keys
    other             what else the placement fixes, each under a key of its own; where another
                      version wrote the file, the keys that only that version knows
    paper_final_norm  whether the placement's paper has a norm before the head
    paper_init        the initialisation that the placement's paper names
    norm              norm.kind
    shortcut          whether the sublayers add their input
    activation        activation
    init              init.scheme
    embedding_std     standard deviation with which embeddings are drawn
    n_layers          blocks
    emb_dim           width of the stream
    init_gain         what the initialisation scales the branches' weights by, where it does
    parameters        how many, tied weights counted once
    active_parameters of them, those that one token meets: see gpt/count.py, as for the next three
    ff_dim            width of the feed-forward layers, of each expert
    flops_per_token   of a forward pass, in a text of model.context_length tokens
    cache_bytes       in bf16: keys and values of such a text
    diverged_at_step  the step whose loss or gradient was not finite
    divergence        how it diverged: not finite, or loss rose
    reason            of a divergence, in words
    steps             trainer.steps
    log_every         steps from one recorded step to the next
    train_loss        of the last recorded step
    val_loss          of the last evaluation
    val_bits_per_byte the same in bits per byte of text, which compares across tokenizers
    initial_val_loss  of the model as initialised
    uniform_loss      ln V: of a model that gives each of the V tokens the same probability
    stuck             whether the run finished and learned no more than token frequencies
    tokens            trained on
    spikes            steps whose training loss was a spike
    spike_steps       the first twenty of them
    clip_share        share of the steps whose gradient was clipped; absent where clipping is off
    training_seconds  of the steps, evaluation and probes aside
    tokens_per_s      mean speed of these
    peak_memory_mb    MiB: highest of the whole process, or of the GPU's allocator
    seeds             init_gradients: how many were averaged
    first_seed        init_gradients: the first of them, which the others follow; absent in runs of
                      0.5 and before, whose first was `seed`
    grad_norm         gradient norms of the first and the last block
    budget            claims.budget
    claims            verdicts by the claim's name
    finding           what a run that trains nothing shows, in one sentence
    seconds           the whole run took, earlier parts of a resumed one included
    versions          of what computed the numbers, by name
    error             of a failed run, in words
    """

    status: str | None = None
    runner: str | None = None
    seed: int | None = None
    settings_sha256: str | None = None
    settings: dict[str, Any] | None = None
    overrides: list[str] | None = None
    resumed_at_steps: list[int] | None = None
    device: str | None = None
    corpus: CorpusSummary = field(default_factory=CorpusSummary)
    optimizer: str | None = None
    lr: float | None = None
    warmup_steps: int | None = None
    placement: str | None = None
    final_norm: bool | None = None
    qk_norm: bool | None = None
    other: dict[str, Any] | None = None
    paper_final_norm: bool | None = None
    paper_init: str | None = None
    norm: str | None = None
    shortcut: bool | None = None
    activation: str | None = None
    init: str | None = None
    embedding_std: float | None = None
    n_layers: int | None = None
    emb_dim: int | None = None
    init_gain: float | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    ff_dim: int | None = None
    flops_per_token: float | None = None
    cache_bytes: int | None = None
    diverged_at_step: int | None = None
    divergence: str | None = None
    reason: str | None = None
    steps: int | None = None
    log_every: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_bits_per_byte: float | None = None
    initial_val_loss: float | None = None
    uniform_loss: float | None = None
    stuck: bool | None = None
    tokens: int | None = None
    spikes: int | None = None
    spike_steps: list[int] | None = None
    clip_share: float | None = None
    training_seconds: float | None = None
    tokens_per_s: float | None = None
    peak_memory_mb: float | None = None
    seeds: int | None = None
    first_seed: int | None = None
    grad_norm: GradNorms = field(default_factory=GradNorms)
    budget: str | None = None
    claims: dict[str, str] | None = None
    finding: str | None = None
    seconds: float | None = None
    versions: dict[str, str] | None = None
    error: str | None = None

    def values(self) -> dict[str, Any]:
        """The keys and values of summary.json, in its order, home as ~."""
        values: dict[str, Any] = {}
        for name, value in measured_values(self).items():
            values |= value if name == "other" else {name: value}
            if name == "paper_final_norm" and self.paper_init is None:
                values["paper_init"] = None  # the placement is known, and its paper names none
        return dict(hide_home(values))

    def write(self, directory: Path) -> None:
        """Write summary.json, whole or not at all."""
        text = json.dumps(as_json(self.values()), indent=2, allow_nan=False)
        write_atomically(directory / "summary.json", f"{text}\n".encode())

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Summary":
        """A summary from the keys and values of a file, which may come from anybody.

        A value that is not of its field's type counts as not measured.
        """
        names = {item.name for item in dataclasses.fields(cls)} - {"other"}
        unknown = {name: value for name, value in values.items() if name not in names}
        summary: Summary = read_section(cls, {**values, "other": unknown or None})
        return summary


def summary_time(directory: Path) -> int | None:
    """When a run's summary was last written, in ns since 1970; None where there is none."""
    try:
        return (directory / "summary.json").stat().st_mtime_ns
    except OSError:
        return None


def read_summary(directory: Path) -> Summary:
    """The run's summary.json; an empty one where there is none, with a warning where it is torn.

    Control characters in its words are escapes: it may come from anybody.
    """
    path = directory / "summary.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        return Summary.from_values(escape_strings(values))
    except FileNotFoundError:
        return Summary()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read and is left out: %s", path, one_line(error))
        return Summary()
