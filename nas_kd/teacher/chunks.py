"""Forward passes of a teacher whose results are stored: bitwise the same whenever they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.teacher.targets import LiveSource

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data, Split
    from nas_kd.runs.progress import Progress

Kind = type[np.floating[Any]]

# The teacher always runs on batches of this size, padded with repeats: libraries choose kernels by the batch size,
# and kernels differ in the last bits. A result is then the same whichever batch of whichever training needed it
# first, so that a resumed or a second training gives the result of an uninterrupted one.
CHUNK = 128
CHUNK_CPU = 32


def chunks(teacher: LiveSource, data: Data, index: Tensor, view: Tensor) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Yield image and view numbers (K,), and a batch of fixed size: these images, padded with repeats."""
    size = CHUNK_CPU if teacher.device.type == "cpu" else CHUNK
    for some, views in zip(index.split(size), view.split(size), strict=True):
        full = (torch.cat([part, part[:1].expand(size - len(part))]) for part in (some, views))
        yield some, views, data.train.shown(*full)


def rounded(x: Tensor, kind: Kind, teacher: LiveSource, what: str, hint: str) -> NDArray[Any]:
    """Convert a teacher's output to a numpy type on the CPU.

    Raises:
        SettingError: a value is not finite or exceeds the range of the type.
    """
    largest = float(x.abs().max())
    limit = float(np.finfo(kind).max)
    if not math.isfinite(largest) or largest > limit:
        expected = f"a network whose {what} are finite and at most {limit:g} (found {largest:g})"
        raise SettingError("teacher.model", teacher.name, expected, hint)
    return x.float().cpu().numpy().astype(kind)


def image_logits(teacher: LiveSource, x: Any, kind: Kind) -> NDArray[Any]:
    """Compute (B, C) logits of images (B, C, H, W) in the teacher's own precision, not that of the training."""
    with torch.autocast(teacher.device.type, enabled=False):
        logits = teacher(x)
    hint = "check the teacher's checkpoint and its normalisation (teacher.mean, teacher.std)"
    return rounded(logits, kind, teacher, "logits", hint)


def view_logits(teacher: LiveSource, data: Data, index: Tensor, view: Tensor, kind: Kind) -> NDArray[Any]:
    """Compute (M, C) logits of training images (M,) in views (M,), M at least 1."""
    parts = chunks(teacher, data, index, view)
    return np.concatenate([image_logits(teacher, batch.x, kind)[: len(some)] for some, _, batch in parts])


def split_logits(teacher: LiveSource, split: Split, progress: Progress | None) -> NDArray[np.float32]:
    """Compute the (N, C) logits of all images of a split, unchanged and in order."""
    rows = [np.zeros((0, teacher.num_classes or 0), np.float32)]
    for batch in split.clean(256) if len(split) else ():
        rows.append(image_logits(teacher, batch.x, np.float32))
        if progress is not None:
            progress.advance(len(batch.y))
    return np.concatenate(rows)


def check_equal(path: Path, stored: NDArray[np.float32], live: NDArray[np.float32]) -> None:
    """Check that stored logits are those that the teacher computes now.

    Raises:
        SettingError: they differ by more than fp16 and the kernels of another machine explain.
    """
    # fp16 keeps 11 bits; the rest is the difference between batch sizes, threads and devices
    allowed = np.abs(live) * 2.0**-10 + np.abs(live).max() * 1e-3
    if not bool((np.abs(live - stored) <= allowed).all()):
        hint = f"delete {path.parent}: it will be computed again"
        raise SettingError("teacher cache", str(path), "the logits that the teacher computes now", hint)
