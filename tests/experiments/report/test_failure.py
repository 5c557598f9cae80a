"""What a page says of an arm that learned nothing, step by step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.analysis.arms import Layout, factors_of, form_arms
from experiments.analysis.histories import read_history
from experiments.analysis.runs import find_runs
from experiments.report import write_report
from experiments.report.failure import Failure, failure_of, text
from made_runs import make_run

STUCK, LEARNED = 3.0, 2.4  # token frequencies alone give 3.0


def failure_in(folder: Path, by: Sequence[str] | None = None) -> Failure | None:
    runs = find_runs(folder)
    factors = factors_of(runs, by)
    arms = form_arms([read_history(run) for run in runs], factors)
    return failure_of(Layout(arms, factors))


def made(
    folder: Path,
    placement: str,
    warmup: int,
    end: float,
    ratios: Sequence[float] = (1.0, 1.0, 1.0),
    probes: Mapping[str, float] | None = None,
    start: float = 0.088,
    **more: object,
) -> None:
    """A run of three steps: last block's gradient over the first's, and probes in both blocks."""
    name = f"{placement}-{warmup}-{more.get('seed', 0)}"
    losses = (4.0, 3.5, end)
    run = make_run(folder, name, placement=placement, warmup=warmup, val_losses=losses, **more)  # type: ignore[arg-type]
    rows = [f"{step},0,block,grad_norm,2.0" for step in range(3)]
    rows += [f"{step},1,block,grad_norm,{2 * ratio}" for step, ratio in enumerate(ratios)]
    for stat, value in (probes or {}).items():
        component, step = {"update_ratio": ("block", 0), "token_cosine": ("output", 2)}[stat]
        rows += [f"{step},{layer},{component},{stat},{value}" for layer in (0, 1)]
        if stat == "token_cosine":
            rows += [f"0,{layer},{component},{stat},{start}" for layer in (0, 1)]
    text = "\n".join(["step,layer,component,stat,value", *rows])
    (run / "gradients.csv").write_text(text + "\n")


def lesson(folder: Path) -> None:
    """Post-LN is stuck without warm-up; with it its gradients go the same way and come back."""
    probes = {"update_ratio": 0.02757, "token_cosine": 0.992}
    made(folder, "post_ln", 0, STUCK, (0.97, 4.0, 18.4), probes)
    probes = {"update_ratio": 0.00046, "token_cosine": 0.091}
    made(folder, "post_ln", 60, LEARNED, (0.97, 13.6, 1.3), probes)
    made(folder, "post_ln", 90, LEARNED)
    probes = {"update_ratio": 0.0277, "token_cosine": 0.125}
    made(folder, "pre_ln", 0, LEARNED, (0.7, 0.8, 1.2), probes)


def test_the_steps_of_an_arm_are_beside_those_of_arms_that_learned(tmp_path: Path) -> None:
    lesson(tmp_path)
    failure = failure_in(tmp_path)
    assert failure is not None
    assert failure.label == "Post-LN without warm-up"
    assert [(moment.words, moment.figure) for moment in failure.moments] == [
        (
            "It begins nearly even: at step 0 the last block gets 0.97 times the gradient of the "
            "first (with 60 steps of warm-up 0.97; Pre-LN 0.7).",
            "gradient_ratio",
        ),
        (
            "The first update changes a block's weights by 2.8 % of their norm (with 60 steps "
            "of warm-up 0.046; Pre-LN 2.8). Warm-up lets the learning rate rise over its steps, so "
            "the first are small.",
            "update_ratio",
        ),
        (
            "At step 2 the last block gets 18 times the gradient of the first (with 60 steps of "
            "warm-up 1.3; Pre-LN 1.2).",
            "gradient_ratio",
        ),
        (
            "At its most uneven the last block gets 18 times at step 2, then 18 at the last step "
            "(with 60 steps of warm-up 14 times at step 1, then 1.3 at the last step; Pre-LN 0.7 "
            "times at step 0, then 1.2 at the last step).",
            "gradient_ratio",
        ),
        (
            "At step 2 the states of different tokens after block 1 are nearly the same: their "
            "mean cosine is 0.99, at step 0 it was 0.088 (with 60 steps of warm-up 0.091; Pre-LN "
            "0.12). What comes after it reads nearly the same for each token.",
            "token_cosine",
        ),
        (
            "It ends at 3.00 nats (with 60 steps of warm-up 2.40; Pre-LN 2.40); token frequencies "
            "alone give 3.00.",
            "loss",
        ),
    ]


def test_what_was_not_measured_or_did_not_happen_is_not_said(tmp_path: Path) -> None:
    """The tokens were as much alike before the first step."""
    made(tmp_path, "post_ln", 0, STUCK, (3.0, 4.0, 5.0), {"token_cosine": 0.95}, start=0.93)
    made(tmp_path, "post_ln", 60, LEARNED, (3.0, 1.0, 1.0), {"token_cosine": 0.1})
    failure = failure_in(tmp_path)
    assert failure is not None
    assert [moment.words for moment in failure.moments] == [
        "It begins uneven: at step 0 the last block gets 3.0 times the gradient of the first "
        "(with 60 steps of warm-up 3.0).",
        "At its most uneven the last block gets 5.0 times at step 2, then 5.0 at the last step "
        "(with 60 steps of warm-up 3.0 times at step 0, then 1.0 at the last step).",
        "It ends at 3.00 nats (with 60 steps of warm-up 2.40); token frequencies alone give 3.00.",
    ]


def test_numbers_are_medians_over_the_runs(tmp_path: Path) -> None:
    for seed, share in enumerate((0.01, 0.02, 0.5)):
        made(tmp_path, "post_ln", 0, STUCK, probes={"update_ratio": share}, seed=seed)
        made(tmp_path, "post_ln", 60, LEARNED, seed=seed)
    failure = failure_in(tmp_path)
    assert failure is not None
    assert "by 2.0 % of their norm. Warm-up lets" in failure.moments[1].words


def test_runs_of_an_arm_may_have_different_numbers_of_blocks(tmp_path: Path) -> None:
    """Depths that are pooled: each block has the median of the runs that have it."""
    probes = {"update_ratio": 0.02, "token_cosine": 0.99}
    for layers in (2, 3):
        made(tmp_path, "post_ln", 0, STUCK, probes=probes, seed=layers, n_layers=layers)
        made(tmp_path, "post_ln", 60, LEARNED, probes={"token_cosine": 0.1}, seed=layers)
    extra = next(tmp_path.glob("post_ln-0-3")) / "gradients.csv"
    rows = "0,2,block,update_ratio,0.02\n0,2,output,token_cosine,0.1\n2,2,output,token_cosine,0.9\n"
    extra.write_text(extra.read_text() + rows)
    failure = failure_in(tmp_path, ["norm.placement", "schedule.warmup_steps"])
    assert failure is not None
    assert "by 2.0 % of their norm" in failure.moments[1].words


def test_an_arm_without_a_like_one_that_learned_has_no_steps(tmp_path: Path) -> None:
    made(tmp_path, "post_ln", 0, STUCK)
    made(tmp_path, "pre_ln", 0, LEARNED)
    assert failure_in(tmp_path) is None
    made(tmp_path, "post_ln", 60, LEARNED)
    made(tmp_path, "post_ln", 60, STUCK, seed=1)
    assert failure_in(tmp_path) is None  # it does not always learn
    lesson(tmp_path / "other")
    for path in (tmp_path / "other").rglob("summary.json"):
        path.write_text(path.read_text().replace('"finished"', '"running"'))
    assert failure_in(tmp_path / "other") is None


def test_the_order_of_steps_is_on_the_page_with_addresses_of_its_figures(tmp_path: Path) -> None:
    lesson(tmp_path)
    page = write_report([tmp_path], tmp_path / "out", formats=()).read_text()
    section = page.partition('<section id="failure">')[2].partition("</section>")[0]
    assert "<h2>Post-LN without warm-up, step by step</h2>" in section
    assert section.count("<li>") == 6
    assert '<a href="#update_ratio">Figure: update ratio</a>' in section
    assert "That one thing causes the next is not." in section
    for figure in ("gradient_ratio", "update_ratio", "token_cosine", "loss"):
        assert f'id="{figure}"' in page


def test_numbers_have_two_digits() -> None:
    assert [*map(text, (0.0464, 0.7, 1, 1.26, 18.4, 3670))] == [
        "0.046",
        "0.7",
        "1.0",
        "1.3",
        "18",
        "3,670",
    ]
