"""Progressive shrinking (OFA): the full network first, then kernels, depths and widths become elastic."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nas_kd.data.split import apportion
from nas_kd.errors import SettingError
from nas_kd.nn import NormValues, at_resolution
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace, Head, Stage, Stem
from nas_kd.supernet import Supernet
from nas_kd.train.loop import StepInfo
from nas_kd.train.optim import Phased, Rates, Schedule
from nas_kd.train.rules import Rule, Score, SubnetTarget

PartT = TypeVar("PartT", Stage, Stem, Head)


class Published(NamedTuple):
    """One phase as published.

    Args:
        epochs: its epochs, including warm-up; only their proportions matter here.
        warmup: epochs of warm-up among them.
        lr: peak learning rate per GPU (64 images).
        subnets: subnets per step.
        kernels: how many of the largest kernel sizes are elastic; None for all.
        depths: the same for depths.
        others: the same for everything else but the input size, which is always elastic.
    """

    name: str
    epochs: int
    warmup: int
    lr: float
    subnets: int
    kernels: int | None
    depths: int | None
    others: int | None


# OFA (Cai et al. 2020), section 3.3 and train_ofa_net.py; the learning rate of the full network is 2.6 for 32 GPUs
PUBLISHED = (
    Published("full", 180, 5, 2.6 / 32, 1, 1, 1, 1),
    Published("kernel", 125, 5, 3e-2, 1, None, 1, 1),
    Published("depth_1", 25, 0, 2.5e-3, 2, None, 2, 1),
    Published("depth_2", 125, 5, 7.5e-3, 2, None, None, 1),
    Published("expand_1", 25, 0, 2.5e-3, 4, None, None, 2),
    Published("expand_2", 125, 5, 7.5e-3, 4, None, None, None),
)


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Args:
        space: the archs that it trains, a subspace of the whole space.
        start: epochs before it.
        epochs: its own epochs.
        lr: peak learning rate as a fraction of that of the training.
        warmup: epochs of warm-up.
        subnets: subnets per step.
    """

    name: str
    space: ElasticSpace
    start: int
    epochs: int
    lr: float
    warmup: float
    subnets: int

    @property
    def sorts(self) -> bool:
        """Whether the channels are sorted by importance at its start."""
        return self.name.startswith("expand")


def _largest_of(part: PartT, count: int | None, kernels: int | None, depths: int | None) -> PartT:
    """Keep the largest choices of every field that has several."""
    keep = {"kernels": kernels, "depths": depths}
    kept: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        number = keep.get(field.name, count)
        if isinstance(value, tuple) and number is not None:  # choices are in ascending order
            kept[field.name] = value[-number:]
    return replace(part, **kept)


def restricted(space: ElasticSpace, *, kernels: int | None, depths: int | None, others: int | None) -> ElasticSpace:
    """Return the subspace of the largest choices.

    Args:
        kernels: how many kernel sizes to keep; None for all.
        depths: how many depths to keep.
        others: how many of all other choices to keep: widths, inner widths, stem, head. The input size
            stays elastic.

    Returns:
        A space whose archs ``widened`` converts to archs of the whole one.
    """
    return replace(
        space,
        stem=_largest_of(space.stem, others, kernels, depths),
        stages=tuple(_largest_of(stage, others, kernels, depths) for stage in space.stages),
        head=_largest_of(space.head, others, kernels, depths),
    )


def widened(arch: Arch, part: ElasticSpace, space: ElasticSpace) -> Arch:
    """Convert an arch of a restricted space to one of the whole space."""

    def setting(inner: Stem | Head, outer: Stem | Head, chosen: Any) -> tuple[Any, ...]:
        named = inner.named(chosen)
        options = zip(outer.fields, outer.options(), strict=True)
        return tuple(named[name] for name, option in options if len(option) > 1)

    stem = setting(part.stem, space.stem, arch.stem)
    head = setting(part.head, space.head, arch.head)
    return Arch(space.hash, arch.stages, arch.resolution, stem, head)


