"""A plain network built from a resolved layer list: it needs neither a space nor an arch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.basic import BasicBlock
from nas_kd.nn.bottleneck import Bottleneck
from nas_kd.nn.heads import static_head
from nas_kd.nn.mbconv import MBConv
from nas_kd.nn.output import Output
from nas_kd.nn.stems import static_stem
from nas_kd.nn.vit import ViTLayer


def build_block(layer: Mapping[str, Any]) -> nn.Module:
    """Build one residual block.

    Args:
        layer: an entry of ``ElasticSpace.layers`` that belongs to a stage.

    Raises:
        SettingError: its ``op`` is unknown.
    """
    if layer["op"] == "basic":
        return BasicBlock(layer["in"], layer["mid"], layer["out"], layer["stride"])
    if layer["op"] == "mbconv":
        widths = (layer["in"], layer["mid"], layer["out"])
        more = (layer["se"], layer["act"])
        return MBConv(*widths, layer["stride"], layer["kernel"], *more, layer.get("pooled", False))
    if layer["op"] == "bottleneck":
        return Bottleneck(*(layer[name] for name in ("in", "mid", "out", "stride", "group_width")))
    if layer["op"] == "vit":
        return ViTLayer(*(layer[name] for name in ("out", "heads", "head_dim", "hidden")))
    legal = "basic, mbconv, bottleneck or vit"
    raise SettingError("layers.op", layer["op"], legal, "was arch.json written by a newer version?")


class StaticStage(nn.Module):
    """The blocks of one stage.

    Args:
        layers: the stage's entries of ``ElasticSpace.layers``.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(build_block(layer) for layer in layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, I, H, W) to (B, O, H', W') after and before the last activation."""
        pre = x
        for layer in self.layers:
            x, pre = layer(x)
        return x, pre


class StaticNet(nn.Module):
    """One architecture as an ordinary module with ordinary norms.

    Args:
        layers: what ``ElasticSpace.layers`` returned, or the content of ``arch.json``.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.layers_spec = [dict(layer) for layer in layers]
        first, *blocks, last = self.layers_spec
        self.stem = static_stem(first)
        numbers = sorted({layer["stage"] for layer in blocks})
        self.stages = nn.ModuleList(
            StaticStage([layer for layer in blocks if layer["stage"] == number]) for number in numbers
        )
        self.head = static_head(last)

    def forward_stages(self, x: Tensor) -> Output:
        """Run the network and return its features.

        Args:
            x: (B, in_chans, H, W).

        Returns:
            Logits, stage features and pooled features.
        """
        x = self.stem(x)
        stages = []
        pre = []
        for stage in self.stages:
            x, before = stage(x)
            stages.append(x)
            pre.append(before)
        logits, pooled = self.head(x)
        return Output(logits, stages, pre, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to logits (B, C)."""
        return self.forward_stages(x).logits
