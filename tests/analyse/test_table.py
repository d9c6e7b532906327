"""Frames and the final table against numbers computed by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from nas_kd.analyse import final_table, frames, front, metrics, results, searches, student_table, trials
from nas_kd.errors import SettingError


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two students, the found one from two seeds, and a teacher."""
    (tmp_path / "search").mkdir()
    (tmp_path / "retrain").mkdir()
    pd.DataFrame(
        {
            "role": ["found", "random_1"],
            "key": ["111122223333", "12345e678901"],
            "macs": [100, 99],
            "params": [10, 11],
        }
    ).to_csv(tmp_path / "search" / "students.csv", index=False)
    pd.DataFrame(
        {
            "role": ["found", "found"],
            "key": "111122223333",
            "seed": [0, 1],
            "macs": 100,
            "params": 10,
            "select_accuracy": [0.8, 0.7],
            "test_accuracy": [0.5, 0.7],
            "test_agreement": [0.6, 0.8],
            "folder": ["retrain/111122223333/seed_0/student", "retrain/111122223333/seed_1/student"],
        }
    ).to_csv(tmp_path / "retrain" / "results.csv", index=False)
    teacher = {"name": "cifar_resnet56", "macs": 1000, "params": 100, "test_accuracy": 0.9}
    (tmp_path / "retrain" / "teacher.json").write_text(json.dumps(teacher))
    return tmp_path


def test_final_table(small: Path) -> None:
    table = final_table(small)
    assert table["role"].tolist() == ["teacher", "found", "random_1"]
    found = table.iloc[1]
    assert found["arch"] == "111122223333"  # a key of digits stays text
    assert found["accuracy_mean_percent"] == pytest.approx(60)
    assert found["accuracy_sd_percent"] == pytest.approx(200**0.5)  # sample standard deviation of 50 and 70
    assert found["accuracy_min_percent"] == pytest.approx(50)
    assert found["accuracy_max_percent"] == pytest.approx(70)
    assert found["agreement_mean_percent"] == pytest.approx(70)
    assert found["seeds"] == 2
    assert found["folder"].endswith("seed_0/student")  # best on select, though not on test
    assert table.iloc[0]["accuracy_mean_percent"] == pytest.approx(90)
    waiting = table.iloc[2]
    assert waiting["arch"] == "12345e678901" and waiting["seeds"] == 0
    assert pd.isna(waiting["accuracy_mean_percent"])


def test_finished_trainings_count_before_results_are_written(small: Path) -> None:
    (small / "retrain" / "results.csv").unlink()
    for seed, done in ((0, True), (1, False)):
        home = small / "retrain" / "12345e678901" / f"seed_{seed}"
        home.mkdir(parents=True)
        facts = {"test_accuracy": 0.4, "test_agreement": 0.5, "select_accuracy": 0.4} if done else {}
        (home / "stage.json").write_text(json.dumps({"inputs": {}, "done": done, "facts": facts}))
    table = final_table(small).set_index("role")
    assert table.loc["random_1", "accuracy_mean_percent"] == pytest.approx(40)
    assert table.loc["random_1", "folder"] == "retrain/12345e678901/seed_0/student"
    assert table["seeds"].to_dict() == {"teacher": 1, "found": 0, "random_1": 1}


def test_frames_of_a_finished_run(finished: Path) -> None:
    assert searches(finished) == ["search"]
    assert {"number", "kind", "score", "kl", "accuracy"} <= set(trials(finished).columns)
    assert front(finished)["score"].is_monotonic_decreasing
    assert len(results(finished)) == 18
    curves = metrics(finished)
    assert set(curves.loc[curves["stage"] == "supernet", "epoch"]) == set(range(1, 31))
    assert curves["stage"].str.startswith("retrain/").sum() == 18 * 30


def test_stage_scores_of_students_the_search_did_not_see(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    known = student_table(run).set_index("key")["score"]
    rows = frames.table(run / "search" / "trials.csv")
    found = frames.best(run)["key"]
    rows[rows["key"] == found].to_csv(run / "search" / "trials.csv", index=False)
    added = student_table(run).set_index("key")  # the others' scores now come from the stage tables
    assert added["score"].to_dict() == pytest.approx(known.to_dict())
    assert added["kl"].notna().sum() == 1


def test_an_empty_and_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="existing run folder"):
        final_table(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(SettingError, match="a run folder of nas_kd"):
        final_table(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    assert final_table(tmp_path).empty and trials(tmp_path).empty and metrics(tmp_path).empty
