"""Relation losses against loops, invariances and bounds in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import drawer

from nas_kd import losses
from nas_kd.errors import SettingError
from nas_kd.losses.relations import _squared_distances, _taylor_rbf

GENERATOR = torch.Generator().manual_seed(0)
draw = drawer(GENERATOR)


def rotation(n: int) -> Tensor:
    return torch.linalg.qr(draw(n, n))[0]


B, D = 7, 5
S, T = draw(B, D), draw(B, 9)
TURN, MOVE = rotation(D), draw(D)
SCALE = torch.rand(B, 1, generator=GENERATOR, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("name", ["sp", "pkt", "rkd", "cc", "rdm"])
def test_gradient_is_the_numerical_one_and_rotation_is_ignored(name):
    loss = getattr(losses, name)
    assert torch.autograd.gradcheck(lambda s: loss(s, T), S.clone().requires_grad_())
    torch.testing.assert_close(loss(S @ TURN, T), loss(S, T))


def test_sp_is_the_distance_of_row_normalised_gram_matrices():
    total = 0.0
    grams = [x @ x.T for x in (S, T)]
    for i in range(B):
        a, b = (g[i] / g[i].norm() for g in grams)
        total += float(((a - b) ** 2).sum())
    assert float(losses.sp(S, T)) == pytest.approx(total / B**2, rel=1e-12)
    torch.testing.assert_close(losses.sp(3 * S, T / 7), losses.sp(S, T))
    assert losses.sp(SCALE * S, T) != losses.sp(S, T)
    maps = draw(B, 3, 4, 4)
    torch.testing.assert_close(losses.sp(maps, T), losses.sp(maps.flatten(1), T))
    assert losses.sp(torch.eye(B).double(), torch.ones(B, 2).double()) <= 4 / B


def test_pkt_is_the_kl_of_affinities():
    rows = []
    for x in (S, T):
        similarity = (F.cosine_similarity(x[:, None], x[None], dim=2) + 1) / 2
        rows.append(similarity / similarity.sum(1, keepdim=True))
    expected = F.kl_div(rows[0].log(), rows[1], reduction="sum") / B**2
    torch.testing.assert_close(losses.pkt(S, T), expected)
    torch.testing.assert_close(losses.pkt(SCALE * S, SCALE * T), losses.pkt(S, T))
    assert losses.pkt(S + 1, T) != losses.pkt(S, T)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert torch.isfinite(losses.pkt(torch.ones(2, 2), opposite))
    assert torch.isfinite(losses.pkt(opposite, torch.ones(2, 2)))


def test_rkd_equals_a_loop():
    def distances(x: Tensor) -> list[float]:
        all_of_them = [math.dist(a.tolist(), b.tolist()) for a in x for b in x]
        mean = sum(all_of_them) / sum(d > 0 for d in all_of_them)
        return [d / mean for d in all_of_them]

    def angles(x: Tensor) -> list[float]:
        cosines = []
        for i in range(B):
            for j in range(B):
                for k in range(B):
                    left, right = x[j] - x[i], x[k] - x[i]
                    zero = i in (j, k)
                    cosines.append(0.0 if zero else float(left @ right / left.norm() / right.norm()))
        return cosines

    def huber(a: list[float], b: list[float]) -> float:
        return float(F.smooth_l1_loss(torch.tensor(a).double(), torch.tensor(b).double()))

    far, turned = huber(distances(S), distances(T)), huber(angles(S), angles(T))
    assert float(losses.rkd(S, T, distance=1, angle=0)) == pytest.approx(far, rel=1e-6)
    assert float(losses.rkd(S, T, distance=0, angle=1)) == pytest.approx(turned, rel=1e-6)
    assert float(losses.rkd(S, T)) == pytest.approx(25 * far + 50 * turned, rel=1e-6)


def test_rkd_is_zero_for_a_similarity_and_survives_equal_samples():
    assert losses.rkd(4 * S @ TURN + MOVE, S) < 1e-24
    for student in (torch.zeros(4, 3), torch.ones(1, 3), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])):
        leaf = student.requires_grad_()
        value = losses.rkd(leaf, torch.arange(len(student) * 2.0).reshape(-1, 2))
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(leaf.grad).all() and leaf.grad.abs().max() < 1e3


def test_cc_kernel_is_the_taylor_series_of_the_gaussian():
    unit = F.normalize(S, dim=1)
    exact = torch.exp(-0.4 * torch.cdist(unit, unit).square())
    errors = [float((_taylor_rbf(S, 0.4, order) - exact).abs().max()) for order in (2, 4, 8)]
    for error, bound in zip(errors, (0.05, 2e-3, 2e-7), strict=True):
        assert error < bound
    kernels = [torch.exp(-0.4 * torch.cdist(u, u).square()) for u in (unit, F.normalize(T, dim=1))]
    expected = (kernels[0] - kernels[1]).square().mean()
    torch.testing.assert_close(losses.cc(S, T, order=20), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses.cc(SCALE * S, T), losses.cc(S, T))


def test_rdm_is_one_minus_the_correlation_of_distances():
    upper = torch.triu_indices(B, B, 1)
    a, b = (torch.cdist(x, x)[upper[0], upper[1]] for x in (S, T))
    torch.testing.assert_close(losses.rdm(S, T), 1 - torch.corrcoef(torch.stack([a, b]))[0, 1])
    assert losses.rdm(4 * S @ TURN + MOVE, S).abs() < 1e-12
    with pytest.raises(ValueError, match="at least 3"):
        losses.rdm(S[:2], T[:2])


def test_near_samples_far_from_the_origin_keep_their_distances():
    s = (S * 1e-2 + 100).float()  # ||a||^2 + ||b||^2 - 2ab would leave nothing of these in fp32
    assert losses.rdm(s, s.double()) < 1e-4


def test_rkd_angles_are_among_the_first_anchors():
    near = losses.rkd(S, T, distance=0, anchors=4)
    torch.testing.assert_close(near, losses.rkd(S[:4], T[:4], distance=0))
    assert near != losses.rkd(S, T, distance=0)
    torch.testing.assert_close(losses.rkd(S, T, angle=0, anchors=4), losses.rkd(S, T, angle=0))
    many = draw(70, D), draw(70, D)  # all of a batch unless it is said otherwise
    assert losses.rkd(*many, distance=0) == losses.rkd(*many, distance=0, anchors=70)
    assert losses.rkd(*many, distance=0) != losses.rkd(*many, distance=0, anchors=64)


def test_cc_of_the_well_known_code():
    other = draw(B, D)
    away = (S - other).abs()
    expected = sum(float(away[i] @ away[i + 1]) for i in range(B - 1)) / (B - 1)
    assert float(losses.cc(S, other, variant="repdistiller")) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="same shape"):
        losses.cc(S, T, variant="repdistiller")


def test_irg_equals_a_loop():
    """Squared distances over the largest of the batch; a sample's distance between stages of one shape."""
    stages, targets = [draw(B, 4, 8, 8), draw(B, 8, 4, 4)], [draw(B, 6, 8, 8), draw(B, 12, 4, 4)]

    def graph(x: Tensor) -> list[float]:
        far = [math.dist(a.flatten().tolist(), b.flatten().tolist()) ** 2 for a in x for b in x]
        return [d / max(far) for d in far]

    def moved(one: Tensor, two: Tensor) -> list[float]:
        far = []
        for a, b in zip(one, two, strict=True):
            small = torch.stack([a[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
            narrow = torch.stack([(b[2 * c] + b[2 * c + 1]) / 2 for c in range(len(a))])
            far.append(float((small - narrow).square().sum()))
        return [d / max(far) for d in far]

    def mse(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)

    edges = sum(mse(graph(s), graph(t)) for s, t in zip(stages, targets, strict=True)) / 2
    change = mse(moved(*stages), moved(*targets))
    assert float(losses.irg(stages, targets, change=0)) == pytest.approx(edges, rel=1e-9)
    assert float(losses.irg(stages, targets, edges=0)) == pytest.approx(change, rel=1e-9)
    assert float(losses.irg(stages, targets, 2, 3)) == pytest.approx(2 * edges + 3 * change, rel=1e-9)
    pooled, others = ([x.mean((2, 3)) for x in xs] for xs in (stages, targets))
    code = losses.irg(stages, targets, change=0, variant="code")
    expected = sum(mse(graph(s), graph(t)) for s, t in zip(pooled, others, strict=True)) / 2
    assert float(code) == pytest.approx(expected, rel=1e-9)


def test_the_largest_distance_is_a_constant_in_the_authors_layers():
    stages, targets = [draw(B, 4), draw(B, 4)], [draw(B, 3), draw(B, 3)]
    leaf = stages[0].clone().requires_grad_()
    (found,) = torch.autograd.grad(losses.irg([leaf, stages[1]], targets, change=0, variant="code"), leaf)
    expected = torch.zeros_like(leaf)
    (own, other) = ((x[:, None] - x[None]).square().sum(2) for x in (stages[0], targets[0]))
    slope = 2 * (own / own.max() - other / other.max()) / B**2 / own.max() / 2  # of B^2 pairs, a half a stage
    for i in range(B):
        for j in range(B):
            expected[i] += 2 * slope[i, j] * (stages[0][i] - stages[0][j])
            expected[j] -= 2 * slope[i, j] * (stages[0][i] - stages[0][j])
    torch.testing.assert_close(found, expected)
    (whole,) = torch.autograd.grad(losses.irg([leaf, stages[1]], targets, change=0), leaf)
    assert not torch.allclose(whole, found)


def test_irg_takes_stages_of_any_shapes():
    stages, targets = [S, draw(B, 2, 3, 3), draw(B, 9, 4)], [draw(B, 8), draw(B, 5, 2, 2), draw(B, 6, 3)]
    for variant in ("paper", "code"):
        value = losses.irg(stages, targets, variant=variant)
        scaled = [[3 * x for x in stages], [x / 7 for x in targets]]
        torch.testing.assert_close(losses.irg(*scaled, variant=variant), value)
        assert 0 < value < 2
        assert losses.irg(stages, stages, variant=variant) == 0
    moved = [4 * S @ TURN + MOVE, *stages[1:]]
    assert losses.irg(moved, stages, change=0) < 1e-20
    check = lambda s: losses.irg([s, stages[1]], targets[:2])  # noqa: E731
    assert torch.autograd.gradcheck(check, S.clone().requires_grad_())
    same = torch.ones(3, 4, requires_grad=True)
    losses.irg([same, same * 2], [torch.zeros(3, 2)] * 2).backward()
    assert same.grad is not None and torch.isfinite(same.grad).all()
    with pytest.raises(ValueError, match="at least 2 stages"):
        losses.irg(stages[:1], targets[:1])
    with pytest.raises(SettingError, match="paper or code"):
        losses.irg(stages, targets, variant="caffe")


def test_squared_distances_of_long_rows():
    x = draw(6, 500) + 30
    torch.testing.assert_close(_squared_distances(x), torch.cdist(x, x).square(), rtol=1e-9, atol=1e-12)
    near = torch.cat([x, x[:1], x[1:2] + 1e-2]).float()
    exact = torch.cdist(near.double(), near.double()).square()
    torch.testing.assert_close(_squared_distances(near).double(), exact, rtol=1e-2, atol=1e-6)
    leaf = torch.cat([x, x[:1]]).requires_grad_()  # two equal samples
    _squared_distances(leaf).sum().backward()
    assert torch.isfinite(leaf.grad).all()
