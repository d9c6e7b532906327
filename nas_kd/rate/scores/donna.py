"""Stage scores weighted by a linear regression on a few trained networks, with its leave-one-out error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.rate.errors import NSR
from nas_kd.rate.scores.base import Bench, Score, keys_of
from nas_kd.rate.scores.size import depth, log_widths, macs, params
from nas_kd.rate.scores.stages import BLOCKWISE, NMSE, stage_errors
from nas_kd.rate.scores.whole import SUPERNET_KL, supernet_kl
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch

MAX_TRAINED = 30  # networks that one fit learns from
FOLDS = 5
MIN_TRAINED = 8
RIDGES = tuple(10.0**power for power in range(-4, 4))


class Fit(NamedTuple):
    """A linear predictor.

    Args:
        weights: (D,) of the features as they are.
        intercept: value at features of 0.
        ridge: the strength that was chosen.
        loo: root of the mean squared leave-one-out error, in units of the target.
    """

    weights: np.ndarray
    intercept: float
    ridge: float
    loo: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predict (M,) targets of (M, D) features."""
        return features @ self.weights + self.intercept


def fit_ridge(features: np.ndarray, targets: np.ndarray, ridges: Sequence[float] = RIDGES) -> Fit:
    """Fit a ridge regression whose strength has the least leave-one-out error.

    Args:
        features: (N, D); each is brought to mean 0 and variance 1 first.
        targets: (N,).
        ridges: strengths, as a share of N.

    Returns:
        The predictor; scikit-learn has its leave-one-out errors in closed form.

    Source: DONNA (Moons et al. 2021), section 3.3.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    strengths = [ridge * len(features) for ridge in ridges]
    model = RidgeCV(alphas=strengths).fit(scaler.transform(features), targets)
    weights = model.coef_ / scaler.scale_
    intercept = float(model.intercept_ - scaler.mean_ @ weights)
    return Fit(weights, intercept, ridges[strengths.index(model.alpha_)], math.sqrt(-model.best_score_))


def nested_predictions(features: np.ndarray, bench: Bench, archs: Sequence[Arch]) -> tuple[list[float], float]:
    """Predict by how much each arch is better than the mean arch, by a regression that has not seen it.

    The archs are parted in folds; the archs of a fold are predicted from at most ``MAX_TRAINED`` trained ones of the
    other folds. Only slopes are taken from a fit: the mean accuracy of the archs it learned from is the lower the
    better the archs are that it must not see, which would order the folds against the true accuracies. An arch with a
    feature that is not finite is not learned from and has no prediction.

    Args:
        features: (N, D) of the archs.
        bench: knows which archs were trained, and how accurate they are.
        archs: the archs.

    Returns:
        One prediction per arch, and the mean leave-one-out error of the fits.

    Raises:
        SettingError: too few archs were trained.
    """
    place = {arch.key: index for index, arch in enumerate(archs)}
    whole = np.isfinite(features).all(1)
    known = {key for key, value in bench.accuracies.items() if math.isfinite(value)}
    trained = [arch.key for arch in archs if whole[place[arch.key]] and arch.key in known]
    if len(trained) < MIN_TRAINED + MIN_TRAINED // (FOLDS - 1):
        expected = f"at least {MIN_TRAINED + MIN_TRAINED // (FOLDS - 1)} trained archs to learn from"
        raise SettingError("scores", "a regression", expected, "train more archs first, or omit it")
    order = np.random.default_rng(seed_for(bench.seed, "donna")).permutation(len(archs))
    turn = {int(index): turn for turn, index in enumerate(order)}
    centre = features[whole].mean(0)
    predicted = np.full(len(archs), math.nan)
    loo_errors = []
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        held_out = held_out[whole[held_out]]
        seen = sorted({place[key] for key in trained} - set(held_out.tolist()), key=turn.__getitem__)[:MAX_TRAINED]
        fit = fit_ridge(features[seen], np.array([bench.accuracies[archs[index].key] for index in seen]))
        predicted[held_out] = (features[held_out] - centre) @ fit.weights
        loo_errors.append(fit.loo)
    # what a user would train: one fit's networks
    bench.used.student += min(MAX_TRAINED, len(trained)) * bench.training_images
    return predicted.tolist(), float(np.mean(loo_errors))


def _stage_features(bench: Bench, archs: Sequence[Arch]) -> np.ndarray:
    errors = stage_errors(bench, archs, NSR)
    return np.array([[errors[key] for key in keys_of(bench.space, arch)] for arch in archs])


def donna(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from the stages' noise to signal; the leave-one-out error is noted."""
    predicted, loo = nested_predictions(_stage_features(bench, archs), bench, archs)
    bench.notes["DONNA regression, leave-one-out error"] = loo
    return predicted


def _size_features(bench: Bench, archs: Sequence[Arch]) -> np.ndarray:
    logs = [np.log(macs(bench, archs)), np.log(params(bench, archs))]
    return np.array([*logs, log_widths(bench, archs), depth(bench, archs)]).T


def with_size(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from the stages' noise to signal and the size controls together."""
    features = np.hstack([_stage_features(bench, archs), _size_features(bench, archs)])
    predicted, loo = nested_predictions(features, bench, archs)
    bench.notes["regression with size, leave-one-out error"] = loo
    return predicted


def kl_with_size(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from the KL of subnets, the stages' added errors and the size controls together."""
    own = np.array([supernet_kl(bench, archs), NMSE.measure(bench, archs)]).T
    predicted, loo = nested_predictions(np.hstack([own, _size_features(bench, archs)]), bench, archs)
    bench.notes["regression on KL, MSE and size, leave-one-out error"] = loo
    return predicted


def size_alone(bench: Bench, archs: Sequence[Arch]) -> list[float]:
    """Predict accuracies from the size controls alone: what the regression with size must beat."""
    return nested_predictions(_size_features(bench, archs), bench, archs)[0]


DONNA = Score("DONNA regression", donna, True, needs=BLOCKWISE | {"truth"})
WITH_SIZE = Score("regression with size", with_size, True, needs=BLOCKWISE | {"truth"})
KL_WITH_SIZE = Score(
    "regression on KL, MSE and size", kl_with_size, True, needs=SUPERNET_KL.needs | NMSE.needs | {"truth"}
)
SIZE_ALONE = Score("regression on size", size_alone, True, "control", needs=frozenset({"truth"}))
