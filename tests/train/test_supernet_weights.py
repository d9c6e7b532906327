"""The weights that a supernet begins with: its own, a student's, and those of published supernets.

``tests/published_files.py`` lists the published tensors without our maps. That the maps are right, and not only
complete, is tested beside the released code itself (test_published_code.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import FILES, KERNEL_TRANSFORMS, Entry
from safetensors.torch import save_file
from tiny_spaces import BASIC, MOBILE
from torch import Tensor

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.train import save_weights, train_supernet
from nas_kd.train.supernet_weights import normalisation_of

CLASSES = 10
published = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", subset=140, rate=20)


def numbered(entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Give every tensor a value of its own: its place in the list."""
    return {entry.name: torch.full(entry.shape, float(place)) for place, entry in enumerate(entries)}


def made(name: str, classes: int = CLASSES) -> Supernet:
    return Supernet(nas_kd.load_space(name), classes, kernel_transform=name in KERNEL_TRANSFORMS)


def stored(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 3, "state_dict": tensors}, path)
    return path


@published
def test_every_tensor_is_filled_once_and_none_is_left(name: str, tmp_path: Path) -> None:
    entries = list(FILES[name](classes=CLASSES))
    net = made(name)
    assert nas_kd.load_supernet(net, stored(tmp_path / "file", numbered(entries))) is net
    filled = []
    for tensor in net.state_dict().values():
        (place,) = tensor.unique().tolist()  # of one tensor, whole
        filled.append(int(place))
        assert entries[filled[-1]].shape == tensor.shape
    assert sorted(filled) == [place for place, entry in enumerate(entries) if entry.used]


@pytest.mark.parametrize("name", KERNEL_TRANSFORMS)
def test_older_names_are_the_same(name: str, tmp_path: Path) -> None:
    nets = [made(name), made(name)]
    for net, inner in zip(nets, ("conv", "mobile_inverted_conv"), strict=True):
        entries = FILES[name](classes=CLASSES, inner=inner)
        nas_kd.load_supernet(net, stored(tmp_path / inner, numbered(entries)))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_names_of_a_training_on_several_gpus(tmp_path: Path) -> None:
    tensors = numbered(FILES["attentive_nas"](classes=CLASSES))
    net = made("attentive_nas")
    nas_kd.load_supernet(net, stored(tmp_path / "file", {f"module.{name}": value for name, value in tensors.items()}))
    assert torch.equal(net.stem.conv.weight, tensors["first_conv.conv.conv.weight"])


def refusal(net: Supernet, path: Path, **settings: Any) -> SettingError:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(SettingError) as error:
        nas_kd.load_supernet(net, path, **settings)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    return error.value


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "ofa_mobilenet_v3" else [pytest.mark.slow]) for name in FILES]
)
def test_what_does_not_fit_is_named_with_the_nearest_on_both_sides(name: str, tmp_path: Path) -> None:
    tensors = numbered(FILES[name](classes=CLASSES))
    gone = next(key for key in tensors if key.startswith("blocks.3.") and key.endswith("conv.conv.weight"))
    other = gone.replace("blocks.3.", "blocks.77.")
    tensors[other] = tensors.pop(gone)
    error = refusal(made(name), stored(tmp_path / "file", tensors))
    assert error.field == "supernet.checkpoint"
    assert f"({gone})" in error.expected and f"nearest in it: {other}" in error.expected
    assert f"no place for its {other}" in error.expected and f"nearest expected: {gone}" in error.expected

    tensors[gone] = tensors.pop(other)[:-1]
    shapes = f"{gone} has shape {tuple(tensors[gone].shape)} instead of "
    assert shapes in refusal(made(name), stored(tmp_path / "file", tensors)).expected

    del tensors[gone]
    near = refusal(made(name), stored(tmp_path / "file", tensors)).expected.partition("nearest in it: ")[2]
    assert len(near.split(", ")) == 3 and set(near.split(", ")) <= set(tensors)


