"""Where targets come from."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas_kd.distill import CachedTeacher, LiveTeacher, TargetSource, TeacherEnsemble, target_source
from nas_kd.errors import SettingError
from nas_kd.nn.output import Output


class Batch(NamedTuple):
    x: Tensor
    y: Tensor
    index: Tensor
    view: Tensor


class Teacher(nn.Module):
    fingerprint = "abc"

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(3, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)

    def forward_stages(self, x: Tensor) -> Output:
        return Output(self(x), [x], [x], x)


class Cache:
    def __init__(self, table: Tensor) -> None:
        self.table = table

    def logits(self, batch: Batch) -> Tensor | None:
        return None if (batch.view < 0).any() else self.table[batch.index, batch.view]


def batch(view: int) -> Batch:
    index = torch.tensor([2, 0])
    return Batch(torch.randn(2, 3), torch.tensor([0, 1]), index, torch.full((2,), view))


def test_live_teacher_gives_logits_or_features_without_gradient():
    teacher, data = Teacher(), batch(-1)
    live = LiveTeacher(teacher)
    assert isinstance(live, TargetSource) and live.fingerprint == "abc"
    assert torch.equal(live(data), teacher(data.x)) and not live(data).requires_grad
    out = LiveTeacher(teacher, features=True)(data)
    assert isinstance(out, Output) and not out.logits.requires_grad


def test_cached_teacher_reads_the_cache_and_runs_no_teacher():
    teacher, table = Teacher(), torch.randn(4, 8, 2)
    source = CachedTeacher(Cache(table), teacher)
    assert torch.equal(source(batch(3)), table[[2, 0], 3]) and teacher.calls == 0
    assert source.fingerprint == "abc"


def test_what_the_cache_cannot_serve_comes_from_the_teacher_and_is_said_once(caplog):
    teacher, data = Teacher(), batch(-1)
    source = CachedTeacher(Cache(torch.randn(4, 8, 2)), teacher)
    with caplog.at_level(logging.WARNING):
        first, _ = source(data), source(data)
    assert torch.equal(first, teacher.linear(data.x)) and not first.requires_grad and teacher.calls == 2
    assert len(caplog.records) == 1 and "runs live" in caplog.text
    carried = SimpleNamespace(logits=lambda batch: None, teacher=teacher, fingerprint="cache")
    assert CachedTeacher(carried)(data).shape == (2, 2) and CachedTeacher(carried).fingerprint == "cache"


def test_a_cache_alone_names_what_is_missing():
    with pytest.raises(SettingError, match="give CachedTeacher a teacher"):
        CachedTeacher(Cache(torch.randn(4, 8, 2)))(batch(-1))


def test_ensemble_is_the_mean_of_probabilities_and_not_of_logits():
    torch.manual_seed(0)
    sources, data = [LiveTeacher(Teacher()) for _ in range(3)], batch(-1)
    found = TeacherEnsemble(sources)(data).softmax(1)
    mean = torch.stack([source(data).softmax(1) for source in sources]).mean(0)
    assert torch.allclose(found, mean, atol=1e-6)
    logits = torch.stack([source(data) for source in sources]).mean(0).softmax(1)
    assert not torch.allclose(found, logits, atol=1e-4)
    assert torch.allclose(TeacherEnsemble(sources[:1] * 4)(data).softmax(1), sources[0](data).softmax(1), atol=1e-6)
    with pytest.raises(SettingError, match="at least one"):
        TeacherEnsemble([])


def test_target_source_takes_what_users_pass():
    teacher, data = Teacher(), batch(0)
    assert target_source(None) is None
    assert torch.equal(target_source(teacher)(data), teacher(data.x))
    assert isinstance(target_source(teacher, features=True)(data), Output)
    cache = Cache(torch.randn(3, 1, 2))
    assert torch.equal(target_source(cache)(data), cache.logits(data))
    assert isinstance(target_source([teacher, cache]), TeacherEnsemble)
    own = lambda batch: batch.x  # noqa: E731
    assert target_source(own) is own
    with pytest.raises(SettingError, match="live teacher"):
        target_source(cache, features=True)
    with pytest.raises(SettingError, match="TargetSource"):
        target_source(3)
