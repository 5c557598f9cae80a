"""The atlas: one page on which any two placements stand side by side."""

import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from markupsafe import Markup, escape
from torch import nn

from experiments.analysis.arms import WARMUP
from experiments.analysis.histories import by_layer, read_checked_csv, read_gradients
from experiments.analysis.runs import STUCK_TOLERANCE, Run
from experiments.analysis.step_times import REFERENCE, StepTime
from experiments.analysis.verdicts import DISTANCES, HOLDS, TRAINING
from experiments.analysis.words import (
    count_words,
    join_words,
    placement_words,
    setting_words,
    value_words,
)
from experiments.machine.files import hide_home, write_atomically
from experiments.records.sink import MIXING_COLUMNS
from experiments.report.board import BoardClaim, Row, read_board
from experiments.report.claims_page import MEANINGS
from experiments.report.diagram import Diagram, alike, shape_of
from experiments.report.page import provenance, render_template
from experiments.report.palette import DOTTED, SOLID, Look, look_of
from experiments.report.tables import Cell, Table, number_cell
from gpt import GPT, PLACEMENTS, GPTConfig
from normscope import Graph, Node, trace
from normscope.anatomy import BRANCHES

# What is written beside the code, where it is not installed without it.
ROOT = Path(__file__).parents[2]
README, CLAIMS = ROOT / "README.md", ROOT / "docs" / "claims.csv"
TOKENS = 4  # of which blocks are traced
STEP_TIME = "step time, Pre-LN = 1"
THREE_DIGITS = "#.3g"
OWN_PARAMETERS = "parameters beyond No norm's"
FREQUENCIES = "token frequencies"
DOTS = Look("#565d66", "#a9b0b9", DOTTED)  # of token frequencies, as in the picture of losses
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Drawn:
    """The diagram of some blocks, or of what follows them; the title says which."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Quoted:
    """What the board of claims says about a placement.

    when  of a model's life: what was measured, at initialisation or in training
    rows  that name the placement, or that did not come out as predicted
    """

    claim: BoardClaim
    rows: list[Row]

    @property
    def when(self) -> str:
        return "In training" if self.claim.block == TRAINING else "At initialisation"

    @property
    def distance(self) -> str:
        return DISTANCES[self.claim.distance]

    @property
    def numbers(self) -> list[tuple[str, ...]]:
        """Of those rows, in words."""
        return [number_in_words(row) for row in self.rows]


@dataclass(frozen=True)
class Placed:
    """A placement of the registry, under the settings of its runs.

    runs  by the steps of warm-up
    time  of its training step beside Pre-LN's; None where it was not measured, and of Pre-LN
    """

    name: str
    config: GPTConfig
    runs: Mapping[int, Run]
    time: StepTime | None = None

    @property
    def title(self) -> str:
        return placement_words(self.name)

    @property
    def equation(self) -> str:
        """The first paragraph of the class's docstring."""
        return self.paragraphs[0]

    @property
    def text(self) -> list[Markup]:
        """The others, arXiv's numbers as links."""
        return [linked(paragraph) for paragraph in self.paragraphs[1:]]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Of the docstring, each in one line."""
        text = inspect.cleandoc(self.config.placement.__doc__ or "")
        return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]

    # ---- The module, traced

    @cached_property
    def model(self) -> GPT:
        return GPT(self.config).requires_grad_(False)

    @cached_property
    def state(self) -> Any:
        """What the first block reads."""
        return self.model.entry(torch.randn(1, TOKENS, self.config.emb_dim))

    @cached_property
    def graphs(self) -> list[Graph]:
        """Of each block."""
        return [self.traced(block) for block in self.model.blocks]

    @cached_property
    def after(self) -> Graph:
        """Of what stands between the last block and the logits."""
        module = nn.Sequential()
        module.add_module("final_norm", self.model.final_norm)
        module.add_module("head", self.model.head)
        graph = self.traced(module)
        return Graph(
            tuple(
                replace(node, label="logits") if node.kind == "output" else node
                for node in graph.nodes
            )
        )

    def traced(self, module: nn.Module) -> Graph:
        """The graph of a module, its inputs and outputs under the equation's names.

        Several streams are those of which the equation gives the next, such as p', in its order.
        """
        graph = trace(module, self.state)
        streams = re.findall(r"(\w)' =", self.equation) or ["x"]
        after = [f"{name}'" for name in streams] if len(streams) > 1 else ["out"]
        titles = {"input": iter(streams), "output": iter(after)}
        return Graph(
            tuple(
                replace(node, label=next(titles[node.kind], node.label))
                if node.kind in titles
                else node
                for node in graph.nodes
            )
        )

    @cached_property
    def diagrams(self) -> list[Drawn]:
        """Of each kind of block, and of what stands between the last one and the logits."""
        groups: list[tuple[object, list[int]]] = []
        for layer, graph in enumerate(self.graphs):
            shape = shape_of(graph)
            same = next((layers for known, layers in groups if known == shape), None)
            if same is None:
                groups.append((shape, [layer]))
            else:
                same.append(layer)
        drawn = []
        for _, layers in groups:
            title = blocks_in_words([layer + 1 for layer in layers], len(self.graphs))
            graph = alike([self.graphs[layer] for layer in layers])
            drawn.append(Drawn(title, Diagram(graph).svg(f"{self.title}, {title}")))
        svg = Diagram(self.after).svg(f"{self.title}, after the last block")
        return [*drawn, Drawn("after the last block", svg)]

    # ---- Facts

    def facts(self, is_timed: bool = False) -> dict[str, str]:
        """What it fixes beside the equation, and what it costs, counted from the module.

        is_timed  whether the steps of the page's placements were timed
        """
        placement, config = self.config.placement, self.config
        fixed = dict(placement.fixes(config))
        options = asdict(placement.options(config))
        others = {n: v for n, v in fixed.items() if n not in ("final_norm", "qk_norm", *options)}
        facts = {
            "norm before the head": self.norms_before_head,
            "initialisation": tied(placement.init, placement.unfit_inits, config.init.scheme),
            "norms in a block": self.norm_passes,
            OWN_PARAMETERS: self.own_parameters,
        }
        if self.time is not None:
            facts[STEP_TIME] = self.time.text
        elif is_timed and self.name == REFERENCE:
            facts[STEP_TIME] = "1, the others are compared with it"
        facts |= {name.replace("_", " "): in_digits(value) for name, value in others.items()}
        names = [f"norm.options.{name}={typed(value)}" for name, value in options.items()]
        if names:
            text = " ".join(inspect.cleandoc(placement.Options.__doc__ or "").split())
            facts["options"] = linked(f"{', '.join(names)}. {text}")
        if used := used_by().get(self.name):
            facts["in use by"] = used
        return facts

    @property
    def norms_before_head(self) -> str:
        """Whether there is one, and on which of several streams."""
        graph = self.after
        norms = [i for i, node in enumerate(graph.nodes) if node.kind == "norm"]
        if not norms:
            return "no"
        inputs = [i for i, node in enumerate(graph.nodes) if node.kind == "input"]
        read = {i for i in inputs if any(i in graph.sources(norm) for norm in norms)}
        alone = [graph.nodes[i].label for i in inputs if i in read]
        if len(read) < len(inputs):
            return f"on {join_words(alone)} alone"
        return "yes" if len(norms) == 1 else f"yes, {len(norms)}: on each stream and on their sum"

    @property
    def norm_passes(self) -> str:
        """Norms that a block computes, by block where they differ."""
        counts: dict[str, list[int]] = {}
        for number, norms in enumerate(self.norms, start=1):
            inside = sum(bool(node.branch) for node in norms)
            words = f"{len(norms)}" + (f", {inside} of them inside a branch" if inside else "")
            counts.setdefault(words, []).append(number)
        if len(counts) == 1:
            return next(iter(counts))
        total = len(self.graphs)
        return "; ".join(f"{blocks_in_words(of, total)}: {n}" for n, of in counts.items())

    @property
    def norms(self) -> list[list[Node]]:
        """Of each block."""
        return [[node for node in graph.nodes if node.kind == "norm"] for graph in self.graphs]

    @cached_property
    def parameters(self) -> tuple[int, int]:
        """Those of all blocks that no_norm has not, and those that it has."""
        bare = replace(self.config.norm, placement="no_norm", options={}, qk=None)
        own, branches = (
            sum(p.numel() for block in model.blocks for p in block.parameters())
            for model in (self.model, GPT(replace(self.config, norm=bare)))
        )
        return own - branches, branches

    @property
    def own_parameters(self) -> str:
        """Those that no_norm has not, for a block."""
        (more, branches), blocks = self.parameters, len(self.graphs)
        of_blocks = {sum(p.numel() for p in block.parameters()) for block in self.model.blocks}
        text = f"{more / blocks:,.0f} a block" + (" on average" if len(of_blocks) > 1 else "")
        return text + (f", {100 * more / branches:.3g} % of its branches' own" if more else "")

    @cached_property
    def claims(self) -> list[Quoted]:
        """The claims of the board in which it was measured."""
        return claims_about(self.name)

    @property
    def function(self) -> object:
        """Equal of two placements that compute the same: graphs of the same shape, equal runs."""
        graphs = [*self.graphs, self.after]
        factors = [node.factor for graph in graphs for node in graph.nodes]
        return [*map(shape_of, graphs)], factors, self.data["runs"]

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the script draws."""
        look = look_of(self.name)
        runs = {
            warmup: {
                "words": setting_words(WARMUP, warmup),
                # As everywhere: with warm-up it is dashed.
                "dash": replace(look, dash=SOLID).varied(bool(warmup)).dash,
                **data_of(run),
            }
            for warmup, run in self.runs.items()
        }
        return {
            "title": self.title,
            "light": look.light,
            "dark": look.dark,
            "runs": runs,
        }


