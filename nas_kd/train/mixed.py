"""Mixed inputs of blockwise training: in some steps a stage gets what the student's own stages before it give."""

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
    """Decides in which steps a stage is given the student's features, and computes them.

    A stage that only ever sees the teacher's features meets others once the student is put together. In a share of
    the steps its input comes from a path of the stage before it, which in turn has the teacher's feature or, in the
    same share of the steps, the student's. No gradient goes back through it: stages learn apart still, but one after
    another's weights.

    Args:
        model: the stages.
        share: share of the steps, for each stage but the first.
        drawn: gives the paths that a stage has in a step.
        seed: seed of the draws.

    Source: scheduled mixing of teacher's and student's inputs against the shift between training and test: Bengio et
    al. 2015, section 2.4, for blocks instead of tokens.
    """

    def __init__(self, model: Blockwise, share: float, drawn: Callable[[StepInfo, int], list[Path]], seed: int) -> None:
        self.model = model
        self.share = share
        self.drawn = drawn
        self.seed = seed

    def chosen(self, info: StepInfo, index: int) -> bool:
        """Say whether a stage gets the student's features in this step."""
        if index == 0 or not self.share:
            return False
        rng = np.random.default_rng(seed_for(self.seed, "mix", index, info.epoch, info.step))
        return bool(rng.random() < self.share)

    @torch.no_grad()
    def entered(
        self, pairs: Sequence[StageFeatures], info: StepInfo, index: int, ways: Iterable[Entry]
    ) -> dict[Entry, Tensor]:
        """Compute the student's features that enter a stage; none where it gets the teacher's.

        Args:
            pairs: the teacher's features of the step.
            info: the step.
            index: which stage.
            ways: the entries that are needed.

        Returns:
            (B, width, H, W) of each entry.
        """
        if not self.chosen(info, index):
            return {}
        return {way: self._student(pairs, info, index, way) for way in sorted(set(ways))}

    def _student(self, pairs: Sequence[StageFeatures], info: StepInfo, index: int, way: Entry) -> Tensor:
        space = self.model.space
        before = index - 1
        path = ending(space, before, self.drawn(info, before)[0], entry_width(space, way))
        given = self.entered(pairs, info, before, [path.entry])
        x = given[path.entry] if given else self.model.enter(before, pairs[before].inputs, path.entry)
        out: Tensor = self.model.stages[before](x, path.candidate)[0]
        return out


def ending(space: ElasticSpace, index: int, path: Path, width: int) -> Path:
    """Return a path that gives some channels to the next stage, with the layers of another path.

    Args:
        index: which stage.
        path: the other path.
        width: channels; one of the widths that the stage can give.
    """
    if space.stages[index].keeps_width and entry_width(space, path.entry) != width:
        path = path._replace(entry=next(way for way in entries(space, index) if entry_width(space, way) == width))
    return path._replace(candidate=replace(path.candidate, width=width))
