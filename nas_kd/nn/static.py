"""A plain network built from a resolved layer list, without a space or an arch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from nas_kd.errors import SettingError
from nas_kd.nn.output import Output


class Kind(Protocol):
    """Builds and counts the layers of one ``op``: the class of a stem, a block or a head."""

    @property
    def op(self) -> str:
        """Name of its layers in ``arch.json``."""

    def static(self, layer: Mapping[str, Any], /) -> nn.Module:
        """Build a layer."""

    def count(self, layer: Mapping[str, Any], size: int, /) -> tuple[tuple[int, int], int]:
        """Return (MACs, parameters) on an input of ``size`` pixels, and the height of the output."""


class StaticStage(nn.Module):
    """The blocks of one stage, built from its entries of ``ElasticSpace.layers``."""

    def __init__(self, layers: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kinds[layer["op"]].static(layer) for layer in layers)

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
        kinds: the classes that build them, by ``op``: ``ElasticSpace.kinds``, or ``nas_kd.blocks.kinds()``.

    Raises:
        SettingError: no class builds a layer's ``op``.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> None:
        super().__init__()
        self.layers_spec = [dict(layer) for layer in layers]
        for layer in self.layers_spec:
            if layer["op"] not in kinds:
                hint = "pass the class of your own block, or update nas_kd if a newer version wrote this"
                raise SettingError("layers.op", layer["op"], "one of " + ", ".join(sorted(kinds)), hint)
        self.kinds = {layer["op"]: kinds[layer["op"]] for layer in self.layers_spec}
        first, *blocks, last = self.layers_spec
        self.stem = self.kinds[first["op"]].static(first)
        numbers = sorted({layer["stage"] for layer in blocks})
        self.stages = nn.ModuleList(
            StaticStage([layer for layer in blocks if layer["stage"] == number], self.kinds) for number in numbers
        )
        self.head = self.kinds[last["op"]].static(last)

    def forward_stages(self, x: Tensor) -> Output:
        """Map (B, in_chans, H, W) to logits, stage features and pooled features."""
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
