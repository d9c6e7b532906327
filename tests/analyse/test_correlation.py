"""Kendall's tau-b and its bootstrap against scipy and known cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from nas_kd.analyse import correlation as module
from nas_kd.analyse import in_band, kendall, kendall_difference
from nas_kd.solve.pareto import pareto


def test_tau_equals_scipy_with_ties() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(6, size=40), rng.integers(6, size=40)
    assert kendall(a, b).tau == pytest.approx(kendalltau(a, b).statistic)


def test_perfect_orders() -> None:
    a = np.arange(10.0)
    assert tuple(kendall(a, 3 * a)) == pytest.approx((1.0, 1.0, 1.0))
    assert kendall(a, -a).tau == pytest.approx(-1.0)


def test_every_resample_equals_scipy() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(8, size=25).astype(float)
    b = a + rng.normal(0, 3, 25)
    draws = np.random.default_rng(7).integers(25, size=(200, 25))
    wanted = [kendalltau(a[d], b[d]).statistic for d in draws]
    (drawn,) = module._resampled(a[None], b, 200, 7)
    assert drawn == pytest.approx(wanted, abs=1e-12)


def test_interval_is_seeded_and_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    true_tau = 2 / np.pi * np.arcsin(0.6)  # of a bivariate normal with correlation 0.6
    held = 0
    for _ in range(100):
        x = rng.normal(size=60)
        y = 0.6 * x + 0.8 * rng.normal(size=60)
        tau, low, high = kendall(x, y, resamples=300)
        assert low <= tau <= high
        held += low <= true_tau <= high
    assert 88 <= held <= 100
    assert kendall(x, y) == kendall(x, y)
    assert kendall(x, y, seed=1) != kendall(x, y)


def test_too_few_constant_and_missing_values() -> None:
    assert all(np.isnan(kendall(range(7), range(7))))
    assert np.isnan(kendall([1] * 8, range(8)).tau)
    gap = [*range(4), np.nan, *range(4, 8)]
    assert kendall(gap, [*range(4), 0, *range(4, 8)]).tau == pytest.approx(1.0)
    assert np.isnan(kendall(gap[1:], range(8)).tau)  # seven are left


def test_the_difference_is_paired() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=80)
    good, bad = truth + 0.3 * rng.normal(size=80), truth + 2 * rng.normal(size=80)
    gap = kendall_difference(good, bad, truth)
    assert gap.tau == pytest.approx(kendall(good, truth).tau - kendall(bad, truth).tau)
    assert gap.low > 0
    assert tuple(kendall_difference(good, good, truth)) == (0.0, 0.0, 0.0)


def test_band_and_pareto() -> None:
    frame = pd.DataFrame({"macs": [95, 94, 100, 105, 106], "kl": [0.5, 0.6, 0.5, 0.4, np.nan]})
    assert in_band(frame, 100, 0.05)["macs"].tolist() == [95, 100, 105]
    assert pareto(frame, "macs", "kl")["macs"].tolist() == [94, 95, 105]
    rows = pd.DataFrame({"macs": [1, 1, 2, 3], "accuracy": [0.5, 0.7, 0.7, 0.9]})
    best = pareto(rows, "macs", "accuracy", lower=False)
    assert best.values.tolist() == [[1.0, 0.7], [3.0, 0.9]]


def test_words_hold_no_negative_zero() -> None:
    assert str(module.Tau(0.304, -0.001, 0.574)) == "0.30 [0.00, 0.57]"
