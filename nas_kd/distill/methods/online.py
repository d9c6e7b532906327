"""Methods without a fixed teacher: self-distillation, and peers that teach each other."""

from __future__ import annotations

from functools import partial

from nas_kd import losses
from nas_kd.config.names import imported
from nas_kd.distill.ensemble import label_loss_of_target
from nas_kd.distill.exits import Exits
from nas_kd.distill.methods.entry import Entry, label_term, warmed_up, with_labels
from nas_kd.distill.own import MeanTeacher, Privileged, SelfTargets
from nas_kd.distill.paired import PairedView
from nas_kd.distill.peers import Grafted, Peers
from nas_kd.distill.sampling import ClassPairs, CleanBeside, TwoViews
from nas_kd.distill.task import Task
from nas_kd.distill.term import Recipe, Term
from nas_kd.distill.terms import term
from nas_kd.errors import SettingError
from nas_kd.losses._common import one_of
from nas_kd.losses.labels import CLASSES

LOGITS = frozenset({"logits"})
LABELLED = frozenset({"logits", "labels"})


def byot(
    task: Task,
    *,
    weight: float = 1.0,
    alpha: float = 0.1,
    hint: float = 1.28e-4,
    temperature: float = 3.0,
    variant: str = "paper",
) -> Recipe:
    """Be your own teacher: intermediate exits learn from the student's last layer, and are dropped afterwards."""
    one_of("byot.variant", variant, ("paper", "code"))
    module = partial(Exits, alpha=alpha, hint=hint, temperature=temperature, variant=variant)
    needs = frozenset({"logits", "stages", "labels"})
    deepest = 1.0 if variant == "paper" else 1.0 - alpha  # the code weighs all classifiers' labels alike
    return with_labels(task, deepest, Term("byot", weight=weight, needs=needs, side="student", module=module))


def cs_kd(task: Task, *, weight: float = 1.0, temperature: float = 4.0) -> Recipe:
    """Class-wise self-distillation: the student's logits on another image of the class are the target."""
    terms = [label_term(task), Term("cs_kd", partial(losses.kd, temperature=temperature), weight)]
    return Recipe.of(terms, sampler=ClassPairs, source=SelfTargets.fixed, own_targets=True)


def ddgsd(task: Task, *, weight: float = 1.0, mmd: float = 0.005, temperature: float = 3.0) -> Recipe:
    """Two augmented views of an image teach each other, by their logits and the means of their features."""
    terms = [
        label_term(task),
        Term("ce_other", label_loss_of_target, 1.0, LABELLED, side="teacher"),
        Term("ddgsd", partial(losses.symmetric_kd, temperature=temperature), weight),
        Term("mmd", losses.linear_mmd, mmd, frozenset({"pooled"})),
    ]
    return Recipe.of(terms, sampler=TwoViews, source=SelfTargets.learning, own_targets=True)


def mean_teacher(
    task: Task,
    *,
    weight: float = 10.0,
    decay: float = 0.999,
    kind: str = "mse",
    warmup: float = 0.2,
    ramp: bool = True,
) -> Recipe:
    """Consistency with the running mean of the student's own weights, on another view."""
    grows = warmed_up("mean_teacher", weight, warmup)
    terms = [label_term(task), Term("mean_teacher", partial(losses.consistency, kind=kind), grows)]
    source = partial(MeanTeacher, decay=decay, ramp=ramp)
    return Recipe.of(terms, sampler=TwoViews, source=source, own_targets=True)


def dml(task: Task, *, weight: float = 1.0, peers: float = 2) -> Recipe:
    """Deep mutual learning: copies of the network, trained together, match each other's logits."""
    terms = [
        label_term(task),
        Term("dml", losses.mutual, weight),
        Term("peers", partial(losses.peers_loss, share=weight), 1.0, LABELLED),
    ]
    return Recipe.of(terms, source=partial(Peers, count=int(peers)), own_targets=True)


def grafting(task: Task, *, peers: float = 2, width: float = 0.4, slope: float = 500.0) -> Recipe:
    """Filter grafting: after every epoch, networks trained side by side mix their filters by entropy."""
    terms = [label_term(task), Term("peers", partial(losses.peers_loss, share=0.0), 1.0, LABELLED)]
    source = partial(Grafted, count=int(peers), width=width, slope=slope)
    return Recipe.of(terms, source=source, own_targets=True)


def privileged(
    task: Task, *, ce: float = 0.1, weight: float = 0.9, temperature: float = 4.0, view: str = "", images: str = ""
) -> Recipe:
    """Generalised distillation: the teacher sees the original image, view="mine:f" or that of a pair, images="folder".

    ``view`` names a function from a batch, whose ``other`` are the original images, to what the teacher sees;
    ``images`` a data set that has an image of the same name for each of the student's, of another kind.
    """
    if view and images:
        raise SettingError("privileged.images", images, "empty where privileged.view is given", "leave one of them out")
    paired = PairedView(images) if images else None
    seen = imported("privileged.view", view) if view else paired
    if view and not callable(seen):
        raise SettingError("privileged.view", view, "package.module:function, from a batch to the teacher's images")
    terms = [label_term(task, ce), term("kd", task, weight, temperature=temperature)]
    start = None if paired is None else paired.open
    return Recipe.of(terms, sampler=CleanBeside, source=partial(Privileged.of, view=seen), live=True, start=start)


ONLINE: dict[str, Entry] = {
    "byot": Entry(
        byot, "two stages or more, no teacher", "25 % of a step or more, for the exits", "arXiv 1905.08094", CLASSES
    ),
    "cs_kd": Entry(
        cs_kd, "two images per class, no teacher", "a forward pass of the student", "arXiv 2003.13964", CLASSES
    ),
    "ddgsd": Entry(ddgsd, "two views per image, no teacher", "a second step", "AAAI 2019", CLASSES),
    "mean_teacher": Entry(
        mean_teacher, "two views per image, no teacher", "a forward pass", "arXiv 1703.01780", CLASSES
    ),
    "dml": Entry(dml, "no teacher", "a step per peer", "arXiv 1706.00384", CLASSES),
    "grafting": Entry(grafting, "no teacher", "a step per peer", "arXiv 2001.05868", CLASSES),
    "privileged": Entry(privileged, "live teacher", "the teacher's forward pass", "arXiv 1511.03643"),
}
