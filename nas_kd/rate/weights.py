"""Weights of the stages' scores: learned from a few trained archs, or by replacing stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from nas_kd.errors import SettingError
from nas_kd.rate.scores.base import Bench, Key
from nas_kd.rate.scores.donna import MIN_TRAINED, fit_ridge
from nas_kd.rate.scores.replace import replacement_kl
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.paths import entries
from nas_kd.space.rows import full_rows, stage_scores

SAMPLE = 16  # candidates per stage that replace the teacher's


class Weights(NamedTuple):
    """Weights of the stages' scores.

    Args:
        values: one per stage, 1 on average.
        table: their details, one row per stage.
    """

    values: list[float]
    table: pd.DataFrame


def learned_weights(
    tables: Sequence[pd.DataFrame], space: ElasticSpace, archs: Sequence[Arch], accuracy: Sequence[float]
) -> Weights:
    """Learn the loss of accuracy per unit of each stage's score from a few trained archs.

    Args:
        tables: one rating table per stage.
        space: their space.
        archs: archs that were trained.
        accuracy: how well each did, 0 to 1.

    Returns:
        The weights; a stage whose better scores went with lower accuracy gets 0. The table has the coefficients,
        the ridge that was chosen and the leave-one-out error in accuracy.

    Raises:
        SettingError: fewer than eight archs have an accuracy and all scores, or no stage's score predicts anything.

    Source: DONNA (Moons et al. 2021), section 3.3.
    """
    of_arch = stage_scores(space, tables)
    features = np.array([of_arch(arch) for arch in archs])
    targets = np.array(accuracy, dtype=float)
    known = np.isfinite(features).all(axis=1) & np.isfinite(targets)
    if known.sum() < MIN_TRAINED:
        expected = f"learned from at least {MIN_TRAINED} trained archs ({int(known.sum())} are here)"
        raise SettingError("search.weights", "learned", expected, "train some: `nas-kd rank` with the same settings")
    fit = fit_ridge(features[known], targets[known])
    columns = {"coefficient": fit.weights, "ridge": fit.ridge, "leave_one_out_error": fit.loo, "archs": known.sum()}
    return _weights(np.clip(-fit.weights, 0.0, None), "learned", columns)


def sensitivity_weights(bench: Bench, tables: Sequence[pd.DataFrame]) -> Weights:
    """Measure the KL of the teacher's logits per unit of a stage's score when that stage is replaced.

    Args:
        bench: the teacher, its taps chosen, and the blockwise-trained stages.
        tables: one rating table per stage, of those stages.

    Returns:
        The weights. The table has the slope of the KL on the score, through the origin, and the share of the KL's
        variation that it explains.

    Source: replacing one stage: LANA (Molchanov et al. 2022), Puzzle (Bercovich et al. 2024).
    """
    slopes = []
    explained = []
    counts = []
    for index, table in enumerate(tables):
        rows = full_rows(table).sort_values("score", kind="stable")
        rows = rows[np.isfinite(rows["score"].astype(float))]
        # over the whole range of scores, the ends among them
        rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).round().astype(int))]
        keys = [_key(bench.space, index, row) for row in rows.to_dict("records")]
        kls = replacement_kl(bench, keys)
        score = rows["score"].to_numpy(float)
        kl = np.array([kls[key] for key in keys])
        slope = float(score @ kl / (score @ score)) if (score > 0).any() else 0.0
        slopes.append(slope)
        spread = float(((kl - kl.mean()) ** 2).sum())
        explained.append(1.0 - float(((kl - slope * score) ** 2).sum()) / spread if spread else float("nan"))
        counts.append(len(rows))
    columns = {"kl_per_score": slopes, "explained": explained, "candidates": counts}
    return _weights(np.array(slopes), "sensitivity", columns)


def _key(space: ElasticSpace, index: int, row: Mapping[str, object]) -> Key:
    candidate = space.stages[index].candidates()[int(row["candidate"])]  # type: ignore[call-overload]
    entry = entries(space, 0)[int(row.get("stem", 0))] if index == 0 else int(row["in_width"])  # type: ignore[call-overload]
    return index, entry, candidate


def _weights(values: np.ndarray, how: str, columns: Mapping[str, object]) -> Weights:
    if not np.isfinite(values).all() or not (values > 0).any():
        expected = f"a stage whose score predicts something (found {np.round(values, 6).tolist()})"
        raise SettingError("search.weights", how, expected, "omit it for equal weights")
    scaled = (values / values.mean()).tolist()
    table = pd.DataFrame({"stage": range(1, len(scaled) + 1), "weight": scaled, **columns})
    return Weights(scaled, table)
