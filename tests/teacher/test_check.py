"""What is wrong with a teacher is told before anything is trained, with what mends it; a sound one is left alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_kd.data import Data, load_data
from nas_kd.data.config import DataConfig
from nas_kd.errors import SettingError
from nas_kd.pipeline import context
from nas_kd.pipeline.config import Config
from nas_kd.pipeline.pipeline import Pipeline
from nas_kd.teacher import Teacher, TeacherCheck, build_model, check_teacher, load_teacher, save_weights
from nas_kd.teacher.check import examine
from nas_kd.teacher.suspicion import near_chance, other_order, surely_better
from nas_kd.train.teacher_config import TeacherConfig

LEVELS = torch.tensor([0.15, 0.4, 0.6, 0.85])  # brightness of the classes


@pytest.fixture(scope="module")
def data() -> Data:
    """Grey squares of four brightnesses, in three channels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 4
    x = LEVELS[y].view(-1, 1, 1, 1) + 0.05 * torch.randn(240, 3, 8, 8, generator=generator)
    return load_data(((x * 255).clamp(0, 255).to(torch.uint8), y), rate=0.6, select=0.1, views=2)


class Brightness(nn.Module):
    """Knows the four brightnesses, of pixels of 0..1, exactly."""

    num_classes = 4

    def __init__(self, scale: float = 200.0) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 4)
        nn.init.constant_(self.body.weight, 1 / 3)
        with torch.no_grad():
            self.body.bias.copy_(-LEVELS)  # type: ignore[union-attr]
            self.head.weight.copy_(torch.eye(4))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(-self.scale * self.body(x).mean((2, 3)) ** 2)


UNIT: dict[str, Any] = {"mean": [0.0] * 3, "std": [1.0] * 3}


def teacher(net: nn.Module | None = None, **settings: Any) -> Teacher:
    return load_teacher(net or Brightness(), **{**UNIT, **settings})


def refused(net: Teacher, data: Data) -> str:
    with pytest.raises(SettingError) as caught:
        check_teacher(net, data)
    assert caught.value.field == "teacher" and "teacher.check=warn" in caught.value.hint
    return str(caught.value)


def warned(net: Teacher, data: Data, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.WARNING):
        check_teacher(net, data)
    return caplog.text


def test_a_sound_teacher(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = check_teacher(teacher(), data)
    assert found.findings == () and caplog.text == ""
    assert found.accuracy == 1.0 and found.images == len(data.rate)
    shares = torch.bincount(data.rate.labels).double() / len(data.rate)
    assert found.chance == pytest.approx(float(shares @ shares)) and found.probe is not None and found.probe > 0.9
    assert f"100.0% of {len(data.rate)} rate images" in found.line and f"features {found.probe:.1%}" in found.line
    assert TeacherCheck.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("rows", [[1, 2, 3, 0], [0, 2, 1, 3]])
def test_classes_in_another_order(rows: list[int], data: Data) -> None:
    net = Brightness()
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(4)[rows])
    said = refused(teacher(net), data)
    order = [rows.index(at) for at in range(4)]  # the output that means each class
    assert "classes are in another order" in said and f"order = {order}" in said
    with torch.no_grad():  # the cure
        net.head.weight.copy_(net.head.weight[order].clone())
    assert check_teacher(teacher(net), data).accuracy == 1.0


@pytest.mark.parametrize(
    ("end", "word"), [(lambda z: z.softmax(1), "a softmax is at its end"), (lambda z: z / 0, "NaN or infinity")]
)
def test_outputs_that_are_no_logits(end: Any, word: str, data: Data) -> None:
    net = Brightness()
    net.register_forward_hook(lambda module, args, out: end(out))
    assert word in refused(teacher(net), data)


def test_log_probabilities_teach_as_logits_do(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    net = Brightness()
    net.register_forward_hook(lambda module, args, out: out.log_softmax(1))
    assert "log probabilities" in warned(teacher(net), data, caplog)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 1 / 255), (0.5, 0.5), (None, None), (0.45, 0.23)],
    ids=["255", "unit", "the data's", "other"],
)
def test_another_normalisation(mean: float | None, std: float | None, data: Data) -> None:
    """It was trained on pixels of 0..1, and something else was said."""
    wrong = {"mean": None, "std": None} if mean is None else {"mean": [mean] * 3, "std": [std] * 3}
    said = refused(teacher(**wrong), data)
    assert "with pixels of 0..1" in said and "teacher.mean=[0.0, 0.0, 0.0] and teacher.std=[1.0, 1.0, 1.0]" in said


def test_a_normalisation_that_was_written_down_is_believed(data: Data, tmp_path: Path) -> None:
    """A weak teacher may happen to be better on other images; so may one that was trained just before."""
    told = {"mean": [0.0] * 3, "std": [1 / 255] * 3}
    save_weights(Brightness(), tmp_path / "x.safetensors", **told)
    noted = load_teacher(Brightness(), checkpoint=tmp_path / "x.safetensors").bind(data)
    assert not any("normalis" in finding.wrong for finding in examine(noted, data).findings)
    wrong = teacher(**told).bind(data)
    assert any(finding.fatal for finding in examine(wrong, data).findings)
    assert not any(finding.fatal for finding in examine(wrong, data, trained=True).findings)