def test_another_space_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "file", numbered(FILES["ofa_resnet50d"](classes=CLASSES)))
    for net in (made("ofa_mobilenet_v3"), made("attentive_nas"), Supernet(BASIC, CLASSES)):
        error = refusal(net, path)
        assert net.space.name in error.expected and "names of OFA" in error.expected and "space" in error.hint


def test_matrices_of_kernels_are_a_setting(tmp_path: Path) -> None:
    path = stored(tmp_path / "with", numbered(FILES["ofa_mobilenet_v3"](classes=CLASSES)))
    space = nas_kd.load_space("ofa_mobilenet_v3")
    error = refusal(Supernet(space, CLASSES), path)
    assert (error.field, error.value) == ("supernet.kernel_transform", False)
    save_weights(Supernet(space, CLASSES), tmp_path / "without.safetensors")
    error = refusal(Supernet(space, CLASSES, kernel_transform=True), tmp_path / "without.safetensors")
    assert (error.field, error.value) == ("supernet.kernel_transform", True)


@published
def test_other_classes_need_a_new_classifier(name: str, tmp_path: Path) -> None:
    tensors = numbered(FILES[name](classes=1000))
    path = stored(tmp_path / "file", tensors)
    net = made(name)
    error = refusal(net, path)
    assert "it has 1000" in error.expected and "supernet.epochs" in error.hint
    classifier = net.head.fc.weight.clone(), net.head.fc.bias.clone()
    nas_kd.load_supernet(net, path, new_classifier=True)
    assert torch.equal(net.head.fc.weight, classifier[0]) and torch.equal(net.head.fc.bias, classifier[1])
    first = "input_stem.0.bn.bn.bias" if name == "ofa_resnet50d" else "first_conv.bn.bias"
    loaded = net.stem.bn1.bias if name == "ofa_resnet50d" else net.stem.bn.bias
    assert torch.equal(loaded, tensors[first.replace(".bn.", ".bn.bn.") if name == "attentive_nas" else first])


# ---- of nas_kd itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [BASIC, MOBILE], ids=lambda s: s.name)
def test_own_weights(space: ElasticSpace, tmp_path: Path) -> None:
    net = Supernet(space, CLASSES, 1, seed=1)
    save_weights(net, tmp_path / "net.safetensors")
    other = nas_kd.load_supernet(Supernet(space, CLASSES, 1, seed=2), tmp_path / "net.safetensors")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_student_that_has_every_tensor_fits(tmp_path: Path) -> None:
    net = Supernet(MOBILE, CLASSES, 1, seed=1)  # the shortcuts of other widths are in no student of BASIC
    nas_kd.save_student(net.extract(MOBILE.largest()), tmp_path / "student")
    other = nas_kd.load_supernet(Supernet(MOBILE, CLASSES, 1, seed=2), tmp_path / "student")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_smaller_student_does_not_fit(tmp_path: Path) -> None:
    net = Supernet(BASIC, CLASSES, 1)
    nas_kd.save_student(net.extract(BASIC.smallest()), tmp_path / "student")
    assert refusal(net, tmp_path / "student").field == "supernet.checkpoint"


def test_images_are_normalised_as_a_student_was_fed(data: Data, tmp_path: Path) -> None:
    net = Supernet(MOBILE, CLASSES, 1, seed=1)
    mean, std = (0.25,), (0.5,)
    nas_kd.save_student(net.extract(MOBILE.largest()), tmp_path / "student", info={"mean": mean, "std": std})
    settings: dict[str, Any] = {"epochs": 0, "checkpoint": str(tmp_path / "student")}
    with pytest.raises(SettingError, match=r"^data\.mean=.*mean \(0\.25,\), std \(0\.5,\)"):
        train_supernet(Supernet(MOBILE, CLASSES, 1), data, **settings)
    train_supernet(Supernet(MOBILE, CLASSES, 1), data.normalised(mean, std), **settings)


