"""What runs say in words: titles, one sentence, what was held equal, the next command."""

import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs import settings_of
from experiments.analysis.arms import Arm, Layout, factors_of, form_arms
from experiments.analysis.findings import held_equal, next_command, title_of, verdict_of
from experiments.analysis.histories import History, read_history
from experiments.analysis.next_steps import AFTER, shown_by
from experiments.analysis.runs import find_runs, name_models
from experiments.analysis.titles import factor_phrase
from experiments.analysis.words import (
    count_words,
    number_words,
    placement_words,
    setting_words,
    times_text,
    value_words,
)
from experiments.records.summary import Summary
from experiments.settings.explain import options_of
from gpt import PLACEMENTS
from made_runs import make_run

CORPUS = {"name": "made", "sha256": "00", "unigram_validation_loss": 3.02}
PRE, POST = {"placement": "pre_ln"}, {"placement": "post_ln"}
Found = tuple[Layout, list[Arm]]


def found(folder: Path, by: Sequence[str] | None = None, read: bool = False) -> Found:
    """The runs in a folder, with their CSV files if they are read."""
    runs = find_runs(folder)
    name_models(runs)
    factors = factors_of(runs, by)
    arms = form_arms([read_history(run) if read else History(run) for run in runs], factors)
    return Layout(arms, factors), arms


def arm(folder: Path, losses: Sequence[float], first: float = 4.0, **options: Any) -> None:
    """A run for each final loss, from the seeds 0, 1, ..."""
    for seed, loss in enumerate(losses):
        name = f"{len([*folder.iterdir()])}"
        usual: dict[str, Any] = {"corpus": CORPUS, "seed": seed}
        make_run(folder, name, val_losses=(first, loss), **(usual | options))


def change_settings(folder: Path, **sections: Mapping[str, object]) -> None:
    """Other settings for the run that was made last."""
    path = max(folder.glob("*/summary.json"), key=lambda path: int(path.parent.name))
    values = json.loads(path.read_text())
    for name, section in sections.items():
        values["settings"][name] = {**values["settings"].get(name, {}), **section}
    path.write_text(json.dumps(values))


def lesson(folder: Path) -> None:
    arm(folder, (3.03, 3.04, 3.03), **POST)
    arm(folder, (2.41, 2.39, 2.63), **POST, warmup=60)
    arm(folder, (2.37, 2.38, 2.38), **PRE)


LESSON = (
    "Post-LN without warm-up learned nothing in 3 of 3 runs (3.03 nats; token frequencies alone "
    "give 3.02); with 60 steps of warm-up it learned in 3 of 3, median 2.41 nats; Pre-LN without "
    "warm-up learned in 3 of 3, median 2.38 nats"
)


def test_the_arm_that_learned_nothing_comes_first(tmp_path: Path) -> None:
    lesson(tmp_path)
    runs = found(tmp_path)
    assert title_of(*runs) == "Post-LN with and without warm-up, and Pre-LN without"
    assert verdict_of(*runs) == f"{LESSON}."
    assert held_equal(*runs) == (
        "Equal in all arms: seeds 0, 1 and 2 and their batches, initialisation "
        "xavier, learning rate 0.001, 2 blocks."
    )


def test_no_failure_hides_behind_a_good_learning_rate(tmp_path: Path) -> None:
    """Post-LN is as good as Pre-LN at its best rate, which is what a table of the best shows."""
    for options in (PRE, POST):
        for warmup in (0, 30, 100):
            for rate in (3e-4, 1e-3, 3e-3, 1e-2):
                losses = [2.5 - 50 * min(rate, 2e-3)] * 3
                if options is POST and rate >= (3e-3, 1e-2, 1.0)[(0, 30, 100).index(warmup)]:
                    losses = [3.03, 3.03, 3.03 if rate == 1e-2 else 2.7]
                arm(tmp_path, losses, **options, warmup=warmup, lr=rate)
    runs = found(tmp_path)
    assert title_of(*runs) == (
        "Pre-LN and Post-LN from 0 to 100 steps of warm-up and over four learning rates"
    )
    assert verdict_of(*runs) == (
        "Post-LN learns nothing at lr 0.003 and above without warm-up (5 of 6 runs) and at lr 0.01 "
        "with 30 steps of warm-up (3 of 3); its best is a median of 2.40 nats with 30 steps of "
        "warm-up, at lr 0.003; Pre-LN learned in all 36 runs, at best a median of 2.40 nats "
        "without warm-up, at lr 0.003."
    )


