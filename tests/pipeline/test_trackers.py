"""Trackers are given what a run's files hold, once, and a run does not depend on them."""

from __future__ import annotations

import json
import pickle
import struct
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from lightning_fabric.loggers.logger import Logger

from nas_kd.analyse import report
from nas_kd.errors import SettingError
from nas_kd.pipeline import mirror
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.mirror import tracked
from nas_kd.pipeline.trackers import TRACKERS
from nas_kd.pipeline.trackers.base import Tracker
from nas_kd.pipeline.trackers.mlflow import MLFlowLogger
from nas_kd.runs.run import Run
from tests.analyse.conftest import fake_run

SETTINGS = {"seed": 3, "search": {"max_macs": "60%", "weights": None}}
EPOCHS = [{"epoch": 1, "loss": 2.0, "rate_accuracy": 0.25}, {"epoch": 2, "loss": 1.5, "rate_accuracy": 0.5}]
TRIALS = [
    {"number": 0, "kind": "warm", "key": "ab", "kl": 0.75, "macs": 100, "feasible": True, "i_1": 3},
    {"number": 1, "kind": "infeasible", "key": "cd", "kl": float("nan"), "macs": 900, "feasible": False, "i_1": 4},
]
VALUES = {
    ("supernet/loss", 1): 2.0,
    ("supernet/loss", 2): 1.5,
    ("supernet/rate_accuracy", 1): 0.25,
    ("supernet/rate_accuracy", 2): 0.5,
    ("search/trials/kl", 0): 0.75,
    ("search/trials/macs", 0): 100.0,
    ("search/trials/macs", 1): 900.0,
}


class Kept(Logger):
    """Keeps what it is given."""

    def __init__(self, folder: Path, name: str) -> None:
        self.given: list[tuple[str, int | None, float]] = []
        self.settings: dict[str, Any] = {}
        self.shown: list[Path] = []
        self.ended: list[str] = []
        self.title = name

    @property
    def name(self) -> str:
        return self.title

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.given += [(name, step, value) for name, value in metrics.items()]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        assert isinstance(params, dict)
        self.settings = params

    def finalize(self, status: str) -> None:
        self.ended.append(status)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "mine")
    for name, rows in (("supernet/metrics.csv", EPOCHS), ("search/trials.csv", TRIALS)):
        (run.path / name).parent.mkdir()
        pd.DataFrame(rows).to_csv(run.path / name, index=False)
    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """The loggers of a tracker that is added for the test."""
    found: list[Kept] = []

    def opening(folder: Path, name: str) -> Kept:
        found.append(Kept(folder, name))
        return found[-1]

    monkeypatch.setitem(
        TRACKERS, "kept", Tracker("kept", opening, lambda logger, folder, _: logger.shown.append(folder))
    )
    return found


def test_every_row_is_handed_on_once(run: Run, opened: list[Kept]) -> None:
    with tracked(run, ["kept"], SETTINGS):
        pass
    (first,) = opened
    assert {(name, step): value for name, step, value in first.given} == VALUES and len(first.given) == len(VALUES)
    assert first.settings == {"seed": 3, "search.max_macs": "60%", "search.weights": None}
    assert first.ended == ["success"] and first.title == "mine" and not first.shown
    with open(run.path / "supernet" / "metrics.csv", "a") as file:
        file.write("3,1.25,0.75\n")
    with tracked(run, ["kept"], SETTINGS):
        pass
    assert opened[1].given == [("supernet/loss", 3, 1.25), ("supernet/rate_accuracy", 3, 0.75)]


def test_rows_are_handed_on_while_the_work_goes_on(
    run: Run, opened: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "EVERY", 0.0)
    with tracked(run, ["kept"], SETTINGS):
        assert not opened[0].given
        run.write_status({"stage": "supernet"})
        assert len(opened[0].given) == len(VALUES)
        assert pickle.loads(pickle.dumps(run)).watchers == []  # worker processes watch nothing
    assert run.watchers == [] and len(opened[0].given) == len(VALUES)


def test_work_that_fails_is_told_so(run: Run, opened: list[Kept]) -> None:
    with pytest.raises(ZeroDivisionError), tracked(run, ["kept"], SETTINGS):
        raise ZeroDivisionError
    assert opened[0].ended == ["failed"] and len(opened[0].given) == len(VALUES)


def test_a_tracker_that_fails_is_left_out(
    run: Run, opened: list[Kept], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mirror, "EVERY", 0.0)

    class Gone(Kept):
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            raise ConnectionError("no network")

    monkeypatch.setitem(TRACKERS, "gone", Tracker("gone", Gone, lambda *_: None))
    with tracked(run, ["gone", "kept"], SETTINGS):
        run.write_status({"stage": "supernet"})
        run.write_status({"stage": "supernet"})
    assert capsys.readouterr().err.count("log=gone is left out: ConnectionError: no network") == 1
    assert len(opened[0].given) == len(VALUES) and opened[0].ended == ["success"]


