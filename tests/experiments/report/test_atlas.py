"""The atlas: its diagrams, its facts, its runs, and its page in headless Chromium."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

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
    meanings_of,
    overview,
    shared_controls,
    twins_of,
    used_by,
)
from experiments.report.diagram import Diagram, alike, in_words
from experiments.report.palette import look_of
from experiments.runners import atlas
from gpt import PLACEMENTS
from gpt.block import Block

EXAMPLE = Path(__file__).parents[3] / "docs" / "atlas.html"


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
    assert placed("admin").equation.startswith("h = N(w_1 * x + A x); out = N(w_2 * h + F h)")
    assert "sum 1 = \N{MULTIPLICATION SIGN} w_1 x + attention" in in_words(
        placed("admin").graphs[0]
    )
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
    facts = {name: placed(name).facts() for name in PLACEMENTS}
    passes = {name: of["norms in a block"] for name, of in facts.items()}
    assert passes["pre_ln"] == "2"
    assert passes["no_norm"] == "0"
    assert passes["siamese"] == "6"
    assert passes["span"] == "block 1: 3; blocks 2 to 4: 2"
    assert passes["hybrid"] == "4, 3 of them inside a branch"
    own = {name: of["parameters beyond No norm's"] for name, of in facts.items()}
    assert own["pre_ln"].startswith(f"{4 * width} a block")
    assert own["no_norm"] == "0 a block"
    assert re.fullmatch(rf"{4 * width} a block, \d\.\d\d % of its branches' own", own["pre_ln"])
    # Keel's first block has two norms less than the others.
    assert own["keel"].startswith(f"{(4 + 3 * 8) * width // 4} a block on average")
    assert own["admin"].startswith(f"{6 * width} a block")
    assert facts["deepnorm"]["initialisation"] == "deepnorm, prescribed by its paper"
    assert facts["deepnorm"]["shortcut scale"] == "1.68"
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
    assert placed.__wrapped__("post_ln").claims == []  # none that was read before


def test_the_board_is_quoted_for_a_placement_with_a_number_in_it() -> None:
    (quoted,) = placed("residual_dual").claims
    claim = quoted.claim
    assert (claim.claim, claim.claim_verdict) == ("residual_dual_keeps_gradients", "holds")
    assert quoted.when == "At initialisation"
    assert quoted.numbers == [
        (
            "ResiDual: log10(first block / last block)",
            *("-0.66 (-0.78 to -0.26)", "does not: above a tenth", "holds"),
        )
    ]
    assert claim.setting
    assert {of.when for of in placed("mix_ln").claims} == {"In training"}


def test_a_claim_that_fails_says_whose_number_fails() -> None:
    """Keel keeps its gradients; what does not hold is that Post-LN's vanish."""
    (quoted,) = (of for of in placed("keel").claims if of.claim.claim == "keel_keeps_gradients")
    assert (quoted.claim.claim_verdict, quoted.distance) == (
        "does not hold",
        "in a scaled-down setting",
    )
    of = ": log10(first block / last block)"
    assert [(number, predicted, verdict) for number, _, predicted, verdict in quoted.numbers] == [
        (f"Post-LN{of}", "vanishes: below a tenth", "does not hold"),
        (f"Keel{of}", "does not: above a tenth", "holds"),
    ]


def test_a_difference_is_quoted_as_one() -> None:
    numbers = [number for of in placed("pre_ln").claims for number in of.numbers]
    sensitivity = next(of for of in numbers if of[0].startswith("no warm-up"))
    assert sensitivity[0] == "no warm-up minus Pre-LN: sensitivity (nats)"
    assert all(measured != "not measured" for _, measured, *_ in numbers)
    assert not any("_ln" in text for of in numbers for text in of)


def test_controls_that_read_the_same_are_put_together() -> None:
    controls = shared_controls(placed("pre_ln").claims)
    learned = {words: of for words, of in controls.items() if words[0] == "Pre-LN: nats learnt"}
    assert len({measured for _, measured, *_ in learned}) == len(learned)
    assert ["early_gradients", "normformer"] in learned.values()
    assert all(len(of) > 1 for of in controls.values())


