"""Stems, elastic and static, with equal parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.act import activation
from nas_kd.nn.elastic import ElasticConv2d, prefix
from nas_kd.nn.norm import ElasticBatchNorm2d, NormValues, Recorder
from nas_kd.space import ConvStem, PatchStem, ResNetDStem, Stem
from nas_kd.space.arch import Layer


class ElasticConvStem(nn.Module):
    """3x3 convolution, norm, activation.

    Args:
        stem: the description.
        in_chans: channels of the input image.
    """

    def __init__(self, stem: ConvStem, in_chans: int) -> None:
        super().__init__()
        self.act = activation(stem.act)
        width = stem.widths[-1]
        self.widths = {setting: stem.width_of(setting) for setting in stem.choices()}
        self.conv, self.bn = ElasticConv2d(in_chans, width, 3, stem.stride), ElasticBatchNorm2d(width)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x, self.widths[setting]), norm))


class ConvStemNet(nn.Module):
    """The static twin of ``ElasticConvStem``."""

    def __init__(self, in_chans: int, width: int, stride: int, act: str) -> None:
        super().__init__()
        self.act = activation(act)
        self.conv, self.bn = nn.Conv2d(in_chans, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H', W')."""
        return self.act(self.bn(self.conv(x)))


class ElasticResNetDStem(nn.Module):
    """Three 3x3 convolutions, the middle one residual and optional, and a max pool.

    Args:
        stem: the description.
        in_chans: channels of the input image.
    """

    def __init__(self, stem: ResNetDStem, in_chans: int) -> None:
        super().__init__()
        self.stem = stem
        self.in_chans = in_chans
        largest = stem.resolve(stem.largest(), in_chans)
        mid = largest["mid"]
        width = largest["out"]
        self.conv1, self.bn1 = ElasticConv2d(in_chans, mid, 3, 2), ElasticBatchNorm2d(mid)
        if largest["residual"]:
            self.conv2, self.bn2 = ElasticConv2d(mid, mid, 3), ElasticBatchNorm2d(mid)
        self.conv3, self.bn3 = ElasticConv2d(mid, width, 3), ElasticBatchNorm2d(width)

    def forward(self, x: Tensor, setting: Layer, norm: NormValues | Recorder | None = None) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / 4, W / 4)."""
        plan = self.stem.resolve(setting, self.in_chans)
        x = F.relu(self.bn1(self.conv1(x, plan["mid"]), norm))
        if plan["residual"]:
            x = x + F.relu(self.bn2(self.conv2(x, plan["mid"]), norm))
        x = F.relu(self.bn3(self.conv3(x, plan["out"]), norm))
        return F.max_pool2d(x, 3, 2, 1)


class ResNetDStemNet(nn.Module):
    """The static twin of ``ElasticResNetDStem``."""

    def __init__(self, in_chans: int, mid: int, width: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv1, self.bn1 = nn.Conv2d(in_chans, mid, 3, 2, 1, bias=False), nn.BatchNorm2d(mid)
        if residual:
            self.conv2, self.bn2 = nn.Conv2d(mid, mid, 3, 1, 1, bias=False), nn.BatchNorm2d(mid)
        self.conv3, self.bn3 = nn.Conv2d(mid, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, width, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.residual:
            x = x + F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.max_pool2d(x, 3, 2, 1)


def _positions(position: Tensor, x: Tensor) -> Tensor:
    """Bring a position embedding (1, C, G, G) to the size of x (B, C, H, W)."""
    if position.shape[2:] == x.shape[2:]:
        return position
    size = (x.shape[2], x.shape[3])
    return F.interpolate(position.contiguous(), size, mode="bicubic", align_corners=False)


class ElasticPatchStem(nn.Module):
    """Patches to tokens, kept as a map, with a position embedding.

    Args:
        stem: the description.
        in_chans: channels of the input image.
    """

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


def _whole_patches(x: Tensor, patch: int) -> Tensor:
    if x.shape[2] % patch or x.shape[3] % patch:
        size = f"{x.shape[2]} x {x.shape[3]}"
        raise SettingError("resolution", size, f"multiples of the patch of {patch} pixels", "resize the images")
    return x


def elastic_stem(stem: Stem, in_chans: int) -> nn.Module:
    """Build the shared stem of a space."""
    if isinstance(stem, ConvStem):
        return ElasticConvStem(stem, in_chans)
    if isinstance(stem, ResNetDStem):
        return ElasticResNetDStem(stem, in_chans)
    if isinstance(stem, PatchStem):
        return ElasticPatchStem(stem, in_chans)
    raise TypeError(f"no elastic stem is known for {type(stem).__name__}")


def static_stem(layer: Mapping[str, Any]) -> nn.Module:
    """Build a stem from the first entry of ``ElasticSpace.layers``."""
    if layer["op"] == "stem":
        return ConvStemNet(layer["in"], layer["out"], layer["stride"], layer["act"])
    if layer["op"] == "resnet_stem":
        return ResNetDStemNet(layer["in"], layer["mid"], layer["out"], layer["residual"])
    if layer["op"] == "patch":
        return PatchStemNet(layer["in"], layer["out"], layer["patch"], layer["grid"])
    legal = "stem, resnet_stem or patch"
    raise SettingError("layers.op", layer["op"], legal, "was arch.json written by a newer version?")
