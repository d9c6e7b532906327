"""DNA++: stages that learn from the moving average of their own weights, without labels and teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd import losses
from nas_kd.data import Batch, Data
from nas_kd.distill import sampling
from nas_kd.distill.sampling import PairedBatch
from nas_kd.errors import SettingError
from nas_kd.rate import rate_blockwise
from nas_kd.rate.errors import COSINE
from nas_kd.runtime.device import Runtime
from nas_kd.runtime.stop import Stopped
from nas_kd.solve import exact_front
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train import loop
from nas_kd.train.optim import Schedule
from nas_kd.train.stage_average import ApartCosine, OneByOne, StageAverage, own_taps, turn_of
from nas_kd.train.stages import Blockwise

SETTINGS: dict[str, Any] = {"source": "average", "error": "cosine", "epochs": 2, "batch_size": 30, "seed": 4}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_cosine_is_that_of_the_means_over_positions() -> None:
    student, teacher = drawn(5, 4, 3, 3), drawn(5, 4, 3, 3, seed=1)
    means = student.mean((2, 3)), teacher.mean((2, 3))
    wanted = (1 - torch.nn.functional.cosine_similarity(*means)).mean()
    torch.testing.assert_close(losses.pooled_cosine(student, teacher), wanted)
    turned = teacher.flip(3)  # another view of the same image: positions do not count
    torch.testing.assert_close(losses.pooled_cosine(student, turned), wanted)
    torch.testing.assert_close(COSINE(student, teacher), wanted)
    torch.testing.assert_close(COSINE(3 * student, teacher), wanted)
    assert abs(float(COSINE(teacher, teacher))) < 1e-12


def test_the_likeness_is_one_for_one_answer_and_zero_for_right_angles() -> None:
    same = torch.ones(4, 3, 2, 2, dtype=torch.float64)
    assert float(losses.likeness(same)) == pytest.approx(1.0)
    assert float(losses.likeness(torch.eye(4, dtype=torch.float64)[:, :, None, None])) == 0.0
    assert float(losses.likeness(same[:1])) == 0.0
    x = drawn(4, 3, 2, 2).requires_grad_()
    rows = torch.nn.functional.normalize(x.mean((2, 3)), dim=1)
    wanted = sum(float((rows[i] @ rows[j]).detach()) ** 2 for i in range(4) for j in range(4) if i != j) / 12
    assert float(losses.likeness(x).detach()) == pytest.approx(wanted)
    assert torch.autograd.gradcheck(losses.likeness, x)
    both = ApartCosine(0.5)(x, drawn(4, 3, 2, 2, seed=1))
    torch.testing.assert_close(both, losses.pooled_cosine(x, drawn(4, 3, 2, 2, seed=1)) + 0.5 * losses.likeness(x))


def test_the_average_is_that_of_its_formula_and_moves_one_stage(net: Supernet, data: Data) -> None:
    model = Blockwise(net, own_taps(net.space, 8))
    average = StageAverage(net, model, decay=0.75)
    before = {name: value.clone() for name, value in average.net.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(0)
    for name, value in average.net.named_parameters():
        moved = name.startswith(("stem.", "stages.0."))
        torch.testing.assert_close(value, before[name] + 0.25 if moved else before[name])
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_it_answers_as_the_largest_arch(net: Supernet, data: Data) -> None:
    model = Blockwise(net, own_taps(net.space, 8))
    average = StageAverage(net, model, decay=0.9)
    batches = [batch.x for batch in data.train.clean(30)]
    average.settle(batches)
    norm = nas_kd.calibrate(net, batches, archs=[net.space.largest()])[0]
    found, wanted = average.forward_stages(batches[0]), net.forward_stages(batches[0], net.space.largest(), norm)
    for one, other in zip(found.pre, wanted.pre, strict=True):
        assert torch.equal(one, other) and not one.requires_grad


def test_stages_take_turns_of_equal_length_each_with_the_whole_schedule() -> None:
    turns = [turn_of(step, 10, [0, 1, 2]) for step in range(10)]
    assert turns == sorted(turns) and {turns.count(index) for index in range(3)} <= {3, 4}
    plan, each = Schedule(0.1), OneByOne(Schedule(0.1), 2)
    rates = [each.at(step, 4, 2) for step in range(8)]
    assert rates[:4] == rates[4:] == [plan.at(step, 4, 1) for step in range(4)]


def test_no_label_and_no_teacher_is_asked(
    net: Supernet, data: Data, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = rate_blockwise(net, None, data, runtime=runtime, **SETTINGS)
    for table in tables:
        assert "teacher" not in table and table["score"].between(0, 2).all() and table["score"].nunique() > 2
    assert len(exact_front(tables, budget="macs")) > 1

    def unlabelled(own: Batch, other: Batch) -> PairedBatch:
        return PairedBatch(own.x, torch.full_like(own.y, -1), own.index, own.view, other.x)

    monkeypatch.setattr(sampling, "_pair", unlabelled)
    again = rate_blockwise(net, None, data, runtime=runtime, **SETTINGS)
    for one, other in zip(tables, again, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_it_goes_on_where_it_was_stopped_with_the_same_weights(
    net: Supernet, data: Data, runtime: Runtime, tmp_path: Path, monkeypatch: Any
) -> None:
    whole = rate_blockwise(net, None, data, run=tmp_path / "whole", runtime=runtime, **SETTINGS)
    real, seen = loop._should_stop, []

    def stop(*args: Any) -> bool:
        seen.append(args)
        return len(seen) == 3 or real(*args)

    monkeypatch.setattr(loop, "_should_stop", stop)
    with pytest.raises(Stopped):
        rate_blockwise(net, None, data, run=tmp_path / "parts", runtime=runtime, **SETTINGS)
    monkeypatch.undo()
    parts = rate_blockwise(net, None, data, run=tmp_path / "parts", runtime=runtime, **SETTINGS)
    for one, other in zip(whole, parts, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    weights = [(tmp_path / name / "blockwise/adapters.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    with pytest.raises(SettingError, match=r"blockwise\.average_decay"):
        rate_blockwise(net, None, data, run=tmp_path / "parts", runtime=runtime, average_decay=0.9, **SETTINGS)


def test_learning_lowers_the_distance_and_keeps_images_apart(net: Supernet, data: Data, runtime: Runtime) -> None:
    few, many = (
        rate_blockwise(net, None, data, runtime=runtime, **SETTINGS | {"epochs": epochs, "lr": 0.01})
        for epochs in (1, 12)
    )
    for before, after in zip(few, many, strict=True):
        assert after["score"].median() < before["score"].median()


def test_a_search_takes_such_tables_with_any_teacher(
    net: Supernet, teacher: Teacher, data: Data, runtime: Runtime
) -> None:
    tables = rate_blockwise(net, None, data, runtime=runtime, **SETTINGS)
    result = nas_kd.search(
        net, teacher, data, tables, max_macs="60%", trials=3, tuned=0, epochs=0, seed=0, runtime=runtime
    )
    assert result.best.space == net.space.hash


def test_what_it_cannot_do_is_said(net: Supernet, data: Data, runtime: Runtime) -> None:
    with pytest.raises(SettingError, match=r"blockwise\.error='nsr'.*cosine"):
        rate_blockwise(net, None, data, runtime=runtime, source="average")
    with pytest.raises(SettingError, match="teacher"):
        rate_blockwise(net, None, data, runtime=runtime, epochs=1, batch_size=30)
    flat = nas_kd.load_data((torch.zeros(60, 1, 8, 8, dtype=torch.uint8), torch.arange(60) % 3), rate=12, views=1)
    with pytest.raises(SettingError, match=r"data\.views"):
        rate_blockwise(net, None, flat, runtime=runtime, **SETTINGS)
