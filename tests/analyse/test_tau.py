"""Kendall's tau-b over some pairs and over weighted resamples, against scipy and the definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas_kd.analyse.tau import all_pairs, pairs_within, tau_b, weighted_taus


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_tau_within_groups_counts_the_groups_pairs_only(rng: np.random.Generator) -> None:
    groups = ["a"] * 6 + ["b"] * 5 + ["c"] * 4
    x, y = rng.normal(size=(2, 15))
    concordant = [
        np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
        for i, j in combinations(range(15), 2)
        if groups[i] == groups[j] and groups[i] in "ab"
    ]
    pairs = pairs_within(groups, only=["a", "b"])
    assert len(pairs.first) == 15 + 10
    assert tau_b(x, y, pairs) == pytest.approx(np.mean(concordant))
    # what differs between groups only does not count
    shift = np.array([{"a": 0.0, "b": 50.0, "c": -80.0}[group] for group in groups])
    assert tau_b(x + shift, y - shift, pairs) == pytest.approx(tau_b(x, y, pairs))


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("by_resample", [False, True])
def test_a_weighted_tau_is_scipys_of_the_archs_written_out(
    rng: np.random.Generator, levels: int, by_resample: bool
) -> None:
    count, resamples = 40, 25
    scores = rng.integers(levels, size=(3, count)).astype(float)
    scores[1, [4, 9]] = np.nan
    values = rng.integers(levels, size=(resamples, count)).astype(float)
    values = values if by_resample else values[0]
    times = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    found = weighted_taus(scores, values, times, all_pairs(count))
    for draw in range(resamples):
        rows = np.repeat(np.arange(count), times[draw])
        target = values[draw] if by_resample else values
        for score, tau in zip(scores, found[:, draw], strict=True):
            kept = rows[np.isfinite(score[rows])]
            assert tau == pytest.approx(kendalltau(score[kept], target[kept]).statistic, abs=1e-12)


def test_a_weighted_tau_is_exact_where_single_precision_would_not_be(rng: np.random.Generator) -> None:
    """Sums over pairs of six thousand archs do not fit into the 24 bits of the factors."""
    x, y = rng.normal(size=(2, 6000))
    (found,) = weighted_taus(x[None], y, np.ones((1, 6000)), all_pairs(6000))[0]
    assert found == pytest.approx(kendalltau(x, y).statistic, abs=1e-14)


def test_no_pairs_have_no_tau() -> None:
    assert np.isnan(tau_b([1.0, 2.0], [1.0, 2.0], pairs_within(["a", "b"])))
    assert np.isnan(tau_b([], []))
