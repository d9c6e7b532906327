"""Losses behind adapters and on pairs of stages, against loops and closed forms in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from toys import drawer

from nas_kd import losses
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
draw = drawer(GENERATOR)


S, T = draw(3, 4, 8, 8), draw(3, 4, 8, 8)
SCALE = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None, None]


def test_ft_is_the_distance_of_unit_vectors():
    total = 0.0
    for s, t in zip(S, T, strict=True):
        total += float((s / s.norm() - t / t.norm()).abs().sum())
    assert float(losses.ft(S, T)) * S.numel() == pytest.approx(total, rel=1e-12)
    torch.testing.assert_close(losses.ft(SCALE * S, T / SCALE), losses.ft(S, T))
    assert losses.ft(SCALE * T, T) < 1e-15
    assert torch.autograd.gradcheck(lambda s: losses.ft(s, T[:1], p=2.0), S[:1].clone().requires_grad_())
    # the well-known code is attention transfer in the 1-norm
    a, b = (F.normalize(x.square().mean(1).flatten(1), dim=1) for x in (S, T))
    torch.testing.assert_close(losses.ft(S, T, variant="repdistiller"), (a - b).abs().mean())
    with pytest.raises(SettingError, match="variant"):
        losses.ft(S, T, variant="other")


def test_vid_at_its_best_variance():
    mse = (S - T).square().mean((0, 2, 3))
    best = losses.vid(S, T, mse)
    torch.testing.assert_close(best, (1 + mse.log()).mean() / 2)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert losses.vid(S, T, factor * mse) > best
    torch.testing.assert_close(
        losses.vid(S, T, torch.full((4,), 5.0).double()), (S - T).square().mean() / 10 + math.log(5) / 2
    )
    variance = mse.clone().requires_grad_()
    losses.vid(S, T, variance).backward()
    assert variance.grad.abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda v: losses.vid(S, T, v), mse.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda s: losses.vid(s, T[:1], mse), S[:1].clone().requires_grad_())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_vid_in_any_layout_and_precision(layout):
    leaf = S.to(memory_format=layout).clone().requires_grad_()
    variance = torch.tensor([0.5, 1, 2, 4]).double()
    value = losses.vid(leaf, T, variance)
    by_element = ((S - T).square() / variance[:, None, None] + variance.log()[:, None, None]).mean() / 2
    torch.testing.assert_close(value, by_element)
    value.backward()
    torch.testing.assert_close(leaf.grad, (S - T) / variance[:, None, None] / S.numel())
    with torch.autocast("cpu", torch.bfloat16):
        half = losses.vid(S.float(), T.float(), variance.float())
    torch.testing.assert_close(half.double(), by_element, rtol=1e-5, atol=0)


def test_ab_is_the_squared_hinge_on_the_teachers_side():
    total = 0.0
    for s, t in zip(S.flatten().tolist(), T.flatten().tolist(), strict=True):
        rho = 1.0 if t > 0 else 0.0
        total += rho * max(0.0, 1 - s) ** 2 + (1 - rho) * max(0.0, 1 + s) ** 2
    assert float(losses.ab(S, T)) * 3 == pytest.approx(total, rel=1e-12)
    assert torch.equal(losses.ab(S, 9 * T), losses.ab(S, T))  # the side alone counts
    assert torch.equal(losses.ab(S, T.relu()), losses.ab(S, T))
    kept = (2 * T.sign()).requires_grad_()
    value = losses.ab(kept, T)
    value.backward()
    assert value == 0 and not kept.grad.any()
    with torch.no_grad():
        kept[0, 0, 0, 0] *= 0.4
    assert losses.ab(kept, T) > 0
    assert torch.autograd.gradcheck(lambda s: losses.ab(s, T[:1], 0.7), S[:1].clone().requires_grad_())
    mixed = S.to(memory_format=torch.channels_last)
    torch.testing.assert_close(losses.ab(mixed, T), losses.ab(S, T))
    assert losses.ab(torch.zeros_like(T), torch.zeros_like(T)) == T[0].numel()  # 0 is on the lower side


def test_hcl_closed_forms():
    assert losses.hcl(S, S) == 0
    for size in (1, 2, 4, 7, 8):
        s = draw(2, 3, size, size)
        torch.testing.assert_close(losses.hcl(s + 0.3, s), torch.tensor(0.09).double())
    torch.testing.assert_close(losses.hcl(S[..., :1, :1], T[..., :1, :1]), F.mse_loss(S[..., :1, :1], T[..., :1, :1]))
    pooled = [F.mse_loss(F.avg_pool2d(S, k), F.avg_pool2d(T, k)) for k in (1, 2, 4, 8)]
    weights = [1, 1 / 2, 1 / 4, 1 / 8]
    expected = sum(w * p for w, p in zip(weights, pooled, strict=True)) / sum(weights)
    torch.testing.assert_close(losses.hcl(S, T), expected)
    for height, width in ((7, 7), (6, 8), (8, 5)):  # averages over windows that overlap
        s, t = draw(2, 3, height, width), draw(2, 3, height, width)
        both = [[F.adaptive_avg_pool2d(x, n) for n in (4, 2, 1)] for x in (s, t)]
        parts = [F.mse_loss(s, t), *(F.mse_loss(a, b) for a, b in zip(*both, strict=True))]
        expected = sum(w * p for w, p in zip(weights, parts, strict=True)) / sum(weights)
        torch.testing.assert_close(losses.hcl(s, t), expected)


def test_flow_and_fsp():
    first, second = draw(2, 3, 4, 4), draw(2, 5, 4, 4)
    expected = torch.einsum("bchw,bdhw->bcd", first, second) / 16
    torch.testing.assert_close(losses.flow(first, second), expected)
    order = torch.randperm(16, generator=GENERATOR)
    moved = [x.flatten(2)[:, :, order].view_as(x) for x in (first, second)]
    torch.testing.assert_close(losses.flow(*moved), expected)
    same = losses.flow(first, first)
    torch.testing.assert_close(same, same.transpose(1, 2))
    large = draw(2, 3, 8, 8)
    for variant, pool in (("paper", F.max_pool2d), ("repdistiller", F.avg_pool2d)):
        torch.testing.assert_close(losses.flow(large, second, variant), losses.flow(pool(large, 2), second))
    other = [draw(*x.shape) for x in (large, second, second)]
    s = [large, second, second.flip(0)]
    parts = [(losses.flow(s[i], s[i + 1]) - losses.flow(other[i], other[i + 1])).square().mean() for i in (0, 1)]
    torch.testing.assert_close(losses.fsp(s, other), sum(parts) / 2)
    assert losses.fsp(s, s) == 0
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\)"):
        losses.fsp(s, [second, *other[1:]])
    with pytest.raises(ValueError, match="two stages"):
        losses.fsp(s[:1], other[:1])


def test_nce_where_all_scores_are_equal():
    for k, expected in ((16384, 10.704), (8, math.log(9) + 8 * math.log(1 + 1 / 8))):
        scores = torch.full((2, k), -math.log(50000), dtype=torch.float64)
        value = losses.nce(scores[:, 0], scores, 50000)
        assert float(value) == pytest.approx(math.log(1 + k) + k * math.log(1 + 1 / k), rel=1e-12)
        assert float(value) == pytest.approx(expected, abs=6e-4)


def test_nce_and_crd_are_the_papers_formulas():
    h, noise, n = draw(4).exp() / 100, draw(4, 6).exp() / 100, 300
    c = 6 / n
    expected = (-(h / (h + c)).log() - (c / (noise + c)).log().sum(1)).mean()
    torch.testing.assert_close(losses.nce(h.log(), noise.log(), n), expected)
    s, t, ns, nt = (F.normalize(draw(k, 5), dim=1) for k in (4, 4, 6, 6))
    value = losses.crd(s, t, ns, nt, n, 3.0, 4.0)
    by_s, by_t = ((a @ b.T / 0.07 - z).exp() for a, b, z in ((s, nt, 3.0), (t, ns, 4.0)))
    true = (s * t).sum(1) / 0.07
    sides = [losses.nce(true - z, x.log(), n) for x, z in ((by_s, 3.0), (by_t, 4.0))]
    torch.testing.assert_close(value, sum(sides))
    order = torch.randperm(6, generator=GENERATOR)
    torch.testing.assert_close(losses.crd(s, t, ns[order], nt[order], n, 3.0, 4.0), value)
    both = (s.requires_grad_(), t.requires_grad_())  # the teacher's embedding learns too
    assert torch.autograd.gradcheck(lambda s, t: losses.crd(s, t, ns, nt, n, 3.0), both)
    far = torch.tensor([1e4, -1e4])
    assert torch.isfinite(losses.nce(far, far[:, None].expand(2, 3), 10))  # neither overflows nor is log 0


def test_crd_at_the_start_of_a_training_as_published():
    one = F.normalize(torch.ones(4, 8, dtype=torch.float64), dim=1)
    noise = one[:1].expand(16384, 8)
    scale = 1 / 0.07 + math.log(50000)  # log of N times the mean score
    assert float(losses.crd(one, one, noise, noise, 50000, scale, scale)) == pytest.approx(21.41, abs=0.005)
