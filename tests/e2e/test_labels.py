"""Several labels an image, and numbers, from a table to a student: every verb, with the teacher as the space."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, r2_score
from small_run import Said

import nas_kd
from nas_kd.runtime.device import Runtime
from nas_kd.train.network import predict

CONFIG = """\
device: cpu
threads: 1
workers: 1
data: {train: TABLE, label: LABELS, rate: 0.2, select: 0.2, views: 2, flip: false}
teacher: {model: cifar_resnet8, epochs: 2, batch_size: 32, lr: 0.05}
derive: {rate_images: 32, score: replace_one}
search: {max_macs: 40%, trials: 2, top: 1, epochs: 1, rounds: 1, rerate: 1, tuned: 1, calibration_images: 32}
retrain: {epochs: 1, batch_size: 32, seeds: 1, random_students: 0, rivals: [taylor]}
"""
IMAGES = 240
BITS = ["ones", "twos", "fours"]
MEASURES = {"multilabel": "map", "regression": "r2"}


def columns(kind: str, digits: np.ndarray) -> dict[str, Any]:
    """Return labels of digits: the bits of their numbers, or two functions of them."""
    if kind == "multilabel":
        return {name: digits >> bit & 1 for bit, name in enumerate(BITS)}
    return {"wave": np.sin(digits), "half": digits / 5 - 1 + 0.25}


@pytest.fixture
def config(kind: str, tmp_path: Path) -> Path:
    """A table of digits and their labels, and the settings of a small run."""
    digits = load_digits()
    (tmp_path / "images").mkdir()
    for number, image in enumerate(digits.images[:IMAGES]):
        Image.fromarray((15 * image).astype(np.uint8)).save(tmp_path / "images" / f"{number}.png")
    paths = [f"images/{number}.png" for number in range(IMAGES)]
    table = tmp_path / "labels.csv"
    pd.DataFrame({"image": paths, **columns(kind, digits.target[:IMAGES])}).to_csv(table, index=False)
    path = tmp_path / "small.yaml"
    labels = ", ".join(columns(kind, digits.target))
    path.write_text(CONFIG.replace("TABLE", str(table)).replace("LABELS", f"[{labels}]"))
    return path


@pytest.mark.parametrize("kind", [pytest.param("multilabel", marks=pytest.mark.slow), "regression"])
def test_a_whole_run(kind: str, config: Path, nas_kd_main: Callable[..., Said], tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = nas_kd_main("run", config, "--run", run)
    assert said.code == 0, said.err
    measure = MEASURES[kind]
    results = pd.read_csv(run / "retrain" / "results.csv")
    assert {f"select_{measure}", f"test_{measure}"} <= set(results) and "test_accuracy" not in results
    taught = json.loads((run / "retrain" / "teacher.json").read_text())
    assert ("! collapsed" in said.out) == bool(results["test_collapsed"].any() or taught["test_collapsed"])
    assert {"map": "mAP %", "r2": "R2 %"}[measure] in said.out and (run / "report" / "report.html").exists()
    assert f"rate_{measure}" in pd.read_csv(run / "teacher" / "metrics.csv")
    chosen = pd.read_csv(run / "search" / "handed_over.csv")
    folder = run / results.set_index("role").loc[chosen.set_index("role")["handed_over"].idxmax(), "folder"]
    student = nas_kd.load_student(folder)
    names = list(columns(kind, np.arange(10)))
    data = nas_kd.load_data(tmp_path / "labels.csv", label=names, rate=0.2, select=0.2, views=2, flip=False)
    assert data.kind == kind and student.info["classes"] == list(data.classes)
    outputs = predict(student, data.test, Runtime("cpu"))  # in the batches of the run: near ties may swap in others
    of = average_precision_score if kind == "multilabel" else r2_score
    expected = of(data.test.labels.numpy(), outputs.numpy())
    told = student.info["metrics"][f"test_{measure}"]
    assert told == pytest.approx(expected, abs=1e-5)
    kept = pd.read_csv(folder.parent / "test.csv")["score"]
    assert len(kept) == len(data.test) and kept.mean() == pytest.approx(told, abs=1e-9)
    again = nas_kd_main("run", config, "--run", run)
    assert again.code == 0 and pd.read_csv(run / "retrain" / "results.csv").equals(results)


@pytest.mark.parametrize("kind", ["multilabel"])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("--method", "dkd"), "retrain.method='dkd'.*multilabel labels: ce, kd"),
        (("--retrain.mixup", "0.2"), "retrain.mixup=0.2.*multilabel"),
        (("--metric", "accuracy"), "metric='accuracy'.*map or macro_f1"),
        (("--data.balance", "sampler"), "data.balance='sampler'.*class_weights"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_trains(
    settings: tuple[str, str], told: str, config: Path, nas_kd_main: Callable[..., Said], tmp_path: Path
) -> None:
    said = nas_kd_main("run", config, "--run", tmp_path / "run", *settings)
    assert said.code == 2 and not (tmp_path / "run" / "teacher").exists()
    assert re.search(told, said.err.replace("\n", " ")), said.err


@pytest.mark.slow  # eight trainings each
@pytest.mark.parametrize(("kind", "metric"), [("multilabel", "map"), ("regression", "mae")])
def test_a_ranking(kind: str, metric: str, config: Path, nas_kd_main: Callable[..., Said], tmp_path: Path) -> None:
    """Archs are ranked by the metric of their labels, by whose name tables and table call it."""
    scores = ["units_kl", "supernet_accuracy", "macs", "params"]
    settings: dict[str, object] = {"overall": 8, "bands": "[]", "seeds": 1, "epochs": 1, "batch_size": 32}
    settings |= {"scores": f"[{','.join(scores)}]", "primary": "supernet_accuracy", "control": "macs", "resamples": 50}
    given = [part for name, value in settings.items() for part in (f"--rank.{name}", value)]
    run = tmp_path / "run"
    said = nas_kd_main("rank", config, "--run", run, "--metric", metric, *given)
    assert said.code == 0, said.err
    truth = pd.read_csv(run / "rank" / "truth.csv", dtype={"key": str}).set_index("key")
    assert {metric, f"select_{metric}", f"test_{metric}"} <= set(truth) and "accuracy" not in truth and len(truth) == 8
    summary = pd.read_csv(run / "rank" / "summary.csv").set_index("score")
    assert len(summary) == len(scores) and summary["tau"].notna().all()
    macs = pd.read_csv(run / "rank" / "archs.csv", dtype={"key": str}).set_index("key")["macs"]
    sign = -1 if metric == "mae" else 1
    tau = kendalltau(macs[truth.index], sign * truth[metric]).statistic
    assert summary.loc["MACs", "tau"] == pytest.approx(tau)  # more is better, of errors fewer
    words = {"map": "mAP", "mae": "MAE"}[metric]
    assert f"tau-b with the {words} of 8 trained archs" in said.out and f"supernet {words}" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regression"])
def test_a_run_by_errors(kind: str, config: Path, nas_kd_main: Callable[..., Said], tmp_path: Path) -> None:
    """With metric=mae the smallest error wins, and nothing is called accuracy or percent of it."""
    run = tmp_path / "run"
    said = nas_kd_main("run", config, "--run", run, "--metric", "mae", "--search.top", "2")
    assert said.code == 0, said.err
    trials = pd.read_csv(run / "search" / "trials.csv")
    assert "mae" in trials and "accuracy" not in trials and (trials["mae"] > 0).all()
    top = pd.read_csv(run / "search" / "top.csv", dtype={"key": str}).set_index("key")
    found = json.loads((run / "search" / "best.json").read_text())["key"]
    assert top.loc[found, "select_mae"] == top["select_mae"].min()
    decided = pd.read_csv(run / "search" / "handed_over.csv").set_index("role")
    better = decided[decided["minus_found"] > decided["standard_error"]]
    assert decided["handed_over"].idxmax() == ("found" if better.empty else better["select_mae"].idxmin())
    assert "MAE" in said.out and "MAE %" not in said.out and "accuracy=" not in said.err and "mae=" in said.err
    assert not [name for name in pd.read_csv(run / "report" / "results.csv") if name.startswith("accuracy")]
