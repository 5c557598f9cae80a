"""A board of claims, read from its files: claims.csv, measurements.csv and summary.json."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.histories import parse_csv
from experiments.analysis.runs import Run
from experiments.analysis.verdicts import (
    ALPHA,
    BLOCKS,
    CONTRADICTIONS,
    DISTANCES,
    HOLDS,
    INVALID,
    NO_SOURCE,
    OPEN,
    RATE,
    SIGN,
)
from experiments.report.drawing import plural
from gpt import ConfigError

CLAIMS, MEASUREMENTS = "claims.csv", "measurements.csv"
# Columns of either file that hold numbers. A text may look like one: a commit is digits at times.
NUMBERS = (
    *("predicted_low", "predicted_high", "margin", "measured", "sd", "ci_low", "ci_high", "look"),
    *("first_seed", "seeds", "seconds", "x", "seed", "value", "upper"),
)
TEXTS = (
    *("claim", "block", "title", "finding", "paper", "arxiv", "where", "read", "statement"),
    *("setting", "distance", "meaning", "remark", "claim_verdict", "evidence", "hash"),
    *("registered", "registered_commit", "commit", "earlier", "command"),
)
MOST_PLACES = 4  # of a number that is smaller than its last place would be
FINDINGS = "Findings of this project"

Frame = pd.DataFrame


def bound_text(value: float) -> str:
    """A bound of a region: four digits, since it may be a logarithm."""
    return f"{value:.4g}"


@dataclass(frozen=True)
class Row:
    """A prediction with what was measured; the columns of claims.csv that are about it.

    low, high  what is claimed of a number or a share, to infinity where it has no end
    margin     of a sign
    mean       over the seeds of its verdict; of a paired rate, the share of those that differ
    values     the number under each seed, those after the verdict's among them
    seeds      that its verdict was read from
    """

    number: str
    text: str
    kind: str
    role: str
    low: float
    high: float
    margin: float
    is_paired: bool
    mean: float
    ci_low: float
    ci_high: float
    verdict: str
    closes_at: str
    seeds: int
    values: tuple[float, ...]

    @property
    def claimed(self) -> str:
        """The region, in numbers."""
        if self.kind == SIGN:
            return f"above {bound_text(self.margin)}"
        if self.is_paired:
            return "above 0.5"
        if math.isinf(self.low):
            return f"at most {bound_text(self.high)}"
        if math.isinf(self.high):
            return f"at least {bound_text(self.low)}"
        return f"{bound_text(self.low)} to {bound_text(self.high)}"

    @property
    def is_judged(self) -> bool:
        """Whether the claim's verdict hangs on it; controls and shown numbers aside."""
        return self.role == "prediction"

    @property
    def kind_text(self) -> str:
        return "paired rate" if self.is_paired else self.kind

    @property
    def measured(self) -> str:
        """The mean with its interval, rounded to a tenth of half the interval."""
        mean, low, high = self.mean, self.ci_low, self.ci_high
        if math.isnan(mean):
            return "not measured"
        if math.isnan(low) or low == high:
            return f"{mean:.3g}"
        places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
        form = f"z.{places}f"
        if places > MOST_PLACES and max(map(abs, (mean, low, high))) < 10**-MOST_PLACES:
            form = ".2g"  # such as 1.5e-06
        return f"{mean:{form}} ({low:{form}} to {high:{form}})"

    @property
    def counted(self) -> str:
        """Of a rate, the seeds that it is the share of."""
        if self.kind != RATE:
            return ""
        of_verdict = self.values[: self.seeds]
        first = sum(value > 0 for value in of_verdict)
        if self.is_paired:
            differing = sum(value != 0 for value in of_verdict)
            return f"{first} of the {differing} seeds that differ"
        return f"{first} of {len(of_verdict)} seeds"

    @property
    def verdict_text(self) -> str:
        """The verdict, and of an open one the seeds that should decide it."""
        if self.verdict != OPEN or not self.closes_at:
            return self.verdict
        if self.closes_at.isdecimal():
            return f"{OPEN}: {self.closes_at} seeds may decide"
        return f"{OPEN}: {self.closes_at}"


