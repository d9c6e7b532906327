"""Files of a run that are of another shape: one message names the file, and what it lacks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nas_kd.errors import SettingError
from nas_kd.runs.files import read_frame, read_json
from nas_kd.runs.leases import FileLeases, Lease, read_lease
from nas_kd.runs.shape import as_written, check_table
from nas_kd.runs.status import status

OTHERS = ("[]", "3", "null", '"a"', '{"inputs": []}', '{"inputs": {}, "done": {}}', "[" * 9999)


@pytest.mark.parametrize("content", OTHERS)
def test_json_of_another_shape(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match="a.json"):
        read_json(tmp_path / "a.json", ("inputs", "done"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"key,macs\na,many\n", "numbers in the column macs; it holds 'many'"),
        (b"macs\n5\n", "the column key"),
        (b"key,macs\n\xff,5\n", "the table that nas_kd wrote"),
    ],
)
def test_a_table_of_another_shape(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SettingError, match=words):
        read_frame(tmp_path / "a.csv", ("key",))


def test_an_empty_table_needs_no_columns(tmp_path: Path) -> None:
    assert check_table(tmp_path, pd.DataFrame(), ("key",), "").empty


@pytest.mark.parametrize("error", [KeyError("macs"), TypeError("x"), OverflowError("x"), RecursionError("x")])
def test_what_is_raised_at_a_use_names_the_file(error: Exception, tmp_path: Path) -> None:
    match = f"{type(error).__name__}.*hint: delete it"
    with pytest.raises(SettingError, match=match) as caught, as_written(tmp_path / "a.json", "delete it"):
        raise error
    assert caught.value.value == str(tmp_path / "a.json")
    with pytest.raises(FloatingPointError), as_written(tmp_path, ""):
        raise FloatingPointError


@pytest.mark.parametrize(
    "change", [{"pid": "1"}, {"worker": "../../x"}, {"job": "../x"}, {"place": ""}, {"host": None}]
)
def test_leases_of_another_shape_are_none(change: dict[str, Any], tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    own = Lease.own()
    leases.put(own)
    (path,) = tmp_path.glob("*.json")
    assert [lease.worker for lease in leases.rows()] == [own.worker]
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(ValueError):
        read_lease(path)
    assert leases.rows() == []


def test_the_note_of_a_lock_is_a_lease(tmp_path: Path) -> None:
    own = Lease.own()
    (tmp_path / "note").write_text(json.dumps(asdict(own)), encoding="utf-8")
    assert read_lease(tmp_path / "note") == own


def test_a_lease_under_another_name_is_none(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    leases.put(Lease.own())
    (path,) = tmp_path.glob("*.json")
    path.rename(tmp_path / "other.json")
    assert leases.rows() == []


def test_status_of_files_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text("{}", encoding="utf-8")
    state = {"stage": "search", "done": 1, "total": 2, "unit": "subnets", "last": {"kl": "low"}, "eta_seconds": 3.0}
    (tmp_path / "status.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(SettingError, match="status.json"):
        status(tmp_path)
    (tmp_path / "status.json").unlink()
    (tmp_path / "leases").write_bytes(b"")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "stage.json").write_text('{"done": true}', encoding="utf-8")
    (tmp_path / "search" / "metrics.csv").write_text("epoch\n1,2,3\n", encoding="utf-8")
    assert "search  done  epoch=1" in status(tmp_path)
    (tmp_path / "search" / "metrics.csv").write_bytes(b"epoch\n\xff\n")
    with pytest.raises(SettingError, match="metrics.csv"):
        status(tmp_path)
