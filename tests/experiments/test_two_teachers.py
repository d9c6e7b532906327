from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from two_teachers import common_truth, crossed_truth, own_and_other, two_way

from nas_kd.errors import SettingError


def test_the_sums_of_squares_are_those_of_nested_regressions() -> None:
    """Each source is what its columns add to a least-squares fit, in a balanced design in any order."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3, 2)) + rng.normal(size=(5, 1, 1)) + rng.normal(size=(1, 3, 1))
    found = two_way(values).set_index("source")
    arch, teacher, seed = (index.ravel() for index in np.indices(values.shape))

    def left(*columns: np.ndarray) -> float:
        design = np.concatenate([np.ones((30, 1)), *columns], axis=1)
        y = values.ravel()
        return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())

    a, t, cell, block = np.eye(5)[arch], np.eye(3)[teacher], np.eye(15)[3 * arch + teacher], np.eye(10)[2 * arch + seed]
    wanted = {
        "arch": left() - left(a),
        "teacher": left(a) - left(a, t),
        "arch x teacher": left(a, t) - left(cell),
        "seed": left(cell) - left(cell, block),
        "rest": left(cell, block),
    }
    assert found["sum_squares"].to_dict() == pytest.approx(wanted)
    assert found["sum_squares"].sum() == pytest.approx(left())
    assert found["freedom"].to_dict() == {"arch": 4, "teacher": 2, "arch x teacher": 8, "seed": 5, "rest": 10}
    ratio = (wanted["arch x teacher"] / 8) / (wanted["rest"] / 10)
    assert found.loc["arch x teacher", "F"] == pytest.approx(ratio)
    assert found.loc["arch x teacher", "p"] == pytest.approx(stats.f.sf(ratio, 8, 10))
    assert found.loc["arch", "F"] == pytest.approx((wanted["arch"] / 4) / (wanted["seed"] / 5))


def test_the_parts_are_found_again() -> None:
    rng = np.random.default_rng(1)
    values = (
        1.5 * rng.normal(size=(600, 1, 1))
        + np.array([0.0, 2.0])[None, :, None]
        + 0.4 * rng.normal(size=(600, 2, 1))
        + 0.6 * rng.normal(size=(600, 1, 4))
        + 0.8 * rng.normal(size=(600, 2, 4))
    )
    found = two_way(values).set_index("source")["sd"]
    assert found["rest"] == pytest.approx(0.8, abs=0.03) and found["seed"] == pytest.approx(0.6, abs=0.05)
    assert found["arch x teacher"] == pytest.approx(0.4, abs=0.06)
    assert found["teacher"] == pytest.approx(math.sqrt(2), abs=0.1)  # sd of 0 and 2
    # the mean over fixed teachers holds half of the interaction's variance
    assert found["arch"] == pytest.approx(math.sqrt(1.5**2 + 0.4**2 / 2), abs=0.12)


@pytest.mark.parametrize("common", [0.0, 2.0])
def test_no_interaction_is_found_as_often_as_said_also_where_seeds_are_common(common: float) -> None:
    rng = np.random.default_rng(2)
    p = []
    for _ in range(400):
        noise = common * rng.normal(size=(10, 1, 3)) + rng.normal(size=(10, 2, 3))
        p.append(two_way(rng.normal(size=(10, 1, 1)) + noise).set_index("source").loc["arch x teacher", "p"])
    assert 0.025 < np.mean(np.array(p) < 0.05) < 0.08


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
    half = truth.copy()
    half[::2, 1, 1] = np.nan  # a second seed that has begun under one teacher
    scores = np.stack([quality.sum(1), quality[:, 1]])
    both, some = (own_and_other(rows, scores, ["one", "two"], groups).set_index("teacher") for rows in (truth, half))
    alike = own_and_other(truth[:, [0, 0]], scores, ["one", "again"], groups).set_index("teacher")
    assert alike.loc["mean", "difference"] == pytest.approx(0) and alike.loc["mean", "high"] == pytest.approx(0)
    # the archs drawn are the same for both teachers, whatever seeds they have: the interval of the mean stays
    width = [table.loc["mean", "high"] - table.loc["mean", "low"] for table in (both, some)]
    assert width[1] == pytest.approx(width[0], rel=0.15)
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
    both = [pd.concat([table("cba", 2), pd.DataFrame([{"key": "a", "seed": 2, "accuracy": 0.5}])])] * 2
    keys, values = crossed_truth(both)  # also when every teacher has begun it with the same arch
    assert keys == ["c", "b", "a"] and values.shape == (3, 2, 2)
    most = [pd.concat([both[0], pd.DataFrame([{"key": "b", "seed": 2, "accuracy": 0.5}])])] * 2
    assert crossed_truth(most)[0] == ["b", "a"] and crossed_truth(most)[1].shape == (2, 2, 3)
    keys, values = common_truth([one, table("ca", 1), table("abc", 2)])  # one seed of every teacher is enough here
    assert keys == ["a", "c"] and values.shape == (2, 3, 3)
    assert np.isfinite(values).sum((0, 2)).tolist() == [6, 2, 4] and values[1, 2, 1] == 99.1
    with pytest.raises(SettingError, match="train more of the archs"):
        crossed_truth([one, table("cb", 1)])
    with pytest.raises(SettingError, match="no arch in common"):
        crossed_truth([one, table("xyz", 2)])
    with pytest.raises(SettingError, match="none missing"):
        two_way(np.full((3, 2, 2), np.nan))
