"""Many archs trained: in order, alike in any number of processes, and each going on where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nas_kd.train.loop as loop
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import StaticNet
from nas_kd.runs.progress import Progress
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.stop import Stopped
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.many import Results, Retraining, TrainingSetup, train_many
from nas_kd.train.retrain import retrain

HOW = {"method": "kd", "epochs": 2, "batch_size": 20, "lr": 0.05, "warmup_epochs": 0.5, "test": False}


@pytest.fixture
def setup(space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path) -> TrainingSetup:
    run = Run(tmp_path / "run")
    return TrainingSetup(teacher.cached(data, run), data, space, run, runtime)


def trainings(setup: TrainingSetup, place: str = "many", count: int = 3) -> list[Retraining]:
    archs = dict.fromkeys(setup.space.sample(seed) for seed in range(20))
    return [Retraining(setup, arch, 1, f"{place}/{arch.key}", HOW) for arch in list(archs)[:count]]


def test_each_is_the_retraining_of_its_arch_and_two_processes_give_the_numbers_of_one(
    setup: TrainingSetup, data: Data, runtime: Runtime
) -> None:
    setup.prefill_teacher(2)
    with Progress("many", 6) as progress:
        one = train_many(trainings(setup), progress)
        two = train_many(trainings(setup, "two"), progress, workers=2)
    assert progress.done == 6
    assert one == two and len({tuple(each.values()) for each in one}) > 1
    last = trainings(setup)[-1]
    alone = retrain(last.arch, setup.teacher, data, space=setup.space, seed=1, runtime=runtime, **HOW)
    assert one[-1] == alone.info["metrics"]  # type: ignore[index]


def test_what_is_finished_is_read_and_what_was_stopped_goes_on(
    setup: TrainingSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_many(trainings(setup, "whole"))
    real = loop.seeded
    steps: list[object] = []

    def stop_at(nth: int) -> None:
        steps.clear()

        def seeded(*parts: object) -> None:
            steps.append(parts)
            if len(steps) == nth:
                os.kill(os.getpid(), signal.SIGTERM)
            real(*parts)

        monkeypatch.setattr(loop, "seeded", seeded)

    stop_at(14)  # in the second training: two epochs of five steps each
    with pytest.raises(Stopped, match="saved in epoch 1 after step 4 of 5"):
        train_many(trainings(setup))
    stop_at(1000)
    assert train_many(trainings(setup)) == whole
    assert len(steps) == 6 + 10
    stop_at(1)
    assert train_many(trainings(setup)) == whole and not steps


def _first_weight(network: StaticNet, training: Retraining) -> Results:
    return {"weight": float(next(network.parameters()).detach().sum()), "macs": training.arch.resolution or 0.0}


def test_results_are_what_the_caller_measures_on_weights_that_it_begins_with(
    setup: TrainingSetup, net: Supernet, space: ElasticSpace
) -> None:
    arch = space.largest()
    still = HOW | {"lr": 1e-12, "epochs": 1, "warmup_epochs": 0.0, "weight_decay": 0.0}
    begun = TrainingSetup(setup.teacher, setup.data, space, None, setup.runtime, net)
    (found,) = train_many([Retraining(begun, arch, 0, "still", still, measure=_first_weight)])  # type: ignore[arg-type]
    assert found["weight"] == pytest.approx(float(next(net.extract(arch).parameters()).detach().sum()), abs=1e-6)


def test_how_many_processes_a_teacher_and_a_device_allow(setup: TrainingSetup, teacher: Teacher) -> None:
    def allowed(source: object, device: str = "cpu") -> int:
        runtime = SimpleNamespace(device=torch.device(device))
        return TrainingSetup(source, setup.data, setup.space, None, runtime).processes(4)  # type: ignore[arg-type]

    assert allowed(None) == allowed(setup.teacher) == 4
    assert allowed(teacher) == 1  # it would be copied into every process
    assert allowed(None, "cuda") == 1
    with pytest.raises(SettingError, match="workers"):
        train_many(trainings(setup), workers=0)
