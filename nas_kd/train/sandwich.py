"""One step of the supernet: several subnets on one batch, with summed gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from nas_kd.distill import Task
from nas_kd.nn import at_resolution
from nas_kd.space import Arch
from nas_kd.supernet import Supernet
from nas_kd.train.rules import SubnetTarget, sandwich_targets

Divergence = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[..., Tensor]  # (x, arch, *, dropout, drop_path) -> logits


class Images:
    """A batch at every input size that its subnets choose, each computed once.

    Args:
        x: (B, C, H, W).
    """

    def __init__(self, x: Tensor) -> None:
        self._sizes: dict[int | None, Tensor] = {None: x, x.shape[-1]: x}

    def at(self, resolution: int | None) -> Tensor:
        """Return the batch at a resolution in pixels, or unchanged for None."""
        if resolution not in self._sizes:
            self._sizes[resolution] = at_resolution(self._sizes[None], resolution)
        return self._sizes[resolution]


def teach(
    net: Supernet,
    images: Images,
    y: Tensor,
    subnet_targets: Sequence[SubnetTarget],
    *,
    task: Task,
    divergence: Divergence,
    target: Tensor | None = None,
    reduction: str = "sum",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    autocast: AbstractContextManager[Any] | None = None,
    forward: Forward | None = None,
    scale: float = 1.0,
) -> list[Tensor]:
    """Accumulate the gradients of several subnets on one batch.

    Subnets that learn only from the logits of the first are not regularised.

    Args:
        net: the supernet, in training mode, gradients cleared.
        images: the batch.
        y: (B,) labels.
        subnet_targets: the subnets and what each learns from.
        task: its label loss.
        divergence: soft loss, from (B, C) logits to detached target logits.
        target: (B, C) logits for subnets whose soft targets are not in-place.
        reduction: ``sum`` of the subnets' losses (AlphaNet), or their ``mean`` (mmrazor).
        dropout: dropout before the classifier.
        drop_path: stochastic depth.
        autocast: precision context.
        forward: runs a subnet instead of ``net``, for instance compiled.
        scale: multiplies the gradients.

    Returns:
        The loss of each subnet, detached and not divided.

    Source: US-Nets (Yu & Huang 2019); BigNAS (Yu et al. 2020); AlphaNet (Wang et al. 2021).
    """
    share = scale / len(subnet_targets) if reduction == "mean" else scale
    context = autocast if autocast is not None else nullcontext()
    run = forward or subnet_forward(net)
    first: Tensor | None = None
    losses = []
    for arch, labels, soft, inplace in subnet_targets:
        regularised = labels > 0.0 or not inplace
        with context:
            logits = run(
                images.at(arch.resolution), arch, dropout=dropout * regularised, drop_path=drop_path * regularised
            )
            terms = [labels * task.loss(logits, y)] if labels > 0.0 else []
            given = first if inplace else target
            if soft > 0.0:
                assert given is not None
                terms.append(soft * divergence(logits, given))
            loss = torch.stack(terms).sum() if len(terms) > 1 else terms[0]
        (loss * share).backward()  # right away, so that only one graph is in memory
        losses.append(loss.detach())
        first = logits.detach() if first is None else first
    return losses


def subnet_forward(net: Supernet) -> Forward:
    """Return the supernet's forward pass as ``teach`` calls it."""

    def run(x: Tensor, arch: Arch, *, dropout: float, drop_path: float) -> Tensor:
        return net.forward_stages(x, arch, dropout=dropout, drop_path=drop_path).logits

    return run


def summary(losses: Sequence[Tensor], reduction: str, largest: bool) -> dict[str, Tensor]:
    """Return the losses of a step by name.

    Args:
        losses: one per subnet.
        largest: whether the first is that of the largest.

    Returns:
        ``loss`` (their sum or mean), and with ``largest`` also ``loss_largest`` and ``loss_others`` (mean of the
        others).
    """
    all_ = torch.stack(list(losses))
    parts = {"loss": all_.mean() if reduction == "mean" else all_.sum()}
    if largest:
        parts |= {"loss_largest": all_[0], "loss_others": all_[1:].sum() / max(1, len(losses) - 1)}
    return parts


def sandwich_step(
    net: Supernet,
    x: Tensor,
    y: Tensor,
    archs: Sequence[Arch],
    *,
    task: Task,
    divergence: Divergence,
    target: Tensor | None = None,
    teacher_weight: float = 0.0,
    reduction: str = "sum",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    autocast: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:
    """Accumulate the gradients of a sandwich: the first learns from labels, the others from the first.

    Args:
        net: the supernet, in training mode, gradients cleared.
        x: (B, C, H, W) images.
        y: (B,) labels.
        archs: the largest first; only it uses the labels and is regularised.
        task: its label loss.
        divergence: loss of the other subnets, from (B, C) logits to the largest's detached logits.
        target: (B, C) logits of an external teacher for the largest, or None.
        teacher_weight: weight of ``target`` in the loss of the largest, 0 to 1.
        reduction: ``sum`` or ``mean``, see ``teach``.
        dropout: dropout before the largest's classifier.
        drop_path: stochastic depth of the largest.
        autocast: precision context.

    Returns:
        ``loss`` (their sum or mean), ``loss_largest`` and ``loss_others`` (mean of the others), detached.
    """
    losses = teach(
        net,
        Images(x),
        y,
        sandwich_targets(list(archs), teacher_weight if target is not None else 0.0),
        task=task,
        divergence=divergence,
        target=target,
        reduction=reduction,
        dropout=dropout,
        drop_path=drop_path,
        autocast=autocast,
    )
    return summary(losses, reduction, largest=True)
