"""Methods on logits and labels: they need no features, so a cache of the teacher's logits is enough."""

from __future__ import annotations

from dataclasses import replace

from nas_kd.distill.ensemble import LearnedEnsemble, label_loss_of_target
from nas_kd.distill.methods.entry import Entry, label_term, warmed_up, with_labels
from nas_kd.distill.task import Task
from nas_kd.distill.tasks.classification import Classification
from nas_kd.distill.term import Recipe, Term
from nas_kd.distill.terms import term
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of
from nas_kd.losses.labels import CLASSES, DISTRIBUTIONS


def ce(task: Task) -> Recipe:
    """Labels only: the baseline of every distillation."""
    return Recipe.of([label_term(task)])


def kd(task: Task, *, ce: float = 0.1, weight: float = 0.9, temperature: float = 4.0) -> Recipe:
    """Hinton's distillation: the teacher's softened probabilities."""
    return with_labels(task, ce, term("kd", task, weight, temperature=temperature))


def kd_ls(task: Task, *, ce: float = 0.1, weight: float = 9.0, temperature: float = 2.0) -> Recipe:
    """Distillation of standardised logits: the student need not match the teacher's scale."""
    return with_labels(task, ce, term("kd_ls", task, weight, temperature=temperature))


def logit_mse(task: Task, *, ce: float = 0.1, weight: float = 0.45, standardise: bool = False) -> Recipe:
    """Regression of the logits; the default weight is the limit of "kd" at infinite temperature."""
    return with_labels(task, ce, term(_named("logit_mse", standardise), task, weight))


def dkd(
    task: Task,
    *,
    ce: float = 1.0,
    weight: float = 1.0,
    alpha: float = 1.0,
    beta: float = 2.0,
    temperature: float = 4.0,
    warmup: float = 20 / 240,
    standardise: bool = False,
) -> Recipe:
    """Decoupled distillation of the target and of the other classes; published values of beta are 2 to 8."""
    grows = warmed_up("dkd", weight, warmup)
    name = _named("dkd", standardise)
    return with_labels(task, ce, term(name, task, grows, alpha=alpha, beta=beta, temperature=temperature))


def dist(
    task: Task,
    *,
    ce: float = 1.0,
    weight: float = 2.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 4.0,
    standardise: bool = False,
) -> Recipe:
    """Correlations of the probabilities, by sample and by class, instead of their values."""
    settings = {"beta": beta, "gamma": gamma, "temperature": temperature}
    return with_labels(task, ce, term(_named("dist", standardise), task, weight, **settings))


def multi_teacher(
    task: Task,
    *,
    ce: float = 0.1,
    weight: float = 0.9,
    temperature: float = 4.0,
    weights: str = "learned",
) -> Recipe:
    """Distillation of several teachers' mean probabilities, weighted equally or by weights learned from labels."""
    if weights not in ("learned", "mean"):
        raise SettingError("multi_teacher.weights", weights, "learned or mean")
    terms = [label_term(task, ce), term("kd", task, weight, temperature=temperature)]
    if weights == "mean":
        return Recipe.of(terms)
    shares = Term("shares", label_loss_of_target, 1.0, frozenset({"logits", "labels"}), side="teacher")
    return Recipe.of([*terms, shares], source=LearnedEnsemble.of)


def virtual_teacher(
    task: Task,
    *,
    ce: float = 0.9,
    weight: float = 0.1,
    correct: float = 0.99,
    temperature: float = 20.0,
    variant: str = "code",
) -> Recipe:
    """A virtual teacher, peaked at the label and uniform elsewhere; defaults are the authors' for a ResNet-18."""
    one_of("virtual_teacher.variant", variant, ("code", "paper"))
    settings = {"correct": correct, "temperature": temperature, "variant": variant}
    return with_labels(task, ce, term("virtual_teacher", task, weight, **settings))


def label_smoothing(task: Task, *, smoothing: float = Classification.smoothing) -> Recipe:
    """Labels smoothed over all classes, and no teacher."""
    softer = replace(task, smoothing=smoothing) if isinstance(task, Classification) else Classification(smoothing)
    return Recipe.of([label_term(softer)])


