"""MACs and parameters of a resolved layer in plain integers, without building a network.

MACs are those of convolutions and linear layers, everywhere in this project: norms, activations, pooling and
resizing are not counted, and neither are the two matrix products of attention, which have no weights (for N
tokens and inner width D they are 2 N^2 D a layer).
"""

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
    if layer.get("pooled") and layer["in"] != layer["out"]:  # the pooled shortcut, without norm
        total = total + _conv(layer["in"], layer["out"], 1, pixels)
    if layer["se"]:  # squeeze-excite acts on one pixel
        total = total + _conv(layer["mid"], layer["se"], 1, 1, bias=True)
        total = total + _conv(layer["se"], layer["mid"], 1, 1, bias=True)
    return total + _conv(layer["mid"], layer["out"], 1, pixels) + _norm(layer["out"])


def _bottleneck(layer: Mapping[str, Any], pixels_in: int, pixels: int) -> Cost:
    mid = layer["mid"]
    out = layer["out"]
    total = _conv(layer["in"], mid, 1, pixels_in) + _norm(mid)
    total = total + _conv(layer["group_width"] or mid, mid, 3, pixels) + _norm(mid)
    total = total + _conv(mid, out, 1, pixels) + _norm(out)
    if layer["in"] != out or layer["stride"] != 1:  # the projecting shortcut
        total = total + _conv(layer["in"], out, 1, pixels) + _norm(out)
    return total


def _vit(layer: Mapping[str, Any], tokens: int) -> Cost:
    width = layer["out"]
    inner = layer["heads"] * layer["head_dim"]
    hidden = layer["hidden"]
    total = _norm(width) + _norm(width)
    for inputs, outputs in ((width, 3 * inner), (inner, width), (width, hidden), (hidden, width)):
        total = total + _conv(inputs, outputs, 1, tokens, bias=True)
    return total


def _stem(layer: Mapping[str, Any], size: int) -> tuple[Cost, int]:
    """Count a stem on an input of ``size`` x ``size`` pixels, and return the height of its output."""
    if layer["op"] == "patch":
        out = size // layer["patch"]
        position = Cost(0, layer["out"] * layer["grid"] ** 2)
        return _conv(layer["in"], layer["out"], layer["patch"], out * out, bias=True) + position, out
    if layer["op"] == "stem":
        out = -(-size // layer["stride"])
        return _conv(layer["in"], layer["out"], 3, out * out) + _norm(layer["out"]), out
    out = -(-size // 2)
    mid = layer["mid"]
    total = _conv(layer["in"], mid, 3, out * out) + _norm(mid)
    if layer["residual"]:
        total = total + _conv(mid, mid, 3, out * out) + _norm(mid)
    return total + _conv(mid, layer["out"], 3, out * out) + _norm(layer["out"]), -(-out // 2)  # the max pool


def _head(layer: Mapping[str, Any], pixels: int) -> Cost:
    if layer["op"] == "norm_head":
        return _norm(layer["in"]) + _conv(layer["in"], layer["out"], 1, 1, bias=True)
    if layer["op"] == "mobile_head":
        cost = _conv(layer["in"], layer["mid"], 1, pixels) + _norm(layer["mid"])
        cost = cost + _conv(layer["mid"], layer["features"], 1, 1)
        return cost + _conv(layer["features"], layer["out"], 1, 1, bias=True)
    cost = Cost(0, 0)
    if layer["features"]:
        cost = _conv(layer["in"], layer["features"], 1, pixels) + _norm(layer["features"])
    return cost + _conv(layer["features"] or layer["in"], layer["out"], 1, 1, bias=True)


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
    if op in ("head", "mobile_head", "norm_head"):
        return _head(layer, size * size), 1
    if op in ("stem", "resnet_stem", "patch"):
        return _stem(layer, size)
    out = -(-size // layer["stride"])  # odd kernels with padding k // 2 give the ceiling
    if op == "basic":
        return _basic(layer, out * out), out
    if op == "mbconv":
        return _mbconv(layer, size * size, out * out), out
    if op == "bottleneck":
        return _bottleneck(layer, size * size, out * out), out
    if op == "vit":
        return _vit(layer, size * size), size
    raise ValueError(f"layer op {op!r} is not one that this version knows")


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
