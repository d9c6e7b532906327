"""The moving average of a supernet's own stages, which teaches them without labels or a teacher (DNA++)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.losses import likeness, pooled_cosine
from nas_kd.nn import NormValues, Output
from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet
from nas_kd.supernet.calibrate import statistics
from nas_kd.teacher.taps import Tap
from nas_kd.teacher.targets import LiveSource
from nas_kd.train.optim import Schedule
from nas_kd.train.stages import Blockwise

NAME = "average"


def own_taps(space: ElasticSpace, resolution: int) -> list[Tap]:
    """Return the features of a space's largest arch, one a stage, as what teaches the stages."""
    sizes = space.stage_sizes(resolution)
    largest = space.largest()
    return [
        Tap(f"{NAME}.{index + 1}", candidate.width, size, size, True)
        for index, (candidate, size) in enumerate(zip(largest.stages, sizes, strict=True))
    ]


class StageAverage(nn.Module, LiveSource):
    """The exponential moving average of a supernet's stem and stages, run as its largest arch.

    While the stages learn, its norms take the statistics of the batch; `settle` measures them for the rating.

    Args:
        net: a supernet of the space; it is copied.
        model: the stages that learn, whose weights it begins with.
        decay: of the average per step, 0 to 1.

    Source: DNA++ (Wang et al., arXiv 2403.01326): the teacher is the average of the student supernet's weights, as in
        BossNAS (Li et al., arXiv 2103.12424) and BYOL (Grill et al., arXiv 2006.07733).
    """

    name = NAME

    def __init__(self, net: Supernet, model: Blockwise, decay: float) -> None:
        super().__init__()
        self.net = deepcopy(net).requires_grad_(False)
        self.net.train()
        self.decay = decay
        self.norm: NormValues | None = None
        self._model = (model,)  # a tuple keeps it out of this module's parameters
        for own, other in self._pairs(range(len(model.sizes))):
            own.load_state_dict(other.state_dict())

    @property
    def network(self) -> nn.Module:
        return self.net

    def _pairs(self, indices: Iterable[int]) -> list[tuple[nn.Module, nn.Module]]:
        """Return the modules of some stages, the average's and the student's; the stem belongs to the first."""
        model = self._model[0]
        found: list[tuple[nn.Module, nn.Module]] = []
        for index in indices:
            found += [(self.net.stem, model.stem)] if index == 0 else []
            found.append((self.net.stages[index], model.stages[index]))
        return found

    @torch.no_grad()
    def update(self, index: int) -> None:
        """Move one stage towards the student's by one step."""
        for own, other in self._pairs([index]):
            for mine, theirs in zip(own.parameters(), other.parameters(), strict=True):
                mine.lerp_(theirs, 1.0 - self.decay)

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Measure the statistics of its norms on images (B, C, H, W), and use them from here on."""
        (self.norm,) = statistics(self.net, batches, [self.net.space.largest()])

    @torch.no_grad()
    def forward_stages(self, x: Any) -> Output:
        return self.net.forward_stages(x, self.net.space.largest(), self.norm)

    def forward(self, x: Any) -> Tensor:
        """Map images (B, C, H, W) to (B, classes) logits of a head that nothing trains."""
        return self.forward_stages(x).logits


@dataclass(frozen=True)
class ApartCosine:
    """The distance of DNA++: from the average's direction, and what keeps images from becoming alike.

    Args:
        spread: weight of the likeness of different images' outputs.
    """

    spread: float

    def __call__(self, student: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a stage's outputs (B, C, H, W) for targets of another view of the images, a scalar."""
        loss = pooled_cosine(student, target)
        return loss + self.spread * likeness(student) if self.spread else loss


@dataclass(frozen=True)
class OneByOne:
    """The learning rate of stages that learn one after the other: the same schedule for each.

    Args:
        schedule: of one stage, without warm-up.
        count: number of stages.
    """

    schedule: Schedule
    count: int

    def at(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Return the learning rate of a step; arguments as in ``Schedule.at``."""
        share = step * self.count % (steps_per_epoch * epochs)  # of the stage's own part, in steps of the whole
        return self.schedule.at(share, steps_per_epoch, epochs)


def turn_of(step: int, steps: int, stages: Sequence[int]) -> int:
    """Return the stage that learns in a step of all ``steps``: one after the other, for equal shares of them."""
    return stages[step * len(stages) // steps]
