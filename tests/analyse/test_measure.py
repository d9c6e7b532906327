"""Which measure a run goes by, what its report says of it, and how a student does class by class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from nas_kd.analyse import final_table, report
from nas_kd.analyse.classes import by_class, confused, confusion
from nas_kd.analyse.measure import as_accuracy, as_measure, kind_of, measure_of, worded
from nas_kd.config.measures import ACCURACY, MEASURES


def write(run: Path, settings: str, **columns: object) -> Path:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(settings)
    pd.DataFrame({"name": ["a", "b"], "split": "train", **columns}).to_csv(run / "data.csv", index=False)
    return run


@pytest.mark.parametrize(
    ("settings", "columns", "kind", "measure"),
    [
        ("metric: null\n", {"label": [0, 1]}, "classes", "accuracy"),
        ("metric: macro_f1\n", {"label": [0, 1]}, "classes", "macro_f1"),
        ("metric: null\n", {"label_a": [0, 1], "label_b": [1, 1]}, "multilabel", "map"),
        ("metric: null\n", {"label_a": [0.5, 1]}, "regression", "r2"),
        ("metric: mae\n", {"label_a": [0.5, 1]}, "regression", "mae"),
        ("data: {kind: regression}\n", {"label_a": [0, 1]}, "regression", "r2"),
        ("space: digits\n", {"label": [0, 1]}, "classes", "accuracy"),
    ],
)
def test_settings_and_labels_say_the_measure(
    settings: str, columns: dict[str, object], kind: str, measure: str, tmp_path: Path
) -> None:
    run = write(tmp_path / "run", settings, **columns)
    assert kind_of(run) == kind and measure_of(run).name == measure


def test_texts_name_the_measure() -> None:
    text = "test accuracy (%), balanced accuracy, score_accuracy_1"
    assert worded(text, ACCURACY) == text
    assert worded(text, MEASURES["map"]) == "test mAP (%), balanced accuracy, score_accuracy_1"
    balanced = MEASURES["balanced_accuracy"]
    twice = worded(worded(text, balanced), balanced)
    assert twice == "test balanced accuracy (%), balanced accuracy, score_accuracy_1"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of ten classes whose students also have what they answered."""
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    rng = np.random.default_rng(0)
    path = copied / "retrain" / "results.csv"
    results = pd.read_csv(path, dtype={"key": str})
    for folder in results["folder"]:
        home = (copied / folder).parent
        home.mkdir(parents=True, exist_ok=True)
        label = rng.integers(3, size=90)
        answer = np.where(rng.random(90) < 0.7, label, (label + 1) % 3)
        images = pd.DataFrame({"score": label == answer, "label": label, "answer": answer})
        images.to_csv(home / "test.csv", index=False)
        classes = pd.DataFrame({"name": ["cat", "dog", "owl"], "recall": [0.7, 0.6, 0.8], "images": 30})
        classes.to_csv(home / "test_classes.csv", index=False)
    results["test_balanced_accuracy"] = results["test_accuracy"] - 0.1
    results["test_macro_f1"] = results["test_accuracy"] - 0.2
    results["test_collapsed"] = ((results["role"] == "random_1") & (results["seed"] == 0)).astype(float)
    results.to_csv(path, index=False)
    return copied


def test_the_report_shows_classes_and_names_a_collapse(run: Path) -> None:
    table = final_table(run).set_index("role")
    assert table.loc["random_1", "collapsed"] == 1 and table.loc["found", "collapsed"] == 0
    gap = table["accuracy_mean_percent"] - table["balanced_accuracy_mean_percent"]
    assert gap.drop("teacher").round(6).eq(10).all() and (table["metric"] == "accuracy").all()
    page = report(run).read_text()
    assert "Class by class" in page and "Confusion matrix" in page and "owl" in page
    assert "balanced accuracy (%)" in page and "macro F1 (%)" in page
    assert "rainings collapsed (1 of random 1)" in page
    matrix = pd.read_csv(run / "report" / "confusion.csv", index_col=0)
    assert matrix.to_numpy().sum() == 90 and matrix.index.tolist() == ["cat", "dog", "owl"]


def test_another_measure_decides_and_is_named(run: Path) -> None:
    """With metric=macro_f1 the same files give another table, whose numbers are those of the macro F1."""
    path = run / "retrain" / "results.csv"
    results = pd.read_csv(path, dtype={"key": str})
    results["select_macro_f1"] = results["select_accuracy"] - 0.2
    results.to_csv(path, index=False)
    before = final_table(run).set_index("role")["accuracy_mean_percent"].drop("teacher")
    config = run / "config.yaml"
    config.write_text(config.read_text() + "metric: macro_f1\n")
    teacher = run / "retrain" / "teacher.json"
    teacher.write_text(json.dumps(json.loads(teacher.read_text()) | {"test_macro_f1": 0.5}))
    table = final_table(run).set_index("role")
    pd.testing.assert_series_equal(table["macro_f1_mean_percent"].drop("teacher"), before - 20, check_names=False)
    assert table.loc["teacher", "macro_f1_mean_percent"] == 50.0 and (table["metric"] == "macro_f1").all()
    assert not [name for name in table if name.startswith("accuracy")]
    page = report(run).read_text()
    assert "test macro F1 (%)" in page and "test accuracy (%)" not in page and "% macro F1 " in page


def test_lower_is_better_for_an_error(run: Path) -> None:
    """With metric=mae the file's errors are told as they are, and the smallest is the best."""
    path = run / "retrain" / "results.csv"
    results = pd.read_csv(path, dtype={"key": str})
    for split in ("select", "test"):
        results[f"{split}_mae"] = 3.0 - 2.0 * results.pop(f"{split}_accuracy")
    results.to_csv(path, index=False)
    best = results[results["role"] == "random_1"].sort_values("select_mae")["folder"].iloc[0]
    config = run / "config.yaml"
    config.write_text(config.read_text() + "metric: mae\n")
    table = final_table(run).set_index("role")
    found = results[results["role"] == "found"]["test_mae"]
    assert table.loc["found", "mae_mean"] == pytest.approx(found.mean())
    assert table.loc["found", "mae_min"] == found.min() and table.loc["found", "mae_max"] == found.max()
    assert table.loc["random_1", "folder"] == best
    page = report(run).read_text()
    assert "test MAE after retraining" in page and "MAE (%" not in page and "lower being better" in page


def test_columns_are_turned_into_signed_accuracy_and_back() -> None:
    rows = pd.DataFrame({"mae": [0.5, 2.0], "select_mae": [1.0, 3.0], "kl": 0.1})
    signed = as_accuracy(rows, MEASURES["mae"])
    assert signed["accuracy"].tolist() == [-0.5, -2.0] and signed["select_accuracy"].idxmax() == 0
    pd.testing.assert_frame_equal(as_measure(signed, MEASURES["mae"]), rows)
    older = pd.DataFrame({"accuracy": [0.5]})  # what every metric was called
    assert as_accuracy(older, MEASURES["map"]) is older


def test_the_confusion_matrix_is_scikit_learns(run: Path) -> None:
    folder = pd.read_csv(run / "retrain" / "results.csv")["folder"].iloc[0]
    images = pd.read_csv((run / folder).parent / "test.csv")
    matrix = confusion(run, folder)
    assert np.array_equal(matrix.to_numpy(), confusion_matrix(images["label"], images["answer"]))
    pairs = confused(matrix)
    assert pairs["images"].is_monotonic_decreasing and pairs["images"].sum() == (images["score"] == 0).sum()
    assert by_class(run, "retrain/nobody/seed_0/student").empty and confusion(run, "retrain/nobody/x").empty
