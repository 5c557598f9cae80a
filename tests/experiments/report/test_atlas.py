"""The atlas: its diagrams, its facts, its runs, and its page in headless Chromium."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
import test_page
from playwright.sync_api import Browser, Page

import run
from configs import SMALL, changed
from experiments.analysis.runs import Run
from experiments.analysis.step_times import read_step_times
from experiments.records.sink import MIXING_COLUMNS
from experiments.records.summary import summary_time
from experiments.report.atlas_page import (
    STEP_TIME,
    Placed,
    blocks_in_words,
    data_of,
    finding_of,
    overview,
    used_by,
)
from experiments.report.diagram import Diagram, alike, in_words
from experiments.report.palette import beside, look_of
from experiments.runners import atlas
from gpt import PLACEMENTS
from gpt.block import Block

EXAMPLE = Path(__file__).parents[3] / "docs" / "atlas.html"
browser = test_page.browser


@functools.cache
def placed(name: str) -> Placed:
    return Placed(name, changed(SMALL, {"norm.placement": name}), {})


def items_of(name: str, layer: int = 1) -> Diagram:
    return Diagram(placed(name).graphs[layer])


def column_of(diagram: Diagram, kind: str) -> list[int]:
    return [item.column for item in diagram.items if diagram.kind(item) == kind]


# ---- Diagrams


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_diagram_has_the_nodes_and_the_edges_of_the_trace(name: str) -> None:
    """No box on another, each read lower than what reads it, and nothing of the graph left out."""
    for graph in placed(name).graphs:
        diagram = Diagram(graph)
        shown = [i for i, node in enumerate(graph.nodes) if node.kind != "view"]
        owner = {place: item for item in diagram.items for place in item.places}
        assert sorted(owner) == shown
        between = {(owner[a], owner[b]) for a, b in graph.edges() if owner[a] is not owner[b]}
        assert between == {(read, item) for item in diagram.items for read in item.reads}
        assert len(list(diagram.paths())) == len(between)
        assert all(read.top < item.bottom for read, item in between)
        for i, item in enumerate(diagram.items):
            for other in diagram.items[:i]:
                apart = abs(item.x - other.x) >= (item.width + other.width) / 2
                assert apart or abs(item.y - other.y) >= (item.height + other.height) / 2
        inside = {(a, b) for a, b in graph.edges() if owner[a] is owner[b]}
        svg = str(diagram.svg("title"))
        # In an open branch lines lead on from its frame, and to it.
        crossing = [(a, b) for a, b in graph.edges() if owner[a] is not owner[b]]
        entered = {b for _, b in crossing if owner[b].rows}
        left = {a for a, _ in crossing if owner[a].rows}
        lines = len(between) + len(inside) + len(entered) + len(left)
        assert svg.count('class="edge"') == lines
        boxes = svg.count("<rect") - svg.count('class="frame') + svg.count("<circle")
        ends = sum(node.kind in ("input", "output") for node in graph.nodes)
        assert boxes == len(shown) - ends


@pytest.mark.parametrize("name", PLACEMENTS)
def test_no_edge_runs_through_a_box(name: str) -> None:
    """Each piece of each edge, against every item but the two that it joins."""
    for graph in placed(name).graphs:
        diagram = Diagram(graph)
        joined = [(read, item) for item in diagram.items for read in item.reads]
        for (read, item), path in zip(joined, diagram.paths(), strict=True):
            for (x0, y0), (x1, y1) in pairwise(path):
                for other in diagram.items:
                    if other in (read, item):
                        continue
                    across = min(x0, x1) < other.x + other.width / 2
                    across &= max(x0, x1) > other.x - other.width / 2
                    up = min(y0, y1) < other.top and max(y0, y1) > other.bottom
                    assert not (across and up), (name, path)


def test_branches_stand_on_the_line_and_shortcuts_beside_it() -> None:
    for name in ("pre_ln", "post_ln", "deepnorm", "b2t", "siamese", "residual_dual"):
        diagram = items_of(name)
        assert column_of(diagram, "attention") == column_of(diagram, "feed_forward") == [0]
    assert column_of(items_of("deepnorm"), "scale") == [-1, -1]
    assert column_of(items_of("span"), "sum") == [0, 0]
    assert sorted(set(items_of("span").lanes.values())) == [-2, -1]
    assert column_of(items_of("residual_dual"), "sum") == [0, 1, 0, 1]
    assert column_of(items_of("siamese"), "input") == [0, 2]


def test_a_diagram_is_said_in_words() -> None:
    words = in_words(placed("pre_ln").graphs[0])
    assert words == (
        "norm_1 reads x; attention reads norm_1; sum 1 = x + attention; "
        "norm_2 reads sum 1; feed_forward reads norm_2; sum 2 = sum 1 + feed_forward; "
        "out = sum 2"
    )
    assert "sum 1 = \N{MULTIPLICATION SIGN} 1.68 x + attention" in in_words(
        alike(placed("deepnorm").graphs)
    )
    assert "attention.query_norm reads attention.qkv" in in_words(placed("hybrid").graphs[0])


def test_streams_have_the_names_of_the_equation() -> None:
    """ResiDual's branches read p, and its head reads p + N(d)."""
    words = in_words(placed("residual_dual").graphs[0])
    assert words.startswith("attention reads p; sum 1 = p + attention; norm_1 reads sum 1; ")
    assert words.endswith("p' = norm_2; d' = sum 4")
    after = in_words(placed("residual_dual").after)
    assert after == "norm reads d; sum 1 = p + norm; head reads sum 1; logits = head"