def test_each_verdict_on_the_page_is_explained() -> None:
    meanings = meanings_of([placed("pre_ln"), placed("post_ln")])
    assert {"holds", "open", "source not read"} <= meanings.keys()
    assert meanings_of([placed("residual_dual")]).keys() == {"holds"}


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
    assert "3 steps of AdamW, learning rate 0.003" in made.read_text()
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
            assert measured["trained"] == [0, 2, 2]  # after the last update there is no gradient
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


def test_what_a_step_takes_beside_one_of_pre_ln_is_on_the_page_and_in_a_file(
    make_atlas: Atlas, made: Path
) -> None:
    summaries = (make_atlas.folder / "runs").glob("*/summary.json")
    times = {time.placement: time for time in read_step_times(made.parent)}
    assert list(times) == ["post_ln", "residual_dual"]
    text = made.read_text()
    assert text.count(f"<dt>{STEP_TIME}</dt>") == len(PLACES)
    assert f"<dt>{STEP_TIME}</dt><dd>1, the others are compared with it</dd>" in text
    for time in times.values():
        assert 0 < time.ratio_low <= time.ratio <= time.ratio_high
        assert (time.layers, time.width, time.tokens, time.rounds) == (2, 8, 16, 1)
        assert time.text in text
    (threads,) = {json.loads(path.read_text())["versions"]["threads"] for path in summaries}
    assert f"The runs above had {threads} thread" in text
    assert f"2 blocks of width 8, 16 tokens a step, float32, on {times['post_ln'].device}" in text


def test_a_placement_whose_step_could_not_be_timed_has_no_time() -> None:
    assert STEP_TIME not in placed("post_ln").facts(is_timed=True)
    assert STEP_TIME in placed("pre_ln").facts(is_timed=True)


@pytest.fixture(scope="module")
def found(make_atlas: Atlas, made: Path) -> dict[str, dict[int, Run]]:
    """The runs of each placement on the page, by the steps of warm-up."""
    runs = make_atlas.folder / "runs"
    return {
        name: {w: Run.read(next(runs.glob(f"{name}-warmup_steps{w}-*"))) for w in (0, 2)}
        for name in PLACES
    }


def test_all_are_in_one_table_beside_token_frequencies(found: dict[str, dict[int, Run]]) -> None:
    table = overview([replace(placed(name), runs=found[name]) for name in PLACES])
    assert table.columns == [
        *("placement", "loss without warm-up", "loss with 2 steps of warm-up"),
        *("norms in a block", "parameters beyond No norm's, in a block"),
    ]
    by_name = {row[0].shown: [cell.shown for cell in row[1:]] for row in table.rows}
    assert list(by_name) == ["Pre-LN", "Post-LN", "ResiDual", "token frequencies"]
    # Of SMALL, whose width is 12: two LayerNorms, each with a scale and a shift for each channel.
    assert by_name["Pre-LN"][2:] == ["2", "48"]
    assert [len(losses[0]) for losses in by_name.values()] == [4] * 4  # such as 2.34
    assert len(table.looks) == len(table.rows)