@dataclass(frozen=True)
class BoardClaim:
    """A claim: columns of claims.csv, "" where they are empty; its predictions; what to draw.

    points  the rows of measurements.csv that are points and guides
    """

    claim: str
    block: str
    title: str
    finding: str
    paper: str
    arxiv: str
    where: str
    read: str
    statement: str
    setting: str
    distance: str
    meaning: str
    remark: str
    claim_verdict: str
    evidence: str
    hash: str
    registered: str
    registered_commit: str
    commit: str
    earlier: str
    command: str
    first_seed: int
    seeds: int
    seconds: float
    rows: tuple[Row, ...]
    points: Frame

    @property
    def own(self) -> bool:
        return self.finding == "own"

    @property
    def judged(self) -> tuple[Row, ...]:
        """Predictions and controls; without numbers that are only shown."""
        return tuple(row for row in self.rows if row.kind)

    @property
    def source(self) -> str:
        return "this project" if self.own else self.paper

    @property
    def setting_text(self) -> str:
        """The distance of the setting from the paper's."""
        return "setting: our own" if self.own else f"setting: {self.distance}"

    @property
    def address(self) -> str:
        """Of the paper; "" without an arXiv number."""
        return self.arxiv and f"https://arxiv.org/abs/{self.arxiv.removeprefix('arXiv ')}"

    @property
    def verdict_text(self) -> str:
        """The verdict; of a contradiction, in which setting."""
        if self.claim_verdict not in CONTRADICTIONS:
            return self.claim_verdict
        where = "in this setting" if self.own else DISTANCES.get(self.distance, self.distance)
        return f"{self.claim_verdict} {where}"

    @property
    def seeds_text(self) -> str:
        """The block of seeds that it was measured on."""
        return f"{self.first_seed} to {self.first_seed + self.seeds - 1}" if self.seeds else "none"

    @property
    def kinds(self) -> str:
        """Of its predictions, each once."""
        return ", ".join(dict.fromkeys(row.kind_text for row in self.rows if row.is_judged))


@dataclass(frozen=True)
class Board:
    """The claims of a board, in its order, and the run that measured them."""

    claims: tuple[BoardClaim, ...]
    run: Run

    @property
    def published(self) -> list[BoardClaim]:
        return [claim for claim in self.claims if not claim.own]

    @property
    def sections(self) -> list[tuple[str, list[BoardClaim]]]:
        """Headings with their claims: the blocks, and after them this project's own findings."""
        blocks = dict.fromkeys([*BLOCKS, *(claim.block for claim in self.claims)])
        sections = [
            (BLOCKS.get(block, block), [c for c in self.published if c.block == block])
            for block in blocks
        ]
        sections.append((FINDINGS, [claim for claim in self.claims if claim.own]))
        return [(heading, claims) for heading, claims in sections if claims]

    @property
    def counts(self) -> str:
        """How many published claims have each verdict."""
        verdicts = [claim.claim_verdict for claim in self.published]
        holds, opened, invalid, unread = map(verdicts.count, (HOLDS, OPEN, INVALID, NO_SOURCE))
        fails = sum(verdict in CONTRADICTIONS for verdict in verdicts)
        parts = [
            (holds, "holds" if holds == 1 else "hold"),
            (fails, "does not" if fails == 1 else "do not"),
            (opened, "is open" if opened == 1 else "are open"),
            (invalid, "has an invalid test" if invalid == 1 else "have invalid tests"),
            (unread, "without a verdict, as nobody could read the source"),
        ]
        counts = ", ".join(f"{count} {words}" for count, words in parts if count)
        return f"Of {plural(len(verdicts), 'published claim')}: {counts or 'none'}"

    @property
    def expected_errors(self) -> str:
        """The bound on the number of wrong verdicts."""
        verdicts = [claim.claim_verdict for claim in self.published]
        decided = sum(verdict not in (OPEN, NO_SOURCE) for verdict in verdicts)
        return (
            f"Each verdict is wrong with a probability of at most {ALPHA:g}: of "
            f"{plural(decided, 'verdict')} at most {ALPHA * decided:.2g} "
            f"{'is' if decided <= 1 / ALPHA else 'are'} expected to be wrong"
        )

    @property
    def evidence(self) -> str:
        """How many claims were measured as registered."""
        kinds = [claim.evidence for claim in self.published]
        confirmatory = kinds.count("confirmatory")
        if confirmatory == len(kinds):
            return "All are confirmatory: registered, with their seeds, before they were measured"
        return (
            f"{confirmatory} of {len(kinds)} are confirmatory: registered, with their seeds, "
            "before they were measured. The others are exploratory"
        )


