"""Training rules: the archs of a step, what each learns from, and the phases of the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.train.loop import StepInfo
from nas_kd.train.optim import Rates, Schedule


class SubnetTarget(NamedTuple):
    """One subnet of a step and what it learns from.

    Args:
        arch: the subnet.
        labels: weight of the label loss.
        soft: weight of the divergence from soft targets.
        inplace: whether the soft targets are the detached logits of the step's first subnet.
    """

    arch: Arch
    labels: float = 1.0
    soft: float = 0.0
    inplace: bool = False


Score = Callable[[Sequence[Arch]], Tensor]  # label losses (N,) of archs on the step's batch, without gradient


class Rule(ABC):
    """Selects the subnets of each training step, depending only on the seed and the step."""

    @property
    def has_largest(self) -> bool:
        """Whether every step starts with the largest, which teaches the others."""
        return False

    def rates(self, plan: Schedule) -> Rates:
        """Return the learning rate over the training, given that of a training without phases."""
        return plan

    @abstractmethod
    def subnet_targets(self, info: StepInfo, score: Score) -> list[SubnetTarget]:
        """Return the subnets of a step.

        Args:
            info: the step; the same step has the same archs on every rank and after resuming.
            score: returns the label losses of archs on the step's batch, for rules that select by them.

        Returns:
            One target per subnet, in the order in which they run.
        """


def sandwich_targets(archs: list[Arch], teacher_weight: float = 0.0) -> list[SubnetTarget]:
    """Let the first arch learn from labels and an external teacher, the others from the first."""
    first = SubnetTarget(archs[0], 1.0 - teacher_weight, teacher_weight)
    return [first, *(SubnetTarget(arch, 0.0, 1.0, inplace=True) for arch in archs[1:])]


ORDERS = ("smallest_second", "smallest_last")


@dataclass(frozen=True)
class Sandwich(Rule):
    """The largest, the smallest and some random subnets on every batch.

    Args:
        random: number of random subnets.
        order: ``smallest_second`` (US-Nets) or ``smallest_last`` (AlphaNet); the sum of the gradients is the same.
        teacher_weight: weight of an external teacher in the loss of the largest, 0 to 1.

    Source: US-Nets (Yu & Huang 2019), section 3.3; BigNAS (Yu et al. 2020).
    """

    space: ElasticSpace
    seed: int = 0
    random: int = 2
    order: str = "smallest_second"
    teacher_weight: float = 0.0

    @property
    def has_largest(self) -> bool:
        return True

    def subnet_targets(self, info: StepInfo, score: Score) -> list[SubnetTarget]:
        return sandwich_targets(self.archs(info, score), self.teacher_weight)

    def archs(self, info: StepInfo, score: Score | None = None) -> list[Arch]:
        """Return the archs of a step, the largest first."""
        drawn = [self.draw(info, k, score) for k in range(self.random)]
        ends = self.space.largest(), self.space.smallest()
        return [ends[0], *drawn, ends[1]] if self.order == "smallest_last" else [*ends, *drawn]

    def draw(self, info: StepInfo, k: int, score: Score | None) -> Arch:
        """Draw the ``k``-th random arch of a step."""
        return self.space.sample(seed_for(self.seed, "sandwich", info.epoch, info.step, k))
