"""The stem of a vision transformer: patches to tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.elastic import ElasticConv2d, prefix
from nas_kd.nn.norm import NormValues, Recorder
from nas_kd.nn.part import Channels, ElasticPart, Plans
from nas_kd.space.arch import Cost, Layer, Setting
from nas_kd.space.count import conv_cost
from nas_kd.space.ends import Stem, several
from nas_kd.space.part import ascending


@dataclass(frozen=True)
class PatchStem(Stem):
    """Non-overlapping patches to tokens, with a learned position embedding that is resized for other input sizes.

    Args:
        width: channels of a token, or several to choose from.
        patch: height and width of a patch in pixels.
        grid: patches per side for which the position embedding is stored.

    Source: ViT (Dosovitskiy et al. 2020), section 3.1.
    """

    width: int | tuple[int, ...]
    patch: int = 16
    grid: int = 14
    op: ClassVar[str] = "patch"
    fields: ClassVar[tuple[str, ...]] = ("width",)

    def __post_init__(self) -> None:
        ascending("stem.width", several(self.width))
        for name in ("patch", "grid"):
            if getattr(self, name) < 1:
                raise SettingError(f"stem.{name}", getattr(self, name), "an integer of at least 1")

    @property
    def stride(self) -> int:
        return self.patch

    @property
    def multiple(self) -> int:
        return self.patch

    def options(self) -> tuple[tuple[Setting, ...], ...]:
        return (several(self.width),)

    def resolve(self, setting: Layer, in_chans: int) -> dict[str, Any]:
        out = self.width_of(setting)
        return {"op": "patch", "in": in_chans, "out": out, "patch": self.patch, "grid": self.grid}

    @staticmethod
    def count(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
        out = size // layer["patch"]
        position = Cost(0, layer["out"] * layer["grid"] ** 2)
        return conv_cost(layer["in"], layer["out"], layer["patch"], out * out, bias=True) + position, out

    @staticmethod
    def static(layer: Mapping[str, Any]) -> nn.Module:
        return PatchStemNet(layer["in"], layer["out"], layer["patch"], layer["grid"])

    def elastic(self, in_chans: int) -> ElasticPart:
        return ElasticPatchStem(self, in_chans)


class ElasticPatchStem(ElasticPart):
    """Patches to tokens, kept as a map, with a position embedding."""

    def __init__(self, stem: PatchStem, in_chans: int) -> None:
        super().__init__()
        self.stem = stem
        width = stem.widths[-1]
        self.conv = ElasticConv2d(in_chans, width, stem.patch, stem.patch, bias=True, padding=0)
        self.position = nn.Parameter(torch.empty(1, width, stem.grid, stem.grid))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / patch, W / patch)."""
        width = self.stem.width_of(setting)
        x = self.conv(_whole_patches(x, self.stem.patch), width)
        return x + _positions(prefix(self.position, 1, width), x)

    def channels(self, plans: Plans) -> Iterator[Channels]:
        yield from ()  # its outputs are the first stage's inputs


class PatchStemNet(nn.Module):
    """The static twin of ``ElasticPatchStem``."""

    def __init__(self, in_chans: int, width: int, patch: int, grid: int) -> None:
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(in_chans, width, patch, patch)
        self.position = nn.Parameter(torch.empty(1, width, grid, grid))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / patch, W / patch)."""
        x = self.conv(_whole_patches(x, self.patch))
        return x + _positions(self.position, x)


def _positions(position: Tensor, x: Tensor) -> Tensor:
    """Resize a position embedding (1, C, G, G) to the size of x (B, C, H, W)."""
    if position.shape[2:] == x.shape[2:]:
        return position
    size = (x.shape[2], x.shape[3])
    return F.interpolate(position.contiguous(), size, mode="bicubic", align_corners=False)


def _whole_patches(x: Tensor, patch: int) -> Tensor:
    if x.shape[2] % patch or x.shape[3] % patch:
        size = f"{x.shape[2]} x {x.shape[3]}"
        raise SettingError("resolution", size, f"multiples of the patch of {patch} pixels", "resize the images")
    return x