def test_lines_inside_a_branch_are_upright_or_level_and_join_its_frame() -> None:
    svg = str(items_of("hybrid").svg("title"))
    paths = [
        [tuple(map(float, corner.split())) for corner in path.split("L")]
        for path in re.findall('class="edge" d="M([^"]*)"', svg)
    ]
    assert all(x0 == x1 or y0 == y1 for path in paths for (x0, y0), (x1, y1) in pairwise(path))
    x, y, wide, tall = map(
        float,
        re.findall('"frame attention" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', svg)[0],
    )
    middle = pytest.approx(x + wide / 2, abs=0.1)
    starts, ends = [path[0] for path in paths], [path[-1] for path in paths]
    bottom, top = pytest.approx(y + tall, abs=0.1), pytest.approx(y, abs=0.1)
    assert (middle, bottom) in starts
    assert (middle, top) in ends
    for words in ("Q, K, V", "softmax", "projection"):
        assert f">{words}</text>" in svg


def test_blocks_that_differ_have_a_diagram_each() -> None:
    titles = {name: [drawn.title for drawn in placed(name).diagrams] for name in PLACEMENTS}
    after = "after the last block"
    assert titles["pre_ln"] == ["each block", after]
    for name in ("keel", "span", "hybrid_star", "mix_ln"):
        assert titles[name] == ["block 1", "blocks 2 to 4", after]
    assert titles["per_block"] == ["blocks 1 and 3", "blocks 2 and 4", after]
    assert titles["ln_scaling"] == ["each block", after]
    assert "\N{MULTIPLICATION SIGN} 1 to 0.5<" in placed("ln_scaling").diagrams[0].svg
    assert blocks_in_words([1, 4], 4) == "blocks 1 and 4"


# ---- Facts


def test_facts_are_counted_from_the_module() -> None:
    width = SMALL.emb_dim
    facts = {name: placed(name).facts for name in PLACEMENTS}
    passes = {name: of["norms in a block"] for name, of in facts.items()}
    assert passes["pre_ln"] == "2"
    assert passes["no_norm"] == "0"
    assert passes["siamese"] == "6"
    assert passes["span"] == "block 1: 3; blocks 2 to 4: 2"
    assert passes["hybrid"] == "4, 3 of them inside a branch"
    own = {name: of["extra parameters"] for name, of in facts.items()}
    assert own["pre_ln"].startswith(f"{4 * width} a block")
    assert own["no_norm"].startswith("0 a block")
    # Keel's first block has two norms less than the others.
    assert own["keel"].startswith(f"{(4 + 3 * 8) * width // 4} a block on average")
    assert own["admin"].startswith(f"{6 * width} a block")
    assert facts["deepnorm"]["initialisation"] == "deepnorm, prescribed by its paper"
    assert facts["deepnorm"]["shortcut scale"] == "1.682"
    assert "advises against gpt2_scaled" in facts["ln_scaling"]["initialisation"]
    before_head = {name: of["norm before the head"] for name, of in facts.items()}
    assert (before_head["post_ln"], before_head["pre_ln"]) == ("no", "yes")
    assert before_head["residual_dual"] == "on d alone"
    assert before_head["siamese"] == "yes, 3: on each stream and on their sum"
    assert facts["mix_ln"]["options"].startswith("norm.options.fraction=0.25. fraction: of the")