def test_placements_that_are_one_function_say_so(found: dict[str, dict[int, Run]]) -> None:
    """The graphs of both have one shape; then the runs decide."""
    one, other = found["pre_ln"], found["post_ln"]
    names = ("pre_ln", "sandwich", "peri_ln", "hybrid", "ln_scaling")
    assert twins_of([replace(placed(name), runs=one) for name in names]) == {
        "sandwich": "Peri-LN",
        "peri_ln": "Sandwich",
    }
    sandwich, peri_ln = (replace(placed(name), runs=one) for name in ("sandwich", "peri_ln"))
    assert twins_of([sandwich, replace(peri_ln, runs=other)]) == {}


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
        "Without warm-up Post-LN learned nothing and No norm diverged; Pre-LN learned. With 60 "
        "steps of warm-up No norm ended worse than token frequencies; the other 2 learned"
    )
    assert finding_of(
        [Placed("pre_ln", config, {0: good}), Placed("admin", config, {0: good})]
    ) == ("Without warm-up all 2 learned")
    assert finding_of([Placed("post_ln", config, {0: stuck})]) == (
        "Without warm-up Post-LN learned nothing"
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


def test_a_link_within_the_page_leaves_the_choice_alone(page: Page) -> None:
    page.evaluate("location.hash = 'residual_dual,pre_ln'")
    page.wait_for_function("document.getElementById('left-pick').value === 'residual_dual'")
    page.locator("#left details > summary").first.click()
    page.get_by_role("link", name="What the verdicts mean").first.click()
    page.wait_for_function("location.hash === '#verdicts'")
    assert headings(page)[0] == "ResiDual norm=residual_dual"
    assert page.locator("#verdicts dt").first.inner_text() == "holds"


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
    assert page.locator("#shades rect").count() == 6 * 2  # in the colours of both
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
        ends = page.locator("#numbers tbody td:not(:empty)").evaluate_all(
            "cells => cells.map(cell => cell.getBoundingClientRect().right)"
        )
        assert len(ends) == 4 * 6 + 1  # of four runs, and of token frequencies
        assert 0 < min(ends) <= max(ends) <= size["width"]
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
        sides = page.locator(".diagram").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert len(sides) > 1
        assert all(0 <= left < right <= size["width"] for left, right in sides)


def strokes(page: Page) -> list[tuple[str, str]]:
    """Colour and dash of each line of the first chart with blocks."""
    script = "of => of.map(e => [getComputedStyle(e).stroke, e.getAttribute('stroke-dasharray')])"
    found = page.locator("#gradient path.series").evaluate_all(script)
    return [(colour, dash) for colour, dash in found]


def show(page: Page, left: str, right: str) -> None:
    page.evaluate(f"location.hash = '{left},{right}'")
    page.wait_for_function(
        "shown => [...document.querySelectorAll('select')].map(e => e.value).join() === shown",
        arg=f"{left},{right}",
    )


def test_both_sides_differ_in_colour_and_warm_up_is_dashed(page: Page) -> None:
    cold, warm, other_cold, other_warm = strokes(page)
    assert cold[0] == warm[0] != other_cold[0] == other_warm[0]
    assert cold[1] is other_cold[1] is None
    assert warm[1] == other_warm[1] == "11.0 3.3"
    assert page.locator("#colours").inner_text() == (
        "Each placement has its colour of the table below."
    )


def test_one_placement_on_both_sides_is_shown_once(page: Page) -> None:
    show(page, "post_ln", "post_ln")
    assert page.locator("#gradient path.series").count() == 2
    assert page.locator("#numbers tbody tr").count() == 2 + 1
    assert page.locator("#matrices figure").count() == 2
    assert page.locator("#colours").inner_text() == (
        "Both sides are Post-LN: its runs are shown once."
    )


Data = dict[str, dict[str, Any]]


@contextmanager
def opened_with(
    change: Callable[[Data], object], browser: Browser, made: Path, folder: Path
) -> Iterator[Page]:
    """Within: the page with other data."""
    data: Data = data_in(made)
    change(data)
    start, _, rest = made.read_text().partition('id="data">')
    page = folder / "atlas.html"
    page.write_text(f'{start}id="data">{json.dumps(data)}{rest[rest.index("</script>") :]}')
    with test_page.opened(browser, page) as opened:
        yield opened


def test_where_both_share_a_colour_the_right_one_has_that_of_the_text(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    """Which no placement has; so it is taken for none."""

    def share(data: Data) -> None:
        data["residual_dual"] |= {name: data["post_ln"][name] for name in ("light", "dark")}

    with opened_with(share, browser, made, tmp_path) as page:
        show(page, "residual_dual", "post_ln")
        ink = page.locator("h1").evaluate("element => getComputedStyle(element).color")
        colours = [colour for colour, _ in strokes(page)]
        said = page.locator("#colours").inner_text()
        show(page, "pre_ln", "residual_dual")
        assert ink not in [colour for colour, _ in strokes(page)]
    assert colours[2:] == [ink, ink]
    assert ink not in colours[:2]
    assert said.startswith("ResiDual and Post-LN share a colour: here Post-LN has that of the text")


def explode(data: Data) -> None:
    """Post-LN's loss without warm-up leaves the axis after the first step and comes back."""
    for entry in data.values():
        for measured in entry["runs"].values():
            measured["frequencies"] = 3.0
    data["post_ln"]["runs"]["0"]["loss"] = [[0, 4.0], [1, 49.9], [2, 4.0], [3, 4.0]]


def corners(page: Page, line: str) -> list[list[tuple[float, float]]]:
    """The points of each unbroken piece of a line."""
    path = page.locator(line).get_attribute("d") or ""
    return [
        [(float(x), float(y)) for x, y in (point.split() for point in piece.split("L"))]
        for piece in path.split("M")[1:]
    ]


def test_a_loss_that_leaves_the_axis_is_broken_there_and_named(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    """The axis has round numbers up to twice what token frequencies give."""
    with opened_with(explode, browser, made, tmp_path) as page:
        assert page.locator("#loss .notes .cut.right").all_text_contents() == [
            "\u2191 Post-LN, without warm-up: up to 49.9 at step 1"
        ]
        assert page.locator("#loss svg .cut.right").count() == 1
        ticks = page.locator("#loss text[text-anchor=end]:not(.title)").all_text_contents()
        leaves, returns = corners(page, "#loss path.series.right >> nth=0")
    assert float(ticks[-1]) == 6
    assert {2 * float(tick) % 1 for tick in ticks} == {0}
    # It rises to the edge, and nothing is drawn along it.
    (x0, y0), (x1, top) = leaves
    (x2, again), (x3, y3), _ = returns
    assert top == again < y0 == y3
    assert x0 < x1 < (x0 + x3) / 2 < x2 < x3


def test_a_value_beyond_a_logarithmic_axis_breaks_the_line(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    def vanish(data: Data) -> None:
        data["post_ln"]["runs"]["0"]["gradient"] = [[1e-30, 1.0]] * 3

    with opened_with(vanish, browser, made, tmp_path) as page:
        assert page.locator("#gradient .notes .cut").all_text_contents() == [
            "\u2193 Post-LN, without warm-up: down to 1.00e-30"
        ]
        ((start, end),) = corners(page, "#gradient path.series.right >> nth=0")
        arrow = page.locator("#gradient svg .cut.right").get_attribute("d") or ""
        marks = page.locator("#gradient circle.mark.right").count()
    assert marks == 4 - 1
    assert start[1] > end[1]
    assert float(arrow[1:].split()[0]) < start[0]  # the arrow is at the block, the line is not


def test_the_numbers_say_which_step_they_are_of(page: Page) -> None:
    caption = page.locator("#numbers caption")
    assert caption.inner_text() == (
        "At step 3; gradients and training loss of step 2, the last before it"
    )
    titles = [page.locator(f"#{name} text.title").first for name in ("gradient", "rms")]
    assert [title.text_content() for title in titles] == [
        "gradient norm at step 2, logarithmic",
        "root mean square at step 3, logarithmic",
    ]
    # The marker is where the curves end.
    ends = corners(page, "#loss path.series.left >> nth=0")[-1][-1]
    assert float(page.locator("#loss .now").get_attribute("x1") or 0) == pytest.approx(
        ends[0], abs=0.1
    )
    page.locator("#step").fill("1")
    assert caption.inner_text() == "At step 2"


def test_a_run_that_ended_earlier_says_so(browser: Browser, made: Path, tmp_path: Path) -> None:
    def stop(data: Data) -> None:
        run = data["post_ln"]["runs"]["0"]
        for name in ("steps", "trained", "gradient", "rms", "ratio", "shares"):
            run[name] = run[name][:2]

    with opened_with(stop, browser, made, tmp_path) as page:
        names = page.locator("#numbers tbody th").all_text_contents()
    assert names[2:4] == [
        "Post-LN, without warm-up (step 2, its last)",
        "Post-LN, with 2 steps of warm-up",
    ]


def test_runs_that_left_nothing_have_no_lines(browser: Browser, made: Path, tmp_path: Path) -> None:
    def empty(data: Data) -> None:
        for measured in data["pre_ln"]["runs"].values():
            measured |= {"status": "failed", "frequencies": None}
            for name in ("loss", "steps", "trained", "gradient", "rms", "ratio", "shares"):
                measured[name] = []

    with opened_with(empty, browser, made, tmp_path) as page:
        assert page.locator("#gradient path.series").count() == 2
        assert page.locator(".equal").count() == 0
        assert page.locator("#loss .chance").count() == 1
        cells = page.locator("#numbers tbody tr").first.locator("td").all_text_contents()
    assert cells == ["not measured"] * 5 + ["failed"]


def test_lines_that_are_one_are_said_to_be(page: Page) -> None:
    """Before the first update warm-up has changed nothing."""
    said = page.locator("#gradient .equal")
    assert said.count() == 0
    page.locator("#step").fill("0")
    pair = "without warm-up and with 2 steps of warm-up"
    assert said.inner_text() == (
        f"Equal here, so that one line hides the other: Pre-LN, {pair}; Post-LN, {pair}"
    )


def test_numbers_have_three_digits(browser: Browser, made: Path, tmp_path: Path) -> None:
    def set_numbers(data: Data) -> None:
        run = data["pre_ln"]["runs"]["0"]
        run |= {"gradient": [[0.00765, 2.3]] * 3, "rms": [[1.0, 1240.0]] * 3, "final": 3.0}
        run["loss"] = [[0, 0.00085]]

    with opened_with(set_numbers, browser, made, tmp_path) as page:
        cells = page.locator("#numbers tbody tr").first.locator("td").all_text_contents()
        columns = page.locator("#numbers thead th").all_text_contents()
    assert cells == ["8.50e-4", "0.00765", "2.30", "301", "1240", "3.00"]
    assert columns[4] == "gradient, last over first"


def test_the_legend_hides_a_run_by_mouse_and_by_keyboard(page: Page) -> None:
    lines = page.locator("#gradient path.series")
    first, *others = page.locator("#keys button").all()
    first.click()
    assert (lines.count(), first.get_attribute("aria-pressed")) == (3, "false")
    assert page.locator("#numbers tbody th").first.inner_text().startswith("Pre-LN, with 2")
    page.keyboard.press("Enter")
    assert (lines.count(), first.get_attribute("aria-pressed")) == (4, "true")
    for button in (first, *others):
        button.press("Space")
    assert page.locator("#loss").inner_text().strip() == "No run is selected."
    page.locator("#step").focus()
    page.keyboard.press("ArrowLeft")  # the slider still works
    show(page, "post_ln", "pre_ln")
    assert lines.count() == 4


def test_a_share_of_one_percent_is_told_from_none_and_print_is_light(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    def set_shares(data: Data) -> None:
        data["pre_ln"]["runs"]["0"]["shares"] = [[[0.99, 0.01, 0.0]]] * 3

    with opened_with(set_shares, browser, made, tmp_path) as page:
        cells = page.locator("#matrices .left rect")
        opacities = [cells.nth(i).get_attribute("fill-opacity") for i in range(3)]
        fill = "element => getComputedStyle(element).fill"
        norm = page.locator(".diagram rect.norm").first
        light, cell = norm.evaluate(fill), cells.first.evaluate(fill)
        page.emulate_media(color_scheme="dark")
        dark = norm.evaluate(fill)
        legend = page.locator("#shades rect.left").first.evaluate(fill)
        assert legend == cells.first.evaluate(fill) != cell
        page.emulate_media(color_scheme="dark", media="print")
        printed, printed_cell = norm.evaluate(fill), cells.first.evaluate(fill)
    assert [float(opacity or 0) for opacity in opacities] == [
        pytest.approx(0.996, abs=0.001),
        pytest.approx(0.325),
        0,
    ]
    assert dark != light == printed
    assert printed_cell == cell


def test_the_example_names_every_placement() -> None:
    data = data_in(EXAMPLE)
    assert list(data) == list(PLACEMENTS)
    assert all(len(entry["runs"]) == 2 for entry in data.values())  # type: ignore[arg-type]
    assert EXAMPLE.stat().st_size < 1_500_000
