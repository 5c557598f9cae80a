"""The report's page in headless Chromium."""

import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from experiments import report as report_package
from experiments.analysis.lecture import Check, Lecture, read_arms
from experiments.lecture.parts import activation_table, shortcut_table
from experiments.report import picture, write_report
from experiments.report.board import read_board
from experiments.report.chart import Chart
from experiments.report.claim_figures import figure_of
from experiments.report.claims_page import render_page
from experiments.report.lecture_page import charts_of
from experiments.report.lecture_page import render_page as render_page_of_lecture
from experiments.report.picture import draw_picture
from made_boards import write_board
from made_runs import HOSTILE, make_run

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine runs: losses 1 to 8 and one that diverged, whose name and reason are hostile.

    The files of its figures, to which it has links, are not drawn.
    """
    folder = tmp_path_factory.mktemp("sweep")
    for index in range(8):
        make_run(
            folder,
            f"run{index}",
            placement="pre_ln" if index % 2 else "post_ln",
            seed=index // 2,
            val_losses=(9.0, 8.0 - index),
            spikes=index,
            clip_share=index / 10,
            final_norm=index % 2 == 1,
        )
    name = HOSTILE.replace("/", "\u2215")
    make_run(folder, name, seed=4, status="diverged", reason=f"<b>{HOSTILE}</b>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "save_chart", named)
        return write_report([folder], folder)


def named(chart: Chart, folder: Path, formats: Sequence[str]) -> list[Path]:
    """As `save_chart`, with the names alone."""
    return [folder / f"{chart.name}.{kind}" for kind in formats]


def tab_of(browser: Browser, viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Page:
    """The browser's only tab, with nothing left of what it was used for.

    A tab of its own would cost each test more than the page that it opens.
    """
    context = browser.contexts[0] if browser.contexts else browser.new_context()
    page = context.pages[0] if context.pages else context.new_page()
    context.clear_permissions()
    page.goto("about:blank")
    page.mouse.move(0, 0)
    page.set_viewport_size(viewport)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme, media="null")  # type: ignore[arg-type]
    return page


@contextmanager
def opened(tab: Browser | Page, path: Path) -> Iterator[Page]:
    """Within: the page, which at the end must have asked for nothing and complained of nothing."""
    page = tab_of(tab) if isinstance(tab, Browser) else tab
    complaints: list[str] = []
    listeners: dict[Any, Callable[[Any], None]] = {
        "console": lambda message: complaints.append(message.text),
        "pageerror": lambda error: complaints.append(str(error)),
        "dialog": lambda dialog: complaints.append(dialog.message),
        "request": lambda request: (
            None if request.url.startswith("data:") else complaints.append(request.url)
        ),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        page.goto(path.as_uri())
        assert complaints == [path.as_uri()]
        yield page
        assert complaints == [path.as_uri()]
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)


@pytest.fixture
def folded(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened as it is."""
    with opened(browser, report) as page:
        yield page


@pytest.fixture
def page(folded: Page) -> Page:
    """The report with all its topics unfolded."""
    unfold(folded)
    return folded


def unfold(page: Page) -> None:
    """Open all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")


# Elements that are wider inside than outside, other than areas that scroll and show it.
CUT = """() => [...document.body.querySelectorAll('*')].filter((box) => {
  if (box.scrollWidth <= box.clientWidth + 1 || !box.clientWidth) return false;
  const style = getComputedStyle(box);
  const scrolls = style.overflowX === 'auto' && style.backgroundImage.includes('gradient');
  return !scrolls && style.display !== 'inline' && !box.closest('svg, .skip, thead');
}).map((box) => box.outerHTML.slice(0, 200))"""


# Charts that were drawn are drawn again in a new width, some frames later.
FITS = """async () => {
  const fits = () => document.documentElement.scrollWidth <= innerWidth;
  for (let i = 0; i < 300 && !fits(); i++) await new Promise(requestAnimationFrame);
  return fits();
}"""


def check_fits(page: Page) -> None:
    """Nothing is cut, on a screen and on a telephone, light and dark."""
    for viewport, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        unfold(page)
        assert page.evaluate(FITS)
        assert page.evaluate(CUT) == []


@pytest.fixture
def claims(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page about a board with every verdict, opened, with the figures of two claims."""
    board = read_board(write_board(tmp_path))
    names = ("law_holds", "closes")
    drawn = {
        claim.claim: draw_picture(partial(figure_of, claim), tmp_path, ["svg"])
        for claim in board.claims
        if claim.claim in names
    }
    path = tmp_path / "claims.html"
    path.write_text(render_page(board, None, drawn))
    with opened(browser, path) as page:
        yield page