def test_an_arm_that_fails_at_every_rate_has_no_best(tmp_path: Path) -> None:
    for rate in (1e-3, 3e-3):
        arm(tmp_path, (3.1, 3.1), **POST, lr=rate)
        arm(tmp_path, (2.4, 2.6), **PRE, lr=rate)
    assert verdict_of(*found(tmp_path)) == (
        "Post-LN learns nothing at any rate (4 of 4 runs); Pre-LN learns at every rate, at best "
        "2.40 and 2.60 nats at lr 0.001, the grid's edge."
    )


def test_a_sweep_that_goes_on_speaks_of_ended_runs_alone(tmp_path: Path) -> None:
    for rate in (1e-3, 3e-3, 1e-2, 3e-2):
        status = "finished" if rate < 5e-3 else "running"
        arm(tmp_path, (2.4 - rate,), **PRE, lr=rate, status=status)
        arm(tmp_path, (3.03,), **POST, lr=rate, status="finished" if rate < 2e-3 else "running")
    assert verdict_of(*found(tmp_path)) == (
        "Post-LN learns nothing at lr 0.001 (1 of 1 run); Pre-LN learned in both runs that have "
        "ended (lr 0.001 and 0.003), at best 2.40 nats at lr 0.003, the grid's edge; 5 of 8 runs "
        "have not ended."
    )


def test_the_best_rate_of_many_arms_is_of_those_that_have_ended(tmp_path: Path) -> None:
    for index, name in enumerate(list(PLACEMENTS)[:7]):
        for rate in (1e-3, 3e-3):
            status = "running" if index == 6 and rate == 3e-3 else "finished"
            arm(tmp_path, (2 + index / 50,), placement=name, lr=rate, status=status)
    assert verdict_of(*found(tmp_path)) == (
        "Each at its best rate so far, 3 of 7 placements end within 0.05 nats of the lowest, 2.00 "
        "nats (Pre-LN at lr 0.001); one run each, so this is no ranking; the highest is 2.12 nats "
        "(DeepNorm at lr 0.001); all 13 runs that have ended learned; 1 of 14 "
        "runs has not ended."
    )


def test_where_ranges_overlap_no_difference_is_claimed(tmp_path: Path) -> None:
    for options in (PRE, POST):
        for warmup in (0, 60):
            arm(tmp_path, (2.4, 2.5, 2.45 + warmup / 1e4), **options, warmup=warmup)
    assert verdict_of(*found(tmp_path)).endswith(
        "; the placement and warm-up make no difference beyond the seeds' range at lr 0.001: try "
        "a higher one, such as optimizer.lr=0.003."
    )


def test_a_factor_without_an_effect_is_told_from_one_with(tmp_path: Path) -> None:
    for options, loss in ((PRE, 2.43), (POST, 2.48)):
        for warmup in (0, 100):
            arm(tmp_path, (loss, loss + 0.01), **options, warmup=warmup)
    assert verdict_of(*found(tmp_path)) == (
        "All 8 runs learned: Pre-LN without warm-up reached 2.43 and 2.44 nats; with 100 steps of "
        "warm-up it reached 2.43 and 2.44 nats; Post-LN without warm-up reached 2.48 and 2.49 "
        "nats; with 100 steps of warm-up it reached 2.48 and 2.49 nats; warm-up makes no "
        "difference beyond the seeds' range at lr 0.001: try a higher one, such as "
        "optimizer.lr=0.003."
    )


def test_one_seed_has_no_range(tmp_path: Path) -> None:
    arm(tmp_path, [2.43], **PRE)
    arm(tmp_path, [2.48], **POST)
    assert verdict_of(*found(tmp_path)) == (
        "Both runs learned: Pre-LN reached 2.43 nats; Post-LN reached 2.48 nats; with one run for "
        "each the range over seeds is not known."
    )


