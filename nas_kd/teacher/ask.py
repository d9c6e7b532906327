"""A teacher's answers about views and splits as arrays, the same bits whenever they are asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.teacher.targets import LiveSource

if TYPE_CHECKING:
    from nas_kd.data import Data, Split
    from nas_kd.runs.progress import Progress

Kind = type[np.floating[Any]]

# The teacher always runs on so many images at once, filled up with repeats: libraries choose their kernels by
# the size of a batch, and with them the last bits. So an answer is the same bits in whatever batch of whatever
# training it was first needed, and a training that is resumed, or comes second, ends as if it had gone alone.
CHUNK = 128
CHUNK_CPU = 32


def ask(teacher: LiveSource, x: Tensor, kind: Kind) -> NDArray[Any]:
    """Run a teacher in its own precision, whatever a training's is.

    Args:
        teacher: the teacher.
        x: (B, C, H, W) images.
        kind: numpy's type of the answers.

    Returns:
        (B, C) logits.

    Raises:
        SettingError: a logit is not finite, or more than the type holds.
    """
    with torch.autocast(teacher.device.type, enabled=False):
        logits = teacher(x).float().cpu()
    largest = float(logits.abs().max())
    limit = float(np.finfo(kind).max)
    if not math.isfinite(largest) or largest > limit:
        legal = f"a network whose logits are finite and at most {limit:g} (found {largest:g})"
        mend = "check the teacher's checkpoint and its normalisation (teacher.mean, teacher.std)"
        raise SettingError("teacher.model", teacher.name, legal, mend)
    return logits.numpy().astype(kind)


def ask_views(teacher: LiveSource, data: Data, index: Tensor, view: Tensor, kind: Kind) -> NDArray[Any]:
    """Ask about training images in given views.

    Args:
        teacher: the teacher.
        data: the data set.
        index: (M,) image numbers, M at least 1.
        view: (M,) view numbers.
        kind: numpy's type of the answers.

    Returns:
        (M, C) logits.

    Raises:
        SettingError: see `ask`.
    """
    size = CHUNK_CPU if teacher.device.type == "cpu" else CHUNK
    count = len(index)
    index, view = (torch.cat([part, part[:1].expand(-count % size)]) for part in (index, view))
    chunks = zip(index.split(size), view.split(size), strict=True)
    return np.concatenate([ask(teacher, data.train.shown(*chunk).x, kind) for chunk in chunks])[:count]


def ask_split(teacher: LiveSource, split: Split, progress: Progress | None) -> NDArray[np.float32]:
    """Ask about all images of a split, unchanged and in order.

    Args:
        teacher: the teacher.
        split: the split, perhaps empty.
        progress: advanced by every batch.

    Returns:
        (N, C) logits.
    """
    rows = [np.zeros((0, teacher.num_classes or 0), np.float32)]
    for batch in split.clean(256) if len(split) else ():
        rows.append(ask(teacher, batch.x, np.float32))
        if progress is not None:
            progress.advance(len(batch.x))
    return np.concatenate(rows)


def compare(path: Path, stored: Tensor, answers: NDArray[np.float32]) -> None:
    """Refuse stored answers that are not what the teacher says now.

    Args:
        path: the file they are from.
        stored: (B, C) its answers.
        answers: (B, C) the teacher's.

    Raises:
        SettingError: they differ by more than fp16 and another machine's kernels can make.
    """
    live = torch.from_numpy(answers)
    # fp16 keeps 11 bits; the rest is the difference between batch sizes, threads and devices
    allowed = live.abs() * 2.0**-10 + live.abs().max() * 1e-3
    if not bool(((live - stored).abs() <= allowed).all()):
        mend = f"delete {path.parent}: it is then computed again"
        raise SettingError("teacher cache", str(path), "what the teacher computes now", mend)
