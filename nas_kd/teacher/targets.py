"""The interface of everything that provides the targets of a training."""

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
from nas_kd.teacher.taps import Layer, Tap

if TYPE_CHECKING:
    from nas_kd.data import Batch, Data
    from nas_kd.runs.run import Run


class TargetSource(ABC):
    """Source of the targets of a batch: a teacher, its stored logits, several teachers, peers, the student itself.

    A subclass must define `logits`; everything else has a default.

    Attributes:
        gives_features: whether `features` works.
        shared: whether it is stored in files that worker processes can open without the teacher.
    """

    gives_features = False
    shared = False

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return (B, C) logits of a batch, without gradient unless `trained` learns from it."""

    def features(self, batch: Batch) -> Output:
        """Return logits and features of a batch; features larger than the student's are averaged to its size."""
        raise without_features(self)

    def split_logits(self, name: str, data: Data) -> Tensor | None:
        """Return (N, C) logits of a split without augmentation, on the CPU; None if they are not available."""
        return None

    @property
    def fingerprint(self) -> str:
        """A hash of what determines the targets, equal in every process; recorded in runs."""
        return type(self).__name__

    def bind(self, data: Data, epochs: int = 0) -> TargetSource:
        """Check that it fits a data set, before any computation.

        Args:
            epochs: number of epochs whose views must be stored if the source cannot compute targets.

        Raises:
            SettingError: it does not fit the data, or belongs to other data.
        """
        return self

    def cached(self, data: Data, run: Run | None, *, folder: str | Path | None = None, epochs: int = 0) -> TargetSource:
        """Return a source that computes each target of a numbered view once, for all trainings of a run; else itself.

        Args:
            run: where to store the targets; None stores nothing.
            folder: store them here instead, for several runs.
            epochs: epochs whose targets are computed now; the others on first use.
        """
        return self

    def prefill(self, data: Data, epochs: int, run: Run | None) -> None:  # noqa: B027  # optional
        """Compute the targets of this many epochs now, for worker processes, which can only read stored ones."""

    def live(self) -> TargetSource:
        """Return a source of targets for any image, such as mixed, unlabelled or generated ones.

        Raises:
            SettingError: it has only stored targets.
        """
        return self

    @property
    def teacher(self) -> LiveSource | None:
        """The teacher with its network, for methods that need the network or its input gradient."""
        return None

    @property
    def cost(self) -> Cost | None:
        """MACs and parameters of the one network that teaches, where they are known: what 100% of a budget is."""
        return None

    @property
    def members(self) -> Sequence[TargetSource]:
        """The sources that it averages, or itself alone."""
        return (self,)

    @property
    def trained(self) -> nn.Module | None:
        """The module to save in checkpoints, and to train if its parameters require gradients."""
        return None


class LiveSource(TargetSource):
    """A source that runs a sealed network on the images of every batch."""

    gives_features = True
    name: str
    num_classes: int | None = None

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The sealed network itself, without gradients."""

    @abstractmethod
    def __call__(self, x: Any) -> Tensor:
        """Map images (B, C, H, W), or texts, to logits (B, C), without gradient."""

    @abstractmethod
    def forward_stages(self, x: Any) -> Output:
        """Map images (B, C, H, W), or texts, to logits and features, without gradient."""

    def normalised(self, x: Any) -> Any:
        """Convert images of the data to the network's own normalisation and device."""
        return x

    def match(self, space: Any, resolution: int, names: Sequence[str] | None = None) -> list[Tap]:
        """Choose the features that teach the stages of a space, or of anything with ``stage_sizes``.

        Args:
            resolution: height and width of the images in pixels.
            names: the modules to choose, one a stage; None lets it choose.

        Returns:
            What was chosen; none where its features are fixed.
        """
        return []

    def blocks(self, resolution: int) -> list[Layer]:
        """Return the ends of its residual blocks in order; none where its features are fixed.

        Args:
            resolution: height and width of the images in pixels.
        """
        return []

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
    """Return the error of a feature method whose source has no features."""
    expected = "one live teacher, for a method on features"
    return SettingError("teacher", type(source).__name__, expected, "pass the teacher itself, not its cache")
