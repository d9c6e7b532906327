"""What every loss promises; a new one is held to it by a line in SHAPES, and used by being passed in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import nas_kd
from nas_kd import losses
from nas_kd.data import Data
from nas_kd.distill import Term
from nas_kd.teacher import Teacher

LABELS = torch.tensor([0, 3, 1, 2, 4, 5, 0, 1])
LOGITS, MAPS, ROWS = (8, 6), (8, 4, 3, 3), (8, 5)
SHAPES = {
    "kl_divergence": LOGITS,
    "reverse_kl": LOGITS,
    "js_divergence": LOGITS,
    "bernoulli_kl": LOGITS,
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
    "pooled_cosine": MAPS,
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


def tilted(student: Tensor, teacher: Tensor, *, slope: float = 1.5) -> Tensor:
    """Return the error of probabilities, dearer where the student is too sure: a loss of this file alone.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits, without gradient.
        slope: what an error upwards costs more.

    Returns:
        Scalar, the mean over the batch.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} differ")
    wide = torch.float64 if student.dtype == torch.float64 else torch.float32
    with torch.autocast(student.device.type, enabled=False):
        gap = student.to(wide).softmax(1) - teacher.detach().to(wide).softmax(1)
        return torch.where(gap > 0, slope * gap.square(), gap.square()).sum(1).mean()


OWN = {"tilted": tilted}
NAMES = sorted([*SHAPES, *OWN])
# not of the form loss(student, teacher): held to their oracles alone
OTHERWISE = (
    "binary_cross_entropy",
    "label_loss",
    "per_label",
    "squared_error",
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
    "likeness",  # of one feature
    "hidden_mse",  # with a mask
    "hidden_cosine",
    "feature_moments",
    "normalised_states",
    "attention_mse",
    "attention_kl",
)
NOT_FOR_ONE_SAMPLE = {"rdm"}
OF_CLIPPED_RATIOS = {"adaptive_alpha_divergence"}  # its gradient is the paper's, not that of its value


def test_every_public_loss_is_held_to_the_contract():
    assert set(SHAPES) == set(losses.__all__) - set(OTHERWISE)


def loss_of(name: str) -> Callable[..., Tensor]:
    return OWN[name] if name in OWN else getattr(losses, name)


def call(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    labels = (LABELS[: len(student)],) if name == "dkd" else ()
    return loss_of(name)(student, teacher, *labels)


def draw(name: str, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPES.get(name, LOGITS), generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_docstring(name):
    loss = loss_of(name)
    first = list(inspect.signature(loss).parameters)[:2]
    assert first == ["student", "teacher"]
    assert "Args:" in loss.__doc__ and re.search(r"\(B[,)]", loss.__doc__)  # what types cannot say: the shapes


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


@pytest.mark.parametrize("name", sorted(set(NAMES) - OF_CLIPPED_RATIOS))
def test_gradient_is_that_of_differences(name):
    student, teacher = (draw(name, seed, torch.float64) for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda s: call(name, s, teacher), student.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_batch_is_nothing(name):
    student, teacher = (draw(name, seed, torch.float64) for seed in (0, 1))
    turned = torch.randperm(len(student), generator=torch.Generator().manual_seed(2))
    labels = (LABELS[turned],) if name == "dkd" else ()
    torch.testing.assert_close(loss_of(name)(student[turned], teacher[turned], *labels), call(name, student, teacher))


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
    torch.testing.assert_close(loss_of(name)(*twice, *labels), call(name, student, teacher))


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


def test_a_new_loss_teaches_by_being_passed_in(data: Data, teacher: Teacher) -> None:
    space = nas_kd.load_space("digits")
    student = nas_kd.retrain(
        space.sample(seed=0),
        teacher,
        data,
        space=space,
        method=[("ce", 0.1), Term("tilted", tilted, 2.0)],
        epochs=2,
        batch_size=16,
    )
    assert 0 <= student.info["metrics"]["test_accuracy"] <= 1


@pytest.mark.parametrize("name", sorted(losses.__all__))
def test_what_is_no_tensor_is_named(name: str) -> None:
    loss = getattr(losses, name)
    first = next(iter(inspect.signature(loss).parameters))
    with pytest.raises(nas_kd.SettingError, match=rf"^{first}='?None'?: expected"):
        loss(None, *[torch.zeros(LOGITS)] * 3)
