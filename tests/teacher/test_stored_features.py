"""A teacher's features that are kept in memory: the same answers, asked for once."""

import pytest
import torch
from torch import Tensor
from toys import Sizes

import nas_kd
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import Output
from nas_kd.teacher import StoredFeatures, Teacher, as_targets, cifar_resnet20


def images(views: int = 2) -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=generator)
    y = torch.arange(60) % 3
    return nas_kd.load_data((x, y), test=(x, y), duplicates="keep", rate=9, select=9, views=views)


def a_teacher(data: Data, *sizes: int) -> Teacher:
    torch.manual_seed(0)
    teacher = nas_kd.load_teacher(cifar_resnet20(num_classes=3)).bind(data)
    teacher.match(Sizes(*sizes), 16)
    return teacher


def flat(out: Tensor | Output) -> list[Tensor]:
    assert isinstance(out, Output)
    return [out.logits, out.pooled, *out.stages, *out.pre]


def test_answers_are_the_live_ones_and_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images()
    teacher = a_teacher(data, 8, 4, 4)
    live = a_teacher(data, 8, 4, 4)
    asked = []
    forward = teacher.forward_stages

    def counted(x: Tensor) -> Output:
        asked.append(len(x))
        return forward(x)

    monkeypatch.setattr(teacher, "forward_stages", counted)
    stored = StoredFeatures(teacher, data)
    for epoch in (0, 1, 2):
        for batch in data.train.batches(7, epoch=epoch, seed=0):
            for one, other in zip(flat(stored.features(batch)), flat(live.features(batch)), strict=True):
                assert one.dtype == torch.float32
                torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
        if epoch == 1:
            assert asked
            asked.clear()
    assert not asked, "the third epoch shows the views of the first"


def test_the_bits_do_not_depend_on_the_batches() -> None:
    data = images()
    teacher = a_teacher(data, 8, 4, 4)
    one, other = StoredFeatures(teacher, data), StoredFeatures(teacher, data)
    for batch in data.train.batches(5, epoch=0, seed=1):
        one.features(batch)
    for batch in data.train.batches(21, epoch=0, seed=0):
        assert all(
            torch.equal(a, b) for a, b in zip(flat(one.features(batch)), flat(other.features(batch)), strict=True)
        )


def test_maps_of_other_sizes_are_asked_for_anew() -> None:
    data = images()
    teacher = a_teacher(data, 8, 4, 4)
    stored = StoredFeatures(teacher, data)
    batch = next(iter(data.train.batches(6, epoch=0, seed=0)))
    stored.features(batch)
    teacher.match(Sizes(4, 4, 2), 16)
    assert [tuple(x.shape[2:]) for x in flat(stored.features(batch))[2:5]] == [(4, 4), (4, 4), (2, 2)]


def test_other_views_are_answered_live() -> None:
    data = images()
    teacher = a_teacher(data, 8, 4, 4)
    batch = next(iter(data.test.clean(6)))
    one, other = StoredFeatures(teacher, data).features(batch), teacher.features(batch)
    assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def test_it_is_a_source_and_needs_numbered_views() -> None:
    data = images()
    stored = StoredFeatures(a_teacher(data, 8, 4, 4), data)
    assert as_targets(stored) is stored and stored.gives_features
    with pytest.raises(SettingError, match="numbered views"):
        StoredFeatures(stored.teacher, images(views=0))


def test_features_that_fp16_cannot_hold_are_refused() -> None:
    data = images()
    teacher = a_teacher(data, 8, 4, 4)
    with torch.no_grad():
        for parameter in teacher.network.parameters():
            parameter.mul_(50)
    with pytest.raises(SettingError, match="features are finite"):
        StoredFeatures(teacher, data).features(next(iter(data.train.batches(6, epoch=0, seed=0))))
