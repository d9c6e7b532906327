"""Methods on the relations among the samples of a batch; student and teacher may differ in width."""

from __future__ import annotations

from nas_kd.distill.methods.entry import Entry, with_labels
from nas_kd.distill.task import Classification
from nas_kd.distill.term import Recipe
from nas_kd.distill.terms import term


def sp(task: Classification, *, ce: float = 1.0, weight: float = 3000.0) -> Recipe:
    """Similarity-preserving distillation: Gram matrices of the pooled features."""
    return with_labels(task, ce, term("sp", task, weight))


def pkt(task: Classification, *, ce: float = 1.0, weight: float = 30000.0) -> Recipe:
    """Probabilistic knowledge transfer: KL of the similarities of the pooled features."""
    return with_labels(task, ce, term("pkt", task, weight))


def rkd(
    task: Classification, *, ce: float = 1.0, weight: float = 1.0, distance: float = 25.0, angle: float = 50.0
) -> Recipe:
    """Relational distillation: distances and angles among the pooled features."""
    return with_labels(task, ce, term("rkd", task, weight, distance=distance, angle=angle))


def rdm(task: Classification, *, ce: float = 1.0, weight: float = 1.0) -> Recipe:
    """Correlation of the two batches' distances among the pooled features."""
    return with_labels(task, ce, term("rdm", task, weight))


_LIVE = "live teacher"
RELATIONS: dict[str, Entry] = {
    "sp": Entry(sp, _LIVE, "B^2 D", "arXiv 1907.09682"),
    "pkt": Entry(pkt, _LIVE, "B^2 D", "arXiv 1803.10837"),
    "rkd": Entry(rkd, _LIVE, "B^2 D, and A^3 of at most A = 64 anchors", "arXiv 1904.05068"),
    "rdm": Entry(rdm, _LIVE, "B^2 D", "Kriegeskorte et al. 2008"),
}
