"""The page about claims, its figures, and what the commands about claims write."""

import json
import math
import re
import xml.etree.ElementTree
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from experiments.analysis.verdicts import BLOCKS, THEOREM
from experiments.claims import CLAIMS, docs, registered
from experiments.claims import __main__ as command
from experiments.claims.registered import Registration
from experiments.report import __main__ as report
from experiments.report.board import (
    FINDINGS,
    Board,
    BoardClaim,
    Row,
    read_board,
    share_of_first,
)
from experiments.report.claim_figures import figure_of, in_words, looks_of_arms
from experiments.report.claims_page import MEANINGS, render_page, scoreboard, write_claims_page
from experiments.report.drawing import INK
from experiments.report.forest import MARKS, draw_forest, strip_of
from experiments.report.palette import look_of
from experiments.report.picture import DARK, draw_picture
from made_boards import HOSTILE, every_verdict, write_board

FIRST = "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a board with every verdict."""
    return write_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def board(folder: Path) -> Board:
    return read_board(folder)


@pytest.fixture
def claim(board: Board) -> Callable[[str], BoardClaim]:
    return {claim.claim: claim for claim in board.claims}.__getitem__


def without_time(page: str) -> str:
    return re.sub(r"Written [^<]*", "", page)


# ---- The board


def test_published_claims_are_counted_and_findings_are_not(board: Board) -> None:
    assert board.counts == (
        "Of 9 published claims: 2 hold, 3 do not, 2 are open, 1 has an invalid test, "
        "1 without a verdict, as nobody could read the source"
    )
    assert "of 6 verdicts at most 0.3 is expected to be wrong" in board.expected_errors
    assert board.evidence.startswith("2 of 9 are confirmatory")
    hold = replace(board, claims=board.claims[:1])
    assert hold.counts == "Of 1 published claim: 1 holds"
    assert hold.evidence.startswith("All are confirmatory")


def test_blocks_have_their_order_and_findings_come_last(board: Board) -> None:
    assert [heading for heading, _ in board.sections] == [*BLOCKS.values(), FINDINGS]
    swapped = replace(board, claims=board.claims[::-1])
    assert [heading for heading, _ in swapped.sections] == [*BLOCKS.values(), FINDINGS]
    assert [c.claim for c in dict(board.sections)[FINDINGS]] == ["own_holds", "own_fails"]
    assert {c.claim for c in dict(board.sections)[BLOCKS[THEOREM]]} == {
        *("law_holds", "closes", "never_closes")
    }


def test_a_contradiction_says_in_which_setting(claim: Callable[[str], BoardClaim]) -> None:
    words = {
        "law_holds": "holds",
        "law_fails": "does not hold in another architecture",
        "opposite": "opposite in a scaled-down setting",
        "no_effect": "no effect in the paper's setting",
        "invalid": "test invalid",
        "unread": "source not read",
        "own_fails": "does not hold in this setting",
    }
    assert {name: claim(name).verdict_text for name in words} == words
    assert claim("closes").rows[0].verdict_text == "open: 48 seeds may decide"
    assert claim("never_closes").rows[0].verdict_text == "open: not below 48"
    assert claim("unread").rows[0].verdict_text == ""  # its numbers have none either


def test_what_was_measured_is_in_words(claim: Callable[[str], BoardClaim]) -> None:
    holds, control = claim("law_holds").rows
    assert (holds.measured, holds.claimed) == ("0.010 (-0.010 to 0.030)", "-0.05 to 0.05")
    assert (control.claimed, control.role) == ("above 1", "control")
    assert (holds.seeds, len(holds.values)) == (6, 12)  # decided at the first look
    paired, share, gained = claim("rates_hold").rows
    assert paired.counted == "11 of the 11 seeds that differ"
    assert (paired.mean, share.mean) == (1.0, 1.0)
    # Of 12 seeds 8 in which the first arm alone succeeded, 2 the second, 2 neither or both.
    seeds = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 2)
    assert share_of_first(float(seeds.mean()), float(seeds.std(ddof=1)), 12) == 0.8
    assert math.isnan(share_of_first(0.0, 0.0, 12))
    assert share.counted == "12 of 12 seeds"
    assert gained.claimed == "at least -0.05"
    tiny = replace(holds, mean=1.5e-6, ci_low=-8e-7, ci_high=4.6e-6, high=math.log(2))
    assert tiny.measured == "1.5e-06 (-8e-07 to 4.6e-06)"
    assert tiny.claimed == "-0.05 to 0.6931"
    assert claim("rates_hold").kinds == "paired rate, rate, law"


