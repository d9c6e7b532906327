"""An architecture is a plain frozen value: hashable, comparable, and JSON in both directions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nas_kd.errors import SettingError

Setting = int | float | bool
Layer = tuple[Setting, ...]


class Cost(NamedTuple):
    """Exact size of a network or a part of it.

    Args:
        macs: multiply-adds of convolutions and linear layers for one image.
        params: trainable numbers.
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
        layers: one tuple a layer, its settings in the order of the stage's ``fields``. Layers beyond the
            depth do not exist here, so equal networks are equal values.
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
        return f"w{self.width}:" + ",".join("/".join(str(int(v)) for v in layer) for layer in self.layers)


@dataclass(frozen=True)
class Arch:
    """One architecture of a space.

    Args:
        space: hash of the space it belongs to; every space refuses a foreign arch.
        stages: one candidate a stage, in order.
        resolution: input height and width in pixels, or None when the space does not choose it.
    """

    space: str
    stages: tuple[Candidate, ...]
    resolution: int | None = None

    @cached_property
    def key(self) -> str:
        """Stable short name: twelve hexadecimal digits of the SHA-256 of the canonical JSON."""
        canonical = self.to_dict()
        for stage in canonical["stages"]:  # True == 1 == 1.0: equal archs must have equal keys
            stage["layers"] = [[int(v) if v == int(v) else v for v in layer] for layer in stage["layers"]]
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """All stages in a readable line."""
        return " | ".join(stage.label for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the arch as JSON types only."""
        stages = [{"width": s.width, "layers": [list(layer) for layer in s.layers]} for s in self.stages]
        return {"space": self.space, "resolution": self.resolution, "stages": stages}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Arch:
        """Read what ``to_dict`` wrote.

        Args:
            value: the dictionary, for instance from a JSON file.

        Returns:
            An arch equal to the one that was written.

        Raises:
            SettingError: a field is missing or is no number.
        """
        try:
            stages = tuple(
                Candidate(int(s["width"]), tuple(tuple(layer) for layer in s["layers"])) for s in value["stages"]
            )
            return cls(value["space"], stages, value["resolution"])
        except (KeyError, TypeError, ValueError) as error:
            legal = "a dictionary with the fields space, resolution and stages[].width/layers"
            raise SettingError("arch", value, legal, "use a dictionary written by Arch.to_dict()") from error
