"""Cream: the best paths so far stand on a board, and each subnet learns from the one that agrees with it most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.losses import kl_divergence
from nas_kd.runtime.seeds import seed_for
from nas_kd.space import Arch, ElasticSpace
from nas_kd.train.loop import StepInfo
from nas_kd.train.matching import MetaMatcher, held_out_slope
from nas_kd.train.rules import Rule, Score, SubnetTarget

BOARD = "board.json"  # file in the supernet's stage with the paths at the end
BEGIN = 1 / 6  # of the training, from which paths come to the board: the authors' 20 of 120 epochs
GAP = 0.05  # by how much a dearer path must be more accurate than the worst to take its place
Answers = Callable[[Sequence[Arch]], Tensor]  # (N, B, C) logits of archs on the step's batch, without gradient


class Prioritised(NamedTuple):
    """A path on the board.

    Args:
        quality: high for good ones, on the batch that it was last trained on.
        macs: its cost.
        arch: the path.
    """

    quality: float
    macs: int
    arch: Arch


class Board(nn.Module):
    """The best paths so far, by quality, then by cost; a part of checkpoints.

    Args:
        size: how many paths it holds.

    Source: Cream of the Crop (Peng et al. 2020), section 3.1.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise SettingError("supernet.board", size, "a whole number of at least 1")
        self.size = size
        self.paths: list[Prioritised] = []

    def note(self, path: Prioritised) -> bool:
        """Put a path on the board where it belongs there, and return whether it does.

        It does where there is room, where it is better than the worst by ``GAP``, or better and cheaper. One that is
        there already gets its new quality. A quality that is no number keeps a path off the board.
        """
        if not math.isfinite(path.quality):
            self.paths = [other for other in self.paths if other.arch != path.arch]
            return False
        known = [other for other in self.paths if other.arch == path.arch]
        if not known and len(self.paths) >= self.size:
            worst = self.paths[-1]
            better = path.quality > worst.quality + GAP
            cheaper = path.quality > worst.quality and path.macs < worst.macs
            if not (better or cheaper):
                return False
            self.paths.pop()
        for other in known:
            self.paths.remove(other)
        self.paths.append(path)
        self.paths.sort(key=lambda one: (-one.quality, one.macs, one.arch.key))
        return True

    def get_extra_state(self) -> list[dict[str, Any]]:
        """Return the paths in plain values."""
        return [{"quality": path.quality, "macs": path.macs, "arch": path.arch.to_dict()} for path in self.paths]

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        """Restore the paths."""
        self.paths = [Prioritised(row["quality"], row["macs"], Arch.from_dict(row["arch"])) for row in state]


@dataclass(frozen=True)
class Cream(Rule):
    """Random subnets learn from labels and from the path on the board whose answers are nearest to theirs.

    The path of least divergence from the subnet on the batch teaches it; or, as the authors have it, the one that a
    meta network expects most of, which learns on a held-out part of the batch. The first is the default because the
    meta network sees logits, which say little where there are few classes, and because its lessons cost passes of their
    own.

    Args:
        board: the paths.
        costs: returns the MACs of an arch.
        subnets: subnets per step.
        weight: weight of the path's soft targets, added to the label loss.
        matcher: the meta network, whose degree multiplies the weight; None for the path of least divergence.

    Source: Cream of the Crop (Peng et al. 2020), algorithm 1.
    """

    space: ElasticSpace
    board: Board
    costs: Callable[[Arch], int]
    seed: int = 0
    subnets: int = 1
    weight: float = 1.0
    matcher: MetaMatcher | None = None

    def subnet_targets(self, info: StepInfo, score: Score) -> list[SubnetTarget]:
        """Return the subnets without their teachers, which `taught` finds."""
        return [SubnetTarget(arch) for arch in self.archs(info)]

    def archs(self, info: StepInfo) -> list[Arch]:
        """Return the subnets of a step."""
        seeds = [seed_for(self.seed, "cream", info.epoch, info.step, k) for k in range(self.subnets)]
        return [self.space.sample(seed) for seed in seeds]

    def taught(
        self,
        info: StepInfo,
        answers: Answers,
        quality: Callable[[Tensor], float],
        mean: Callable[[Tensor], Tensor],
        divergence: Callable[[Tensor, Tensor], Tensor] = kl_divergence,
    ) -> list[tuple[SubnetTarget, Tensor | None]]:
        """Choose who teaches each subnet, and let the subnets come to the board.

        Args:
            info: the step.
            answers: returns logits of archs on its batch.
            quality: returns how good (B, C) logits are; higher is better.
            mean: averages a value over processes, which must choose alike.
            divergence: of a subnet's logits from a path's, the task's own: the KL of labels that are numbers is 0.

        Returns:
            Each subnet, and the (B, C) logits that it learns from; None where the board has none for it.
        """
        found: list[tuple[SubnetTarget, Tensor | None]] = []
        for arch in self.archs(info):
            (own,) = answers([arch])
            others = [path.arch for path in self.board.paths if path.arch != arch]
            if others:
                theirs = answers(others)
                if self.matcher is None:
                    apart = mean(torch.stack([divergence(own, logits) for logits in theirs]))
                    found.append((SubnetTarget(arch, 1.0, self.weight), theirs[int(apart.argmin())]))
                else:
                    degrees = mean(self.matcher(own, theirs).detach())
                    nearest = int(degrees.argmax())
                    weight = self.weight * float(degrees[nearest])
                    found.append((SubnetTarget(arch, 1.0, weight), theirs[nearest]))
            else:
                found.append((SubnetTarget(arch), None))
            if info.progress >= BEGIN:
                reached = float(mean(torch.tensor(quality(own), device=own.device)))
                self.board.note(Prioritised(reached, self.costs(arch), arch))
        return found

    def lesson(
        self,
        info: StepInfo,
        answer: Callable[[Arch, slice], Tensor],
        y: Tensor,
        parameters: Sequence[nn.Parameter],
        loss: Callable[[Tensor, Tensor], Tensor],
        divergence: Callable[[Tensor, Tensor], Tensor],
        rate: float,
        mean: Callable[[Tensor], Tensor],
    ) -> None:
        """Let the meta network learn from the step's first subnet: one half of the batch trains, the other judges.

        Args:
            info: the step.
            answer: returns (B', C) logits of an arch for some rows of the batch, with gradient.
            y: labels of the batch.
            parameters: the supernet's, which come out as they went in.
            loss: the label loss.
            divergence: of the subnet's logits from the path's, as it is trained.
            rate: learning rate of the step.
            mean: averages a value over processes.
        """
        arch = self.archs(info)[0]
        others = [path.arch for path in self.board.paths if path.arch != arch]
        half = len(y) // 2
        if self.matcher is None or not others or not half:
            return
        training, judging = slice(half), slice(half, None)
        with torch.no_grad():
            own, theirs = answer(arch, training), torch.stack([answer(other, training) for other in others])
        degrees = self.matcher(own, theirs)
        nearest = int(mean(degrees.detach()).argmax())

        def losses() -> tuple[Tensor, Tensor]:
            logits = answer(arch, training)
            return loss(logits, y[training]), self.weight * divergence(logits, theirs[nearest])

        degree = degrees[nearest]
        slope = held_out_slope(
            parameters, losses, lambda: loss(answer(arch, judging), y[judging]), float(degree.detach()), rate
        )
        self.matcher.learn(slope, degree, mean)
