"""A figure as files, and as one address on a page that is light or dark."""

import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from experiments.machine.console import one_line
from experiments.machine.plotting import plain_matplotlib
from experiments.report.chart import Chart
from experiments.report.drawing import INK, PAPER, STYLE, ReportFigure
from experiments.report.interactive import embedded
from experiments.report.lettering import plain_text, warnings_of_ours
from experiments.report.palette import CATEGORIES, DARK_PAGE
from experiments.report.static import save_chart
from experiments.report.style import DPI

log = logging.getLogger(__name__)

Made = TypeVar("Made")
Saved = TypeVar("Saved")

# On a dark page.
DARK = {INK: "#e8eaed", PAPER: DARK_PAGE} | {look.light: look.dark for look in CATEGORIES}


@dataclass(frozen=True)
class Picture:
    """A figure on a page: its SVG as a data: address, and its files."""

    name: str
    title: str
    caption: str
    alt: str
    address: str
    width: int
    files: list[str]


@dataclass(frozen=True)
class Shown:
    """A chart on a page, and its files."""

    chart: Chart
    files: list[str]

    @property
    def name(self) -> str:
        return self.chart.name

    @property
    def title(self) -> str:
        return self.chart.title


def draw_picture(
    make: Callable[[], ReportFigure | None], folder: Path, formats: Sequence[str]
) -> Picture | None:
    """Draw a figure and write it in each format; None as `shown` says."""
    with plain_matplotlib(STYLE):
        return shown(make, lambda figure: save_picture(figure, folder, formats))


def draw_chart(
    make: Callable[[], Chart | None], folder: Path, formats: Sequence[str]
) -> Shown | None:
    """Make a chart and write it in each format; None as `shown` says."""

    def save(chart: Chart) -> Shown:
        embedded([chart])  # where its data cannot be on a page, it costs this figure alone
        files = save_chart(chart, folder, formats) if formats else []
        return Shown(chart, [f"{folder.name}/{path.name}" for path in files])

    return shown(make, save)


def shown(make: Callable[[], Made | None], save: Callable[[Made], Saved]) -> Saved | None:
    """What `save` makes of a figure.

    None where its data is missing, or, with a warning, where drawing it fails: unforeseen content
    of a file should cost one figure and not the report.
    """
    name = getattr(make, "func", make).__name__
    try:
        with warnings_of_ours(name):
            figure = make()
            return None if figure is None else save(figure)
    except OSError:
        raise
    except Exception as error:
        log.warning("figure %s was not drawn: %s", name, one_line(error))
        return None


def save_picture(drawn: ReportFigure, folder: Path, formats: Sequence[str]) -> Picture:
    """Write a figure in each format; returns it for the page."""
    figure = drawn.figure
    figure.set_dpi(DPI)
    plain_text(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout takes long: compute it once for all formats
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None})
    svg = buffer.getvalue()
    files = []
    for kind in formats:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{drawn.name}.{kind}"
        if kind == "svg":
            path.write_bytes(svg)
        else:
            metadata = {"CreationDate": None} if kind == "pdf" else None
            figure.savefig(path, dpi=DPI, facecolor="white", metadata=metadata)
        files.append(f"{folder.name}/{path.name}")
    return Picture(
        name=drawn.name,
        title=drawn.title,
        caption=drawn.caption,
        alt=drawn.alt,
        address=data_address(follow_scheme(svg.decode(), DARK)),
        width=round(figure.get_figwidth() * 96),  # CSS pixels per inch
        files=files,
    )


def follow_scheme(svg: str, dark: Mapping[str, str]) -> str:
    """An SVG whose colours are other ones where the page around it is dark.

    dark  by the colour on a light page, as matplotlib writes it: #rrggbb in small letters
    """
    names = {light: f"--c{index}" for index, light in enumerate(dark) if light in svg}
    for light, name in names.items():
        svg = svg.replace(light, f"var({name})")
    light_rule = "".join(f"{name}:{light};" for light, name in names.items())
    dark_rule = "".join(f"{name}:{dark[light]};" for light, name in names.items())
    rules = f":root{{{light_rule}}}@media(prefers-color-scheme:dark){{:root{{{dark_rule}}}}}"
    return svg.replace("<defs>", f"<defs><style>{rules}</style>", 1)


def data_address(svg: str) -> str:
    """An SVG as a data: address, without comments and line ends: all its letters are paths."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    return "data:image/svg+xml," + quote(" ".join(svg.split()), safe=" /:=;,.-")
