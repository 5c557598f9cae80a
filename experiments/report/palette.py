"""What each placement looks like, on every page and in every picture, for good.

A colour is a pair of shades of one hue: the first for a light page, the second for a dark one, each
with a contrast of at least 4.5:1 to it (WCAG 2, for text). The placements that most often meet
have a colour that differs from the others' for the colour-blind, and in grey; the rest share five
colours and differ in dash and mark. Nothing here changes when a placement is added.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex

from experiments.analysis.runs import PLACEMENT, Value

LIGHT_PAGE, DARK_PAGE = "#ffffff", "#16191d"

BLUE, VERMILION, GREY = ("#0063b4", "#66a1e3"), ("#c0521b", "#ff9a61"), ("#4e5156", "#85898f")
GREEN, PURPLE, OCHRE = ("#004c1a", "#7cf99c"), ("#500378", "#edb6ff"), ("#785200", "#b18400")
TEAL, ROSE = ("#006458", "#41d0c1"), ("#aa237e", "#f962c1")
SHARED = (GREEN, PURPLE, OCHRE, TEAL, ROSE)

SOLID: tuple[float, ...] = ()
DASHED, DOTTED, DASH_DOT = (5.0, 1.5), (1.0, 1.2), (6.0, 1.5, 1.0, 1.5)
DASH_DOT_DOT, LONG = (6.0, 1.5, 1.0, 1.5, 1.0, 1.5), (11.0, 2.5)
DASHES = (SOLID, DASHED, DOTTED, DASH_DOT, DASH_DOT_DOT, LONG)

# Of numbers, dark to light.
LIGHT_SCALE = LinearSegmentedColormap.from_list(
    "light", ("#0a1a5c", "#6b2a8c", "#a83a6a", "#bf521b")
)
DARK_SCALE = LinearSegmentedColormap.from_list("dark", ("#528ccc", "#f28abd", "#ffe1a8"))


@dataclasses.dataclass(frozen=True)
class Look:
    """How a line and its points are drawn.

    light, dark  the colour on a light and on a dark page, as #rrggbb
    dash         lengths of strokes and gaps in widths of the line; empty: solid
    mark         of a point, by Matplotlib's letter
    """

    light: str
    dark: str
    dash: tuple[float, ...] = SOLID
    mark: str = "o"

    @property
    def linestyle(self) -> Any:
        """The dash as Matplotlib takes it."""
        return (0, self.dash) if self.dash else "-"

    def varied(self, level: int) -> "Look":
        """The same colour and mark for another level of a second factor: the first keeps its dash.

        Six dashes; the seventh level looks as the first.
        """
        own = DASHES.index(self.dash)
        return dataclasses.replace(self, dash=DASHES[(own + level) % len(DASHES)])


LOOKS = {
    "pre_ln": Look(*BLUE, SOLID, "o"),
    "post_ln": Look(*VERMILION, SOLID, "s"),
    "no_norm": Look(*GREY, SOLID, "X"),
    "peri_ln": Look(*GREEN, SOLID, "^"),
    "deepnorm": Look(*PURPLE, SOLID, "D"),
    "sandwich": Look(*GREEN, DASHED, "v"),
    "keel": Look(*PURPLE, DASHED, "^"),
    "ln_scaling": Look(*OCHRE, DASHED, "o"),
    "hybrid": Look(*ROSE, DASHED, "s"),
    "reordered": Look(*GREEN, DOTTED, "D"),
    "admin": Look(*PURPLE, DOTTED, "v"),
    "mix_ln": Look(*OCHRE, DOTTED, "P"),
    "hybrid_star": Look(*ROSE, DOTTED, "o"),
    "normformer": Look(*GREEN, DASH_DOT, "s"),
    "sub_ln": Look(*PURPLE, DASH_DOT, "o"),
    "two_hop": Look(*OCHRE, DASH_DOT, "D"),
    "residual_dual": Look(*TEAL, DASH_DOT, "v"),
    "span": Look(*GREEN, DASH_DOT_DOT, "o"),
    "siamese": Look(*PURPLE, DASH_DOT_DOT, "s"),
    "per_block": Look(*OCHRE, DASH_DOT_DOT, "v"),
    "b2t": Look(*TEAL, DASH_DOT_DOT, "D"),
}
OTHER_MARKS = "<>hp*d"  # of placements that are not listed
# Of whatever is no placement, such as an optimizer; then the same with other dashes.
CATEGORIES = tuple(
    Look(*colour, SOLID, mark)
    for colour, mark in zip(
        (BLUE, VERMILION, GREEN, PURPLE, OCHRE, GREY, ROSE, TEAL), "osD^vXPp", strict=True
    )
)


def look_of(placement: str) -> Look:
    """The look of a placement; of one that is not listed, by its name alone.

    Such a one shares a colour and has a dash that no listed one has.
    """
    return LOOKS.get(placement) or look_by_name(placement)


def look_by_name(name: str) -> Look:
    """One of 30 looks, which depends on nothing but the name."""
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    rest, colour = divmod(drawn, len(SHARED))
    return Look(*SHARED[colour], LONG, OTHER_MARKS[rest % len(OTHER_MARKS)])


def looks_of(factor: str, levels: Sequence[Value]) -> list[Look]:
    """A look for each level of a factor.

    Placements have their own, numbers a scale from dark to light, all else distinct colours.
    """
    if factor == PLACEMENT:
        return [look_of(str(level)) for level in levels]
    if all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels):
        return scale_of(len(levels))
    return categories(len(levels))


def categories(count: int) -> list[Look]:
    """Looks of things without an order; the first 48 differ."""
    return [
        CATEGORIES[index % len(CATEGORIES)].varied(index // len(CATEGORIES))
        for index in range(count)
    ]


def scale_of(count: int) -> list[Look]:
    """Looks of things in an order: evenly spaced on the colour scale, with marks by turns."""
    places = [index / max(1, count - 1) for index in range(count)]
    return [
        dataclasses.replace(
            CATEGORIES[index % len(CATEGORIES)],
            light=to_hex(LIGHT_SCALE(place)),
            dark=to_hex(DARK_SCALE(place)),
        )
        for index, place in enumerate(places)
    ]
