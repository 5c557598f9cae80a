"""The lecture: the notes' numbers, what it says of its runs, and the commands that it names."""

import shlex
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from conftest import ROOT, Cli
from experiments.analysis.chapter import (
    STEPS,
    looked_at_steps,
    placement_title,
    ratio_words,
    start_words,
)
from experiments.analysis.lecture import Check, Lecture, read_arms, read_lecture
from experiments.jobs.check import check_effects, checked_settings
from experiments.lecture import steps
from experiments.lecture.arms import arm_checks
from experiments.lecture.notes import Noted
from experiments.lecture.steps import COMPUTED, Tables
from experiments.report.lecture_page import arm_row
from experiments.settings.compose import to_values
from experiments.settings.typed import hydra_arguments, names_of
from gpt import ACTIVATIONS, ConfigError
from made_runs import make_run

BOOK_CONFIG = steps.book_config  # before a test has a smaller one
CHARTS = ("layer_norm", "gelu", "shortcut", "placement")
LARGE = ("skeleton", "logits", "text")


@pytest.fixture
def whole_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """The book's own sizes."""
    monkeypatch.setattr(steps, "book_config", BOOK_CONFIG)


@pytest.mark.parametrize("name", sorted(set(COMPUTED) - {*LARGE, "gelu"}))
@pytest.mark.usefixtures("whole_book")
def test_the_numbers_of_a_step_come_out_as_the_notes_print_them(name: str) -> None:
    checks = list(COMPUTED[name](Tables()))
    compared = [check for check in checks if check.equal]
    assert compared
    assert [check for check in compared if check.equal != "yes"] == []
    assert all(check.notes == check.here for check in compared if check.tolerance == "0")


def test_gelu_is_the_notes_formula_and_counts_as_no_number_of_theirs() -> None:
    (check,) = COMPUTED["gelu"](Tables())
    assert check.equal == check.notes == ""
    assert check.here == "exactly 0"


def test_a_difference_of_gelu_has_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.notes, "gelu_of_the_notes", lambda x: ACTIVATIONS["gelu"](x) + 0.25)
    (check,) = COMPUTED["gelu"](Tables())
    assert float(check.here) == pytest.approx(0.2, abs=0.1)


@pytest.mark.long
def test_a_whole_lecture(cli: Cli) -> None:
    """All numbers of the notes, and three runs of which one does not learn."""
    code, run = cli("experiment=lecture", "wandb.mode=disabled")
    assert code == 0
    table = pd.read_csv(run / "lecture.csv", keep_default_na=False)
    assert list(table[table["equal"] != ""]["equal"]) == ["yes"] * 24
    assert list(table["step"].unique()) == [step.name for step in STEPS]
    assert placement_title(read_lecture(run)) == (
        "Post-LN without warm-up does not learn; "
        "Pre-LN without warm-up and Post-LN with 60 steps of warm-up do"
    )
    page = (run / "lecture.html").read_text()
    assert "All 24 numbers that the notes print come out here as printed." in page
    assert "a probability of only 0.0253%, about 12.7 times that of a uniform choice" in page
    assert "At step 0 Post-LN with 60 steps of warm-up and Post-LN without warm-up are" in page


