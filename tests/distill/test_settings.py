"""Settings of methods and what they weigh."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toy import bound, fit, images, source_for, student

from nas_kd.errors import SettingError
from nas_kd.teacher import as_targets


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
