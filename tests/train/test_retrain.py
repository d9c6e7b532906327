"""Retraining takes any network, is a function of its seed, and leaves a student folder that opens anywhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from plain_net import Plain
from toys import equal, state

from nas_kd import Classification, load_student, load_teacher, retrain
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.network import predict

SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.1, "warmup_epochs": 0.5}
MEASURED = ("accuracy", "balanced_accuracy", "macro_f1", "recall_0", "recall_1", "recall_2", "collapsed", "agreement")


def plain(seed: int = 0, width: int = 6) -> Plain:
    torch.manual_seed(seed)
    return Plain(width)


def test_any_module_without_a_run(teacher: Teacher, data: Data, runtime: Runtime) -> None:
    model = plain(width=16)
    before = state(model)
    student = retrain(model, teacher, data, runtime=runtime, **SHORT | {"epochs": 24, "lr": 0.02})
    assert student is model and not student.training and not equal(before, state(student))
    info: Any = student.info
    logits = predict(student, data.test, runtime)
    accuracy = info["metrics"]["test_accuracy"]
    assert accuracy == Classification().metric(logits, data.test.labels) > 0.6  # 1.0 in each of five seeds
    assert set(info["metrics"]) == {f"{split}_{measure}" for split in ("select", "test") for measure in MEASURED}
    answers = torch.cat([teacher(batch.x) for batch in data.test.clean(512)])
    agreement = (logits.argmax(1) == answers.argmax(1)).float().mean()
    assert info["metrics"]["test_agreement"] == pytest.approx(float(agreement))
    assert (info["mean"], info["std"]) == (list(data.mean), list(data.std))


def test_any_module_with_a_run(
    teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    mine: dict[str, Any] = {
        "run": tmp_path / "run",
        "folder": "retrain/mine/seed_0",
        "factory": ("plain_net:Plain", {"width": 6}),
        "runtime": runtime,
    }
    student = retrain(plain(), teacher, data, **mine, **SHORT)
    folder = tmp_path / "run/retrain/mine/seed_0"
    rows = pd.read_csv(folder / "metrics.csv")
    first, _, last = rows["loss"]
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert last < 0.6 * first  # 0.12 to 0.25 in five seeds
    assert not (folder / "last.pt").exists()
    opened = load_student(folder / "student")
    assert isinstance(opened, Plain) and equal(state(opened), state(student))
    assert opened.info["metrics"] == student.info["metrics"]
    modified = (folder / "metrics.csv").stat().st_mtime_ns
    again = retrain(plain(), teacher, data, **mine, **SHORT)
    assert equal(state(again), state(student)) and (folder / "metrics.csv").stat().st_mtime_ns == modified
    with pytest.raises(SettingError, match=r"retrain\.lr=0\.2.*retrain\.lr=0\.1"):
        retrain(plain(), teacher, data, **mine, **SHORT | {"lr": 0.2})
    with pytest.raises(SettingError, match="start"):  # other weights to start from
        retrain(plain(1), teacher, data, **mine, **SHORT)
    # a student can teach the next one
    second = load_teacher(folder / "student").bind(data)
    assert torch.equal(predict(student, data.rate, runtime), torch.cat([second(b.x) for b in data.rate.clean(512)]))


def test_a_list_of_losses_and_labels_only(teacher: Teacher, data: Data, runtime: Runtime) -> None:
    both = retrain(plain(), teacher, data, method=[("ce", 1.0), ("kd", 0.5)], runtime=runtime, **SHORT)
    named = retrain(plain(), teacher, data, method="kd", runtime=runtime, **SHORT)
    labels = retrain(plain(), None, data, method="ce", runtime=runtime, **SHORT)
    assert not equal(state(both), state(named)) and not equal(state(both), state(labels))
    weighted = retrain(plain(), teacher, data, method=[("ce", 1.0), ("kd", 0.0)], runtime=runtime, **SHORT)
    for name, tensor in state(weighted).items():
        assert torch.allclose(tensor.float(), state(labels)[name].float(), atol=1e-5), name
    assert "test_agreement" not in labels.info["metrics"]
    with pytest.raises(SettingError, match="teacher="):
        retrain(plain(), None, data, method="kd", runtime=runtime, **SHORT)
    with pytest.raises(SettingError, match="kd_ls"):
        retrain(plain(), teacher, data, method="kdls", runtime=runtime, **SHORT)


def test_an_arch_of_a_space(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    arch = space.sample(seed=3)
    with pytest.raises(SettingError, match=r"space=result\.space"):
        retrain(arch, teacher, data, runtime=runtime, **SHORT)
    student = retrain(arch, teacher, data, space=space, run=tmp_path / "run", runtime=runtime, **SHORT)
    opened = load_student(tmp_path / "run/retrain" / arch.key / "seed_0/student")
    assert equal(state(opened), state(student))
    cost = space.cost(arch, resolution=8, in_chans=1, num_classes=3)
    assert (opened.info["macs"], opened.info["params"]) == cost
    assert opened.info["arch"] == arch.to_dict()
    for field, changed in {"epochs": 0, "batch_size": 0, "method": "none"}.items():
        with pytest.raises(SettingError, match=field):
            retrain(arch, teacher, data, space=space, runtime=runtime, **SHORT | {field: changed})


def test_seeds(space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime) -> None:
    arch = space.largest()
    torch.manual_seed(1)
    one = retrain(arch, teacher, data, space=space, seed=0, runtime=runtime, **SHORT)
    torch.manual_seed(2)  # the global generator plays no part
    same = retrain(arch, teacher, data, space=space, seed=0, runtime=runtime, **SHORT)
    other = retrain(arch, teacher, data, space=space, seed=1, runtime=runtime, **SHORT)
    assert equal(state(one), state(same)) and one.info == same.info
    assert not equal(state(one), state(other))


def test_starting_from_the_supernet(
    space: ElasticSpace, net: Supernet, teacher: Teacher, data: Data, runtime: Runtime
) -> None:
    arch = space.sample(seed=1)
    before = state(net)
    still = SHORT | {"epochs": 1, "lr": 1e-9, "weight_decay": 0.0, "warmup_epochs": 0.0}
    student = retrain(arch, teacher, data, space=space, supernet=net, runtime=runtime, **still)
    shared = net.extract(arch)
    for (name, tensor), begun in zip(student.named_parameters(), shared.parameters(), strict=True):
        assert torch.allclose(tensor, begun, atol=1e-6), name
    assert equal(before, state(net))  # which stays as it was
    scratch = retrain(arch, teacher, data, space=space, runtime=runtime, **still)
    assert not torch.allclose(next(scratch.parameters()), next(shared.parameters()), atol=1e-3)


def test_a_cut_off_training_ends_with_the_same_weights(
    space: ElasticSpace,
    teacher: Teacher,
    data: Data,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch = space.sample(seed=4)
    settings: dict[str, Any] = {"space": space, "runtime": runtime, "seed": 5, **SHORT}
    whole = retrain(arch, teacher, data, run=tmp_path / "whole", **settings)
    from nas_kd.distill import Distiller

    real, calls = Distiller.step, 0

    def stops(self: Distiller, *rest: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return real(self, *rest, **more)

    monkeypatch.setattr(Distiller, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
    torch.manual_seed(99)
    cut = retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
    assert equal(state(whole), state(cut)) and whole.info == cut.info
    name = f"retrain/{arch.key}/seed_5/metrics.csv"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_the_test_images_are_not_touched_before_the_end(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime
) -> None:
    """With the test split gone, all but the last measurement still works."""

    class Gone:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("the test split was read")

    blind = copy.copy(data)
    object.__setattr__(blind, "test", Gone())
    student = retrain(space.smallest(), teacher, blind, space=space, test=False, runtime=runtime, **SHORT)
    assert set(student.info["metrics"]) == {f"select_{measure}" for measure in MEASURED}
    with pytest.raises(AssertionError, match="the test split was read"):
        retrain(space.smallest(), teacher, blind, space=space, runtime=runtime, **SHORT)
