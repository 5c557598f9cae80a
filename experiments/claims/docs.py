"""The page of docs/ about claims, made from a board: `python -m experiments.claims docs`."""

import math
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy import stats

from experiments.analysis.verdicts import ALPHA, ALPHAS, LOOKS
from experiments.claims.board import BUDGETS
from experiments.claims.registered import BLOCK_SIZE, FIRST_BLOCK
from experiments.claims.simulation import markdown as simulation_table
from experiments.machine.files import hide_home, write_atomically
from experiments.report.board import CLAIMS, FINDINGS, Board, read_board
from experiments.report.claims_page import (
    FORMATS,
    MEANINGS,
    escaped,
    markdown_row,
    markdown_table,
)
from experiments.report.forest import draw_forest
from experiments.report.page import provenance
from experiments.report.picture import draw_picture
from gpt import ConfigError


def write_docs(directory: Path, folder: Path) -> list[Path]:
    """Write claims.md, claims.csv, claims.png and claims.svg about the board of a run.

    Raises ConfigError where there is no board, or no folder to write to.
    """
    if not (directory / CLAIMS).is_file():
        raise ConfigError("RUN_DIR", str(directory), "must be a run of experiment=claims")
    if not folder.is_dir():
        raise ConfigError("FOLDER", str(folder), "must be a directory")
    board = read_board(directory)
    page = hide_home(markdown(board))
    picture = draw_picture(partial(draw_forest, board), folder, FORMATS)
    if picture is None:
        raise ConfigError("RUN_DIR", str(directory), "its figure cannot be drawn")
    write_atomically(folder / CLAIMS, (directory / CLAIMS).read_bytes())
    write_atomically(folder / "claims.md", page.encode())
    return [folder / name for name in ("claims.md", CLAIMS, *(f"claims.{f}" for f in FORMATS))]


def markdown(board: Board) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("experiments.claims"),
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escaped
    return environment.get_template("claims.md.jinja").render(
        board=board,
        table=markdown_table,
        row_text=markdown_row,
        findings=FINDINGS,
        budgets=BUDGETS,
        inf=math.inf,
        looks=LOOKS,
        alpha=ALPHA,
        widths=[(n, alpha, half_width(n, alpha)) for n, alpha in ALPHAS.items()],
        meanings=MEANINGS,
        first_block=FIRST_BLOCK,
        block_size=BLOCK_SIZE,
        simulation=simulation_table(),
        provenance=provenance([board.run]),
        commits=", ".join(dict.fromkeys(claim.commit or "unknown" for claim in board.claims)),
        today=datetime.now(UTC).date().isoformat(),
    )


def half_width(seeds: int, alpha: float) -> float:
    """Half of Student's interval, in standard deviations."""
    return float(stats.t.ppf(1 - alpha / 2, seeds - 1)) / math.sqrt(seeds)
