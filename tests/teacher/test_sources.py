"""What users pass as ``teacher=`` becomes one source of targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_kd.data import Batch
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher import LiveSource, TargetSource, TeacherEnsemble, as_targets, cifar_resnet8, load_teacher
from nas_kd.teacher.sources import one_teacher


class Linear(LiveSource):
    """A network that runs."""

    name = "linear"
    network: Any = None

    def __init__(self) -> None:
        self.network = nn.Linear(3, 2)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return self.network(x)

    def forward_stages(self, x: Tensor) -> Output:
        return Output(self(x), [x], [x], x)


class Own(TargetSource):
    """The least that a source defines."""

    def logits(self, batch: Batch) -> Tensor:
        return batch.x[:, :2]


def batch(view: int = -1) -> Batch:
    index = torch.tensor([2, 0])
    return Batch(torch.randn(2, 3), torch.tensor([0, 1]), index, torch.full((2,), view))


def test_a_source_of_ones_own_defines_logits_only() -> None:
    own = Own()
    data = batch()
    assert as_targets(own) is own and own.live() is own and own.members == (own,) and own.fingerprint == "Own"
    assert torch.equal(own.logits(data), data.x[:, :2])
    assert own.teacher is None and own.trained is None and not own.shared and not own.gives_features
    with pytest.raises(SettingError, match=r"teacher='Own'.*live teacher, for a method on features"):
        own.features(data)
    with pytest.raises(TypeError, match="abstract"):
        TargetSource()  # type: ignore[abstract]


def test_a_teacher_gives_logits_or_features_without_gradient() -> None:
    teacher = Linear()
    data = batch()
    assert as_targets(teacher) is teacher is teacher.teacher
    assert torch.equal(teacher.logits(data), teacher(data.x)) and not teacher.logits(data).requires_grad
    assert torch.equal(teacher.features(data).logits, teacher(data.x))


def test_ensemble_is_the_mean_of_probabilities_and_not_of_logits() -> None:
    torch.manual_seed(0)
    sources = [Linear() for _ in range(3)]
    data = batch()
    found = as_targets(sources)
    assert isinstance(found, TeacherEnsemble) and list(found.members) == sources
    mean = torch.stack([source.logits(data).softmax(1) for source in sources]).mean(0)
    assert torch.allclose(found.logits(data).softmax(1), mean, atol=1e-6)
    logits = torch.stack([source.logits(data) for source in sources]).mean(0).softmax(1)
    assert not torch.allclose(found.logits(data).softmax(1), logits, atol=1e-4)
    alike = TeacherEnsemble(sources[:1] * 4).logits(data).softmax(1)
    assert torch.allclose(alike, sources[0].logits(data).softmax(1), atol=1e-6)
    assert as_targets(sources[:1]) is sources[0]
    for empty in ([], [None]):
        with pytest.raises(SettingError, match="at least one"):
            as_targets(empty)


def test_functions_and_lists_of_all_kinds() -> None:
    data = batch()
    assert as_targets(None) is None

    def twice(batch: Batch) -> Tensor:
        return 2 * batch.x

    found = as_targets(twice)
    assert found is not None and torch.equal(found.logits(data), 2 * data.x)
    assert found.fingerprint.endswith("twice")
    mixed = as_targets([Own(), Linear()])
    assert mixed is not None and mixed.logits(data).shape == (2, 2) and mixed.teacher is None
    with pytest.raises(SettingError, match="sealed teacher.*load_teacher"):
        as_targets(nn.Linear(3, 2))  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="TargetSource"):
        as_targets(3)  # type: ignore[arg-type]


def test_what_looks_into_its_teacher_takes_one() -> None:
    teacher = load_teacher(cifar_resnet8(num_classes=3))
    assert one_teacher(teacher, "rank") is teacher is one_teacher(lambda: teacher, "rank")
    for other in ([teacher, teacher], nn.Linear(3, 2), Own(), 3, None, lambda: 3):
        with pytest.raises(SettingError, match="one nas_kd Teacher.*several teachers can retrain a student, not rank"):
            one_teacher(other, "rank")  # type: ignore[arg-type]
