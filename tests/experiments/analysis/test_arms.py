"""The line of each arm at a sweep's end, in the numbers of the report."""

import json
from pathlib import Path

import pytest

from conftest import Sweep
from experiments.analysis.arms import arm_rows, factors_of, form_arms
from experiments.analysis.histories import History
from experiments.analysis.runs import find_runs
from experiments.jobs.results import MOST_ARMS, compared, print_arms
from experiments.report.tables import results_table
from made_runs import make_run

LOSS, DIVERGED = "validation loss (nats)", "diverged (not finite)"


def rows_of(folder: Path, most: int = 20) -> list[dict[str, str]]:
    runs = find_runs(folder)
    return arm_rows(form_arms([History(run) for run in runs], factors_of(runs, None)), most)


def test_arms_have_the_numbers_of_the_report(tmp_path: Path) -> None:
    for seed, loss in enumerate((2.0, 2.5, 2.99)):  # the last is stuck
        make_run(tmp_path, f"a{seed}", seed=seed, val_losses=(4.0, loss))
    make_run(tmp_path, "b0", placement="post_ln", val_losses=(4.0, 1.5))
    make_run(tmp_path, "b1", placement="post_ln", seed=1, status="diverged")
    make_run(tmp_path, "b2", placement="post_ln", seed=2, status="failed")
    make_run(tmp_path, "b3", placement="post_ln", seed=3, status="diverged")
    make_run(tmp_path, "c0", placement="no_norm", status="failed")
    assert rows_of(tmp_path) == [
        {"arm": "no_norm", LOSS: "", "learned": "", DIVERGED: "", "failed": "1"},
        {
            "arm": "post_ln",
            LOSS: "diverged (1.500 to diverged)",
            "learned": "1 of 4",
            DIVERGED: "2",
            "failed": "1",
        },
        {
            "arm": "pre_ln",
            LOSS: "2.500 (2.000 to 2.990)",
            "learned": "2 of 3",
            DIVERGED: "",
            "failed": "",
        },
    ]
    runs = find_runs(tmp_path)
    table = results_table(form_arms([History(run) for run in runs], factors_of(runs, None)))
    index = table.columns.index("validation loss (nats)")
    shown = [row[index].shown for row in table.rows]
    assert shown == ["", "diverged (1.500 to diverged)", "2.500 (2.000 to 2.990)"]


def test_arms_without_a_loss_show_what_they_have(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = sweep("experiment=init_gradients", "norm=pre_ln,post_ln", "seed=0,1")
    assert code == 0
    (post, pre) = rows_of(folder)
    assert [row["arm"] for row in (post, pre)] == ["post_ln", "pre_ln"]
    norms = [run.summary.grad_norm.first_step.first_block or 0.0 for run in find_runs(folder)]
    means = [(norms[i] + norms[i + 1]) / 2 for i in (0, 2)]  # medians of two
    shown = [row["gradient norm, first block"] for row in (post, pre)]
    assert shown == [f"{mean:,.4g}" for mean in means]
    assert "last block" in post
    output = capsys.readouterr().out
    assert output.count("post_ln ") >= 1
    assert shown[0] in output
    *_, files, _, verdict, command = output.rstrip().splitlines()
    assert files.startswith("Files: ")
    assert verdict.startswith("At initialisation the last block's gradient is ")
    assert command.startswith("next: python run.py -m experiment=init_gradients ")


def test_of_many_arms_those_with_the_least_loss_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = MOST_ARMS + 5
    for number in range(count):
        make_run(tmp_path, f"r{number}", warmup=number, val_losses=(9.0, 5 - number / 10))
    make_run(tmp_path, "last", warmup=count, status="failed")
    print_arms(compared(find_runs(tmp_path))[1])
    output = capsys.readouterr().out
    shown = [line for line in output.splitlines() if line.startswith("warmup_steps ")]
    assert len(shown) == MOST_ARMS
    assert shown[0].split()[1] == str(count - 1)
    assert "and 6 more arms, which the report has" in output


def test_losses_of_several_tokenizers_are_not_ranked(tmp_path: Path) -> None:
    for number in range(4):
        name = ("byte", "char")[number % 2]
        run = make_run(tmp_path, f"r{number}", warmup=number, val_losses=(9.0, 5 - number))
        values = json.loads((run / "summary.json").read_text())
        values["settings"]["tokenizer"] = {"name": name}
        (run / "summary.json").write_text(json.dumps(values))
    labels = [row["arm"] for row in rows_of(tmp_path, most=2)]
    assert labels == sorted(labels)
