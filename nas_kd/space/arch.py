"""An architecture is a plain frozen value: hashable, comparable, and JSON in both directions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nas_kd.errors import SettingError

Setting = int | float | bool
Layer = tuple[Setting, ...]


def _plain(layer: Iterable[Setting]) -> list[Setting]:
    """Normalise equal settings: True == 1 == 1.0, and equal archs must have equal keys."""
    return [int(v) if v == int(v) else v for v in layer]


def _layer(text: str) -> Layer:
    """Read the settings of a layer in a label."""
    values = [float(value) for value in text.split("/")]
    return tuple(int(value) if value == int(value) else value for value in values)


def _short(value: Setting) -> str:
    return f"{float(value):g}"


class Cost(NamedTuple):
    """Exact size of a network or a part of it.

    Args:
        macs: multiply-adds of convolutions and linear layers for one image.
        params: trainable parameters.
    """

    macs: int
    params: int

    def __add__(self, other: tuple[Any, ...]) -> Cost:
        return Cost(self.macs + other[0], self.params + other[1])


@dataclass(frozen=True)
class Candidate:
    """One choice for a whole stage.

    Args:
        width: output channels of every layer of the stage.
        layers: one tuple per layer, its settings in the order of the stage's ``fields``. Layers beyond the depth do not
            exist here, so equal networks are equal values.
    """

    width: int
    layers: tuple[Layer, ...]

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def label(self) -> str:
        """Short readable name, such as ``w16:8,12``: width, then the settings of each layer."""
        return f"w{self.width}:" + ",".join("/".join(map(_short, layer)) for layer in self.layers)


@dataclass(frozen=True)
class Arch:
    """One architecture of a space.

    Args:
        space: hash of the space it belongs to; every space rejects an arch of another.
        stages: one candidate per stage, in order.
        resolution: input height and width in pixels, or None when the space does not choose it.
        stem: settings of the stem that are chosen, in the order of its ``fields``; () when it is fixed.
        head: settings of the head that are chosen; () when it is fixed.
    """

    space: str
    stages: tuple[Candidate, ...]
    resolution: int | None = None
    stem: Layer = ()
    head: Layer = ()

    @cached_property
    def key(self) -> str:
        """Stable short name: twelve hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = self.to_dict()
        for stage in canonical["stages"]:
            stage["layers"] = [_plain(layer) for layer in stage["layers"]]
        for end in ("stem", "head"):
            if end in canonical:
                canonical[end] = _plain(canonical[end])
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def depth(self) -> int:
        """Total number of layers in all stages."""
        return sum(stage.depth for stage in self.stages)

    @property
    def label(self) -> str:
        """All choices in one readable line, such as ``192px | w16:8,12 | ...``."""
        parts = [stage.label for stage in self.stages]
        if self.stem:
            parts.insert(0, "stem " + "/".join(map(_short, self.stem)))
        if self.head:
            parts.append("head " + "/".join(map(_short, self.head)))
        if self.resolution is not None:
            parts.insert(0, f"{self.resolution}px")
        return " | ".join(parts)

    @classmethod
    def from_label(cls, space: str, label: str) -> Arch:
        """Read a `label`.

        Args:
            space: hash of the space.

        Raises:
            SettingError: the text is no label.
        """
        parts = label.strip().split(" | ")
        try:
            size = int(parts.pop(0).removesuffix("px")) if parts[0].endswith("px") else None
            stem = _layer(parts.pop(0)[5:]) if parts[0].startswith("stem ") else ()
            head = _layer(parts.pop()[5:]) if parts[-1].startswith("head ") else ()
            halves = [part.partition(":")[::2] for part in parts]
            stages = tuple(
                Candidate(int(width.removeprefix("w")), tuple(map(_layer, layers.split(","))) if layers else ())
                for width, layers in halves
            )
        except (IndexError, ValueError) as error:
            raise SettingError("arch", label, "what Arch.label gives", "write arch.label") from error
        return cls(space, stages, size, stem, head)

    def to_dict(self) -> dict[str, Any]:
        """Return the arch as JSON types only."""
        stages = [{"width": s.width, "layers": [list(layer) for layer in s.layers]} for s in self.stages]
        ends = {name: list(value) for name, value in (("stem", self.stem), ("head", self.head)) if value}
        return {"space": self.space, "resolution": self.resolution, "stages": stages} | ends

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Arch:
        """Read what ``to_dict`` wrote.

        Raises:
            SettingError: a field is missing or not a number.
        """
        try:
            stages = tuple(
                Candidate(int(s["width"]), tuple(tuple(layer) for layer in s["layers"])) for s in value["stages"]
            )
            ends = (tuple(value.get("stem", ())), tuple(value.get("head", ())))
            arch = cls(value["space"], stages, value["resolution"], *ends)
            hash(arch)  # lists in the place of numbers are none
            if not isinstance(arch.space, str) or not isinstance(arch.resolution, int | None):
                raise TypeError("the space's hash and the resolution")
            return arch
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            expected = "a dictionary with the fields space, resolution and stages[].width/layers"
            raise SettingError("arch", value, expected, "use a dictionary written by Arch.to_dict()") from error
