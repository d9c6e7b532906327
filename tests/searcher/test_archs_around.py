"""The front is asked again around its own arch: all archs keep the budget, and each has its own measured KL."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.rate.units import rate_units
from nas_kd.searcher import around
from nas_kd.searcher.around import archs_around
from nas_kd.solve import best
from nas_kd.space.rows import arch_of_rows
from nas_kd.teacher import Teacher

TEMPERATURE = 4.0


@pytest.fixture(scope="module")
def made() -> tuple[Data, Teacher]:
    data = load_data("digits", subset=600, rate=0.2, select=0.2)
    torch.manual_seed(0)
    return data, nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)


def test_archs_around_keep_the_budget_and_have_their_own_kl(made: tuple[Data, Teacher]) -> None:
    data, teacher = made
    space = nas_kd.teacher_space(teacher, data, (0.125, 0.25, 0.5))
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    tables = rate_units(net, teacher, data, score="local", images=64)
    shape = {"resolution": 8, "in_chans": 1, "num_classes": 10}
    cap = space.cost(space.largest(), **shape).macs // 4
    found = archs_around(net, teacher, data, tables, {"macs": cap}, rounds=4, images=64)
    archs = [arch for arch, _ in found]
    assert 2 <= len(archs) == len(set(archs)) <= 4
    assert all(space.cost(arch, **shape).macs <= cap for arch in archs)
    row = best(tables, bounds={"macs": cap})
    labels = [row[f"row_{number}"] for number in range(1, len(tables) + 1)]
    assert archs[0] == arch_of_rows(space, tables, labels)
    x = teacher.normalised(next(iter(data.rate.clean(64, limit=64))).x)
    net.train()
    with torch.no_grad():
        whole = net(x, space.largest()) / TEMPERATURE
        for arch, kl in found:
            gap = whole.log_softmax(1) - (net(x, arch) / TEMPERATURE).log_softmax(1)
            assert kl == pytest.approx(float((whole.softmax(1) * gap).sum(1).mean()), rel=1e-3)
    assert min(kl for _, kl in found) <= found[0][1]


def test_no_rating_is_made_that_nothing_reads(made: tuple[Data, Teacher], monkeypatch: pytest.MonkeyPatch) -> None:
    data, teacher = made
    space = nas_kd.teacher_space(teacher, data, (0.125, 0.25, 0.5))
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    tables = rate_units(net, teacher, data, images=64)
    cap = space.cost(space.largest(), resolution=8, in_chans=1, num_classes=10).macs // 4
    settings = {"images": 64, "temperature": 2.0}
    calls: list[object] = []

    def counted(*args: object, **more: object) -> list[pd.DataFrame]:
        calls.append(more["around"])
        assert {name: more[name] for name in settings} == settings
        return rate_units(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(around, "rate_units", counted)
    all_rated = archs_around(net, teacher, data, tables, {"macs": cap}, rounds=3, **settings)  # type: ignore[arg-type]
    assert len(all_rated) > 1  # so that there is something to rate again
    calls.clear()
    (only,) = archs_around(net, teacher, data, tables, {"macs": cap}, rounds=1, **settings)  # type: ignore[arg-type]
    assert only == all_rated[0] and not calls  # the same arch and the same loss
    two = archs_around(net, teacher, data, tables, {"macs": cap}, rounds=2, **settings)  # type: ignore[arg-type]
    assert two == all_rated[:2] and calls == [only[0]]