def test_some_seeds_of_an_arm_can_fail(tmp_path: Path) -> None:
    arm(tmp_path, (3.03, 2.41, 2.42), **POST)
    arm(tmp_path, (2.3, 2.3), **PRE)
    assert verdict_of(*found(tmp_path)) == (
        "Post-LN learned nothing in 1 of 3 runs (3.03 nats; token frequencies alone give 3.02) "
        "and reached 2.41 and 2.42 nats in the others; Pre-LN reached 2.30 nats."
    )


def test_runs_that_diverge_say_how(tmp_path: Path) -> None:
    arm(tmp_path, (1332.0, 700.0), first=38.0, placement="no_norm")
    arm(tmp_path, (2.5,), placement="sandwich", status="diverged", reason="loss not finite")
    arm(tmp_path, (3.03, 9.0), placement="b2t")
    arm(tmp_path, (2.4,), **PRE)
    assert verdict_of(*found(tmp_path)) == (
        "No norm diverged in 2 of 2 runs (losses rose, one from 38.0 to 1,332 nats); Sandwich "
        "diverged in 1 of 1 run (a loss or a gradient was not finite); B2T failed in 2 of 2 runs "
        "(1 learned nothing, 1 diverged); Pre-LN reached 2.40 nats."
    )


@pytest.mark.parametrize(
    ("options", "loss", "words"),
    [
        (
            {**POST, "warmup": 60},
            2.41,
            "Post-LN with 60 steps of warm-up learned: its validation loss is 2.41 nats, where "
            "token frequencies alone give 3.02.",
        ),
        (
            POST,
            3.03,
            "Post-LN without warm-up learned nothing: its validation loss is 3.03 nats, and token "
            "frequencies alone give 3.02.",
        ),
        (
            {"placement": "no_norm"},
            500.0,
            "No norm without warm-up diverged: validation loss rose from 4 to 500 nats.",
        ),
        ({**PRE, "status": "running"}, 3.0, "Nothing was measured: 1 of 1 run has not ended."),
        (
            {**PRE, "status": "failed", "error": "no disk"},
            3.0,
            "Nothing was measured: 1 of 1 run stopped with an error (no disk).",
        ),
        (
            {**PRE, "finding": "its numbers say this"},
            2.0,
            "Its numbers say this.",
        ),
    ],
)
def test_a_single_run(tmp_path: Path, options: dict[str, Any], loss: float, words: str) -> None:
    arm(tmp_path, [loss], **options)
    assert verdict_of(*found(tmp_path)) == words
    assert held_equal(*found(tmp_path)) == ""


def test_the_title_of_a_single_run_has_its_size_and_length(tmp_path: Path) -> None:
    arm(tmp_path, [3.03], **POST, n_layers=8)
    change_settings(tmp_path, trainer={"steps": 400}, schedule={"warmup_steps": 200})
    assert title_of(*found(tmp_path)) == "Post-LN, 8 blocks, 400 steps"
    assert "learned nothing in 400 steps" in verdict_of(*found(tmp_path))


def test_a_run_too_short_for_token_frequencies_is_given_more_steps(tmp_path: Path) -> None:
    arm(tmp_path, [3.9], **PRE)
    change_settings(tmp_path, trainer={"steps": 20}, schedule={"warmup_steps": 200})
    assert verdict_of(*found(tmp_path)) == (
        "Pre-LN, all 20 steps within its 200 of warm-up, did not get as far as token frequencies: "
        "its validation loss is 3.90 nats, and token frequencies alone give 3.02."
    )
    assert next_command(*found(tmp_path)) == "python run.py norm=pre_ln seed=0 trainer.steps=80"


def test_a_run_that_ends_inside_its_warm_up_says_so(tmp_path: Path) -> None:
    arm(tmp_path, [2.4], **POST)
    change_settings(tmp_path, trainer={"steps": 150}, schedule={"warmup_steps": 200})
    assert verdict_of(*found(tmp_path)) == (
        "Post-LN, all 150 steps within its 200 of warm-up, learned: its validation loss is 2.40 "
        "nats, where token frequencies alone give 3.02."
    )
    change_settings(tmp_path, trainer={"steps": 201})
    assert verdict_of(*found(tmp_path)).startswith(
        "Post-LN with 200 steps of warm-up learned in 201 steps: "
    )


