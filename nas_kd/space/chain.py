"""Stem, stages and head with their choices: the data of a space, without its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from nas_kd.errors import SettingError
from nas_kd.space.ends import Head, Stem
from nas_kd.space.identity import identity
from nas_kd.space.part import Part, ascending
from nas_kd.space.stages import Stage


@dataclass(frozen=True)
class Chain:
    """The fields of an `ElasticSpace`."""

    name: str
    stem: Stem
    stages: tuple[Stage, ...]
    head: Head
    resolution: int = 32
    resolutions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise SettingError("stages", self.stages, "at least one stage")
        for part in (self.stem, *self.stages, self.head):
            if self.kinds[part.op].static is not part.static:
                expected = (
                    f"an op of its own: this is the op of {self.kinds[part.op].__name__}, which builds other layers"
                )
                raise SettingError(f"{type(part).__name__}.op", part.op, expected, "choose another op for the block")
        for index, stage in enumerate(self.stages):
            if stage.keeps_width and stage.widths != self.in_widths(index):
                expected = f"{self.in_widths(index)}, its input widths, which a {type(stage).__name__} cannot change"
                raise SettingError(f"stages[{index}].widths", stage.widths, expected)
        if self.resolutions:
            ascending("resolutions", self.resolutions)
            if self.resolution not in self.resolutions:
                raise SettingError("resolution", self.resolution, f"one of resolutions {self.resolutions}")
        for size in (self.resolution, *self.resolutions):
            self.check_resolution(size)

    @property
    def stride(self) -> int:
        """Total stride of stem and stages."""
        return self.stem.stride * prod(stage.stride for stage in self.stages)

    def check_resolution(self, resolution: int) -> None:
        """Check that the strides allow images of this size.

        Raises:
            SettingError: it is smaller than the total stride, or not a multiple of the stem's patch.
        """
        patch = self.stem.multiple
        if resolution < self.stride or resolution % patch:
            expected = f"at least {self.stride}" + (f" and a multiple of the patch of {patch}" if patch > 1 else "")
            hint = "resize the images (data.resolution), or choose another space"
            raise SettingError("resolution", resolution, f"{expected} pixels (strides of the space {self.name})", hint)

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the description, without the name."""
        return identity(self.stem, self.head, self.stages, self.resolutions)

    @cached_property
    def kinds(self) -> Mapping[str, type[Part]]:
        """The classes that build and count the layers, by ``op``."""
        return {part.op: type(part) for part in (self.stem, *self.stages, self.head)}

    def stage_sizes(self, resolution: int | None = None) -> list[int]:
        """Return the output height of each stage in pixels."""
        size = self.stem_size(resolution)
        sizes = []
        for stage in self.stages:
            size = -(-size // stage.stride)
            sizes.append(size)
        return sizes

    def stem_size(self, resolution: int | None = None) -> int:
        """Return the output height of the stem in pixels."""
        return -(-(resolution or self.resolution) // self.stem.stride)

    def in_widths(self, index: int) -> tuple[int, ...]:
        """Return the possible input widths of stage ``index``, ascending."""
        return self.stem.widths if index == 0 else self.stages[index - 1].widths
