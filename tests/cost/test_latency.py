"""Latency is measured on the network as given, and a budget in milliseconds decides alike after a resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from nas_kd.cost import measure_latency
from nas_kd.cost.latency import device_name
from nas_kd.errors import SettingError
from nas_kd.rate.timed import RowTimes
from nas_kd.runs.run import Run
from nas_kd.searcher import latencies
from nas_kd.searcher.budget import Budget
from nas_kd.searcher.latencies import with_latency
from nas_kd.solve import best
from nas_kd.space import load_space
from nas_kd.space.rows import cost_rows

COST = {"resolution": 8, "in_chans": 1, "num_classes": 10}


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        self.modes.add(self.training)
        return x


def test_every_pass_is_made_in_evaluation_mode_and_the_mode_comes_back() -> None:
    net = Counter().train()
    found = measure_latency(net, 6, 2, batch_size=3, warmup=2, repeats=7)
    assert net.shapes == [(3, 2, 6, 6)] * 9 and net.modes == {False} and net.training
    assert found.median_ms > 0 and found.iqr_ms >= 0 and found.repeats == 7 and found.batch_size == 3
    assert found.threads == torch.get_num_threads() and found.device == device_name(torch.device("cpu"))


def test_a_budget_in_milliseconds(tmp_path: Path) -> None:
    space, run = load_space("digits"), Run(tmp_path / "run")
    wide = Budget(space, COST, {"macs": 200_000}, max_latency_ms=1e6, run=run)
    assert wide.fits(space.smallest()) and not wide.fits(space.largest())
    assert wide.violations(space.largest())["latency"] == 0.0  # over the counted cap, so nothing was timed
    measured = wide.latency(space.smallest())
    again = Budget(space, COST, {}, max_latency_ms=measured, run=run)
    assert again.latency(space.smallest()) == measured  # read back, not timed again
    assert again.violations(space.smallest()) == {"latency": 0.0}
    with pytest.raises(SettingError, match="search.max_latency_ms.*smallest arch"):
        Budget(space, COST, {}, max_latency_ms=1e-9, run=run)


def test_rows_of_a_run_are_timed_once_and_their_error_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, run = load_space("digits"), Run(tmp_path / "run")
    tables = [table.groupby(["in_width", "out_width"]).head(1) for table in cost_rows(space, **COST)]
    budget = Budget(space, COST, {}, max_latency_ms=1e6, run=run)
    found = with_latency(tables, budget, 8)
    assert "sums of 20 whole networks are off by" in capsys.readouterr().err
    written = pd.read_csv(run.path / "latency.csv")
    assert written["predicted_ms"].notna().sum() == 20 and (written["median_ms"] > 0).all()
    again = with_latency(tables, Budget(space, COST, {}, max_latency_ms=1e6, run=run), 8)
    for one, other in zip(found, again, strict=True):  # read back, not timed again
        assert one["latency_ms"].tolist() == other["latency_ms"].tolist()
    chain = best(found, bounds={"latency_ms": float(sum(t["latency_ms"].median() for t in found))}, objective="macs")
    assert chain["latency_ms"] > 0


def test_rows_of_other_labels_or_sizes_are_timed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def timed(space: object, tables: list[pd.DataFrame], *, resolution: int, **rest: object) -> RowTimes:
        calls.append(resolution)
        rows = [pd.Series(float(len(calls)), t.index).where(t.index != t.index[0], np.inf) for t in tables]
        whole = pd.DataFrame([{"key": "0", "predicted_ms": 1.0, "median_ms": 1.0}])
        return RowTimes(rows, whole, 0.0, 0.0)

    monkeypatch.setattr(latencies, "latency_rows", timed)
    space, run = load_space("digits"), Run(tmp_path / "run")
    monkeypatch.setattr(run, "latency", lambda row: None)
    budget = Budget(space, COST, {}, run=run)
    grouped = [table.groupby(["in_width", "out_width"]) for table in cost_rows(space, **COST)]
    first, last = [t.head(1) for t in grouped], [t.tail(1) for t in grouped]
    assert all(len(a) == len(b) and not a.index.equals(b.index) for a, b in zip(first, last, strict=True))
    for number, (tables, size) in enumerate([(first, 8), (last, 8), (last, 16), (first, 8)], 1):
        for _ in range(2):  # the second time they are read back
            found = with_latency(tables, budget, size)
            assert len(calls) == number
            for table in found:
                assert table["latency_ms"].tolist() == [np.inf] + [number] * (len(table) - 1)


def test_latencies_in_another_runtime_are_kept_apart(tmp_path: Path) -> None:
    """Whole networks are run by ONNX Runtime, and a run does not take the times of one runtime for the other's."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    opened: list[object] = []
    kind = onnxruntime.InferenceSession

    class Counted(kind):  # type: ignore[misc, valid-type]
        def run(self, *args: object, **more: object) -> object:
            opened.append(self)
            return super().run(*args, **more)

    space, run = load_space("digits"), Run(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", Counted)
        other = Budget(space, COST, {}, run=run, runtime="onnxruntime")
        taken = other.latency(space.smallest())
    assert taken > 0 and len(opened) > 30
    assert Budget(space, COST, {}, run=run, runtime="onnxruntime").latency(space.smallest()) == taken
    here = Budget(space, COST, {}, run=run)
    assert not here.measured and here.latency(space.smallest()) != taken
    rows = pd.read_csv(run.path / "latency.csv")
    assert len(rows) == 2 and rows["device"].str.endswith("ONNX Runtime").tolist() == [True, False]


def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_kd.export.formats.base.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"search.latency_runtime='onnxruntime'.*pip install 'nas_kd\[onnx\]'"):
        Budget(load_space("digits"), COST, {}, runtime="onnxruntime")