def test_arms_that_end_inside_their_warm_up_are_named_so(tmp_path: Path) -> None:
    for warmup in (0, 200):
        arm(tmp_path, [2.4], **POST, warmup=warmup)
        change_settings(tmp_path, trainer={"steps": 150})
    assert verdict_of(*found(tmp_path)) == (
        "Both runs learned: Post-LN without warm-up reached 2.40 nats; with all 150 steps within "
        "200 of warm-up it reached 2.40 nats; with one run for each the range over seeds is not "
        "known."
    )


def test_a_warm_up_that_no_run_leaves_is_said_once(tmp_path: Path) -> None:
    for options in (PRE, POST):
        arm(tmp_path, [2.4], **options, warmup=200)
        change_settings(tmp_path, trainer={"steps": 150})
    verdict = verdict_of(*found(tmp_path))
    assert verdict.endswith(
        "; all 150 steps are within the 200 of warm-up, so no run reached the full learning rate."
    )


def test_no_clause_hides_one_of_the_rates_at_which_arms_fail(tmp_path: Path) -> None:
    """Of a placement whose runs fail in two ways, at every rate, and at the same rate twice."""
    for warmup, failing in ((0, (1e-3, 1e-2)), (30, (1e-2,)), (60, (1e-2,)), (90, ())):
        for rate in (1e-3, 1e-2):
            losses = (3.03, 3.03) if rate in failing else (2.4, 2.5)
            arm(tmp_path, losses, **POST, warmup=warmup, lr=rate)
    arm(tmp_path, (2.4, 9.0), **POST, warmup=90, lr=3e-2, seed=7)
    assert verdict_of(*found(tmp_path)) == (
        "Post-LN learns nothing at every rate without warm-up (4 of 4 runs) and at lr 0.01 with 30 "
        "steps of warm-up (2 of 2) and with 60 steps of warm-up (2 of 2) and diverges at lr 0.03 "
        "with 90 steps of warm-up (1 of 2); its best is 2.40 and 2.50 nats with 30 steps of "
        "warm-up, at lr 0.001, the grid's edge."
    )


@pytest.mark.parametrize(
    ("ran", "title"),
    [
        (
            {"pre_ln": [(0, 1e-3)], "post_ln": [(0, 1e-3), (60, 1e-3)], "b2t": [(0, 1e-3)]},
            "Post-LN with and without warm-up, and Pre-LN and B2T without",
        ),
        (
            {"pre_ln": [(60, 1e-3)], "post_ln": [(0, 1e-3), (60, 1e-3)]},
            "Post-LN with and without warm-up, and Pre-LN with 60 steps of warm-up",
        ),
        (
            {
                "pre_ln": list(itertools.product([0], [1e-3, 3e-3])),
                "post_ln": list(itertools.product([0, 30, 60], [1e-3, 3e-3])),
            },
            "Post-LN from 0 to 60 steps of warm-up, and Pre-LN without warm-up, over two learning "
            "rates",
        ),
        (
            {"pre_ln": [(0, 1e-3)], "post_ln": [(0, 1e-3), (60, 3e-3)]},
            "Pre-LN and Post-LN with and without warm-up and over two learning rates, 3 of 8 "
            "combinations",
        ),
        (
            {"pre_ln": [(0, 1e-3), (60, 3e-3)]},
            "Pre-LN with and without warm-up and over two learning rates, 2 of 4 combinations",
        ),
        (
            {name: list(itertools.product([0, 60], [1e-3])) for name in ("pre_ln", "post_ln")},
            "Pre-LN and Post-LN with and without warm-up",
        ),
    ],
)
def test_a_title_promises_nothing_that_was_not_run(
    tmp_path: Path, ran: dict[str, list[tuple[int, float]]], title: str
) -> None:
    for placement, settings in ran.items():
        for warmup, rate in settings:
            arm(tmp_path, [2.4], placement=placement, warmup=warmup, lr=rate)
    assert title_of(*found(tmp_path)) == title


