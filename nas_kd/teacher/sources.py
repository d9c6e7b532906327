"""Conversion of the argument ``teacher=`` of public functions into one `TargetSource`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.teacher.targets import TargetSource
from nas_kd.teacher.teacher import Teacher

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data

TeacherLike = TargetSource | Callable[["Batch"], Tensor] | Sequence["TeacherLike"] | None


class TeacherEnsemble(TargetSource):
    """The mean of the probabilities of several sources.

    The mean of the logits would be another target, the geometric mean of the probabilities.

    Args:
        sources: at least one; each gives (B, C) logits of the same classes.

    Raises:
        SettingError: there is no source.

    Source: Hinton et al. 2015, section 5; You et al. 2017, Learning from Multiple Teacher Networks.
    """

    def __init__(self, sources: Sequence[TargetSource]) -> None:
        if not sources:
            raise SettingError("teacher", list(sources), "at least one teacher", "pass a teacher")
        self.sources = tuple(sources)

    @property
    def fingerprint(self) -> str:
        return " + ".join(source.fingerprint for source in self.sources)

    @property
    def members(self) -> tuple[TargetSource, ...]:
        return self.sources

    def bind(self, data: Data, epochs: int = 0) -> TeacherEnsemble:
        for source in self.sources:
            source.bind(data, epochs)
        return self

    def live(self) -> TeacherEnsemble:
        return TeacherEnsemble([source.live() for source in self.sources])

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Return (B, C) log probabilities, which are logits too."""
        return _mean([source.logits(batch) for source in self.sources])

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        each = [source.split_logits(name, data) for source in self.sources]
        known = [logits for logits in each if logits is not None]
        return _mean(known) if len(known) == len(each) else None


def _mean(each: Sequence[Tensor]) -> Tensor:
    logs = [logits.float().log_softmax(1) for logits in each]
    return torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))


class Function(TargetSource):
    """A user's function from a batch to (B, C) logits, as a source."""

    def __init__(self, function: Callable[[Batch], Tensor]) -> None:
        self.function = function

    @property
    def fingerprint(self) -> str:
        return str(getattr(self.function, "fingerprint", getattr(self.function, "__qualname__", type(self).__name__)))

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        return self.function(batch)


def as_targets(teacher: TeacherLike) -> TargetSource | None:
    """Convert the argument ``teacher=`` of public functions.

    Args:
        teacher: a teacher, a list of teachers, any other TargetSource, a function from a batch to (B, C) logits,
            or None.

    Raises:
        SettingError: it is none of these.
    """
    if teacher is None or isinstance(teacher, TargetSource):
        return teacher
    if isinstance(teacher, list | tuple):
        each = [source for item in teacher if (source := as_targets(item)) is not None]
        return each[0] if len(each) == 1 else TeacherEnsemble(each)
    if isinstance(teacher, nn.Module):
        expected = "a sealed teacher, not a bare network"
        raise SettingError("teacher", type(teacher).__name__, expected, "pass nas_kd.load_teacher(network)")
    if callable(teacher):
        return Function(teacher)
    expected = "a Teacher, a list of them, a TargetSource or None"
    raise SettingError("teacher", type(teacher).__name__, expected, "use nas_kd.load_teacher")


def one_teacher(teacher: TeacherLike | Callable[[], Teacher], purpose: str) -> Teacher:
    """Return the single teacher needed by a function that uses its network.

    Args:
        teacher: a teacher, a source that runs one, or a function that returns one.
        purpose: what several teachers cannot be used for, for the error message.

    Raises:
        SettingError: it is none of these.
    """
    result: Any = teacher
    if not isinstance(teacher, TargetSource | nn.Module) and callable(teacher):
        result = cast(Callable[[], Teacher], teacher)()
    found = result.teacher if isinstance(result, TargetSource) else None
    if not isinstance(found, Teacher):
        expected = "one nas_kd Teacher, or a function that returns one"
        hint = f"nas_kd.load_teacher returns one; several teachers can retrain a student, not {purpose}"
        raise SettingError("teacher", type(result).__name__, expected, hint)
    return found