def test_texts_that_look_like_numbers_or_formulas_stay_texts(tmp_path: Path) -> None:
    write_board(tmp_path)
    path = tmp_path / "claims.csv"
    text = path.read_text().replace("abc123", "123e45").replace("A law that holds", "'-1/2 again")
    path.write_text(text)
    first = read_board(tmp_path).claims[0]
    assert (first.registered_commit, first.title) == ("123e45", "-1/2 again")


def test_a_claim_without_a_measurement_is_shown_as_such(tmp_path: Path) -> None:
    looks = every_verdict()[0]
    looks.measured.clear()
    write_board(tmp_path, [looks])
    (claim,) = read_board(tmp_path).claims
    assert {row.measured for row in claim.judged} == {"not measured"}
    assert claim.seeds_text == "none"
    assert figure_of(claim) is None
    assert strip_of(claim.rows[0]).mean is None
    assert "not measured" in render_page(read_board(tmp_path), None, {})


def test_a_board_of_another_version_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "claims.csv").write_text("claim,title,verdict\ndepth_law,a,reproduced\n")
    (tmp_path / "summary.json").write_text('{"status": "finished"}')
    assert report.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "measure the claims again" in error


# ---- The forest plot


def row_of(claim: BoardClaim, **changes: object) -> Row:
    return replace(claim.rows[0], **changes)


def test_a_region_lies_at_the_centre_of_its_axis(claim: Callable[[str], BoardClaim]) -> None:
    strip = strip_of(claim("law_holds").rows[0])
    assert sum(strip.region) / 2 == pytest.approx(0.5)
    assert strip.interval is not None
    assert strip.region[0] < strip.interval[0] < strip.interval[1] < strip.region[1]
    assert (len(strip.dots), len(strip.later_dots)) == (6, 6)
    assert [text for _, text in strip.ticks] == ["-0.05", "0.05"]


def test_an_axis_reaches_as_far_as_its_seeds(claim: Callable[[str], BoardClaim]) -> None:
    near = strip_of(claim("law_fails").rows[0])
    far = strip_of(row_of(claim("law_fails"), values=(50.0,), mean=50.0))
    assert near.interval is not None
    assert near.interval[0] > near.region[1]
    for strip in (near, far):
        assert sum(strip.region) / 2 == pytest.approx(0.5)
        assert all(0 < place < 1 for place in strip.dots)
    assert far.region[1] - far.region[0] < 0.01
    assert [text for _, text in far.ticks] == ["-0.05, 0.05"]  # too near for two


def test_a_sign_has_0_at_the_centre_and_a_rate_its_ends(
    claim: Callable[[str], BoardClaim],
) -> None:
    strip = strip_of(claim("no_effect").rows[0])
    assert strip.margin == pytest.approx((0.5 - 0.5 / 2.5 / 1.12, 0.5 + 0.5 / 2.5 / 1.12))
    assert strip.region == (strip.margin[1], 1.0) if strip.margin else False
    assert strip_of(claim("never_closes").rows[0]).margin is None
    paired, share, _ = (strip_of(row) for row in claim("rates_hold").rows)
    assert paired.region == share.region
    assert paired.region[0] == 0.5
    assert paired.mean == paired.region[1] < 1
    assert paired.dots == ()
    one_sided = strip_of(claim("rates_hold").rows[2])
    assert one_sided.region == (0.5, 1.0)


def test_the_figure_of_the_board_has_every_prediction(board: Board) -> None:
    drawn = draw_forest(board)
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    rows = [row for claim in board.claims for row in claim.judged]
    for claim in board.claims:
        assert claim.title in texts
    assert sum(text == row.measured for row in rows[:1] for text in texts) == 1
    assert sum(text.startswith("control: ") for text in texts) == 2
    words = [f"{MARKS[c.claim_verdict]} {c.verdict_text}" for c in board.claims]
    assert {word.replace("\n", " ") for word in texts} >= set(words)
    assert board.counts in drawn.alt


# ---- The figures of claims


