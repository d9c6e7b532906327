"""The losses as terms, by the names that users write in a list such as ``[("ce", 0.1), ("kd", 0.9)]``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from nas_kd import losses
from nas_kd.distill.adapters import Boundaries, Embedded, Factors, Hint, Variational
from nas_kd.distill.contrast import Contrast
from nas_kd.distill.pair import equal_channels, equal_places, two_stages
from nas_kd.distill.review import Review
from nas_kd.distill.task import Task
from nas_kd.distill.term import Schedule, Term
from nas_kd.losses.labels import CLASSES, DISTRIBUTIONS, KINDS


def _logits(name: str, *labels: str, kinds: tuple[str, ...] = CLASSES) -> Term:
    return Term(name, getattr(losses, name), needs=frozenset({"logits", *labels}), kinds=kinds)


def _standardised(name: str, *labels: str) -> Term:
    loss = partial(losses.standardised, getattr(losses, name))
    return Term(f"{name}_ls", loss, needs=frozenset({"logits", *labels}), kinds=CLASSES)


TERMS: dict[str, Term] = {
    "kd": _logits("kd", kinds=KINDS),
    "kd_ls": _logits("kd_ls"),
    "dkd": _logits("dkd", "labels"),
    "dkd_ls": _standardised("dkd", "labels"),
    "dist": _logits("dist"),
    "dist_ls": _standardised("dist"),
    "logit_mse": _logits("logit_mse", kinds=KINDS),
    "logit_mse_ls": _standardised("logit_mse"),
    "virtual_teacher": Term("virtual_teacher", losses.virtual_teacher, needs=frozenset({"labels"}), kinds=CLASSES),
    "js_divergence": _logits("js_divergence", kinds=DISTRIBUTIONS),
    "js_divergence_ls": _standardised("js_divergence"),
    "reverse_kl": _logits("reverse_kl", kinds=DISTRIBUTIONS),
    "reverse_kl_ls": _standardised("reverse_kl"),
    "alpha_divergence": _logits("alpha_divergence", kinds=DISTRIBUTIONS),
    "alpha_divergence_ls": _standardised("alpha_divergence"),
    "adaptive_alpha_divergence": _logits("adaptive_alpha_divergence", kinds=DISTRIBUTIONS),
    "adaptive_alpha_divergence_ls": _standardised("adaptive_alpha_divergence"),
    "at": Term("at", losses.at, needs=frozenset({"stages"}), check=equal_places("at")),
    "nst": Term("nst", losses.nst, needs=frozenset({"stages"}), check=equal_places("nst")),
    "fitnet": Term("fitnet", needs=frozenset({"stages"}), module=Hint),
    "vid": Term("vid", needs=frozenset({"stages"}), module=Variational),
    "reconstruct": Term(
        "reconstruct", Factors.reconstruct, needs=frozenset({"stages"}), side="teacher", module=Factors, key="ft"
    ),
    "ft": Term("ft", needs=frozenset({"stages"}), module=Factors),
    "ab": Term("ab", needs=frozenset({"pre"}), module=Boundaries),
    "fsp": Term("fsp", losses.fsp, needs=frozenset({"stages"}), whole=True, check=equal_channels("fsp")),
    "review": Term("review", needs=frozenset({"pre", "pooled"}), module=Review),
    "crd": Term("crd", needs=frozenset({"pooled", "batch"}), module=Contrast),
    "sp": Term("sp", losses.sp, needs=frozenset({"pooled"})),
    "pkt": Term("pkt", losses.pkt, needs=frozenset({"pooled"})),
    "rkd": Term("rkd", losses.rkd, needs=frozenset({"pooled"})),
    "rdm": Term("rdm", losses.rdm, needs=frozenset({"pooled"})),
    "cc": Term("cc", losses.cc, needs=frozenset({"pooled"})),
    "cc_embedded": Term("cc_embedded", needs=frozenset({"pooled"}), module=Embedded),
    "irg": Term("irg", losses.irg, needs=frozenset({"stages"}), whole=True, check=two_stages("irg")),
}


def _squared_error(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times the squared error of outputs that are divided by T, which is that of the outputs for every T > 0."""
    return losses.logit_mse(student, teacher)


def term(name: str, task: Task, weight: float | Schedule = 1.0, **settings: Any) -> Term:
    """Return one term of ``TERMS``, or "ce", with what its loss means for the task.

    Args:
        settings: keywords of the loss, or of its module.
    """
    if name == "ce":
        return Term("ce", task.loss, weight, frozenset({"labels"}))
    found = TERMS[name]
    if task.kind == "multilabel" and found.kinds == DISTRIBUTIONS or (task.kind, name) == ("multilabel", "kd"):
        found = replace(found, loss=partial(losses.per_label, found.loss))
    elif task.kind == "regression" and name == "kd":
        found = replace(found, loss=_squared_error)
    if not settings:
        return replace(found, weight=weight)
    if found.module is not None:
        return replace(found, weight=weight, module=partial(found.module, **settings))
    return replace(found, weight=weight, loss=partial(found.loss, **settings))