@published
def test_images_of_published_weights_are_imagenets(name: str, tmp_path: Path) -> None:
    path = stored(tmp_path / "file", numbered(FILES[name](classes=CLASSES)))
    assert normalisation_of(path) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_other_files_say_nothing_of_images(begun: Path) -> None:
    assert normalisation_of(begun) is None


@pytest.mark.parametrize("name", ["absent", "empty", "text.pt", "text.safetensors"])
def test_what_is_no_file_of_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif name != "absent":
        path.write_text("no weights")
    assert refusal(Supernet(BASIC, CLASSES, 1), path).field == "supernet.checkpoint"


# ---- trained from there, or used as it is --------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    path = tmp_path / "begun.safetensors"
    save_weights(Supernet(BASIC, CLASSES, 1, seed=7), path)
    return path


def test_no_epochs_use_it_as_it_is(begun: Path, data: Data, tmp_path: Path) -> None:
    there = Supernet(BASIC, CLASSES, 1, seed=7).state_dict()
    for run in (None, tmp_path / "run", tmp_path / "run"):  # the last finds it done
        net = Supernet(BASIC, CLASSES, 1)
        train_supernet(net, data, run=run, epochs=0, checkpoint=str(begun))
        assert all(torch.equal(value, there[name]) for name, value in net.state_dict().items())
    assert nas_kd.Run(tmp_path / "run").path.joinpath("supernet", "weights.safetensors").exists()


@pytest.mark.parametrize("rule", ["shrinking", "bestup", "fair"])
def test_no_epochs_need_no_rule(rule: str, begun: Path, data: Data) -> None:
    net = train_supernet(Supernet(BASIC, CLASSES, 1), data, epochs=0, rule=rule, checkpoint=str(begun))
    assert torch.equal(net.stem.conv.weight, Supernet(BASIC, CLASSES, 1, seed=7).stem.conv.weight)


def test_epochs_begin_there(begun: Path, data: Data) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 50, "seed": 3}
    loaded = train_supernet(Supernet(BASIC, CLASSES, 1), data, checkpoint=str(begun), **settings)
    direct = train_supernet(Supernet(BASIC, CLASSES, 1, seed=7), data, **settings)
    assert all(torch.equal(value, direct.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_changed_file_is_refused_and_a_moved_one_is_not(begun: Path, data: Data, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"run": tmp_path / "run", "epochs": 0}
    train_supernet(Supernet(BASIC, CLASSES, 1), data, checkpoint=str(begun), **settings)
    moved = begun.rename(tmp_path / "moved.safetensors")
    train_supernet(Supernet(BASIC, CLASSES, 1), data, checkpoint=str(moved), **settings)
    save_weights(Supernet(BASIC, CLASSES, 1, seed=8), moved)
    with pytest.raises(SettingError, match=r"supernet\.checkpoint"):
        train_supernet(Supernet(BASIC, CLASSES, 1), data, checkpoint=str(moved), **settings)
    with pytest.raises(SettingError, match=r"supernet\.checkpoint"):
        train_supernet(Supernet(BASIC, CLASSES, 1), data, run=tmp_path / "run", epochs=1)


def test_no_epochs_without_weights_are_refused() -> None:
    with pytest.raises(SettingError, match=r"^supernet\.epochs=0: expected an integer of at least 1 without"):
        nas_kd.SupernetConfig(epochs=0)


def test_half_precision_becomes_that_of_the_supernet(tmp_path: Path) -> None:
    net = Supernet(BASIC, CLASSES, 1, seed=1)
    save_file({name: value.half() for name, value in net.state_dict().items()}, tmp_path / "half.safetensors")
    other = nas_kd.load_supernet(Supernet(BASIC, CLASSES, 1, seed=2), tmp_path / "half.safetensors")
    for name, value in other.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, net.state_dict()[name].half().float())
