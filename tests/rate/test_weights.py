"""Weights of stages: a known regression is found again, and replaced stages cost what the teacher says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nas_kd.data import Data
from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.rate import rate_blockwise
from nas_kd.rate.scores import Bench
from nas_kd.rate.scores.replace import logits_with
from nas_kd.rate.weights import learned_weights, sensitivity_weights
from nas_kd.runs.run import Run
from nas_kd.runtime.device import Runtime
from nas_kd.space.rows import arch_of_rows, stage_scores
from nas_kd.supernet import Supernet
from nas_kd.teacher import Teacher
from nas_kd.train import load_weights
from nas_kd.train.stages import Blockwise


@pytest.fixture
def rated(net: Supernet, teacher: Teacher, data: Data, runtime: Runtime, tmp_path: Path) -> tuple[list, Bench]:
    run = Run(tmp_path / "run")
    tables = rate_blockwise(net, teacher, data, run=run, runtime=runtime, epochs=2, batch_size=30, seed=1)
    model = Blockwise(net, teacher.taps or ())
    load_weights(model, run.path / "blockwise" / "adapters.safetensors")
    return tables, Bench(net.space, data, runtime, teacher, net, model, calibration_images=32)


def test_stage_scores_are_the_rows_of_the_arch(rated: tuple[list, Bench]) -> None:
    tables, bench = rated
    rng = np.random.default_rng(0)
    for _ in range(10):
        first = rng.integers(len(tables[0]))
        fits = np.flatnonzero(tables[1]["in_width"] == tables[0]["out_width"].iloc[first])
        labels = [first, rng.choice(fits)]
        arch = arch_of_rows(bench.space, tables, labels)
        wanted = [table.loc[label, "score"] for table, label in zip(tables, labels, strict=True)]
        assert stage_scores(bench.space, tables)(arch) == wanted


def test_known_weights_are_learned(rated: tuple[list, Bench]) -> None:
    tables, bench = rated
    archs = [bench.space.sample(seed) for seed in range(40)]
    of_arch = stage_scores(bench.space, tables)
    scores = np.array([of_arch(arch) for arch in archs])
    found = learned_weights(tables, bench.space, archs, 0.9 - scores @ [0.3, 0.1])
    assert found.values == pytest.approx([1.5, 0.5], rel=1e-2)
    assert found.table["leave_one_out_error"].iloc[0] < 1e-3
    # better scores of the second stage went with worse accuracy: it counts for nothing
    turned = learned_weights(tables, bench.space, archs, 0.9 - scores @ [0.3, -0.1])
    assert turned.values == pytest.approx([2.0, 0.0])
    with pytest.raises(SettingError, match="at least 8 trained archs"):
        learned_weights(tables, bench.space, archs[:7], [0.5] * 7)
    with pytest.raises(SettingError, match="predicts something"):
        learned_weights(tables, bench.space, archs, scores.sum(axis=1))


def test_sensitivity_is_the_slope_of_the_teachers_kl(rated: tuple[list, Bench], data: Data) -> None:
    tables, bench = rated
    found = sensitivity_weights(bench, tables)
    teacher, model = bench.need_teacher(), bench.need_model()
    calibration, _ = bench.features()
    slopes = []
    for index, table in enumerate(tables):  # all rows of the small stages, one after the other
        rows = table.sort_values("score", kind="stable")
        rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(16, len(rows))).round().astype(int))]
        pairs = []
        for row in rows.itertuples():
            candidate = bench.space.stages[index].candidates()[row.candidate]
            key = (index, bench.space.stem.choices()[0] if index == 0 else row.in_width, candidate)
            norm = bench.calibrated(key, calibration)[0]
            with torch.no_grad():
                x = torch.cat([batch.x for batch in data.rate.clean(64)])
                out = teacher.forward_stages(x)
                inputs = model.features(x, out)[index].inputs
                answer = model.leave(index, bench.run_stage(key, inputs, norm)) * model.target_scale[index]
                kl = kl_divergence(logits_with(teacher, index, x, out.pre[index], answer), out.logits)
            pairs.append((row.score, float(kl)))
        scores, kls = np.array(pairs).T
        slopes.append((scores * kls).sum() / (scores**2).sum())
    assert found.table["kl_per_score"].tolist() == pytest.approx(slopes, rel=1e-4)
    assert found.values == pytest.approx([slope / np.mean(slopes) for slope in slopes], rel=1e-4)
    assert np.mean(found.values) == pytest.approx(1.0)
