"""A space of stages whose networks can share the weights of one supernet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_kd.errors import SettingError
from nas_kd.space.arch import Arch, Candidate, Cost
from nas_kd.space.base import Space
from nas_kd.space.count import count_layers
from nas_kd.space.stages import Stage

if TYPE_CHECKING:
    import pandas as pd

    from nas_kd.nn.static import StaticNet


@dataclass(frozen=True)
class ConvStem:
    """3x3 convolution, norm and activation before the first stage; it is not searched.

    Args:
        width: output channels.
        stride: 1 or 2.
        act: ``relu``, ``silu`` or ``hardswish``.
    """

    width: int = 16
    stride: int = 1
    act: str = "relu"

    def resolve(self, in_chans: int) -> dict[str, Any]:
        """Return the stem as a plain dictionary."""
        return {"op": "stem", "in": in_chans, "out": self.width, "stride": self.stride, "act": self.act}


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling and a linear classifier, optionally behind a 1x1 convolution.

    Args:
        features: channels of the 1x1 convolution with norm and activation, or 0 for none.
        act: activation behind that convolution.
    """

    features: int = 0
    act: str = "relu"

    def resolve(self, in_width: int, num_classes: int) -> dict[str, Any]:
        """Return the head as a plain dictionary."""
        return {"op": "head", "in": in_width, "features": self.features, "out": num_classes, "act": self.act}


