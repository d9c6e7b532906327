"""Losses of critics, generators and trees against closed forms in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import drawer

from nas_kd import losses
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
draw = drawer(GENERATOR)


S, T = draw(6, 4), draw(6, 4)


def test_the_best_critic_of_equals_loses_2_log_2():
    undecided = torch.zeros(5, dtype=torch.float64)
    assert float(losses.critic(undecided, undecided)) == pytest.approx(2 * math.log(2))
    # where real and fake are drawn alike, no constant does better
    for value in (-1.0, 0.5, 3.0):
        guess = undecided + value
        assert losses.critic(guess, guess) > 2 * math.log(2)
    real, fake = draw(5), draw(5)
    labels = torch.cat([torch.ones(5), torch.zeros(5)]).double()
    expected = 2 * F.binary_cross_entropy_with_logits(torch.cat([real, fake]), labels)
    torch.testing.assert_close(losses.critic(real, fake), expected)
    torch.testing.assert_close(losses.fooled(fake), F.binary_cross_entropy_with_logits(fake, torch.ones(5).double()))


def test_one_hot_is_the_cross_entropy_with_the_own_answer():
    torch.testing.assert_close(losses.one_hot(T), F.cross_entropy(T, T.argmax(1)))
    assert losses.one_hot(torch.tensor([[1e4, 0.0, 0.0]])) == 0


def test_balance_is_least_where_classes_are_even():
    p = T.softmax(1).mean(0)
    torch.testing.assert_close(losses.balance(T), (p * p.log()).sum())
    even = torch.cat([torch.roll(T[:1], k, 1) for k in range(4)])
    torch.testing.assert_close(losses.balance(even), torch.tensor(-math.log(4)).double())
    assert losses.balance(T) > -math.log(4)
    torch.testing.assert_close(losses.balance(T, 10.0), (p * p.log10()).sum())
    assert torch.autograd.gradcheck(losses.balance, T.clone().requires_grad_())


def test_disagreement_reaches_the_images_through_both_networks():
    s, t = S.clone().requires_grad_(), T.clone().requires_grad_()
    torch.testing.assert_close(losses.disagreement(S, T), -losses.kl_divergence(S, T))
    torch.testing.assert_close(losses.disagreement(S, T, kind="l1"), -losses.logit_l1(S, T))
    for kind in ("kl", "l1"):
        assert torch.autograd.gradcheck(lambda s, t, kind=kind: losses.disagreement(s, t, kind), (s, t))
    with pytest.raises(SettingError, match="kl or l1"):
        losses.disagreement(S, T, kind="l2")
    torch.testing.assert_close(losses.activation(S), -S.abs().mean())


def test_norm_statistics_are_0_for_the_statistics_that_are_kept():
    mean, variance = draw(3), draw(3).exp()
    assert losses.norm_statistics([(mean, variance)], [(mean, variance)]) == 0
    value = losses.norm_statistics([(mean + 3, variance), (mean, variance * 2)], [(mean, variance)] * 2)
    torch.testing.assert_close(value, torch.tensor(3 * math.sqrt(3)).double() + variance.norm())


def gates(depth: int) -> Tensor:
    return torch.rand(5, 2**depth - 1, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_paths_sum_to_1_on_every_level(depth):
    g = gates(depth)
    levels = losses.tree_paths(g)
    assert [x.shape[1] for x in levels] == [2**d for d in range(depth + 1)]
    for level in levels:
        torch.testing.assert_close(level.sum(1), torch.ones(5).double())
    for leaf in range(2**depth):  # the leaf's number in binary is the way to it
        expected, node = torch.ones(5).double(), 0
        for bit in range(depth - 1, -1, -1):
            right = leaf >> bit & 1
            expected = expected * (g[:, node] if right else 1 - g[:, node])
            node = 2 * node + 1 + right
        torch.testing.assert_close(levels[-1][:, leaf], expected)
    with pytest.raises(ValueError, match="gates"):
        losses.tree_paths(torch.rand(2, 4))


def test_a_tree_of_depth_1_is_a_mixture_of_two():
    g, leaves, target = gates(1), draw(2, 4), draw(5, 4)
    p = target.softmax(1)
    cross = [-(p * leaf.log_softmax(0)).sum(1) for leaf in leaves]
    expected = ((1 - g[:, 0]) * cross[0] + g[:, 0] * cross[1]).mean()
    torch.testing.assert_close(losses.soft_tree(g, leaves, target), expected)
    check = lambda g, q: losses.soft_tree(g, q, target)  # noqa: E731
    assert torch.autograd.gradcheck(check, (g.requires_grad_(), leaves.requires_grad_()))


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_the_penalty_of_halving_nodes_is_depth_log_2(depth):
    half = torch.full((5, 2**depth - 1), 0.5, dtype=torch.float64)
    assert float(losses.tree_balance(half)) == pytest.approx(depth * math.log(2))
    assert losses.tree_balance(gates(depth)) > depth * math.log(2)
    leaf = gates(depth).requires_grad_()
    assert torch.autograd.gradcheck(losses.tree_balance, leaf)
    assert torch.isfinite(losses.tree_balance(torch.ones(5, 2**depth - 1)))
