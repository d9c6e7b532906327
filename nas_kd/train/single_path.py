"""Single-path baselines: every subnet of a step learns from labels, uniformly drawn or strictly fair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.space.paths import MOST_PATHS, fair_paths, nth
from nas_kd.train.loop import StepInfo
from nas_kd.train.rules import Rule, Score, SubnetTarget


@dataclass(frozen=True)
class Uniform(Rule):
    """Random subnets, each with the label loss.

    Args:
        paths: subnets per step.
        teacher_weight: weight of an external teacher in the loss, 0 to 1.

    Source: SPOS (Guo et al. 2019), section 3.2, with one path.
    """

    space: ElasticSpace
    seed: int = 0
    paths: int = 1
    teacher_weight: float = 0.0

    def subnet_targets(self, info: StepInfo, score: Score) -> list[SubnetTarget]:
        return [SubnetTarget(arch, 1.0 - self.teacher_weight, self.teacher_weight) for arch in self.archs(info)]

    def archs(self, info: StepInfo) -> list[Arch]:
        """Return the archs of a step."""
        seeds = [seed_for(self.seed, "uniform", info.epoch, info.step, k) for k in range(self.paths)]
        return [self.space.sample(seed) for seed in seeds]


@dataclass(frozen=True)
class Fair(Uniform):
    """Subnets that use all choices equally often, each with the label loss.

    Args:
        paths: subnets per step; with as many as a layer has choices, every step uses each choice once.
        steps: steps per epoch.

    Source: strict fairness: FairNAS (Chu et al. 2019), section 3.2.
    """

    steps: int = 1

    def archs(self, info: StepInfo) -> list[Arch]:
        number = info.epoch * self.steps + info.step
        space = self.space
        columns = [
            fair_paths(
                stage, (0,), self.paths, number, self.seed, "fair", index
            )  # the entry is not used: in_width is that of the previous stage
            for index, stage in enumerate(space.stages)
        ]
        archs = []
        for k in range(self.paths):
            n = number * self.paths + k
            stem = self._turn(space.stem.choices(), n, "stem")
            head = self._turn(space.head.choices(), n, "head")
            width = space.stem.width_of(stem)
            stages = []
            for stage, paths in zip(space.stages, columns, strict=True):
                candidate = paths[k].candidate
                stages.append(replace(candidate, width=width) if stage.keeps_width else candidate)
                width = stages[-1].width
            size = self._turn(space.resolutions or (None,), n, "resolution")
            archs.append(Arch(space.hash, tuple(stages), size, stem, head))
        return archs

    def _turn(self, choices: tuple[Any, ...], n: int, what: str) -> Any:
        return choices[nth(len(choices), n, self.seed, "fair", what)]


def most_choices(space: ElasticSpace) -> int:
    """Return how many subnets a step of ``Fair`` trains by default: one per choice of a layer, at most four."""
    return min(MOST_PATHS, max(sum(map(len, stage.groups())) for stage in space.stages))
