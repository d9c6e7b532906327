"""A space of stages whose networks can share the weights of one supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_kd.config.kinds import checked
from nas_kd.space import members
from nas_kd.space.arch import Arch, Candidate, Cost, Layer
from nas_kd.space.base import Space
from nas_kd.space.chain import Chain
from nas_kd.space.codes import CostTables, costs, decode, encode
from nas_kd.space.count import count_layers

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.nn.static import StaticNet


@dataclass(frozen=True)
class ElasticSpace(Chain, Space):
    """A search space defined by its stem, stages and head.

    Args:
        resolution: default height and width of the input in pixels.
        resolutions: input sizes to choose from, ascending, if the space chooses them too; includes ``resolution``.
    """

    @property
    def supernet_class(self) -> type[Any] | None:
        """The class that `nas_kd.Supernet` instantiates for it; None is `nas_kd.Supernet` itself."""
        return None

    @property
    def parts(self) -> str:
        """What its archs are made of, in a few words."""
        return f"{len(self.stages)} stages ({', '.join(str(stage.size) for stage in self.stages)} candidates)"

    @property
    def details(self) -> list[str]:
        """More about each part, a line each, where there is more to say."""
        return []

    @property
    def pretrained(self) -> bool:
        """Whether its networks begin with the weights of a trained teacher."""
        return False

    @property
    def smaller_hint(self) -> str:
        """How to get smaller archs than the smallest, to end a sentence; empty where that is not possible."""
        return ""

    def simple_archs(self, fits: Callable[[Cost], bool], cost: Mapping[str, int]) -> dict[str, Arch]:
        """Return what one would choose by hand within a budget, by name: a search begins there too, and must beat it.

        Args:
            fits: whether a cost is within the budget.
            cost: what `cost` needs besides an arch.
        """
        return {}

    @cached_property
    def size(self) -> int:
        """Exact number of different architectures."""
        return members.number(self)

    def describe(self) -> dict[str, Any]:
        """Return the description as JSON types (``space.json`` of a run)."""
        return {
            "name": self.name,
            "hash": self.hash,
            "size": self.size,
            "resolution": self.resolution,
            "resolutions": list(self.resolutions),
            "stem": self.stem.described(),
            "stages": [stage.described() for stage in self.stages],
            "head": self.head.described(),
            "drawing": {
                "stem": self.stem.drawing(),
                "stages": [stage.drawing() for stage in self.stages],
                "head": self.head.drawing(),
            },
        }

    # ---- architectures -------------------------------------------------------------------------------

    def arch(
        self,
        stages: Sequence[Candidate],
        *,
        stem: Layer | None = None,
        head: Layer | None = None,
        resolution: int | None = None,
    ) -> Arch:
        """Build and validate an arch of this space from one candidate per stage.

        Args:
            stem: setting of the stem; None is the largest.
            head: setting of the head; None is the largest.
            resolution: input size where the space chooses it; None is its default.

        Raises:
            SettingError: a setting is not offered.
        """
        stem = self.stem.largest() if stem is None else stem
        head = self.head.largest() if head is None else head
        if resolution is None and self.resolutions:
            resolution = self.resolution
        arch = Arch(self.hash, tuple(stages), resolution, stem, head)
        self.validate(arch)
        return arch

    def largest(self) -> Arch:
        """Return the arch with the largest value of every choice."""
        stages = tuple(stage.largest() for stage in self.stages)
        size = self.resolutions[-1] if self.resolutions else None
        return Arch(self.hash, stages, size, self.stem.largest(), self.head.largest())

    def smallest(self) -> Arch:
        """Return the arch with the smallest value of every choice."""
        stages = tuple(stage.smallest() for stage in self.stages)
        size = self.resolutions[0] if self.resolutions else None
        return Arch(self.hash, stages, size, self.stem.smallest(), self.head.smallest())

    @checked
    def sample(self, seed: int) -> Arch:
        """Draw every dimension uniformly and independently; the same seed gives the same arch."""
        return members.draw(self, seed)

    def __iter__(self) -> Iterator[Arch]:
        return members.everything(self)

    @checked
    def validate(self, arch: Arch) -> None:
        """Check that an arch is in this space.

        Raises:
            SettingError: it belongs to another space, or one of its settings is not offered.
        """
        members.check(self, arch)

    # ---- networks ------------------------------------------------------------------------------------

    def layers(self, arch: Arch, num_classes: int, in_chans: int = 3) -> list[dict[str, Any]]:
        """Resolve an arch to one dictionary per layer, with its ``stage`` (None for stem and head): ``arch.json``."""
        self.validate(arch)
        resolved = [self.stem.resolve(arch.stem, in_chans) | {"stage": None}]
        width = self.stem.width_of(arch.stem)
        for index, (stage, candidate) in enumerate(zip(self.stages, arch.stages, strict=True)):
            resolved += [layer | {"stage": index} for layer in stage.resolve(candidate, width)]
            width = candidate.width
        return [*resolved, self.head.resolve(arch.head, width, num_classes) | {"stage": None}]

    @checked
    def build(self, arch: Arch, num_classes: int, in_chans: int = 3) -> StaticNet:
        """Build a static network with new weights."""
        from nas_kd.nn.static import StaticNet  # late: spaces are looked up without torch

        return StaticNet(self.layers(arch, num_classes, in_chans), self.kinds)

    # ---- cost ----------------------------------------------------------------------------------------

    @checked
    def cost(self, arch: Arch, *, resolution: int | None = None, in_chans: int = 3, num_classes: int) -> Cost:
        """Count an arch in closed form; ``resolution`` (pixels) defaults to the arch's own, else the space's."""
        if resolution is None:
            resolution = arch.resolution or self.resolution
        self.check_resolution(resolution)
        return count_layers(self.layers(arch, num_classes, in_chans), resolution, self.kinds)

    @checked
    def encode(self, archs: Sequence[Arch]) -> np.ndarray:
        """Encode archs as integers.

        Returns:
            (N, D) array: for each stage the index of its candidate in ``candidates()``, then the indices of the
            other elastic choices: stem, head, resolution.
        """
        return encode(self, archs)

    def decode(self, codes: np.ndarray) -> list[Arch]:
        """Invert ``encode``: (N, D) integers to archs."""
        return decode(self, codes)

    @checked
    def costs(
        self, codes: np.ndarray, *, resolution: int | None = None, in_chans: int = 3, num_classes: int
    ) -> pd.DataFrame:
        """Count many archs at once through one look-up table per stage.

        Args:
            codes: (N, D) integers of ``encode``.
            resolution: height of the input in pixels; None uses the archs' own, else the space's.

        Returns:
            A frame with the columns macs and params, one row per code.
        """

        def tables(size: int) -> CostTables:
            return self.cost_tables(size, in_chans, num_classes)

        return costs(self, codes, tables, resolution)

    def cost_tables(self, resolution: int, in_chans: int, num_classes: int) -> CostTables:
        """Return the look-up tables of ``costs`` for one input, computed once."""
        key = (resolution, in_chans, num_classes)
        if key not in self._tables:
            self.check_resolution(resolution)
            self._tables[key] = CostTables(self, resolution, in_chans, num_classes)
        return self._tables[key]

    @cached_property
    def _tables(self) -> dict[tuple[int, int, int], CostTables]:
        return {}
