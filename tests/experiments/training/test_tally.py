"""What a run counts: speeds and shares by hand, and checkpoints of earlier versions."""

import copy
import math

import pytest

from experiments.records.summary import BlockNorms
from experiments.training.tally import SPIKES_NAMED, Tally, is_spike

# As version 0.4 wrote it into checkpoints, under `progress`.
OLD = {
    "log_every": 3,
    "measured_bytes": {"activations": 100, "peak": None},
    "training_seconds": 4.0,
    "logged_seconds": 3.0,
    "logged_step": 6,
    "train_loss": 2.5,
    "speed": 160.0,
    "val_losses": {0: 4.0, 5: 3.0},
    "block_norms": {
        "first_step": {"first_block": 1.0, "last_block": 2.0},
        "last_step": {"first_block": 3.0, "last_block": 4.0},
    },
    "settled": 8,
    "losses": [3.0, 2.5],
    "spikes": 1,
    "spike_steps": [4],
    "clipped": 2,
}


def test_checkpoints_of_earlier_versions_are_read_and_written_alike() -> None:
    tally = Tally.from_state(OLD)
    assert (tally.checked_steps, tally.clip_share, tally.best_val_loss) == (8, 0.25, 3.0)
    assert tally.block_norms.last_step == BlockNorms(3.0, 4.0)
    assert tally.state() == OLD
    assert list(tally.state()) == list(OLD)


def test_a_model_without_blocks_has_none_in_its_checkpoint() -> None:
    tally = Tally.from_state(OLD | {"block_norms": {"first_step": {}, "last_step": {}}})
    assert tally.block_norms.first_step == BlockNorms()
    assert Tally.from_state(OLD | {"block_norms": {}}).block_norms.last_step == BlockNorms()
    assert Tally.from_state(tally.state()) == tally


def test_what_a_checkpoint_keeps_does_not_change_with_the_run() -> None:
    tally = Tally.from_state(copy.deepcopy(OLD))
    state = tally.state()
    tally.count(9, 2.0, clipped=True)
    tally.val_losses[9] = 1.0
    tally.measured_bytes["peak"] = 5
    assert state == OLD


def test_speeds_and_shares_by_hand() -> None:
    tally = Tally()
    assert (tally.clip_share, tally.best_val_loss, tally.mean_speed(10)) == (None, math.inf, 0.0)
    tally.training_seconds = 2.0
    tally.log(1, 5.0, BlockNorms(1.0, 2.0), step_tokens=100)
    assert tally.speed == 50.0
    tally.training_seconds = 6.0
    tally.log(5, 4.0, BlockNorms(3.0, 4.0), step_tokens=100)
    assert tally.speed == 100.0  # four steps in four seconds
    assert tally.mean_speed(100) == pytest.approx(500 / 6)
    assert tally.train_loss == 4.0
    assert tally.block_norms.first_step == BlockNorms(1.0, 2.0)
    assert tally.block_norms.last_step == BlockNorms(3.0, 4.0)
    for step, clipped in enumerate((True, False, False, True)):
        tally.count(step, 1.0, clipped)
    assert tally.clip_share == 0.5


def test_spikes_by_hand() -> None:
    before = [1.0, 3.0] * 10  # mean 2, deviation 1
    assert is_spike(8.001, before)
    assert not is_spike(8.0, before)
    assert not is_spike(-100.0, before)
    assert not is_spike(1000.0, before[1:])  # too few to say


def test_the_first_spikes_are_named_and_all_are_counted() -> None:
    tally = Tally()
    height = 1.0
    for step in range(200):
        is_jump = step >= 20 and step % 4 == 0
        height *= 10 if is_jump else 1
        tally.count(step, height if is_jump else 1.0, clipped=False)
    assert tally.spikes > SPIKES_NAMED
    assert tally.spike_steps == [20 + 4 * number for number in range(SPIKES_NAMED)]
    assert len(tally.losses) == 100
