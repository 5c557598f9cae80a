"""Names of files and directories, and what killed writers leave."""

from pathlib import Path

import pytest

from experiments.machine.files import atomic_file, remove_abandoned_files, safe_file_name


def test_names_of_directories_hold_nothing_but_names() -> None:
    assert safe_file_name("../../etc/x y\n<b>") == "__.._etc_x_y_b_"
    assert safe_file_name("train-post_ln-nano-seed0") == "train-post_ln-nano-seed0"


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(
    tmp_path: Path,
) -> None:
    pytest.importorskip("fcntl")
    left = tmp_path / ".tokens.3x_.tmp"
    left.write_bytes(b"half of it")
    empty = tmp_path / ".tokens.new.tmp"  # about to be locked by its writer
    empty.touch()
    (tmp_path / "notes.tmp").write_text("of the user")
    with atomic_file(tmp_path / "tokens") as file:
        file.write(b"whole")
        file.flush()
        remove_abandoned_files(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tokens", empty.name, "notes.tmp"}
    assert (tmp_path / "tokens").read_bytes() == b"whole"
    remove_abandoned_files(tmp_path / "absent")
