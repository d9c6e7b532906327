"""Trainings from the cache of all views: live, lazily and ahead; killed and resumed; in worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nas_kd
from nas_kd.data import Data, load_data
from nas_kd.errors import SettingError
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.jobs import run_jobs
from nas_kd.teacher import Teacher, ViewCache, cifar_resnet8, load_teacher

EPOCHS = 4


@pytest.fixture
def data() -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (96, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return load_data((x, torch.arange(96) % 3), rate=6, select=6, views="all", flip=True)


@pytest.fixture
def teacher(data: Data) -> Teacher:
    torch.manual_seed(0)
    return load_teacher(cifar_resnet8(num_classes=3)).bind(data)


def train(teacher: Any, data: Data, run: Path | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    student = cifar_resnet8(num_classes=3)
    trained = nas_kd.retrain(
        student,
        teacher,
        data,
        run=run,
        method="kd",
        seed=seed,
        epochs=EPOCHS,
        batch_size=16,
        lr=0.02,
        warmup_epochs=0.5,
        test=False,
        runtime=Runtime("cpu"),
        factory=("nas_kd.teacher:cifar_resnet8", {"num_classes": 3}),
    )
    return {name: value.clone() for name, value in trained.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_live_lazy_and_ahead_train_the_same_student(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    live = train(teacher, data)
    lazy = train(ViewCache.open(tmp_path / "lazy", teacher, data, epochs=0), data)
    ahead = train(ViewCache.open(tmp_path / "ahead", teacher, data, epochs=EPOCHS), data)
    full = train(ViewCache.open(tmp_path / "full", teacher, data), data)
    assert same(lazy, ahead) and same(lazy, full)
    other = train(teacher, data, seed=1)
    for name, value in live.items():  # fp16 of the targets only
        if value.is_floating_point():
            torch.testing.assert_close(lazy[name], value, rtol=2e-3, atol=2e-3)
    assert max(float((live[name] - other[name]).abs().max()) for name in live) > 0.05


def test_what_another_training_stored_changes_nothing(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    alone = train(ViewCache.open(tmp_path / "alone", teacher, data, epochs=0), data)
    train(ViewCache.open(tmp_path / "shared", teacher, data, epochs=0), data, seed=5)  # in other batches
    assert same(train(ViewCache.open(tmp_path / "shared", teacher, data, epochs=0), data), alone)


class Killed(Teacher):
    """A teacher that is stopped after some forward passes."""

    def __init__(self, teacher: Teacher, calls: int) -> None:
        super().__init__(teacher.network, teacher.name, num_classes=3, mean=teacher.mean, std=teacher.std)
        self.calls = calls

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().__call__(x)


@pytest.mark.parametrize("calls", [3, 10, 14])
def test_killed_while_it_fills_and_resumed_it_ends_the_same(
    tmp_path: Path, data: Data, teacher: Teacher, calls: int
) -> None:
    undisturbed = train(ViewCache.open(tmp_path / "a", teacher, data, epochs=0), data, tmp_path / "run_a")
    killed = Killed(teacher, calls).bind(data)
    with pytest.raises(KeyboardInterrupt):
        train(ViewCache.open(tmp_path / "b", killed, data, epochs=0), data, tmp_path / "run_b")
    resumed = train(ViewCache.open(tmp_path / "b", teacher, data, epochs=0), data, tmp_path / "run_b")
    assert same(resumed, undisturbed)


def job(teacher: ViewCache, data: Data, seed: int) -> dict[str, torch.Tensor]:
    return train(teacher, data, seed=seed)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_processes_train_from_what_was_filled_ahead(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=EPOCHS - 1)
    jobs = [{"teacher": cache, "data": data, "seed": seed} for seed in (0, 1)]
    with pytest.raises(SettingError, match=f"logits of {EPOCHS} epochs"):
        train(ViewCache.load(cache.folder), data)
    cache.fill(EPOCHS)
    found = list(run_jobs(job, jobs, workers=2))
    assert same(found[0], train(teacher=cache, data=data)) and not same(found[0], found[1])


def test_retrain_fills_ahead_what_its_epochs_need(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    train(teacher, data, tmp_path / "run")
    cache = ViewCache.load(next((tmp_path / "run" / "teacher" / "cache").iterdir()))
    assert data.train.views is not None and cache.missing(data.train.views, EPOCHS) == 0
    assert cache.missing(data.train.views) == (len(data.train.views) - EPOCHS) * len(data.train)
    said = (tmp_path / "run" / "log.txt").read_text()
    assert "18 views of 65 images, 0.0 MB in" in said  # 2 x 18 x 65 x 3 bytes


def test_runs_that_share_a_folder_ask_once(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    first, second = Run(tmp_path / "one"), Run(tmp_path / "two")
    teacher.cached(data, first, epochs=2, folder=tmp_path / "shared")
    untouched = Killed(teacher, 3)  # the live probe: the rating split, and 64 views in two chunks
    cache = untouched.cached(data, second, epochs=2, folder=tmp_path / "shared")
    assert isinstance(cache, ViewCache) and cache.folder.parent == tmp_path / "shared" and untouched.calls == 0
    assert not (tmp_path / "two" / "teacher" / "cache").exists()
    with pytest.raises(KeyboardInterrupt):
        cache.prefill(data, 3, second)


def test_a_cache_of_other_data_is_refused_before_the_training(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    cache = ViewCache.open(tmp_path, teacher, data, epochs=0)
    x = torch.zeros(60, 3, 8, 8, dtype=torch.uint8)
    other = load_data((x, torch.arange(60) % 3), rate=6, select=6, views="all", flip=True)
    for given in (cache, [cache, teacher]):
        with pytest.raises(SettingError, match="different data"):
            train(given, other)


def test_augmentation_that_has_no_views_is_taught_live_and_said(tmp_path: Path, data: Data, teacher: Teacher) -> None:
    x = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    fresh = load_data((x, torch.arange(60) % 3), rate=6, select=6, views="all", augment="rand-m3")
    train(teacher, fresh, tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text().count("the teacher runs live") == 1
    assert not (tmp_path / "run" / "teacher" / "cache").exists()