def test_runs_without_a_result_are_counted_after_the_others(tmp_path: Path) -> None:
    lesson(tmp_path)
    arm(tmp_path, [3.0], placement="b2t", status="failed", error="no disk")
    arm(tmp_path, [3.0], placement="b2t", status="running", seed=1)
    assert verdict_of(*found(tmp_path)) == (
        f"{LESSON}; 1 of 11 runs stopped with an error (no disk); 1 of 11 runs has not ended."
    )


def test_pooled_settings_are_named(tmp_path: Path) -> None:
    lesson(tmp_path)
    runs = found(tmp_path, by=["norm"])
    assert title_of(*runs) == "Pre-LN and Post-LN"
    assert verdict_of(*runs) == (
        "Post-LN learned nothing in 3 of 6 runs (3.03 nats; token frequencies alone give 3.02) and "
        "reached a median of 2.41 nats in the others; Pre-LN learned in 3 of 3, median 2.38 nats; "
        "each arm pools runs that differ in warm-up."
    )
    assert held_equal(*runs).endswith("Not equal: warm-up.")


def test_what_else_differs_is_told_with_the_arms_that_have_it(tmp_path: Path) -> None:
    for name in list(PLACEMENTS)[:8]:
        scheme = "deepnorm" if name == "deepnorm" else "xavier"
        arm(tmp_path, (2.4,), placement=name, init=scheme)
    assert "deepnorm" in list(PLACEMENTS)[:8]
    assert held_equal(*found(tmp_path)).endswith(
        "Not equal: initialisation (deepnorm in DeepNorm, xavier in the other 7)."
    )


def test_a_value_that_an_optimizer_brings_is_told_with_it(tmp_path: Path) -> None:
    for name, decay in (("adamw", 0.1), ("muon", 0.1), ("sgd", 0.0)):
        arm(tmp_path, (2.4,), **PRE)
        own = {"name": name, "weight_decay": decay, "momentum": None if name == "adamw" else 0.9}
        change_settings(tmp_path, optimizer=own)
    assert held_equal(*found(tmp_path)).endswith(
        "Not equal: weight decay (0 with SGD, 0.1 with AdamW and Muon), momentum (none with AdamW, "
        "0.9 with Muon and SGD)."
    )


def test_arms_whose_runs_are_equal_at_every_step_are_named(tmp_path: Path) -> None:
    """B2T ends as the first two do, and Pre-LN has their losses with another gradient."""
    losses = {"peri_ln": (4.0, 3.0, 2.4), "sandwich": (4.0, 3.0, 2.4), "b2t": (4.0, 3.1, 2.4)}
    for placement, curve in (losses | {"pre_ln": losses["sandwich"]}).items():
        last = 0.7 if placement == "pre_ln" else 0.5
        for seed in (0, 1):
            for rate in (1e-3, 3e-3):
                options = {"placement": placement, "seed": seed, "lr": rate, "last_block": last}
                values = [loss + seed + 100 * rate for loss in curve]
                make_run(tmp_path, f"{placement}{seed}{rate}", val_losses=values, **options)
    same = "Sandwich and Peri-LN are the same function here: equal at every step."
    assert held_equal(*found(tmp_path, read=True)).endswith(same)
    other = {"placement": "peri_ln", "seed": 2, "lr": 3e-3}
    make_run(tmp_path, "more", val_losses=(4.0, 3.0, 2.4), **other)
    assert same not in held_equal(*found(tmp_path, read=True))


def test_a_setting_without_an_effect_is_named(tmp_path: Path) -> None:
    for clip in (1.0, 100.0):
        arm(tmp_path, (2.4, 2.5), **PRE)
        for run in tmp_path.iterdir():
            summary = json.loads((run / "summary.json").read_text())
            summary["settings"].setdefault("trainer", {"clip": clip})
            (run / "summary.json").write_text(json.dumps(summary))
    words = held_equal(*found(tmp_path, read=True))
    assert words.endswith(
        "Clipping at 1 and clipping at 100 give the same runs: equal at every step."
    )
    assert "same" not in held_equal(*found(tmp_path))


