"""What was registered of each claim before it was measured, and on which seeds.

registered.json lists the registrations of each claim, the last one in force: the hash of its
predictions, setting and measurement, the block of seeds, the time and the commit. A block is used
once: a claim that changes moves to the next, and what came out before stays in the file.
"""

import json
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from experiments.claims.claim import Claim
from experiments.claims.rule import LOOKS
from experiments.machine.files import write_atomically

FILE = "registered.json"
# Seeds below the first block were used to find out what can be measured, and how.
FIRST_BLOCK, BLOCK_SIZE = 1000, 100

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"


@dataclass(frozen=True)
class Registration:
    """One registration of a claim.

    hash    see Claim.hash
    block   of seeds, from 1
    time    UTC
    commit  of the repository that it was registered from
    result  what came out, where the claim was registered anew since; else ""
    """

    hash: str
    block: int
    time: str
    commit: str
    result: str = ""

    @property
    def seeds(self) -> range:
        first = FIRST_BLOCK + (self.block - 1) * BLOCK_SIZE
        return range(first, first + LOOKS[-1])


def registrations() -> dict[str, list[Registration]]:
    """Those of each claim, the last one in force."""
    text = resources.files("experiments.claims").joinpath(FILE).read_text()
    return {
        name: [Registration(**r) for r in entries] for name, entries in json.loads(text).items()
    }


def seeds_of(claim: Claim, first_seed: int | None = None) -> range:
    """The seeds of a claim: from `first_seed`, or those of its registered block."""
    if first_seed is not None:
        return range(first_seed, first_seed + LOOKS[-1])
    entries = registrations().get(claim.name)
    # Without a registration what is measured is exploratory, and takes no seeds of a block.
    return entries[-1].seeds if entries else range(LOOKS[-1])


def stamp(claim: Claim, seeds: range, measured: str) -> str:
    """Whether a measurement confirms: whether the claim stood, on these seeds, before it was made.

    measured  the time (UTC) of the first measurement
    """
    entries = registrations().get(claim.name)
    if not entries:
        return EXPLORATORY
    entry = entries[-1]
    stands = entry.hash == claim.hash and entry.seeds == seeds and entry.time <= measured
    return CONFIRMATORY if stands else EXPLORATORY


def earlier(claim: Claim) -> list[Registration]:
    """The registrations that a claim had before the one in force."""
    return registrations().get(claim.name, [])[:-1]


def register(
    claims: list[Claim], results: dict[str, str], file: Path, commit: str
) -> dict[str, Registration]:
    """Register new and changed claims in `file`; returns these registrations.

    results  what came out of each claim so far, kept with the registration that is replaced
    """
    known = registrations()
    new: dict[str, Registration] = {}
    for claim in claims:
        entries = known.setdefault(claim.name, [])
        if entries and entries[-1].hash == claim.hash:
            continue
        if entries:
            last = entries.pop()
            result = results.get(claim.name, "")
            entries.append(Registration(**asdict(last) | {"result": result}))
        block = entries[-1].block + 1 if entries else 1
        new[claim.name] = Registration(claim.hash, block, utc(time.time()), commit)
        entries.append(new[claim.name])
    content = {name: [asdict(entry) for entry in known[name]] for name in sorted(known)}
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())
    return new


def utc(seconds: float) -> str:
    """A time in seconds since 1970 as UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def commit_of(folder: Path) -> str:
    """The commit of the repository that `folder` is in, with + where files differ; "" in none."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