def losses(page: Page) -> list[str]:
    """The validation losses of the runs that are shown, in order."""
    heads = page.locator("#runs-table thead th").all_inner_texts()
    column = [head.split("\n")[0].strip(" \u25b2\u25bc") for head in heads].index("validation loss")
    rows = page.locator("#runs-table tbody tr:visible")
    return [*rows.evaluate_all(f"(rows) => rows.map((row) => row.cells[{column}].innerText)")]


def test_sorting_by_click_and_by_keyboard(page: Page) -> None:
    ascending = [f"{loss:.3f}" for loss in range(1, 9)]
    button = page.locator("#runs-table").get_by_role("button", name="validation loss")
    button.click()
    assert losses(page) == [*ascending, "diverged"]  # the diverged run
    head = page.locator("#runs-table th[aria-sort]")
    assert head.get_attribute("aria-sort") == "ascending"
    button.focus()
    page.keyboard.press("Enter")
    assert losses(page) == ["diverged", *reversed(ascending)]
    assert head.get_attribute("aria-sort") == "descending"


FILTERS = {  # what is typed, and the losses that are shown
    "Post-LN": ["2.000", "4.000", "6.000", "8.000"],
    "  post-ln   SEED 3 ": ["2.000"],  # each word, wherever it is
    "3 post": ["2.000"],  # a whole number: not the loss 3.000
    "3.0": ["3.000"],
    "seed 00": [],
    "diverged": ["diverged"],
    "<b>": ["diverged"],  # of a reason, which is shown
    ".*": [],
    "": [*(f"{loss}.000" for loss in range(1, 9)), "diverged"],
    "copy": [],  # a button, not what a run is
    "norm=post_ln": [],  # of a command, which is copied and not shown
    "run3": [],  # of a column that is not shown
}


def test_a_filter_finds_every_word_in_what_is_shown(page: Page) -> None:
    for words, expected in FILTERS.items():
        page.get_by_label("Show runs with").fill(words)
        assert sorted(losses(page)) == expected, words
        none = ": no row shows " + ("all of these words" if " " in words else "this word")
        counted = f"{len(expected)} of 9{'' if expected else none}"
        assert page.locator("#shown").inner_text() == counted


def test_a_filter_finds_other_columns_once_they_are_shown(page: Page) -> None:
    page.get_by_label("Show runs with").fill("run3")
    assert losses(page) == []
    page.locator("#runs").get_by_role("button", name="All columns").click()
    assert losses(page) == ["5.000"]
    assert page.locator("#shown").inner_text() == "1 of 9"
    page.locator("#runs").get_by_role("button", name="Main columns").click()
    assert losses(page) == []


def test_the_page_says_that_headings_sort_where_there_are_headings(page: Page) -> None:
    hint = page.locator("#results").get_by_text("Click a heading to sort the rows by it.")
    assert hint.is_visible()
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert not hint.is_visible()  # cards have none


def test_links_to_files_say_what_they_need(page: Page) -> None:
    """A page that is sent alone has neither."""
    needs = "Names are links to the folders of the runs. A copy of this page that was sent without"
    assert page.locator("#runs").get_by_text(needs).is_visible()
    for caption in page.locator("figcaption", has=page.locator("a")).all_inner_texts():
        assert "Files, in the folder of this page: figures/" in caption


