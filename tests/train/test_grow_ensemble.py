"""AdaNAS: mixture weights are the best ones, members make labels likelier, and the ensemble is a student folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.export.ensemble import Ensemble
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train import grow_ensemble as home
from nas_kd.train.grow_ensemble import mixture_weights
from nas_kd.train.network import predict


def test_the_weights_are_those_of_a_convex_solver() -> None:
    rng = np.random.default_rng(0)
    likely = np.log(rng.dirichlet(np.ones(4), size=(3, 40))[..., 0].clip(1e-6))  # (3, 40)

    def loss(weights: np.ndarray) -> float:
        return -float(np.log(np.exp(likely).T @ weights).mean())

    limits = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(loss, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=limits, method="SLSQP")
    found = mixture_weights(torch.from_numpy(likely)).numpy()
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert loss(found) == pytest.approx(loss(best.x), abs=1e-6)
    alone = [loss(weights) for weights in np.eye(3)]
    assert loss(found) <= min(alone) + 1e-9


def test_one_that_is_surely_right_gets_all() -> None:
    likely = torch.tensor([[-0.01] * 20, [-3.0] * 20])
    assert mixture_weights(likely)[0] > 0.999


@pytest.fixture
def small(data: Data, teacher: Teacher, space: ElasticSpace, runtime: Runtime) -> dict[str, Any]:
    archs = list(dict.fromkeys(space.sample(seed) for seed in range(9)))[:5]
    how = nas_kd.RetrainConfig(epochs=2, batch_size=16, warmup_epochs=0.5, method="kd")
    return {"candidates": archs, "teacher": teacher, "data": data, "config": how, "space": space, "runtime": runtime}


def test_it_grows_by_the_best_and_each_generation_is_taught_by_the_one_before(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[str, Any]] = []
    own = home.retrain

    def noted(arch: Any, source: Any, *rest: Any, **more: Any) -> Any:
        taught.append((more["folder"], source))
        return own(arch, source, *rest, **more)

    monkeypatch.setattr(home, "retrain", noted)
    data = small["data"]
    ensemble = nas_kd.grow_ensemble(**small, size=3, run=tmp_path)
    table = pd.read_csv(tmp_path / "ensemble/ensemble.csv", dtype={"key": str})
    assert len(table) == len(ensemble.members) >= 2 and table["key"].is_unique
    assert table["rate_loss"].is_monotonic_decreasing
    assert table["weight"].sum() == pytest.approx(1)
    for folder, source in taught:
        generation = int(folder.split("generation_")[1].split("/")[0])
        assert (source is small["teacher"]) == (generation == 1)
        assert generation == 1 or len(source.network.members) == generation - 1
    assert len([folder for folder, _ in taught if "generation_1/" in folder]) == 3
    logits = predict(ensemble, data.rate, Runtime("cpu"))
    assert torch.allclose(logits.exp().sum(1), torch.ones(len(logits)), atol=1e-5)
    loss = -logits.gather(1, data.rate.labels[:, None]).mean()
    assert float(loss) == pytest.approx(table["rate_loss"].iloc[-1], abs=1e-5)
    # by hand: the weighted mean of its members' probabilities
    shares = ensemble.shares
    each = [predict(member, data.rate, Runtime("cpu")).softmax(1) for member in ensemble.members]
    mean = sum(share * p for share, p in zip(shares, each, strict=True))
    assert torch.allclose(logits.exp(), mean, atol=1e-5)
    loaded = nas_kd.load_student(tmp_path / "ensemble/student")
    assert isinstance(loaded, Ensemble)
    x = next(iter(data.select.clean(8))).x
    assert torch.equal(loaded(x), ensemble(x))
    assert loaded.info["macs"] == table["macs"].sum()  # type: ignore[index,union-attr]
    taught.clear()
    again = nas_kd.grow_ensemble(**small, size=3, run=tmp_path)  # read back
    assert all(map(torch.equal, again.state_dict().values(), ensemble.state_dict().values()))


def test_cut_teachers_can_be_members() -> None:
    data = load_data("digits", subset=150, rate=30, select=20)
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).bind(data)
    space = nas_kd.teacher_space(teacher, data)
    net = Supernet(space)
    archs = [space.sample(seed) for seed in range(4)]
    students = [nas_kd.retrain(a, teacher, data, space=space, supernet=net, epochs=1, batch_size=32) for a in archs[:2]]
    ensemble = Ensemble.of(students, torch.tensor([0.25, 0.75]))
    x = next(iter(data.select.clean(8))).x
    mean = 0.25 * students[0].eval()(x).softmax(1) + 0.75 * students[1].eval()(x).softmax(1)
    assert torch.allclose(ensemble(x).exp(), mean, atol=1e-5)


def test_members_that_no_folder_rebuilds_are_refused_before_they_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits", subset=150, rate=30, select=20)
    teacher = nas_kd.load_teacher("cifar_resnet8", num_classes=10, in_chans=1).bind(data)
    network: Any = teacher.network
    network.factory = ("nas_kd.teacher.load:load_teacher", {"model": "cifar_resnet8"})
    space = nas_kd.teacher_space(teacher, data)
    archs = [space.sample(seed) for seed in range(4)]
    monkeypatch.setattr(home, "retrain", None)
    with pytest.raises(SettingError, match="functions are only called when you name them"):
        nas_kd.grow_ensemble(archs, teacher, data, space=space, size=2)
    del network.factory
    space = nas_kd.teacher_space(teacher, data)
    archs = [space.sample(seed) for seed in range(4)]
    with pytest.raises(SettingError, match="members='CifarResNet'.*their folders rebuild"):
        nas_kd.grow_ensemble(archs, teacher, data, space=space, size=2)


def test_what_cannot_be_is_said(small: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="size=9.*1 to 5"):
        nas_kd.grow_ensemble(**small, size=9)
    with pytest.raises(SettingError, match="one student or more"):
        Ensemble([])
