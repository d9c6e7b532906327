"""A student in other formats: equal outputs for any batch size, options inside, nothing left where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from export_students import student
from torch import Tensor, nn

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.export.formats import FORMATS

ONNX = pytest.param("onnx", marks=pytest.mark.slow)  # seconds each: one is in `test_onnx_is_read_by_its_runtime`
KINDS = ("resnet_cifar", "digits", "cifar_resnet8", "resnet18", "vit_tiny_patch16_224", "multilabel")
QUICK = ("resnet_cifar", "cifar_resnet8")


def images(count: int, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("to", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow), ONNX])
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_outputs_are_those_of_the_network(kind: str, to: str, tmp_path: Path) -> None:
    need(to)
    network = student(kind)
    made = nas_kd.export(network, to, tmp_path / "s")
    assert made.path == tmp_path / "s" and made.to == to and made.agreement == 1
    run = FORMATS[to].read(made.path)
    with torch.no_grad():
        for count in (1, 3, 7):
            x = images(count)
            wanted = network(x)
            torch.testing.assert_close(run(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max().clamp_min(1)))


def need(to: str) -> None:
    for package in FORMATS[to].packages:
        pytest.importorskip(package)


@pytest.mark.parametrize("translates", [True, False])
def test_onnx_is_read_by_its_runtime(translates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a student folder, normalised inside, with probabilities, and latencies beside torch's."""
    need("onnx")
    import onnxruntime

    export = torch.onnx.export

    def older(*args: Any, dynamo: bool, **settings: Any) -> Any:
        if dynamo:
            raise RuntimeError("no such operator")
        return export(*args, dynamo=False, **settings)

    if not translates:
        monkeypatch.setattr(torch.onnx, "export", older)
    network = student("cifar_resnet8")
    folder = nas_kd.save_student(network, tmp_path / "student")
    made = nas_kd.export(folder, normalise=True, softmax=True, latency=(1, 2))
    assert made.path == folder / "export" / "student.onnx"
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in (*session.get_inputs(), *session.get_outputs())] == ["images", "outputs"]
    mean, std = (torch.tensor(network.info[name]).view(1, 3, 1, 1) for name in ("mean", "std"))  # type: ignore[index]
    for count in (1, 5):
        x = images(count)
        (found,) = session.run(None, {"images": x.numpy()})
        with torch.no_grad():
            wanted = network((x - mean) / std).softmax(1)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    said = json.loads((folder / "export" / "student.onnx.json").read_text())
    assert said["difference"] == made.difference <= 1e-4 and said["agreement"] == 1
    assert said["outputs"] == "softmax" and said["input"]["values"] == "0..1" and said["classes"] == list("abcd")
    assert {"torch", "onnxruntime", "nas_kd"} <= said["versions"].keys()
    rows = pd.read_csv(folder / "export" / "student.onnx.latency.csv")
    assert sorted(zip(rows["runtime"], rows["batch_size"], strict=True)) == [
        ("onnxruntime", 1),
        ("onnxruntime", 2),
        ("torch eager", 1),
        ("torch eager", 2),
    ]
    assert (rows["median_ms"] > 0).all() and (rows["threads"] == torch.get_num_threads()).all()
    assert nas_kd.load_student(folder).info["classes"] == list("abcd")  # exports in it are no part of it