def test_copying_a_command(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the command that repeats Pre-LN, seed 0").click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "python run.py norm=pre_ln seed=0 threads=1"
    page.get_by_role("button", name="Copy the next command").click()
    page.wait_for_function("document.querySelector('.held .copy').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == (
        page.locator(".held code").inner_text()
    )


def reached(page: Page, presses: int) -> list[str]:
    """What has the focus after each press of the tab key, by its id or its words."""
    found = []
    for _ in range(presses):
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
    return found


def test_everything_can_be_reached_by_keyboard(folded: Page) -> None:
    """Tab reaches the skip link first, then every topic; in an open one every link and button."""
    folded.keyboard.press("Tab")
    assert folded.evaluate("document.activeElement.className") == "skip"
    topics = [words.split("\n")[0].split("  ")[0] for words in reached(folded, 25)]
    assert any(words.startswith("What made the numbers") for words in topics)
    runs = folded.locator("#runs > summary")
    assert not folded.get_by_label("Show runs with").is_visible()
    runs.focus()
    folded.keyboard.press("Enter")
    folded.get_by_label("Show runs with").wait_for()
    assert {"filter", "Copy", "Post-LN, seed 0"} <= {words.strip() for words in reached(folded, 40)}
    assert folded.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_answer_comes_first_and_the_rest_is_folded(folded: Page) -> None:
    headings = folded.locator("h1, h2").all_inner_texts()
    assert "Pre-LN" in headings[0]
    assert "Post-LN" in headings[0]
    assert headings[1].startswith("Post-LN ends at a validation loss of 5.00 nats")
    assert folded.locator("main > section").count() == 1  # the answer
    is_open = folded.evaluate(
        "[...document.querySelectorAll('.topic')].map((box) => [box.id, box.open])"
    )
    assert dict(is_open) == {
        "results": True,
        **dict.fromkeys(("training", "probes", "costs", "runs", "provenance"), False),
    }
    assert folded.locator("nav").count() == 0


def test_an_address_opens_what_it_names(browser: Browser, report: Path) -> None:
    page = tab_of(browser)
    page.goto(f"{report.as_uri()}#gradient_maps")
    assert page.locator("#gradient_maps").is_visible()
    assert not page.locator("#provenance dl").is_visible()
    page.goto(f"{report.as_uri()}#provenance")
    assert page.locator("#provenance dl").is_visible()


def test_other_columns_are_shown_on_demand(folded: Page) -> None:
    def heads() -> list[str]:
        return folded.locator("#results-table thead th:visible").all_inner_texts()

    assert heads() == ["arm", "validation loss (nats)", "learned"]
    button = folded.locator("#results").get_by_role("button", name="All columns")
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    assert "training loss (nats)" in heads()
    assert len(heads()) == len(
        folded.locator("#results-table tbody tr").first.locator("th,td").all()
    )
    folded.locator("#results").get_by_role("button", name="Main columns").click()
    assert len(heads()) == 3


def test_names_are_in_one_line_beside_all_columns(folded: Page) -> None:
    """The table is wider than its box, which scrolls and has a shadow where it goes on."""
    folded.set_viewport_size({"width": 900, "height": 900})
    folded.locator("#results").get_by_role("button", name="All columns").click()
    heights = folded.locator("#results-table tbody th").evaluate_all(
        "(heads) => heads.map((head) => head.getBoundingClientRect().height)"
    )
    assert max(heights) < 40
    box = folded.locator("#results .scroll")
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth + 20")
    assert "gradient" in box.evaluate("(box) => getComputedStyle(box).backgroundImage")
    assert folded.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_on_a_telephone_the_boxes_of_the_legend_are_below_its_heading(folded: Page) -> None:
    """Each beside its words, and all rows begin at one edge."""
    folded.set_viewport_size(PHONE)  # type: ignore[arg-type]
    (placements,) = folded.locator(".legend fieldset").all()
    heading = placements.locator("legend").bounding_box()
    boxes = [box.bounding_box() for box in placements.locator("input").all()]
    labels = [label.bounding_box() for label in placements.locator("label").all()]
    assert heading is not None
    assert len(boxes) == 2
    lefts = set()
    for box, label in zip(boxes, labels, strict=True):
        assert box is not None
        assert label is not None
        assert box["y"] > heading["y"] + heading["height"] - 1
        assert label["height"] < 40  # one line
        lefts.add(round(label["x"]))
    assert min(lefts) == round(heading["x"])


def test_tables_are_cards_on_a_telephone(page: Page) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    row = page.locator("#results-table tbody tr").first
    cells = row.locator("th, td").all()
    shown = [cell.bounding_box() for cell in cells if cell.is_visible()]
    assert len(shown) == 3
    tops = [box["y"] for box in shown if box is not None]
    assert tops == sorted(set(tops))  # one below the other
    label = "getComputedStyle(document.querySelector('#results-table td'), '::before').content"
    assert page.evaluate(label) == '"validation loss (nats)"'
    assert not page.locator("#results-table thead").is_visible()


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_figures_are_shown_and_the_page_fits(
    page: Page, viewport: dict[str, int], scheme: str
) -> None:
    page.set_viewport_size(viewport)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate("async () => { await normscopeCharts.draw(); }")
    figures = page.locator("figure.chart").all()
    assert len(figures) == 8
    for figure in figures:
        box = figure.locator(".plot :is(svg, canvas)").first.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
    check_fits(page)
    page.set_viewport_size(viewport)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    picture = matplotlib.image.imread(io.BytesIO(page.screenshot(full_page=True)), format="png")
    background = picture[2, 2, :3]
    assert (background.mean() > 0.9) == (scheme == "light")
    drawn = np.abs(picture[..., :3] - background).max(axis=2) > 0.1
    assert 0.02 < drawn.mean() < 0.7  # neither blank nor black
    assert len(np.unique((picture[::4, ::4, :3] * 15).astype(int).reshape(-1, 3), axis=0)) > 50
    figure = page.locator("figure.chart").first.screenshot()
    pixels = matplotlib.image.imread(io.BytesIO(figure), format="png")[..., :3]
    assert (pixels.mean() > 0.5) == (scheme == "light")


def test_a_table_scrolled_sideways_keeps_the_names_of_its_rows(page: Page) -> None:
    page.set_viewport_size({"width": 725, "height": 900})
    page.locator("#results").get_by_role("button", name="All columns").click()
    box_of_table = page.locator("#results .scroll")
    left = box_of_table.evaluate("(box) => box.getBoundingClientRect().left")
    box_of_table.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    assert box_of_table.evaluate("(box) => box.scrollLeft") > 20
    names = page.locator("#results-table th[scope=row]").all()
    assert len(names) == 2
    for name in names:
        box = name.bounding_box()
        assert box is not None
        assert box["x"] == pytest.approx(left, abs=1)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about two models that were counted, the larger one first in the alphabet."""
    folder = tmp_path_factory.mktemp("sizes")
    for name, layers, width in (("gpt2_1558m", 48, 1600), ("gpt2_355m", 24, 1024)):
        run = make_run(folder, name, runner="parameters", parameters=1000 * layers)
        for path in run.glob("*.csv"):
            path.unlink()
        rows = [f"{layer},attention,{width}" for layer in range(layers)]
        rows.append(f"-1,token_embedding,{layers * (1000 - width // 2)}")
        (run / "parameters.csv").write_text("\n".join(["layer,component,parameters", *rows, ""]))
        summary = json.loads((run / "summary.json").read_text())
        for key in ("train_loss", "val_loss", "initial_val_loss", "grad_norm", "corpus"):
            del summary[key]
        summary["overrides"] = ["experiment=parameters", f"model={name}"]
        summary["settings"]["model"] = {
            "n_layers": layers,
            "emb_dim": width,
            "n_heads": width // 64,
        }
        (run / "summary.json").write_text(json.dumps(summary))
    return write_report([folder], folder, formats=())


def test_a_page_about_sizes_is_about_sizes(browser: Browser, sizes: Path) -> None:
    with opened(browser, sizes) as page:
        page.wait_for_selector("#sizes .plot svg")
        names = page.locator("#results-table th[scope=row]").all_inner_texts()
        assert [name.strip() for name in names] == ["gpt2_355m", "gpt2_1558m"]
        assert page.locator("#results-table tbody tr").last.locator(
            "td:visible"
        ).all_inner_texts() == [
            *("48", "1,600", "25", "48,000", "0.2"),
        ]
        unfold(page)
        words = page.inner_text("body")
        for foreign in ("loss", "stuck", "spike", "learned", "diverged", "left:", "right:"):
            assert foreign not in words.lower(), foreign
        check_fits(page)


def test_every_switch_of_a_page_about_sizes_hides_its_line(browser: Browser, sizes: Path) -> None:
    """The parts are named in the legend alone, which is there at every width."""
    off = "normscopeCharts.charts[0].views.map(({ view }) => view.signal('off'))"
    with opened(browser, sizes) as page:
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.wait_for_selector("#sizes .plot svg")
        labels = page.locator(".legend label")
        assert [words.strip() for words in labels.all_inner_texts()] == ["attention", "embeddings"]
        for place, label in enumerate(labels.all()):
            assert label.is_visible()
            label.locator("input").uncheck()
            assert page.evaluate(off) == [[], [place]]
            label.locator("input").check()


def test_colours_on_a_page_about_sizes_are_those_of_parts_alone(sizes: Path) -> None:
    """Models are named below their bars: one colour for all of them, and none in the tables."""
    text = sizes.read_text()
    assert text.count('<svg class="swatch"') == 2  # in the legend, of two parts
    data = re.search(r'id="charts-data">(.*?)</script>', text)
    assert data is not None
    bars, shares = json.loads(data[1])["sizes"]["panels"]
    colours = [series["light"] for series in (*bars["series"], *shares["series"])]
    assert len(bars["series"]) == 1
    assert len(set(colours)) == len(colours) == 3


@pytest.mark.parametrize(("status", "ended"), [("running", False), ("finished", True)])
def test_a_single_run_has_a_page_of_its_own(
    browser: Browser, tmp_path: Path, status: str, ended: bool
) -> None:
    run = make_run(tmp_path, "alone", placement="post_ln", status=status)
    (run / "plots").mkdir()
    (run / "plots" / "loss.png").write_bytes(b"")
    page_of_run = write_report([run], run)
    assert not (run / "figures").exists()  # its pictures are in plots/
    with opened(browser, page_of_run) as page:
        assert page.locator("h1").inner_text().startswith("Post-LN")
        assert page.get_by_text("had not ended").is_visible() != ended
        unfold(page)
        assert page.get_by_role("link", name="plots/loss.png").is_visible()
        assert not page.get_by_label("Show runs with").is_visible()  # there is nothing to choose
        assert page.get_by_text("Click a heading").count() == 0
        assert page.get_by_text("The name is a link to the folder of the run.").is_visible()
        check_fits(page)


def painted(pdf: bytes) -> list[bytes]:
    """What the pages of a PDF are painted with: its streams, unpacked."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        with suppress(zlib.error):
            found.append(zlib.decompress(stream))
    return found


# As a PDF writes #e8eaed, which is the ink of dark pages and their charts, and #1b1e23.
DARK_INK, LIGHT_INK = b".9098 .9176 .9294 rg", b".1059 .1176 .1373 rg"


def test_it_prints_what_is_folded_and_was_never_in_sight(browser: Browser, report: Path) -> None:
    """On paper a folded page on a dark phone is what an unfolded one on a light screen is."""
    with opened(browser, report) as page:
        unfold(page)
        page.evaluate("async () => { await normscopeCharts.draw(); }")
        whole = painted(page.pdf(format="A4"))
    with opened(browser, report) as page:
        page.locator("figure.chart .plot svg").nth(1).wait_for()  # in sight, and drawn for 1280
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="dark")
        folded = painted(page.pdf(format="A4"))
        assert not page.locator("#runs").evaluate("(box) => box.open")  # folded again
        assert page.evaluate("document.documentElement.className") == ""
    assert len(folded) == len(whole) > 5
    assert sum(map(len, folded)) == pytest.approx(sum(map(len, whole)), rel=0.05)
    assert any(LIGHT_INK in stream for stream in folded)  # of charts
    assert not any(DARK_INK in stream for stream in folded)


