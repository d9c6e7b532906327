from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nas_kd.analyse.tau import tau_b
from nas_kd.ranking.statistics import (
    detectable,
    holm,
    noise_of,
    partial_tau,
    regret,
    residual_tau,
    spearman,
    split_half,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("levels", [4, 1000])
def test_tau_and_rho_equal_scipy(rng: np.random.Generator, levels: int) -> None:
    for _ in range(20):
        x, y = rng.integers(levels, size=(2, 30)).astype(float)
        assert tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_constant_ranking_is_no_correlation_and_a_nan_leaves_its_pairs_out(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 12))
    assert math.isnan(tau_b(np.ones(12), y)) and math.isnan(spearman(np.ones(12), y))
    holed = x.copy()
    holed[[2, 7]] = np.nan
    kept = np.isfinite(holed)
    assert tau_b(holed, y) == pytest.approx(stats.kendalltau(x[kept], y[kept]).statistic, abs=1e-12)
    assert spearman(holed, y) == pytest.approx(stats.spearmanr(x[kept], y[kept]).statistic, abs=1e-12)


def test_partial_tau_is_kendalls_formula_and_vanishes_for_what_only_the_third_explains(
    rng: np.random.Generator,
) -> None:
    x, y, z = rng.normal(size=(3, 40))
    xy, xz, yz = (stats.kendalltau(*two).statistic for two in ((x, y), (x, z), (y, z)))
    wanted = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_tau(x, y, z) == pytest.approx(wanted, abs=1e-12)
    assert partial_tau(x, y, np.exp(z)) == pytest.approx(wanted, abs=1e-12)  # ranks alone
    assert math.isnan(partial_tau(z, y, z))
    # for normal values with correlations r xz and r yz and nothing else, the residuals are independent
    big = rng.normal(size=(3, 3000))
    assert abs(residual_tau(big[0] + 3 * big[2], big[1] + 2 * big[2], big[2])) < 0.04
    assert tau_b(big[0] + 3 * big[2], big[1] + 2 * big[2]) > 0.4


def test_residual_tau_of_a_line_is_no_order(rng: np.random.Generator) -> None:
    z, y = rng.normal(size=(2, 20))
    assert math.isnan(residual_tau(2 * z - 1, y, z))
    assert residual_tau(y, y + 3 * z, z) == pytest.approx(1.0)


def test_regret_equals_the_definition(rng: np.random.Generator) -> None:
    score, truth, cost = rng.normal(size=(3, 30))
    for cap in (-0.5, 0.3, 9.0):
        rows = [i for i in range(30) if cost[i] <= cap]
        for top in (1, 5, 10):
            chosen = sorted(rows, key=lambda i: -score[i])[:top]
            wanted = max(truth[i] for i in rows) - max(truth[i] for i in chosen)
            assert regret(score, truth, cost, cap, top) == pytest.approx(wanted)
    assert regret(truth, truth, cost, 0.3, 1) == 0.0
    assert math.isnan(regret(score, truth, cost, -99.0, 1))


def test_an_arch_without_a_score_is_never_the_best() -> None:
    score, truth = np.array([np.nan, 1.0, 2.0]), np.array([9.0, 5.0, 4.0])
    assert regret(score, truth, np.ones(3), 1.0, 1) == 5.0
    assert regret(score, truth, np.ones(3), 1.0, 3) == 4.0  # still lost: it would not have been trained
    assert math.isnan(regret(np.full(3, np.nan), truth, np.ones(3), 1.0, 1))


def test_noise_is_the_analysis_of_variance(rng: np.random.Generator) -> None:
    n, seeds = 4000, 4
    truth = rng.normal(scale=0.9, size=(n, 1)) + rng.normal(scale=0.6, size=(n, seeds))
    found = noise_of(truth)
    assert (found.archs, found.seeds) == (n, 4.0)
    assert found.seed_sd == pytest.approx(0.6, abs=0.02) and found.arch_sd == pytest.approx(0.9, abs=0.04)
    share = 0.81 / (0.81 + 0.36 / 4)
    assert found.reliability == pytest.approx(share, abs=0.02)
    # halves of two seeds; tau = 2/pi arcsin r for normal values
    half = 0.81 / (0.81 + 0.36 / 2)
    assert split_half(truth[:1500]) == pytest.approx(2 / math.pi * math.asin(half), abs=0.02)
    means, perfect = truth.mean(1), truth.mean(1)
    assert found.ceiling == pytest.approx(2 / math.pi * math.asin(math.sqrt(share)), abs=0.02)
    assert stats.kendalltau(means, perfect).statistic == 1.0  # the ceiling is against the unknown, not this