def alpha_divergence(
    task: Task,
    *,
    ce: float = 0.1,
    weight: float = 0.9,
    alpha: float = -1.0,
    clip: float = 5.0,
    standardise: bool = False,
) -> Recipe:
    """The alpha-divergence between teacher and student, its ratio clipped; 1 is KL, 0 reverse KL."""
    return with_labels(task, ce, term(_named("alpha_divergence", standardise), task, weight, alpha=alpha, clip=clip))


def adaptive_alpha(
    task: Task,
    *,
    ce: float = 0.1,
    weight: float = 0.9,
    alpha_max: float = 1.0,
    clip: float = 5.0,
    standardise: bool = False,
) -> Recipe:
    """AlphaNet's larger of two clipped alpha-divergences, as the supernet uses it."""
    name = _named("adaptive_alpha_divergence", standardise)
    return with_labels(task, ce, term(name, task, weight, alpha_max=alpha_max, clip=clip))


def js_divergence(task: Task, *, ce: float = 0.1, weight: float = 0.9, standardise: bool = False) -> Recipe:
    """The Jensen-Shannon divergence between teacher and student."""
    return with_labels(task, ce, term(_named("js_divergence", standardise), task, weight))


def reverse_kl(task: Task, *, ce: float = 0.1, weight: float = 0.9, standardise: bool = False) -> Recipe:
    """Reverse KL: penalises a student that is confident where the teacher is not."""
    return with_labels(task, ce, term(_named("reverse_kl", standardise), task, weight))


def _named(term: str, standardise: bool) -> str:
    return f"{term}_ls" if standardise else term


def takd(task: Task, *, ce: float = 0.1, weight: float = 0.9, temperature: float = 4.0) -> Recipe:
    """Distillation through assistants of intermediate sizes, each taught by the previous one."""
    return kd(task, ce=ce, weight=weight, temperature=temperature)


def born_again(
    task: Task, *, ce: float = 0.1, weight: float = 0.9, temperature: float = 1.0, generations: float = 3
) -> Recipe:
    """The student is retrained several times, each generation with the previous one as teacher."""
    return replace(kd(task, ce=ce, weight=weight, temperature=temperature), generations=int(generations))


_TEACHER = "teacher or its cache"
_NONE = "nothing"
_NOISE = "none measurable"
LABELS: dict[str, Entry] = {
    "ce": Entry(ce, _NONE, "none", ""),
    "label_smoothing": Entry(label_smoothing, _NONE, "none", "arXiv 1512.00567", CLASSES),
    "virtual_teacher": Entry(virtual_teacher, _NONE, "none", "arXiv 1909.11723", CLASSES),
    "kd": Entry(kd, _TEACHER, _NOISE, "arXiv 1503.02531"),
    "kd_ls": Entry(kd_ls, _TEACHER, _NOISE, "arXiv 2403.01427", CLASSES),
    "logit_mse": Entry(logit_mse, _TEACHER, _NOISE, "arXiv 1312.6184"),
    "dkd": Entry(dkd, _TEACHER, _NOISE, "arXiv 2203.08679", CLASSES),
    "dist": Entry(dist, _TEACHER, _NOISE, "arXiv 2205.10536", CLASSES),
    "multi_teacher": Entry(
        multi_teacher, "two or more teachers or caches", "a forward pass per teacher", "KDD 2017", CLASSES
    ),
    "takd": Entry(takd, "teacher, and assistants=[...]", "a training per assistant", "arXiv 1902.03393"),
    "born_again": Entry(born_again, _TEACHER, "a training per generation", "arXiv 1805.04770"),
    "alpha_divergence": Entry(alpha_divergence, _TEACHER, _NOISE, "arXiv 2102.07954", DISTRIBUTIONS),
    "adaptive_alpha": Entry(adaptive_alpha, _TEACHER, _NOISE, "arXiv 2102.07954", DISTRIBUTIONS),
    "js_divergence": Entry(js_divergence, _TEACHER, _NOISE, "", DISTRIBUTIONS),
    "reverse_kl": Entry(reverse_kl, _TEACHER, _NOISE, "", DISTRIBUTIONS),
}
