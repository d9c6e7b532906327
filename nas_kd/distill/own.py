"""Targets from the student itself: its moving average, another image of the class, another view."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_kd.data import Batch
from nas_kd.distill.sampling import PairedBatch
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.output import Output
from nas_kd.teacher.targets import LiveSource, TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.distill.pair import Pair


def _other(batch: Batch | PairedBatch, who: str) -> Tensor:
    if not isinstance(batch, PairedBatch):
        raise SettingError("method", who, "batches of image pairs", "use the method's own sampler")
    return batch.other


class MeanTeacher(nn.Module, TargetSource):
    """The exponential moving average of the student's weights and statistics, on the other view.

    It is updated before every batch's logits, so that it includes all steps taken so far.

    Args:
        decay: decay of the average per step, 0 <= decay < 1.
        ramp: whether the first steps have a smaller decay: min(decay, t / (t + 1)) in step t from 0, so that the
            average starts as the student.

    Raises:
        SettingError: decay is out of range.

    Source: Tarvainen and Valpola, arXiv 1703.01780, section 2; statistics are averaged like weights.
    """

    def __init__(self, pair: Pair, decay: float = 0.999, ramp: bool = True) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise SettingError("mean_teacher.decay", decay, "0 or more and below 1")
        self.decay = decay
        self.ramp = ramp
        self.network = deepcopy(pair.model).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._student = (pair.model,)  # a tuple keeps it out of this module's parameters
        self._dtype = next(pair.model.parameters()).dtype

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the student by one step."""
        assert isinstance(self.steps, Tensor)
        kept = torch.full((), self.decay, device=self.steps.device, dtype=self._dtype)
        if self.ramp:
            kept = torch.minimum(kept, self.steps.to(self._dtype) / (self.steps + 1))
        student = self._student[0].state_dict()
        for name, mean in self.network.state_dict().items():
            now = student[name]
            mean.copy_(torch.lerp(now, mean, kept.to(mean.dtype)) if mean.is_floating_point() else now)
        self.steps += 1

    @property
    def trained(self) -> nn.Module:
        return self

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Return the (B, C) logits of the average on the other view, in eval mode."""
        self.update()
        logits: Tensor = self.network.eval()(_other(batch, "mean_teacher"))
        return logits


class SelfTargets(TargetSource):
    """The student's own output on the paired images; its running statistics see these images too.

    Args:
        learns: whether gradients flow through these targets too.
    """

    gives_features = True

    def __init__(self, pair: Pair, learns: bool = False) -> None:
        self._pair = pair
        self.learns = learns

    @staticmethod
    def fixed(pair: Pair) -> SelfTargets:
        """Return targets without gradient, as in CS-KD."""
        return SelfTargets(pair)

    @staticmethod
    def learning(pair: Pair) -> SelfTargets:
        """Return targets with gradient, as in DDGSD."""
        return SelfTargets(pair, learns=True)

    def logits(self, batch: Batch) -> Tensor:
        with torch.set_grad_enabled(self.learns):
            logits: Tensor = self._pair.model(_other(batch, "the student as its own teacher"))
        return logits

    def features(self, batch: Batch) -> Output:
        with torch.set_grad_enabled(self.learns):
            return self._pair.forward(_other(batch, "the student as its own teacher"))


class Privileged(TargetSource):
    """A source that sees different images than the student: generalised distillation.

    Args:
        source: where targets come from.
        view: from a batch to the teacher's images (B, ...); default: the paired images.

    Raises:
        SettingError: there is no source.

    Source: Lopez-Paz et al., Unifying distillation and privileged information, arXiv 1511.03643, section 4.
    """

    def __init__(self, source: TargetSource | None, view: Callable[[Batch], Tensor] | None = None) -> None:
        if source is None:
            raise SettingError("teacher", None, "a teacher for privileged inputs", "pass teacher=")
        self.source = source
        self.view = view

    @staticmethod
    def of(pair: Pair, view: Callable[[Batch], Tensor] | None = None) -> Privileged:
        """Wrap the user's teacher so that it sees the paired images, or a view of the batch."""
        return Privileged(pair.source, view)

    @property
    def teacher(self) -> LiveSource | None:
        return self.source.teacher

    @property
    def fingerprint(self) -> str:
        return f"privileged {self.source.fingerprint}"

    def bind(self, data: Data, epochs: int = 0) -> Privileged:
        self.source.bind(data, epochs)
        return self

    def logits(self, batch: Batch) -> Tensor:
        """Return the source's logits of the other images, which are not cached."""
        if self.view is None:
            x = _other(batch, "privileged")
        else:  # a copy, which the user's function may change in place
            x = self.view(batch._replace(x=inputs.copied(batch.x)))
        if not isinstance(x, Tensor) or len(x) != len(batch.x):
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise SettingError("privileged.view", shape, f"a function that returns {len(batch.x)} images, a batch")
        return self.source.logits(Batch(x, batch.y, batch.index, torch.full_like(batch.view, -1)))