def phases(space: ElasticSpace, epochs: int, warmup_epochs: float) -> tuple[Phase, ...]:
    """Divide a training into the published phases, in proportion to their epochs.

    A phase that makes nothing new elastic is dropped; if it has a sibling, such as depth_1 of depth_2, the longer
    one is kept.

    Args:
        epochs: epochs of the whole training.
        warmup_epochs: warm-up of the full network; later phases use the published proportion of their epochs.

    Raises:
        SettingError: there are fewer epochs than phases.
    """
    kept: list[tuple[Published, ElasticSpace]] = []
    for row in PUBLISHED:
        part = restricted(space, kernels=row.kernels, depths=row.depths, others=row.others)
        if kept and part.hash == kept[-1][1].hash:
            if row.name.split("_")[0] == kept[-1][0].name.split("_")[0]:
                kept[-1] = (row, part)
            continue
        kept.append((row, part))
    if epochs < len(kept):
        names = ", ".join(row.name for row, _ in kept)
        expected = f"at least {len(kept)} with supernet.rule=shrinking, one per phase: {names}"
        raise SettingError("supernet.epochs", epochs, expected)
    published = np.array([row.epochs for row, _ in kept])
    shares = [int(n) for n in apportion(published, epochs, 1, np.full(len(kept), epochs))]
    starts = accumulate(shares, initial=0)
    return tuple(
        Phase(
            row.name,
            part,
            start,
            count,
            row.lr / PUBLISHED[0].lr,
            warmup_epochs if start == 0 else count * row.warmup / row.epochs,
            row.subnets,
        )
        for (row, part), start, count in zip(kept, starts, shares, strict=False)
    )


@dataclass(frozen=True)
class Shrinking(Rule):
    """Random subnets of the phase's space, each with labels and soft targets of the full network.

    Args:
        subnets: subnets per step; None is the published number of the phase.
        kd_ratio: weight of the soft loss, which is added to the label loss.
        inplace: True trains the largest in every step and uses its logits; False uses those
            of the largest after the first phase.
        teacher_weight: weight of an external teacher in the loss of the full network, 0 to 1.

    Source: OFA (Cai et al. 2020), section 3.3; there a frozen full network teaches.
    """

    space: ElasticSpace
    phases: tuple[Phase, ...]
    seed: int = 0
    subnets: int | None = None
    kd_ratio: float = 1.0
    inplace: bool = False
    teacher_weight: float = 0.0

    @property
    def has_largest(self) -> bool:
        return self.inplace

    @property
    def frozen(self) -> bool:
        """Whether a frozen copy of the full network teaches."""
        return not self.inplace and self.kd_ratio > 0.0 and len(self.phases) > 1

    def rates(self, plan: Schedule) -> Rates:
        return Phased(
            tuple(
                (phase.epochs, replace(plan, lr=plan.lr * phase.lr, warmup_epochs=phase.warmup))
                for phase in self.phases
            )
        )

    def starting(self, epoch: int) -> int | None:
        """Return the index of the phase that starts with an epoch (from 0), or None."""
        return next((number for number, phase in enumerate(self.phases) if phase.start == epoch), None)

    def phase(self, epoch: int) -> Phase:
        """Return the phase that an epoch (from 0) belongs to."""
        return next(phase for phase in reversed(self.phases) if phase.start <= epoch)

    def subnet_targets(self, info: StepInfo, score: Score) -> list[SubnetTarget]:
        phase = self.phase(info.epoch)
        count = (
            self.subnets if self.subnets and phase.start > 0 else phase.subnets
        )  # the first phase trains only the full network
        seeds = [seed_for(self.seed, "shrinking", info.epoch, info.step, k) for k in range(count)]
        archs = [widened(phase.space.sample(seed), phase.space, self.space) for seed in seeds]
        full = (1.0 - self.teacher_weight, self.teacher_weight)
        if phase.start == 0:
            return [SubnetTarget(arch, *full) for arch in archs]
        others = [SubnetTarget(arch, 1.0, self.kd_ratio, self.inplace) for arch in archs]
        return [SubnetTarget(self.space.largest(), *full), *others] if self.inplace else others


class FullNet(nn.Module):
    """A frozen copy of the largest subnet, which teaches the others.

    It runs in evaluation mode with calibrated norms. OFA's code leaves its teacher in training mode, where
    the targets of an image depend on the rest of the batch, and the running statistics drift.
    """

    def __init__(self, net: Supernet) -> None:
        super().__init__()
        self.arch = net.space.largest()
        self.net = net.extract(self.arch).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FullNet:
        """Stay in evaluation mode."""
        return super().train(False)

    def take(self, net: Supernet, norm: NormValues) -> None:
        """Copy the supernet's largest subnet with its calibrated statistics."""
        self.net.load_state_dict(net.extract(self.arch, norm).state_dict())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits (B, classes), at the largest input size, for which the norms are calibrated."""
        return self.net(at_resolution(x, self.arch.resolution))