def test_a_tracker_that_cannot_be_opened_is_refused_before_the_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(folder: Path, name: str) -> Kept:
        raise PermissionError("not logged in")

    monkeypatch.setitem(TRACKERS, "shut", Tracker("shut", refuses, lambda *_: None))
    with pytest.raises(SettingError, match="log='shut'.*not logged in"), tracked(run, ["shut"], SETTINGS):
        pytest.fail("the work began")


@pytest.mark.parametrize("name", [name for name in TRACKERS if name != "csv"])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_kd.export.formats.base.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=rf"log='{name}'.*pip install 'nas_kd\[{name}\]'"):
        TRACKERS[name].need_packages()


def test_names_stand_in_a_list_or_between_commas() -> None:
    assert Config(log="tensorboard, csv").log == Config(log=["tensorboard", "csv"]).log == ["tensorboard", "csv"]  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="log=.*each tracker once"):
        Config(log=["csv", "csv"])
    with pytest.raises(SettingError, match="log='tensorbord'"):
        Config(log="tensorbord")  # type: ignore[arg-type]


def follow(run: Run, name: str) -> None:
    with tracked(run, [name], SETTINGS):
        pass


def test_one_csv_of_all(run: Run) -> None:
    follow(run, "csv")
    rows = pd.read_csv(run.path / "track" / "csv" / "values.csv")
    assert dict(zip(zip(rows["name"], rows["step"], strict=True), rows["value"], strict=True)) == VALUES
    assert json.loads((run.path / "track" / "csv" / "settings.json").read_text())["search.max_macs"] == "60%"


def test_event_files_of_tensorboard(run: Run) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow(run, "tensorboard")
    read = EventAccumulator(str(run.path / "track" / "tensorboard"))
    read.Reload()
    found = {(tag, event.step): event.value for tag in read.Tags()["scalars"] for event in read.Scalars(tag)}
    assert {key: value for key, value in found.items() if key in VALUES} == VALUES
    assert {tag for tag, _ in found} - {tag for tag, _ in VALUES} <= {"hp_metric"}
    assert "_hparams_/session_start_info" in read.summary_metadata


def test_a_database_of_mlflow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    follow(run, "mlflow")
    folder = run.path / "track" / "mlflow"
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    number = (folder / "run_id").read_text().strip()
    tags = [tag for tag, _ in VALUES]
    found = {(tag, each.step): each.value for tag in tags for each in client.get_metric_history(number, tag)}
    assert found == VALUES
    made = client.get_run(number)
    assert made.data.tags["search.max_macs"] == "60%" and made.info.status == "FINISHED"


@pytest.mark.parametrize("given", [None, "", "http://there"])
def test_an_empty_address_of_mlflow_is_none(given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the report are kept beside the database then, as without the variable."""
    made: dict[str, Any] = {}

    class Client:
        def __init__(self, address: str) -> None:
            made["address"] = address

        def get_experiment_by_name(self, name: str) -> None: ...

        def create_experiment(self, name: str, files: str | None) -> str:
            made["files"] = files
            return "1"

        def create_run(self, experiment: str, run_name: str) -> Namespace:
            return Namespace(info=Namespace(run_id="r"))

    monkeypatch.setitem(sys.modules, "mlflow", Namespace(MlflowClient=Client))  # type: ignore[arg-type]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    MLFlowLogger(tmp_path, "mine")
    own = f"sqlite:///{(tmp_path / 'mlflow.db').resolve()}"
    files = (tmp_path / "files").resolve().as_uri()
    assert made == ({"address": given, "files": None} if given else {"address": own, "files": files})


def records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a log of LevelDB's format, in blocks of 32 KiB, behind a header of seven bytes."""
    block, head = 2**15, 7
    assert log[:4] == b":W&B"
    place, whole = head, b""
    while place + head <= len(log):
        if block - place % block < head:  # too little for the header of a record: zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", log, place)
        whole += log[place + head : place + head + length]
        place += head + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def test_an_offline_file_of_wandb(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the run folder, which holds no links."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    follow(run, "wandb")
    (path,) = (run.path.parent / "wandb").glob("offline-run-*/*.wandb")
    found: dict[tuple[str, int], float] = {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        steps = {name.rpartition("/")[0]: int(value) for name, value in items.items() if name.endswith("/step")}
        for name, value in items.items():
            if (stage := name.rpartition("/")[0]) in steps and not name.endswith("/step"):
                found[name, steps[stage]] = float(value)
    assert found == VALUES
    assert not [path for path in run.path.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("name", list(TRACKERS))
def test_the_report_is_shown(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in TRACKERS[name].packages:
        pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = fake_run(tmp_path / "runs" / "mine", trials=20, seeds=1)
    report(run)
    follow(Run(run), name)
    assert "left out" not in capsys.readouterr().err
    if name == "mlflow":
        assert list((run / "track" / "mlflow" / "files").rglob("report.html"))
    if name == "wandb":
        assert list((run.parent / "wandb").rglob("*.html"))
