"""Names of files and directories."""

from experiments.machine.files import safe_file_name


def test_names_of_directories_hold_nothing_but_names() -> None:
    assert safe_file_name("../../etc/x y\n<b>") == "__.._etc_x_y_b_"
    assert safe_file_name("train-post_ln-nano-seed0") == "train-post_ln-nano-seed0"
