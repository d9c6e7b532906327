"""A fine-tuning begins where the pretrained weights are: its classifier, its norms, its rates, its normalisation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from nas_kd.data import Data, load_data
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import cifar_resnet8, save_weights
from nas_kd.teacher.build import Built, build
from nas_kd.teacher.linear import STRENGTHS, linear_probe, logistic
from nas_kd.train import pretrained as begun
from nas_kd.train import train_teacher
from nas_kd.train.network import predict
from nas_kd.train.pretrained import begin_heads, kept_norms
from nas_kd.train.teacher_config import TeacherConfig


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", subset=400, rate=0.2, select=0.2, views=0)


@pytest.fixture(scope="module")
def checkpoint(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 12 classes, with norms that were measured on other images."""
    torch.manual_seed(0)
    net = cifar_resnet8(12, in_chans=1).train()
    for _ in range(30):
        net(torch.randn(16, 1, 8, 8) * 0.7 + 0.2)
    path = tmp_path_factory.mktemp("pretrained") / "x.safetensors"
    save_weights(net, path, mean=[0.25], std=[0.4])
    return path


def built(checkpoint: Path) -> Built:
    return build("cifar_resnet8", checkpoint=checkpoint, num_classes=10, in_chans=1, new_head=True)


def losses(net: nn.Module, data: Data) -> float:
    return float(F.cross_entropy(predict(net, data.train, Runtime("cpu")), data.train.labels))


def test_a_new_classifier_answers_chance_and_then_what_regression_knows(checkpoint: Path, data: Data) -> None:
    made = built(checkpoint)
    assert made.heads == ("linear",) and made.trained
    assert losses(made.module, data) == pytest.approx(math.log(10), abs=1e-5)
    said = begin_heads(made.module, made.heads, data, Runtime("cpu"))
    assert f"features of {len(data.train)} images" in said
    features = made.module.linear.in_features  # type: ignore[union-attr]
    assert features == 64 and losses(made.module, data) < 0.6 * math.log(10)


def test_it_is_scikit_learns_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    features = torch.randn(120, 5, generator=generator) + labels[:, None] * torch.tensor([2.0, 0, 0, -1, 0]) + 7
    found = logistic(features, labels, 4)
    x = features.double().numpy()
    scale = np.sqrt((x - x.mean(0)).var())
    y = labels.numpy()
    answers = [
        LogisticRegression(C=strength / 120, max_iter=500)
        .fit((x - x.mean(0)) / scale, y)
        .predict_proba((x - x.mean(0)) / scale)
        for strength in STRENGTHS
    ]
    ours = (features @ found.weight.T + found.bias).softmax(1).numpy()
    assert min(np.abs(ours[:, :3] - answer).max() for answer in answers) < 1e-3
    assert ours[:, 3].max() < 0.01  # a class without images
    assert linear_probe(features, labels).double().mean() > 0.6  # the best possible is 0.82, one deviation 0.035


def test_two_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    features = torch.randn(60, 3, generator=generator) + 3 * labels[:, None]
    found = logistic(features, labels, 2)
    assert found.weight.shape == (2, 3)
    answers = (features @ found.weight.T + found.bias).argmax(1)
    assert (answers == labels).double().mean() > 0.95


@pytest.mark.parametrize("bound", ["IMAGES", "WORK"])
def test_too_many_images_or_classes_leave_it_at_chance(
    bound: str, checkpoint: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begun, bound, 25)
    made = built(checkpoint)
    assert "weights of 0" in begin_heads(made.module, made.heads, data, Runtime("cpu"))
    assert losses(made.module, data) == pytest.approx(math.log(10), abs=1e-5)


def test_a_subset_is_enough(checkpoint: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begun, "IMAGES", 100)
    made = built(checkpoint)
    assert "features of 100 images" in begin_heads(made.module, made.heads, data, Runtime("cpu"))


class Convolutional(nn.Module):
    """Its classifier is a 1x1 convolution before the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu()).mean((2, 3))


def test_a_convolution_as_the_classifier(data: Data) -> None:
    torch.manual_seed(0)
    net = Convolutional()
    begin_heads(net, ["head"], data, Runtime("cpu"))
    assert losses(net, data) < 0.8 * math.log(10)


def test_norms_keep_their_statistics(checkpoint: Path, data: Data) -> None:
    net = built(checkpoint).module
    before = {name: tensor.clone() for name, tensor in net.state_dict().items() if "running" in name}
    x = torch.randn(8, 1, 8, 8)
    with kept_norms(net):
        net.train()
        inside = net(x)
    net.eval()
    torch.testing.assert_close(inside, net(x))
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    net.train()
    net(x)  # the end of it
    assert not all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_defaults_of_new_and_of_pretrained_weights() -> None:
    def of(config: TeacherConfig, pretrained: bool) -> tuple[Any, ...]:
        made = config.settled(pretrained=pretrained)
        return made.optimizer, made.lr, made.warmup_epochs, made.freeze_norms

    assert of(TeacherConfig(), False) == ("sgd", 0.05, 1.0, False)
    assert of(TeacherConfig(), True) == ("adamw", 3e-4, 0.1, True)
    assert of(TeacherConfig(optimizer="sgd"), True) == ("sgd", 1e-3, 0.1, True)
    given = TeacherConfig(optimizer="lamb", lr=0.2, warmup_epochs=0.0, freeze_norms=False)
    assert of(given, True) == of(given, False) == ("lamb", 0.2, 0.0, False)


def test_fine_tuning(checkpoint: Path, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the weights' own normalisation; a resumed run gives the same teacher."""
    settings: dict[str, Any] = {"checkpoint": checkpoint, "epochs": 1, "batch_size": 32, "run": tmp_path / "run"}
    teacher = train_teacher("cifar_resnet8", data, **settings)
    said = capsys.readouterr().err
    assert "12 classes, the data 10" in said and "logistic regression" in said
    assert (teacher.mean, teacher.std) == ((0.25,), (0.4,))
    start = built(checkpoint).module.state_dict()
    for name, tensor in teacher.network.state_dict().items():
        if "running" in name:
            assert torch.equal(tensor, start[name])
    logits = teacher.split_logits("rate", data)
    assert logits is not None and (logits.argmax(1) == data.rate.labels).double().mean() > 0.5
    again = train_teacher("cifar_resnet8", data, **settings)
    assert again.fingerprint == teacher.fingerprint
