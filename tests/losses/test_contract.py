"""What every loss promises."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from nas_kd import losses

LABELS = torch.tensor([0, 3, 1, 2, 4, 5, 0, 1])
LOGITS, MAPS, ROWS = (8, 6), (8, 4, 3, 3), (8, 5)
SHAPES = {
    "kl_divergence": LOGITS,
    "reverse_kl": LOGITS,
    "js_divergence": LOGITS,
    "alpha_divergence": LOGITS,
    "adaptive_alpha_divergence": LOGITS,
    "kd": LOGITS,
    "kd_ls": LOGITS,
    "logit_mse": LOGITS,
    "dkd": LOGITS,
    "consistency": LOGITS,
    "logit_l1": LOGITS,
    "dist": LOGITS,
    "fitnet": MAPS,
    "normalised_mse": MAPS,
    "at": MAPS,
    "nst": MAPS,
    "ft": MAPS,
    "hcl": MAPS,
    "sp": ROWS,
    "pkt": ROWS,
    "rkd": ROWS,
    "cc": ROWS,
    "rdm": ROWS,
}
NAMES = sorted(SHAPES)
# not of the form loss(student, teacher): held to their oracles alone
OTHERWISE = (
    "standardise",
    "standardised",
    "mixture",
    "virtual_teacher",
    "vid",
    "ab",
    "flow",
    "fsp",
    "nce",
    "crd",
    "irg",
    "mutual",
    "peers_loss",
    "symmetric_kd",
    "linear_mmd",
    "self_hint",
    "critic",
    "fooled",
    "one_hot",
    "activation",
    "balance",
    "disagreement",
    "norm_statistics",
    "soft_tree",
    "tree_paths",
    "tree_balance",
)
NOT_FOR_ONE_SAMPLE = {"rdm"}


def test_every_public_loss_is_held_to_the_contract():
    assert set(SHAPES) == set(losses.__all__) - set(OTHERWISE)


def call(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    labels = (LABELS[: len(student)],) if name == "dkd" else ()
    return getattr(losses, name)(student, teacher, *labels)


def draw(name: str, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_docstring(name):
    loss = getattr(losses, name)
    first = list(inspect.signature(loss).parameters)[:2]
    assert first == ["student", "teacher"]
    assert "Args:" in loss.__doc__ and "Returns:" in loss.__doc__


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_scalar_in_a_wide_dtype_with_gradient_for_the_student_only(name, dtype):
    student, teacher = draw(name, 0, dtype).requires_grad_(), draw(name, 1, dtype).requires_grad_()
    value = call(name, student, teacher)
    value.backward()
    assert value.shape == () and torch.isfinite(value) and value >= 0
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert teacher.grad is None
    assert student.grad is not None and torch.isfinite(student.grad).all() and student.grad.abs().sum() > 0
    exact = call(name, student.detach().double(), teacher.detach().double())
    torch.testing.assert_close(value.detach().double(), exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name):
    student, teacher = draw(name, 0), draw(name, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = call(name, student, teacher)
    assert torch.equal(inside, call(name, student, teacher))


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_flat_at_equality(name):
    teacher = draw(name, 1, torch.float64)
    student = teacher.clone().requires_grad_()
    value = call(name, student, teacher)
    value.backward()
    assert abs(float(value.detach())) < 1e-12 and student.grad.abs().max() < 1e-7


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_FOR_ONE_SAMPLE))
def test_one_sample(name):
    student = draw(name, 0)[:1].requires_grad_()
    value = call(name, student, draw(name, 1)[:1])
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"dist", "sp", "pkt", "rkd", "cc", "rdm", "normalised_mse"}))
def test_mean_over_the_batch(name):
    student, teacher = draw(name, 0), draw(name, 1)
    twice = [torch.cat([x, x]) for x in (student, teacher)]
    labels = (torch.cat([LABELS, LABELS]),) if name == "dkd" else ()
    torch.testing.assert_close(getattr(losses, name)(*twice, *labels), call(name, student, teacher))


@pytest.mark.parametrize("name", NAMES)
def test_a_free_student_learns(name):
    student, teacher = draw(name, 0).requires_grad_(), draw(name, 1)
    optimizer = torch.optim.Adam([student], lr=0.05)
    first = float(call(name, student, teacher).detach())
    for _ in range(200):
        optimizer.zero_grad()
        call(name, student, teacher).backward()
        optimizer.step()
    assert float(call(name, student, teacher).detach()) < first / 2


@pytest.mark.parametrize("name", NAMES)
def test_wrong_batches_are_refused(name):
    with pytest.raises(ValueError, match="student"):
        call(name, draw(name, 0), draw(name, 1)[:-1])
