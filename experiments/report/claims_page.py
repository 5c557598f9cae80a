"""The page about claims. It needs only claims.csv, measurements.csv and summary.json."""

from functools import partial
from pathlib import Path

from experiments.analysis.verdicts import (
    ALPHA,
    ALPHAS,
    CONTRADICTIONS,
    HOLDS,
    INVALID,
    NO_EFFECT,
    NO_SOURCE,
    OPEN,
    OPPOSITE,
)
from experiments.analysis.words import join_words
from experiments.machine.files import hide_home, write_atomically
from experiments.report.board import Board, BoardClaim, Row, read_board
from experiments.report.claim_figures import figure_of
from experiments.report.forest import MARKS, described, draw_forest, strip_of
from experiments.report.page import provenance, render_template
from experiments.report.picture import Picture, draw_picture

FORMATS = ("png", "svg")
# Beside the words of a verdict, for the colour of its badge.
TONES = {HOLDS: "good", **dict.fromkeys(CONTRADICTIONS, "bad"), INVALID: "bad"}
# What the words mean, in the order of the legend.
MEANINGS = {
    HOLDS: "the interval lies in the region that is claimed",
    CONTRADICTIONS[0]: "interval and region have no value in common",
    OPPOSITE: "the effect goes the other way",
    NO_EFFECT: "the effect is smaller than the smallest one that matters",
    OPEN: "neither, with the seeds at which it may be decided",
    INVALID: "a control failed, so that the test shows nothing",
    NO_SOURCE: "nobody could open the paper: measured, without a verdict",
}


def write_claims_page(directory: Path) -> Path:
    """Draw the figures and write claims.html and claims.md; returns the page's path.

    Raises ConfigError for files that are not of a board.
    """
    board = read_board(directory)
    folder = directory / "figures"
    forest = draw_picture(partial(draw_forest, board), folder, FORMATS)
    drawn = {
        claim.claim: draw_picture(partial(figure_of, claim), folder, FORMATS)
        for claim in board.claims
    }
    page = render_page(board, forest, drawn)
    path = directory / "claims.html"
    write_atomically(path, hide_home(page).encode())
    write_atomically(directory / "claims.md", scoreboard(board).encode())
    return path


def render_page(board: Board, forest: Picture | None, drawn: dict[str, Picture | None]) -> str:
    """The page. The template engine escapes everything that comes from the files."""
    return render_template(
        "claims.html.jinja",
        board=board,
        budget=board.run.summary.budget or "",
        forest=forest,
        drawn=drawn,
        strip_of=strip_of,
        described=described,
        looks=join_words([str(look) for look in ALPHAS]),
        alphas=join_words([f"{alpha:g}" for alpha in ALPHAS.values()]),
        alpha=ALPHA,
        marks=MARKS,
        tones=TONES,
        meanings=MEANINGS,
        provenance=provenance([board.run]),
    )


def scoreboard(board: Board) -> str:
    """The board in Markdown: a table for each block, and in it a row for each claim."""
    parts = [f"{board.counts}. {board.expected_errors}. {board.evidence}.\n"]
    for heading, claims in board.sections:
        parts.append(f"## {heading}\n\n{markdown_table(claims)}")
    return "\n".join(parts)


def markdown_table(claims: list[BoardClaim]) -> str:
    """A row for each claim: what it says, where, what was measured, and the verdict."""
    lines = [
        "| claim | source | setting | measured and claimed | seeds | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for claim in claims:
        cells = (
            f"`{claim.claim}`: {escaped(claim.title)}",
            escaped(", ".join(filter(None, (claim.source, claim.where)))),
            claim.distance,
            "<br>".join(map(markdown_row, claim.judged)),
            f"{claim.seeds}, {claim.evidence}",
            f"**{claim.verdict_text}**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown_row(row: Row) -> str:
    """A prediction, or a number that is only shown, in a line."""
    counted = f", {row.counted}" if row.counted else ""
    role = "control, " if row.role == "control" else ""
    claimed = f", claimed {row.claimed} ({row.kind_text})" if row.kind else ""
    verdict = f": {row.verdict_text}" if row.verdict else ""
    return escaped(f"{role}{row.number}: {row.measured}{counted}{claimed}{verdict}")


def escaped(cell: str) -> str:
    """`cell` for a Markdown table, where a bar would end the cell and < begin a tag."""
    return cell.replace("|", r"\|").replace("<", "&lt;")
