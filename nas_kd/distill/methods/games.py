"""Adversarial and data-free methods, and one for a soft decision tree as student."""

from __future__ import annotations

import math
from functools import partial

from nas_kd import losses
from nas_kd.distill.boundary import Boundary
from nas_kd.distill.critic import Critic
from nas_kd.distill.generator import Generator, Noise, Switches
from nas_kd.distill.methods.entry import Entry, label_term, with_labels
from nas_kd.distill.task import Task
from nas_kd.distill.term import Decay, Recipe, Term
from nas_kd.distill.terms import term
from nas_kd.distill.tree import TreeLoss
from nas_kd.losses._common import one_of
from nas_kd.losses.labels import CLASSES

LABELLED = frozenset({"logits", "labels"})


def gan_kd(
    task: Task,
    *,
    ce: float = 1.0,
    l1: float = 1.0,
    weight: float = 0.1,
    width: float = 128,
    lr: float = 1e-3,
) -> Recipe:
    """Adversarial distillation: a critic learns to distinguish the student's logits from the teacher's."""
    critic = Term("gan_kd", weight=weight, needs=LABELLED, module=partial(Critic, width=int(width), lr=lr))
    return with_labels(task, ce, Term("logit_l1", losses.logit_l1, l1), critic)


def bss(
    task: Task,
    *,
    ce: float = 1.0,
    kd: float = 4.0,
    weight: float = 2.0,
    temperature: float = 3.0,
    attacked: float = 64,
    steps: float = 10,
    rate: float = 0.3,
    until: float = 0.75,
) -> Recipe:
    """Images moved onto the teacher's decision boundary join the batch; their weight falls to 0."""
    module = partial(Boundary, attacked=int(attacked), steps=int(steps), rate=rate, temperature=temperature)
    needs = frozenset({"logits", "labels", "batch"})
    attack = Term("bss", weight=Decay(weight, 0.0, until), needs=needs, module=module)
    # the authors' KD has no T^2
    own = Term("kd", partial(losses.kd, temperature=temperature), Decay(kd / temperature**2, 1 / temperature**2, until))
    return Recipe.of([label_term(task, ce), own, attack], live=True)


def dafl(
    task: Task,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    one_hot: float = 1.0,
    activation: float = 0.1,
    balance: float = 5.0,
    student_steps: float = 1,
    lr: float = 1e-3,
    base: float = 64,
    variant: str = "code",
) -> Recipe:
    """No data: a generator creates images that the teacher classifies confidently, balanced over the classes."""
    one_of("dafl.variant", variant, ("code", "paper"))
    made = Switches(
        one_hot=one_hot,
        activation=activation,
        balance=balance,
        entropy_base=10.0 if variant == "code" else math.e,  # the weight of 5 was found with a logarithm to base 10
        student_steps=int(student_steps),
        lr=lr,
    )
    return _without_data(made, base, term("kd", task, weight, temperature=temperature))


def zskt(
    task: Task,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    at: float = 250.0,
    student_steps: float = 10,
    lr: float = 1e-3,
    base: float = 64,
) -> Recipe:
    """No data: a generator looks for images on which the student's distribution differs from the teacher's.

    KL is the paper's, a sum over classes. The authors' code divides it by their number C, so that its attention weighs
    C times as much beside it (``at`` 2500 with ten classes), and shows one batch ten times, this new images each time.
    """
    made = Switches(adversarial=1.0, student_steps=int(student_steps), lr=lr)
    maps = term("at", task, at, variant="code")
    return _without_data(made, base, term("kd", task, weight, temperature=temperature), maps)


def dfad(task: Task, *, weight: float = 1.0, student_steps: float = 5, lr: float = 1e-3, base: float = 64) -> Recipe:
    """No data: a generator looks for images on which the student's logits differ from the teacher's."""
    made = Switches(adversarial=1.0, kind="l1", student_steps=int(student_steps), lr=lr)
    return _without_data(made, base, Term("logit_l1", losses.logit_l1, weight))


def dfq(
    task: Task,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    adversarial: float = 1.0,
    norm: float = 1.0,
    one_hot: float = 1.0,
    balance: float = 20.0,
    student_steps: float = 10,
    lr: float = 1e-3,
    base: float = 64,
) -> Recipe:
    """No data: adversarial images with the statistics stored in the teacher's norms.

    Terms and weights are those of the well-known code of CMI; the paper measures the statistics by a KL of Gaussians.
    """
    made = Switches(
        adversarial=adversarial, norm=norm, one_hot=one_hot, balance=balance, student_steps=int(student_steps), lr=lr
    )
    return _without_data(made, base, term("kd", task, weight, temperature=temperature))


def _without_data(switches: Switches, base: float, *terms: Term) -> Recipe:
    generator = partial(Generator, switches=switches, base=int(base))
    return Recipe.of(terms, sampler=Noise, inputs=generator, live=True)


def soft_tree(
    task: Task, *, ce: float = 0.0, weight: float = 1.0, penalty: float = 0.1, temperature: float = 1.0
) -> Recipe:
    """A soft decision tree learns the teacher's distribution, leaf by leaf; the student must be a SoftTree."""
    module = partial(TreeLoss, penalty=penalty, temperature=temperature)
    needs = frozenset({"logits", "batch"})
    return with_labels(task, ce, Term("soft_tree", weight=weight, needs=needs, module=module))


_LIVE = "live teacher, no images"
GAMES: dict[str, Entry] = {
    "gan_kd": Entry(gan_kd, "teacher or its cache", "two steps of a small critic", "arXiv 1709.00513", CLASSES),
    "bss": Entry(
        bss, "live teacher", "10 teacher steps on 64 images: 6 to 8 times a step", "arXiv 1805.05532", CLASSES
    ),
    "dafl": Entry(dafl, _LIVE, "a step of the generator and of the teacher", "arXiv 1904.01186", CLASSES),
    "zskt": Entry(zskt, _LIVE, "a tenth of such a step, and the teacher's pass", "arXiv 1905.09768", CLASSES),
    "dfad": Entry(dfad, _LIVE, "a fifth of such a step, and the teacher's pass", "arXiv 1912.11006", CLASSES),
    "dfq": Entry(dfq, _LIVE, "a tenth of such a step, and the teacher's pass", "arXiv 2005.04136", CLASSES),
    "soft_tree": Entry(
        soft_tree, "a SoftTree as student, teacher or cache", "one linear layer", "arXiv 1711.09784", CLASSES
    ),
}