def test_the_ceiling_is_that_of_the_means_that_are_judged_when_some_archs_have_one_seed(
    rng: np.random.Generator,
) -> None:
    quality = rng.normal(size=(2000, 1))
    truth = quality + rng.normal(size=(2000, 2))
    truth[500:, 1] = np.nan
    found = noise_of(truth)
    assert found.archs == 500 and found.seeds == 1.25
    assert found.seed_sd == pytest.approx(1.0, abs=0.06) and found.arch_sd == pytest.approx(1.0, abs=0.06)
    perfect = stats.kendalltau(quality[:, 0], np.nanmean(truth, axis=1)).statistic
    assert found.ceiling == pytest.approx(perfect, abs=0.025)


def test_noise_within_groups_ignores_what_lies_between_them(rng: np.random.Generator) -> None:
    groups = np.repeat(["a", "b", "c"], 1000)
    shift = np.repeat([0.0, 30.0, -30.0], 1000)[:, None]
    truth = shift + rng.normal(size=(3000, 1)) + rng.normal(scale=0.5, size=(3000, 2))
    assert noise_of(truth, groups.tolist()).arch_sd == pytest.approx(1.0, abs=0.05)
    assert noise_of(truth).arch_sd > 20


def test_noise_without_seeds_is_not_known() -> None:
    assert noise_of(np.array([[1.0, np.nan], [np.nan, 2.0]])).archs == 0
    assert math.isnan(split_half(np.ones((5, 1))))


def test_split_half_goes_over_all_ways_to_halve(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(15, 4))
    wanted = [
        stats.kendalltau(truth[:, list(a)].mean(1), truth[:, list(b)].mean(1)).statistic
        for a, b in (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
    ]
    assert split_half(truth) == pytest.approx(np.mean(wanted))
    holed = np.vstack([truth, [[1.0, np.nan, 2.0, 3.0]]])
    assert split_half(holed) == pytest.approx(np.mean(wanted))


def test_a_seed_that_has_only_begun_does_not_change_what_the_others_say(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(40, 1)) + rng.normal(size=(40, 3))
    begun = truth.copy()
    begun[5:, 2] = np.nan
    wanted = stats.kendalltau(truth[:, 0], truth[:, 1]).statistic
    assert split_half(begun) == pytest.approx(wanted) == pytest.approx(split_half(truth[:, :2]))
    begun[:25, 2] = truth[:25, 2]  # most have it: they are compared on all three
    assert split_half(begun) == pytest.approx(split_half(truth[:25]))
    begun[10:, 1:] = np.nan  # a second seed that has begun is all that there is
    assert split_half(begun) == pytest.approx(split_half(truth[:10]))
    assert math.isnan(split_half(truth[:7]))  # too few for a rank correlation


def test_holm_equals_the_step_down_rule(rng: np.random.Generator) -> None:
    for _ in range(50):
        p = rng.random(6) ** 3
        adjusted = holm(p.tolist())
        for level in (0.01, 0.05, 0.2):
            # reject in rising order until the first p above level / (number left)
            order, rejected = np.argsort(p), set()
            for rank, index in enumerate(order):
                if p[index] > level / (6 - rank):
                    break
                rejected.add(int(index))
            assert rejected == {i for i in range(6) if adjusted[i] <= level}
    assert math.isnan(holm([0.01, math.nan])[1]) and holm([0.01, math.nan])[0] == 0.01


def test_the_detectable_difference_has_its_power(rng: np.random.Generator) -> None:
    gap = detectable(0.1)
    drawn = rng.normal(gap, 0.1, size=200_000)
    assert np.mean(np.abs(drawn) / 0.1 > stats.norm.ppf(0.975)) == pytest.approx(0.8, abs=0.005)
