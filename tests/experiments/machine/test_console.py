"""Progress where there is no terminal to redraw a bar on."""

import pytest

from experiments.machine.console import progress_lines


def test_after_the_last_step_no_time_is_said_to_be_left(capsys: pytest.CaptureFixture[str]) -> None:
    """What comes after the steps, as a run's last evaluation and probes, is not in the pace."""
    report = progress_lines("train", 20)
    for step in range(1, 21):
        report(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train 1/20"
    assert all(line.endswith(" s left") for line in lines[1:-1])
    assert lines[-1] == "train 20/20"
