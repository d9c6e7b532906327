"""Scores of choices in a subnet: each is that of the whole network put together by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.data import load_data
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.rate.units import rate_units
from nas_kd.teacher import Teacher, cifar_resnet14


def test_scores_around_an_arch_are_differences_of_whole_networks() -> None:
    data = load_data("digits", subset=600, rate=0.2, select=0.2)
    torch.manual_seed(0)
    teacher = Teacher(cifar_resnet14(in_chans=1).eval(), "new", num_classes=10, in_chans=1).bind(data)
    space = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    arch = next(a for a in map(space.sample, range(50)) if None in net.choices(a) and a.stages[0].layers)
    tables = rate_units(net, teacher, data, score="replace_one", images=64, temperature=2.0, around=arch)
    x = teacher.normalised(next(iter(data.rate.clean(64, limit=64))).x)
    base = net.choices(arch)
    net.train()

    def kl(choices: list[tuple[int, ...] | None]) -> float:
        whole = net.cuts(x, [net.cuts.whole(index) for index in range(len(base))]) / 2.0
        got = net.cuts(x, choices) / 2.0
        return float((whole.softmax(1) * (whole.log_softmax(1) - got.log_softmax(1))).sum(1).mean())

    with torch.no_grad():
        alone = kl(base)
        assert alone > 0
        for index, table in enumerate(tables):
            for row in table.itertuples():
                candidate = space.stages[index].candidates()[int(str(row.candidate))]
                choice = tuple(int(v) for v in candidate.layers[0]) if candidate.layers else None
                change = kl([*base[:index], choice, *base[index + 1 :]]) - (alone if index else 0.0)
                assert row.score == pytest.approx(change, rel=1e-3, abs=1e-6)
    with pytest.raises(SettingError, match="around"):
        rate_units(net, teacher, data, score="local", around=arch)


def test_a_run_keeps_tables_of_each_size_and_arch(tmp_path: Path) -> None:
    data = load_data("digits", subset=300, rate=0.2, select=0.2)
    torch.manual_seed(0)
    teacher = Teacher(cifar_resnet14(in_chans=1).eval(), "new", num_classes=10, in_chans=1).bind(data)
    space = nas_kd.teacher_space(teacher, data, resolutions=(6,))
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    whole: dict[str, Any] = {"score": "replace_one", "images": 32}
    kinds: list[dict[str, Any]] = [{}, {"resolution": 6}, {"around": space.sample(1)}, {"around": space.sample(2)}]
    made = [rate_units(net, teacher, data, run=tmp_path, **whole, **kind) for kind in kinds]
    for kind, tables in zip(kinds, made, strict=True):
        for alone, kept in zip(
            rate_units(net, teacher, data, **whole, **kind),
            rate_units(net, teacher, data, run=tmp_path, **whole, **kind),
            strict=True,
        ):
            assert kept["score"].tolist() == pytest.approx(alone["score"].tolist(), rel=1e-4, abs=1e-6)
        assert (tmp_path / "blockwise/stage_1.csv").is_file() and len(tables) == len(space.stages)
    assert len(list(tmp_path.glob("blockwise/*/stage_1.csv"))) == 3
    with pytest.raises(SettingError, match=r"derive\.rate_images"):  # what is changed is still noticed
        rate_units(net, teacher, data, run=tmp_path, score="replace_one", images=16)
