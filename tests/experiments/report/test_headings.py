"""Headings of figures: findings with numbers that the figures show, and none that are chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from experiments.analysis.arms import Arm
from experiments.report.chart import Cells, Series
from experiments.report.facets import Facet
from experiments.report.headings import Uneven, title_of_maps, title_of_statistic
from experiments.report.palette import look_of
from normscope.stats import described

LOOK = look_of("pre_ln")
RMS, ENTROPY = described("activation_rms"), described("attention_entropy")
Runs = Sequence[Sequence[float]]


def facet(label: str, *key: str) -> Facet:
    return Facet(Arm(key, label, []), label.partition(" ")[0], label, LOOK, (label,), 0)


def series(runs: Runs) -> Series:
    """The values of runs over the blocks 1, 2, ..., as figures show them."""
    table = np.array(runs, dtype=float)
    ends = {"low": table.min(axis=0).tolist(), "high": table.max(axis=0).tolist()}
    shown = {
        1: {"y": table[0].tolist()},
        2: ends,
        3: {"y": np.median(table, axis=0).tolist(), **ends},
    }[min(len(runs), 3)]
    blocks = [float(block) for block in range(1, table.shape[1] + 1)]
    return Series("", LOOK, blocks, runs=len(runs), **shown)


def title(statistic: str, arms: Mapping[str, Runs]) -> str:
    found = [(facet(label), series(runs)) for label, runs in arms.items()]
    return title_of_statistic(described(statistic), found, 120)


def test_arms_that_differ_are_named_where_they_differ_most() -> None:
    arms = {
        "Pre-LN": [[2.0, 7.5], [2.1, 7.4], [2.2, 7.6]],
        "Post-LN": [[1.0, 1.03], [1.0, 1.04], [1.0, 1.02]],
        "B2T": [[1.0, 1.04], [1.0, 1.05], [1.0, 1.06]],
    }
    assert title("activation_rms", arms) == (
        "Root mean square at step 120 clearly differs in block 2: 7.5 (Pre-LN) against 1.03 "
        "to 1.05 (the other 2 arms)"
    )
    assert title("activation_rms", {name: arms[name] for name in ("Pre-LN", "Post-LN")}) == (
        "Root mean square at step 120 clearly differs in block 2: 7.5 (Pre-LN) against 1.03 "
        "(Post-LN)"
    )


def test_arms_of_one_placement_are_named_together() -> None:
    arms = {
        f"{name} {place}": [[value + place / 100]]
        for name, value in (("Pre-LN", 0.88), ("Post-LN", 0.66))
        for place in range(2)
    }
    words = "Attention entropy at step 120 clearly differs in block 1: "
    assert title("attention_entropy", arms) == (
        f"{words}0.88 to 0.89 (every Pre-LN arm) against 0.66 to 0.67 (every Post-LN arm)"
    )
    arms["Post-LN 2"] = [[0.77]]
    assert title("attention_entropy", arms) == (
        f"{words}0.88 to 0.89 (every Pre-LN arm) against 0.66 to 0.67 (Post-LN 0 and Post-LN 1)"
    )


def test_arms_that_differ_in_two_settings_are_not_compared() -> None:
    """What the learning rate does is no finding about the placement."""
    ends = {("post_ln", "1e-3"): 1.0, ("post_ln", "1e-2"): 3.0, ("pre_ln", "1e-3"): 4.0}
    ends["pre_ln", "1e-2"] = 5.0
    found = [(facet(" ".join(key), *key), series([[end]])) for key, end in ends.items()]
    assert title_of_statistic(RMS, found, 120).endswith(
        "differs in block 1: 4 (pre_ln 1e-3) against 1 (post_ln 1e-3)"
    )


def test_the_highest_of_overlapping_ranges_is_no_finding() -> None:
    """The kurtosis of a lesson: its medians differ, its runs do not."""
    arms = {
        "without": [[2.99, 2.66, 2.60], [2.90, 2.35, 2.14], [2.75, 2.41, 3.68]],
        "with": [[3.00, 2.92, 2.87], [2.79, 2.79, 2.90], [2.93, 3.04, 3.08]],
        "Pre-LN": [[3.22, 3.53, 3.74], [3.04, 3.18, 3.03], [3.16, 3.14, 3.08]],
    }
    assert title("stream_kurtosis", arms) == (
        "Kurtosis of the stream at step 120 is 2.14 to 3.74: so few runs do not tell the arms apart"
    )


def test_a_small_difference_is_no_finding_however_sure_it_is() -> None:
    arms = {"Pre-LN": [[0.90, 0.91]] * 3, "Post-LN": [[0.93, 0.95]] * 3}
    assert title("attention_entropy", arms) == (
        "Attention entropy at step 120 hardly differs between the arms: 0.9 to 0.95"
    )


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_chance_is_seldom_a_finding(count: int) -> None:
    """Three arms of equal runs in six blocks: at most one title in ten names a difference."""
    drawn = np.random.default_rng(count)
    named = 0
    for _ in range(150):
        arms = {name: drawn.normal(5, 1, (count, 6)).tolist() for name in "abc"}
        named += "clearly differs" in title("attention_entropy", arms)
    assert named <= 15


def test_ties_at_the_top_share_their_place() -> None:
    assert title("attention_entropy", {"a": [[0.6, 0.5, 0.9, 1.0, 1.0, 0.9999]]}) == (
        "Attention entropy at step 120 is highest in blocks 4 to 6 (1) and lowest in block 2 (0.5)"
    )


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([[0.05, 0.2, 0.63]], "rises from 0.05 in block 1 to 0.63 in block 3"),
        ([[0.63, 0.2, 0.05]], "falls from 0.63 in block 1 to 0.05 in block 3"),
        ([[0.99, 1.02, 1.05]], "is nearly the same in all blocks: 0.99 to 1.05"),
        (
            [[0.2, 0.5], [0.4, 0.3], [0.3, 0.6]],
            "is 0.2 to 0.6: so few runs do not tell the blocks apart",
        ),
        ([[0.1, 0.5], [0.11, 0.51]], "rises from 0.1 to 0.11 in block 1 to 0.5 to 0.51 in block 2"),
    ],
)
def test_of_one_arm_the_blocks_are_compared(runs: Runs, words: str) -> None:
    assert title("attention_entropy", {"Post-LN": runs}) == f"Attention entropy at step 120 {words}"


def test_a_value_far_below_the_others_of_a_linear_scale_is_near_nothing() -> None:
    runs = {"Pre-LN": [[0.6593, 0.0]], "Post-LN": [[-1.324e-4, 0.0]], "B2T": [[1.19e-7, 0.0]]}
    assert title("layer_drop", runs).endswith(
        "differs in block 1: 0.659 (Pre-LN) against 0 (the other 2 arms)"
    )
    runs = {"Pre-LN": [[5e-3, 1.0]], "Post-LN": [[2.31e-4, 1.0]]}
    assert title("update_ratio", runs).endswith("0.005 (Pre-LN) against 0.000231 (Post-LN)")


def test_nothing_measured_is_no_finding() -> None:
    assert title("attention_entropy", {"a": [[math.nan]]}) == "Attention entropy by block"


# The last and the first block


def test_two_runs_are_named_both_and_one_alone() -> None:
    most = Uneven(4.0, 4.0, 9.0, 2, "", 7)
    assert most.words() == "The last block gets up to 4 and 9 times the first's gradient (step 7)"
    assert replace(most, runs=1).words("; ") == (
        "; the last block gets up to 4 times the first's gradient (step 7)"
    )
    assert most.range_note == ""


def test_a_first_block_that_gets_more_is_said_so() -> None:
    most = Uneven(1 / 8, 1 / 16, 1 / 5, 3, "Pre-LN", 9)
    assert most.words() == (
        "Pre-LN: the first block gets up to 8 times the last's gradient (median, step 9)"
    )
    assert most.range_note == " Single runs at step 9: 5 to 16 times."
    assert replace(most, step=None).range_note == ""


# Maps


def cells(*rows: Sequence[float]) -> Cells:
    """A map of the blocks 1, 2, ... over the steps 0, 10, ..."""
    return Cells([10.0 * x for x in range(len(rows[0]))], [1.0 + y for y in range(len(rows))], rows)


def test_the_title_of_maps_names_the_blocks_that_go_dark() -> None:
    even, dark = cells((1.0, 0.2), (9.9, 0.3)), cells((1, 0.0014), (1, 2e-3), (1, 9e-3), (1, 0.1))
    arms = [facet("Pre-LN"), facet("Post-LN")]
    assert title_of_maps([even, dark], arms, 2.0) == (
        "Post-LN: blocks 1 to 3 get less than a tenth of the largest "
        "gradient; at step 10 block 1 gets 0.0014, block 4 0.1"
    )
    assert title_of_maps([dark], arms[1:], 2.0) == (
        "Blocks 1 to 3 get less than a tenth of the largest "
        "gradient; at step 10 block 1 gets 0.0014, block 4 0.1"
    )
    assert title_of_maps([dark, dark], arms, 2.0).endswith("; 1 more of 2 arms have such blocks")


def test_maps_without_a_dark_block_say_so() -> None:
    """What was dark or bright before the end is no headline."""
    even, none = cells((1e-9, 0.2, math.nan), (9.9, 0.3, math.nan)), cells((math.nan,))
    words = "At the last step no block gets less than a tenth of the largest gradient"
    assert title_of_maps([even], [facet("a")], 1.0) == f"{words} (the lowest share is 0.667)"
    assert title_of_maps([none], [facet("a")], 1.0) == "Gradient norm by block and step"


def test_blocks_that_are_all_beyond_the_colours_are_no_headline() -> None:
    """Each is the brightest that there is, though one gets a twentieth of the other."""
    maps, arms = [cells((7.0,), (140.0,)), cells((0.2,), (0.3,))], [facet("none"), facet("Pre-LN")]
    assert title_of_maps(maps, arms, 2.0) == (
        "At the last step, of the arms within the colours, no block gets less than a tenth of the "
        "largest gradient of its arm (the lowest share is 0.667)"
    )
    assert title_of_maps(maps, arms, 8.0).startswith("None: block 1 gets less than a tenth of")
