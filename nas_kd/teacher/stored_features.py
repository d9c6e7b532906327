"""Stored features of a teacher for numbered views, computed once for all trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher.chunks import chunks, rounded
from nas_kd.teacher.store import Shapes, ViewStore, prepare, same_data, store_bytes, store_key
from nas_kd.teacher.taps import Tap
from nas_kd.teacher.targets import TargetSource
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data


class StoredFeatures(TargetSource):
    """A teacher whose logits and features of every numbered view are stored in fp16 on first use.

    Trainings with the same instance share its content; for maps of other sizes it starts empty. A ResNet-56 with a
    student of 16, 8 and 4 pixels takes 29 kB per view. For images without a view number the teacher runs live.

    Args:
        data: the data set, with numbered views.

    Raises:
        SettingError: the data have no numbered views, or a feature exceeds the range of fp16.
    """

    gives_features = True
    _hint = "pass the live teacher instead"

    def __init__(self, teacher: Teacher, data: Data) -> None:
        if data.train.views is None:
            raise SettingError("data.views", 0, "numbered views for stored features", "set data.views=8")
        self._teacher = teacher
        self.data = data
        self._views = len(data.train.views)
        self._store: ViewStore | None = None
        self._taps = teacher.taps

    @property
    def teacher(self) -> Teacher:
        return self._teacher

    @property
    def fingerprint(self) -> str:
        return self._teacher.fingerprint

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        return self._teacher.split_logits(name, data)

    def bind(self, data: Data, epochs: int = 0) -> StoredFeatures:
        """Check that the stored features belong to a data set.

        Raises:
            SettingError: they belong to another data set, normalisation or set of views.
        """
        if other := same_data(store_key(self._teacher, self.data), data):
            expected = f"features of these images; they were stored with {other}"
            hint = "create new ones: StoredFeatures(teacher, data)"
            raise SettingError("teacher", "StoredFeatures", expected, hint)
        self._teacher.bind(data)
        return self

    def logits(self, batch: Batch) -> Tensor:
        return self.features(batch).logits

    @torch.no_grad()
    def features(self, batch: Batch) -> Output:
        """Return logits and features in float32, on the device of the images."""
        if (batch.view < 0).any():
            return self._teacher.features(batch)
        if self._teacher.taps != self._taps:  # a student with maps of other sizes
            self._store = None
            self._taps = self._teacher.taps
        index = batch.index.numpy()
        view = batch.view.numpy()
        rows, missing = self._store.read(index, view) if self._store is not None else ([], np.ones(len(index), bool))
        if missing.any():
            which = torch.from_numpy(missing)
            store = self._compute(batch.index[which], batch.view[which])
            rows, _ = store.read(index, view)
        # + 0.0 turns the -0 of the store back into 0
        return self._output([torch.from_numpy(row).to(batch.x.device).float() + 0.0 for row in rows])

    def _compute(self, index: Tensor, view: Tensor) -> ViewStore:
        for some, views, batch in chunks(self._teacher, self.data, index, view):
            with torch.autocast(self._teacher.device.type, enabled=False):
                parts = self._parts(self._teacher.features(batch))
            rows = [rounded(part, np.float16, self._teacher, "features", self._hint)[: len(some)] for part in parts]
            if self._store is None:
                shapes = {f"feature_{number}": row.shape[1:] for number, row in enumerate(rows)}
                self._store = self._create(shapes)
            self._store.write(some.numpy(), views.numpy(), rows)
        assert self._store is not None  # at least one entry was computed
        return self._store

    def _create(self, shapes: Shapes) -> ViewStore:
        return ViewStore.in_memory(len(self.data.train), self._views, shapes)

    def _parts(self, out: Output) -> list[Tensor]:
        """Return the tensors of a forward pass to store."""
        return [out.logits, out.pooled, *out.stages, *out.pre]

    def _output(self, parts: list[Tensor]) -> Output:
        """Invert `_parts`."""
        stages = len(parts) // 2 + 1
        return Output(parts[0], parts[2:stages], parts[stages:], parts[1])


class StageFeatureFiles(StoredFeatures):
    """The features that blockwise training needs, in files that any number of processes can share.

    They are divided by powers of two before rounding, so that large and tiny ones keep eleven bits. Logits, the pooled
    feature and the last stage's output after its activation are left empty: no stage takes them as input.

    Args:
        teacher: the teacher, its taps chosen.
        root: folder of such files, with a sub-folder for this teacher, data and taps.
        scales: a power of two per tap, for its feature after and before the last activation.

    Raises:
        SettingError: the views are not numbered, or the disk is full.
    """

    _hint = "use blockwise.cache_gb=0"

    def __init__(
        self, teacher: Teacher, data: Data, root: Path, scales: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        super().__init__(teacher, data)
        self._root = root
        self._scales = [*list(scales[0])[:-1], *scales[1]]
        self._store = self._create(tap_shapes(teacher.taps or ()))

    def logits(self, batch: Batch) -> Tensor:
        return self._teacher.logits(batch)  # they are not stored

    def _create(self, shapes: Shapes) -> ViewStore:
        taps = [f"{tap.path} {tap.size}>{tap.student_size}" for tap in self._teacher.taps or ()]
        key = store_key(self._teacher, self.data, taps=taps, scales=self._scales)
        folder = prepare(self._root, key, len(self.data.train), self._views, shapes, "use blockwise.cache_gb=0")
        return ViewStore.open(folder, writable=True)

    def _parts(self, out: Output) -> list[Tensor]:
        parts = [*out.stages[:-1], *out.pre]
        return [part / scale for part, scale in zip(parts, self._scales, strict=True)]

    def _output(self, parts: list[Tensor]) -> Output:
        found = [part * scale for part, scale in zip(parts, self._scales, strict=True)]
        before = len(found) // 2
        last = found[-1]
        return Output(last.new_empty(0), [*found[:before], last], found[before:], last.new_empty(0))


def tap_shapes(taps: Sequence[Tap]) -> Shapes:
    """Return (C, H, W) after the last activation of each tap but the last, then before that of each tap."""
    whole = [(tap.channels, tap.compared, tap.compared) for tap in taps]
    return {f"feature_{number}": shape for number, shape in enumerate([*whole[:-1], *whole])}


def feature_bytes(taps: Sequence[Tap], images: int, views: int) -> int:
    """Return the size of `StageFeatureFiles` on disk: fp16, at the sizes that are compared."""
    return store_bytes(images, views, tap_shapes(taps))
