"""Retraining in every manner: resumed bit by bit, taught live where images are mixed, recorded where chosen."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from toys import equal, state

from nas_kd import retrain, train_teacher
from nas_kd.data import Data
from nas_kd.distill import Distiller
from nas_kd.errors import SettingError
from nas_kd.runtime.device import Runtime
from nas_kd.space import ElasticSpace
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.train.config import RetrainConfig
from nas_kd.train.retrain import OF_THE_COMMAND

SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.02, "warmup_epochs": 0.5, "test": False}
MANNERS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.05, "lr": 0.002},
    "lamb": {"optimizer": "lamb", "schedule": "step"},
    "momentum": {"optimizer": "momentum", "schedule": "step", "milestones": [1, 2], "factor": 0.5},
    "ema": {"ema": 0.9},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "optimizer": "adopt"},
}


@pytest.mark.parametrize("name", MANNERS)
def test_a_killed_training_ends_with_the_same_bits(
    name: str,
    space: ElasticSpace,
    teacher: Teacher,
    data: Data,
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arch = space.sample(seed=4)
    settings: dict[str, Any] = {"space": space, "runtime": runtime, "method": "kd"} | SHORT | MANNERS[name]
    whole = retrain(arch, teacher, data, run=tmp_path / "whole", **settings)
    real, calls = Distiller.step, 0

    def stops(self: Distiller, *rest: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 13:  # in the second epoch of nine steps
            raise KeyboardInterrupt
        return real(self, *rest, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Distiller, "step", stops)
        retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
    torch.manual_seed(99)
    cut = retrain(arch, teacher, data, run=tmp_path / "cut", **settings)
    assert equal(state(whole), state(cut)) and whole.info == cut.info
    defaults = {key: value for key, value in DEFAULTS.items() if key in settings}
    plain = retrain(arch, teacher, data, **settings | defaults)
    assert not equal(state(whole), state(plain))
    rows = pd.read_csv(tmp_path / "whole" / "retrain" / arch.key / "seed_0" / "metrics.csv")
    if settings.get("milestones"):
        assert rows["lr"].tolist() == pytest.approx([0.02, 0.01, 0.005])


DEFAULTS = {"optimizer": "sgd", "schedule": "cosine", "milestones": None, "ema": 0.0, "mixup": 0.0, "cutmix": 0.0}


def test_mixed_images_are_taught_live_with_one_line(
    space: ElasticSpace,
    teacher: Teacher,
    data: Data,
    runtime: Runtime,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    arch = space.smallest()
    settings: dict[str, Any] = {"space": space, "runtime": runtime, "method": "kd", "mixup": 0.3} | SHORT
    live = retrain(arch, teacher, data, run=tmp_path / "live", **settings)
    said = "the teacher runs live: mixed images are not cached"
    assert (tmp_path / "live" / "log.txt").read_text().count(said) == 1
    assert not (tmp_path / "live" / "teacher").exists()  # nothing is stored that would not be read
    cache = ViewCache.open(tmp_path / "cache", teacher, data, epochs=0)
    cached = retrain(arch, cache, data, **settings)
    assert equal(state(live), state(cached)) and [record.message for record in caplog.records] == [said]
    alone = ViewCache.open(tmp_path / "cache", teacher, data, epochs=1)
    sealed = copy.copy(alone)
    sealed._source = None  # as in a process that was given the stored logits only
    with pytest.raises(SettingError, match=r"retrain\.mixup"):
        retrain(arch, sealed, data, **settings)
    with pytest.raises(SettingError, match=r"retrain\.mixup=0\.3.*dkd"):
        retrain(arch, teacher, data, **settings | {"method": "dkd"})


def test_the_record_names_every_setting_of_the_training(
    space: ElasticSpace, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    arch = space.smallest()
    settings: dict[str, Any] = {"space": space, "runtime": runtime, "run": tmp_path, "method": "kd"} | SHORT
    retrain(arch, teacher, data, optimizer="adamw", **settings)
    inputs = json.loads((tmp_path / "retrain" / arch.key / "seed_0" / "stage.json").read_text())["inputs"]
    config = RetrainConfig(optimizer="adamw", method="kd", **SHORT)
    of_the_command = {f"retrain.{name}" for name in OF_THE_COMMAND}
    assert {name for name in inputs if name.startswith("retrain.")} == set(config.record()) - of_the_command | {
        "retrain.smoothing"
    }
    assert (inputs["retrain.optimizer"], inputs["retrain.ema"], inputs["retrain.lr"]) == ("adamw", 0.0, SHORT["lr"])
    with pytest.raises(SettingError, match=r"retrain\.optimizer='lamb'.*adamw"):
        retrain(arch, teacher, data, optimizer="lamb", **settings)


def test_a_teacher_is_trained_in_a_manner_too(data: Data, runtime: Runtime, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "runtime": runtime, "lr": 0.01}
    plain = train_teacher("cifar_resnet8", data, **settings)
    other = train_teacher("cifar_resnet8", data, run=str(tmp_path), optimizer="lamb", mixup=0.2, **settings)
    assert plain.fingerprint != other.fingerprint
    again = train_teacher("cifar_resnet8", data, run=str(tmp_path), optimizer="lamb", mixup=0.2, **settings)
    assert again.fingerprint == other.fingerprint
    with pytest.raises(SettingError, match=r"teacher\.mixup=0\.3"):
        train_teacher("cifar_resnet8", data, run=str(tmp_path), optimizer="lamb", mixup=0.3, **settings)
    with pytest.raises(SettingError, match=r"teacher\.milestones"):
        train_teacher("cifar_resnet8", data, schedule="step", milestones=[2], **settings)
