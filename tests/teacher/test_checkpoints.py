"""Checkpoints as people have them: which weights are found in a file, and what is said of those that cannot be."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.teacher import build_model, cifar_resnet8, load_teacher
from nas_kd.teacher.build import build
from nas_kd.teacher.weights import read_weights

State = dict[str, Tensor]
CLASSES = 5


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other() -> State:
    """The weights of another training."""
    return {name: t * 2 + 1 if t.is_floating_point() else t for name, t in cifar_resnet8(CLASSES).state_dict().items()}


def lightning(state: State) -> Any:
    rest = {"criterion.weight": torch.ones(CLASSES), "metric.total": torch.tensor(3)}
    return {"state_dict": {**under("net.", state), **rest}, "epoch": 3, "hyper_parameters": {"lr": 0.1}}


def mmpretrain(state: State) -> Any:
    named = {("head." if name.startswith("linear") else "backbone.") + name: tensor for name, tensor in state.items()}
    return {"state_dict": named, "meta": {"epoch": 3}}


def optimised(state: State) -> Any:
    """Adam's state, which holds as many tensors as the network, twice."""
    moments = {at: {"exp_avg": t.clone(), "exp_avg_sq": t.clone()} for at, t in enumerate(state.values())}
    return {"optimizer_state_dict": {"state": moments, "param_groups": [{"lr": 0.1}]}, "model_state_dict": state}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: under("module.", state),
    "compiled": lambda state: under("_orig_mod.", state),
    "compile(DDP)": lambda state: under("_orig_mod.module.", state),
    "DDP(compile)": lambda state: under("module._orig_mod.", state),
    "compiled inside": lambda state: {name.replace("layer1.", "layer1._orig_mod."): t for name, t in state.items()},
    "Lightning model.": lambda state: {"state_dict": under("model.", state), "pytorch-lightning_version": "2.4"},
    "Lightning net. and a loss": lightning,
    "mmpretrain": mmpretrain,
    "AveragedModel": lambda state: {**under("module.", state), "n_averaged": torch.tensor(10)},
    "thop": lambda state: {**state, "total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1)},
    "half": lambda state: {name: t.half() if t.is_floating_point() else t for name, t in state.items()},
    "no counters": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
    "with optimiser": optimised,
    "timm train.py": lambda state: {"arch": "x", "args": argparse.Namespace(lr=0.1, s=[1]), "state_dict": state},
    "timm with EMA": lambda state: {"state_dict": other(), "state_dict_ema": state},
    "EMA before": lambda state: {"ema": state, "net": other()},
    "params_ema": lambda state: {"params": other(), "params_ema": state},
    "EMA beside": lambda state: {**under("net.", other()), **under("ema_net.", state)},
    "deep": lambda state: {"checkpoint": {"latest": {"whatever": under("a.b.c.", state)}}},
    "layers as dictionaries": lambda state: {"net": nested(state)},
    "numbers of numpy": lambda state: {"state_dict": state, "best": np.float64(93.2)},
}
for nest in (
    "net",
    "model",
    "model_state_dict",
    "state_dict",
    "state_dict_ema",
    "weights",
    "module",
    "params",
    "zebra",
):
    FORMS[f"nested {nest}"] = lambda state, nest=nest: {nest: state, "acc": 93.1}  # type: ignore[misc]


def nested(state: State) -> Any:
    made: dict[str, Any] = {}
    for name, tensor in state.items():
        at = made
        *path, last = name.split(".")
        for part in path:
            at = at.setdefault(part, {})
        at[last] = tensor
    return made


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    return cifar_resnet8(CLASSES).eval()


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, trained: nn.Module, tmp_path: Path) -> None:
    torch.save(FORMS[form](dict(trained.state_dict())), tmp_path / "x.pt")
    teacher = load_teacher("cifar_resnet8", checkpoint=tmp_path / "x.pt")
    assert teacher.num_classes == CLASSES
    for name, tensor in teacher.network.state_dict().items():
        right = trained.state_dict()[name]
        assert torch.equal(tensor, right.half().float() if form == "half" and right.is_floating_point() else right)


def test_prefixes_in_safetensors_and_wrappers(trained: nn.Module, tmp_path: Path) -> None:
    save_file(under("module.model.", trained.state_dict()), tmp_path / "x.safetensors")
    loaded = load_teacher("cifar_resnet8", checkpoint=tmp_path / "x.safetensors").network
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in loaded.state_dict().items())

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = cifar_resnet8(CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    inner = load_teacher(Wrapped(), checkpoint=tmp_path / "x.safetensors").network.inner
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in inner.state_dict().items())


