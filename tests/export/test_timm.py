"""Students as timm models: the methods, features as a backbone, another classifier, folders that timm opens."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
import yaml
from export_students import student
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

import nas_kd
import nas_kd.export.timm
from nas_kd.errors import SettingError

KINDS = ("resnet_cifar", "cifar_resnet8", "resnet18", "vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("students")
    return {kind: nas_kd.save_student(student(kind), top / kind) for kind in KINDS}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_a_timm_model(kind: str, folders: dict[str, Path], x: Tensor) -> None:
    network = student(kind)
    model = timm.create_model("nas_kd_student", checkpoint_path=str(folders[kind])).eval()
    wanted = network(x)
    torch.testing.assert_close(model(x), wanted)
    features = model.forward_features(x)
    assert model.num_features == (features.shape[1] if features.ndim == 4 else features.shape[2])
    torch.testing.assert_close(model.forward_head(features), wanted)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (3, model.head_hidden_size)
    classifier = model.get_classifier()
    torch.testing.assert_close(classifier(pooled), wanted)
    assert model.default_cfg == model.pretrained_cfg
    assert model.pretrained_cfg["mean"] == (0.4, 0.5, 0.6) and model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert timm.data.resolve_model_data_config(model)["std"] == (0.2, 0.25, 0.3)
    assert model.num_classes == model.pretrained_cfg["num_classes"] == 4
    assert model.get_submodule(model.pretrained_cfg["classifier"]) is classifier
    model.reset_classifier(7)
    assert model(x).shape == (3, 7) and model.num_classes == 7
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_the_rates_that_the_student_itself_gives_them(kind: str, folders: dict[str, Path]) -> None:
    """timm's layer decay finds parameters by patterns of their names, and they have another one here."""
    model = timm.create_model("nas_kd_student", checkpoint_path=folders[kind])
    itself = timm.create_model("nas_kd_student", student=folders[kind])
    assert type(itself) is type(model.student)

    def rates(module: nn.Module) -> list[tuple[float, float, int]]:
        groups = param_groups_layer_decay(module, weight_decay=0.1, layer_decay=0.5)
        return sorted((g["lr_scale"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in groups)

    assert len({rate for rate, *_ in rates(model)}) > 2
    assert rates(model) == rates(itself)


@torch.no_grad()
def test_a_copy_of_a_student_is_its_own(folders: dict[str, Path], x: Tensor) -> None:
    model = timm.create_model("nas_kd_student", checkpoint_path=folders["resnet18"])
    copy = deepcopy(model)
    model.reset_classifier(7)
    assert model(x).shape == (3, 7) and copy(x).shape == (3, 4) and copy.num_classes == 4


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_a_backbone(kind: str, folders: dict[str, Path], x: Tensor) -> None:
    """The sizes said are those of the maps; the cut network's, not those of its class."""
    net = timm.create_model("nas_kd_student", checkpoint_path=folders[kind], features_only=True).eval()
    maps = net(x)
    assert [one.shape[1] for one in maps] == net.feature_info.channels()
    assert all(one.ndim == 4 for one in maps)
    if kind != "vit_tiny_patch16_224":
        assert [32 // one.shape[2] for one in maps] == net.feature_info.reduction()
    last = timm.create_model("nas_kd_student", checkpoint_path=folders[kind], features_only=True, out_indices=(-1,))
    torch.testing.assert_close(last.eval()(x)[0], maps[-1])
    head = nn.Conv2d(net.feature_info.channels()[-1], 5, 1)
    assert head(maps[-1]).shape[:2] == (3, 5)


@torch.no_grad()
def test_the_stages_of_a_student_are_its_features(x: Tensor, folders: dict[str, Path]) -> None:
    net = timm.create_model("nas_kd_student", checkpoint_path=folders["resnet_cifar"], features_only=True).eval()
    for found, wanted in zip(net(x), student("resnet_cifar").forward_stages(x).stages, strict=True):  # type: ignore[operator]
        torch.testing.assert_close(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("to", ["timm", "hf"])
@pytest.mark.parametrize("kind", KINDS)
def test_timm_opens_the_folder(kind: str, to: str, tmp_path: Path, x: Tensor) -> None:
    made = nas_kd.export(student(kind), to, tmp_path / "f")
    model = timm.create_model(f"local-dir:{made.path}", pretrained=True).eval()
    torch.testing.assert_close(model(x), student(kind)(x))
    other = timm.create_model(f"local-dir:{made.path}", pretrained=True, num_classes=6).eval()
    torch.testing.assert_close(other.forward_features(x), model.forward_features(x))
    assert other(x).shape == (3, 6)
    names = {path.name for path in made.path.iterdir()}
    assert names == {"config.json", "model.safetensors"} | (
        {"README.md", "preprocessor_config.json"} if to == "hf" else set()
    )
    if to == "hf":
        header = yaml.safe_load((made.path / "README.md").read_text().split("---")[1])
        assert header["library_name"] == "timm" and header["pipeline_tag"] == "image-classification"
        assert header["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.5}]
        said = json.loads((made.path / "preprocessor_config.json").read_text())
        assert said["image_mean"] == [0.4, 0.5, 0.6] and said["size"] == {"height": 32, "width": 32}


def test_a_second_export_replaces_the_folder_and_others_stay(tmp_path: Path) -> None:
    made = nas_kd.export(student("resnet_cifar"), "hf", tmp_path / "f")
    nas_kd.export(student("resnet_cifar"), "timm", tmp_path / "f")
    assert not (made.path / "README.md").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    for place in (tmp_path / "photos", nas_kd.save_student(student("resnet_cifar"), tmp_path / "s")):
        with pytest.raises(SettingError, match="path="):
            nas_kd.export(student("resnet_cifar"), "timm", place)


def test_mistakes_say_what_is_missing(tmp_path: Path, folders: dict[str, Path], x: Tensor) -> None:
    with pytest.raises(SettingError, match="checkpoint_path=None: expected the folder of a student"):
        timm.create_model("nas_kd_student")(x)
    with pytest.raises(SettingError, match="student="):
        timm.create_model("nas_kd_student", checkpoint_path=tmp_path / "nowhere")
    with pytest.raises(SettingError, match="in_chans=1"):
        timm.create_model("nas_kd_student", checkpoint_path=folders["resnet18"], in_chans=1)
    with pytest.raises(SettingError, match="softmax=True: expected false for timm"):
        nas_kd.export(student("resnet_cifar"), "timm", tmp_path / "f", softmax=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    network.info = {"in_chans": 3, "resolution": 2, "num_classes": 3}  # type: ignore[assignment]
    with pytest.raises(SettingError, match="student='Sequential': expected a network of a space or of timm"):
        nas_kd.export(network, "timm", tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_other_checkpoints_are_loaded_as_before(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=3)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    again = timm.create_model("resnet10t", num_classes=3, checkpoint_path=tmp_path / "w.pt")
    assert torch.equal(again.get_classifier().weight, net.get_classifier().weight)
