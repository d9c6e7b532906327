"""The bootstrap over archs with their seeds inside, against scipy, naive draws and known coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nas_kd.analyse.bootstrap import interval_of, resampled_taus
from nas_kd.analyse.tau import all_pairs, tau_b


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def naive_taus(scores: np.ndarray, truth: np.ndarray, rows: np.ndarray, seeds: np.ndarray) -> list[float]:
    means = np.array([truth[i, seeds[i]].mean() for i in range(len(truth))])
    return [stats.kendalltau(score[rows], means[rows]).statistic for score in scores]


def test_a_resample_is_kendalls_tau_of_the_drawn_archs(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights form equals scipy on the archs written out as often as they were drawn."""
    n = 12
    scores, truth = rng.normal(size=(3, n)), rng.normal(size=(n, 1))
    scores[1] = np.round(scores[1])  # ties
    counts = rng.multinomial(n, np.full(n, 1 / n), size=5)

    class Given:
        def multinomial(self, number: int, shares: np.ndarray, size: object) -> np.ndarray:
            return counts if number == n else np.ones((5, n, 1), dtype=int)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Given())
    found = resampled_taus(scores, truth, [0] * n, [all_pairs(n)], resamples=5)
    for draw in range(5):
        rows = np.repeat(np.arange(n), counts[draw])
        wanted = naive_taus(scores, truth, rows, np.zeros((n, 1), dtype=int))
        assert found[0, :, draw] == pytest.approx(wanted, abs=1e-12)


def test_the_bootstrap_agrees_with_a_naive_one(rng: np.random.Generator) -> None:
    n, seeds = 25, 3
    quality = rng.normal(size=n)
    truth = quality[:, None] + rng.normal(scale=0.7, size=(n, seeds))
    truth[4, 2] = truth[9, 0] = np.nan
    scores = np.stack([quality + rng.normal(size=n), rng.normal(size=n)])
    groups = [0] * 10 + [1] * 15
    fast = resampled_taus(scores, truth, groups, [all_pairs(n)], resamples=4000, seed=1)[0]
    slow = []
    for _ in range(1500):
        rows = np.concatenate([rng.integers(0, 10, 10), rng.integers(10, 25, 15)])
        means = np.empty(n)
        for i in range(n):
            have = truth[i, np.isfinite(truth[i])]
            means[i] = rng.choice(have, len(have)).mean()
        slow.append([stats.kendalltau(score[rows], means[rows]).statistic for score in scores])
    for found, wanted in zip(fast, np.array(slow).T, strict=True):
        assert found.mean() == pytest.approx(wanted.mean(), abs=0.015)
        assert found.std() == pytest.approx(wanted.std(), abs=0.012)


def test_the_same_seed_gives_the_same_resamples_and_a_nan_only_its_own_score_less(rng: np.random.Generator) -> None:
    truth, scores = rng.normal(size=(10, 2)), rng.normal(size=(2, 10))
    one = resampled_taus(scores, truth, [0] * 10, [all_pairs(10)], resamples=100)
    scores[1, 3] = np.nan
    two = resampled_taus(scores, truth, [0] * 10, [all_pairs(10)], resamples=100)
    assert np.array_equal(one[0, 0], two[0, 0]) and not np.array_equal(one[0, 1], two[0, 1])
    assert np.isfinite(two).all()


def test_the_interval_of_a_difference(rng: np.random.Generator) -> None:
    drawn = rng.normal(0.3, 0.1, size=10_000)
    found = interval_of(drawn)
    assert found.low == pytest.approx(0.3 - 1.96 * 0.1, abs=0.01) and found.error == pytest.approx(0.1, abs=0.003)
    assert found.p == pytest.approx(2 * stats.norm.cdf(-3), abs=0.002)
    assert interval_of(np.full(999, 0.2)).p == 2 / 1000  # never 0
    assert math.isnan(interval_of(np.array([np.nan])).p)


def test_intervals_cover_the_true_difference_about_as_often_as_they_say() -> None:
    """Two scores of equal worth: the interval of their difference holds 0 in about 95 of 100 samples, and is not wider
    than it must be for that."""
    rng = np.random.default_rng(5)
    held, gaps, widths = 0, [], []
    for trial in range(120):
        quality = rng.normal(size=40)
        truth = quality[:, None] + rng.normal(scale=0.3, size=(40, 2))
        scores = quality + rng.normal(size=(2, 40))
        taus = resampled_taus(scores, truth, [0] * 40, [all_pairs(40)], resamples=400, seed=trial)[0]
        found = interval_of(taus[0] - taus[1])
        held += found.low <= 0 <= found.high
        gaps.append(tau_b(scores[0], truth.mean(1)) - tau_b(scores[1], truth.mean(1)))
        widths.append(found.high - found.low)
    assert held >= 105
    assert 0.9 < np.mean(widths) / (2 * 1.96 * np.std(gaps)) < 1.3
