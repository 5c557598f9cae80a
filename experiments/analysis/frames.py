"""Recorded runs as DataFrames, see `experiments.analysis.load`."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.analysis.histories import Frame, read_gradients
from experiments.analysis.runs import Run, Value, result_columns, runs_in

log = logging.getLogger(__name__)

KEY = ["step", "layer", "component", "stat"]  # which no two rows of a run share
LARGEST = 2**31  # a step or a layer beyond it is nothing that a run has counted
# By the types of a column's values, of which None is none: each of these has a missing value.
DTYPES = {bool: "boolean", int: "Int64", float: "float64", str: "string"}


class Frames(NamedTuple):
    """What `load` returns."""

    runs: Frame
    gradients: Frame


def load_frames(
    folders: Sequence[str | os.PathLike[str]],
    stats: Collection[str] | None,
    components: Collection[str] | None,
) -> Frames:
    """As `experiments.analysis.load`."""
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is not a directory of runs")
    runs = runs_in(paths)
    chosen = {"stat": stats, "component": components}
    return Frames(runs_frame(runs), gradients_frame(runs, chosen))


def runs_frame(runs: Sequence[Run]) -> Frame:
    """A row for each run."""
    rows: list[dict[str, Value]] = [
        {
            "run": str(run.directory),
            **run.settings,
            "seed": run.seed,
            "status": run.status,
            "divergence": run.divergence,
            "reason": run.reason,
            **result_columns(run.summary),
        }
        for run in runs
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: typed_column([row.get(name) for row in rows]) for name in names})


def typed_column(values: Sequence[Value]) -> "pd.Series[Any]":
    """One setting or result of each run, None where it is missing, in the type that it has."""
    kinds = {type(value) for value in values if value is not None} or {float}
    kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else object
    if kind in (int, float) and any(abs(v) >= 2**63 for v in values if isinstance(v, int)):
        kind = object  # which no run of ours has
    return pd.Series(values, dtype=DTYPES.get(kind, "object"))


def gradients_frame(runs: Sequence[Run], chosen: Mapping[str, Collection[str] | None]) -> Frame:
    """The rows of the runs' gradients.csv, one file below the other.

    chosen  the names to keep, by column; None: all of them
    """
    parts = [no_rows()]
    if all(names is None or names for names in chosen.values()):
        parts += [gradients_of(run, chosen) for run in runs]
    for name in ("run", "component", "stat"):  # categories only stay so where all parts agree
        known = list(dict.fromkeys(text for part in parts for text in part[name].cat.categories))
        for part in parts:
            part[name] = part[name].cat.set_categories(known)
        for absent in sorted(set(chosen.get(name) or ()) - set(known)):
            log.warning("no gradients.csv has the %s %r", name, absent)
    return pd.concat(parts, ignore_index=True)


def gradients_of(run: Run, chosen: Mapping[str, Collection[str] | None]) -> Frame:
    """The chosen rows of one run; of repeated ones the last counts."""
    rows = read_gradients(run)
    if rows.empty:
        return no_rows()
    keep = rows[["step", "layer"]].abs().max(axis=1) < LARGEST
    for name, names in chosen.items():
        if names is not None:
            keep &= rows[name].isin(names)
    rows = rows.loc[keep, [*KEY, "value"]].drop_duplicates(KEY, keep="last")
    for name in ("component", "stat"):
        rows[name] = rows[name].cat.remove_unused_categories()
    rows.insert(0, "run", pd.Series(str(run.directory), index=rows.index, dtype="category"))
    return rows.astype(no_rows().dtypes[["step", "layer", "value"]].to_dict())


def no_rows() -> Frame:
    """The table of gradients without any row."""
    names = {name: pd.Categorical([], categories=[]) for name in ("run", "component", "stat")}
    numbers = {"step": np.int64, "layer": np.int32, "value": np.float64}
    columns = names | {name: np.array([], dtype) for name, dtype in numbers.items()}
    return Frame({name: columns[name] for name in ("run", *KEY, "value")})
