"""The student folder opens anywhere, gives back every bit, and refuses what does not fit."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.export import load_student, save_student

INFO = {
    "mean": [0.3, 0.4, 0.5],
    "std": [0.2, 0.2, 0.2],
    "classes": ["cat", "dog"],
    "resolution": 32,
    "in_chans": 3,
    "num_classes": 2,
    "metrics": {"test_accuracy": 0.75},
    "macs": 123,
    "params": 45,
}


@pytest.fixture
def student() -> nn.Module:
    """A subnet with statistics that are not those of a fresh one."""
    space = nas_kd.load_space("resnet_cifar")
    torch.manual_seed(3)
    network = space.build(space.sample(5), num_classes=2, in_chans=3)
    network(torch.randn(8, 3, 32, 32))  # training mode: moves the running statistics
    return network.eval()


def test_gives_back_the_network_bit_for_bit(student: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(4, 3, 32, 32)
    save_student(student, tmp_path / "deep" / "student", info=INFO)
    again = load_student(tmp_path / "deep" / "student")
    assert not again.training
    assert torch.equal(again(x), student(x))
    assert {key: again.info[key] for key in INFO} == INFO
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["student"]  # nothing left beside it
    layers = json.loads((tmp_path / "deep" / "student" / "arch.json").read_text())
    assert layers == student.layers_spec


def test_opens_in_a_fresh_process_in_an_empty_folder(student: nn.Module, tmp_path: Path) -> None:
    save_student(student, tmp_path / "made" / "student", info=INFO)
    away = tmp_path / "elsewhere"
    away.mkdir()
    shutil.move(tmp_path / "made" / "student", away / "s")
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    code = (
        "import sys, torch, nas_kd; torch.set_num_threads(1)\n"
        "s = nas_kd.load_student('s')\n"
        "y = s(torch.linspace(-1, 1, 2*3*32*32).reshape(2, 3, 32, 32))\n"
        "print([v.hex() for v in y.flatten().tolist()], s.info['classes'], sorted(sys.modules))"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    root = str(Path(nas_kd.__file__).parent.parent)
    # as installed: the package is found, the checkout's other folders (search_spaces) are not needed
    (away / "site").mkdir()
    (away / "site" / "nas_kd").symlink_to(Path(root) / "nas_kd", target_is_directory=True)
    env["PYTHONPATH"] = str(away / "site")
    done = subprocess.run([sys.executable, "-c", code], cwd=away, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = [v.hex() for v in student(x).flatten().tolist()]
    assert f"{wanted} ['cat', 'dog']" in done.stdout
    for module in ("search_spaces", "nas_kd.teacher", "nas_kd.config.settings", "timm", "optuna"):
        assert f"'{module}'" not in done.stdout


def test_info_is_kept_by_saving_a_loaded_student_again(student: nn.Module, tmp_path: Path) -> None:
    save_student(student, tmp_path / "a", info=INFO)
    save_student(load_student(tmp_path / "a"), tmp_path / "b")
    for name in ("arch.json", "student.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_info_may_be_left_out(student: nn.Module, tmp_path: Path) -> None:
    info = load_student(save_student(student, tmp_path / "a")).info
    assert (info["num_classes"], info["in_chans"]) == (2, 3)
    assert info["params"] == sum(p.numel() for p in student.parameters())


def test_an_older_student_is_replaced_and_other_folders_are_not(student: nn.Module, tmp_path: Path) -> None:
    save_student(student, tmp_path / "s", info=INFO)
    with torch.no_grad():
        student.head.fc.bias += 1
    save_student(student, tmp_path / "s", info=INFO)
    assert torch.equal(load_student(tmp_path / "s").head.fc.bias, student.head.fc.bias)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    with pytest.raises(SettingError, match="photos"):
        save_student(student, tmp_path / "photos", info=INFO)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "mine"


def test_a_module_with_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from wide import Tied

    network = Tied(width=5).eval()
    with pytest.raises(SettingError, match="factory"):
        save_student(network, tmp_path / "s", info=INFO)
    with pytest.raises(SettingError, match="a.weight"):  # the factory builds another width: found on saving
        save_student(network, tmp_path / "s", info=INFO | {"factory": "wide:Tied"})
    info = INFO | {"factory": "wide:Tied", "factory_kwargs": {"width": 5}}
    again = load_student(save_student(network, tmp_path / "s", info=info))
    x = torch.randn(2, 5)
    assert torch.equal(again(x), network(x))
    assert again.info["factory_kwargs"] == {"width": 5}


@pytest.mark.parametrize("factory", ["os:system", "__main__:f", "no_such_package:f", "wide", "wide:not_a_network"])
def test_a_factory_that_cannot_be_one(factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(SettingError, match="factory"):
        save_student(nn.Linear(2, 2), tmp_path / "s", info={"factory": factory})
    assert not (tmp_path / "s").exists()


def test_a_timm_model(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    info = INFO | {"factory": "timm:mobilenetv3_small_050", "factory_kwargs": {"num_classes": 3}}
    again = load_student(save_student(network, tmp_path / "s", info=info))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x), network(x))
    with pytest.raises(SettingError, match="resnet1x"):
        save_student(network, tmp_path / "t", info={"factory": "timm:resnet1x"})


def test_draws_no_random_numbers(student: nn.Module, tmp_path: Path) -> None:
    save_student(student, tmp_path / "s", info=INFO)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    load_student(tmp_path / "s")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


@pytest.mark.parametrize("name", ["arch.json", "student.json", "weights.safetensors"])
def test_missing_and_damaged_files_are_named(name: str, student: nn.Module, tmp_path: Path) -> None:
    folder = save_student(student, tmp_path / "s", info=INFO)
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(SettingError, match=name):
        load_student(folder)
    (folder / name).unlink()
    with pytest.raises(SettingError, match=f"{name} is missing"):
        load_student(folder)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nowhere"):
        load_student(tmp_path / "nowhere")


def test_the_first_tensor_that_does_not_fit_is_named(student: nn.Module, tmp_path: Path) -> None:
    folder = save_student(student, tmp_path / "s", info=INFO)
    path = folder / "weights.safetensors"
    state = load_file(path)
    save_file(state | {"head.fc.weight": torch.zeros(7, 3)}, path)
    with pytest.raises(SettingError, match=r"head\.fc\.weight: \(2, \d+\) expected, \(7, 3\) found"):
        load_student(folder)
    save_file({key: value for key, value in state.items() if key != "stem.bn.weight"}, path)
    with pytest.raises(SettingError, match=r"stem\.bn\.weight: \(\d+,\) expected, none found"):
        load_student(folder)
    save_file(state | {"extra": torch.zeros(1)}, path)
    with pytest.raises(SettingError, match="extra: none expected"):
        load_student(folder)


def test_a_newer_format_is_refused(student: nn.Module, tmp_path: Path) -> None:
    folder = save_student(student, tmp_path / "s", info=INFO)
    about = json.loads((folder / "student.json").read_text())
    (folder / "student.json").write_text(json.dumps(about | {"format_version": 2}))
    with pytest.raises(SettingError, match="upgrade"):
        load_student(folder)


def test_a_kill_while_writing_leaves_the_older_one(
    student: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_student(student, tmp_path / "s", info=INFO)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        save_student(student, folder, info=INFO | {"macs": 0})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