def test_on_paper_tables_are_tables_and_there_is_nothing_to_click(page: Page) -> None:
    """Of whatever width the page of paper is."""
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#provenance dl").is_visible()
    for table in page.locator("table.cards").all():
        assert table.locator("thead th").first.is_visible()
        displays = table.locator("tbody td").evaluate_all(
            "(cells) => cells.map((cell) => getComputedStyle(cell).display)"
        )
        assert set(displays) <= {"table-cell", "none"}
        label = "(row) => getComputedStyle(row.cells[1], '::before').content"
        assert table.locator("tbody tr").first.evaluate(label) == "none"
    clicked = page.locator("button:visible, input:visible, .reset:visible, #shown:visible")
    assert {text.split(" ")[0] for text in clicked.all_inner_texts()} <= {
        "arm",
        "validation",
        "learned",
        "run",
        "status",
    }  # headings alone
    assert page.locator(".controls").get_by_text("Step").first.is_visible()  # without its slider
    assert not page.get_by_text("repeat", exact=True).first.is_visible()
    assert not page.get_by_text("Files, in the folder").first.is_visible()
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (ground, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")


def test_only_a_screen_is_dark_or_narrow() -> None:
    """Paper is neither, whatever the reader's scheme and the paper's width."""
    queries = {
        query
        for path in (Path(report_package.__file__).parent / "templates").glob("*.css")
        for query in re.findall(r"@media ([^{]*?) \{", path.read_text())
    }
    assert {"screen and (max-width: 45rem)", "screen and (prefers-color-scheme: dark)"} <= queries
    for query in queries:
        assert query.startswith("screen and") or not re.search("scheme|width", query), query


def test_the_page_about_claims_on_a_screen_and_on_a_phone(claims: Page) -> None:
    """Every prediction's axis is in sight, light and dark; nothing is cut at the edge."""
    for viewport, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        claims.set_viewport_size(viewport)  # type: ignore[arg-type]
        claims.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert claims.evaluate("document.documentElement.scrollWidth <= innerWidth")
        widths = claims.evaluate(
            "[...document.querySelectorAll('svg')].map((e) => e.getBoundingClientRect().width)"
        )
        assert len(widths) == 15
        assert min(widths) > 200
        region, ground = claims.evaluate(
            "[getComputedStyle(document.querySelector('.region')).fill,"
            " getComputedStyle(document.body).backgroundColor]"
        )
        assert region != ground
        assert claims.evaluate("[...document.images].every((image) => image.naturalWidth > 100)")
    badges = claims.locator("#board table .badge").all_inner_texts()
    assert all(len(badge.split()) >= 2 for badge in badges)  # a sign and a word
    printed = painted(claims.pdf(format="A4"))
    assert sum(map(len, printed)) > 50_000
    assert not any(DARK_INK in stream for stream in printed)  # of a phone that is dark


def test_what_a_claim_rests_on_unfolds_by_keyboard(claims: Page) -> None:
    setting = claims.locator("#law_holds").get_by_text("width 64")
    assert not setting.is_visible()
    claims.locator("#law_holds summary").focus()
    claims.keyboard.press("Enter")
    assert setting.is_visible()
    claims.context.grant_permissions(["clipboard-read", "clipboard-write"])
    claims.get_by_role("button", name="Copy the command that measures law_holds").click()
    claims.get_by_text("Copied").wait_for()
    copied = claims.evaluate("navigator.clipboard.readText()")
    assert copied == "python run.py experiment=claims claims.only=law_holds claims.budget=full"


@pytest.fixture(scope="module")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lecture's page, with one figure that is hostile and differs."""
    folder = tmp_path_factory.mktemp("lecture")
    checks = [
        Check(name, what, notes, here, "0", equal, "4.1; PyTorch 2.8, seed 123")
        for name, what, notes, here, equal in MADE_CHECKS
    ]
    for placement, warmup in (("pre_ln", 0), ("post_ln", 60), ("post_ln", 0)):
        make_run(folder / "runs", f"{placement}-{warmup}", placement=placement, warmup=warmup)
    arms = list(read_arms(folder / "runs"))
    row = {"row": [1, 1, 2, 2], "feature": [1, 2, 1, 2], "before": [1.0, 2.0, 3.0, 5.0]}
    tables = {
        "layer_norm": pd.DataFrame(row | {"after": [-1.0, 1.0, -1.0, 1.0]}),
        "activations": pd.DataFrame(activation_table()),
        "shortcut": pd.DataFrame(shortcut_table(123)),
        "gpt2_sizes": pd.DataFrame(
            [{"model": "small", "n_layers": 1, "emb_dim": 2, "n_heads": 1, "parameters": 9}]
        ),
    }
    made = Lecture(checks, tables, arms)
    charts = charts_of(made)
    files = {chart.name: [f"figures/{chart.name}.png"] for chart in charts}
    path = folder / "lecture.html"
    path.write_text(render_page_of_lecture(made, charts, files, arms[0].run))
    return path


MADE_CHECKS = [
    ("tokens", f'tokens of "{HOSTILE}"', "[1, 2]", "[1, 2]", "yes"),
    ("skeleton", "logits of a token", "", "7", ""),
    ("feed_forward", "width inside", "3,072", "48", "differs"),
    ("block", "parameters of a block", "", "9", ""),
    ("parameters", "parameters", "163,009,536", "163,009,536", "yes"),
    ("parameters", "tied", "124,412,160", "124,412,160", "yes"),
    ("logits", "highest probability of a next token", "", "0.03%", ""),
    ("text", "as text", "argue", HOSTILE, "differs"),
]


def test_the_page_about_a_lecture_on_a_screen_and_on_a_phone(
    browser: Browser, lecture: Path
) -> None:
    """Figures are drawn when they come into sight; a mark and a word say what is equal."""
    with opened(browser, lecture) as page:
        for viewport, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            for name in ("layer_norm", "gelu", "shortcut", "placement"):
                figure = page.locator(f"figure[data-chart={name}]")
                figure.scroll_into_view_if_needed()
                figure.locator("canvas, svg.marks").first.wait_for()
        badges = page.locator(".checks .badge").all_inner_texts()
        assert [badge.split()[1] for badge in badges] == [
            *("equal", "differs", "equal", "equal", "differs")
        ]
        assert "3 of the 5 numbers" in page.locator(".headline").inner_text()
        assert page.locator("nav li").count() == page.locator("main section").count() == 12
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy the command of step 4").click()
        page.get_by_text("Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == "python run.py experiment=activations"


# What text is on each ground: WCAG 2 asks for a contrast of 4.5.
TEXTS, GROUNDS = ("ink", "soft", "accent", "bad"), ("paper", "panel")


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 has it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_all_text_has_contrast_on_a_light_page_and_on_a_dark_one() -> None:
    style = (Path(report_package.__file__).parent / "templates" / "style.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for text, ground in itertools.product(TEXTS, GROUNDS):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
    texts = set(re.findall(r"(?<![-\w])(?:color|fill): var\(--(\w+)\)", style))
    assert texts <= {*TEXTS, "region", "muted"}  # the last two are areas
    assert len(schemes) == 2
