"""Where targets come from: a teacher that is run, or a cache of what it said."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.teacher.taps import pool_to

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data

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
        self.teacher = teacher
        self.features = features
        self._forward: Any = teacher.forward_stages if features else teacher  # type: ignore[attr-defined]

    @property
    def fingerprint(self) -> str:
        """The teacher's own fingerprint, else its type's name."""
        return str(getattr(self.teacher, "fingerprint", type(self.teacher).__name__))

    def bind(self, data: Data, epochs: int = 0) -> LiveTeacher:
        """Check that the teacher fits a data set; ``epochs`` is for sources that store answers."""
        if hasattr(self.teacher, "bind"):
            self.teacher.bind(data)
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor | Output:
        out: Tensor | Output = self._forward(batch.x)
        taps = getattr(self.teacher, "taps", None) if self.features else None
        if taps is None or not isinstance(out, Output):
            return out
        sizes = [tap.student_size for tap in taps]  # where the teacher's map is larger, it is averaged
        stages, pre = ([pool_to(x, n) for x, n in zip(xs, sizes, strict=True)] for xs in (out.stages, out.pre))
        return out._replace(stages=stages, pre=pre)


class CachedTeacher:
    """Reads logits from a cache and runs the teacher where the cache cannot serve, which it says once.

    Args:
        cache: the stored logits.
        teacher: what runs instead, (B, C, H, W) to (B, C); default ``cache.teacher`` where there is one.

    Raises:
        SettingError: the cache holds the answers of another teacher.
    """

    def __init__(self, cache: LogitCache, teacher: Callable[[Tensor], Tensor] | None = None) -> None:
        stored, live = (getattr(item, "fingerprint", None) for item in (cache, teacher))
        if stored is not None and live is not None and stored != live:
            legal = "the teacher whose answers the cache holds"
            raise SettingError("teacher", getattr(teacher, "name", live), legal, "open a cache with this teacher")
        self.cache = cache
        self.teacher = getattr(cache, "teacher", None) if teacher is None else teacher
        self._told = False

    @property
    def fingerprint(self) -> str:
        """The cache's own fingerprint, else the teacher's, else the cache's type."""
        named = self.cache if hasattr(self.cache, "fingerprint") else self.teacher
        return str(getattr(named, "fingerprint", type(self.cache).__name__))

    def bind(self, data: Data, epochs: int = 0) -> CachedTeacher:
        """Check that the cache is about a data set and holds the answers of so many epochs."""
        if hasattr(self.cache, "bind"):
            self.cache.bind(data, epochs)
        return self

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


class TeacherEnsemble:
    """Several sources as one: its probabilities are the mean of theirs.

    The mean of logits would be another target, the geometric mean of the probabilities.

    Args:
        sources: at least one; each gives (B, C) logits of the same classes.

    Raises:
        SettingError: there is no source.

    Source:
        Hinton et al. 2015, section 5; You et al. 2017, Learning from Multiple Teacher Networks.
    """

    def __init__(self, sources: Sequence[TargetSource]) -> None:
        if not sources:
            raise SettingError("teacher", list(sources), "at least one teacher", "pass a teacher")
        self.sources = list(sources)

    @property
    def fingerprint(self) -> str:
        """The fingerprints of all sources."""
        return " + ".join(str(getattr(source, "fingerprint", type(source).__name__)) for source in self.sources)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return (B, C) log probabilities, which are logits too."""
        logs = []
        for source in self.sources:
            found = source(batch)
            logits = found.logits if isinstance(found, Output) else found
            logs.append(logits.float().log_softmax(1))
        return torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))


def target_source(teacher: object, *, features: bool = False) -> TargetSource | None:
    """Turn what users pass as ``teacher=`` into a source of targets.

    Args:
        teacher: a teacher, a cache of its views, a list of these, any other TargetSource, or None.
        features: whether the targets must carry features, which a live teacher alone gives.

    Returns:
        The source, or None for None.

    Raises:
        SettingError: it is none of these, or features are wanted of something that gives logits only.
    """
    if teacher is None:
        return None
    if isinstance(teacher, LiveTeacher):
        if type(teacher) is not LiveTeacher:  # it keeps answers, which carry features
            return teacher
        teacher = teacher.teacher
    live = hasattr(teacher, "forward_stages")
    if features and not live:
        legal = "one live teacher for a method on features"
        raise SettingError("teacher", type(teacher).__name__, legal, "pass the teacher itself, not its cache")
    if isinstance(teacher, list | tuple):
        return TeacherEnsemble([source for item in teacher if (source := target_source(item)) is not None])
    if live:
        return LiveTeacher(teacher, features)  # type: ignore[arg-type]
    if hasattr(teacher, "logits"):
        return CachedTeacher(teacher)
    if isinstance(teacher, nn.Module) and not hasattr(teacher, "sources"):  # an ensemble that learns is both
        legal = "a sealed teacher, and no bare network"
        raise SettingError("teacher", type(teacher).__name__, legal, "pass nas_kd.load_teacher(network)")
    if callable(teacher):
        return teacher
    legal = "a Teacher, a ViewCache, a list of them, a TargetSource or None"
    raise SettingError("teacher", type(teacher).__name__, legal, "use nas_kd.load_teacher")
