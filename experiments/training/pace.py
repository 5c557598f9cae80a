"""Whether training has become much slower than it was."""

from dataclasses import dataclass, field
from statistics import median

SHARE = 1 / 3  # of the usual speed, below which a run is slow
# Of a stretch that is judged, at least. One slow row, as of a step in which a laptop was suspended,
# is outvoted by the others.
ROWS, SECONDS = 5, 10.0


@dataclass
class Pace:
    """The speeds of a run's recorded rows in this process, in tokens per second.

    earlier  of the stretches that were judged
    present  of the stretch since then, which took `seconds` so far
    told     whether the run was found slow once
    """

    earlier: list[float] = field(default_factory=list)
    present: list[float] = field(default_factory=list)
    seconds: float = 0.0
    told: bool = False

    def slump(self, speed: float, seconds: float) -> tuple[float, float] | None:
        """Add a row; the usual and the present speed where the run is found slow, once.

        Both are medians, of the rows before this stretch and of those in it. None before there are
        two stretches.
        """
        self.present.append(speed)
        self.seconds += seconds
        if len(self.present) < ROWS or self.seconds < SECONDS:
            return None
        now = median(self.present)
        usual = median(self.earlier or self.present)
        self.earlier += self.present
        self.present, self.seconds = [], 0.0
        if self.told or now >= SHARE * usual:
            return None
        self.told = True
        return usual, now
