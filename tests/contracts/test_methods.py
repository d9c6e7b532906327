"""Every method's own loss falls by half within 200 steps, and nothing but student and companions moves.

A new method is a recipe; it is held to the same by being one of METHODS, and used by being passed in.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import beside, bound, fit, images, labelled, noise, source_for, student

import nas_kd
from nas_kd.data import Data
from nas_kd.distill import METHODS, Classification, Distiller, MultiLabel, Recipe, Regression, SoftTree, Task, Term
from nas_kd.distill.pair import Pair
from nas_kd.teacher import TargetSource, Teacher

# what is watched where it is not the term that has the method's name: labels-only and many-term methods
OWN = {
    "takd": "kd",
    "born_again": "kd",
    "gan_kd": "logit_l1",  # the rest of it is a game, in which losses do not fall
    "dafl": "kd",
    "zskt": "kd",
    "dfad": "logit_l1",
    "dfq": "kd",
    "grafting": "peers",
    "dfa": "bridge",  # which moves all that the term of its own name is made of
    "privileged": "kd",
    "inject": "kd",
    # between a network and itself: near 0 in a new network, so that the whole loss is watched
    "dml": "loss",
    "cs_kd": "loss",
    "ddgsd": "loss",
    "mean_teacher": "loss",
    "ce": "ce",
    "label_smoothing": "ce",
    "multi_teacher": "kd",
    "adaptive_alpha": "adaptive_alpha_divergence",
}
SAME_WIDTHS = {"fsp"}
SETTINGS: dict[str, dict[str, Any]] = {
    "label_smoothing": {"smoothing": 0.01},
    "crd": {"negatives": 16},
    "dfa": {"first": 0.9},  # its search is what is watched
    "virtual_teacher": {"ce": 0.0, "weight": 1.0},  # nearly uniform, from which the labels lead away
    "bss": {"attacked": 8, "steps": 5, "rate": 2.0},
    **{name: {"base": 8} for name in ("dafl", "zskt", "dfad", "dfq")},
    "cc": {"weight": 100.0},  # published beside a KD of 50 times its weight
}
TEACHERS_LABELS = {"bss", "gan_kd"}  # attacks start from what the teacher knows; a critic is told classes
WITHOUT_DATA = {"dafl", "zskt", "dfad", "dfq"}
RATE = {"vid": 0.05}  # its variances start far from where they go
COUNT = {"crd": 1024}  # images in the memory, so that noise is noise


class Guess(nn.Module):
    """Guesses the teacher's pooled feature from the student's, by a layer that is trained beside the student."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        (((ours,), (theirs,)),) = pair.shapes("guessed", "pooled")
        self.linear = nn.Linear(ours, theirs)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.smooth_l1_loss(self.linear(student), teacher)


def guessed(task: Task, weight: float = 1.0) -> Recipe:
    """Return a method of this file alone: labels, and the teacher's pooled feature guessed."""
    labels = Term("ce", task.loss, 0.5, frozenset({"labels"}))
    return Recipe.of([labels, Term("guessed", weight=weight, needs=frozenset({"pooled"}), module=Guess)])


OWN_METHODS = {"guessed": guessed(Classification(0.0))}


def frozen(source: TargetSource) -> list[torch.Tensor]:
    networks = [one.teacher.network for one in source.members if one.teacher is not None]
    return [tensor.clone() for network in networks for tensor in network.state_dict().values()]


# every method of classes, and for the other tasks those that make sense
TASKS = [Classification(0.0), MultiLabel(), Regression()]
CASES = [
    pytest.param(task, name, id=name if task.kind == "classes" else f"{name}-{task.kind}")
    for task in TASKS
    for name in [*sorted(METHODS), *OWN_METHODS]
    if name in OWN_METHODS or (task.kind in METHODS[name].kinds and not METHODS[name].texts)  # see tests/text
]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_own_loss_falls_by_half(task, name):
    model = SoftTree(3, 3 * 8 * 8, 4) if name == "soft_tree" else student()
    source = source_for(name, (4, 6) if name in SAME_WIDTHS else (6, 10))
    method = guessed(task) if name == "guessed" else name
    distiller = bound(method, model, source, COUNT.get(name, 16), task, **SETTINGS.get(name, {}))
    begun = started(model, distiller)
    before, names = frozen(source), set(model.state_dict())
    batch = noise() if name in WITHOUT_DATA else beside(labelled(images(), task))
    if name in TEACHERS_LABELS:
        batch = batch._replace(y=source.teacher(batch.x).argmax(1))
    watched = OWN.get(name, name)
    least = 0.0
    if name == "soft_tree":  # a cross-entropy, and a penalty of the balance
        p = source.teacher(batch.x).softmax(1)
        least = float(-(p * p.log()).sum(1).mean()) + 0.1 * 3 * math.log(2)

    def halved(rows: list[dict[str, float]]) -> bool:
        values = [row[watched] - least for row in rows if watched in row]
        return len(values) > 20 and sum(values[-10:]) / 10 < values[0] / 2

    rows = fit(distiller, model, batch, lr=RATE.get(name, 0.01), enough=halved)
    assert halved(rows)
    for step, row in enumerate(rows):  # the loss is the weighted sum of its parts
        weights = {term.name: term.weight_at(step / 200) for term in distiller.recipe.at(step / 200).terms}
        assert row["loss"] == pytest.approx(sum(w * row[n] for n, w in weights.items()), rel=1e-4, abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen(source), strict=True))
    assert set(model.state_dict()) == names  # the student holds itself alone
    still = [key for key, value in started(model, distiller).items() if torch.equal(value, begun[key])]
    assert len(still) < len(begun) and (not still or len(distiller.recipe.phases) > 1)  # the first stage moves a part


def started(model: nn.Module, distiller: Distiller) -> dict[str, Tensor]:
    """Copy every weight that a training moves."""
    parts = {"student": model, "beside": distiller.trained}
    return {
        f"{part}.{name}": weight.detach().clone()
        for part, module in parts.items()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_is(name):
    entry = METHODS[name]
    assert 20 < len(entry.line) < 120 and entry.line.endswith(".") and entry.needs and entry.cost


def test_a_new_method_teaches_by_being_passed_in(data: Data, teacher: Teacher) -> None:
    space = nas_kd.load_space("digits")
    arch = space.sample(seed=0)
    how = {"space": space, "epochs": 2, "batch_size": 16, "method": guessed(Classification(0.0))}
    student = nas_kd.retrain(arch, teacher, data, **how)
    again = nas_kd.retrain(arch, teacher, data, **how)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))
    assert set(student.state_dict()) == set(space.build(arch, num_classes=3, in_chans=1).state_dict())