def read_board(directory: Path) -> Board:
    """The board in a directory. Raises ConfigError for files that are not of one."""
    rows, points = read_table(directory / CLAIMS), read_table(directory / MEASUREMENTS)
    try:
        claims = [
            claim_of(group, points[points["claim"] == name] if len(points) else points)
            for name, group in rows.groupby("claim", sort=False)
        ]
    except KeyError as error:
        valid = f"{CLAIMS} and {MEASUREMENTS} have no column {error}: measure the claims again"
        raise ConfigError("DIR", str(directory), valid) from None
    return Board(tuple(claims), Run.read(directory))


def read_table(path: Path) -> Frame:
    """A table whose texts are texts and whose numbers are numbers; empty without a file."""
    if not path.is_file():
        return Frame()
    with path.open("rb") as file:
        table = parse_csv(file, dtype=str, keep_default_na=False)
    numbers = [name for name in NUMBERS if name in table]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    return table


def claim_of(group: Frame, points: Frame) -> BoardClaim:
    """A claim from its rows of both tables."""
    first: dict[str, Any] = {str(name): value for name, value in group.iloc[0].items()}
    numbers = points[points["kind"] == "number"] if len(points) else points
    texts = {name: first[name] for name in TEXTS}
    if first["claim_verdict"] == NO_SOURCE:  # then no number has a verdict either
        group = group.assign(verdict="")
    return BoardClaim(
        **texts,
        first_seed=int(first["first_seed"]),
        seeds=int(first["seeds"]),
        seconds=first["seconds"],
        rows=tuple(row_of(row, numbers) for _, row in group.iterrows()),
        points=points if points.empty else points[points["kind"] != "number"],
    )


def row_of(row: "pd.Series[Any]", numbers: Frame) -> Row:
    """A prediction from its row of claims.csv and its numbers by seed."""
    values: list[float] = []
    if len(numbers):
        of_row = numbers[numbers["arm"] == row["number"]].sort_values("seed")
        values = of_row["value"].tolist()
    seeds = int(row["seeds"] if math.isnan(row["look"]) else row["look"])
    is_paired = row["paired"] == "True"
    return Row(
        row["number"],
        row["prediction"],
        row["kind"],
        row["role"],
        or_else(row["predicted_low"], -math.inf),
        or_else(row["predicted_high"], math.inf),
        or_else(row["margin"], 0.0),
        is_paired,
        share_of_first(row["measured"], row["sd"], seeds) if is_paired else row["measured"],
        row["ci_low"],
        row["ci_high"],
        row["verdict"],
        row["closes_at"],
        seeds,
        tuple(values),
    )


def or_else(value: float, other: float) -> float:
    """The value; the other one where its cell is empty."""
    return other if math.isnan(value) else value


def share_of_first(mean: float, sd: float, seeds: int) -> float:
    """Of the seeds in which one arm alone succeeded, the share in which it is the first.

    A seed counts 1 or -1 where one arm alone succeeded, else 0: their squares add up to the number
    of those that differ.
    """
    differing = round(sd**2 * (seeds - 1) + seeds * mean**2) if seeds > 1 else 0
    return round((differing + seeds * mean) / 2) / differing if differing else math.nan
