"""The protocol of everything that gives a training its targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output
from nas_kd.space.arch import Cost

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.runs.run import Run


class TargetSource(ABC):
    """Source of the targets of a batch: a teacher, its stored logits, several teachers, peers, the student itself.

    A subclass must define `logits`; everything else has a default.

    Attributes:
        gives_features: whether `features` works.
        shared: whether it is stored in files, which worker processes open without the teacher.
    """

    gives_features = False
    shared = False

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return (B, C) logits of a batch, without gradient unless `trained` learns from it."""

    def features(self, batch: Batch) -> Output:
        """Return logits and features of a batch, averaged to the size of the student's where they are larger."""
        raise without_features(self)

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        """Return (N, C) logits of the images of a split as they are, on the CPU; None where they are not available."""
        return None

    @property
    def fingerprint(self) -> str:
        """A hash of what determines the targets, the same in every process; runs record it."""
        return type(self).__name__

    def bind(self, data: Data, epochs: int = 0) -> TargetSource:
        """Check that it fits a data set, before any computation.

        Args:
            epochs: epochs whose numbered views a source that cannot compute targets must have.

        Raises:
            SettingError: it does not fit the data, or is about others.
        """
        return self

    def cached(self, data: Data, run: Run | None, *, folder: str | Path | None = None, epochs: int = 0) -> TargetSource:
        """Return what computes each target of a numbered view once, for all trainings of a run; else itself.

        Args:
            run: keeps the targets; None keeps nothing.
            folder: keeps them instead, for several runs.
            epochs: epochs whose targets are computed now; the others on first use.
        """
        return self

    def prefill(self, data: Data, epochs: int, run: Run | None) -> None:  # noqa: B027  # most have nothing to do
        """Compute the targets of this many epochs now, for worker processes, which can only read stored ones."""

    def live(self) -> TargetSource:
        """Return what gives the targets of any image: mixed, unlabelled or generated ones are in no store.

        Raises:
            SettingError: it has stored targets only.
        """
        return self

    @property
    def teacher(self) -> LiveSource | None:
        """The teacher that runs a network, for methods that look into it or need its gradient by its input."""
        return None

    @property
    def cost(self) -> Cost | None:
        """MACs and parameters of the one network that teaches, where they are known: what 100% of a budget is."""
        return None

    @property
    def members(self) -> Sequence[TargetSource]:
        """The sources it averages; itself where it is one."""
        return (self,)

    @property
    def trained(self) -> nn.Module | None:
        """The module to save in checkpoints, trained too where its parameters require gradients."""
        return None


class LiveSource(TargetSource):
    """A source that runs a sealed network on the images of every batch."""

    gives_features = True
    name: str
    num_classes: int | None = None

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The sealed network itself; no gradient goes into it."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, C), without gradient."""

    @abstractmethod
    def forward_stages(self, x: Tensor) -> Output:
        """Map images (B, C, H, W) to logits and features, without gradient."""

    def normalised(self, x: Tensor) -> Tensor:
        """Convert images of the data to the network's own normalisation and device."""
        return x

    def match(self, space: Any, resolution: int) -> object:
        """Choose the features that teach the stages of a space, or of anything with ``stage_sizes``."""

    @property
    def device(self) -> torch.device:
        """The device of its network."""
        return next(self.network.parameters(), torch.zeros(())).device

    def to(self, device: torch.device | str) -> LiveSource:
        """Move to a device."""
        self.network.to(device)
        return self

    def logits(self, batch: Batch) -> Tensor:
        return self(batch.x)

    def features(self, batch: Batch) -> Output:
        return self.forward_stages(batch.x)

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        return torch.cat([self(batch.x).float().cpu() for batch in getattr(data, name).clean(512)])

    @property
    def teacher(self) -> LiveSource:
        return self


def without_features(source: TargetSource) -> SettingError:
    """Make the error of a feature method whose source gives no features."""
    expected = "one live teacher for a method on features"
    return SettingError("teacher", type(source).__name__, expected, "pass the teacher itself, not its cache")
