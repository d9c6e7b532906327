"""Checks of everything that teaches a training, before its first epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_kd.teacher.cache import ViewCache
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Data


def bind_all(teacher: object, data: Data, epochs: int = 0) -> None:
    """Bind teachers and caches to a data set.

    Args:
        teacher: a teacher, a cache, a list of these and of other sources, or None.
        data: the data of a training.
        epochs: epochs of which a cache that has no teacher must hold the answers.

    Raises:
        SettingError: a teacher does not fit the data, or a cache is about others or lacks answers.
    """
    for item in teacher if isinstance(teacher, list | tuple) else [teacher]:
        if isinstance(item, Teacher):
            item.bind(data)
        elif isinstance(item, ViewCache) or hasattr(item, "bind"):
            item.bind(data, epochs)
