"""A training of the truth that is stopped, killed, damaged or taken over gives the row of an undisturbed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import nas_kd.train.loop as loop
from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.ranking.config import RankConfig
from nas_kd.ranking.ground_truth import StandaloneTraining, ground_truth, trainings_of
from nas_kd.runs.leases import FileLeases
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.stop import Stopped
from nas_kd.space import Arch, ElasticSpace
from nas_kd.teacher import Teacher, ViewCache
from nas_kd.train.many import TrainingSetup
from nas_kd.train.moving import MovingStage, MovingStages

HOW = RankConfig(epochs=2, batch_size=20, warmup_epochs=0.25, ema=0.9).settled(inherited=False, texts=False)
TIMES = ("seconds", "cpu_seconds")
Alike = Callable[..., dict[str, float]]


@pytest.fixture(scope="module")
def cache(teacher: Teacher, data: Data, tmp_path_factory: pytest.TempPathFactory) -> ViewCache:
    cache = ViewCache.open(tmp_path_factory.mktemp("cache"), teacher, data, epochs=HOW.epochs)
    cache.split_logits("test")
    return cache


@pytest.fixture
def arch(space: ElasticSpace) -> Arch:
    return space.sample(3)


@pytest.fixture
def standalone(space: ElasticSpace, cache: ViewCache, data: Data, runtime: Runtime, arch: Arch) -> StandaloneTraining:
    return StandaloneTraining(TrainingSetup(cache, data, space, None, runtime), arch, 1, HOW)


@pytest.fixture
def alone(standalone: StandaloneTraining) -> Alike:
    """Train the arch; what it gives without its times."""

    def call(stage: MovingStage | None = None) -> dict[str, float]:
        found = standalone.train_in(stage)
        assert all(found[name] > 0 for name in TIMES)
        return {name: value for name, value in found.items() if name not in TIMES}

    return call


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something at the nth step that is trained from now on."""

    def arm(nth: int, do: Callable[[], object]) -> None:
        left = [nth]

        def seeded(*parts: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                do()
            real(*parts)

        monkeypatch.setattr(loop, "seeded", seeded)

    real = loop.seeded
    return arm


def take(run: Run, arch: Arch, worker: str) -> MovingStage:
    return MovingStages(run, "rank", worker).take(arch.key, 1, {"epochs": HOW.epochs})


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_after_every_step_by_worker_after_worker(alone: Alike, run: Run, arch: Arch, at: Callable) -> None:
    whole, stops = alone(), 0
    while True:
        at(1, term)
        training = take(run, arch, f"host.name-{stops}-ab")
        assert [path.name for path in training.folder.parent.iterdir()] == [training.folder.name]
        try:
            ended = alone(training)
        except Stopped as stop:
            assert f"rank {arch.key}_seed_1 saved in epoch" in str(stop)
            stops += 1
        else:
            break
    assert ended == whole and stops == 2 * 5  # all steps


def test_what_a_training_took_before_counts(standalone: StandaloneTraining, run: Run, arch: Arch, at: Callable) -> None:
    training = take(run, arch, "a")
    at(7, term)
    with pytest.raises(Stopped):
        standalone.train_in(training)
    path = training.folder / "last.pt"
    state = torch.load(path, weights_only=True)
    assert len(state["spent"]) == 2 and all(value > 0 for value in state["spent"])
    torch.save(state | {"spent": [5000.0, 7000.0]}, path)
    found = standalone.train_in(take(run, arch, "b"))
    assert 5000 < found["seconds"] < 6000 and 7000 < found["cpu_seconds"] < 8000
    assert not run.timing.frame().shape[0]  # the time is in the row alone


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_falls_back(alone: Alike, run: Run, arch: Arch, at: Callable, spoil: str) -> None:
    at(8, term)  # two checkpoints: of the first epoch, and from the middle of the second
    with pytest.raises(Stopped):
        alone(take(run, arch, "a"))
    training = take(run, arch, "b")
    path = training.folder / "last.pt"
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle] ^= 16
    path.write_bytes({"cut": whole[:middle], "flip": whole, "empty": b""}[spoil])
    assert alone(training) == alone()
    assert "last.pt is damaged" in (run.path / "log.txt").read_text()
    for name in ("last.pt", "previous.pt"):
        (training.folder / name).write_bytes(b"nothing")
    with pytest.raises(SettingError, match="delete .*trainings.*starts over"):
        alone(take(run, arch, "c"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("moment", ["step", "replace", "stop"])
def test_a_worker_that_was_taken_for_lost_writes_nothing(
    alone: Alike, run: Run, arch: Arch, at: Callable, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other, seen = alone(), [], []

    def over() -> None:
        other.append(take(run, arch, "b"))
        seen.append(snapshot(other[0].folder))
        if moment == "stop":
            term()

    if moment == "replace":  # a checkpoint is written, and about to take its name
        real = os.replace

        def replaced(source: object, target: object) -> None:
            if str(target).endswith("last.pt") and not other:
                over()
            real(source, target)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "replace", replaced)
    else:
        at(7, over)  # in the second epoch
    lost = take(run, arch, "a")
    with pytest.raises(Stopped if moment == "stop" else FileNotFoundError):
        alone(lost)
    assert lost.taken_over and not other[0].taken_over
    assert snapshot(other[0].folder) == seen[0]
    assert {path.name for path in (run.path / "rank" / "trainings").iterdir()} == {other[0].folder.name}
    assert ("last.pt" in seen[0]) == (moment != "replace")
    monkeypatch.undo()
    assert alone(other[0]) == whole


@pytest.fixture
def truth(space: ElasticSpace, cache: ViewCache, data: Data, runtime: Runtime, run: Run) -> Callable[[], int]:
    """Train two archs from two seeds, or go on with it."""
    archs = [space.sample(seed) for seed in (3, 4)]
    shared = trainings_of(archs, 2, TrainingSetup(cache, data, space, run, runtime), HOW, run)
    return lambda: int(shared.train()["trained"])


def rows(run: Run) -> dict[tuple[str, int], dict[str, float]]:
    table = ground_truth(run, "accuracy").frame()
    assert not table.duplicated(["key", "seed"]).any()
    return {(row.pop("key"), row.pop("seed")): row for row in table.drop(columns=list(TIMES)).to_dict("records")}


def test_the_folder_of_a_training_goes_with_its_row(
    truth: Callable[[], int], run: Run, arch: Arch, alone: Alike, at: Callable
) -> None:
    at(17, term)  # in the second training
    with pytest.raises(Stopped, match="saved in epoch 2 after step 2 of 5"):
        truth()
    (left,) = (run.path / "rank" / "trainings").iterdir()
    part = left / ".last.pt.123.tmp"
    part.write_bytes(b"of a kill")
    (run.path / "rank" / ".truth.csv.123.tmp").touch()
    with run.locked():  # of a command that does other things: the ranking's files are not its own
        assert part.exists()
    at(100, term)
    assert truth() == 3  # 3 + 2 x 10 steps
    found = rows(run)
    assert len(found) == 4 and found[arch.key, 1] == alone()
    assert not (run.path / "rank" / "trainings").exists()
    assert not [path for path in (run.path / "rank").rglob(".*")]
    # killed between the row and the folder
    take(run, arch, "killed")
    at(1, lambda: pytest.fail("nothing is to be trained"))
    assert truth() == 0 and not (run.path / "rank" / "trainings").exists()


def test_who_comes_back_goes_on_with_another_training(truth: Callable[[], int], run: Run, at: Callable) -> None:
    """Its lease is gone, and all is done by another before it takes its next step."""
    store, did = FileLeases(run.path / "rank" / "leases"), []

    def lose() -> None:
        for row in store.rows():
            store.drop(row.worker)
        did.append(truth())

    at(7, lose)
    assert truth() == 0 and did == [4]
    assert len(rows(run)) == 4 and store.rows() == []


def test_skipped_steps_stay_listed(
    truth: Callable[[], int], run: Run, monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    import nas_kd.train.network as network

    real, calls = network.Distiller.step, []

    def spoilt(*given: object) -> object:
        calls.append(1)
        values = dict(real(*given))  # type: ignore[arg-type]
        return values | {"loss": values["loss"] * float("nan")} if len(calls) == 4 else values

    monkeypatch.setattr(network.Distiller, "step", spoilt)
    monkeypatch.setattr(runtime, "on_nan", "skip")
    assert truth() == 4
    (kept,) = (run.path / "rank" / "skipped").iterdir()
    assert kept.name.endswith("_seed_0.csv") and pd.read_csv(kept)["steps"].tolist() == [4]


def test_another_training_has_another_folder(run: Run, arch: Arch, space: ElasticSpace) -> None:
    other = next(a for a in map(space.sample, range(9)) if a != arch)
    mine = take(run, arch, "a")
    assert take(run, other, "a").folder != mine.folder
    assert MovingStages(run, "rank", "a").take(arch.key, 11, {}).folder != mine.folder and not mine.taken_over
    with pytest.raises(SettingError, match="epochs"):
        MovingStages(run, "rank", "b").take(arch.key, 1, {"epochs": replace(HOW, epochs=3).epochs})
