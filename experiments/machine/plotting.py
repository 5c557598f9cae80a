"""matplotlib as it is by itself, whatever a user has set up for other work.

Import this before anything of matplotlib: a notebook's MPLBACKEND can name a module that is absent
here, and a matplotlibrc can hold anything. Pictures need no backend but the one that writes files.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experiments.machine.environment import environment


@contextmanager
def _silent() -> Iterator[None]:
    """Within: matplotlib says nothing of its folders, its fonts and odd numbers."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


with _silent(), environment({"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}):
    import matplotlib as mpl
    import matplotlib.figure  # which looks for fonts


@contextmanager
def plain_matplotlib(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within: figures look as matplotlib's own defaults say, and where it says more, `style`."""
    with _silent():
        look: dict[Any, Any] = {**mpl.rcParamsDefault, **(style or {})}
        del look["backend"]
        with mpl.rc_context(look):
            yield
