"""What cannot be taught is refused before the first step, by name and with the mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_net import Plain
from torch import nn

from nas_kd import load_data, load_teacher, retrain
from nas_kd.data import Data
from nas_kd.distill import Distiller
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.teacher import StoredFeatures, Teacher, ViewCache, cifar_resnet8

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 16, "warmup_epochs": 0.0, "test": False}


class Linear(nn.Module):
    """A network without feature maps."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


@pytest.fixture
def refused(data: Data, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def step(*rest: Any, **more: Any) -> None:
        raise AssertionError("a step was made")

    monkeypatch.setattr(Distiller, "step", step)

    def check(match: str, model: nn.Module, teacher: Any, of: Data = data, **settings: Any) -> None:
        with pytest.raises(SettingError, match=match):
            retrain(model, teacher, of, runtime=runtime, **SHORT | settings)

    return check


def images(classes: int = 3, count: int = 90, seed: int = 0, **settings: Any) -> Data:
    y = torch.arange(count) % classes
    x = torch.randint(0, 255, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return load_data((x, y), test=(x, y), **{"duplicates": "keep", "rate": 0.2, "select": 0.2, "views": 2} | settings)


def test_networks_of_other_classes_or_images(refused: Callable[..., None], teacher: Teacher) -> None:
    other = load_teacher(cifar_resnet8(num_classes=7, in_chans=1), in_chans=1)
    for given in (other, [other], [teacher, other]):
        method = "multi_teacher" if given == [teacher, other] else "kd"
        refused(r"teacher\.num_classes=7.*3, the number of classes of the data", Plain(), given, method=method)
    for method in ("ce", "kd", "sp", "byot"):
        wide = nn.Sequential(Plain(), nn.Linear(3, 5))
        refused(r"model=.*with 3 logits.*has 5.*num_classes", wide, teacher, method=method)
    refused(r"takes images 1 x 8 x 8", nn.Conv2d(3, 3, 3), teacher, method="kd")
    refused("sealed teacher.*load_teacher", Plain(), Plain(), method="kd")


def test_methods_that_need_stages(refused: Callable[..., None], teacher: Teacher) -> None:
    for method in ("at", "vid", "byot", "irg", "review"):
        refused("network with feature maps", Linear(), teacher, method=method)
    refused(
        r"fsp.*equal channels.*student \(\d+, \d+, \d+\), teacher \(\d+, \d+, \d+\)", Plain(), teacher, method="fsp"
    )


@pytest.mark.parametrize(
    ("method", "settings", "match"),
    [
        ("kd", {"temperature": 0}, r"kd\.temperature=0.*above 0"),
        ("dkd", {"temperature": -2.0}, r"dkd\.temperature=-2"),
        ("at", {"weight": -1}, r"at\.weight=-1"),
        ("ft", {"rate": 1e9}, r"ft\.rate"),
        ("dml", {"peers": 1}, "at least 2 networks"),
        ([("kd", -0.5)], {}, "kd=-0.5"),
        ("dkdd", {}, "did you mean 'dkd'"),
    ],
)
def test_settings_out_of_range(
    method: Any, settings: dict[str, Any], match: str, refused: Callable[..., None], teacher: Teacher
) -> None:
    refused(match, Plain(), teacher, method=method, method_settings=settings)


def test_pairs_of_a_class_need_two_images(refused: Callable[..., None]) -> None:
    y = torch.cat([torch.arange(40) % 2, torch.tensor([2])])
    x = torch.randint(0, 255, (41, 1, 8, 8)).to(torch.uint8)
    lonely = load_data((x, y), test=(x, y), duplicates="keep", rate=0, select=0, views=2)
    refused(r"cs_kd.*two training images per class.*\[2\]", Plain(), None, lonely, method="cs_kd", batch_size=8)


def test_caches_of_others(refused: Callable[..., None], teacher: Teacher, data: Data, tmp_path: Path) -> None:
    cache = ViewCache.open(tmp_path, teacher.bind(data), data)
    stored = StoredFeatures(teacher, data)
    for of, what in ((images(seed=5), "data"), (images(views=3), "views")):
        refused(f"teacher cache.*{what}", Plain(), cache, of, method="kd")
        refused(f"teacher cache.*{what}", Plain(), [teacher, cache], of, method="kd")
        refused(f"StoredFeatures.*{what}", Plain(), stored, of, method="sp")
    refused("not its cache", Plain(), cache, method="at")


def test_another_normalisation_is_another_cache(
    refused: Callable[..., None], teacher: Teacher, data: Data, tmp_path: Path
) -> None:
    cache = ViewCache.open(tmp_path, teacher.bind(data), data)
    cache.facts["key"]["mean"] = [value + 0.1 for value in cache.facts["key"]["mean"]]
    refused("different mean", Plain(), cache, method="kd")