def test_a_law_is_a_line_and_what_is_predicted_another(
    claim: Callable[[str], BoardClaim],
) -> None:
    drawn = figure_of(claim("law_holds"))
    assert drawn is not None
    (axis,) = drawn.figure.axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    lines = {line.get_linestyle(): line for line in axis.lines if line.get_color() == "#1b1e23"}
    heights = [np.asarray(line.get_ydata(), dtype=float) for line in lines.values()]
    mean = 1 + 0.1 * np.sin(range(12)).mean()
    np.testing.assert_allclose(heights[0], [mean] * 4)
    np.testing.assert_allclose(heights[1], mean * np.array([1, 2**-0.5, 0.5, 8**-0.5]))
    labels = [text.get_text() for text in drawn.figure.legends[0].get_texts()]
    assert labels == ["Post-LN, slope +0.00", "Pre-LN, slope -0.50", "slope 0", "slope -0.5"]
    assert "Drawn as predicted: slope 0; slope -0.5." in drawn.alt


def test_a_band_lies_across_arms_that_stand_side_by_side(
    claim: Callable[[str], BoardClaim],
) -> None:
    drawn = figure_of(claim("closes"))
    assert drawn is not None
    (axis,) = drawn.figure.axes
    (band,) = [c for c in axis.collections if c.get_alpha() == 0.13]
    (path,) = band.get_paths()
    assert (path.vertices[:, 1].min(), path.vertices[:, 1].max()) == (0.5, 1.5)
    (across,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert set(np.asarray(across.get_ydata(), dtype=float)) == {1.0}
    assert [label.get_text() for label in axis.get_xticklabels()] == ["one", r"other \$"]


def test_an_arm_has_its_placements_colour_and_others_have_another() -> None:
    arms = ["post_ln", "post_ln, no warm-up", "layer_norm", "pre_ln", "dyt"]
    looks = looks_of_arms(arms)
    assert [look.light for look in looks[:2]] == [look_of("post_ln").light] * 2
    assert looks[0].dash != looks[1].dash
    assert looks[3] == look_of("pre_ln")
    assert len({look.light for look in looks}) == 4
    assert in_words(arms[1]) == "Post-LN, no warm-up"
    assert in_words("layer_norm") == "layer_norm"


# ---- The page


def test_a_figure_is_in_the_page_once_and_follows_the_scheme_of_the_page(
    claim: Callable[[str], BoardClaim], tmp_path: Path
) -> None:
    picture = draw_picture(partial(figure_of, claim("law_holds")), tmp_path, ["svg"])
    assert picture is not None
    svg = unquote(picture.address.removeprefix("data:image/svg+xml,"))
    xml.etree.ElementTree.fromstring(svg)
    before, rules, drawn = re.split(r"<style>(:root.*?)</style>", svg, maxsplit=1)
    for light in (INK, look_of("pre_ln").light, look_of("post_ln").light):
        assert rules.count(light) == rules.count(DARK[light]) == 1
        assert light not in before + drawn
    assert "fill: var(--c0)" in drawn
    file = (tmp_path / "law_holds.svg").read_text()
    assert "var(" not in file  # it is for other programs, too
    assert len(picture.address) < 1.4 * len(file)


def test_the_page_shows_every_prediction_with_its_words(board: Board) -> None:
    page = render_page(board, None, {})
    rows = [row for claim in board.claims for row in claim.judged]
    assert page.count("<svg ") == len(rows) == page.count('role="img"')
    badges = re.findall(r'<span class="badge[^"]*"><span[^>]*>(.*?)</span> (.*?)</span>', page)
    verdicts = [c.verdict_text for c in board.claims] * 2
    verdicts += [row.verdict_text for row in rows if row.verdict]
    assert sorted(text for _, text in badges) == sorted(
        text.replace("'", "&#39;") for text in [*verdicts, *MEANINGS]
    )
    headings = [page.index(f">{heading}<") for heading in (*BLOCKS.values(), FINDINGS)]
    assert headings == sorted(headings)
    for claim in board.claims:
        assert f'<section id="{claim.claim}"' in page
        assert claim.hash in page
        assert claim.command in page
    assert "2025-12-01: open after 48 seeds" in page
    assert "2.13.0" in page


def test_the_page_runs_nothing_that_a_file_says(board: Board) -> None:
    page = render_page(board, None, {})
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; |" in page
    assert "style=" not in page.partition("</style>")[2]  # the policy would block it
    assert set(re.findall(r'(?:src|href)="(http[^"]*?)"', page)) == {
        *("https://arxiv.org/abs/2001.00001", "https://arxiv.org/abs/2101.00001")
    }
    board_text = scoreboard(board)
    assert "<script" not in board_text
    for line in board_text.splitlines():
        assert not line.startswith("| `") or len(re.findall(r"(?<!\\)\|", line)) == 7
    assert HOSTILE in board.claims[1].title


@pytest.mark.usefixtures("unrendered")
def test_a_page_made_again_from_the_files_is_the_same(tmp_path: Path) -> None:
    write_board(tmp_path, every_verdict()[:2])
    page = write_claims_page(tmp_path)
    first, table = page.read_text(), (tmp_path / "claims.md").read_text()
    page.unlink()
    (tmp_path / "claims.md").unlink()
    assert report.main([str(tmp_path)]) == 0
    assert without_time(page.read_text()) == without_time(first)
    assert (tmp_path / "claims.md").read_text() == table


# ---- The commands


@pytest.fixture
def unsimulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "simulation_table", lambda: "| a table of errors |\n")


