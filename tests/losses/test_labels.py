"""Losses of labels, and of one distribution a label, against their formulas in float64 and scikit-learn."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error
from torch import Tensor

from nas_kd import losses


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = draw(0, 7, 4), draw(1, 7, 4)
Y = (draw(2, 7, 4) > 0).double()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_kl_of_labels_is_that_of_their_probabilities(temperature: float) -> None:
    p, q = (x.div(temperature).sigmoid() for x in (T, S))
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(losses.bernoulli_kl(S / temperature, T / temperature), kl.mean())
    taught = losses.per_label(losses.kd, S, T, temperature=temperature)
    torch.testing.assert_close(taught, temperature**2 * kl.mean())


def test_its_gradient_is_the_difference_of_probabilities() -> None:
    student = S.clone().requires_grad_()
    losses.bernoulli_kl(student, T).backward()
    torch.testing.assert_close(student.grad, (S.sigmoid() - T.sigmoid()) / S.numel())
    student.grad = None
    assert torch.autograd.gradcheck(partial(losses.bernoulli_kl, teacher=T), (student,))


def test_sure_labels_stay_finite() -> None:
    student = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = losses.bernoulli_kl(student, torch.tensor([[200.0, -200.0]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(200.0) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", [losses.js_divergence, losses.reverse_kl, losses.adaptive_alpha_divergence])
def test_any_divergence_of_two_classes_is_one_of_a_label(loss) -> None:
    """Label by label, against the same loss of the one label's two logits."""
    pairs = [[torch.stack([x[:, j], torch.zeros(7, dtype=x.dtype)], 1) for x in (S, T)] for j in range(4)]
    each = torch.stack([loss(s, t) for s, t in pairs])
    torch.testing.assert_close(losses.per_label(loss, S, T), each.mean())


def test_the_cross_entropy_of_labels_is_scikit_learns() -> None:
    expected = sum(log_loss(Y[:, j], S[:, j].sigmoid(), labels=[0, 1]) for j in range(4)) / 4
    assert float(losses.binary_cross_entropy(S, Y)) == pytest.approx(expected, abs=1e-12)
    doubled = losses.binary_cross_entropy(S, Y, positive_weights=torch.full((4,), 2.0))
    q = S.sigmoid()
    torch.testing.assert_close(doubled, -(2 * Y * q.log() + (1 - Y) * (1 - q).log()).mean())
    softer = losses.binary_cross_entropy(S, Y, smoothing=0.2)
    torch.testing.assert_close(softer, losses.binary_cross_entropy(S, 0.8 * Y + 0.1))


@pytest.mark.parametrize("unknown", [-1.0, math.nan])
def test_an_unknown_label_counts_nothing(unknown: float) -> None:
    some = Y.clone()
    some[1, 2] = some[5] = unknown
    known = torch.ones_like(Y, dtype=torch.bool)
    known[1, 2] = known[5] = False
    student = S.clone().requires_grad_()
    loss = losses.binary_cross_entropy(student, some)
    loss.backward()
    torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy_with_logits(S[known], Y[known]))
    assert student.grad is not None and (student.grad[~known] == 0).all() and torch.isfinite(student.grad).all()
    assert float(losses.binary_cross_entropy(S, torch.full_like(Y, unknown))) == 0.0


def test_the_squared_error_is_scikit_learns_over_what_is_known() -> None:
    assert float(losses.squared_error(S, T)) == pytest.approx(mean_squared_error(T, S), abs=1e-12)
    some = T.clone()
    some[0, 0] = some[3] = math.nan
    student = S.clone().requires_grad_()
    loss = losses.squared_error(student, some)
    loss.backward()
    known = torch.isfinite(some)
    torch.testing.assert_close(loss, (S - T)[known].square().mean())
    assert torch.isfinite(student.grad).all() and float(losses.squared_error(S, torch.full_like(T, math.nan))) == 0.0


def test_the_plain_loss_of_each_kind() -> None:
    classes = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    for reduction in ("mean", "sum"):
        expected = torch.nn.functional.cross_entropy(S, classes, reduction=reduction)
        assert torch.equal(losses.label_loss("classes", S, classes, reduction), expected)
    torch.testing.assert_close(losses.label_loss("multilabel", S, Y, "sum"), 7 * losses.binary_cross_entropy(S, Y))
    assert torch.equal(losses.label_loss("regression", S, T), losses.squared_error(S, T))
    with pytest.raises(ValueError, match="shape"):
        losses.label_loss("multilabel", S, Y[:, :3])
