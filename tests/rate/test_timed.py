"""Latencies of rows: every layer is charged once, and the sums are those of the networks' own layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nas_kd.cost.latency import Latency, device_name
from nas_kd.cost.layers import layer_key, layer_times
from nas_kd.errors import SettingError
from nas_kd.export import onnx_timed
from nas_kd.export.onnx_timed import onnx_layer_times
from nas_kd.rate import timed
from nas_kd.rate.timed import latency_rows
from nas_kd.space import ElasticSpace, load_space
from nas_kd.space.rows import arch_of_rows, cost_rows

SHAPE = {"in_chans": 3, "num_classes": 10}


def counted(space: ElasticSpace, monkeypatch: Any) -> Any:
    """Give every layer a made-up time, so that sums can be told exactly."""
    made: dict[Any, float] = {}

    def times(layers: Any, *rest: Any, **more: Any) -> dict[Any, float]:
        return {layer_key(layer): made.setdefault(layer_key(layer), 2.0 ** (len(made) % 40)) for layer in layers}

    monkeypatch.setattr(timed, "layer_times", times)
    return made


@pytest.mark.parametrize(("name", "size"), [("digits", 8), ("mobilenet_cifar", 32)])
def test_a_chain_of_rows_is_charged_with_the_layers_of_its_arch(name: str, size: int, monkeypatch: Any) -> None:
    space = load_space(name)
    made = counted(space, monkeypatch)
    tables = cost_rows(space, resolution=size, **SHAPE)
    tables = [table.groupby(["in_width", "out_width"]).sample(2, random_state=0) for table in tables]
    found = latency_rows(space, tables, resolution=size, whole=3, **SHAPE)
    assert all(times.index.equals(table.index) for times, table in zip(found.rows, tables, strict=True))
    for row in found.whole.itertuples():
        assert row.predicted_ms > 0 and row.threads >= 1 and row.repeats > 1
        assert row.device == device_name(torch.device("cpu"))
    chain, width = [], None
    for table in tables:
        fits = table if width is None else table[table["in_width"] == width]
        chain.append(fits.index[-1])
        width = fits["out_width"].iloc[-1]
    layers = space.layers(arch_of_rows(space, tables, chain, size), 10, 3)
    total = sum(times[label] for times, label in zip(found.rows, chain, strict=True))
    assert total == sum(made[layer_key(layer)] for layer in layers)


def test_rows_that_no_network_has_take_for_ever(monkeypatch: Any) -> None:
    space = load_space("mobilenet_cifar")
    counted(space, monkeypatch)
    tables = [t.groupby(["in_width", "out_width"]).head(1) for t in cost_rows(space, resolution=32, **SHAPE)]
    lost = [0, 2]  # rows that enter with the narrowest width have no score
    tables[1] = tables[1][tables[1]["in_width"] > tables[1]["in_width"].min()]
    tables[3] = tables[3][tables[3]["in_width"] > tables[3]["in_width"].min()]
    found = latency_rows(space, tables, resolution=32, whole=1, **SHAPE)
    for at, (times, table) in enumerate(zip(found.rows, tables, strict=True)):
        narrow = table["out_width"] == table["out_width"].min()
        assert times.index.equals(table.index)
        assert np.isinf(times).tolist() == (narrow if at in lost else narrow & False).tolist()
        assert 0 < np.isfinite(times).sum()
    tables[1]["in_width"] = 1
    with pytest.raises(SettingError, match="in_width equals the previous out_width"):
        latency_rows(space, tables, resolution=32, whole=1, **SHAPE)


def test_the_error_is_that_of_the_whole_networks() -> None:
    space = load_space("digits")
    tables = cost_rows(space, resolution=8, in_chans=1, num_classes=10)
    tables = [table.groupby(["in_width", "out_width"]).head(1) for table in tables]
    found = latency_rows(space, tables, resolution=8, in_chans=1, num_classes=10, whole=20)
    errors = (found.whole["predicted_ms"] - found.whole["median_ms"]).abs() / found.whole["median_ms"]
    assert len(found.whole) == 20
    assert (found.error, found.worst) == (pytest.approx(errors.median()), pytest.approx(errors.max()))
    assert all((times > 0).all() for times in found.rows)


def test_every_layer_of_a_network_is_timed_every_pass() -> None:
    space = load_space("digits")
    layers = space.layers(space.largest(), 10, 1)
    found = layer_times(layers, space.kinds, 8, 1, warmup=1, repeats=3)
    assert set(found) == {layer_key(layer) for layer in layers}
    assert all(value > 0 for value in found.values())


def test_layers_are_timed_by_themselves_in_onnx_runtime(monkeypatch: Any) -> None:
    """Each distinct layer once, together in one export; what a call takes by itself counts once a network."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    space = load_space("digits")
    networks = [space.layers(arch, 10, 1) for arch in (space.smallest(), space.largest())]
    monkeypatch.setattr(onnx_timed, "timed_in_turns", lambda calls, **_: _ran(calls))
    found = onnx_layer_times(networks, space.kinds, 8, 1)
    keys = [[layer_key(layer) for layer in layers] for layers in networks]
    assert set(found) == {key for each in keys for key in each}
    assert found[keys[0][0]] == pytest.approx(5.0)  # the stem with the call around it
    stems = {each[0] for each in keys}
    assert all(found[key] == pytest.approx(3.0) for key in found if key not in stems)


def _ran(calls: Any) -> dict[str, list[float]]:
    """Run each once, and say that layers take 5 ms and nothing takes 2."""
    for call in calls.values():
        call()
    return {"layer": [0.005], "nothing": [0.002]}


def test_what_runs_in_onnx_runtime_is_the_module() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    space = load_space("digits")
    net = space.build(space.smallest(), 10, 1).eval()
    x = torch.randn(1, 1, 8, 8)
    (call,) = onnx_timed._calls([(net, x)])
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(call()[0]), net(x), rtol=1e-4, atol=1e-5)


def test_rows_are_sums_of_the_chosen_runtime(monkeypatch: Any) -> None:
    space = load_space("digits")
    tables = cost_rows(space, resolution=8, in_chans=1, num_classes=10)
    tables = [table.groupby(["in_width", "out_width"]).head(1) for table in tables]
    asked: list[str] = []

    def whole(runtime: str, *rest: Any, **more: Any) -> Latency:
        asked.append(runtime)
        return Latency(1.0, 0.0, 1, 1, "cpu", 1)

    def layers(networks: Any, *rest: Any, **more: Any) -> dict[Any, float]:
        return {layer_key(layer): 0.5 for layers in networks for layer in layers}

    monkeypatch.setattr(timed, "latency_in", whole)
    monkeypatch.setattr(timed, "onnx_layer_times", layers)
    monkeypatch.setattr(timed, "layer_times", None)
    found = latency_rows(space, tables, resolution=8, in_chans=1, num_classes=10, whole=3, runtime="onnxruntime")
    assert asked == ["onnxruntime"] * 3
    counts = found.whole["predicted_ms"] / 0.5
    assert (counts == counts.round()).all() and (counts >= 4).all()