@dataclass(frozen=True)
class ElasticSpace(Space):
    """Stem, stages and head: all that a new space writes.

    Args:
        name: name of the space.
        stem: what comes before the first stage.
        stages: the searched stages, in order.
        head: what comes after the last stage.
        resolution: usual height and width of the input in pixels.
    """

    name: str
    stem: ConvStem
    stages: tuple[Stage, ...]
    head: LinearHead = LinearHead()
    resolution: int = 32

    def __post_init__(self) -> None:
        if not self.stages:
            raise SettingError("stages", self.stages, "at least one stage")

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the description; the name does not count."""
        described = [asdict(self.stem), asdict(self.head)]
        described += [{"type": type(stage).__name__} | asdict(stage) for stage in self.stages]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def size(self) -> int:
        """Exact number of different architectures."""
        return prod(stage.size for stage in self.stages)

    def describe(self) -> dict[str, Any]:
        """Return the description as JSON types (``space.json`` of a run)."""
        stages = [{"type": type(stage).__name__} | asdict(stage) for stage in self.stages]
        return {
            "name": self.name, "hash": self.hash, "size": self.size, "resolution": self.resolution,
            "stem": asdict(self.stem), "stages": stages, "head": asdict(self.head),
        }  # fmt: skip

    # ---- architectures -------------------------------------------------------------------------------

    def arch(self, stages: Sequence[Candidate]) -> Arch:
        """Make an arch of this space from one candidate a stage, and validate it."""
        arch = Arch(self.hash, tuple(stages))
        self.validate(arch)
        return arch

    def largest(self) -> Arch:
        """Return the arch with the largest of everything."""
        return Arch(self.hash, tuple(stage.largest() for stage in self.stages))

    def smallest(self) -> Arch:
        """Return the arch with the smallest of everything."""
        return Arch(self.hash, tuple(stage.smallest() for stage in self.stages))

    def sample(self, seed: int) -> Arch:
        """Draw every dimension uniformly and independently.

        Args:
            seed: non-negative integer; the same seed gives the same arch.

        Returns:
            An arch of this space.
        """
        rng = np.random.default_rng(seed)
        return Arch(self.hash, tuple(stage.sample(rng) for stage in self.stages))

    def __iter__(self) -> Iterator[Arch]:
        for stages in product(*(stage.candidates() for stage in self.stages)):
            yield Arch(self.hash, stages)

    def validate(self, arch: Arch) -> None:
        """Check that an arch is one of this space.

        Args:
            arch: the arch to check.

        Raises:
            SettingError: it belongs to another space, or one of its settings is not offered.
        """
        if arch.space != self.hash:
            mend = f"load the space with hash {arch.space}, or search again in {self.name}"
            raise SettingError("arch.space", arch.space, f"{self.hash} (the space {self.name})", mend)
        if len(arch.stages) != len(self.stages):
            raise SettingError("arch.stages", len(arch.stages), f"{len(self.stages)} stages")
        for index, (stage, candidate) in enumerate(zip(self.stages, arch.stages, strict=True)):
            if not stage.contains(candidate):
                legal = f"widths {stage.widths}, depths {stage.depths}, layers {stage.fields} of {stage.groups()}"
                raise SettingError(f"arch.stages[{index}]", candidate, legal)

    # ---- networks ------------------------------------------------------------------------------------

    def layers(self, arch: Arch, num_classes: int, in_chans: int = 3) -> list[dict[str, Any]]:
        """Resolve an arch to its list of layers, which needs no space to be built (``arch.json``).

        Args:
            arch: an arch of this space.
            num_classes: classes of the head.
            in_chans: channels of the input image.

        Returns:
            One dictionary a layer, each with the number of its ``stage`` (None for stem and head).
        """
        self.validate(arch)
        resolved = [self.stem.resolve(in_chans) | {"stage": None}]
        width = self.stem.width
        for index, (stage, candidate) in enumerate(zip(self.stages, arch.stages, strict=True)):
            resolved += [layer | {"stage": index} for layer in stage.resolve(candidate, width)]
            width = candidate.width
        return [*resolved, self.head.resolve(width, num_classes) | {"stage": None}]

    def build(self, arch: Arch, num_classes: int, in_chans: int = 3) -> StaticNet:
        """Build a fresh static network.

        Args:
            arch: an arch of this space.
            num_classes: classes of the head.
            in_chans: channels of the input image.

        Returns:
            A plain module with new weights.
        """
        from nas_kd.nn.static import StaticNet

        return StaticNet(self.layers(arch, num_classes, in_chans))

    def stage_sizes(self, resolution: int | None = None) -> list[int]:
        """Return the output height of each stage in pixels."""
        size = -(-(resolution or self.resolution) // self.stem.stride)
        sizes = []
        for stage in self.stages:
            size = -(-size // stage.stride)
            sizes.append(size)
        return sizes

    def in_widths(self, index: int) -> tuple[int, ...]:
        """Return the input widths that stage ``index`` can meet, rising."""
        return (self.stem.width,) if index == 0 else self.stages[index - 1].widths

    # ---- cost ----------------------------------------------------------------------------------------

    def stage_cost(
        self, index: int, in_width: int, candidate: Candidate, *,
        resolution: int | None = None, in_chans: int = 3, num_classes: int,
    ) -> Cost:  # fmt: skip
        """Count one stage; the stem is charged to the first stage and the head to the last.

        Args:
            index: which stage.
            in_width: channels of its input.
            candidate: the choice for the stage.
            resolution: height of the network's input in pixels.
            in_chans: channels of the input image.
            num_classes: classes of the head.

        Returns:
            MACs and parameters; summed over the stages they equal ``cost`` of the arch.
        """
        resolution = resolution or self.resolution
        chain = self.stages[index].resolve(candidate, in_width)
        size = resolution if index == 0 else self.stage_sizes(resolution)[index - 1]
        if index == 0:
            chain.insert(0, self.stem.resolve(in_chans))
        if index == len(self.stages) - 1:
            chain.append(self.head.resolve(candidate.width, num_classes))
        return count_layers(chain, size)

    def cost(self, arch: Arch, *, resolution: int | None = None, in_chans: int = 3, num_classes: int) -> Cost:
        """Count an arch in closed form, without a network.

        Args:
            arch: an arch of this space.
            resolution: height of the input in pixels; None uses the arch's own, else the space's.
            in_chans: channels of the input image.
            num_classes: classes of the head.

        Returns:
            Exact MACs and parameters.
        """
        layers = self.layers(arch, num_classes, in_chans)
        return count_layers(layers, resolution or arch.resolution or self.resolution)

    def encode(self, archs: Sequence[Arch]) -> np.ndarray:
        """Write archs as integers.

        Args:
            archs: archs of this space.

        Returns:
            (N, S) array: for each stage the index of its candidate in ``candidates()``.
        """
        for arch in archs:
            self.validate(arch)
        index = [{candidate: i for i, candidate in enumerate(stage.candidates())} for stage in self.stages]
        codes = [[index[s][candidate] for s, candidate in enumerate(arch.stages)] for arch in archs]
        return np.array(codes, dtype=np.int64).reshape(len(archs), len(self.stages))

    def decode(self, codes: np.ndarray) -> list[Arch]:
        """Read what ``encode`` wrote.

        Args:
            codes: (N, S) integers.

        Returns:
            N archs.
        """
        tables = [stage.candidates() for stage in self.stages]
        return [Arch(self.hash, tuple(t[i] for t, i in zip(tables, row, strict=True))) for row in codes]

    def costs(
        self, codes: np.ndarray, *, resolution: int | None = None, in_chans: int = 3, num_classes: int
    ) -> pd.DataFrame:
        """Count many archs at once through one look-up table a stage.

        Args:
            codes: (N, S) integers of ``encode``.
            resolution: height of the input in pixels.
            in_chans: channels of the input image.
            num_classes: classes of the head.

        Returns:
            A frame with the columns macs and params, one row a code.
        """
        import pandas as pd

        tables = self._cost_tables(resolution or self.resolution, in_chans, num_classes)
        total = np.zeros((len(codes), 2), dtype=np.int64)
        came_from = np.zeros(len(codes), dtype=np.int64)  # index of the input width
        for index, (table, width_of) in enumerate(tables):
            total += table[came_from, codes[:, index]]
            came_from = width_of[codes[:, index]]
        return pd.DataFrame({"macs": total[:, 0], "params": total[:, 1]})

    def _cost_tables(self, resolution: int, in_chans: int, num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each stage (in_widths, candidates, 2) costs and each candidate's width index."""
        key = (resolution, in_chans, num_classes)
        if key not in self._tables:
            tables = []
            for index, stage in enumerate(self.stages):
                rows = [
                    [
                        self.stage_cost(
                            index, width, candidate,
                            resolution=resolution, in_chans=in_chans, num_classes=num_classes,
                        )
                        for candidate in stage.candidates()
                    ]
                    for width in self.in_widths(index)
                ]  # fmt: skip
                widths = np.array([stage.widths.index(candidate.width) for candidate in stage.candidates()])
                tables.append((np.array(rows, dtype=np.int64), widths))
            self._tables[key] = tables
        return self._tables[key]

    @cached_property
    def _tables(self) -> dict[tuple[int, int, int], list[tuple[np.ndarray, np.ndarray]]]:
        return {}
