"""The paired difference: against closed forms, against many drawn samples, and where there is little to go by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from nas_kd.analyse.paired import paired_difference


def drawn(rng: np.random.Generator, seeds: int, images: int, spread: tuple[float, float, float]) -> np.ndarray:
    """Gaps of mean 0 with components of seeds, images and both."""
    by_seed = spread[0] * rng.normal(size=(seeds, 1))
    by_image = spread[1] * rng.normal(size=(1, images))
    return by_seed + by_image + spread[2] * rng.normal(size=(seeds, images))


@pytest.mark.parametrize("spread", [(0.0, 1.0, 1.0), (0.3, 1.0, 1.0), (0.5, 0.0, 1.0), (0.0, 0.0, 1.0)])
def test_the_error_is_that_of_repeated_draws(spread: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    seeds, images = 3, 60
    found = [
        paired_difference(gaps, np.zeros_like(gaps))
        for gaps in (drawn(rng, seeds, images, spread) for _ in range(3000))
    ]
    true = spread[0] ** 2 / seeds + spread[1] ** 2 / images + spread[2] ** 2 / (seeds * images)
    assert np.var([one.mean for one in found]) == pytest.approx(true, rel=0.1)
    # components below 0 count as 0, which can only lengthen the error
    squares = float(np.mean([one.error**2 for one in found]))
    assert 0.95 * true <= squares <= 1.6 * true
    missed = np.mean([one.significant for one in found])
    assert 0.01 <= missed <= 0.08


def test_one_seed_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(1, 40)), rng.normal(size=(1, 40))
    found = paired_difference(one, other)
    expected = ttest_rel(one[0], other[0])
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert found.freedom == expected.df
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.significant == (expected.pvalue < 0.05)


def test_seeds_alone_are_the_paired_t_test_over_seeds() -> None:
    """Where a seed moves all images alike, there are as many observations as seeds."""
    by_seed = np.array([0.1, 0.3, 0.25])
    found = paired_difference(np.repeat(by_seed[:, None], 50, 1), np.zeros((3, 50)))
    expected = ttest_rel(by_seed, np.zeros(3))
    assert found.mean / found.error == pytest.approx(expected.statistic)
    assert found.freedom == pytest.approx(expected.df)


def test_more_seeds_of_equal_networks_do_not_multiply_the_images() -> None:
    gaps = np.random.default_rng(2).normal(size=(1, 30))
    one = paired_difference(gaps, np.zeros((1, 30)))
    same = paired_difference(np.repeat(gaps, 4, 0), np.zeros((4, 30)))
    assert same.error == pytest.approx(one.error) and same.freedom == pytest.approx(one.freedom)


def test_the_other_way_round_is_the_negative() -> None:
    rng = np.random.default_rng(3)
    one, other = (rng.random((3, 20)) < share for share in (0.9, 0.8))
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert (back.mean, back.error) == (-there.mean, there.error)
    assert back.interval == pytest.approx(tuple(-end for end in reversed(there.interval)))


def test_what_is_equal_is_equal() -> None:
    right = np.random.default_rng(4).random((3, 20)) < 0.9
    found = paired_difference(right, right)
    assert (found.mean, found.error, found.significant) == (0.0, 0.0, False)


def test_one_image_tells_nothing() -> None:
    found = paired_difference([[1.0], [1.0]], [[0.0], [0.0]])
    assert found.error == math.inf and not found.significant
