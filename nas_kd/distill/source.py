"""Where targets come from: a teacher that is run, or a cache of what it said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output

if TYPE_CHECKING:
    from nas_kd.data import Batch

_log = logging.getLogger(__name__)


@runtime_checkable
class TargetSource(Protocol):
    """Anything that gives the targets of a batch."""

    def __call__(self, batch: Batch) -> Tensor | Output:
        """Return the (B, C) logits of the batch, or logits with features, without gradient."""


class LogitCache(Protocol):
    """Stored teacher logits, such as ``nas_kd.teacher.ViewCache``."""

    def logits(self, batch: Batch) -> Tensor | None:
        """Return (B, C) logits on any device, or None when the batch shows views that are not stored."""


class LiveTeacher:
    """Runs the teacher on every batch.

    Args:
        teacher: gives (B, C) logits for (B, C, H, W) images; with ``features`` it needs
            ``forward_stages(x) -> Output``.
        features: whether the targets carry features.
    """

    def __init__(self, teacher: Callable[[Tensor], Tensor], features: bool = False) -> None:
        self.teacher, self.features = teacher, features
        self._forward: Any = teacher.forward_stages if features else teacher  # type: ignore[attr-defined]

    @property
    def fingerprint(self) -> str:
        """The teacher's own fingerprint, else its type's name."""
        return str(getattr(self.teacher, "fingerprint", type(self.teacher).__name__))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor | Output:
        return self._forward(batch.x)


class CachedTeacher:
    """Reads logits from a cache and runs the teacher where the cache cannot serve, which it says once.

    Args:
        cache: the stored logits.
        teacher: what runs instead, (B, C, H, W) to (B, C); default ``cache.teacher`` where there is one.
    """

    def __init__(self, cache: LogitCache, teacher: Callable[[Tensor], Tensor] | None = None) -> None:
        self.cache = cache
        self.teacher = getattr(cache, "teacher", None) if teacher is None else teacher
        self._told = False

    @property
    def fingerprint(self) -> str:
        """The cache's own fingerprint, else the teacher's, else the cache's type."""
        named = self.cache if hasattr(self.cache, "fingerprint") else self.teacher
        return str(getattr(named, "fingerprint", type(self.cache).__name__))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return (B, C) logits on the batch's device.

        Raises:
            SettingError: the batch is not in the cache and there is no teacher to run.
        """
        found = self.cache.logits(batch)
        if found is not None:
            return found.to(batch.x.device, non_blocking=True)
        if self.teacher is None:
            legal = "crop and flip out of the cached views"
            raise SettingError("data.augment", "other views", legal, "give CachedTeacher a teacher")
        if not self._told:
            _log.warning("the teacher's cache cannot serve this augmentation: the teacher runs live instead")
            self._told = True
        return self.teacher(batch.x)
