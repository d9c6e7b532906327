"""The interface of every search space, for any kind of network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nas_kd.space.arch import Arch, Cost

if TYPE_CHECKING:
    from torch import nn


class Space(ABC):
    """All architectures to choose from."""

    name: str

    @property
    @abstractmethod
    def hash(self) -> str:
        """Twelve hexadecimal digits that change whenever the choices change."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Exact number of different architectures."""

    @abstractmethod
    def sample(self, seed: int) -> Arch:
        """Draw one architecture; the same seed gives the same one."""

    @abstractmethod
    def validate(self, arch: Arch) -> None:
        """Raise SettingError unless the arch is in this space."""

    @abstractmethod
    def build(self, arch: Arch, num_classes: int, in_chans: int = 3) -> nn.Module:
        """Build a static network with new weights."""

    @abstractmethod
    def cost(self, arch: Arch, *, resolution: int | None = None, in_chans: int = 3, num_classes: int) -> Cost:
        """Count MACs and parameters."""

    @abstractmethod
    def __iter__(self) -> Iterator[Arch]:
        """Iterate over every architecture in canonical order."""