def test_left_over_entries_are_listed(trained: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(lightning(dict(trained.state_dict())), tmp_path / "x.pt")
    with caplog.at_level(logging.WARNING):
        load_teacher("cifar_resnet8", checkpoint=tmp_path / "x.pt")
    assert "those under state_dict: net." in caplog.text
    assert "2 entries are not of cifar_resnet8 and left out: criterion.weight, metric.total" in caplog.text


def message(content: Any, folder: Path, model: Any = "cifar_resnet8", **settings: Any) -> str:
    torch.save(content, folder / "x.pt")
    with pytest.raises(SettingError) as caught:
        load_teacher(model, checkpoint=folder / "x.pt", **settings)
    assert caught.value.field == "teacher.checkpoint"
    return str(caught.value)


def test_what_is_missing_is_named_on_both_sides(trained: nn.Module, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    state["stem.weight"] = state.pop("conv1.weight")
    state["classifier.weight"] = state.pop("linear.weight")
    said = message({"state_dict": under("model.", state)}, tmp_path)
    assert "it lacks conv1.weight (16, 3, 3, 3) and 1 more of" in said
    assert "stem.weight" in said and "classifier.weight" in said and "linear.weight" in said
    assert "cifar_resnet8.state_dict()" in said


def test_weights_are_never_mixed_from_two_networks(trained: nn.Module, tmp_path: Path) -> None:
    """What one of them lacks is not taken from the other, nor from a layer of its own of the same name and shape."""
    state = dict(trained.state_dict())
    del state["layer1.0.bn1.weight"]
    said = message({"state_dict": state, "other": {"layer1.0.bn1.weight": torch.ones(16)}}, tmp_path)
    assert "it lacks layer1.0.bn1.weight (16,) and 0 more" in said
    state = dict(trained.state_dict())
    del state["bn1.weight"]  # layer1.0.bn1.weight has its shape
    assert "it lacks bn1.weight (16,) and 0 more" in message(under("net.", state), tmp_path)


def test_a_refused_pickle_names_the_object_and_the_way_out(trained: nn.Module, tmp_path: Path) -> None:
    said = message(trained, tmp_path)
    assert "nas_kd.teacher.cifar_resnet.CifarResNet" in said and "torch.save(model.state_dict(), path)" in said
    said = message({"state_dict": trained.state_dict(), "config": SimpleNamespace(lr=0.1)}, tmp_path)
    assert "types.SimpleNamespace" in said and "teacher.model" not in said


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda t: torch.full_like(t, torch.nan), "NaN or infinity"),
        (lambda t: t.clone().index_fill_(0, torch.tensor([3]), torch.inf), "NaN or infinity"),
        (lambda t: t.to("meta"), "meta device"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to(torch.int8), "int8"),
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8"),
    ],
)
def test_tensors_that_are_no_weights(
    spoil: Callable[[Tensor], Tensor], word: str, trained: nn.Module, tmp_path: Path
) -> None:
    state = dict(trained.state_dict())
    state["layer1.0.conv1.weight"] = spoil(state["layer1.0.conv1.weight"])
    said = message(state, tmp_path)
    assert "usable weights of layer1.0.conv1.weight" in said and word in said


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors(trained: nn.Module, tmp_path: Path) -> None:
    odd = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert "usable weights of linear.bias" in message({**trained.state_dict(), "linear.bias": odd}, tmp_path)


def test_dictionaries_without_end(trained: nn.Module, tmp_path: Path) -> None:
    loop: dict[str, Any] = {"state_dict": dict(trained.state_dict())}
    loop["self"] = loop
    bush: Any = {"x": torch.zeros(1)}
    for _ in range(12):
        bush = {str(at): bush for at in range(12)}  # 12**12 names if each were followed
    loop["bush"] = bush
    torch.save(loop, tmp_path / "x.pt")
    assert load_teacher("cifar_resnet8", checkpoint=tmp_path / "x.pt").num_classes == CLASSES
    assert read_weights(tmp_path / "x.pt")[0].keys() == trained.state_dict().keys()


@pytest.mark.parametrize("model", ["cifar_resnet8", "mobilenetv3_small_050"])
def test_another_number_of_classes_gives_a_new_classifier_to_train(model: str, tmp_path: Path) -> None:
    old = build_model(model, num_classes=100)
    torch.save({"state_dict": under("model.", old.state_dict())}, tmp_path / "x.pt")
    built = build(model, checkpoint=tmp_path / "x.pt", num_classes=7, new_head=True)
    (head,) = built.heads
    assert built.trained and any("100 classes, the data 7" in note for note in built.notes)
    for name, tensor in built.module.state_dict().items():
        if name.startswith(head):
            assert len(tensor) == 7
        else:
            assert torch.equal(tensor, old.state_dict()[name]), name


def test_networks_of_the_user_take_the_classes_of_the_checkpoint(tmp_path: Path) -> None:
    torch.save(cifar_resnet8(23).state_dict(), tmp_path / "x.pt")
    made = load_teacher("nas_kd.teacher.cifar_resnet:cifar_resnet8", checkpoint=tmp_path / "x.pt")
    assert made.num_classes == 23


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_positions_are_resampled_as_timm_does(name: str, tmp_path: Path) -> None:
    old = timm.create_model(name, num_classes=3)
    with torch.no_grad():
        for key, tensor in old.named_parameters():
            if "pos_embed" in key or "bias_table" in key:
                tensor.normal_()
    torch.save({"state_dict": under("model.", old.state_dict())}, tmp_path / "x.pt")
    ours = load_teacher(name, checkpoint=tmp_path / "x.pt", resolution=64)
    torch.save(old.state_dict(), tmp_path / "y.pt")
    own = {"file": str(tmp_path / "y.pt"), "num_classes": 3, "custom_load": False}  # older ones took it for an .npz
    theirs = timm.create_model(name, pretrained=True, num_classes=3, img_size=64, pretrained_cfg_overlay=own)
    found = ours.network.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in theirs.state_dict().items())
