"""Methods on the layers of text encoders, which need a live teacher: hidden states and attention, on a map of layers.

``map`` says which of the teacher's layers teaches each of the student's: uniform, last, or (of hidden states) nearest.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from nas_kd.distill.layers import (
    Attention,
    FirstStates,
    HiddenCosine,
    HiddenStates,
    LastRelations,
    Moments,
    check_texts,
)
from nas_kd.distill.masked_words import MaskedWords
from nas_kd.distill.methods.entry import Entry, check_share, label_term, with_labels
from nas_kd.distill.task import Task
from nas_kd.distill.term import Phase, Recipe, Term
from nas_kd.distill.terms import term


def _layers(name: str, module: Any, weight: float, feature: str = "stages", **settings: Any) -> Term:
    needs = frozenset({feature, "batch"})
    made = partial(module, **settings) if settings else module
    return Term(name, weight=weight, needs=needs, module=made, check=check_texts, texts=True)


def distilbert(
    task: Task,
    *,
    ce: float = 2.0,
    kd: float = 5.0,
    weight: float = 1.0,
    temperature: float = 2.0,
    map: str = "last",
    mlm: float = 0.0,
) -> Recipe:
    """Soft targets, labels, the cosine of hidden states and, with mlm=2.0, a masked language model, as DistilBERT."""
    soft = term("kd", task, kd, temperature=temperature)
    states = _layers("distilbert", HiddenCosine, weight, map=map, project=False)
    needs = frozenset({"stages", "batch"})
    guessing = Term("mlm", weight=mlm, needs=needs, side="student", module=MaskedWords, check=check_texts, texts=True)
    return with_labels(task, ce, soft, states, guessing)


def pkd(
    task: Task,
    *,
    ce: float = 0.5,
    kd: float = 0.5,
    weight: float = 10.0,
    temperature: float = 5.0,
    map: str = "uniform",
) -> Recipe:
    """Patient: normalised states of the first token of several layers, beside soft targets; map=uniform or last."""
    soft = term("kd", task, kd, temperature=temperature)
    return with_labels(task, ce, soft, _layers("pkd", FirstStates, weight, map=map, project=False))


def tinybert(
    task: Task, *, weight: float = 1.0, attention: float = 1.0, first: float = 0.6, map: str = "uniform"
) -> Recipe:
    """Embeddings, hidden states and attention scores of all layers first, then logits at temperature 1, as TinyBERT."""
    check_share("tinybert.first", first)
    layers = (
        _layers("tinybert", HiddenStates, weight, map=map, first=True),
        _layers("tinybert_attention", Attention, attention, "pre", map=map),
    )
    return Recipe((Phase(layers, first), Phase((term("kd", task, 1.0, temperature=1.0),), 1.0 - first)))


def minilm(task: Task, *, ce: float = 0.1, kd: float = 0.9, weight: float = 1.0, temperature: float = 2.0) -> Recipe:
    """Attention and relations of values of the last layer, for students of any width, beside soft targets."""
    soft = term("kd", task, kd, temperature=temperature)
    return with_labels(task, ce, soft, _layers("minilm", LastRelations, weight, "pre"))


def mobilebert(
    task: Task,
    *,
    weight: float = 1.0,
    attention: float = 1.0,
    moments: float = 1.0,
    first: float = 0.6,
    temperature: float = 1.0,
    ce: float = 0.5,
    map: str = "uniform",
) -> Recipe:
    """Hidden states, their mean and variance, and attention of all layers first, then soft targets, as MobileBERT."""
    check_share("mobilebert.first", first)
    layers = (
        _layers("mobilebert", HiddenStates, weight, map=map),
        _layers("mobilebert_moments", Moments, moments, map=map, project=False),
        _layers("mobilebert_attention", Attention, attention, "pre", map=map, kind="kl"),
    )
    after = (label_term(task, ce), term("kd", task, 1.0 - ce if ce < 1 else 1.0, temperature=temperature))
    return Recipe((Phase(layers, first), Phase(after, 1.0 - first)))


def cofi(task: Task, *, kd: float = 0.1, weight: float = 0.9, temperature: float = 2.0, map: str = "nearest") -> Recipe:
    """Each layer's hidden states match those of the teacher's nearest, beside soft targets: CoFi's distillation."""
    soft = term("kd", task, kd, temperature=temperature)
    return Recipe.of([soft, _layers("cofi", HiddenStates, weight, map=map)])


_LIVE = "texts, a live teacher"
TEXTS: dict[str, Entry] = {
    "distilbert": Entry(distilbert, _LIVE, "the teacher's forward pass", "arXiv 1910.01108", texts=True),
    "pkd": Entry(pkd, _LIVE, "the teacher's forward pass", "arXiv 1908.09355", texts=True),
    "tinybert": Entry(tinybert, _LIVE, "the teacher's forward pass", "arXiv 1909.10351", texts=True),
    "minilm": Entry(minilm, _LIVE, "the teacher's forward pass", "arXiv 2002.10957", texts=True),
    "mobilebert": Entry(mobilebert, _LIVE, "the teacher's forward pass", "arXiv 2004.02984", texts=True),
    "cofi": Entry(cofi, _LIVE, "the teacher's forward pass", "arXiv 2204.00408", texts=True),
}
