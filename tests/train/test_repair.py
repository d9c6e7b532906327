"""Repair: cut units come nearer to the teacher's, whole ones stay the teacher's, and a killed repair goes on."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.derive.space import TeacherSpace
from nas_kd.derive.supernet import TeacherSupernet
from nas_kd.errors import SettingError
from nas_kd.rate.units import rate_units
from nas_kd.runtime.stop import Stopped
from nas_kd.teacher import Teacher
from nas_kd.train import repair, start
from nas_kd.train.repair import repair_units

Made = tuple[Teacher, TeacherSpace, Data]
SHORT: dict[str, Any] = {"batch_size": 32, "lr": 0.003}


@pytest.fixture(scope="module")
def made() -> Made:
    data = load_data("digits", subset=600, rate=0.2, select=0.2)
    torch.manual_seed(0)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, epochs=2, batch_size=32, lr=0.1)
    return teacher, nas_kd.teacher_space(teacher, data), data


def repaired(made: Made, **settings: Any) -> TeacherSupernet:
    teacher, space, data = made
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    return repair_units(net, teacher, data, **SHORT | settings)


def local(made: Made, net: TeacherSupernet) -> pd.Series:
    teacher, _, data = made
    tables = rate_units(net, teacher, data, score="local", images=96)
    return pd.concat([table.set_index("label")["score"] for table in tables], keys=range(len(tables)))


def test_cut_units_come_nearer_to_the_teachers(made: Made) -> None:
    _, space, _ = made
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    before = local(made, net)
    after = local(made, repaired(made, epochs=3))
    for index in range(len(space.stages)):
        narrowest = space.stages[index].groups()[0][0]
        label = next(c.label for c in space.stages[index].candidates() if c.layers == (narrowest,))
        assert after[index, label] < before[index, label]
    changed = before.index[before != after]
    assert len(changed) == sum(map(len, repair.offered(net)))
    assert (after[before == 0] == 0).all()  # whole units
    assert after[changed].mean() < 0.9 * before[changed].mean()  # the widest may lose a little: weights are shared


def test_whole_units_and_the_largest_stay_the_teachers(made: Made) -> None:
    teacher, space, data = made
    net = repaired(made, epochs=1).eval()
    x = next(iter(data.test.clean(64))).x
    with torch.no_grad():
        assert torch.equal(net(x, space.largest(), norm=space.norm), teacher(x))
    own = teacher.network.state_dict()
    assert all(torch.equal(net.cuts.body.state_dict()[name], own[name]) for name, _ in net.cuts.body.named_parameters())
    changed = net.cuts.separated.state_dict()
    assert any(
        not torch.equal(changed[name], own[f"{net.cuts.units[0].path}.{name[2:]}"])
        for name in changed
        if name[:2] == "0."
    )


def test_a_cut_reads_nothing_outside_its_slices(made: Made) -> None:
    _, space, data = made
    net = repaired(made, epochs=1).eval()
    x = next(iter(data.test.clean(16))).x
    arch = space.smallest() if space.smallest().stages[0].layers else space.sample(1)
    (norm,) = nas_kd.calibrate(net, [x], archs=[arch])
    student = net.extract(arch, norm).eval()
    with torch.no_grad():
        want = net(x, arch, norm=norm)
        assert torch.equal(student(x), want)
        for index, choice in enumerate(net.choices(arch)):
            if choice is None or choice == net.cuts.whole(index):
                continue
            slices = net.cuts.twin(index, choice).slices
            for name, parameter in net.cuts.separated[str(index)].named_parameters():
                if name not in slices:
                    continue
                kept = slices[name].of(torch.arange(parameter.numel()).reshape(parameter.shape)).flatten()
                mask = torch.ones(parameter.numel(), dtype=torch.bool)
                mask[kept] = False
                parameter.masked_fill_(mask.reshape(parameter.shape), torch.nan)
            for parameter in net.cuts.body.get_submodule(net.cuts.units[index].path).parameters():
                parameter.fill_(torch.nan)  # the teacher's own weights are for the whole unit alone
        assert torch.equal(net(x, arch, norm=norm), want)


def test_the_error_is_noise_to_signal_by_hand(made: Made) -> None:
    teacher, space, data = made
    net = nas_kd.Supernet(space)
    assert isinstance(net, TeacherSupernet)
    cuts = net.cuts
    x = teacher.normalised(next(iter(data.rate.clean(32))).x)
    kept = repair.offered(net)[0][0]
    seen: list[torch.Tensor] = []
    block = teacher.network.get_submodule(cuts.units[0].path)
    handle = block.register_forward_hook(lambda module, args, out: seen.extend((args[0].clone(), out.clone())))
    teacher(x)
    handle.remove()
    twin = deepcopy(cuts.twin(0, kept).module).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(cuts.cut_tensors(0, kept)[name])
        want = ((twin.train()(seen[0]) - seen[1]) ** 2).mean() / ((seen[1] - seen[1].mean()) ** 2).mean()
    assert repair.error(cuts, 0, kept, *seen).item() == pytest.approx(float(want), rel=1e-4)


def test_a_killed_repair_ends_with_the_same_weights(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = repaired(made, epochs=2).state_dict()
    whole = repair.error
    seen = 0

    def killed(*args: Any) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == 100:
            raise KeyboardInterrupt
        return whole(*args)

    run = {"run": tmp_path / "run", "epochs": 2}
    monkeypatch.setattr(repair, "error", killed)
    with pytest.raises((KeyboardInterrupt, Stopped)):
        repaired(made, **run)
    monkeypatch.setattr(repair, "error", whole)
    for _ in range(2):  # resumed, then read
        found = repaired(made, **run).state_dict()
        assert found.keys() == want.keys()
        assert all(torch.equal(found[name], want[name]) for name in want)
    with pytest.raises(SettingError, match=r"repair\.lr"):
        repaired(made, **run, lr=0.1)


def test_no_epochs_change_nothing(made: Made) -> None:
    net = repaired(made, epochs=0)
    assert not net.cuts.separated
    with pytest.raises(SettingError, match=r"repair\.batch_size"):
        repaired(made, batch_size=0)


def test_units_that_are_whole_or_left_out_have_nothing_to_learn(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits", subset=300, rate=0.15, select=0.15, views=2)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, epochs=1, batch_size=32, lr=0.1)
    net = nas_kd.Supernet(nas_kd.teacher_space(teacher, data, widths=(1.0,)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    nas_kd.repair_units(net, teacher, data, epochs=1, run=tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_norms_that_are_measured_anew_do_not_make_a_run_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = nas_kd.load_data("digits", subset=300, rate=0.15, select=0.15, views=2)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, epochs=1, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, data)
    given = {"space": space, "supernet": nas_kd.Supernet(space), "run": tmp_path, "epochs": 1, "batch_size": 32}
    nas_kd.retrain(space.smallest(), teacher, data, **given)
    measure = start.calibrate

    def other(*arguments: Any, **keywords: Any) -> Any:
        return [
            {path: (mean + 1e-7, variance) for path, (mean, variance) in norm.items()}
            for norm in measure(*arguments, **keywords)
        ]

    monkeypatch.setattr(start, "calibrate", other)  # as in a process whose memory lies elsewhere
    nas_kd.retrain(space.smallest(), teacher, data, **given)  # reads the finished one back
