"""Stored teacher logits of the held-out splits: one file per split, written atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_kd.config.reading import check_file, memory
from nas_kd.errors import SettingError
from nas_kd.runs.files import atomic_write
from nas_kd.teacher.chunks import check_equal, image_logits, split_logits
from nas_kd.teacher.store import undamaged
from nas_kd.teacher.targets import LiveSource

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.runs.progress import Progress

HELD_OUT = ("rate", "select", "test")
PROBE = 64  # images recomputed at every start


class HeldOut:
    """Logits (N, C) of each split, in fp32 and in its order."""

    def __init__(self, folder: Path, source: tuple[LiveSource, Data] | None) -> None:
        self.folder = folder
        self._source = source
        self._read: dict[str, Tensor] = {}

    def logits(self, name: str) -> Tensor:
        """Read the logits of a split; missing ones are computed and stored.

        Raises:
            SettingError: the split is unknown, or it is not stored and there is no teacher.
        """
        if name not in HELD_OUT:
            raise SettingError("split", name, ", ".join(HELD_OUT))
        if name not in self._read:
            self.fill(name)
            path = self.folder / f"{name}.npy"
            check_file(path, memory(), hint=f"delete {self.folder}: it will be computed again")
            with undamaged(path):
                self._read[name] = torch.from_numpy(np.load(path))
        return self._read[name]

    def fill(self, name: str, progress: Progress | None = None) -> None:
        """Compute and store the logits of a split if they are missing."""
        path = self.folder / f"{name}.npy"
        if path.is_file():
            return
        if self._source is None:
            hint = f"call split_logits({name!r}) once in a process that has the teacher"
            raise SettingError("split", name, "a split with stored logits", hint)
        teacher, data = self._source
        buffer = io.BytesIO()
        np.save(buffer, split_logits(teacher, getattr(data, name), progress))
        atomic_write(path, buffer.getbuffer())

    def check(self, teacher: LiveSource, data: Data) -> None:
        """Recompute a few stored logits and compare them."""
        path = self.folder / "rate.npy"
        if path.is_file() and len(data.rate):
            batch = next(iter(data.rate.clean(PROBE)))
            stored = self.logits("rate")[: len(batch.y)].numpy()
            check_equal(path, stored, image_logits(teacher, batch.x, np.float32))
