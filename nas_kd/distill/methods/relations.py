"""Methods on the relations among the samples of a batch; student and teacher may differ in width."""

from __future__ import annotations

from functools import partial

from nas_kd import losses
from nas_kd.distill.methods.entry import Entry, label_term, with_labels
from nas_kd.distill.sampling import ClassBalanced
from nas_kd.distill.task import Task
from nas_kd.distill.term import Recipe, Term
from nas_kd.distill.terms import term
from nas_kd.losses._common import one_of
from nas_kd.losses.labels import CLASSES


def sp(task: Task, *, ce: float = 1.0, weight: float = 3000.0) -> Recipe:
    """Similarity-preserving distillation: Gram matrices of the pooled features."""
    return with_labels(task, ce, term("sp", task, weight))


def pkt(task: Task, *, ce: float = 1.0, weight: float = 30000.0) -> Recipe:
    """Probabilistic knowledge transfer: KL of the similarities of the pooled features."""
    return with_labels(task, ce, term("pkt", task, weight))


def rkd(
    task: Task,
    *,
    ce: float = 1.0,
    weight: float = 1.0,
    distance: float = 25.0,
    angle: float = 50.0,
    anchors: float = 0,
) -> Recipe:
    """Relational distillation: distances and angles among the pooled features; anchors=64 spares large batches."""
    settings = {"distance": distance, "angle": angle, "anchors": int(anchors) or None}
    return with_labels(task, ce, term("rkd", task, weight, **settings))


def rdm(task: Task, *, ce: float = 1.0, weight: float = 1.0) -> Recipe:
    """Correlation of the two batches' distances among the pooled features."""
    return with_labels(task, ce, term("rdm", task, weight))


def cc(
    task: Task,
    *,
    ce: float = 0.1,
    kd: float = 0.9,
    weight: float = 0.02,
    temperature: float = 4.0,
    gamma: float = 0.4,
    order: float = 2,
    classes: float = 6,
    variant: str = "paper",
) -> Recipe:
    """Correlation congruence: Gaussian kernels of the pooled features, in batches of few classes."""
    one_of("cc.variant", variant, ("paper", "repdistiller"))
    if variant == "repdistiller":
        return with_labels(task, 1.0, term("cc_embedded", task, weight))
    terms = [label_term(task, ce), term("kd", task, kd, temperature=temperature)]
    terms.append(term("cc", task, weight, gamma=gamma, order=int(order)))
    sampler = partial(ClassBalanced, classes=int(classes)) if classes else None
    return Recipe.of(terms, sampler=sampler)


def irg(
    task: Task,
    *,
    ce: float = 1.0,
    vertices: float = 0.1,
    edges: float = 5.0,
    change: float = 5.0,
    variant: str = "paper",
) -> Recipe:
    """Instance relationship graphs: logits, distances in every stage, and how far each image moves between stages."""
    one_of("irg.variant", variant, ("paper", "code"))
    # the weights of the well-known port to PyTorch (Knowledge-Distillation-Zoo); the authors' are 0.005 of sums
    graphs = term("irg", task, 1.0, edges=edges, change=change, variant=variant)
    return with_labels(task, ce, Term("vertices", losses.logit_mse, vertices), graphs)


_LIVE = "live teacher"
_NOISE = "none measurable"
RELATIONS: dict[str, Entry] = {
    "sp": Entry(sp, _LIVE, _NOISE, "arXiv 1907.09682"),
    "pkt": Entry(pkt, _LIVE, _NOISE, "arXiv 1803.10837"),
    "rkd": Entry(rkd, _LIVE, "2 % of a step", "arXiv 1904.05068"),
    "cc": Entry(cc, "live teacher; batches of few classes", _NOISE, "arXiv 1904.01802", CLASSES),
    "rdm": Entry(rdm, _LIVE, _NOISE, "Kriegeskorte et al. 2008"),
    "irg": Entry(irg, "live teacher, two stages or more", "14 % of a step", "CVPR 2019"),
}
