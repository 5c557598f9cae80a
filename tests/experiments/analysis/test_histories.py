"""CSV files of runs, complete and not."""

from pathlib import Path

from experiments.analysis.histories import read_checked_csv


def test_a_table_without_its_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("step,value\n0,1\n1,23")
    assert read_checked_csv(path, ("step",))["value"].tolist() == [1]
    path.write_text("step,value\n0,1\n1,23\n")
    assert read_checked_csv(path, ("step",))["value"].tolist() == [1, 23]
    assert read_checked_csv(tmp_path / "absent.csv", ("step",)).empty
