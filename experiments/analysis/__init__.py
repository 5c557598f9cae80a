"""Recorded runs, read and compared. Draws nothing."""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.analysis.frames import Frames


def load(
    *folders: str | os.PathLike[str],
    stats: Collection[str] | None = None,
    components: Collection[str] | None = None,
) -> "Frames":
    """The runs in some folders, of a run or a sweep each, and what they measured by layer.

    Returns two DataFrames, `runs` and `gradients`:

    runs       a row for each run: `run`, its directory; every setting that can change a result, by
               its dotted name, such as `optimizer.lr`; `seed`, `status`, `divergence` and `reason`;
               and the results, under the names of runs.csv. Whole numbers are Int64, yes and no
               boolean, text string, all else float64; what was not measured is missing
    gradients  a row for each value of gradients.csv: `run`, step, layer, component, stat, value.
               `run`, component and stat are categories

    stats       of gradients: keep these statistics alone; none of the files is read for ()
    components  of gradients: keep these components alone, such as ["block"]

    A row of gradients takes 24 bytes, and one file at a time is read whole before its rows are
    chosen: a default run has 34,000 rows, 200 such runs take 160 MB, and their blocks' gradient
    norms alone 15 MB.

    A run in several of the folders counts once, and so do repetitions of equal settings and seed.
    A file that is torn or cannot be read costs a warning, and what it holds before the tear is
    kept. Raises NotADirectoryError for a folder that is none.
    """
    from experiments.analysis.frames import load_frames  # loads pandas, which a run can do without

    return load_frames(folders, stats, components)
