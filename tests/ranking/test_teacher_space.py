"""A ranking whose space is the teacher: archs inherit its weights, and its units' scores are among those compared."""

from __future__ import annotations

from pathlib import Path

import pytest

import nas_kd
from nas_kd.errors import SettingError

SCORES = ["units_kl", "units_local", "supernet_kl", "code_alone", "macs", "params"]


def test_archs_inherit_and_units_are_scored(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits", subset=400, rate=0.15, select=0.15, views=2)
    run = nas_kd.Run(tmp_path)
    teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=5, batch_size=32, lr=0.1)
    space = nas_kd.teacher_space(teacher, data, widths=(0.75,), depth=False)  # cuts that leave the teacher's skill
    net = nas_kd.Supernet(space)
    settings = {
        "bands": [],
        "overall": 16,
        "seeds": 1,
        "epochs": 1,
        "batch_size": 64,
        "lr": 1e-6,
        "resamples": 100,
        "control": "macs",
    }
    with pytest.raises(SettingError, match=r"rank\.scores='.*MSE'.*leave it out"):
        nas_kd.rank(space, teacher, data, run=run, net=net, scores=["nmse", "macs"], primary="nmse", **settings)
    found = nas_kd.rank(space, teacher, data, run=run, net=net, scores=SCORES, primary="units_kl", **settings)
    assert set(found.summary["score"]) == {
        "units replace-one KL",
        "units noise to signal",
        "supernet KL",
        "regression on choices",
        "MACs",
        "parameters",
    }
    assert found.summary["tau"].notna().all()
    # nothing was learned in one epoch at this rate: what the best arch knows, it has from the teacher
    assert found.truth["accuracy"].max() > 0.5
    units = found.scores[found.scores["score"] == "units replace-one KL"].set_index("key")["value"]
    truth = found.truth.groupby("key")["accuracy"].mean()
    assert units.idxmax() != truth.idxmax() and (units >= 0).all()


def test_scores_of_units_need_a_teachers_space(tmp_path: Path) -> None:
    data = nas_kd.load_data("digits", subset=400, rate=0.15, select=0.15, views=2)
    teacher = nas_kd.train_teacher("cifar_resnet8", data, epochs=1, batch_size=32, lr=0.1)
    space = nas_kd.load_space("digits")
    with pytest.raises(SettingError, match=r"rank\.scores='units replace-one KL'.*leave it out"):
        nas_kd.rank(space, teacher, data, run=tmp_path, scores=["units_kl", "macs"], primary="units_kl", control="macs")