def blocks_in_words(numbers: Sequence[int], total: int) -> str:
    """Such as "blocks 2 to 6"; of all, "each block"."""
    if len(numbers) == total:
        return "each block"
    if len(numbers) == 1:
        return f"block {numbers[0]}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"blocks {numbers[0]} to {numbers[-1]}"
    return f"blocks {join_words([str(number) for number in numbers])}"


def tied(init: str | None, unfit: Sequence[str], used: str) -> str:
    """Which initialisation the paper prescribes, in words."""
    words = f"{init}, prescribed by its paper" if init else f"none prescribed; here {used}"
    return words + "".join(f"; the paper advises against {name}" for name in unfit)


def in_digits(value: object) -> str:
    """A fact's value."""
    return f"{value:.3g}" if isinstance(value, float) else typed(value)


def typed(value: object) -> str:
    """An option's value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def linked(text: str) -> Markup:
    """A docstring's text, arXiv's numbers as links and what stands between backticks as code."""
    escaped = ARXIV.sub(r'arXiv <a href="https://arxiv.org/abs/\1">\1</a>', str(escape(text)))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escaped))


def used_by() -> dict[str, str]:
    """By placement, the last column of the README's table; nothing where there is no README."""
    if not README.is_file():
        return {}
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", README.read_text("utf-8"), re.MULTILINE)
    plain = {name: re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", cell) for name, cell in rows}
    return {name: cell for name, cell in plain.items() if re.search(r"[A-Z]", cell)}


@cache
def board_claims(path: Path) -> tuple[BoardClaim, ...]:
    """The claims of a claims.csv; none where there is no such file."""
    return read_board(path.parent).claims if path.is_file() else ()


def claims_about(placement: str) -> list[Quoted]:
    """The claims of docs/claims.csv with a number of it."""
    return [
        Quoted(claim, [row for row in claim.judged if names(row, placement) or is_missed(row)])
        for claim in board_claims(CLAIMS)
        if any(names(row, placement) for row in claim.rows)
    ]


def names(row: Row, placement: str) -> bool:
    """Whether a number of a claim is one of that placement."""
    return placement in re.findall(r"\w+", row.number)


def is_missed(row: Row) -> bool:
    """Whether a number did not come out as predicted."""
    return row.verdict not in ("", HOLDS)


def number_in_words(row: Row) -> tuple[str, ...]:
    """What was measured, the value with its interval, what was predicted, and the verdict."""
    number = placements_as_words(row.number).replace(" less ", " minus ")
    return number, row.measured, placements_as_words(row.text), row.verdict_text


def shared_controls(claims: Sequence[Quoted]) -> dict[tuple[str, ...], list[str]]:
    """Controls that read the same in several claims, with the claims' names.

    Claims about the same runs have the same control, such as that these runs learned.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for quoted in claims:
        for row, words in zip(quoted.rows, quoted.numbers, strict=True):
            if row.role == "control":
                found.setdefault(words, []).append(quoted.claim.claim)
    return {words: of for words, of in found.items() if len(of) > 1}


def meanings_of(placed: Sequence[Placed]) -> dict[str, str]:
    """What the verdicts on the page mean, by the word."""
    claims = [quoted for entry in placed for quoted in entry.claims]
    used = {quoted.claim.claim_verdict for quoted in claims}
    used |= {row.verdict for quoted in claims for row in quoted.rows}
    return {word: meaning for word, meaning in MEANINGS.items() if word in used}


def placements_as_words(number: str) -> str:
    """A number of the board or what is predicted of it, its placements by their titles."""
    return re.sub(
        r"\w+", lambda word: placement_words(word[0]) if word[0] in PLACEMENTS else word[0], number
    )


# ---- What the runs measured


def data_of(run: Run) -> dict[str, Any]:
    """A run's curves, and what was probed, by step.

    steps    at which the stream was probed
    trained  by step: that of the gradient, the same or the last one before
    gradient, rms  of each block, by step
    ratio    of each sublayer, from the first block's attention on, by step
    shares   by step: of each sublayer's sum, the share of the embeddings, of each sublayer so far,
             and of the norms' shifts
    """
    metrics = read_checked_csv(run.directory / "metrics.csv", ("step",))
    gradients = read_gradients(run)
    mixing = read_checked_csv(run.directory / "mixing.csv", MIXING_COLUMNS)
    data: dict[str, Any] = {
        "status": run.outcome,
        "final": number(run.summary.val_loss, 4),
        "frequencies": number(run.summary.corpus.unigram_validation_loss, 4),
        "loss": [],
        "steps": [],
        "trained": [],
    }
    if not metrics.empty and "train_loss" in metrics:
        losses = metrics.dropna(subset=["train_loss"])
        data["loss"] = [
            [int(s), number(v, 4)] for s, v in zip(losses.step, losses.train_loss, strict=True)
        ]
    if gradients.empty:
        return data
    rms = by_layer(gradients, "activation_rms", "output")
    blocks = by_layer(gradients, "grad_norm", "block")
    trained = blocks.index.to_series().reindex(rms.index, method="ffill")
    blocks = blocks.reindex(rms.index, method="ffill")
    ratios = [by_layer(gradients, "branch_ratio", branch) for branch in BRANCHES]
    data["steps"] = [int(step) for step in rms.index]
    data["trained"] = [None if math.isnan(step) else int(step) for step in trained]
    data["rms"] = rms.map(number).to_numpy().tolist()
    data["gradient"] = blocks.map(number).to_numpy().tolist()
    data["ratio"] = [
        [number(table.loc[step, layer]) for layer in rms.columns for table in ratios]
        for step in rms.index
    ]
    data["shares"] = shares_of(mixing, data["steps"])
    return data


def shares_of(mixing: Any, steps: Sequence[int]) -> list[Any]:
    """For each step a row for each sublayer's sum, see `data_of`; null where it was not measured"""
    if mixing.empty:
        return [None for _ in steps]
    shares = mixing[
        (mixing["stat"] == "mixing_share") & mixing["component"].isin(["sum_1", "sum_2"])
    ]
    by_step: dict[int, dict[tuple[int, str], list[Any]]] = {}
    for row in shares.itertuples():
        state = int(row.layer), str(row.component)
        by_step.setdefault(int(row.step), {}).setdefault(state, []).append(number(row.value))
    return [list(by_step[step].values()) if step in by_step else None for step in steps]


def number(value: float | None, digits: int = 3) -> float | None:
    """Few digits, since a page has many; None for what JSON has no number for."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


# ---- The page


def write_atlas(directory: Path, placed: Sequence[Placed]) -> Path:
    """Write atlas.html; returns its path."""
    path = directory / "atlas.html"
    write_atomically(path, hide_home(render_atlas(placed)).encode())
    return path


def render_atlas(placed: Sequence[Placed]) -> str:
    """The page. The template engine escapes everything that comes from files and docstrings."""
    runs = [run for entry in placed for run in entry.runs.values()]
    data = json.dumps({entry.name: entry.data for entry in placed}, separators=(",", ":"))
    time = next((entry.time for entry in placed if entry.time), None)
    return render_template(
        "atlas.html.jinja",
        own="atlas",
        placed=placed,
        twins=twins_of(placed),
        finding=finding_of(placed),
        data=Markup(data.replace("<", "\\u003c")),
        setting=setting_in_words(placed[0].config, runs[0]),
        overview=overview(placed),
        timed=time,
        threads=threads_of(runs),
        meanings=meanings_of(placed),
        shared_controls=shared_controls,
        join_words=join_words,
        provenance=provenance(runs),
    )


def twins_of(placed: Sequence[Placed]) -> dict[str, str]:
    """By placement, those that are the same function under these settings, where there are any."""
    functions = {entry.name: entry.function for entry in placed}
    twins = {
        entry.name: [
            other.title
            for other in placed
            if other is not entry and functions[other.name] == functions[entry.name]
        ]
        for entry in placed
    }
    return {name: join_words(titles) for name, titles in twins.items() if titles}


def threads_of(runs: Sequence[Run]) -> str:
    """How many threads each run had."""
    counts = dict.fromkeys((run.summary.versions or {}).get("threads") for run in runs)
    return " or ".join(count_words(int(count), "thread") for count in counts if count)


def overview(placed: Sequence[Placed]) -> Table:
    """A row for each placement: how its runs ended, and what a block of it costs."""
    losses = [f"loss {setting_words(WARMUP, warmup)}" for warmup in placed[0].runs]
    is_timed = any(entry.time for entry in placed)
    columns = ["placement", *losses, "norms in a block", f"{OWN_PARAMETERS}, in a block"]
    rows = [
        [
            Cell(entry.title, str(place)),
            *map(end_cell, entry.runs.values()),
            number_cell(mean([len(norms) for norms in entry.norms]), ".3g"),
            number_cell(entry.parameters[0] / len(entry.graphs), ",.0f"),
            *([time_cell(entry)] if is_timed else []),
        ]
        for place, entry in enumerate(placed)
    ]
    looks = [look_of(entry.name) for entry in placed]
    columns += [STEP_TIME] if is_timed else []
    chance = [frequencies_of(run) for run in placed[0].runs.values()]
    if any(chance):
        cells = [number_cell(loss, THREE_DIGITS) for loss in chance]
        blank = [Cell("", "")] * (len(columns) - 1 - len(cells))
        rows.append([Cell(FREQUENCIES, str(len(placed))), *cells, *blank])
        looks.append(DOTS)
    return Table(columns, rows, looks=tuple(looks))


def end_cell(run: Run) -> Cell:
    """The last validation loss, or how else the run ended."""
    if run.status == "finished":
        return number_cell(run.summary.val_loss, THREE_DIGITS)
    return Cell(run.outcome, str(math.inf))


def time_cell(entry: Placed) -> Cell:
    """The ratio with its quartiles."""
    if entry.name == REFERENCE:
        return Cell("1.00", "1")
    return Cell(entry.time.text, repr(entry.time.ratio)) if entry.time else Cell("", "")


def frequencies_of(run: Run) -> float | None:
    """The validation loss that token frequencies alone give."""
    return run.summary.corpus.unigram_validation_loss


# What a run did, after the name of its placement.
NOTHING, WORSE, LEARNED = "learned nothing", "ended worse than token frequencies", "learned"
DIVERGED, UNFINISHED = "diverged", "did not finish"
ENDINGS = (NOTHING, WORSE, DIVERGED, UNFINISHED, LEARNED)


def finding_of(placed: Sequence[Placed]) -> str:
    """Who learned without warm-up and with it: a sentence for each."""
    sentences = []
    for warmup in placed[0].runs:
        ended: dict[str, list[str]] = {ending: [] for ending in ENDINGS}
        for entry in placed:
            ended[ending_of(entry.runs[warmup])].append(entry.title)
        learned = ended.pop(LEARNED)
        failed = [f"{join_words(titles)} {ending}" for ending, titles in ended.items() if titles]
        groups = [join_words(failed)] if failed else []
        if learned:
            few = f"{'the other ' if failed else 'all '}{len(learned)}"
            groups.append(f"{few if len(learned) > 1 else learned[0]} {LEARNED}")
        when = setting_words(WARMUP, warmup)
        sentences.append(f"{when[0].upper()}{when[1:]} {'; '.join(groups)}")
    return ". ".join(sentences)


def ending_of(run: Run) -> str:
    """How a run ended beside what token frequencies alone give."""
    if run.status != "finished":
        return DIVERGED if run.status == "diverged" else UNFINISHED
    loss, frequencies = run.summary.val_loss, frequencies_of(run)
    if loss is None or frequencies is None or not run.is_stuck:
        return LEARNED
    return WORSE if loss > (1 + STUCK_TOLERANCE) * frequencies else NOTHING


def setting_in_words(config: GPTConfig, run: Run) -> str:
    """What all runs have in common."""
    tokens = run.setting("tokenizer.name")
    return (
        f"{config.n_layers} blocks of width {config.emb_dim}, windows of {config.context_length} "
        f"{'characters' if tokens == 'char' else f'{tokens} tokens'}, "
        f"{run.setting('trainer.batch_size')} windows a step, {run.setting('trainer.steps')} steps "
        f"of {value_words('optimizer.name', run.setting('optimizer.name'))}, "
        f"learning rate {run.setting('optimizer.lr')}, "
        f"seed {run.seed}"
    )
