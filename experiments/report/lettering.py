"""The words in a picture, which may be anybody's, and what the libraries say while it is drawn."""

import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from experiments.machine.console import printable

log = logging.getLogger(__name__)

MOST_LINES = 3  # of a label


@contextmanager
def warnings_of_ours(name: str) -> Iterator[None]:
    """Within: what the libraries warn of while a figure is drawn becomes one line each of ours."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, collector = logging.getLogger("matplotlib"), Collector(logging.WARNING)
    propagated, logger.propagate = logger.propagate, False
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(collector)
    try:
        # What overflows in a picture is not finite there, and is left out.
        with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            # Between libraries of different ages, and of no picture.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
        logger.propagate = propagated
    messages += [str(warning.message) for warning in caught]
    for message in dict.fromkeys(" ".join(message.split()) for message in messages):
        log.warning("figure %s: %s", name, message)


def plain_text(figure: Figure) -> None:
    """Leave all words in a figure as they are: a $ begins no formula, no letter is a box."""
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    numbers = {id(t) for a in axes for t in (*a.get_ticklabels(which="both"), a.get_offset_text())}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            text.set_parse_math(False)
            text.set_text(in_font(text.get_text()))


def tick_text(name: object, width: int = 40) -> str:
    """A name beside an axis, where numbers may be formulas."""
    return fold(str(name), width).replace("$", r"\$")


def in_font(text: str) -> str:
    """`text` with escapes for the characters that the font of all figures does not have."""
    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c == "\n" or font.get_char_index(ord(c)) else c.encode("unicode_escape").decode()
        for c in printable(text)
    )


def fold(text: str, width: int) -> str:
    """`text` on lines of at most `width` characters; of many lines the first and the last ones."""
    lines = textwrap.wrap(in_font(text), width)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"\u2026{lines[-1]}"]
    return "\n".join(lines)