def test_a_sweep_over_depth_speaks_of_gradients_and_of_failures(tmp_path: Path) -> None:
    for blocks in (2, 4, 8, 16):
        for seed in (0, 1):
            norm = 0.9 + seed / 1000
            arm(tmp_path, [2.4], **PRE, n_layers=blocks, last_block=norm * blocks**-0.5, seed=seed)
            loss = 3.1 if blocks == 16 else 2.5
            arm(tmp_path, [loss], **POST, n_layers=blocks, last_block=norm, seed=seed)
    runs = found(tmp_path)
    assert title_of(*runs) == "Pre-LN and Post-LN from 2 to 16 blocks"
    assert verdict_of(*runs) == (
        "At lr 0.001 without warm-up Post-LN with 16 blocks learned nothing in 2 of 2 runs (3.10 "
        "nats; token frequencies alone give 3.02); all 14 other runs learned; from 2 to 16 blocks "
        "the last block's gradient norm at initialisation goes from 0.901 to 0.901 under Post-LN "
        "(exponent +0.00, 95% interval +0.00 to +0.00) and from 0.637 to 0.225 under Pre-LN "
        "(exponent -0.50, 95% interval -0.50 to -0.50)."
    )


def test_a_trend_that_turns_or_is_no_line_has_no_exponent(tmp_path: Path) -> None:
    turning, bent = (0.8, 0.77, 0.82, 0.6), (1.0, 1.1, 1.2, 20.0)
    for blocks, low, high in zip((2, 4, 8, 16), turning, bent, strict=True):
        arm(tmp_path, [2.4], **PRE, n_layers=blocks, last_block=low)
        arm(tmp_path, [2.4], **POST, n_layers=blocks, last_block=high)
    assert verdict_of(*found(tmp_path)) == (
        "From 2 to 16 blocks the last block's gradient norm at initialisation goes from 1 to 20 "
        "under Post-LN; it has no steady trend under Pre-LN: 0.8, 0.77, 0.82 and 0.6."
    )


def test_many_failures_of_a_trend_are_counted_before_it(tmp_path: Path) -> None:
    for blocks in (2, 4, 8):
        arm(tmp_path, [3.1], **POST, n_layers=blocks, last_block=1.0)
        arm(tmp_path, [2.4], **PRE, n_layers=blocks, last_block=1.0)
    assert verdict_of(*found(tmp_path)).startswith(
        "At lr 0.001 without warm-up 3 of 6 runs did not learn (Post-LN with 2 blocks in 1 of 1, "
        "Post-LN with 4 blocks in 1 of 1, Post-LN with 8 blocks in 1 of 1); from 2 to 8 blocks "
    )


def test_gradients_without_training_are_compared_by_their_ratio(tmp_path: Path) -> None:
    for options, norm in ((PRE, 0.25), (POST, 1500.0)):
        arm(tmp_path, [0.0], **options, last_block=norm, val_loss=None, initial_val_loss=None)
        change_settings(tmp_path, model={"emb_dim": 64})
    runs = found(tmp_path)
    assert verdict_of(*runs) == (
        "At initialisation the last block's gradient is 0.25 times the first's under Pre-LN "
        "and 1,500 times the first's under Post-LN."
    )


def test_sizes_are_counted_and_nothing_is_said_of_training(tmp_path: Path) -> None:
    for name, count in (("gpt2_124m", 124_439_808), ("gpt2_1558m", 1_557_611_200)):
        untrained = {"val_loss": None, "initial_val_loss": None, "grad_norm": {}}
        arm(tmp_path, [0.0], parameters=count, overrides=[f"model={name}"], **untrained)
        change_settings(tmp_path, model={"emb_dim": count})
    runs = found(tmp_path)
    assert title_of(*runs) == "GPT-2's sizes"
    assert verdict_of(*runs) == (
        "gpt2_124m has 124,439,808 parameters and gpt2_1558m has 1,557,611,200, 12.5 times as "
        "many; nothing was trained."
    )
    assert "parameters (124,439,808 to 1,557,611,200)" in held_equal(*runs)


