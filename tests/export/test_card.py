"""The card of a student folder: what is known, and nothing that is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from export_students import student

import nas_kd
from nas_kd.export.card import card, interval
from nas_kd.export.student import note_budget

MADE = {
    "teacher": "resnet|56",
    "method": "kd_ls",
    "epochs": 3,
    "seed": 1,
    "budget": "at most 1,000 MACs",
    "data": "0123abcd",
    "train_images": 1000,
    "images": {"select": 50, "test": 200},
}


def test_a_folder_has_a_card_and_versions(tmp_path: Path) -> None:
    network = student("cifar_resnet8")
    info = network.info | {"made": MADE, "metrics": {"test_accuracy": 0.9, "test_recall_a": 0.8}}  # type: ignore[operator]
    folder = nas_kd.save_student(network, tmp_path / "s", info=info)
    text = (folder / "README.md").read_text()
    for part in (
        "| task | one class an image |",
        "| outputs | 4: a, b, c, d |",
        "| teacher | resnet\\|56 |",
        "| method | kd_ls |",
        "| budget | at most 1,000 MACs |",
        "| data | 0123abcd |",
        "| test (200) | accuracy | 0.9000 | 0.8506 .. 0.9343 |",
        "| test (200) | recall_a | 0.8000 |  |",
        "minus [0.4, 0.5, 0.6], divided by [0.2, 0.25, 0.3]",
        "resized to 32 pixels",
        "nas_kd.load_student",
    ):
        assert part in text, part
    versions = json.loads((folder / "env.json").read_text())
    assert versions["torch"] == torch.__version__.partition("+")[0] or "torch" in versions
    assert nas_kd.load_student(folder).info["made"]["images"] == MADE["images"]
    nas_kd.save_student(network, folder, info=info)  # its own files are no one else's


def test_a_card_tells_the_latencies_of_exports(tmp_path: Path) -> None:
    """Of those that lie in the folder now, and of no earlier ones."""
    folder = nas_kd.save_student(student("cifar_resnet8"), tmp_path / "s")
    before = (folder / "README.md").read_text()
    assert "Latency" not in before
    made = nas_kd.export(folder, "torchscript", latency=(1, 2))
    lines = (folder / "README.md").read_text().splitlines()
    for row in made.latency:
        assert f"| {row.runtime} | {row.batch_size} | {row.median_ms:.3f} | {row.iqr_ms:.3f} |" in " ".join(lines)
    assert len([line for line in lines if line.startswith(("| torch eager", "| TorchScript"))]) == 4
    nas_kd.export(folder, "torchscript")
    assert (folder / "README.md").read_text() == before


def test_the_budget_that_was_noted_first_stays(tmp_path: Path) -> None:
    network = student("cifar_resnet8")
    folder = nas_kd.save_student(network, tmp_path / "s")
    note_budget(folder, "at most 9 MACs")
    note_budget(folder, "at most 8 MACs")
    assert "| budget | at most 9 MACs |" in (folder / "README.md").read_text()
    loaded = nas_kd.load_student(folder)
    assert loaded.info == network.info | {"made": {"budget": "at most 9 MACs"}} | {  # type: ignore[operator]
        name: loaded.info[name]  # type: ignore[index]
        for name in loaded.info.keys() - network.info.keys() - {"made"}  # type: ignore[union-attr, operator]
    }


def test_what_is_not_known_is_left_out() -> None:
    text = card({})
    for word in ("teacher", "seed", "Measured", "Input", "None", "MACs", "Latency"):
        assert word not in text


def test_older_folders_load(tmp_path: Path) -> None:
    folder = nas_kd.save_student(student("resnet_cifar"), tmp_path / "s")
    for name in ("README.md", "env.json"):
        (folder / name).unlink()
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(nas_kd.load_student(folder)(x), student("resnet_cifar")(x))
    shutil.rmtree(folder)


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I, example 81/263: 0.2553 .. 0.3662
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
