"""Every method's own loss falls by half within 200 steps, and nothing but student and companions moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from toy import beside, bound, fit, images, noise, source_for, student

from nas_kd.distill import METHODS, SoftTree
from nas_kd.errors import SettingError
from nas_kd.teacher import TargetSource, as_targets

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
    "privileged": "kd",
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
    "bss": {"attacked": 8, "steps": 5, "rate": 2.0},
    **{name: {"base": 8} for name in ("dafl", "zskt", "dfad", "dfq")},
    "cc": {"weight": 100.0},  # published beside a KD of 50 times its weight
}
TEACHERS_LABELS = {"bss", "gan_kd"}  # attacks start from what the teacher knows; a critic is told classes
WITHOUT_DATA = {"dafl", "zskt", "dfad", "dfq"}
RATE = {"vid": 0.05}  # its variances start far from where they go
COUNT = {"crd": 1024}  # images in the memory, so that noise is noise


def frozen(source: TargetSource) -> list[torch.Tensor]:
    networks = [one.teacher.network for one in source.members if one.teacher is not None]
    return [tensor.clone() for network in networks for tensor in network.state_dict().values()]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_own_loss_falls_by_half(name):
    model = SoftTree(3, 3 * 8 * 8, 4) if name == "soft_tree" else student()
    source = source_for(name, (4, 6) if name in SAME_WIDTHS else (6, 10))
    distiller = bound(name, model, source, COUNT.get(name, 16), **SETTINGS.get(name, {}))
    before, names = frozen(source), set(model.state_dict())
    batch = noise() if name in WITHOUT_DATA else beside(images())
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


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_is(name):
    entry = METHODS[name]
    assert 20 < len(entry.line) < 120 and entry.line.endswith(".") and entry.needs and entry.cost


def test_settings_are_of_their_defaults_kind():
    for settings, message in [({"standardise": 1}, "true or false"), ({"beta": "2"}, "number")]:
        with pytest.raises(SettingError, match=message):
            bound("dkd", student(), source_for("dkd"), **settings)
    with pytest.raises(SettingError, match="learned or mean"):
        bound("multi_teacher", student(), source_for("multi_teacher"), weights="median")


def test_shares_of_teachers_sum_to_1_and_favour_the_one_that_knows_the_labels():
    batch, model = images(), student()
    knows = lambda batch: 5 * F.one_hot(batch.y, 4).float()  # noqa: E731
    guesses = lambda batch: torch.randn(len(batch.y), 4)  # noqa: E731
    distiller = bound("multi_teacher", model, as_targets([guesses, knows]))
    fit(distiller, model, batch, lr=0.05)
    shares = distiller.source.shares
    assert shares.sum() == pytest.approx(1, abs=1e-6) and shares[1] > 0.9
    with pytest.raises(SettingError, match="at least two"):
        bound("multi_teacher", model, source_for("kd"))


def test_a_term_that_is_nan_is_found_before_the_loss():
    model = student()
    distiller = bound([("ce", 1.0), ("kd", 0.5)], model, source_for("kd"))
    assert list(distiller.step(images(), 0.0)) == ["ce", "kd", "loss"]
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    found = distiller.step(images(), 0.0)  # the training loop names the first bad one, and may skip the step
    assert list(found) == ["ce", "kd", "loss"] and all(value.isnan() for value in found.values())
