"""Argument handling shared by all losses: check shapes, cast to fp32, detach the teacher."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_kd.errors import SettingError, nearest


def wide(x: Tensor) -> Tensor:
    """Widen half precision to fp32 and leave float64 alone, so that oracles can be checked in float64."""
    return x if x.dtype == torch.float64 else x.float()


def pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Cast both sides to one wide dtype and detach the teacher.

    Args:
        student, teacher: (B, ...) of any floating dtype.

    Returns:
        Both in fp32 (float64 where the student is float64); the teacher detached.

    Raises:
        ValueError: the batches differ in size.
    """
    if student.shape[:1] != teacher.shape[:1] or student.ndim < 2 or teacher.ndim < 2:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must both be (B, ...) "
            "with the same B and at least 2 dimensions"
        )
    s = wide(student)
    return s, teacher.detach().to(s.dtype)


def same_shape(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`pair` for tensors that are compared element by element."""
    if student.shape != teacher.shape:
        raise ValueError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the same shape")
    return pair(student, teacher)


def logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`pair` for logits, (B, C) each."""
    if student.ndim != 2:
        raise ValueError(f"logits must be (B, C), but the student's are {tuple(student.shape)}")
    return same_shape(student, teacher)


def full_precision(x: Tensor) -> torch.autocast:
    """Switch autocast off on the tensor's device: it would run a Gram matrix of fp32 rows in bf16."""
    return torch.autocast(device_type=x.device.type, enabled=False)


class Gram(torch.autograd.Function):
    """Products of all pairs of rows, (..., N, D) to (..., N, N): backwards one product where autograd makes two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.transpose(-1, -2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (grad + grad.transpose(-1, -2)) @ x


def positive(field: str, value: float) -> float:
    """Return the value, or raise SettingError where it is not a positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise SettingError(field, value, "a finite number above 0")
    return value


def one_of(field: str, value: str, expected: tuple[str, ...]) -> str:
    """Return the value, or raise SettingError where it is not among the expected ones."""
    if value not in expected:
        raise SettingError(field, value, " or ".join(expected), nearest(str(value), expected))
    return value


def pearson(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Pearson correlation along the last dimension, 0 where one side does not vary.

    Args:
        a, b: (..., N).
        eps: lower bound of the product of the two norms.

    Returns:
        (...) in -1..1.
    """
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    # the clamp, unlike an addend, leaves exactly 1 for equal rows
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(eps)
