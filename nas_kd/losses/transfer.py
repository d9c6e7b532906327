"""Losses on features behind modules trained with the student, and on pairs of stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nas_kd.config.kinds import checked
from nas_kd.losses._common import full_precision, one_of, pair, positive, same_shape


@checked
def ft(student: Tensor, teacher: Tensor, p: float = 1.0, variant: str = "paper") -> Tensor:
    """Factor transfer: the p-norm distance of normalised factors, per element.

    Args:
        student: (B, ...) factor of the student, from its translator.
        teacher: (B, ...) factor of the teacher of the same shape, from its paraphraser.
        p: the norm, at least 1.
        variant: "paper" normalises the flattened factor; "repdistiller" the map of its mean squares over channels,
            which is attention transfer's.

    Returns:
        Scalar, sum of |difference|^p over the number of elements; invariant to a positive scale of each sample.

    Raises:
        SettingError: p below 1, or an unknown variant.

    Source: Kim et al., Paraphrasing complex network: network compression via factor transfer, arXiv 1802.04977, eq. 4.
    """
    one_of("variant", variant, ("paper", "repdistiller"))
    positive("p", p)
    s, t = same_shape(student, teacher)
    if variant == "repdistiller":
        s = s.square().mean(1)
        t = t.square().mean(1)
    s = F.normalize(s.flatten(1), dim=1)
    t = F.normalize(t.flatten(1), dim=1)
    return (s - t).abs().pow(p).mean()


@checked
def vid(student: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Variational information distillation: minus the log-likelihood of the teacher's feature.

    Args:
        student: (B, C, ...) mean that a regressor predicts from the student's feature.
        teacher: (B, C, ...) feature of the same shape.
        variance: (C,) variance of every channel, above 0.

    Returns:
        Scalar, the mean over all elements of half of (t - s)^2 / v + log v; it may be negative. Its smallest value over
        v, at v = the channel's MSE, is half of 1 + log MSE.

    Source: Ahn et al., arXiv 1904.05835, eq. 4 and 5, without the constant; the sum over elements there.
    """
    s, t = same_shape(student, teacher)
    v = variance.to(s.dtype)
    with full_precision(s):
        return (ChannelErrors.apply(s, t) / v + v.log()).mean() / 2


class ChannelErrors(torch.autograd.Function):
    """Mean squared difference of each channel of (B, C, ...): (C,), with a gradient for the student only.

    The division comes after the reduction, per channel: broadcasting over a few innermost channels would cost several
    times as much as the rest.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        delta = student - teacher
        ctx.save_for_backward(delta)
        rows = delta.movedim(1, -1).flatten(0, -2)  # a view where the memory is channels_last
        return (rows.T @ rows).diagonal() / len(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (delta,) = ctx.saved_tensors
        each = (grad * (2 * len(grad) / delta.numel())).view(1, -1, *(1,) * (delta.ndim - 2))
        return delta * torch.empty_like(delta[:1]).copy_(each.expand_as(delta[:1])), None


@checked
def ab(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """Activation boundaries: the student's neurons must be on the teacher's side of 0, by a margin.

    Args:
        student: (B, ...) feature before its activation, after its connector.
        teacher: (B, ...) feature of the same shape, before or after its activation: only t > 0 counts.
        margin: required distance from 0, above 0.

    Returns:
        Scalar: the sum over a sample's neurons, the mean over the batch; 0 with zero gradient once all margins are met.

    Source: Heo et al., Knowledge transfer via distillation of activation boundaries, arXiv 1811.03233, eq. 6.
    """
    positive("margin", margin)
    s, t = same_shape(student, teacher)
    return Hinge.apply(s, t, margin) / len(s)


class Hinge(torch.autograd.Function):
    """The sum of the squared hinges of a margin on the teacher's side of 0, in few passes over the features."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, margin: float) -> Tensor:
        side = torch.where(teacher > 0, 1.0, -1.0).to(student.dtype)
        short = torch.addcmul(student.new_full((), margin), side, student, value=-1).relu_()
        ctx.save_for_backward(side.mul_(short))
        return short.square_().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (short,) = ctx.saved_tensors
        return short * (-2 * grad), None, None


@checked
def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss: mean squared differences of a map and of its averages to 4, 2 and 1 pixels.

    Args:
        student: (B, C, H, W) fused feature.
        teacher: (B, C, H, W).

    Returns:
        Scalar; the sizes weigh 1, 1/2, 1/4, 1/8, normalised, and a constant difference d gives d^2.

    Source: Chen et al., Distilling knowledge via knowledge review, arXiv 2104.09044, figure 4 and section 3.3.
    """
    s, t = same_shape(student, teacher)
    delta = s - t  # averaging is linear: the difference of the averages is the average of the difference
    small = delta
    size = (s.shape[2], s.shape[3])
    loss = delta.square().mean()
    total = 1.0
    weight = 1.0
    for pixels in (4, 2, 1):
        if pixels < size[0]:
            weight /= 2
            total += weight
            nested = all(n % 4 == 0 for n in size)  # then averages of averages are averages
            small = F.adaptive_avg_pool2d(small if nested else delta, pixels)
            loss = loss + weight * small.square().mean()
    return loss / total


@checked
def flow(first: Tensor, second: Tensor, variant: str = "paper") -> Tensor:
    """The flow-of-solution matrix of two stages: mean over positions of the products of their channels.

    Args:
        first: (B, C, H, W).
        second: (B, C', H', W') with maps that are not larger; the first is pooled to them.
        variant: "paper" pools by the maximum, "repdistiller" by the mean.

    Returns:
        (B, C, C').

    Source: Yim et al., A gift from knowledge distillation, CVPR 2017, eq. 1.
    """
    size = second.shape[2], second.shape[3]
    if first.shape[2:] != size:
        first = F.adaptive_max_pool2d(first, size) if variant == "paper" else F.adaptive_avg_pool2d(first, size)
    return torch.bmm(first.flatten(2), second.flatten(2).transpose(1, 2)) / math.prod(size)


@checked
def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor], variant: str = "paper") -> Tensor:
    """Flow of solution: mean squared difference of the flow matrices of neighbouring stages.

    Args:
        student: at least two stages (B, C, H, W).
        teacher: as many, with the same channels in every stage; the maps may differ.
        variant: see :func:`flow`.

    Returns:
        Scalar, the mean over the pairs; invariant to a joint permutation of the positions.

    Raises:
        ValueError: fewer than two stages, or channels differ.

    Source: Yim et al., CVPR 2017, eq. 2.
    """
    one_of("variant", variant, ("paper", "repdistiller"))
    if len(student) < 2 or [x.shape[:2] for x in student] != [x.shape[:2] for x in teacher]:
        shapes = [[tuple(x.shape) for x in xs] for xs in (student, teacher)]
        raise ValueError(f"fsp needs at least two stages of equal channels: student {shapes[0]}, teacher {shapes[1]}")
    both = [pair(s, t) for s, t in zip(student, teacher, strict=True)]
    with full_precision(both[0][0]):
        parts = [
            F.mse_loss(flow(a[0], b[0], variant), flow(a[1], b[1], variant))
            for a, b in zip(both, both[1:], strict=False)
        ]
    return torch.stack(parts).mean()
