"""MACs and parameters of a resolved layer in plain integers, without building a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nas_kd.space.arch import Cost


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a channel count to a multiple of ``divisor``, never below 90 % of it.

    Args:
        value: wanted number of channels.
        divisor: what the result must be a multiple of.

    Returns:
        The nearest multiple (ties up), at least ``divisor``, raised by one step when it lost over 10 %.

    Source: MobileNetV2 reference code, used by OFA and AttentiveNAS.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _conv(inputs: int, outputs: int, kernel: int, pixels: int, *, bias: bool = False) -> Cost:
    weights = inputs * outputs * kernel * kernel
    return Cost(weights * pixels, weights + (outputs if bias else 0))


def _norm(channels: int) -> Cost:
    return Cost(0, 2 * channels)


def _basic(layer: Mapping[str, Any], pixels: int) -> Cost:
    total = _conv(layer["in"], layer["mid"], 3, pixels) + _norm(layer["mid"])
    total = total + _conv(layer["mid"], layer["out"], 3, pixels) + _norm(layer["out"])
    if layer["in"] != layer["out"] or layer["stride"] != 1:  # the projecting shortcut
        total = total + _conv(layer["in"], layer["out"], 1, pixels) + _norm(layer["out"])
    return total


def _mbconv(layer: Mapping[str, Any], pixels_in: int, pixels: int) -> Cost:
    total = Cost(0, 0)
    if layer["mid"] != layer["in"]:
        total = total + _conv(layer["in"], layer["mid"], 1, pixels_in) + _norm(layer["mid"])
    total = total + _conv(1, layer["mid"], layer["kernel"], pixels) + _norm(layer["mid"])  # depthwise
    if layer["se"]:  # squeeze-excite acts on one pixel
        total = total + _conv(layer["mid"], layer["se"], 1, 1, bias=True)
        total = total + _conv(layer["se"], layer["mid"], 1, 1, bias=True)
    return total + _conv(layer["mid"], layer["out"], 1, pixels) + _norm(layer["out"])


def count_layer(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
    """Count one resolved layer.

    Args:
        layer: one entry of ``ElasticSpace.layers``.
        size: height (= width) of the layer's input in pixels.

    Returns:
        Its cost, and the height of its output in pixels.

    Raises:
        ValueError: the layer's ``op`` is unknown.
    """
    op = layer["op"]
    if op == "head":
        cost = Cost(0, 0)
        if layer["features"]:
            cost = _conv(layer["in"], layer["features"], 1, size * size) + _norm(layer["features"])
        return cost + _conv(layer["features"] or layer["in"], layer["out"], 1, 1, bias=True), 1
    out = -(-size // layer["stride"])  # odd kernels with padding k // 2 give the ceiling
    if op == "stem":
        return _conv(layer["in"], layer["out"], 3, out * out) + _norm(layer["out"]), out
    if op == "basic":
        return _basic(layer, out * out), out
    if op == "mbconv":
        return _mbconv(layer, size * size, out * out), out
    raise ValueError(f"layer op {op!r} is not one of stem, basic, mbconv, head")


def count_layers(layers: Iterable[Mapping[str, Any]], size: int) -> Cost:
    """Count a chain of resolved layers.

    Args:
        layers: entries of ``ElasticSpace.layers``, in order.
        size: height of the first layer's input in pixels.

    Returns:
        The sum of their costs.
    """
    total = Cost(0, 0)
    for layer in layers:
        cost, size = count_layer(layer, size)
        total = total + cost
    return total
