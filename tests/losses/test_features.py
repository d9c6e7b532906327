"""Feature losses against explicit loops, invariances and bounds in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import drawer

from nas_kd import losses
from nas_kd.errors import SettingError

GENERATOR = torch.Generator().manual_seed(0)
draw = drawer(GENERATOR)


def rotation(n: int) -> Tensor:
    return torch.linalg.qr(draw(n, n))[0]


S, T, WIDE = draw(3, 4, 5, 6), draw(3, 4, 5, 6), draw(3, 7, 5, 6)


def test_fitnet_is_the_mse():
    torch.testing.assert_close(losses.fitnet(S, T), ((S - T) ** 2).mean())
    with pytest.raises(ValueError, match=r"\(3, 4, 5, 6\).*\(3, 7, 5, 6\)"):
        losses.fitnet(S, WIDE)


def test_normalised_mse():
    torch.testing.assert_close(losses.normalised_mse(S, T), ((S - T) ** 2).sum() / (T**2).sum())
    assert losses.normalised_mse(torch.zeros_like(T), T) == 1
    torch.testing.assert_close(losses.normalised_mse(9 * S, 9 * T), losses.normalised_mse(S, T))
    leaf = S.clone().requires_grad_()
    losses.normalised_mse(leaf, T).backward()
    torch.testing.assert_close(leaf.grad, 2 * (S - T) / (T**2).sum())


def test_at_equals_a_loop():
    total = far = 0.0
    for s, t in zip(S, WIDE, strict=True):
        a, b = (x.square().sum(0).flatten() for x in (s, t))
        far += float((a / a.norm() - b / b.norm()).norm())
        total += float(((a / a.norm() - b / b.norm()) ** 2).sum())
    assert float(losses.at(S, WIDE, variant="code")) * 3 * 30 == pytest.approx(total, rel=1e-12)
    assert float(losses.at(S, WIDE)) * 3 * 30 * 2 == pytest.approx(far, rel=1e-12)
    for variant in ("paper", "code"):
        check = lambda s, variant=variant: losses.at(s, WIDE, variant=variant)  # noqa: E731
        assert torch.autograd.gradcheck(check, S.clone().requires_grad_())
    with pytest.raises(SettingError, match="paper or code"):
        losses.at(S, WIDE, variant="papr")


def test_at_ignores_channel_rotation_and_sample_scale():
    value = losses.at(S, T)
    mixed = torch.einsum("dc,bchw->bdhw", rotation(4), S)
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(losses.at(mixed, scale * T), value)
    corner, other = torch.zeros(2, 1, 2, 2).double()
    corner[..., 0, 0], other[..., 1, 1] = 1, 1
    value = losses.at(corner[None], other[None], variant="code")
    torch.testing.assert_close(value, torch.tensor(2 / 4).double())


def test_nst_is_the_distance_of_the_gram_matrices_of_places():
    def gram(x: Tensor) -> Tensor:
        u = x.flatten(2) / x.flatten(2).norm(dim=2, keepdim=True)
        return torch.einsum("bcn,bcm->bnm", u, u) / x.shape[1]

    for s, t in ((S, WIDE), (S[:, :, :1, :2], WIDE[:, :, :1, :2])):  # by products of channels, and of places
        expected = (gram(s) - gram(t)).square().sum((1, 2)).mean()
        torch.testing.assert_close(losses.nst(s, t), expected)
        assert torch.autograd.gradcheck(lambda s, t=t: losses.nst(s, t), s.clone().requires_grad_())


@pytest.mark.parametrize("places", [1, 5])
def test_nst_of_dead_channels_is_finite(places):
    s, t = (x[..., :places].float() for x in (S, WIDE))
    s, t = s * torch.tensor([1.0, 0, 0, 1])[:, None, None], t.clone()
    t[:, :2] = 0
    s.requires_grad_()
    losses.nst(s, t).backward()
    assert torch.isfinite(s.grad).all() and not s.grad[:, 1].any() and s.grad[:, 0].any()


def test_nst_ignores_order_and_sign_of_channels():
    order, sign = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    changed = S[:, order] * sign[:, None, None]
    torch.testing.assert_close(losses.nst(changed, WIDE), losses.nst(S, WIDE))


@pytest.mark.parametrize("name", ["at", "nst"])
def test_tokens_are_maps_of_one_row(name):
    loss = getattr(losses, name)
    tokens = [x.flatten(2).transpose(1, 2) for x in (S, WIDE)]  # (B, N, C)
    torch.testing.assert_close(loss(*tokens), loss(S, WIDE))
    for wrong in (S[..., :-1], S.flatten(2), S.transpose(2, 3), S[:2]):
        with pytest.raises(ValueError, match="student"):
            loss(wrong, T)
