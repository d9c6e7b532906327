"""The run folder: what a kill leaves is readable, what changed is refused, what is foreign is left alone."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nas_kd.errors import SettingError
from nas_kd.runs.files import CsvLog, atomic_json, atomic_write, read_frame
from nas_kd.runs.format import FORMAT
from nas_kd.runs.run import Run, check_folder
from nas_kd.runs.status import status
from nas_kd.version import __version__


def test_stage_is_done_once_and_keeps_its_facts(tmp_path: Path) -> None:
    inputs = {"space": "ab12", "epochs": 3, "widths": (8, 16), "lr": 0.1}
    stage = Run(tmp_path / "a").stage("supernet", inputs)
    assert not stage.done and stage.facts == {}
    stage.finish({"accuracy": np.float64(0.1) + 0.2, "tau": float("nan"), "seeds": (0, 1)})
    again = Run(tmp_path / "a").stage("supernet", inputs)
    assert again.done
    assert again.facts == {"accuracy": 0.1 + 0.2, "tau": None, "seeds": [0, 1]}


def test_changed_inputs_are_refused_with_their_names_and_both_values(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    run.stage("supernet", {"space": "ab12", "epochs": 3, "lr": 0.1}).finish({"x": 1})
    run.stage("search", {"budget": 5})
    before = (run.path / "supernet" / "stage.json").read_bytes()
    with pytest.raises(SettingError) as caught:
        Run(tmp_path / "a").stage("supernet", {"space": "ab12", "epochs": 4, "seed": 1})
    text = str(caught.value)
    for part in ("epochs=3", "epochs=4", "lr=0.1", "no lr", "seed=1", "no seed", "--run"):
        assert part in text
    assert "space=" not in text
    assert str(run.path / "search") in text and str(run.path / "retrain") not in text
    assert (run.path / "supernet" / "stage.json").read_bytes() == before


def test_stage_names_may_have_folders_but_stay_inside_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    assert run.stage("retrain/1a2b/seed_0", {}).folder == run.path / "retrain" / "1a2b" / "seed_0"
    for name in ("../b", "/b", "a/../../b", "", "a b"):
        with pytest.raises(ValueError, match="stage name"):
            run.stage(name, {})


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SettingError, match="run="):
        Run(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    file = tmp_path / "thesis.tex"
    with pytest.raises(SettingError, match="this is a file"):
        Run(file)


@pytest.mark.parametrize("name", [".DS_Store", ".vimrc.old", ".vimrc.2024.old", ".ssh.old/id", ".env.json.tmp"])
def test_a_folder_with_hidden_files_is_no_new_run(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(SettingError, match=rf"this holds other files: {re.escape(name.split('/')[0])}"):
        Run(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file] and file.read_text() == "mine"


def test_what_a_killed_start_left_is_no_run_of_others(tmp_path: Path) -> None:
    (tmp_path / ".probe.123.tmp").write_bytes(bytes(10))
    (tmp_path / ".env.json.123.tmp").write_text("{")
    with Run(tmp_path).locked():
        assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_full_or_read_only_disk_is_a_setting_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SettingError, match="run="):
        Run(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(SettingError, match="permission is denied"):
        Run(tmp_path / "a")


def test_full_disk_in_the_middle_keeps_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.json"
    atomic_json(path, {"score": 1})

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SettingError, match="disk is full"):
        atomic_json(path, {"score": 2})
    assert json.loads(path.read_text()) == {"score": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.json"]


def test_csv_floats_read_back_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(500) * 10.0 ** np.arange(-250, 250)
    log = CsvLog(tmp_path / "m.csv")
    for index, value in enumerate(values):
        log.append({"epoch": index, "loss": value if index % 2 else torch.tensor(value)})
    assert (log.frame()["loss"].to_numpy() == values).all()
    frame = pd.DataFrame({"score": values})
    Run(tmp_path / "a").stage("blockwise", {}).write_frame("stage_1.csv", frame)
    assert (read_frame(tmp_path / "a" / "blockwise" / "stage_1.csv")["score"].to_numpy() == values).all()


def test_csv_drops_a_half_written_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    log = CsvLog(path)
    log.append({"epoch": 0, "loss": 0.5})
    whole = path.read_bytes()
    for half in (b"1", b"1,0.2", b"1,0.25\r"):
        path.write_bytes(whole + half)
        log = CsvLog(path)
        assert path.read_bytes() == whole
    log.append({"loss": 0.25, "epoch": 1})  # the order of a row's columns does not matter
    assert path.read_text() == "epoch,loss\n0,0.5\n1,0.25\n"
    path.write_bytes(b"epoch,lo")
    log = CsvLog(path)
    log.append({"other": 1})
    assert path.read_text() == "other\n1\n"


def test_csv_cut_drops_what_the_checkpoint_does_not_know(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "m.csv")
    log.cut("epoch", 3)  # nothing there yet
    for epoch in range(6):
        log.append({"epoch": epoch, "note": 'a "b", c', "empty": None})
    two = log.path.read_text().splitlines()[:4]
    log.cut("epoch", 2)
    assert log.path.read_text().splitlines() == two
    assert log.frame()["note"].tolist() == ['a "b", c'] * 3


def test_csv_refuses_other_columns(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "m.csv")
    log.append({"epoch": 0})
    with pytest.raises(ValueError, match="loss"):
        log.append({"epoch": 1, "loss": 2.0})
    with pytest.raises(TypeError):
        log.append({"epoch": [1]})
    assert log.rows() == [{"epoch": "0"}]


def test_state_round_trip_and_damaged_state(tmp_path: Path) -> None:
    stage = Run(tmp_path / "a").stage("supernet", {})
    assert stage.load() is None
    stage.save({"epoch": 3, "weights": {"w": torch.arange(4.0)}, "rng": torch.get_rng_state()})
    state = stage.load()
    assert state is not None and state["epoch"] == 3
    assert torch.equal(state["weights"]["w"], torch.arange(4.0))
    path = stage.folder / "last.pt"
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(SettingError, match=r"last\.pt.*delete"):
            stage.load()


def test_leftovers_of_a_killed_write_go_when_the_stage_opens(tmp_path: Path) -> None:
    stage = Run(tmp_path / "a").stage("supernet", {})
    (stage.folder / ".last.pt.123.tmp").write_bytes(b"half")
    Run(tmp_path / "a").stage("supernet", {})
    assert [entry.name for entry in stage.folder.iterdir()] == ["stage.json"]


def test_only_own_leftovers_go(tmp_path: Path) -> None:
    """What a user keeps in a run folder stays, hidden or not, whatever it ends with."""
    run = Run(tmp_path / "a")
    stage = run.stage("retrain/ab12/seed_0", {})
    own = (".student.12.tmp/weights.safetensors", ".student.12.old/arch.json", ".0123456789ab.7.tmp/views.npy")
    own += (".last.pt.1.tmp", ".w-1-ab12cd.json.1.tmp", ".truth.csv.9.tmp")
    mine = (".ssh.old/id_rsa", ".vimrc.old", ".vimrc.2024.old", ".notes.tmp", ".last.pt.tmp", "last.pt.1.tmp")
    mine += (".draft.12.tmp/a", ".last.pt.1.tmp.bak", ".git/x.csv.1.tmp")
    for name in (*own, *mine):
        (stage.folder / name).parent.mkdir(exist_ok=True)
        (stage.folder / name).write_text("x")
    with run.locked():
        run.stage("retrain/ab12/seed_0", {})
    left = {path.relative_to(stage.folder).as_posix() for path in stage.folder.rglob("*") if path.is_file()}
    assert left == {"stage.json", *mine}


def test_other_space_and_other_data_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    run.record_space({"name": "digits", "hash": "aa", "widths": (8, 16)})
    run.record_space({"name": "digits", "hash": "aa", "widths": [8, 16]})
    with pytest.raises(SettingError, match="space='other'.*hash"):
        run.record_space({"name": "other", "hash": "bb", "widths": [8, 16]})
    frame = pd.DataFrame({"name": ["a", "b"], "label": [0, 1], "split": ["train", "rate"]})
    run.record_data(frame)
    run.record_data(frame)
    with pytest.raises(SettingError, match="data="):
        run.record_data(frame.assign(split="train"))


def test_changed_versions_or_threads_warn_by_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "a")
    run.record_env({"threads": 1})
    run.record_env({"threads": 1})
    assert capsys.readouterr().err == ""
    run.record_env({"threads": 2})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning") and "threads 1 -> 2" in line
    assert json.loads((run.path / "env.json").read_text())["threads"] == 1
    assert "threads 1 -> 2" in (run.path / "log.txt").read_text()


def test_times_are_apart_from_results(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    run.stage("supernet", {}).seconds("epoch", 1.5, 3.0)
    run.stage("retrain/k/seed_0", {}).seconds("epoch", 2, 1)
    run.latency({"arch": "k", "batch": 1, "latency_ms": 0.7})
    times = read_frame(run.path / "timing.csv")
    assert times.to_dict("list") == {
        "stage": ["supernet", "retrain/k/seed_0"],
        "what": ["epoch", "epoch"],
        "seconds": [1.5, 2.0],
        "cpu_seconds": [3.0, 1.0],
    }
    assert read_frame(run.path / "latency.csv")["latency_ms"].tolist() == [0.7]


def test_two_commands_in_one_folder_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with run.locked():
        with pytest.raises(SettingError, match="no other command"):
            with Run(tmp_path / "a").locked():
                pass
    with Run(tmp_path / "a").locked():
        pass


def test_status_reads_files_only(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    done = run.stage("teacher", {})
    done.metrics.append({"epoch": 1, "accuracy": 0.91237})
    done.finish({})
    run.stage("supernet", {})
    run.write_status(
        {"stage": "supernet", "state": "running", "done": 3, "total": 9, "unit": "epochs"}
        | {"eta_seconds": 200.0, "last": {"loss": 1.23456, "tau": math.nan}}
    )
    before = sorted(run.path.rglob("*"))
    lines = status(run.path).splitlines()
    assert sorted(run.path.rglob("*")) == before
    assert lines[0].startswith("running (process ") and "loss=1.235" in lines[0]
    assert "supernet 3/9 epochs, ETA 3 min 20 s" in lines[0]
    assert lines[1].split() == ["teacher", "done", "epoch=1", "accuracy=0.9124"]
    assert lines[2].split() == ["supernet", "begun"]
    with pytest.raises(SettingError, match="run="):
        status(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    for content in ("é", b"\x00\x01", memoryview(b"ab")):
        atomic_write(tmp_path / "f", content)
        expected = content.encode() if isinstance(content, str) else bytes(content)
        assert (tmp_path / "f").read_bytes() == expected


def test_a_ranking_begun_elsewhere_makes_a_folder_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingError, match="holds other files"):
        check_folder(tmp_path)
    (tmp_path / "rank").mkdir()
    (tmp_path / "rank" / "plan.json").write_text("{}")
    check_folder(tmp_path)


def test_two_threads_write_one_file(tmp_path: Path) -> None:
    """A status is written by the training and, beside it, by whoever counts trainings."""
    failed: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(100):
                atomic_write(tmp_path / "status.json", text)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and (tmp_path / "status.json").read_text() in "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_stage_of_another_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    file = run.stage("teacher", {"seed": 0}).folder / "stage.json"
    record = json.loads(file.read_text())
    assert record["made_with"] == {"nas_kd": __version__, "format": FORMAT}
    run.stage("teacher", {"seed": 0})
    older = record | {"made_with": {"nas_kd": "0.0.7", "format": FORMAT - 1}}
    first = {name: value for name, value in record.items() if name != "made_with"}  # before there were formats
    for other, words in ((older, r"nas_kd 0\.0\.7 \(format"), (first, r"nas_kd 0\.1\.0 \(format 1\)")):
        file.write_text(json.dumps(other))
        with pytest.raises(
            SettingError, match=rf"nas_kd {__version__} \(format {FORMAT}\).*{words}.*use another --run"
        ):
            run.stage("teacher", {"seed": 0})
