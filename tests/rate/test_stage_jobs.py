"""Stages as jobs of their own, and the teacher's features on the disk: the tables of a whole rating."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from clean_forks import clean_forks

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import Output
from nas_kd.rate import blockwise as module
from nas_kd.rate import rate_blockwise
from nas_kd.runs.run import Run
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.teacher.stored_features import StageFeatureFiles, feature_bytes

SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 30, "calibration_images": 32, "seed": 4}
TABLES = ["stage_1.csv", "stage_2.csv", "half_1.csv", "half_2.csv"]


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / "blockwise" / name).read_bytes() for name in [*TABLES, "summary.csv", "adapters.safetensors"]}


def in_process(call: Any, *arguments: Any, **more: Any) -> None:
    process = clean_forks().Process(target=call, args=arguments, kwargs=more)
    process.start()
    process.join(120)
    assert process.exitcode == 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_jobs_of_single_stages_give_the_tables_of_the_whole(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: Any, cache_gb: float
) -> None:
    settings = SETTINGS | {"runtime": runtime, "cache_gb": cache_gb}
    whole = rate_blockwise(net, teacher, data, run=tmp_path / "whole", **settings)
    Run(tmp_path / "jobs")
    for stage in (2, 1):  # each in a process of its own
        in_process(rate_blockwise, net, teacher, data, run=tmp_path / "jobs", stage=stage, **settings)
        folder = tmp_path / "jobs" / "blockwise" / f"stage_{stage}"
        for name in (f"stage_{stage}.csv", f"half_{stage}.csv"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / "blockwise" / name).read_bytes()
    again = rate_blockwise(net, teacher, data, run=tmp_path / "jobs", stage=2, **settings)
    assert len(again) == 1
    pd.testing.assert_frame_equal(again[0], whole[1], check_exact=True)
    monkeypatch.setattr(module, "train_blockwise", None)  # nothing is left to train
    joined = rate_blockwise(net, teacher, data, run=tmp_path / "jobs", **settings)
    assert contents(tmp_path / "jobs") == contents(tmp_path / "whole")
    for one, other in zip(whole, joined, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_whole_rating_trains_what_jobs_have_not(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: Any
) -> None:
    settings = SETTINGS | {"runtime": runtime}
    rate_blockwise(net, teacher, data, run=tmp_path / "whole", **settings)
    run = tmp_path / "mixed"
    rate_blockwise(net, teacher, data, run=run, stage=2, **settings)
    original = Stage.save

    class Killed(BaseException):
        pass

    def killing(self: Stage, state: Any) -> None:
        original(self, state)
        assert "stage_1" in state and "stage_2" not in state
        raise Killed

    monkeypatch.setattr(Stage, "save", killing)
    with pytest.raises(Killed):
        rate_blockwise(net, teacher, data, run=run, **settings)
    monkeypatch.setattr(Stage, "save", original)
    rate_blockwise(net, teacher, data, run=run, **settings)
    assert contents(run) == contents(tmp_path / "whole")


def test_a_job_of_other_settings_is_refused(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    settings = SETTINGS | {"runtime": runtime, "epochs": 1}
    rate_blockwise(net, teacher, data, run=tmp_path, stage=1, **settings)
    with pytest.raises(SettingError, match=r"blockwise\.lr"):
        rate_blockwise(net, teacher, data, run=tmp_path, lr=1e-3, **settings)
    for stage, range_ in ((0, "at least 1"), (3, "1 to 2")):
        with pytest.raises(SettingError, match=rf"blockwise\.stage={stage}: expected .*{range_}"):
            rate_blockwise(net, teacher, data, stage=stage, **settings)


class Counting(Teacher):
    """A teacher that counts the images it looks at."""

    seen = 0

    def forward_stages(self, x: torch.Tensor) -> Output:
        self.seen += len(x)
        return super().forward_stages(x)


@pytest.fixture
def counting(teacher: Teacher) -> Counting:
    return Counting(teacher._module, teacher.name, num_classes=3, in_chans=1)


def test_the_teacher_sees_each_image_once_and_with_stored_features_never(
    net: Supernet, counting: Counting, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    still = 32 + len(data.rate)  # calibration and rating images
    settings = SETTINGS | {"runtime": runtime, "batch_size": 15, "epochs": 2}
    steps = data.train.steps(15)
    live = rate_blockwise(net, counting, data, **settings)
    assert counting.seen == still + 2 * 15 * steps  # one forward an image and epoch, for all stages and paths
    counting.seen = 0
    stored = rate_blockwise(net, counting, data, run=tmp_path, cache_gb=1.0, **settings)
    assert still + 2 * 15 * steps <= counting.seen <= still + 32 * -(-2 * 15 * steps // 15)  # filled up to 32
    counting.seen = 0
    job = rate_blockwise(net, counting, data, run=tmp_path, cache_gb=1.0, stage=1, **settings)
    assert counting.seen == still
    pd.testing.assert_frame_equal(job[0], stored[0], check_exact=True)
    for one, other in zip(live, stored, strict=True):  # rounded to eleven bits, nothing more
        assert (one["score"] - other["score"]).abs().max() < 0.02 * one["score"].mean()


def test_stored_features_are_the_teachers(counting: Counting, data: Data, net: Supernet, tmp_path: Path) -> None:
    taps = counting.bind(data).match(net.space, data.resolution)
    stored = StageFeatureFiles(counting, data, tmp_path, ([4.0, 1.0], [0.5, 2.0]))
    files = list(tmp_path.rglob("*.npy"))
    headers = 128 * len(files)
    assert sum(path.stat().st_size for path in files) == feature_bytes(taps, len(data.train), 2) + headers
    assert sum(512 * path.stat().st_blocks for path in files) >= feature_bytes(taps, len(data.train), 2)  # no holes
    for batch in data.train.batches(20, epoch=1, seed=0):
        found, live = stored.features(batch), counting.forward_stages(batch.x)
        assert torch.allclose(found.stages[0], live.stages[0], rtol=2e-3, atol=1e-6)
        for one, other in zip(found.pre, live.pre, strict=True):
            assert torch.allclose(one, other, rtol=2e-3, atol=1e-6)
    counting.seen = 0
    again = StageFeatureFiles(counting, data, tmp_path, ([4.0, 1.0], [0.5, 2.0]))
    for batch in data.train.batches(12, epoch=1, seed=0):
        again.features(batch)
    assert counting.seen == 0


def test_features_that_do_not_fit_are_not_stored(
    net: Supernet, counting: Counting, data: Data, runtime: Runtime, tmp_path: Path, capsys: Any
) -> None:
    settings = SETTINGS | {"runtime": runtime, "epochs": 1}
    rate_blockwise(net, counting, data, run=tmp_path, cache_gb=1e-6, **settings)
    assert "the teacher runs live: its features need" in capsys.readouterr().err
    assert not (tmp_path / "teacher" / "features").exists()
    with pytest.raises(SettingError, match=r"blockwise\.cache_gb"):
        rate_blockwise(net, counting, data, cache_gb=-1.0, **settings)


def test_with_mixed_inputs_later_stages_learn_otherwise_and_none_learns_alone(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    settings = SETTINGS | {"runtime": runtime}
    plain = rate_blockwise(net, teacher, data, run=tmp_path / "plain", **settings)
    mixed = rate_blockwise(net, teacher, data, run=tmp_path / "mixed", mix=0.9, **settings)
    pd.testing.assert_frame_equal(plain[0], mixed[0], check_exact=True)  # images enter the first stage always
    assert (plain[1]["score"] != mixed[1]["score"]).all()
    again = rate_blockwise(net, teacher, data, mix=0.9, **settings)
    pd.testing.assert_frame_equal(mixed[1], again[1], check_exact=True)
    with pytest.raises(SettingError, match="blockwise.mix"):
        rate_blockwise(net, teacher, data, run=tmp_path / "plain", mix=0.9, **settings)
    with pytest.raises(SettingError, match="rate all stages together"):
        rate_blockwise(net, teacher, data, run=tmp_path / "alone", mix=0.9, stage=2, **settings)
    with pytest.raises(SettingError, match="below 1"):
        rate_blockwise(net, teacher, data, mix=1.0, **settings)
