"""Targets with features that are computed once for all trainings of a process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher.answers import data_key
from nas_kd.teacher.ask import CHUNK, CHUNK_CPU
from nas_kd.teacher.targets import TargetSource
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data


class StoredFeatures(TargetSource):
    """A teacher whose logits and features of every numbered view are kept in memory, in fp16.

    Trainings of one process that are given the same one share what it holds; with maps of other sizes it begins
    anew. A ResNet-56 beside a student of 16, 8 and 4 pixels takes 29 kB a view. Batches of other views than the
    data's are answered by the live teacher.

    Args:
        teacher: the teacher, bound to the data.
        data: the data set, with numbered views.

    Raises:
        SettingError: the data have no numbered views, or an answer is more than fp16 holds.
    """

    gives_features = True

    def __init__(self, teacher: Teacher, data: Data) -> None:
        self._teacher = teacher
        if data.train.views is None:
            raise SettingError("data.views", 0, "numbered views for stored features", "set data.views=8")
        self.data, self._views = data, len(data.train.views)
        self._known = torch.zeros(len(data.train) * self._views, dtype=torch.bool)
        self._kept: list[Tensor] = []  # one tensor (images x views, ...) for every tensor of an Output
        self._taps = teacher.taps

    @property
    def teacher(self) -> Teacher:
        return self._teacher

    @property
    def fingerprint(self) -> str:
        return self.teacher.fingerprint

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        return self.teacher.split_logits(name, data)

    def logits(self, batch: Batch) -> Tensor:
        return self.features(batch).logits

    def bind(self, data: Data, epochs: int = 0) -> StoredFeatures:
        """Check that what it holds is about a data set.

        Args:
            data: the data of a training.
            epochs: for sources that cannot compute what they lack.

        Returns:
            The source itself.

        Raises:
            SettingError: it was made for another data set, normalisation or set of views.
        """
        mine = data_key(data)
        own = data_key(self.data)
        if other := [name for name, value in own.items() if mine[name] != value]:
            legal = f"answers about these images; it was made with another {' and another '.join(other)}"
            raise SettingError("teacher", "StoredFeatures", legal, "make one for them: StoredFeatures(teacher, data)")
        self.teacher.bind(data)
        return self

    @torch.no_grad()
    def features(self, batch: Batch) -> Output:
        """Return logits and features in float32, on the device of the images."""
        if (batch.view < 0).any():
            return self.teacher.features(batch)
        if self.teacher.taps != self._taps:  # a student with maps of other sizes
            self._known.zero_()
            self._kept = []
            self._taps = self.teacher.taps
        at = batch.index * self._views + batch.view
        missing = ~self._known[at]
        if missing.any():
            self._store(batch.index[missing], batch.view[missing])
        flat = [kept[at].to(batch.x.device).float() for kept in self._kept]
        stages = len(flat) // 2 + 1
        return Output(flat[0], flat[2:stages], flat[stages:], flat[1])

    def _store(self, index: Tensor, view: Tensor) -> None:
        # always as many images at once, filled up with repeats, so that the bits do not depend on the batch
        size = CHUNK_CPU if self.teacher.device.type == "cpu" else CHUNK
        for some, shown in zip(index.split(size), view.split(size), strict=True):
            count = len(some)
            full = [torch.cat([part, part[:1].expand(size - count)]) for part in (some, shown)]
            with torch.autocast(self.teacher.device.type, enabled=False):
                out = self.teacher.features(self.data.train.shown(*full))
            at = some * self._views + shown
            parts = [out.logits, out.pooled, *out.stages, *out.pre]
            if not self._kept:
                room = len(self._known)
                self._kept = [torch.empty(room, *part.shape[1:], dtype=torch.float16) for part in parts]
            for kept, part in zip(self._kept, parts, strict=True):
                kept[at] = self._halved(part[:count])
            self._known[at] = True

    def _halved(self, part: Tensor) -> Tensor:
        largest = float(part.abs().max())
        limit = torch.finfo(torch.float16).max
        if not math.isfinite(largest) or largest > limit:
            legal = f"a network whose features are finite and at most {limit:g} (found {largest:g})"
            raise SettingError("teacher.model", self.teacher.name, legal, "give the live teacher instead")
        return part.to("cpu", torch.float16)