def test_equation_and_paper_are_those_of_the_docstring() -> None:
    entry = placed("deepnorm")
    assert entry.equation == "h = N(a x + A x); out = N(a h + F h), a = (2L)^(1/4); no final norm."
    assert '<a href="https://arxiv.org/abs/2203.00555">2203.00555</a>' in entry.text[0]


def test_who_uses_it_is_read_from_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert used_by()["post_ln"] == "GPT-1, BERT, OPT-350M"
    assert not {"no_norm", "keel"} & used_by().keys()
    monkeypatch.setattr("experiments.report.atlas_page.README", Path("/absent"))
    monkeypatch.setattr("experiments.report.atlas_page.CLAIMS", Path("/absent"))
    assert used_by() == {}
    assert placed("post_ln").claims == []


def test_the_board_is_quoted_for_a_placement_with_a_number_in_it() -> None:
    (claim,) = placed("residual_dual").claims
    assert (claim.name, claim.verdict) == ("residual_dual_keeps_gradients", "holds")
    assert claim.when == "At initialisation"
    assert [number for number, _, _ in claim.numbers] == [
        "ResiDual: log10(first block / last block)"
    ]
    assert {of.when for of in placed("mix_ln").claims} == {"In training"}


def test_a_claim_that_fails_says_whose_number_fails() -> None:
    """Keel keeps its gradients; what does not hold is that Post-LN's vanish."""
    (claim,) = (of for of in placed("keel").claims if of.name == "keel_keeps_gradients")
    assert (claim.verdict, claim.distance) == ("does not hold", "in a scaled-down setting")
    of = ": log10(first block / last block)"
    assert claim.numbers == [
        (f"Post-LN{of}", "vanishes: below a tenth", "does not hold"),
        (f"Keel{of}", "does not: above a tenth", "holds"),
    ]


def test_a_placement_that_is_registered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(PLACEMENTS["pre_ln"]):  # type: ignore[misc]
        """h = x + A(N x); out = h + 2 F(N h).

        Nobody 2026.
        """

        def forward(self, x: object) -> object:
            h = self.add_1(x, self.attention(self.norm_1(x)))
            return self.add_2(h, 2 * self.feed_forward(self.norm_2(h)))

    monkeypatch.setitem(PLACEMENTS, "own", Own)
    entry = placed("own")
    assert issubclass(Own, Block)
    assert entry.title == "Own"
    assert "\N{MULTIPLICATION SIGN} 2<" in entry.diagrams[0].svg
    assert entry.equation == "h = x + A(N x); out = h + 2 F(N h)."


# ---- Runs and the page


TINY = (
    *("experiment=atlas", "wandb.mode=disabled", "model.n_layers=2", "model.emb_dim=8"),
    *("model.context_length=8", "trainer.steps=3", "trainer.batch_size=2", "data=text"),
    *("trainer.probe_every=2", "trainer.mixing_every=2", "trainer.eval_tokens=8"),
    *("schedule.warmup_steps=2", "model.n_heads=2", "atlas.rounds=1", "atlas.timed=[]"),
)
PLACES = ("pre_ln", "post_ln", "residual_dual")


class Atlas:
    """Runs the command in one folder, without worker processes."""

    def __init__(self, folder: Path, text: Path) -> None:
        self.folder = folder
        self.always = (*TINY, f"data.path={text}", f"data.cache_dir={folder}/cache")
        self.calls = 0

    def __call__(self, *arguments: str) -> tuple[int, Path]:
        self.calls += 1
        directory = self.folder / f"page{self.calls}"
        places = (f"hydra.run.dir={directory}", f"atlas.runs={self.folder}/runs")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(atlas, "workers_for", lambda *_: 1)
            return run.main([*self.always, *places, *arguments]), directory / "atlas.html"


