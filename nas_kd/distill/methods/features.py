"""Methods on feature maps, which need a live teacher with one tap per student stage."""

from __future__ import annotations

from functools import partial
from typing import Any

from nas_kd.distill.aggregation import Aggregation
from nas_kd.distill.aligned import Aligned, read_pairs
from nas_kd.distill.methods.entry import Entry, check_share, label_term, warmed_up, with_labels
from nas_kd.distill.task import Task
from nas_kd.distill.term import MIDDLE, Phase, Recipe, Term
from nas_kd.distill.terms import term
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of
from nas_kd.losses.labels import KINDS


def at(task: Task, *, ce: float = 1.0, weight: float = 1000.0, variant: str = "paper") -> Recipe:
    """Attention transfer: maps of mean squared activation; any channels, equal heights and widths."""
    return with_labels(task, ce, term("at", task, weight, variant=variant))


def nst(task: Task, *, ce: float = 1.0, weight: float = 50.0) -> Recipe:
    """Neuron selectivity transfer: MMD of the channels' maps; any channels, equal heights and widths."""
    return with_labels(task, ce, term("nst", task, weight))


def fitnet(
    task: Task,
    *,
    ce: float = 0.1,
    weight: float = 100.0,
    temperature: float = 4.0,
    first: float = 0.2,
    variant: str = "paper",
) -> Recipe:
    """Hints: the middle stage regresses the teacher's, then KD; variant one_stage trains both together."""
    one_of("fitnet.variant", variant, ("paper", "one_stage"))
    hint = term("fitnet", task, weight)
    if variant == "one_stage":
        return with_labels(task, 1.0, hint)
    check_share("fitnet.first", first)
    after = (label_term(task, ce), term("kd", task, 1.0 - ce if ce < 1 else 1.0, temperature=temperature))
    return Recipe((Phase((term("fitnet", task),), first, until=MIDDLE), Phase(after, 1.0 - first)))


def vid(task: Task, *, ce: float = 1.0, weight: float = 1.0, variant: str = "paper") -> Recipe:
    """Variational information distillation: the teacher's features are predicted, with a learned variance."""
    return with_labels(task, ce, term("vid", task, weight, variant=variant))


def ft(
    task: Task,
    *,
    ce: float = 1.0,
    weight: float = 200.0,
    rate: float = 0.5,
    first: float = 0.1,
    variant: str = "paper",
) -> Recipe:
    """Factor transfer: the teacher's last map is paraphrased first, then translated by the student."""
    check_share("ft.first", first)
    settings: dict[str, Any] = {"rate": rate, "variant": variant}
    train = (label_term(task, ce), term("ft", task, weight, **settings))
    # the published learning rate of the paraphraser is a fifth of the student's
    return Recipe((Phase((term("reconstruct", task, 0.2, **settings),), first), Phase(train, 1.0 - first)))


def ab(task: Task, *, weight: float = 0.003, margin: float = 1.0, first: float = 0.12) -> Recipe:
    """Activation boundaries: the student first learns which of the teacher's neurons are active, then the labels."""
    check_share("ab.first", first)
    return Recipe((Phase((term("ab", task, weight, margin=margin),), first), Phase((label_term(task),), 1.0 - first)))


def fsp(task: Task, *, weight: float = 50.0, first: float = 0.12, variant: str = "paper") -> Recipe:
    """Flow of solution: products of neighbouring stages first, then the labels; equal channels only."""
    check_share("fsp.first", first)
    flow = term("fsp", task, weight, variant=variant)
    return Recipe((Phase((flow,), first), Phase((label_term(task),), 1.0 - first)))


def review(task: Task, *, ce: float = 1.0, weight: float = 1.0, width: float = 512, warmup: float = 20 / 240) -> Recipe:
    """Knowledge review: every teacher stage is compared with a fusion of that and the later student stages."""
    grows = warmed_up("review", weight, warmup)
    return with_labels(task, ce, term("review", task, grows, width=int(width)))


def crd(
    task: Task,
    *,
    ce: float = 1.0,
    kd: float = 0.0,
    weight: float = 0.8,
    width: float = 128,
    negatives: float = 16384,
    temperature: float = 0.07,
    variant: str = "exact",
) -> Recipe:
    """Contrastive distillation of the pooled features against a memory of the images of other classes."""
    one_of("crd.variant", variant, ("exact", "relax", "shared"))
    settings = {"width": int(width), "negatives": int(negatives), "temperature": temperature, "variant": variant}
    return with_labels(task, ce, term("crd", task, weight, **settings), term("kd", task, kd))


def dfa(
    task: Task, *, ce: float = 1.0, weight: float = 1.0, kd: float = 0.0, first: float = 0.2, lr: float = 0.01
) -> Recipe:
    """Feature aggregation: weights over a teacher's blocks are searched first, with a bridge loss, then imitated."""
    check_share("dfa.first", first)
    if not lr > 0:
        raise SettingError("dfa.lr", lr, "a number above 0", "0.01 is the default")
    build = partial(Aggregation, task=task, lr=lr)
    needs = frozenset({"stages", "pooled"})  # whole outputs: a teacher's stage has several features
    search = Term("bridge", Aggregation.search, needs=needs | {"labels", "batch"}, module=build, key="dfa", kinds=KINDS)
    imitate = Term("dfa", weight=weight, needs=needs, module=build, kinds=KINDS)
    after = (label_term(task, ce), imitate, *((term("kd", task, kd),) if kd else ()))
    return Recipe((Phase((search,), first), Phase(after, 1.0 - first)))


def inject(
    task: Task,
    *,
    ce: float = 0.1,
    weight: float = 0.9,
    temperature: float = 4.0,
    images: float = 500,
    layers: str = "",
) -> Recipe:
    """Module injection: convolutions are aligned with the teacher's in closed form, then KD; layers="own=its" names."""
    read_pairs(layers)  # a mistake is told before anything is loaded
    terms = [label_term(task, ce), term("kd", task, weight, temperature=temperature)]
    return Recipe.of(terms, start=Aligned(layers, int(images)), live=True)


_LIVE = "live teacher"
_MAPS = "live teacher, equal map sizes"
# costs as measured on one CPU thread, ResNet-20 taught by ResNet-56, batch 64, 32 pixels
FEATURES: dict[str, Entry] = {
    "at": Entry(at, _MAPS, "3 % of a step", "arXiv 1612.03928"),
    "nst": Entry(nst, _MAPS, "12 % of a step", "arXiv 1707.01219"),
    "fitnet": Entry(fitnet, _MAPS, "2 % of a step", "arXiv 1412.6550"),
    "vid": Entry(vid, _MAPS, "15 % of a step", "arXiv 1904.05835"),
    "ft": Entry(ft, _MAPS, "16 % of a step", "arXiv 1802.04977"),
    "ab": Entry(ab, _MAPS, "13 % of a step in the first epochs", "arXiv 1811.03233"),
    "fsp": Entry(fsp, "live teacher of the same channels", "12 % of a step in the first epochs", "CVPR 2017"),
    "dfa": Entry(dfa, _MAPS, "three steps a stage in the first epochs, then 3 %", "arXiv 2008.00506"),
    "review": Entry(review, _MAPS, "0.8 of a step", "arXiv 2104.09044"),
    "inject": Entry(
        inject, "live teacher with layers of the student's shapes", "seconds before the first", "arXiv 1812.01839"
    ),
    "crd": Entry(crd, _LIVE, "18 % of a step, a memory of 256 numbers per image", "arXiv 1910.10699"),
}
