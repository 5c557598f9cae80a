"""The numbers that the notes of a lecture on chapter 4 print, and how near a number must come.

Raschka 2024, Build a Large Language Model (From Scratch), chapter 4. The notes printed them with
PyTorch 2.8; the tolerances are those within which PyTorch versions agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.analysis.lecture import Check

BOOK_SEED = 123
SENTENCES = ("Every effort moves you", "Every day holds a")
PROMPT = "Hello, I am"
SEEDED = f"printed with PyTorch 2.8, seed {BOOK_SEED}"


@dataclass(frozen=True)
class Noted:
    """A number of the notes.

    value      a number; a list of numbers; a tuple, which is a shape; or a text
    source     the section of the book, and what else it depends on
    tolerance  the largest difference of a number; 0: none
    relative   whether that is a share of the number
    form       of each number, as the notes print it
    ends       whether the list is the first and the last three of a longer one
    """

    value: Any
    source: str
    tolerance: float = 0.0
    relative: bool = False
    form: str = ","
    ends: bool = False

    def check(self, step: str, what: str, here: Any) -> Check:
        """The number beside the one computed here, of the same kind."""
        share = "relative " if self.relative else ""
        return Check(
            step,
            what,
            self.text(self.value),
            self.text(here),
            f"{share}{self.tolerance:g}",
            "yes" if self.agrees(here) else "differs",
            self.source,
        )

    def agrees(self, here: Any) -> bool:
        """Whether a number differs by no more than the tolerance."""
        if not self.tolerance:
            return bool(self.value == here)
        share, most = (self.tolerance, 0.0) if self.relative else (0.0, self.tolerance)
        pairs = zip(as_list(self.value), as_list(here), strict=True)
        return all(math.isclose(b, a, rel_tol=share, abs_tol=most) for a, b in pairs)

    def text(self, value: Any) -> str:
        """A value as it is shown."""
        if isinstance(value, str | tuple):
            return str(value)
        if isinstance(value, int | float):
            return format(value, self.form)
        numbers = [str(v) if isinstance(v, int) else format(v, self.form) for v in value]
        middle = ["..."] if self.ends else []
        half = len(numbers) // 2
        return f"[{', '.join(numbers[:half] + middle + numbers[half:])}]"


def as_list(value: Any) -> Sequence[float]:
    """A number, or several, as a list."""
    return value if isinstance(value, list) else [value]


TOKENS = {
    "Every effort moves you": Noted([6109, 3626, 6100, 345], "4.1"),
    "Every day holds a": Noted([6109, 1110, 6622, 257], "4.1"),
    PROMPT: Noted([15496, 11, 314, 716], "4.7"),
}
LAYER_NORM = (
    Noted([0.5528, 1.0693, -0.0223, 0.2656, -1.8654], f"4.2; {SEEDED}", 1e-4, form=".4f"),
    Noted([0.9087, -1.3767, -0.9564, 1.1304, 0.2940], f"4.2; {SEEDED}", 1e-4, form=".4f"),
)
FEED_FORWARD_SHAPE = Noted((2, 3, 768), "4.3")
HIDDEN_WIDTH = Noted(3072, "4.3")
SHORTCUT = {
    "without_shortcut": Noted(
        [
            0.00020173587836325169,
            0.0001201116101583466,
            0.0007152041071094573,
            0.0013988735154271126,
            0.005049645435065031,
        ],
        f"4.4; {SEEDED}",
        1e-5,
        relative=True,
        form=".6g",
    ),
    "with_shortcut": Noted(
        [
            0.22169791162014008,
            0.20694106817245483,
            0.32896995544433594,
            0.2665732204914093,
            1.3258540630340576,
        ],
        f"4.4; {SEEDED}",
        1e-5,
        relative=True,
        form=".6g",
    ),
}
BLOCK_SHAPE = Noted((2, 4, 768), "4.5")
PARAMETERS = Noted(163_009_536, "4.6")
TIED_PARAMETERS = Noted(124_412_160, "4.6")
MEBIBYTES = Noted(621.83, "4.6", 0.01, form=".2f")
EMBEDDING_SHAPE = Noted((50257, 768), "4.6")


def logits(*values: float, section: str) -> Noted:
    """The first and the last three logits of a token."""
    return Noted(list(values), f"{section}; {SEEDED}", 1e-3, form=".4f", ends=True)


SKELETON_LOGITS = logits(-1.2034, 0.3201, -0.7130, -1.5548, -0.2390, -0.4667, section="4.1")
FIRST_LOGITS = logits(0.3613, 0.4222, -0.0711, 0.3483, 0.4661, -0.2838, section="4.6")
LAST_LOGITS = logits(-0.1565, 0.3926, 0.3288, 1.2630, -0.1858, 0.0388, section="4.6")
# Millions of parameters, by the names in conf/model: the sizes that OpenAI published.
SIZES = {
    name: Noted(millions, "4.6, exercise 4.2", 0.5, form=",.0f")
    for name, millions in (
        ("gpt2_124m", 124),
        ("gpt2_355m", 355),
        ("gpt2_774m", 774),
        ("gpt2_1558m", 1558),
    )
}
GREEDY_TOKENS = Noted([27018, 24086, 47843, 30961, 42348, 7267], f"4.7; {SEEDED}")
GREEDY_TEXT = Noted("Hello, I am Featureiman Byeswickattribute argue", f"4.7; {SEEDED}")


def gelu_of_the_notes(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