@pytest.mark.usefixtures("unsimulated")
def test_a_board_is_published(
    folder: Path, tmp_path: Path, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["docs", str(folder), str(tmp_path)]) == 0
    names = ["claims.md", "claims.csv", "claims.png", "claims.svg"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
    assert (tmp_path / "claims.csv").read_bytes() == (folder / "claims.csv").read_bytes()
    page = (tmp_path / "claims.md").read_text()
    assert f"\n{board.counts}. " in page
    assert "| 6 | 0.005 | 1.95 |\n| 12 | 0.01 | 0.90 |\n| 24 | 0.015 | 0.54 |" in page
    assert "| a table of errors |" in page
    assert "| `quick` | at initialisation | 6, 12 |" in page
    assert "none begins after 25 minutes" in page
    assert "\n- torch: 2.13.0\n" in page
    assert "<script" not in page
    places = [page.index(f"\n### {heading}\n") for heading in (*BLOCKS.values(), FINDINGS)]
    assert places == sorted(places)
    for claim in board.claims:
        assert f"\n### {claim.claim}\n" in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["docs", "{tmp}/none", "{tmp}"], "RUN_DIR='{tmp}/none' is not valid: must be a run of"),
        (["docs", "{folder}", "{tmp}/none"], "FOLDER='{tmp}/none' is not valid: must be a dir"),
        (["register", "--file", "{tmp}/none/file"], "No such file or directory"),
    ],
)
@pytest.mark.usefixtures("unsimulated")
def test_bad_input_of_the_commands_is_one_line(
    arguments: list[str],
    words: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "commit_of", lambda folder: "abc123")
    given = [argument.format(tmp=tmp_path, folder=folder) for argument in arguments]
    assert command.main(given) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words.format(tmp=tmp_path) in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("commit", "words"), [("abc+", "not committed"), ("", "no git")])
def test_claims_that_no_commit_holds_are_not_registered(
    commit: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "commit_of", lambda folder: commit)
    assert command.main(["register", "--file", str(tmp_path / "registered.json")]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("measured", "result"), [("old", "holds, 12 seeds, confirmatory"), ("other", "")]
)
def test_a_registration_that_is_replaced_keeps_the_result_of_its_own_measurement(
    measured: str,
    result: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A board of another registration says nothing of this one."""
    known = {"depth_law": [Registration("old", 1, FIRST, "abc")]}
    monkeypatch.setattr(command, "commit_of", lambda folder: "def456")
    for module in (command, registered):
        monkeypatch.setattr(module, "registrations", lambda: dict(known))
    published = tmp_path / "claims.csv"
    published.write_text(
        f"claim,hash,claim_verdict,seeds,evidence\ndepth_law,{measured},holds,12,confirmatory\n"
    )
    file = tmp_path / "registered.json"
    assert command.main(["register", "--file", str(file), "--board", str(published)]) == 0
    entries = json.loads(file.read_text())
    assert set(entries) == set(CLAIMS)
    old, new = entries["depth_law"]
    assert (old["hash"], old["result"]) == ("old", result)
    assert (new["block"], new["commit"]) == (2, "def456")
    assert new["hash"] == CLAIMS["depth_law"].hash
    out = capsys.readouterr().out
    assert re.search(r"depth_law +1100 to 1147 +1000 to 1047", out)
    assert f"{len(CLAIMS)} of {len(CLAIMS)} claims were new or changed" in out
