"""Losses among peers and of a network with itself, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import drawer

from nas_kd import losses
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
draw = drawer(GENERATOR)


A, B, C = draw(6, 4), draw(6, 4), draw(6, 4)
Y = torch.tensor([0, 1, 2, 3, 0, 1])


def kl(p: Tensor, q: Tensor) -> Tensor:
    return F.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")


def test_mutual_learning_gradients_are_the_papers():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    (F.cross_entropy(a, Y) + losses.mutual(a, b[None])).backward()
    assert b.grad is None
    one_hot = F.one_hot(Y, 4).double()
    expected = ((A.softmax(1) - one_hot) + (A.softmax(1) - B.softmax(1))) / 6
    torch.testing.assert_close(a.grad, expected, rtol=0, atol=1e-15)
    # the peer's own step, and the two roles exchanged
    a.grad = None
    losses.peers_loss(a, b[None], Y).backward()
    assert a.grad is None
    torch.testing.assert_close(b.grad, ((B.softmax(1) - one_hot) + (B.softmax(1) - A.softmax(1))) / 6)
    swapped = B.clone().requires_grad_()
    (F.cross_entropy(swapped, Y) + losses.mutual(swapped, A[None])).backward()
    torch.testing.assert_close(swapped.grad, b.grad)


def test_three_peers():
    torch.testing.assert_close(losses.mutual(A, torch.stack([B, C])), (kl(B, A) + kl(C, A)) / 2)
    total = sum(F.cross_entropy(x, Y) for x in (B, C)) + (kl(A, B) + kl(C, B) + kl(A, C) + kl(B, C)) / 2
    torch.testing.assert_close(losses.peers_loss(A, torch.stack([B, C]), Y), total)
    alone = losses.peers_loss(A, torch.stack([B, C]), Y, share=0.0)
    torch.testing.assert_close(alone, F.cross_entropy(B, Y) + F.cross_entropy(C, Y))
    assert losses.mutual(A, A[None]) == 0


def test_consistency():
    torch.testing.assert_close(losses.consistency(A, B), (A.softmax(1) - B.softmax(1)).square().mean())
    torch.testing.assert_close(losses.consistency(A, B, kind="kl"), kl(B, A))
    with pytest.raises(SettingError, match="mse or kl"):
        losses.consistency(A, B, kind="l1")


def test_two_views_teach_each_other():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    value = losses.symmetric_kd(a, b, temperature=3.0)
    torch.testing.assert_close(value, 9 * (kl(A / 3, B / 3) + kl(B / 3, A / 3)))
    value.backward()
    torch.testing.assert_close(a.grad, 3 * ((A / 3).softmax(1) - (B / 3).softmax(1)) / 6)
    torch.testing.assert_close(b.grad, -a.grad)
    torch.testing.assert_close(losses.symmetric_kd(B, A), losses.symmetric_kd(A, B))
    torch.testing.assert_close(losses.linear_mmd(A, B), sum((A.mean(0) - B.mean(0)) ** 2))
    assert losses.symmetric_kd(A, A) == 0 == losses.linear_mmd(A, A[torch.randperm(6)]).round(decimals=28)


def test_hints_of_the_deepest_stage():
    s, t = draw(3, 2, 4, 4), draw(3, 2, 4, 4)
    torch.testing.assert_close(losses.self_hint(s, t), (s - t).square().sum() / 3)
    total = 0.0
    for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
        total += (a - b) ** 2 if a > 0 or b > 0 else 0.0
    assert float(losses.self_hint(s, t, variant="code")) * 3 == pytest.approx(total, rel=1e-12)
    with pytest.raises(SettingError, match="paper or code"):
        losses.self_hint(s, t, variant="mask")
