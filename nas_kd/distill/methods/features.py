"""Methods on feature maps, which need a live teacher with one tap a student stage."""

from __future__ import annotations

from nas_kd.distill.methods.entry import Entry, with_labels
from nas_kd.distill.task import Classification
from nas_kd.distill.term import Recipe
from nas_kd.distill.terms import term


def at(task: Classification, *, ce: float = 1.0, weight: float = 1000.0, variant: str = "paper") -> Recipe:
    """Attention transfer: maps of mean squared activation; any channels, equal heights and widths."""
    return with_labels(task, ce, term("at", task, weight, variant=variant))


def nst(task: Classification, *, ce: float = 1.0, weight: float = 50.0) -> Recipe:
    """Neuron selectivity transfer: MMD of the channels' maps; any channels, equal heights and widths."""
    return with_labels(task, ce, term("nst", task, weight))


_LIVE = "live teacher, equal map sizes"
FEATURES: dict[str, Entry] = {
    "at": Entry(at, _LIVE, "about 2 % of a student step", "arXiv 1612.03928"),
    "nst": Entry(nst, _LIVE, "about 10 % of a student step", "arXiv 1707.01219"),
}
