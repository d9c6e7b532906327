"""A teacher's answers where a run keeps them, for all its trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_kd.runs.log import timed
from nas_kd.runs.progress import Progress
from nas_kd.teacher.cache import ViewCache, cache_bytes
from nas_kd.teacher.store import store_key, store_path
from nas_kd.teacher.targets import LiveSource, TargetSource

if TYPE_CHECKING:
    from nas_kd.data import Data
    from nas_kd.runs.run import Run


def stored_answers(
    teacher: LiveSource, data: Data, run: Run | None, folder: str | Path | None, epochs: int
) -> TargetSource:
    """Return a cache of a teacher's logits of every numbered view, or the teacher itself where there can be none.

    Args:
        teacher: bound to the data.
        data: that it is asked about.
        run: the logits are stored in its ``teacher/cache``; None stores nothing, so the teacher runs live.
        folder: store them here instead, for several runs.
        epochs: epochs whose logits are computed now, for processes without the teacher; the others on first use.
    """
    if run is None:
        return teacher
    if data.train.views is None:
        run.log_message("the teacher runs live: this augmentation has no fixed views to cache")
        return teacher
    folder = Path(folder or run.path / "teacher" / "cache").expanduser()
    if not store_path(folder, store_key(teacher, data)).is_dir():
        size = f"{cache_bytes(data) / 1e6:,.1f} MB"
        count = data.spoken(f"{len(data.train):,} images")
        run.log_message(f"teacher logits: {len(data.train.views)} views of {count}, {size} in {folder}")
    todo = ViewCache.todo(folder, teacher, data, epochs)
    if not todo:
        return ViewCache.open(folder, teacher, data, epochs=epochs)
    with (
        timed(run, "teacher", "answers"),
        Progress("teacher logits", todo, unit=data.spoken("images"), run=run) as progress,
    ):
        return ViewCache.open(folder, teacher, data, epochs=epochs, progress=progress)