def test_an_untrained_teacher(data: Data) -> None:
    torch.manual_seed(0)
    said = refused(load_teacher("cifar_resnet8", num_classes=4), data)
    assert "by chance" in said and "batch norms" in said and "never measured" in said


def test_norms_that_were_never_measured_need_few_images(data: Data) -> None:
    torch.manual_seed(0)
    fresh = load_teacher("cifar_resnet8", num_classes=4).bind(data)
    fatal = [finding.wrong for finding in examine(fresh, data, images=8).findings if finding.fatal]
    assert len(fatal) == 1 and "never measured" in fatal[0]


def test_answers_that_are_all_one_class(data: Data) -> None:
    net = Brightness()
    nn.init.zeros_(net.head.weight)
    first = float((data.rate.labels == 0).double().mean())
    assert f"{first:.1%} of {len(data.rate)} images are right, and {first:.1%} would be" in refused(teacher(net), data)


def test_a_teacher_worse_than_its_features(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    net = Brightness()
    with torch.no_grad():
        net.head.bias[3] = -1e3  # the last class is never answered
    said = warned(teacher(net), data, caplog)
    assert "logistic regression on its own features" in said and "teacher.epochs" in said


@pytest.mark.parametrize(("scale", "word"), [(1e6, "one-hot even at temperature 4"), (0.01, "nearly equal")])
def test_softened_confidence(scale: float, word: str, data: Data, caplog: pytest.LogCaptureFixture) -> None:
    assert word in warned(teacher(Brightness(scale)), data, caplog)


def test_warnings_instead_of_errors(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = check_teacher(load_teacher("cifar_resnet8", num_classes=4), data, check="warn")
    assert any(finding.fatal for finding in found.findings) and "by chance" in caplog.text


def test_several_labels_are_not_judged_by_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (80, 3, 8, 8), generator=generator, dtype=torch.uint8)
    several = load_data((x, torch.randint(0, 2, (80, 4), generator=generator).float()), rate=0.3, select=0.1)
    assert several.kind == "multilabel"
    found = examine(teacher().bind(several), several)
    assert found.accuracy is None and found.findings == ()
    net = Brightness()
    net.register_forward_hook(lambda module, args, out: out.sigmoid())
    assert "sigmoid" in refused(teacher(net), several)


def test_near_chance() -> None:
    assert near_chance(100, 1000, 0.1) is True  # 10 % of ten classes
    assert near_chance(150, 1000, 0.1) is None  # 5 standard deviations above
    assert near_chance(12, 20, 0.5) is False  # so few images do not tell
    assert near_chance(985, 1000, 0.96) is None  # 2 % are of a rare class: 4 standard deviations above
    assert near_chance(15, 65, 0.13) is False  # 23 % may be 40, of ten classes
    assert near_chance(50, 50, 1.0) is None


def test_random_answers_have_no_other_order() -> None:
    found = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        answers, labels = draw.integers(0, 10, (2, 100))
        found += other_order(answers, labels, 10) is not None
    assert found == 0
    labels = np.random.default_rng(0).integers(0, 10, 200)
    swapped = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 8])
    order = other_order(swapped[labels], labels, 10)
    assert order is not None and order.tolist() == swapped.tolist()
    assert other_order(labels, labels, 10) is None


def test_surely_better() -> None:
    half = torch.arange(100) < 50
    assert surely_better(half | (torch.arange(100) < 70), half)
    assert not surely_better(half | (torch.arange(100) < 55), half)  # 5 wins of 5: 1 in 32 by chance
    assert not surely_better(half, ~half)  # 50 wins, 50 losses


def run(folder: Path, checkpoint: Path, **settings: Any) -> Pipeline:
    teacher = TeacherConfig(model="cifar_resnet8", checkpoint=str(checkpoint), **settings)
    data = DataConfig(subset=400, rate=0.2, select=0.1)
    return Pipeline(Config(run=str(folder), space="digits", data=data, teacher=teacher, threads=1))


def test_a_run_looks_once_and_refuses_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    untrained = build_model("cifar_resnet8", num_classes=10, in_chans=1)
    save_weights(untrained, tmp_path / "x.safetensors", mean=[0.3], std=[0.3])
    with pytest.raises(SettingError, match=r"teacher='cifar_resnet8'.*by chance"):
        _ = run(tmp_path / "run", tmp_path / "x.safetensors").unmatched
    seen = json.loads((tmp_path / "run/teacher/check.json").read_text())["seen"]
    assert seen["images"] > 70 and seen["accuracy"] < 0.2
    monkeypatch.setattr(context, "examine", lambda *args, **settings: pytest.fail("measured again"))
    with pytest.raises(SettingError, match="by chance"):
        _ = run(tmp_path / "run", tmp_path / "x.safetensors").unmatched
    _ = run(tmp_path / "run", tmp_path / "x.safetensors", check="warn").unmatched
    assert "warning: teacher cifar_resnet8" in (tmp_path / "run/log.txt").read_text()
    _ = run(tmp_path / "other", tmp_path / "x.safetensors", check="off").unmatched
    assert not (tmp_path / "other/teacher/check.json").exists()
