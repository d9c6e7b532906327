"""Losses on layers of text encoders against loops over real tokens, in float64; padding changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_kd import losses
from nas_kd.losses.texts import products

LENGTHS = (5, 2, 4)
MASK = torch.tensor([[number < length for number in range(5)] for length in LENGTHS])
B, H, L, D = 3, 2, 5, 6


def states(seed: int) -> Tensor:
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(seed: int, heads: int = H) -> Tensor:
    return torch.randn(B, heads, L, L, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens() -> list[tuple[int, int]]:
    return [(b, i) for b in range(B) for i in range(LENGTHS[b])]


def mse(s: Tensor, t: Tensor) -> float:
    return sum(float(((s[b, i] - t[b, i]) ** 2).sum()) / D for b, i in tokens()) / len(tokens())


def cosine(s: Tensor, t: Tensor) -> float:
    rows = [1 - float(s[b, i] @ t[b, i] / (s[b, i].norm() * t[b, i].norm())) for b, i in tokens()]
    return sum(rows) / len(rows)


def moments(s: Tensor, t: Tensor) -> float:
    total = 0.0
    for b, i in tokens():
        one, two = s[b, i].tolist(), t[b, i].tolist()
        means = [sum(row) / D for row in (one, two)]
        spread = [sum((v - m) ** 2 for v in row) / D for row, m in zip((one, two), means, strict=True)]
        total += (means[0] - means[1]) ** 2 + (spread[0] - spread[1]) ** 2
    return total / len(tokens())


def attention_mse(s: Tensor, t: Tensor) -> float:
    gaps = [
        float((s[b, h, i, j] - t[b, h, i, j]) ** 2)
        for b, i in tokens()
        for h in range(s.shape[1])
        for j in range(LENGTHS[b])
    ]
    return sum(gaps) / len(gaps)


def attention_kl(s: Tensor, t: Tensor) -> float:
    total = 0.0
    for b, i in tokens():
        for h in range(H):
            p, q = (torch.softmax(x[b, h, i, : LENGTHS[b]], 0).tolist() for x in (t, s))
            total += sum(a * math.log(a / c) for a, c in zip(p, q, strict=True))
    return total / (len(tokens()) * H)


CASES: dict[str, tuple[Callable[..., Tensor], Callable[..., float], Callable[[int], Tensor]]] = {
    "hidden_mse": (losses.hidden_mse, mse, states),
    "hidden_cosine": (losses.hidden_cosine, cosine, states),
    "feature_moments": (losses.feature_moments, moments, states),
    "attention_mse": (losses.attention_mse, attention_mse, scores),
    "attention_kl": (losses.attention_kl, attention_kl, scores),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_loops_over_real_tokens(name: str) -> None:
    loss, oracle, draw = CASES[name]
    assert float(loss(draw(0), draw(1), MASK)) == pytest.approx(oracle(draw(0), draw(1)), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_nan_in_padding_changes_neither_value_nor_gradient(name: str) -> None:
    loss, _, draw = CASES[name]
    found = []
    for spoilt in (False, True):
        s, t = draw(0), draw(1)
        if spoilt:
            hidden = ~MASK[:, :, None] if s.ndim == 3 else ~(MASK[:, None, :, None] & MASK[:, None, None, :])
            s, t = (x.masked_fill(hidden, 1e30) for x in (s, t))
        s.requires_grad_(True)
        value = loss(s, t, MASK)
        value.backward()
        assert s.grad is not None
        real = MASK[:, :, None] if s.ndim == 3 else MASK[:, None, :, None] & MASK[:, None, None, :]
        found.append((value.item(), s.grad.masked_fill(~real, 0.0)))
        assert not s.grad.masked_select(~real.expand_as(s)).any()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences(name: str) -> None:
    loss, _, draw = CASES[name]
    t = draw(1)
    assert torch.autograd.gradcheck(lambda s: loss(s, t, MASK), draw(0).requires_grad_(True))


@pytest.mark.parametrize("name", CASES)
def test_equal_sides_cost_nothing_and_the_teacher_learns_nothing(name: str) -> None:
    loss, _, draw = CASES[name]
    assert float(loss(draw(0), draw(0), MASK)) == pytest.approx(0.0, abs=1e-14)
    t = draw(1).requires_grad_(True)
    assert loss(draw(0).requires_grad_(True), t, MASK).requires_grad
    loss(draw(0).requires_grad_(True), t, MASK).backward()
    assert t.grad is None


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_widened(name: str) -> None:
    loss, _, draw = CASES[name]
    value = loss(draw(0).bfloat16(), draw(1).bfloat16(), MASK)
    assert value.dtype == torch.float32 and bool(torch.isfinite(value))


def test_normalised_states_are_between_0_and_4() -> None:
    s, t = states(0)[:, 0], states(1)[:, 0]
    want = sum(float(((s[b] / s[b].norm() - t[b] / t[b].norm()) ** 2).sum()) for b in range(B)) / B
    assert float(losses.normalised_states(s, t)) == pytest.approx(want, rel=1e-12)
    assert float(losses.normalised_states(s, -3 * s)) == pytest.approx(4.0)
    assert float(losses.normalised_states(s, 3 * s)) == pytest.approx(0.0, abs=1e-14)


def test_other_numbers_of_heads_are_compared_by_their_mean() -> None:
    s, t = scores(0, 2), scores(1, 4)
    want = attention_mse(s.mean(1, keepdim=True), t.mean(1, keepdim=True))
    assert float(losses.attention_mse(s, t, MASK)) == pytest.approx(want, rel=1e-12)


def test_products_are_scores_of_attention() -> None:
    q, k, v = (torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(i)).double() for i in range(3))
    want = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(products(q, k).softmax(-1) @ v, want)


@pytest.mark.parametrize(
    "loss", [losses.hidden_mse, losses.hidden_cosine, losses.attention_mse, losses.attention_kl, losses.feature_moments]
)
def test_other_shapes_are_refused(loss: Any) -> None:
    x = states(0) if "attention" not in loss.__name__ else scores(0)
    with pytest.raises(ValueError, match="must have the same"):
        loss(x, x[:, :, :-1] if x.ndim == 4 else x[:, :-1], MASK)
