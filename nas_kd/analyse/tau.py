"""Kendall's tau-b, over selected pairs of archs, and vectorised over many resamples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Pairs(NamedTuple):
    """The pairs of archs to compare.

    Args:
        first: (P,) row numbers, ascending.
        second: (P,) row numbers, each above its ``first``.
    """

    first: np.ndarray
    second: np.ndarray

    def known(self, values: np.ndarray) -> Pairs:
        """Return the pairs for which both of the (N,) values are finite."""
        finite = np.isfinite(values)
        both = finite[self.first] & finite[self.second]
        return Pairs(self.first[both], self.second[both])

    def by_first(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each arch with the archs it is compared with."""
        begins = np.flatnonzero(np.diff(self.first, prepend=-1))
        yield from zip(self.first[begins].tolist(), np.split(self.second, begins[1:]), strict=bool(len(begins)))


def all_pairs(count: int) -> Pairs:
    """Return all pairs of ``count`` archs."""
    return Pairs(*np.triu_indices(count, 1))


def pairs_within(groups: Sequence[object], only: Sequence[object] | None = None) -> Pairs:
    """Return the pairs of archs of the same group, such as a band of MACs.

    Args:
        groups: (N,) the group of each arch.
        only: the groups to use; None for all.
    """
    names = np.asarray(groups, dtype=object)
    pairs = all_pairs(len(names))
    kept = names[pairs.first] == names[pairs.second]
    if only is not None:
        kept &= np.isin(names[pairs.first].astype(str), [str(name) for name in only])
    return Pairs(pairs.first[kept], pairs.second[kept])


def tau_b(x: ArrayLike, y: ArrayLike, pairs: Pairs | None = None) -> float:
    """Correlate two rankings over some pairs; over all pairs it is Kendall's tau-b.

    Args:
        x: (N,) one ranking; archs with a NaN are dropped.
        y: (N,) the other.
        pairs: the archs to compare; None compares all.

    Returns:
        Concordant minus discordant pairs, divided by the geometric mean of the untied pairs of each ranking; NaN
        if one of them has none.

    Source: Kendall 1945 (tau-b, which corrects for ties).
    """
    a = np.asarray(x, dtype=float)
    b = np.asarray(y, dtype=float)
    if pairs is not None:
        return float(weighted_taus(a[None], b, np.ones((1, len(a))), pairs.known(b))[0, 0])
    from scipy.stats import kendalltau

    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():  # scipy would warn
        return math.nan
    return float(kendalltau(a[known], b[known]).statistic)


def weighted_taus(scores: np.ndarray, values: np.ndarray, times: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Correlate scores with values in resamples that contain each arch any number of times.

    scipy on the repeated archs gives the same, but takes a hundred times as long.

    Args:
        scores: (M, N) rankings; NaN where missing.
        values: (N,) values that they should rank, or (R, N) if they differ by resample; finite for all pairs.
        times: (R, N) how often each resample contains each arch.
        pairs: the archs to compare; an arch that is drawn twice is a tie with itself.

    Returns:
        (M, R) tau-b; NaN where a resample has nothing to compare.
    """
    held = np.ascontiguousarray(times.T, dtype=np.float32)  # (N, R); sums of small integers are exact
    targets = np.ascontiguousarray(values.T)  # (N,) or (N, R)
    agreed, decided, untied = sums = np.zeros((3, len(scores), len(times)))
    for arch, others in pairs.by_first():
        signs = np.sign(scores[:, [arch]] - scores[:, others])  # (M, J)
        valid = np.isfinite(signs).astype(np.float32)
        signs = np.where(valid, signs, 0.0).astype(np.float32)
        order = np.sign(targets[arch] - targets[others]).astype(np.float32)  # (J,) or (J, R)
        beside = held[others]  # (J, R)
        if order.ndim == 1:
            forms = np.concatenate([signs * order, np.abs(signs), valid * np.abs(order)]) @ beside
            sums += held[arch] * forms.reshape(sums.shape)
        else:
            agreed += held[arch] * (signs @ (beside * order))
            decided += held[arch] * (np.abs(signs) @ beside)
            untied += held[arch] * (valid @ (beside * np.abs(order)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return agreed / np.sqrt(decided * untied)
