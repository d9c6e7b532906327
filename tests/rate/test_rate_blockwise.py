"""rate_blockwise as users call it: tables, resume, refusal, independence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.nn import Output
from nas_kd.rate import blockwise as module
from nas_kd.rate import rate_blockwise
from nas_kd.runs.stage import Stage
from nas_kd.runtime.device import Runtime
from nas_kd.space.rows import full_rows
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train.weights import weights_hash

COLUMNS = ["score", "macs", "params", "in_width", "out_width", "candidate", "label", "images", "space", "teacher"]
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 30, "calibration_images": 32, "seed": 4}


def contents(folder: Path) -> dict[str, bytes]:
    names = ["metrics.csv", "summary.csv", *(f"{n}_{i}.csv" for n in ("stage", "half") for i in (1, 2))]
    return {name: (folder / "blockwise" / name).read_bytes() for name in [*names, "adapters.safetensors"]}


def test_tables_are_whole_and_costs_add_up(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, capsys: Any
) -> None:
    before = weights_hash(net)
    tables = rate_blockwise(net, teacher, data, run=str(tmp_path / "run"), runtime=runtime, **SETTINGS)
    assert weights_hash(net) == before
    for index, (table, stage) in enumerate(zip(tables, net.space.stages, strict=True)):
        assert list(table) == COLUMNS
        read = pd.read_csv(tmp_path / f"run/blockwise/stage_{index + 1}.csv")  # as anybody reads it
        assert set(read["space"]) == {f"{net.space.name} {net.space.hash}"[: len(net.space.name) + 13]}
        assert set(read["teacher"]) == {f"{teacher.name} {teacher.fingerprint[:12]}"}
        assert table.index.equals(pd.RangeIndex(len(net.space.in_widths(index)) * stage.size))
        assert not table.duplicated(["in_width", "candidate"]).any()
        assert table["score"].between(0, 5).all() and (table["images"] == 24).all()
        for row in table.itertuples():
            candidate = stage.candidates()[row.candidate]
            assert (row.label, row.out_width) == (candidate.label, candidate.width)
    arch = net.space.sample(3)
    chain, width = [], net.space.stem.width
    for stage, table, candidate in zip(net.space.stages, tables, arch.stages, strict=True):
        number = stage.candidates().index(candidate)
        chain.append(table[(table["in_width"] == width) & (table["candidate"] == number)].iloc[0])
        width = candidate.width
    cost = net.space.cost(arch, resolution=8, in_chans=1, num_classes=3)
    assert (sum(row["macs"] for row in chain), sum(row["params"] for row in chain)) == cost
    summary = pd.read_csv(tmp_path / "run" / "blockwise" / "summary.csv")
    assert list(summary["rated"]) == ["all", "all"] and list(summary["rows"]) == [12, 40]
    assert summary["tau_half_full"].between(-1, 1).all()
    # widths x (mids + mids^2) of one input width; widths x (mids + mids^2 + mids^3) of two
    assert list(summary["layer_evaluations"]) == [2 * 6, 2 * 2 * 14]
    assert list(summary["layer_evaluations_path_by_path"]) == [2 * (2 + 8), 2 * 2 * (2 + 24)]
    said = capsys.readouterr().err
    assert "stage 2: 40 rows all rated, tau(half, end)" in said


def test_a_finished_stage_is_read_back(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    first = rate_blockwise(net, teacher, data, run=run, runtime=runtime, **SETTINGS)
    monkeypatch.setattr(module, "train_blockwise", None)
    again = rate_blockwise(net, teacher, data, run=run, runtime=runtime, **SETTINGS)
    for one, other in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    with pytest.raises(SettingError, match="blockwise.lr"):
        rate_blockwise(net, teacher, data, run=run, runtime=runtime, lr=1e-3, **SETTINGS)
    with torch.no_grad():
        net.stem.conv.weight[0, 0, 0, 0] += 1
    with pytest.raises(SettingError, match="supernet"):
        rate_blockwise(net, teacher, data, run=run, runtime=runtime, **SETTINGS)


def test_killed_anywhere_it_ends_with_the_same_bytes(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: Any
) -> None:
    rate_blockwise(net, teacher, data, run=tmp_path / "whole", runtime=runtime, **SETTINGS)
    expected = contents(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(name: str, method: str) -> None:
        """Kill right after a method of the stage was called with the name."""
        original = getattr(Stage, method)

        def killing(self: Stage, first: Any, *rest: Any) -> None:
            original(self, first, *rest)
            if name in (first, None) or (isinstance(first, dict) and name == str(first.get("epoch"))):
                raise Killed

        monkeypatch.setattr(Stage, method, killing)
        with pytest.raises(Killed):
            rate_blockwise(net, teacher, data, run=tmp_path / "killed", runtime=runtime, **SETTINGS)
        monkeypatch.setattr(Stage, method, original)

    kill("half_1.csv", "write_frame")  # in the half-time rating, before the checkpoint of its epoch
    kill("2", "save")  # after the second epoch
    kill("stage_1.csv", "write_frame")  # between two stages of the rating
    rate_blockwise(net, teacher, data, run=tmp_path / "killed", runtime=runtime, **SETTINGS)
    assert contents(tmp_path / "killed") == expected


def test_without_a_run_the_numbers_are_the_same(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path
) -> None:
    kept = rate_blockwise(net, teacher, data, run=tmp_path, runtime=runtime, **SETTINGS)
    loose = rate_blockwise(net, teacher, data, runtime=runtime, **SETTINGS)
    for one, other in zip(kept, loose, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("setting", [{"train": False}, {"init": "scratch"}, {"sampling": "uniform"}, {"paths": 1}])
def test_settings_make_a_difference(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, setting: dict[str, Any]
) -> None:
    settings = SETTINGS | {"epochs": 1}
    plain = rate_blockwise(net, teacher, data, runtime=runtime, **settings)
    other = rate_blockwise(net, teacher, data, runtime=runtime, **settings | setting)
    assert not plain[1]["score"].equals(other[1]["score"])


class Changed(Teacher):
    """A teacher whose features are multiplied: one factor a stage, for what it gives and what it wants."""

    post: tuple[float, float] = (1.0, 1.0)
    before: tuple[float, float] = (1.0, 1.0)

    def forward_stages(self, x: torch.Tensor) -> Output:
        out = super().forward_stages(x)
        stages = [f * factor for f, factor in zip(out.stages, self.post, strict=True)]
        return out._replace(stages=stages, pre=[f * c for f, c in zip(out.pre, self.before, strict=True)])


def changed(teacher: Teacher, **factors: tuple[float, float]) -> Changed:
    other = Changed(teacher._module, teacher.name, num_classes=3, in_chans=1)
    for name, value in factors.items():
        setattr(other, name, value)
    return other


def test_scores_do_not_depend_on_the_teachers_scale(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime
) -> None:
    plain = rate_blockwise(net, teacher, data, runtime=runtime, **SETTINGS)
    loud = changed(teacher, post=(64.0, 64.0), before=(64.0, 64.0))
    for one, other in zip(plain, rate_blockwise(net, loud, data, runtime=runtime, **SETTINGS), strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_stages_are_independent(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime) -> None:
    """Another target of the second stage changes nothing in the first, to the bit."""
    plain = rate_blockwise(net, teacher, data, runtime=runtime, **SETTINGS)
    other = rate_blockwise(net, changed(teacher, before=(1.0, -1.0)), data, runtime=runtime, **SETTINGS)
    pd.testing.assert_frame_equal(plain[0], other[0], check_exact=True)
    assert not plain[1]["score"].equals(other[1]["score"])


def test_training_lowers_the_scores(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime) -> None:
    settings = SETTINGS | {"lr": 1e-12, "weight_decay": 0.0}
    before = rate_blockwise(net, teacher, data, runtime=runtime, **settings)
    after = rate_blockwise(net, teacher, data, runtime=runtime, **SETTINGS | {"epochs": 12, "lr": 0.01})
    for one, other in zip(before, after, strict=True):
        assert other["score"].mean() < one["score"].mean()


def test_above_the_limit_rows_are_halved(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path, capsys: Any
) -> None:
    settings = SETTINGS | {"max_rows": 24}
    tables = rate_blockwise(net, teacher, data, run=tmp_path, runtime=runtime, **settings)
    assert len(full_rows(tables[0])) == len(tables[0]) == 12
    assert len(full_rows(tables[1])) < len(tables[1]) == 40
    summary = pd.read_csv(tmp_path / "blockwise" / "summary.csv")
    assert list(summary["rated"]) == ["all", "halving"]
    assert "rated by halving" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"epochs": 0}, "blockwise.epochs"),
        ({"batch_size": 10_000}, "blockwise.batch_size"),
        ({"init": "supernett"}, "blockwise.init"),
        ({"sampling": "fare"}, "blockwise.sampling"),
        ({"paths": 0}, "blockwise.paths"),
        ({"rate_images": 0}, "blockwise.rate_images"),
        ({"calibration_images": 1}, "blockwise.calibration_images"),
        ({"max_rows": 0}, "blockwise.max_rows"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_bad_settings_are_named(
    net: Supernet, teacher: Teacher, data: Data, tmp_path: Path, setting: dict[str, Any], field: str
) -> None:
    with pytest.raises(SettingError, match=field):
        rate_blockwise(net, teacher, data, run=tmp_path / "run", **SETTINGS | setting)
    assert not (tmp_path / "run").exists()