def test_a_network_that_neither_exporter_translates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("onnx")

    def neither(*args: Any, dynamo: bool, **settings: Any) -> Any:
        raise RuntimeError("no operator" if dynamo else "of the older one")

    monkeypatch.setattr(torch.onnx, "export", neither)
    with pytest.raises(SettingError, match="to='onnx'.*no operator"):
        nas_kd.export(student("cifar_resnet8"), "onnx", tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


def test_several_labels_become_sigmoids(tmp_path: Path) -> None:
    network = student("multilabel")
    made = nas_kd.export(network, "torchscript", tmp_path / "s.pt", softmax=True)
    with torch.no_grad():
        torch.testing.assert_close(FORMATS["torchscript"].read(made.path)(images(2)), network(images(2)).sigmoid())
    assert json.loads((tmp_path / "s.pt.json").read_text())["outputs"] == "sigmoids"


class Iffy(nn.Module):
    """Goes by values, which no trace can."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to the same."""
        return x if x.sum() > 0 else -x


class Noisy(nn.Module):
    """Answers anew every time."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) to the same."""
        return x + torch.rand_like(x)


def with_end(end: nn.Module) -> nn.Module:
    """Return a network of pixels whose last part is given, two levels below it."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Sequential(nn.ReLU(), end)).eval()
    network.info = {"in_chans": 3, "resolution": 2, "mean": None, "std": None}  # type: ignore[assignment]
    return network


def test_the_module_that_cannot_be_traced_is_named_and_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"2\.1 \(Iffy\)"):
        nas_kd.export(with_end(Iffy()), "pt2", tmp_path / "deep" / "s.pt2")
    assert not list(tmp_path.iterdir())


def test_outputs_that_differ_are_refused_and_the_older_file_stays(tmp_path: Path) -> None:
    place = tmp_path / "s.pt"
    place.write_text("older")
    with pytest.raises(SettingError, match="tolerance=0.0001: expected at least"):
        nas_kd.export(with_end(Noisy()), "torchscript", place)
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"] and place.read_text() == "older"
    made = nas_kd.export(with_end(Noisy()), "torchscript", place, tolerance=2)
    assert 0 < made.difference < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.pt", "s.pt.json"]


def test_nothing_of_an_earlier_export_stays_beside_a_new_one(tmp_path: Path) -> None:
    place = tmp_path / "s.py"
    network = wide_student()
    nas_kd.export(network, "standalone", place, latency=(1,))
    assert names(tmp_path) == ["s.py", "s.py.json", "s.py.latency.csv", "s.safetensors"]
    (tmp_path / "s.notes").write_text("mine")
    (tmp_path / "mine.csv").write_text("mine")
    nas_kd.export(student("cifar_resnet8"), "standalone", place)
    assert names(tmp_path) == ["mine.csv", "s.notes", "s.py", "s.py.json"]


def test_files_that_no_export_wrote_stay(tmp_path: Path) -> None:
    """A note is data: it may name files of others, or none of ours."""
    place = tmp_path / "deep" / "s.pt"
    for path in (tmp_path / "s.outside", place.with_name("s.safetensors"), place.with_name("other.onnx")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    note = place.with_name("s.pt.json")
    for text in ('{"files": ["../s.outside", "other.onnx", 3, null]}', '{"files": 5}', "[]", "{"):
        note.write_text(text)
        nas_kd.export(with_end(nn.Identity()), "torchscript", place)
        assert (tmp_path / "s.outside").exists()
        assert names(place.parent) == ["other.onnx", "s.pt", "s.pt.json", "s.safetensors"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wide_student() -> nn.Module:
    """Return a network whose weights a standalone file keeps in a file of their own."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 90_000), nn.Linear(90_000, 3, bias=False)).eval()
    network.info = {"in_chans": 3, "resolution": 2, "mean": None, "std": None}  # type: ignore[assignment]
    return network


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas_kd.export.formats.base.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"onnx is not; hint: pip install 'nas_kd\[onnx\]'"):
        nas_kd.export(student("cifar_resnet8"), path=tmp_path / "s.onnx")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"to": "onx"}, "did you mean 'onnx'"),
        ({"to": "pt2", "tolerance": 0}, "tolerance=0"),
        ({"to": "pt2", "images": torch.rand(2, 1, 32, 32)}, "images="),
        ({"to": "pt2", "images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}, "float images"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(given: dict[str, object], part: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=part):
        nas_kd.export(student("cifar_resnet8"), path=tmp_path / "s", **given)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_numbers_have_no_probabilities_and_a_student_without_mean_is_not_normalised(tmp_path: Path) -> None:
    network = with_end(nn.Identity())
    with pytest.raises(SettingError, match="normalise=True"):
        nas_kd.export(network, "torchscript", tmp_path / "s", normalise=True)
    network.info = network.info | {"labels": "regression"}  # type: ignore[operator, assignment]
    with pytest.raises(SettingError, match="softmax=True"):
        nas_kd.export(network, "torchscript", tmp_path / "s", softmax=True)
    assert nas_kd.export(network, "torchscript", tmp_path / "s").agreement is None


def test_the_students_own_weights_and_mode_stay(tmp_path: Path) -> None:
    network = with_end(nn.Dropout(0.5)).train()
    nas_kd.export(network, "torchscript", tmp_path / "s")
    assert network.training