def test_of_many_arms_the_best_the_worst_and_the_failures_are_named(tmp_path: Path) -> None:
    for index, name in enumerate(list(PLACEMENTS)[:7]):
        for rate in (1e-3, 3e-3):
            fails = name == "post_ln" and rate == 3e-3
            arm(tmp_path, (2 + index / 20 + fails, 2 + index / 20), placement=name, lr=rate)
    runs = found(tmp_path)
    assert title_of(*runs) == "Seven placements over two learning rates"
    assert verdict_of(*runs) == (
        "Of 7 placements, each at the better of its two rates, Pre-LN at lr 0.001 (2.00 nats) is "
        "best and DeepNorm at lr 0.001 (2.30 nats) worst; 1 of 28 runs did not learn (Post-LN in "
        "1 of 4)."
    )


@pytest.mark.parametrize(
    ("step", "spread", "words"),
    [
        (
            0.02,
            None,
            "3 of 7 placements end within 0.05 nats of the lowest, 2.00 nats (Pre-LN); one run "
            "each, so this is no ranking; the highest is 2.12 nats (DeepNorm); all 7 runs learned.",
        ),
        (
            0.02,
            0.09,
            "5 of 7 placements end within 0.09 nats of the lowest, 2.00 and 2.09 nats (Pre-LN); "
            "seeds of an arm differ by as much, so these are not ranked; the highest is 2.12 and "
            "2.21 nats (DeepNorm); all 14 runs learned.",
        ),
        (
            0.1,
            None,
            "1 of 7 placements ends within 0.05 nats of the lowest, 2.00 nats (Pre-LN); one run "
            "each, so this is no ranking; the highest is 2.60 nats (DeepNorm); all 7 runs learned.",
        ),
        (
            0.1,
            0.09,
            "Of 7 placements Pre-LN (2.00 and 2.09 nats) is best and DeepNorm (2.60 and 2.69 nats) "
            "worst; all 14 runs learned.",
        ),
    ],
)
def test_no_arm_is_best_that_others_equal_within_what_seeds_differ_by(
    tmp_path: Path, step: float, spread: float | None, words: str
) -> None:
    for index, name in enumerate(list(PLACEMENTS)[:7]):
        loss = 2 + index * step
        arm(tmp_path, (loss,) if spread is None else (loss, loss + spread), placement=name)
    assert verdict_of(*found(tmp_path)) == words


def test_a_sweep_over_an_unrelated_setting_needs_no_placement(tmp_path: Path) -> None:
    for activation, losses in (("gelu", (2.3, 2.31)), ("relu", (2.4, 2.41))):
        for seed, loss in enumerate(losses):
            arm(tmp_path, [loss], **PRE, seed=seed)
            change_settings(tmp_path, trainer={"batch_size": 8 if activation == "gelu" else 16})
    runs = found(tmp_path)
    assert title_of(*runs) == "Pre-LN with batch size 8 and batch size 16"
    assert verdict_of(*runs) == (
        "All 4 runs learned: Pre-LN with batch size 8 reached 2.30 and 2.31 nats; with batch size "
        "16 it reached 2.40 and 2.41 nats."
    )


# Words


def test_every_placement_has_words() -> None:
    words = {name: placement_words(name) for name in PLACEMENTS}
    assert words["post_ln"] == "Post-LN"
    assert words["hybrid_star"] == "HybridNorm*"
    assert words["no_norm"] == "No norm"
    assert words["two_hop"] == "Two hop"
    assert len({*words.values()}) == len(PLACEMENTS)
    assert not any("_" in word for word in words.values())


