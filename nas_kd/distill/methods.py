"""The methods by name. A term is a single loss; a method adds labels and the published weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nas_kd import losses
from nas_kd.distill.task import Classification
from nas_kd.distill.term import Recipe, Schedule, Term, Warmup

# (loss, what it needs) of every term that can be written as (name, weight); "ce" is the task's label loss
TERMS: dict[str, tuple[Callable[..., Tensor], frozenset[str]]] = {
    "kd": (losses.kd, frozenset({"logits"})),
    "kd_ls": (losses.kd_ls, frozenset({"logits"})),
    "dkd": (losses.dkd, frozenset({"logits", "labels"})),
    "dist": (losses.dist, frozenset({"logits"})),
    "logit_mse": (losses.logit_mse, frozenset({"logits"})),
    "js_divergence": (losses.js_divergence, frozenset({"logits"})),
    "reverse_kl": (losses.reverse_kl, frozenset({"logits"})),
    "adaptive_alpha_divergence": (losses.adaptive_alpha_divergence, frozenset({"logits"})),
    "at": (losses.at, frozenset({"stages"})),
    "nst": (losses.nst, frozenset({"stages"})),
    "sp": (losses.sp, frozenset({"pooled"})),
    "pkt": (losses.pkt, frozenset({"pooled"})),
    "rkd": (losses.rkd, frozenset({"pooled"})),
    "cc": (losses.cc, frozenset({"pooled"})),
}


def term(name: str, task: Classification, weight: float | Schedule = 1.0, **settings: float) -> Term:
    """Return one term of ``TERMS``, or "ce".

    Args:
        name: a key of ``TERMS`` or "ce".
        task: gives the label loss.
        weight: number or schedule.
        settings: keywords of the loss.

    Returns:
        The term, named ``name``.
    """
    if name == "ce":
        return Term("ce", task.loss, weight, frozenset({"labels"}))
    loss, needs = TERMS[name]
    return Term(name, partial(loss, **settings) if settings else loss, weight, needs)


def _with_labels(task: Classification, ce: float, other: Term) -> Recipe:
    return Recipe.of([term("ce", task, ce), other])


def ce(task: Classification) -> Recipe:
    """Labels only: the control of every distillation."""
    return Recipe.of([term("ce", task)])


def kd(task: Classification, *, ce: float = 0.1, weight: float = 0.9, temperature: float = 4.0) -> Recipe:
    """Hinton's distillation with RepDistiller's weights."""
    return _with_labels(task, ce, term("kd", task, weight, temperature=temperature))


def kd_ls(task: Classification, *, ce: float = 0.1, weight: float = 9.0, temperature: float = 2.0) -> Recipe:
    """Distillation of standardised logits with its paper's weights for CIFAR."""
    return _with_labels(task, ce, term("kd_ls", task, weight, temperature=temperature))


def dkd(
    task: Classification, *, ce: float = 1.0, weight: float = 1.0, alpha: float = 1.0, beta: float = 2.0,
    temperature: float = 4.0, warmup: float = 20 / 240,
) -> Recipe:  # fmt: skip
    """Decoupled distillation; beta 2 is published for ResNet-56 to ResNet-20, other pairs take up to 8."""
    grows = Warmup(weight, warmup) if warmup else weight
    return _with_labels(task, ce, term("dkd", task, grows, alpha=alpha, beta=beta, temperature=temperature))


def dist(
    task: Classification, *, ce: float = 1.0, weight: float = 2.0, beta: float = 1.0, gamma: float = 1.0,
    temperature: float = 4.0,
) -> Recipe:  # fmt: skip
    """DIST with its authors' CIFAR settings."""
    settings = {"beta": beta, "gamma": gamma, "temperature": temperature}
    return _with_labels(task, ce, term("dist", task, weight, **settings))


def logit_mse(task: Classification, *, ce: float = 0.1, weight: float = 0.45) -> Recipe:
    """Regression of the logits; the weight is the limit of "kd" at infinite temperature."""
    return _with_labels(task, ce, term("logit_mse", task, weight))


def at(task: Classification, *, ce: float = 1.0, weight: float = 1000.0) -> Recipe:
    """Attention transfer; student and teacher stages need equal heights and widths."""
    return _with_labels(task, ce, term("at", task, weight))


def nst(task: Classification, *, ce: float = 1.0, weight: float = 50.0) -> Recipe:
    """Neuron selectivity transfer; student and teacher stages need equal heights and widths."""
    return _with_labels(task, ce, term("nst", task, weight))


def sp(task: Classification, *, ce: float = 1.0, weight: float = 3000.0) -> Recipe:
    """Similarity-preserving distillation of the pooled features."""
    return _with_labels(task, ce, term("sp", task, weight))


def pkt(task: Classification, *, ce: float = 1.0, weight: float = 30000.0) -> Recipe:
    """Probabilistic knowledge transfer of the pooled features."""
    return _with_labels(task, ce, term("pkt", task, weight))


def rkd(
    task: Classification, *, ce: float = 1.0, weight: float = 1.0, distance: float = 25.0, angle: float = 50.0
) -> Recipe:
    """Relational distillation of the pooled features."""
    return _with_labels(task, ce, term("rkd", task, weight, distance=distance, angle=angle))


METHODS: dict[str, Callable[..., Recipe]] = {
    "ce": ce,
    "kd": kd,
    "kd_ls": kd_ls,
    "dkd": dkd,
    "dist": dist,
    "logit_mse": logit_mse,
    "at": at,
    "nst": nst,
    "sp": sp,
    "pkt": pkt,
    "rkd": rkd,
}