@pytest.mark.pictures
def test_a_number_that_differs_is_counted_and_fails_nothing(
    cli: Cli, toy: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The toy's model is none of 124M parameters."""
    code, run = cli("experiment=lecture", *toy)
    assert code == 0
    table = pd.read_csv(run / "lecture.csv", keep_default_na=False)
    counts = table["equal"].value_counts()
    assert (counts["yes"], counts["differs"]) == (11, 13)
    row = table[table["what"] == "mean and variance of row 1 before the norm"].iloc[0]
    assert row["here"] == "'-0.3596 and 0.2015"  # a spreadsheet would compute it
    parameters = table[table["what"] == "parameters"].iloc[0]
    assert (parameters["notes"], parameters["equal"]) == ("163,009,536", "differs")
    printed = capsys.readouterr().out
    assert "equal to the notes  11 of 24 numbers" in printed
    assert "; parameters: parameters;" in printed
    lecture = read_lecture(run)
    assert [check.step for check in lecture.different].count("logits") == 2
    page = (run / "lecture.html").read_text()
    assert "11 of the 24 numbers" in page
    assert ">-0.3596 and 0.2015<" in page
    assert "-0.3596 and 0.2015" in printed
    assert "'-0" not in printed
    assert "The notes are those of a course, in Portuguese" in page
    assert "tolerance 1e-05 of the number; printed with PyTorch 2.8, seed 123" in page
    assert "tolerance 0.01<" in page  # of the MiB, which no seed decides
    drawn = {path.name for path in (run / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in CHARTS for kind in ("png", "svg")}
    assert page.count("token frequencies alone") >= 2  # above the losses, and in the table
    arms = [(arm.run.summary.placement, arm.run.summary.warmup_steps) for arm in lecture.arms]
    assert arms == [("pre_ln", 0), ("post_ln", 1), ("post_ln", 0)]


@pytest.mark.parametrize(
    ("noted", "equal", "different"),
    [
        (Noted([1, 2], ""), [1, 2], [2, 1]),
        (Noted((2, 3), ""), (2, 3), (3, 2)),
        (Noted("a b", ""), "a b", "a  b"),
        (Noted(621.83, "", 0.01), 621.8345, 621.85),
        (Noted([0.5, -1.0], "", 1e-3), [0.5009, -1.0009], [0.5, -1.002]),
        (Noted([2e-4, 1.0], "", 1e-5, relative=True), [2.00001e-4, 1.000009], [2.0001e-4, 1.0]),
        (Noted(0.0, "", 1e-6), 9e-7, 2e-6),
    ],
)
def test_a_number_agrees_within_its_tolerance(
    noted: Noted, equal: object, different: object
) -> None:
    assert noted.check("step", "what", equal).equal == "yes"
    assert noted.check("step", "what", different).equal == "differs"


def test_numbers_are_shown_as_the_notes_print_them() -> None:
    logits = Noted([1.0, -2.0, 3.0, 4.0, 5.0, 6.0], "4.1", 1e-3, form=".1f", ends=True)
    assert logits.check("", "", logits.value).here == "[1.0, -2.0, 3.0, ..., 4.0, 5.0, 6.0]"
    assert Noted(163_009_536, "").text(163_009_536) == "163,009,536"
    assert Noted((2, 4, 768), "").text((2, 4, 768)) == "(2, 4, 768)"
    assert Noted([6109, 345], "").text([6109, 345]) == "[6109, 345]"


@pytest.mark.parametrize(
    ("losses", "title"),
    [
        ((2.0, 2.1, 2.2), "All three runs learn: here Post-LN needs no warm-up"),
        (
            (2.0, 2.1, 2.99),
            "Post-LN without warm-up does not learn; "
            "Pre-LN without warm-up and Post-LN with 60 steps of warm-up do",
        ),
        (
            (2.0, 2.99, 2.99),
            "Post-LN with 60 steps of warm-up and Post-LN without warm-up do not learn; "
            "Pre-LN without warm-up does",
        ),
        ((2.99, 2.99, 2.99), "None of the three runs learns more than how often each token occurs"),
    ],
)
def test_the_last_title_is_what_the_runs_came_to(
    tmp_path: Path, losses: tuple[float, ...], title: str
) -> None:
    """Token frequencies alone give 3 nats in these runs."""
    for loss, (placement, warmup) in zip(
        losses, (("pre_ln", 0), ("post_ln", 60), ("post_ln", 0)), strict=True
    ):
        name = f"{placement}-{warmup}"
        make_run(tmp_path, name, placement=placement, warmup=warmup, val_losses=(4.0, loss))
    assert placement_title(Lecture(arms=list(read_arms(tmp_path)))) == title


def test_the_arms_gradients_are_compared_at_the_first_a_later_and_the_last_step(
    tmp_path: Path,
) -> None:
    make_run(tmp_path, "long", val_losses=[3.0] * 31, last_block=130.6)
    (arm,) = read_arms(tmp_path)
    assert looked_at_steps(arm) == [0, 10, 30]
    assert arm_row(arm) == (
        "Pre-LN without warm-up",
        "3.000",
        [(0, "130"), (10, "130"), (30, "130")],
    )


@pytest.mark.parametrize(
    ("last", "words"), [(0.4336, "0.43"), (1.345, "1.3"), (604.7, "600"), (1130.0, "1,100")]
)
def test_a_ratio_is_the_last_block_over_the_first_in_two_digits(
    tmp_path: Path, last: float, words: str
) -> None:
    """As in reports; the first block's norm is 1 in these runs."""
    make_run(tmp_path, "run", last_block=last)
    (arm,) = read_arms(tmp_path)
    assert ratio_words(arm, 0) == words
    rows = {check.what: check.here for check in arm_checks([arm])}
    assert rows["gradient norm, last block over first block, step 2, Pre-LN without warm-up"] == (
        words
    )


def test_a_first_block_without_a_gradient_has_an_infinite_ratio(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    rows = (
        (run / "gradients.csv")
        .read_text()
        .replace(",0,block,grad_norm,1.0", ",0,block,grad_norm,0")
    )
    (run / "gradients.csv").write_text(rows)
    (arm,) = read_arms(tmp_path)
    assert ratio_words(arm, 0) == "inf"


def test_it_says_which_runs_are_one_model_at_the_start(tmp_path: Path) -> None:
    """Where one line covers another: of equal placement, and of equal gradients."""
    for placement, warmup in (("pre_ln", 0), ("post_ln", 60), ("post_ln", 0)):
        make_run(tmp_path / "same", f"{placement}-{warmup}", placement=placement, warmup=warmup)
    assert start_words(list(read_arms(tmp_path / "same"))) == (
        "At step 0 Post-LN with 60 steps of warm-up and Post-LN without warm-up are still the same "
        "model, so that one line covers the other."
    )
    for warmup, last in ((60, 0.5), (0, 0.4)):
        folder = tmp_path / "other"
        make_run(folder, str(warmup), placement="post_ln", warmup=warmup, last_block=last)
    assert start_words(list(read_arms(tmp_path / "other"))) == ""


def test_the_likeliest_token_is_so_many_times_as_likely_as_in_a_uniform_choice() -> None:
    checks = [
        Check.alone("skeleton", "logits of a token", "50,257"),
        Check.alone("logits", "highest probability of a next token", "0.0253%"),
    ]
    (step,) = (step for step in STEPS if step.name == "logits")
    assert step.title(Lecture(checks)) == (
        "Before training even the likeliest token has a probability of only 0.0253%, about 12.7 "
        "times that of a uniform choice"
    )


def test_a_short_run_has_each_step_once_in_the_record(tmp_path: Path) -> None:
    make_run(tmp_path, "short", val_losses=[3.0] * 4)
    (arm,) = read_arms(tmp_path)
    assert looked_at_steps(arm) == [0, 3, 3]
    ratios = [check.what for check in arm_checks([arm]) if "gradient" in check.what]
    assert [what.split(", ")[2] for what in ratios] == ["step 0", "step 3"]


def test_the_lecture_trains_as_the_lesson_it_leads_to() -> None:
    """With one seed the command that goes further gives the same losses again."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        lecture, lesson = (
            checked_settings(to_values(compose("config", [f"experiment={name}"])))
            for name in ("lecture", "lesson")
        )
    for room in ("model", "data", "tokenizer", "optimizer", "init", "norm"):
        assert getattr(lecture, room) == getattr(lesson, room)
    for name in ("steps", "batch_size", "eval_tokens"):
        assert getattr(lecture.trainer, name) == getattr(lesson.trainer, name)
    assert lecture.schedule.warmup_steps == 60  # of the lesson's arms 0 and 60


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_command_that_goes_further_is_valid(step: object) -> None:
    arguments = shlex.split(step.command)  # type: ignore[attr-defined]
    assert arguments[:2] == ["python", "run.py"]
    overrides = [o for o in hydra_arguments(arguments[2:]) if o != "-m"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = checked_settings(to_values(compose("config", overrides)))
    check_effects([settings], names_of(overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("norm=deepnorm", "norm='deepnorm' is not valid: the lecture trains pre_ln and post_ln"),
        ("schedule.warmup_steps=0", "schedule.warmup_steps=0 is not valid: must be at least 1"),
    ],
)
def test_a_lecture_has_its_own_arms(
    cli: Cli, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    code, run = cli("experiment=lecture", "wandb.mode=disabled", override)
    assert code == 1
    assert message in capsys.readouterr().err
    assert not (run / "runs").exists()


def test_a_directory_without_a_lecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lecture.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"must have the lecture\.csv of one"):
        read_lecture(tmp_path)
