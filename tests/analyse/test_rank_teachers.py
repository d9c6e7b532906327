from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas_kd.analyse.rank_teachers import crossed_truth, own_and_other, two_way
from nas_kd.errors import SettingError


def test_the_sums_of_squares_are_those_of_nested_regressions() -> None:
    """Each source is what its columns add to a least-squares fit, in a balanced design in any order."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3, 2)) + rng.normal(size=(5, 1, 1)) + rng.normal(size=(1, 3, 1))
    found = two_way(values).set_index("source")
    arch, teacher, _ = (index.ravel() for index in np.indices(values.shape))

    def left(*columns: np.ndarray) -> float:
        design = np.concatenate([np.ones((30, 1)), *columns], axis=1)
        y = values.ravel()
        return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())

    a, t, cell = np.eye(5)[arch], np.eye(3)[teacher], np.eye(15)[3 * arch + teacher]
    assert found.loc["arch", "sum_squares"] == pytest.approx(left() - left(a))
    assert found.loc["teacher", "sum_squares"] == pytest.approx(left(a) - left(a, t))
    assert found.loc["arch x teacher", "sum_squares"] == pytest.approx(left(a, t) - left(cell))
    assert found.loc["seed", "sum_squares"] == pytest.approx(left(cell))
    assert found["sum_squares"].sum() == pytest.approx(left())
    assert found["freedom"].to_dict() == {"arch": 4, "teacher": 2, "arch x teacher": 8, "seed": 15}
    ratio = (left(a, t) - left(cell)) / 8 / (left(cell) / 15)
    assert found.loc["arch x teacher", "F"] == pytest.approx(ratio)
    assert found.loc["arch x teacher", "p"] == pytest.approx(stats.f.sf(ratio, 8, 15))


def test_the_parts_are_found_again() -> None:
    rng = np.random.default_rng(1)
    values = (
        1.5 * rng.normal(size=(400, 1, 1)) + np.array([0.0, 2.0])[None, :, None]
        + 0.4 * rng.normal(size=(400, 2, 1)) + 0.8 * rng.normal(size=(400, 2, 4))
    )  # fmt: skip
    found = two_way(values).set_index("source")["sd"]
    assert found["arch"] == pytest.approx(1.5, abs=0.12) and found["seed"] == pytest.approx(0.8, abs=0.03)
    assert found["arch x teacher"] == pytest.approx(0.4, abs=0.06)
    assert found["teacher"] == pytest.approx(math.sqrt(2), abs=0.1)  # sd of 0 and 2


def test_no_interaction_is_rarely_found() -> None:
    rng = np.random.default_rng(2)
    p = [
        two_way(rng.normal(size=(10, 1, 1)) + rng.normal(size=(10, 2, 3)))
        .set_index("source")
        .loc["arch x teacher", "p"]
        for _ in range(300)
    ]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_own_scores_win_when_archs_are_matched_to_teachers() -> None:
    rng = np.random.default_rng(3)
    quality = rng.normal(size=(40, 2))
    truth = quality[:, :, None] + 0.2 * rng.normal(size=(40, 2, 2))
    groups = ["a"] * 20 + ["b"] * 20
    matched = own_and_other(truth, quality.T, ["one", "two"], groups, resamples=500).set_index("teacher")
    assert (matched["own"] > 0.7).all() and (matched["other"].abs() < 0.4).all() and (matched["low"] > 0).all()
    assert matched.loc["mean", "difference"] == pytest.approx(matched.loc[["one", "two"], "difference"].mean())
    mean = truth[:, 0].mean(1)
    halves = [stats.kendalltau(quality[cut, 0], mean[cut]).statistic for cut in (slice(0, 20), slice(20, 40))]
    assert matched.loc["one", "own"] == pytest.approx(np.mean(halves))
    common = own_and_other(truth, np.stack([quality.sum(1)] * 2), ["one", "two"], groups, resamples=200)
    assert (common["difference"] == 0).all()  # one score for all teachers cannot be its teacher's own
    with pytest.raises(SettingError, match="at least 8 archs"):
        own_and_other(truth[:7], quality[:7].T, ["one", "two"], groups[:7])


def test_truths_meet_where_all_are_known() -> None:
    def table(keys: str, seeds: int) -> pd.DataFrame:
        return pd.DataFrame(
            [{"key": key, "seed": seed, "accuracy": ord(key) + seed / 10} for seed in range(seeds) for key in keys]
        )

    one, two = table("dabc", 3), table("cba", 2)
    keys, values = crossed_truth([one, two])
    assert keys == ["a", "b", "c"] and values.shape == (3, 2, 2)
    assert values[1].tolist() == [[98.0, 98.1], [98.0, 98.1]]
    begun = pd.concat([two, pd.DataFrame([{"key": "z", "seed": 2, "accuracy": 0.5}])])
    assert crossed_truth([one, begun])[0] == ["a", "b", "c"]  # a third seed that has only begun is left out
    with pytest.raises(SettingError, match="train more of the archs"):
        crossed_truth([one, table("xyz", 2)])
    with pytest.raises(SettingError, match="none missing"):
        two_way(np.full((3, 2, 2), np.nan))
