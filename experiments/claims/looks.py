"""What was measured of a claim, seed by seed: kept in a file, so that no look is paid twice."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.claims.claim import Claim, Evidence, Point
from experiments.claims.registered import CONFIRMATORY, seeds_of, stamp, utc
from experiments.claims.rule import LOOKS, OPEN, Result, Values, judge, verdict_of

FOLDER = "looks"  # in claims.runs


@dataclass(frozen=True)
class Seed:
    """The measurement of a claim under one seed.

    seconds  of one core that it took, training runs included
    time     UTC, at which it was made; where training runs are read, at which the first ended
    """

    seed: int
    evidence: Evidence
    seconds: float
    time: str

    @classmethod
    def made_now(
        cls, seed: int, evidence: Evidence, seconds: float, oldest_run: float = math.inf
    ) -> "Seed":
        return cls(seed, evidence, seconds, utc(min(time.time(), oldest_run)))

    def line(self) -> str:
        """As it stands in the file. JSON has no nan: numbers that are not finite are null."""
        points = [
            [p.arm, finite_or_none(p.x), finite_or_none(p.value)] for p in self.evidence.points
        ]
        values = {name: finite_or_none(v) for name, v in self.evidence.values.items()}
        content = asdict(self) | {"evidence": {"values": values, "points": points}}
        return json.dumps(content) + "\n"

    @classmethod
    def read(cls, line: str) -> "Seed":
        content = json.loads(line)
        evidence = content["evidence"]
        values = {name: number(value) for name, value in evidence["values"].items()}
        points = [Point(arm, number(x), number(value)) for arm, x, value in evidence["points"]]
        return cls(**content | {"evidence": Evidence(values, points)})


class Looks:
    """The seeds of a claim that were measured, in their order.

    folder      claims.runs
    first_seed  claims.first_seed
    fresh       whether what an earlier board measured is left aside
    """

    def __init__(self, claim: Claim, folder: Path, first_seed: int | None, fresh: bool) -> None:
        self.claim, self.seeds = claim, seeds_of(claim, first_seed)
        self.file = folder / FOLDER / f"{claim.name}-{claim.hash[:8]}.jsonl"
        self.measured: dict[int, Seed] = {}
        self.failed = False  # its measurement raised an error
        if not fresh:
            self.measured = {s.seed: s for s in read_lines(self.file) if s.seed in self.seeds}

    def __len__(self) -> int:
        """How many of its seeds, from the first on, were measured."""
        return next(
            (i for i, seed in enumerate(self.seeds) if seed not in self.measured), len(self.seeds)
        )

    def __iter__(self) -> Iterator[Seed]:
        return (self.measured[seed] for seed in self.seeds[: len(self)])

    def add(self, measured: Seed) -> None:
        """Keep the measurement of a seed, at once in the file."""
        self.measured[measured.seed] = measured
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # After a line that was cut this one would be lost with it.
        is_cut = self.file.is_file() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            file.write("\n" * is_cut + measured.line())

    @property
    def values(self) -> Values:
        """The numbers of each prediction, in the order of the seeds."""
        names = [p.name for p in self.claim.predictions]
        return {name: [s.evidence.values.get(name, math.nan) for s in self] for name in names}

    @property
    def results(self) -> list[Result]:
        return judge(self.claim, self.values)

    @property
    def verdict(self) -> str:
        return verdict_of(self.claim, self.results)

    @property
    def next_look(self) -> int | None:
        """The number of seeds of its next look; None where it needs none."""
        if self.failed or (len(self) >= LOOKS[0] and self.verdict != OPEN):
            return None
        return next((look for look in LOOKS if look > len(self)), None)

    def missing(self, look: int) -> list[int]:
        """The seeds that are to be measured for a look."""
        return [seed for seed in self.seeds[:look] if seed not in self.measured]

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self)

    @property
    def seconds_a_seed(self) -> float:
        return self.seconds / max(1, len(self))

    @property
    def may_close(self) -> bool:
        """Whether its next look would decide it, if it finds what was found so far."""
        judged = [r for r in self.results if r.verdict == OPEN]
        return bool(judged) and all(r.closes_at == self.next_look for r in judged)

    @property
    def stamp(self) -> str:
        """Whether what was measured confirms, or explores."""
        times = [s.time for s in self]
        return stamp(self.claim, self.seeds, min(times)) if times else CONFIRMATORY


def read_lines(file: Path) -> Iterator[Seed]:
    """The seeds in a file; a line that was cut when its process was killed is left out."""
    if not file.is_file():
        return
    for line in file.read_text().splitlines():
        try:
            yield Seed.read(line)
        except (ValueError, KeyError, TypeError):
            continue


def finite_or_none(value: float) -> float | None:
    """The value; None where it is not finite."""
    return value if math.isfinite(value) else None


def number(value: float | None) -> float:
    """The value; nan for None."""
    return math.nan if value is None else value
