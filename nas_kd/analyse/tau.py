"""Kendall's tau-b: of two rankings, over some pairs of archs only, and of many resamples at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Pairs(NamedTuple):
    """Which archs are compared with each other.

    Args:
        first: (P,) row numbers, ascending.
        second: (P,) row numbers, each above its ``first``.
    """

    first: np.ndarray
    second: np.ndarray

    def known(self, values: np.ndarray) -> Pairs:
        """Return the pairs of which both (N,) values are finite."""
        finite = np.isfinite(values)
        both = finite[self.first] & finite[self.second]
        return Pairs(self.first[both], self.second[both])

    def by_first(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each arch with those it is compared with."""
        begins = np.flatnonzero(np.diff(self.first, prepend=-1))
        yield from zip(self.first[begins].tolist(), np.split(self.second, begins[1:]), strict=bool(len(begins)))


def all_pairs(count: int) -> Pairs:
    """Return the pairs of ``count`` archs."""
    return Pairs(*np.triu_indices(count, 1))


def pairs_within(groups: Sequence[object], only: Sequence[object] | None = None) -> Pairs:
    """Return the pairs of archs of the same group, such as a band of MACs.

    Args:
        groups: (N,) the group of each arch.
        only: the groups that count; None is all.

    Returns:
        The pairs: a tau over them asks for the order inside the groups alone.
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
        x: (N,) one ranking; pairs with a NaN are left out.
        y: (N,) the other.
        pairs: which archs are compared; None compares all.

    Returns:
        Concordant less discordant pairs over the geometric mean of the pairs that each ranking decides; NaN
        where one of them decides none.

    Source: Kendall 1945 (tau-b, which corrects for ties).
    """
    a = np.asarray(x, dtype=float)
    b = np.asarray(y, dtype=float)
    if pairs is not None:
        return float(weighted_taus(a[None], b, np.ones((1, len(a))), pairs.known(b))[0, 0])
    from scipy.stats import kendalltau

    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():  # scipy warns of it
        return math.nan
    return float(kendalltau(a[known], b[known]).statistic)


def weighted_taus(scores: np.ndarray, values: np.ndarray, times: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Correlate scores with values in resamples that hold each arch several times or not at all.

    scipy on the archs written out is the same and takes a hundred times as long.

    Args:
        scores: (M, N) rankings; NaN where a score has none.
        values: (N,) what they are to rank, or (R, N) where it differs by resample; finite where pairs are.
        times: (R, N) how often each resample holds each arch.
        pairs: which archs are compared; an arch that is there twice is a tie with itself.

    Returns:
        (M, R) tau-b; NaN where a resample leaves nothing to compare.
    """
    held = np.ascontiguousarray(times.T, dtype=np.float32)  # (N, R); sums of small integers are exact
    targets = np.ascontiguousarray(values.T)  # (N,) or (N, R)
    agreed, decided, wanted = sums = np.zeros((3, len(scores), len(times)))
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
            wanted += held[arch] * (valid @ (beside * np.abs(order)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return agreed / np.sqrt(decided * wanted)
