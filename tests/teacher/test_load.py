"""What can be loaded, what is refused and how, and that a teacher stays as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.export import save_student
from nas_kd.teacher import CifarResNet, build_model, cifar_resnet8, load_teacher, save_weights
from nas_kd.teacher.weights import read_weights

sys.path.insert(0, str(Path(__file__).parent))


def fake_data(**changes: Any) -> Any:
    facts = {
        "num_classes": 10,
        "in_chans": 3,
        "resolution": 8,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "tokens": None,
    }
    return SimpleNamespace(**(facts | changes))


def saved(net: nn.Module, folder: Path, wrap: str | None = None, prefix: str = "") -> Path:
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, folder / "net.pt")
    return folder / "net.pt"


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_checkpoints_of_training_scripts(tmp_path: Path, wrap: str | None, prefix: str) -> None:
    net = cifar_resnet8(num_classes=7).eval()
    teacher = load_teacher("cifar_resnet8", checkpoint=saved(net, tmp_path, wrap, prefix))
    x = torch.randn(2, 3, 8, 8)
    assert teacher.num_classes == 7  # taken from the checkpoint
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), net(x))


def test_averaged_weights_come_first(tmp_path: Path) -> None:
    plain, averaged = cifar_resnet8().state_dict(), cifar_resnet8().state_dict()
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "both.pt")
    weights, _ = read_weights(tmp_path / "both.pt")
    assert torch.equal(weights["linear.weight"], averaged["linear.weight"])


def test_saved_weights_bring_their_normalisation(tmp_path: Path) -> None:
    net = cifar_resnet8(in_chans=1)
    save_weights(net, tmp_path / "w.safetensors", mean=[0.3], std=[0.4], model="cifar_resnet8")
    teacher = load_teacher("cifar_resnet8", checkpoint=tmp_path / "w.safetensors", in_chans=1)
    assert (teacher.mean, teacher.std) == ((0.3,), (0.4,))
    given = load_teacher("cifar_resnet8", checkpoint=tmp_path / "w.safetensors", in_chans=1, mean=[0.1], std=[1])
    assert given.mean == (0.1,)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1/0",)


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="teacher.checkpoint.*existing file"):
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "absent.safetensors")
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(SettingError, match="weights only.*state_dict"):
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "evil.pt")
    torch.save(cifar_resnet8(), tmp_path / "module.pt")
    with pytest.raises(SettingError, match="weights only"):
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "module.pt")
    for name in ("noise.pt", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(SettingError, match="teacher.checkpoint"):
            load_teacher("cifar_resnet8", checkpoint=tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "nothing.pt")
    with pytest.raises(SettingError, match="a state dict"):
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "nothing.pt")


def test_another_architecture_is_noticed(tmp_path: Path) -> None:
    deeper = saved(CifarResNet(14), tmp_path)
    with pytest.raises(SettingError, match=r"it has layer1.1.conv1.weight \(16, 16, 3, 3\) and"):
        load_teacher("cifar_resnet8", checkpoint=deeper)
    shallower = saved(cifar_resnet8(), tmp_path)
    with pytest.raises(SettingError, match=r"it lacks layer1.1.conv1.weight \(16, 16, 3, 3\) and"):
        load_teacher("cifar_resnet14", checkpoint=shallower)
    with pytest.raises(SettingError, match=r"conv1.weight has shape \(16, 3, 3, 3\) instead of \(16, 4, 3, 3\)"):
        load_teacher("cifar_resnet8", checkpoint=shallower, in_chans=4)
    with pytest.raises(SettingError, match="teacher.num_classes=12.*10, the number of classes of the checkpoint"):
        load_teacher("cifar_resnet8", checkpoint=shallower, num_classes=12)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(SettingError, match="did you mean 'resnet18'"):
        load_teacher("resnet81")
    with pytest.raises(SettingError, match="did you mean 'cifar_resnet56'"):
        load_teacher("cifar_resnet_56")
    with pytest.raises(SettingError, match="check the path"):
        load_teacher("runs/none/student")
    with pytest.raises(SettingError, match="did you mean 'net'"):
        load_teacher("teacher_nets:nett")
    with pytest.raises(SettingError, match="can be imported"):
        load_teacher("no_such_package:net")
    with pytest.raises(SettingError, match="returns an nn.Module"):
        load_teacher("teacher_nets:no_module")


def test_downloads_that_fail_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args: Any, **kwargs: Any) -> nn.Module:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(SettingError, match="no connection.*set teacher.checkpoint"):
        load_teacher("resnet18", pretrained=True)
    with pytest.raises(SettingError, match="use teacher.checkpoint"):
        load_teacher("cifar_resnet8", pretrained=True)
    with pytest.raises(SettingError, match="omit teacher.pretrained"):
        load_teacher("resnet18", pretrained=True, checkpoint="x.pt")


def test_factories_get_what_they_accept() -> None:
    assert load_teacher("teacher_nets:net", num_classes=6, in_chans=1).bind(
        fake_data(num_classes=6, in_chans=1, mean=(0.5,), std=(0.5,))
    )
    assert load_teacher("teacher_nets:plain", num_classes=9).bind(fake_data(num_classes=9)).num_classes == 9
    assert load_teacher("teacher_nets:fixed").bind(fake_data(num_classes=4)).num_classes == 4
    with pytest.raises(SettingError, match="teacher.num_classes=4.*10, the number of classes of the data"):
        load_teacher("teacher_nets:fixed", num_classes=10).bind(fake_data())


def test_timm_models_take_classes_channels_and_size() -> None:
    teacher = load_teacher("mobilenetv3_small_050", num_classes=3, in_chans=1)
    assert teacher(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert teacher.mean is None  # random weights expect no normalisation
    assert load_teacher("vit_tiny_patch16_224", num_classes=3, resolution=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_timm_checkpoint_tells_classes_and_uses_timms_normalisation(tmp_path: Path) -> None:
    net = timm.create_model("mobilenetv3_small_050", num_classes=3)
    teacher = load_teacher("mobilenetv3_small_050", checkpoint=saved(net, tmp_path))
    assert teacher.num_classes == 3 and teacher.mean == (0.485, 0.456, 0.406)


def test_a_student_folder_teaches(tmp_path: Path) -> None:
    space = nas_kd.load_space("digits")
    student = space.build(space.smallest(), num_classes=10, in_chans=1).eval()
    save_student(student, tmp_path / "student", info={"mean": [0.3], "std": [0.4]})
    teacher = load_teacher(tmp_path / "student")
    assert (teacher.num_classes, teacher.in_chans, teacher.mean) == (10, 1, (0.3,))
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), student(x))
    assert len(teacher.match(space, 8)) == len(space.stage_sizes(8))
    (tmp_path / "student").rename(tmp_path / "moved")
    assert load_teacher(str(tmp_path / "moved")).fingerprint == teacher.fingerprint
    with pytest.raises(SettingError, match="student folder, which holds arch.json"):
        load_teacher(tmp_path)


def test_sealed() -> None:
    net = cifar_resnet8()
    teacher = load_teacher(net, name="mine")
    assert net.training and all(p.requires_grad for p in net.parameters())  # the caller's stays his
    assert teacher.name == "mine" and not isinstance(teacher, nn.Module)

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.teacher = nn.Linear(2, 2), teacher

    student = Student()
    assert list(student.state_dict()) == ["layer.weight", "layer.bias"]
    assert len(list(student.parameters())) == 2
    assert teacher.train() is teacher
    student.train()
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    before = {name: tensor.clone() for name, tensor in teacher._module.state_dict().items()}
    logits = teacher(x)
    assert not logits.requires_grad and not teacher._module.training
    assert not any(p.requires_grad for p in teacher._module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher._module.state_dict().items())
    assert not hasattr(teacher, "state_dict") and not hasattr(teacher, "parameters")


def test_bind_translates_the_normalisation() -> None:
    net = cifar_resnet8().eval()
    data = fake_data()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    teacher = load_teacher(net, mean=mean, std=std).bind(data)
    pixels = torch.rand(4, 3, 8, 8)

    def normalised(m: tuple[float, ...], s: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(m).view(1, 3, 1, 1)) / torch.tensor(s).view(1, 3, 1, 1)

    with torch.no_grad():
        expected = net(normalised(mean, std))
    torch.testing.assert_close(teacher(normalised(data.mean, data.std)), expected, atol=1e-4, rtol=1e-4)
    same = load_teacher(net, mean=data.mean, std=data.std).bind(data)
    assert same._affine is None
    assert load_teacher(net).bind(data)._affine is None


def test_bind_refuses_other_classes_and_channels() -> None:
    teacher = load_teacher("cifar_resnet8", num_classes=10)
    with pytest.raises(SettingError, match="teacher.num_classes=10.*100, the number of classes of the data"):
        teacher.bind(fake_data(num_classes=100))
    with pytest.raises(SettingError, match="teacher.in_chans=1.*3, as in the data"):
        load_teacher("cifar_resnet8", in_chans=1).bind(fake_data())
    counted = build_model("teacher_nets:fixed")
    counted.num_classes = 4  # type: ignore[assignment]
    with pytest.raises(SettingError, match="teacher.num_classes=10.*4, the number of classes of Net"):
        load_teacher(counted, num_classes=10)


def test_normalisation_needs_both_and_one_a_channel() -> None:
    with pytest.raises(SettingError, match="3 numbers"):
        load_teacher("cifar_resnet8", mean=[0.5], std=[0.5])
    with pytest.raises(SettingError, match="both or neither"):
        load_teacher("cifar_resnet8", mean=[0.5] * 3)
    with pytest.raises(SettingError, match="above 0"):
        load_teacher("cifar_resnet8", mean=[0.5] * 3, std=[0.5, 0.5, 0.0])


def test_the_fingerprint_is_of_name_weights_and_normalisation() -> None:
    net = cifar_resnet8()
    first = load_teacher(net).fingerprint
    assert load_teacher(net).fingerprint == first
    assert load_teacher(net, name="other").fingerprint != first
    assert load_teacher(net, mean=[0.5] * 3, std=[0.5] * 3).fingerprint != first
    with torch.no_grad():
        net.bn1.running_mean[0] += 1e-3  # type: ignore[index]
    assert load_teacher(net).fingerprint != first


def test_build_model_is_free_to_train(tmp_path: Path) -> None:
    net = build_model("cifar_resnet8", num_classes=5, checkpoint=saved(cifar_resnet8(5), tmp_path))
    assert all(p.requires_grad for p in net.parameters())
    assert build_model(net) is net


def test_fine_tuning_starts_from_all_but_a_classifier_of_other_classes(tmp_path: Path) -> None:

    old = build_model("cifar_resnet8", num_classes=100)
    save_weights(old, tmp_path / "old.safetensors")
    new = build_model("cifar_resnet8", checkpoint=tmp_path / "old.safetensors", num_classes=7)
    assert new.state_dict()["linear.weight"].shape == (7, 64)
    for name, tensor in new.state_dict().items():
        if not name.startswith("linear."):
            assert torch.equal(tensor, old.state_dict()[name]), name
    with pytest.raises(SettingError, match="num_classes"):  # without training it is another teacher
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "old.safetensors", num_classes=7)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv3_small_100"])
def test_macs_are_those_of_layers_with_weights(name: str) -> None:
    network = timm.create_model(name, num_classes=10)
    teacher = nas_kd.load_teacher(network, num_classes=10)
    macs = 0

    def count(module: Any, args: Any, out: torch.Tensor) -> None:
        nonlocal macs
        channels = 1 if isinstance(module, nn.Conv2d) else -1
        macs += out.numel() // out.shape[channels] * module.weight.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 224, 224))
    assert teacher.bind(fake_data(resolution=224)).macs == macs
    if name.startswith("vit"):  # so shares are of the same whole, whether or not the space is the teacher
        space = nas_kd.teacher_space(teacher, resolution=224)
        assert space.cost(space.largest(), num_classes=10)._asdict() == {"macs": macs, "params": teacher.params}
