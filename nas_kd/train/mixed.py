"""Mixed inputs of blockwise training: in some steps a stage gets the output of the student's previous stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nas_kd.runtime.seeds import seed_for
from nas_kd.space import ElasticSpace
from nas_kd.space.paths import Entry, Path, entries, entry_width
from nas_kd.train.loop import StepInfo
from nas_kd.train.stages import Blockwise, StageFeatures


class MixedInputs:
    """Decides in which steps a stage gets the student's features, and computes them.

    A stage trained only on the teacher's features gets other ones in the assembled student. In a share of the steps
    its input therefore comes from a path of the previous stage, whose input is the teacher's feature or, in the same
    share of the steps, the student's. No gradient flows back through it: stages are still trained separately.

    Args:
        share: share of the steps, for each stage but the first.
        drawn: returns the paths of a stage in a step.

    Source: scheduled sampling (Bengio et al. 2015), section 2.4, here for stages instead of tokens.
    """

    def __init__(self, model: Blockwise, share: float, drawn: Callable[[StepInfo, int], list[Path]], seed: int) -> None:
        self.model = model
        self.share = share
        self.drawn = drawn
        self.seed = seed

    def chosen(self, info: StepInfo, index: int) -> bool:
        """Return whether a stage gets the student's features in this step."""
        if index == 0 or not self.share:
            return False
        rng = np.random.default_rng(seed_for(self.seed, "mix", index, info.epoch, info.step))
        return bool(rng.random() < self.share)

    @torch.no_grad()
    def entered(
        self, pairs: Sequence[StageFeatures], info: StepInfo, index: int, needed: Iterable[Entry]
    ) -> dict[Entry, Tensor]:
        """Compute the student's features that enter a stage; empty if it gets the teacher's.

        Args:
            pairs: the teacher's features of the step.
            index: of the stage.
            needed: the entries to compute.

        Returns:
            (B, width, H, W) of each entry.
        """
        if not self.chosen(info, index):
            return {}
        return {entry: self._student(pairs, info, index, entry) for entry in sorted(set(needed))}

    def _student(self, pairs: Sequence[StageFeatures], info: StepInfo, index: int, entry: Entry) -> Tensor:
        space = self.model.space
        before = index - 1
        path = ending(space, before, self.drawn(info, before)[0], entry_width(space, entry))
        given = self.entered(pairs, info, before, [path.entry])
        x = given[path.entry] if given else self.model.enter(before, pairs[before].inputs, path.entry)
        out: Tensor = self.model.stages[before](x, path.candidate)[0]
        return out


def ending(space: ElasticSpace, index: int, path: Path, width: int) -> Path:
    """Return a path with another output width.

    Args:
        index: of the stage.
        width: one of the stage's possible output widths.
    """
    if space.stages[index].keeps_width and entry_width(space, path.entry) != width:
        path = path._replace(entry=next(entry for entry in entries(space, index) if entry_width(space, entry) == width))
    return path._replace(candidate=replace(path.candidate, width=width))