@pytest.fixture(scope="module")
def make_atlas(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Atlas:
    return Atlas(tmp_path_factory.mktemp("atlas"), text_file)


@pytest.fixture(scope="module")
def first_times(make_atlas: Atlas) -> dict[Path, int | None]:
    """When the runs of one placement ended, before the others were asked for."""
    assert make_atlas("atlas.only=pre_ln")[0] == 0
    return times_of(make_atlas)


@pytest.fixture(scope="module")
def made(make_atlas: Atlas, first_times: object) -> Path:
    """The page of three placements."""
    code, page = make_atlas(f"atlas.only={','.join(PLACES)}")
    assert code == 0
    return page


def times_of(atlas: Atlas) -> dict[Path, int | None]:
    """When each run's summary was written."""
    return {run: summary_time(run) for run in (atlas.folder / "runs").iterdir() if run.is_dir()}


def data_in(page: Path) -> dict[str, dict[str, object]]:
    found = re.search('<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found
    data: dict[str, dict[str, object]] = json.loads(found[1])
    return data


def test_each_placement_is_trained_with_and_without_warm_up(made: Path) -> None:
    data = data_in(made)
    assert list(data) == list(PLACES)
    assert (data["pre_ln"]["light"], data["pre_ln"]["title"]) == (look_of("pre_ln").light, "Pre-LN")
    for entry in data.values():
        runs = entry["runs"]
        # As in the lecture and in reports: the second level of a solid look is dashed.
        assert [tuple(r["dash"]) for r in runs.values()] == [  # type: ignore[attr-defined]
            look_of("pre_ln").dash,
            look_of("pre_ln").varied(1).dash,
        ]
        assert [(w, r["words"], r["status"]) for w, r in runs.items()] == [  # type: ignore[attr-defined]
            ("0", "without warm-up", "finished"),
            ("2", "with 2 steps of warm-up", "finished"),
        ]
        for measured in runs.values():  # type: ignore[attr-defined]
            assert measured["steps"] == [0, 2, 3]
            assert [at for at, _ in measured["loss"]] == [0, 1, 2]
            for name, width in (("gradient", 2), ("rms", 2), ("ratio", 4), ("shares", 4)):
                assert [len(row) for row in measured[name]] == [width] * 3, name
            for shares in measured["shares"]:
                # The embeddings, each sublayer so far, and the norms' shifts.
                assert [len(row) for row in shares] == [3, 4, 5, 6]
                assert [sum(row) for row in shares] == pytest.approx([1.0] * 4, abs=0.02)


def test_what_was_trained_is_not_trained_again(
    make_atlas: Atlas, first_times: dict[Path, int | None], made: Path
) -> None:
    times = times_of(make_atlas)
    assert (len(first_times), len(times)) == (2, 2 * len(PLACES))
    assert first_times.items() <= times.items()


def test_what_a_step_takes_beside_one_of_pre_ln_is_on_the_page_and_in_a_file(made: Path) -> None:
    times = {time.placement: time for time in read_step_times(made.parent)}
    assert list(times) == ["post_ln", "residual_dual"]
    text = made.read_text()
    assert text.count(f"<dt>{STEP_TIME}</dt>") == len(times)
    for time in times.values():
        assert 0 < time.ratio_low <= time.ratio <= time.ratio_high
        assert (time.layers, time.width, time.tokens, time.rounds) == (2, 8, 16, 1)
        assert time.text in text
    assert f"2 blocks of width 8, 16 tokens a step, float32, on {times['post_ln'].device}" in text


def test_all_are_in_one_table(make_atlas: Atlas, made: Path) -> None:
    runs = make_atlas.folder / "runs"
    found = {
        name: {w: Run.read(next(runs.glob(f"{name}-warmup_steps{w}-*"))) for w in (0, 2)}
        for name in PLACES
    }
    table = overview([replace(placed(name), runs=found[name]) for name in PLACES])
    assert table.columns == [
        *("placement", "loss without warm-up", "loss with 2 steps of warm-up"),
        *("norms in a block", "extra parameters in a block"),
    ]
    by_name = {row[0].shown: [cell.shown for cell in row[1:]] for row in table.rows}
    assert list(by_name) == ["Pre-LN", "Post-LN", "ResiDual"]
    # Of SMALL, whose width is 12: two LayerNorms, each with a scale and a shift for each channel.
    assert by_name["Pre-LN"][2:] == ["2", "48"]
    assert [len(losses[0]) for losses in by_name.values()] == [5] * 3  # such as 2.345


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("atlas.only=pre_lm", "atlas.only='pre_lm' is not valid: did you mean 'pre_ln'?"),
        ("norm=post_ln", "norm='post_ln' is not valid: the atlas takes them all; some: atlas.only"),
        (
            "atlas.timed=['model.emb_dim=7']",
            "atlas.timed=['model.emb_dim=7'] is not valid: with it",
        ),
        ("trainer.mixing=false", "trainer.mixing_every=2 is not valid: has no effect"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    make_atlas: Atlas, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, page = make_atlas(argument)
    assert code == 1
    assert message in capsys.readouterr().err
    assert not page.exists()


def test_a_run_that_left_nothing_is_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"status": "failed", "error": "no room"}')
    data = data_of(Run.read(tmp_path))
    assert (data["status"], data["loss"], data["steps"]) == ("failed", [], [])
    (tmp_path / "gradients.csv").write_text(
        "step,layer,component,stat,value\n0,0,output,activation_rms,inf\n0,0,block,grad_norm,2\n"
        "0,0,attention,branch_ratio,0.51239\n0,0,feed_forward,branch_ratio,0.5\n"
    )
    data = data_of(Run.read(tmp_path))
    assert (data["rms"], data["gradient"]) == ([[None]], [[2.0]])
    assert (data["ratio"], data["shares"]) == ([[0.512, 0.5]], [None])
    (tmp_path / "mixing.csv").write_text(
        f"{','.join(MIXING_COLUMNS)}\n0,0,sum_1,-1,embedding,mixing_share,0.75\n"
        "0,0,sum_1,0,attention,mixing_share,0.25\n0,0,output,0,attention,mixing_share,9\n"
    )
    assert data_of(Run.read(tmp_path))["shares"] == [[[0.75, 0.25]]]


def test_its_first_sentence_says_who_learned_no_more_than_frequencies(tmp_path: Path) -> None:
    def ended(name: str, **losses: float) -> Run:
        directory = tmp_path / name
        directory.mkdir()
        summary = {"status": "finished", "corpus": {"unigram_validation_loss": 3.0}, **losses}
        (directory / "summary.json").write_text(json.dumps(summary))
        return Run.read(directory)

    config = placed("pre_ln").config
    good, stuck = ended("good", val_loss=2.0), ended("stuck", val_loss=2.99)
    diverged = ended("diverged", status="diverged", val_loss=2.0)  # type: ignore[arg-type]
    worse = ended("worse", val_loss=3.1)
    entries = [
        Placed("pre_ln", config, {0: good, 60: good}),
        Placed("post_ln", config, {0: stuck, 60: good}),
        Placed("no_norm", config, {0: diverged, 60: worse}),
    ]
    assert finding_of(entries) == (
        "Learned no more than token frequencies: without warm-up 2 of 3 (Post-LN; diverged: "
        "No norm); with 60 steps of warm-up 1 of 3 (ended worse than those: No norm)"
    )


@pytest.fixture
def page(browser: Browser, made: Path) -> Iterator[Page]:
    with test_page.opened(browser, made) as page:
        yield page


def headings(page: Page) -> list[str]:
    return page.locator(".side h2").all_inner_texts()


def test_any_two_placements_stand_side_by_side(page: Page) -> None:
    assert headings(page) == ["Pre-LN norm=pre_ln", "Post-LN norm=post_ln"]
    page.get_by_label("Left placement", exact=True).select_option("residual_dual")
    assert headings(page)[0].startswith("ResiDual")
    assert page.url.endswith("#residual_dual,post_ln")
    assert page.locator("#left .diagram").count() == 2
    page.get_by_label("Right placement: the next one").click()
    page.keyboard.press("]")
    assert headings(page) == ["Pre-LN norm=pre_ln", "ResiDual norm=residual_dual"]
    page.keyboard.press("{")
    assert page.url.endswith("#pre_ln,post_ln")


def test_the_address_says_what_is_shown(page: Page) -> None:
    address = page.url.partition("#")[0]
    page.evaluate("location.hash = 'post_ln,residual_dual'")
    page.wait_for_function("document.getElementById('left-pick').value === 'post_ln'")
    assert [name.split(" norm=")[1] for name in headings(page)] == ["post_ln", "residual_dual"]
    page.evaluate("location.hash = 'absent'")
    page.wait_for_function("document.getElementById('left-pick').value === 'pre_ln'")
    assert address.endswith("atlas.html")


def test_the_step_moves_all_that_was_measured(page: Page) -> None:
    assert page.locator("#at").inner_text() == "3"  # the last
    page.locator("#step").fill("0")
    drawn = ["loss", "gradient", "rms", "ratio", "matrices", "numbers"]
    before = [page.locator(f"#{name}").inner_html() for name in drawn]
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#at").inner_text() == "2"
    after = [page.locator(f"#{name}").inner_html() for name in drawn]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert page.locator("#gradient path.series").count() == 4
    assert page.locator("#gradient circle.mark").count() == 8
    assert page.locator("#matrices svg").count() == 4
    assert page.locator("#matrices svg").first.locator("rect").count() == 3 + 4 + 5 + 6
    page.set_viewport_size(test_page.PHONE)
    sublayers = page.locator("#ratio text[text-anchor=middle]")
    assert sublayers.all_text_contents() == ["A1", "F1", "A2", "F2"]
    assert page.locator("#shades rect").count() == 5
    row = page.locator("#numbers tbody tr").nth(2)
    assert row.locator("th").inner_text() == "Post-LN, without warm-up"


def test_it_fits_the_screen_in_the_placements_colours(page: Page) -> None:
    for scheme, size in product(("light", "dark"), (test_page.DESKTOP, test_page.PHONE)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_function("innerWidth === document.documentElement.scrollWidth")
        select = page.locator(".picker.right select")
        colour = select.evaluate("element => getComputedStyle(element).borderColor")
        wanted = getattr(look_of("post_ln"), scheme)
        assert colour == f"rgb({', '.join(str(int(wanted[i : i + 2], 16)) for i in (1, 3, 5))})"
        # On a phone each run is a card of named numbers, and none is out of sight.
        for cell in page.locator("#numbers tbody td").all():
            shown = cell.bounding_box()
            assert shown is not None
            assert shown["x"] + shown["width"] <= size["width"]
        named = page.locator("#numbers tbody td").first.evaluate(
            "cell => getComputedStyle(cell, '::before').content"
        )
        assert named == ('"training loss"' if size is test_page.PHONE else "none")
        # The pickers leave with what they pick.
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        picked = page.locator(".bar").first.bounding_box()
        made_by = page.locator("#provenance").bounding_box()
        assert picked is not None
        assert made_by is not None
        assert picked["y"] + picked["height"] <= made_by["y"]
        for diagram in page.locator(".diagram").all():
            box = diagram.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size["width"]


def strokes(page: Page) -> list[tuple[str, str]]:
    """Colour and dash of each line of the first chart with blocks."""
    script = "of => of.map(e => [getComputedStyle(e).stroke, e.getAttribute('stroke-dasharray')])"
    found = page.locator("#gradient path.series").evaluate_all(script)
    return [(colour, dash) for colour, dash in found]


def test_both_sides_differ_in_colour_and_warm_up_is_dashed(page: Page) -> None:
    """Also where both placements have one colour, as one and the same has."""
    for address in ("pre_ln,post_ln", "post_ln,post_ln", "pre_ln,pre_ln"):
        page.evaluate(f"location.hash = '{address}'")
        page.wait_for_function(
            "shown => [...document.querySelectorAll('select')].map(e => e.value).join() === shown",
            arg=address,
        )
        cold, warm, other_cold, other_warm = strokes(page)
        assert cold[0] == warm[0] != other_cold[0] == other_warm[0]
        assert cold[1] is other_cold[1] is None
        assert warm[1] == other_warm[1] == "11.0 3.3"


@pytest.mark.parametrize("left", PLACEMENTS)
def test_a_look_beside_another_has_another_colour(left: str) -> None:
    for right in PLACEMENTS:
        shown = beside(look_of(left), look_of(right))
        assert shown.light != look_of(left).light
        assert shown.dark != look_of(left).dark
        if look_of(left).light != look_of(right).light:
            assert shown == look_of(right)


def test_a_loss_that_explodes_is_cut_and_said(browser: Browser, made: Path, tmp_path: Path) -> None:
    """The axis has round numbers up to twice what token frequencies give."""
    data = data_in(made)
    for entry in data.values():
        for measured in entry["runs"].values():  # type: ignore[attr-defined]
            measured["frequencies"] = 3.0
    data["post_ln"]["runs"]["0"]["loss"][1][1] = 49.9  # type: ignore[index]
    start, _, rest = made.read_text().partition('id="data">')
    changed_page = tmp_path / "atlas.html"
    changed_page.write_text(f'{start}id="data">{json.dumps(data)}{rest[rest.index("</script>") :]}')
    with test_page.opened(browser, changed_page) as page:
        assert "up to 49.9" in (page.locator("#loss text.cut.right").first.text_content() or "")
        ticks = page.locator("#loss text[text-anchor=end]:not(.cut)").all_text_contents()
    assert float(ticks[-1]) == 6
    assert {2 * float(tick) % 1 for tick in ticks} == {0}


def test_the_example_names_every_placement() -> None:
    data = data_in(EXAMPLE)
    assert list(data) == list(PLACEMENTS)
    assert all(len(entry["runs"]) == 2 for entry in data.values())  # type: ignore[arg-type]
    assert EXAMPLE.stat().st_size < 2_000_000
