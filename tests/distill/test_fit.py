"""Every method's own loss falls by half within 200 steps, and nothing but student and companions moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy import bound, fit, images, source_for, student

from nas_kd.distill import METHODS, LiveTeacher, TeacherEnsemble
from nas_kd.errors import SettingError

# what is watched where it is not the term that has the method's name: labels-only and many-term methods
OWN = {
    "ce": "ce", "label_smoothing": "ce", "multi_teacher": "kd", "adaptive_alpha": "adaptive_alpha_divergence",
}  # fmt: skip
SAME_WIDTHS: set[str] = set()
SETTINGS: dict[str, dict[str, Any]] = {"label_smoothing": {"smoothing": 0.01}}


def frozen(source: object) -> list[torch.Tensor]:
    each = source.sources if isinstance(source, TeacherEnsemble) else [source]
    networks = [one.teacher.network for one in each if isinstance(one, LiveTeacher)]
    return [tensor.clone() for network in networks for tensor in network.state_dict().values()]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_own_loss_falls_by_half(name):
    model = student()
    source = source_for(name, (4, 6) if name in SAME_WIDTHS else (6, 10))
    distiller = bound(name, model, source, **SETTINGS.get(name, {}))
    before, names = frozen(source), set(model.state_dict())
    rows = fit(distiller, model, images())
    watched = OWN.get(name, name)
    values = [row[watched] for row in rows if watched in row]
    assert min(values[-5:]) < values[0] / 2
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
    source = source_for("multi_teacher")
    right = source.sources[1].teacher.network(batch.x)
    batch = batch._replace(y=right.argmax(1))  # the second teacher's own answers
    distiller = bound("multi_teacher", model, source)
    fit(distiller, model, batch, steps=60, lr=0.05)
    shares = distiller.source.shares
    assert shares.sum() == pytest.approx(1, abs=1e-6) and shares[1] > 0.8
    with pytest.raises(SettingError, match="at least two"):
        bound("multi_teacher", model, source.sources[0])
