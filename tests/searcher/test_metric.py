"""What a search goes by is the measure of the task: in its trials, its short trainings and its choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import nas_kd
from nas_kd.data import Data
from nas_kd.distill import Classification

MACRO = Classification(0.0, "macro_f1")


def test_another_measure_is_optimised(data: Data, tmp_path: Path) -> None:
    net = nas_kd.Supernet(nas_kd.load_space("digits"), num_classes=3, in_chans=1, seed=0)
    how: dict[str, Any] = {"max_macs": "90%", "trials": 4, "top": 2, "calibration_images": 32, "epochs": 1, "rounds": 1}
    short = {"batch_size": 16, "warmup_epochs": 0.1}
    result = nas_kd.search(net, None, data, engine="random", run=tmp_path, task=MACRO, training=short, **how)
    trial = result.trials.iloc[0]
    (arch,) = [arch for arch in net.space if arch.key == trial["key"]]
    norm = nas_kd.calibrate(net, [batch.x for batch in data.train.clean(512, limit=32)], [arch])[0]
    logits = torch.cat([net.eval()(batch.x, arch, norm).detach() for batch in data.rate.clean(16)])
    assert "accuracy" not in trial and trial["macro_f1"] == pytest.approx(MACRO.metric(logits, data.rate.labels))
    top = pd.read_csv(tmp_path / "search" / "top.csv", dtype={"key": str}).set_index("key")
    for key, row in top.iterrows():
        trained = json.loads((tmp_path / "search" / "short" / str(key) / "stage.json").read_text())
        assert row["select_macro_f1"] == pytest.approx(trained["facts"]["select_macro_f1"])
        assert trained["inputs"]["retrain.measure"] == "macro_f1"
    assert result.best.key == top["select_macro_f1"].idxmax() or top["select_macro_f1"].nunique() < len(top)
    facts = json.loads((tmp_path / "search" / "stage.json").read_text())["inputs"]
    assert facts["search.measure"] == "macro_f1"


def test_the_scores_of_images_are_those_of_the_measure(data: Data, tmp_path: Path) -> None:
    space = nas_kd.load_space("digits")
    how: dict[str, Any] = {"space": space, "epochs": 1, "batch_size": 16, "run": tmp_path, "task": MACRO}
    metrics = nas_kd.retrain(space.smallest(), None, data, **how).info["metrics"]
    folder = tmp_path / "retrain" / space.smallest().key / "seed_0"
    images = pd.read_csv(folder / "test.csv")
    assert images["score"].mean() == pytest.approx(metrics["test_macro_f1"])
    assert (images["label"] == images["answer"]).mean() == pytest.approx(metrics["test_accuracy"])
    classes = pd.read_csv(folder / "test_classes.csv").set_index("name")["recall"]
    for name, recall in classes.items():
        assert metrics[f"test_recall_{name}"] == pytest.approx(recall)
    assert classes.mean() == pytest.approx(metrics["test_balanced_accuracy"])
    assert "rate_macro_f1" in pd.read_csv(folder / "metrics.csv")
