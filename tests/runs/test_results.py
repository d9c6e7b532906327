"""A table of results that several processes add rows to."""

from __future__ import annotations

from pathlib import Path

from nas_kd.runs.results import ResultTable

COLUMNS = ("key", "seed", "accuracy", "seconds")


def test_half_a_row_of_a_killed_process_is_done_again(tmp_path: Path) -> None:
    table = ResultTable(tmp_path / "truth.csv", COLUMNS)
    table.append({"key": "a", "seed": 0, "accuracy": 0.5, "seconds": 0.5, "what": "is not in the table"})
    with open(tmp_path / "truth.csv", "a") as file:
        file.write("b,0,0.5,0.")
    assert ResultTable(tmp_path / "truth.csv", COLUMNS).done() == {("a", 0)}
