"""Ready-made rivals: their weights are fed images as they were trained on, in training and from the student folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import nas_kd
from nas_kd.data.config import DataConfig
from nas_kd.export.handover import factory_of
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.given import Given
from nas_kd.pipeline.ready_made import ready_made
from nas_kd.searcher.config import SearchConfig
from nas_kd.teacher import save_weights
from nas_kd.teacher.renormalised import Renormalised
from nas_kd.train.teacher_config import TeacherConfig

NAME = "mobilenetv3_small_050"


@pytest.fixture
def given() -> Given:
    data = DataConfig(subset=300, rate=0.2, select=0.2)
    teacher = TeacherConfig(model="cifar_resnet14")
    return Given(Config(data=data, teacher=teacher, search=SearchConfig(max_macs="1000M")))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=10, in_chans=1).eval()


def test_trained_weights_are_fed_what_they_were_trained_on(given: Given, model: nn.Module, tmp_path: Path) -> None:
    mean, std = (0.25,), (0.5,)
    save_weights(model, tmp_path / "own.safetensors", mean=mean, std=std)
    rival = ready_made(given, f"{NAME}={tmp_path / 'own.safetensors'}")
    network = rival.make(0).eval()
    assert isinstance(network, Renormalised)
    x = next(iter(given.data.test.clean(32))).x
    theirs = next(iter(given.data.normalised(mean, std).test.clean(32))).x
    assert not torch.allclose(x, theirs, atol=0.1)
    with torch.no_grad():
        want = model(theirs)
        assert torch.allclose(network(x), want, atol=1e-4 * float(want.abs().max()))
        assert not torch.allclose(model(x), want, atol=1e-2 * float(want.abs().max()))  # it would have been wrong
    factory, arguments = factory_of(network, given.data, None, None, needed=True)
    info = {"factory": factory, "factory_kwargs": dict(arguments or {})}
    loaded = nas_kd.load_student(nas_kd.save_student(network, tmp_path / "student", info=info))
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


def test_others_stay_plain_models(given: Given, model: nn.Module, tmp_path: Path) -> None:
    own = given.data.mean, given.data.std
    save_weights(model, tmp_path / "same.safetensors", mean=own[0], std=own[1])
    save_weights(model, tmp_path / "unknown.safetensors")  # timm's is of three channels
    for text in (NAME, f"{NAME}={tmp_path / 'same.safetensors'}", f"{NAME}={tmp_path / 'unknown.safetensors'}"):
        assert type(ready_made(given, text).make(0)) is type(model)
