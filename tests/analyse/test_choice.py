"""Who is handed over, decided on select by one standard error, and who cannot be told apart, said of test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_kd.analyse import final_table, report
from nas_kd.analyse.choice import FILE, decision, differences, few_images, indistinguishable, verdict
from nas_kd.analyse.paired import paired_difference
from nas_kd.analyse.story import headline
from nas_kd.analyse.table import runs_of
from nas_kd.config.measures import MEASURES

SEEDS = 3
Rows = Mapping[str, np.ndarray]


def right(share: float, images: int = 216, *, seed: int = 0) -> np.ndarray:
    """Images that a student of such an accuracy gets right, (SEEDS, images): the easy ones, with some luck."""
    hard = np.linspace(0, 1, images)
    luck = np.random.default_rng(seed).normal(0, 0.02, (SEEDS, images))
    return (hard + luck < share).astype(float)


def write(run: Path, select: Rows, test: Rows) -> Path:
    """Write the retrained students of a run: what each image counts, and the tables that follow from it."""
    (run / "search").mkdir(parents=True)
    (run / "search" / "best.json").write_text(json.dumps({"key": "found-key", "macs": 10, "params": 10}))
    listed = pd.DataFrame({"role": list(select), "macs": 10, "params": 10}).assign(key=lambda t: t["role"] + "-key")
    listed.to_csv(run / "search" / "students.csv", index=False)
    rows = []
    for role in select:
        for seed in range(SEEDS):
            home = run / "retrain" / f"{role}-key" / f"seed_{seed}"
            home.mkdir(parents=True)
            for split, known in (("select", select), ("test", test)):
                pd.DataFrame({"score": known[role][seed]}).to_csv(home / f"{split}.csv", index=False)
            row = {"search": "search", "role": role, "key": f"{role}-key", "seed": seed, "macs": 10, "params": 10}
            row |= {"select_accuracy": select[role][seed].mean(), "test_accuracy": test[role][seed].mean()}
            rows.append(row | {"test_agreement": 0.5, "folder": f"retrain/{role}-key/seed_{seed}/student"})
    pd.DataFrame(rows).to_csv(run / "retrain" / "results.csv", index=False)
    return run


def decide(run: Path) -> pd.DataFrame:
    decided = decision(run, runs_of(run))
    decided.to_csv(run / "search" / FILE, index=False)
    return decided.set_index("role")


def chosen(run: Path) -> str:
    decided = decide(run)
    assert decided["handed_over"].sum() == 1
    return str(decided["handed_over"].idxmax())


def test_found_stays_where_others_are_better_by_less_than_an_error(tmp_path: Path) -> None:
    select = {"found": right(0.90), "random_1": right(0.902, seed=1), "largest_macs": right(0.85)}
    run = write(tmp_path / "run", select, select)
    table = decide(run)
    assert 0 < table.loc["random_1", "minus_found"] <= table.loc["random_1", "standard_error"]
    assert chosen(run) == "found"
    assert verdict(table.reset_index()).startswith("Handed over: found. On the select split, none of the 2 others")


def test_who_is_better_by_more_than_an_error_is_handed_over(tmp_path: Path) -> None:
    select = {"found": right(0.85), "random_1": right(0.90), "largest_params": right(0.95), "largest_macs": right(0.8)}
    run = write(tmp_path / "run", select, {role: right(0.9) for role in select})
    assert chosen(run) == "largest_params"  # of two that are, the better
    said = verdict(pd.read_csv(run / "search" / FILE))
    gap = 100 * (select["largest_params"] - select["found"]).mean()
    assert said.startswith("Handed over: largest params, not found.") and f"{gap:+.2f} points" in said


@pytest.mark.parametrize(("gap", "role"), [(0.9, "found"), (1.1, "random_1")])
def test_the_rule_is_one_standard_error(tmp_path: Path, gap: float, role: str) -> None:
    """The gap is set to a multiple of its own error by images that only the rival gets right."""
    base = np.zeros((SEEDS, 400))
    other = np.random.default_rng(0).normal(0, 1, (SEEDS, 400))
    error = paired_difference(other, base).error
    other += gap * error - other.mean()
    assert paired_difference(other, base).error == pytest.approx(error)
    scores = {"found": base, "random_1": other}
    assert chosen(write(tmp_path / "run", scores, scores)) == role


def test_the_test_images_decide_nothing(tmp_path: Path) -> None:
    select = {"found": right(0.90), "random_1": right(0.90)}
    run = write(tmp_path / "run", select, {"found": right(0.1), "random_1": right(0.99)})
    before = decide(run)
    for path in run.rglob("test.csv"):
        path.unlink()
    pd.testing.assert_frame_equal(decide(run), before)
    assert chosen(run) == "found"


def test_pairs_are_of_equal_seeds_and_images(tmp_path: Path) -> None:
    select = {"found": right(0.9), "random_1": right(0.8, seed=1)}
    run = write(tmp_path / "run", select, select)
    measured = runs_of(run)
    part = measured[(measured["role"] != "random_1") | (measured["seed"] != 1)]
    found = differences(run, part, "found", "select").iloc[0]
    expected = paired_difference(select["random_1"][[0, 2]], select["found"][[0, 2]])
    assert (found["seeds"], found["images"]) == (2, 216)
    assert (found["difference"], found["standard_error"]) == pytest.approx((expected.mean, expected.error))
    assert (found["low"], found["high"]) == pytest.approx(expected.interval)


def test_what_was_not_measured_image_by_image_does_not_win(tmp_path: Path) -> None:
    select = {"found": right(0.5), "random_1": right(0.9)}
    run = write(tmp_path / "run", select, select)
    (run / "retrain" / "random_1-key" / "seed_1" / "select.csv").unlink()
    assert chosen(run) == "found"
    assert "(1 cannot be compared image by image)" in verdict(pd.read_csv(run / "search" / FILE))


def test_the_table_and_the_report_name_whom_they_cannot_tell_apart(tmp_path: Path) -> None:
    select = {"found": right(0.85), "random_1": right(0.95), "largest_macs": right(0.8)}
    test = {"found": right(0.9, 300), "random_1": right(0.91, 300, seed=1), "largest_macs": right(0.7, 300)}
    run = write(tmp_path / "run", select, test)
    assert chosen(run) == "random_1"
    table = final_table(run).set_index("role")
    assert table["handed_over"].to_dict() == {"found": False, "random_1": True, "largest_macs": False}
    gap = paired_difference(test["found"], test["random_1"])
    names = ["difference_percent", "difference_low_percent", "difference_high_percent"]
    assert table.loc["found", names].tolist() == pytest.approx([100 * gap.mean, *(100 * end for end in gap.interval)])
    assert table.loc["random_1", names].isna().all()
    assert indistinguishable(table.reset_index()) == ["found"]
    said = headline(run, "search")
    assert any(line.startswith("Handed over: random 1, not found.") for line in said)
    assert any("1 of 2 others cannot be told apart" in line and line.endswith(": found.") for line in said)
    page = report(run).read_text()
    assert page.count('<tr class="handed">') == 1 and "= -" in page


def test_before_it_is_decided_it_is_the_found_one(tmp_path: Path) -> None:
    scores = {"found": right(0.5), "random_1": right(0.9)}
    run = write(tmp_path / "run", scores, scores)
    assert final_table(run).set_index("role")["handed_over"].to_dict() == {"found": True, "random_1": False}
    assert not any("Handed over" in line for line in headline(run, "search"))


def test_so_few_images_are_said_to_decide_little(tmp_path: Path) -> None:
    assert few_images(100) is None
    assert "28 images" in str(few_images(28)) and "5.7 points" in str(few_images(28))
    assert "data.select=100" in str(few_images(28, MEASURES["mae"])) and "points" not in str(
        few_images(28, MEASURES["mae"])
    )
    for images, warned in ((28, True), (216, False)):
        select = {"found": right(0.85, images), "random_1": right(0.95, images)}
        run = write(tmp_path / f"run_{images}", select, select)
        decide(run)
        assert any(f"select has {images} images" in line for line in headline(run, "search")) == warned