def test_settings_are_phrases_behind_a_placement() -> None:
    assert setting_words("schedule.warmup_steps", 0) == "without warm-up"
    assert setting_words("optimizer.lr", 3e-3) == "at lr 0.003"
    assert setting_words("optimizer.name", "sgd") == "with SGD"
    assert setting_words("trainer.clip", None) == "without clipping"
    assert setting_words("trainer.clip", 1.0) == "with clipping at 1"
    assert setting_words("shortcut", False) == "without shortcuts"
    assert value_words("trainer.clip", None) == "no clipping"
    assert factor_phrase("trainer.clip", [None, 1.0]) == "with and without clipping"
    assert factor_phrase("trainer.clip", [0.5, 1.0]) == "with clipping at 0.5 and clipping at 1"
    assert setting_words("model.n_layers", 1) == "with 1 block"
    assert setting_words("model.n_layers", "unknown") == "with number of blocks unknown"
    assert setting_words("schedule.warmup_steps", 30.0) == "with 30 steps of warm-up"
    assert setting_words("schedule.warmup_steps", float("nan")) == "with warm-up nan"
    assert [number_words(count) for count in (0, 4, 20, 21, 22)] == [
        *("no", "four", "twenty", "twenty-one", "22")
    ]
    assert count_words(1000, "run") == "1,000 runs"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (12.52, "12.5 times"),
        (1.1, "1.1 times"),
        (0.25, "0.25 times"),
        (99.96, "100 times"),
        (604.7, "605 times"),
        (1098.6, "1,100 times"),
        (3_234_000.0, "3,230,000 times"),
    ],
)
def test_ratios_have_three_digits(ratio: float, words: str) -> None:
    assert times_text(ratio) == words


# The next command


def composes(command: str) -> None:
    """Raises where run.py does not take a command, with the first or the last of swept values."""
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "run.py")
    pairs = [item.partition("=") for item in arguments if item != "-m"]
    for index in (0, -1):
        settings_of(*(f"{name}={values.split(',')[index]}" for name, _, values in pairs))


def test_every_experiment_has_a_next_command_that_composes() -> None:
    experiments = options_of("experiment")
    assert AFTER.keys() == {*experiments}
    for command in AFTER.values():
        composes(f"python run.py {command}")
        assert shown_by(command)
    assert shown_by("python run.py norm=post_ln") == ""


@pytest.mark.parametrize(
    ("options", "loss", "command"),
    [
        (PRE, 2.4, "norm=post_ln seed=0"),
        ({**POST, "warmup": 60}, 2.4, "norm=post_ln seed=0 schedule.warmup_steps=0"),
        (POST, 3.03, "norm=post_ln seed=0 schedule.warmup_steps=200"),
        (POST, 2.4, "norm=post_ln seed=0 optimizer.lr=0.003"),
        ({**POST, "lr": 3e-3}, 2.4, "-m experiment=lesson"),
        ({"placement": "no_norm"}, 99.0, "norm=no_norm seed=0 optimizer.lr=0.0001"),
        ({**PRE, "status": "failed"}, 2.4, "norm=pre_ln seed=0"),
    ],
)
def test_after_a_run_comes_one_with_one_change(
    tmp_path: Path, options: dict[str, Any], loss: float, command: str
) -> None:
    arm(tmp_path, [loss], **options)
    assert next_command(*found(tmp_path)) == f"python run.py {command}"
    composes(f"python run.py {command}")


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    arm(tmp_path, [3.0], status="interrupted")
    assert next_command(*found(tmp_path)) == f"python run.py resume={tmp_path}/0"


def test_after_a_grid_come_more_seeds_then_learning_rates(tmp_path: Path) -> None:
    arm(tmp_path, (2.4, 2.4), **PRE)
    arm(tmp_path, (2.4, 2.4), **POST)
    grid = "python run.py -m norm=post_ln,pre_ln seed=0,1"
    assert next_command(*found(tmp_path)) == f"{grid},2"
    arm(tmp_path, (2.4,), **PRE, seed=2)
    expected = f"{grid},2 optimizer.lr=3e-4,1e-3,3e-3,1e-2"
    assert next_command(*found(tmp_path)) == expected
    composes(expected)


def test_a_named_grid_leads_to_the_next_one(tmp_path: Path) -> None:
    arm(tmp_path, (2.4,), **PRE, overrides=["experiment=lesson", "norm=pre_ln"])
    arm(tmp_path, (2.4,), **POST, overrides=["norm=post_ln", "experiment=lesson"])
    assert next_command(*found(tmp_path)) == "python run.py -m experiment=warmup"


def test_runs_whose_commands_are_unknown_have_no_next_one(tmp_path: Path) -> None:
    arm(tmp_path, [2.4], overrides=None)
    assert next_command(*found(tmp_path)) == ""


def test_a_finding_is_recorded() -> None:
    assert Summary(finding="this").values()["finding"] == "this"
