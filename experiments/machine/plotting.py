"""matplotlib as it is by itself, whatever a user has set up for other work.

Import this before anything of matplotlib: a notebook's MPLBACKEND can name a module that is absent
here, and a matplotlibrc can hold anything. Pictures need no backend but the one that writes files.
"""

import contextlib
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


@contextmanager
def _alone() -> Iterator[None]:
    """Within: matplotlib finds no settings, in the environment nor in the current folder."""
    has_file = os.path.exists("matplotlibrc")  # which comes before any other
    with (
        environment({"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}),
        contextlib.chdir(os.path.dirname(__file__)) if has_file else contextlib.nullcontext(),
    ):
        yield


with _silent(), _alone():
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
