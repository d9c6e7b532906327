"""The tensors of published supernets, listed from their tables of stages: names, shapes, and whether ours need them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple


class Entry(NamedTuple):
    """One tensor of a published file; ``used`` is false where no network of ours reads it."""

    name: str
    shape: tuple[int, ...]
    used: bool = True


def conv(name: str, outputs: int, inputs: int, kernel: int = 1) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (outputs, inputs, kernel, kernel))


def norm(name: str, channels: int) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (channels,))
    yield Entry(f"{name}.bias", (channels,))
    yield from statistics(name, channels)


def statistics(name: str, channels: int) -> Iterator[Entry]:
    yield Entry(f"{name}.running_mean", (channels,), False)
    yield Entry(f"{name}.running_var", (channels,), False)
    yield Entry(f"{name}.num_batches_tracked", (), False)


def linear(name: str, outputs: int, inputs: int) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", (outputs, inputs))
    yield Entry(f"{name}.bias", (outputs,))


def squeeze(name: str, channels: int, hidden: int) -> Iterator[Entry]:
    for part, outputs, inputs in (("reduce", hidden, channels), ("expand", channels, hidden)):
        yield from conv(f"{name}.fc.{part}", outputs, inputs)
        yield Entry(f"{name}.fc.{part}.bias", (outputs,))


def eighths(value: float) -> int:
    """Return the nearest multiple of 8, ties up, or the next one where that is less than nine tenths."""
    nearest = int(value / 8 + 0.5) * 8
    return nearest if nearest >= 0.9 * value else nearest + 8


def ofa_mobile_block(name: str, inputs: int, outputs: int, hidden: int = 0) -> Iterator[Entry]:
    mid = inputs * 6
    yield from conv(f"{name}.inverted_bottleneck.conv.conv", mid, inputs)
    yield from norm(f"{name}.inverted_bottleneck.bn.bn", mid)
    yield Entry(f"{name}.depth_conv.conv.5to3_matrix", (9, 9))
    yield Entry(f"{name}.depth_conv.conv.7to5_matrix", (25, 25))
    yield from conv(f"{name}.depth_conv.conv.conv", mid, 1, 7)
    yield from norm(f"{name}.depth_conv.bn.bn", mid)
    if hidden:
        yield from squeeze(f"{name}.depth_conv.se", mid, hidden)
    yield from conv(f"{name}.point_linear.conv.conv", outputs, mid)
    yield from norm(f"{name}.point_linear.bn.bn", outputs)


def ofa_first_block(name: str, inputs: int, outputs: int) -> Iterator[Entry]:
    yield from conv(f"{name}.depth_conv.conv", inputs, 1, 3)
    yield from norm(f"{name}.depth_conv.bn", inputs)
    yield from conv(f"{name}.point_linear.conv", outputs, inputs)
    yield from norm(f"{name}.point_linear.bn", outputs)


def ofa_mobilenet_v3(width: float = 1.0, inner: str = "conv", classes: int = 1000) -> Iterator[Entry]:
    """``inner`` is the name of a block's inside: older files say mobile_inverted_conv."""
    widths = [eighths(width * channels) for channels in (16, 24, 40, 80, 112, 160)]
    yield from conv("first_conv.conv", widths[0], 3, 3)
    yield from norm("first_conv.bn", widths[0])
    yield from ofa_first_block(f"blocks.0.{inner}", widths[0], widths[0])
    number = 0
    for (before, after), squeezes in zip(pairwise(widths), (False, True, False, True, True), strict=True):
        for inputs in (before, after, after, after):
            number += 1
            hidden = eighths(inputs * 6 / 4) if squeezes else 0
            yield from ofa_mobile_block(f"blocks.{number}.{inner}", inputs, after, hidden)
    last = eighths(width * 960)
    features = eighths(width * 1280)
    yield from conv("final_expand_layer.conv", last, widths[-1])
    yield from norm("final_expand_layer.bn", last)
    yield from conv("feature_mix_layer.conv", features, last)
    yield from linear("classifier.linear", classes, features)


def ofa_proxyless(inner: str = "conv", classes: int = 1000) -> Iterator[Entry]:
    stem, first, *widths = (eighths(1.3 * channels) for channels in (32, 16, 24, 40, 80, 96, 192, 320))
    yield from conv("first_conv.conv", stem, 3, 3)
    yield from norm("first_conv.bn", stem)
    yield from ofa_first_block(f"blocks.0.{inner}", stem, first)
    number = 0
    before = first
    for after, depth in zip(widths, (4, 4, 4, 4, 4, 1), strict=True):
        for _ in range(depth):
            number += 1
            yield from ofa_mobile_block(f"blocks.{number}.{inner}", before, after)
            before = after
    features = eighths(1.3 * 1280)
    yield from conv("feature_mix_layer.conv", features, before)
    yield from norm("feature_mix_layer.bn", features)
    yield from linear("classifier.linear", classes, features)


def ofa_resnet50d(classes: int = 1000) -> Iterator[Entry]:
    for name, outputs, inputs in (("0", 32, 3), ("1.conv", 32, 32), ("2", 64, 32)):
        yield from conv(f"input_stem.{name}.conv.conv", outputs, inputs, 3)
        yield from norm(f"input_stem.{name}.bn.bn", outputs)
    number = 0
    before = 64
    for after, depth in ((256, 4), (512, 4), (1024, 6), (2048, 4)):
        mid = eighths(after * 0.35)
        for index in range(depth):
            name = f"blocks.{number}"
            for layer, outputs, inputs, kernel in (
                ("conv1", mid, before, 1),
                ("conv2", mid, mid, 3),
                ("conv3", after, mid, 1),
            ):
                yield from conv(f"{name}.{layer}.conv.conv", outputs, inputs, kernel)
                yield from norm(f"{name}.{layer}.bn.bn", outputs)
            if index == 0:
                yield from conv(f"{name}.downsample.conv.conv", after, before)
                yield from norm(f"{name}.downsample.bn.bn", after)
            number += 1
            before = after
    yield from linear("classifier.linear.linear", classes, before)


def tracked(name: str, channels: int) -> Iterator[Entry]:
    """Yield a norm of AttentiveNAS: two more keep the statistics of the largest and the smallest network."""
    yield from norm(f"{name}.bn", channels)
    for index in (0, 1):
        yield from statistics(f"{name}.bn_tracking.{index}", channels)


# largest width, depth and expand ratio, and whether there is squeeze-excite
ATTENTIVE_STAGES = (
    (24, 2, 1, False),
    (32, 5, 6, False),
    (40, 6, 6, True),
    (72, 6, 6, False),
    (128, 8, 6, True),
    (216, 8, 6, True),
    (224, 2, 6, True),
)


def attentive_nas(classes: int = 1000) -> Iterator[Entry]:
    before = 24
    yield from conv("first_conv.conv.conv", before, 3, 3)
    yield from tracked("first_conv.bn", before)
    number = 0
    for after, depth, expand, squeezes in ATTENTIVE_STAGES:
        for index in range(depth):
            name = f"blocks.{number}"
            inner = f"{name}.mobile_inverted_conv"
            mid = before * expand
            if expand != 1:
                yield from conv(f"{inner}.inverted_bottleneck.conv.conv", mid, before)
                yield from tracked(f"{inner}.inverted_bottleneck.bn", mid)
            yield from conv(f"{inner}.depth_conv.conv.conv", mid, 1, 5)
            yield from tracked(f"{inner}.depth_conv.bn", mid)
            if squeezes:
                yield from squeeze(f"{inner}.depth_conv.se", mid, eighths(mid / 4))
            yield from conv(f"{inner}.point_linear.conv.conv", after, mid)
            yield from tracked(f"{inner}.point_linear.bn", after)
            # later blocks keep the shape whatever is chosen
            yield Entry(f"{name}.shortcut.conv.conv.weight", (after, before, 1, 1), index == 0)
            number += 1
            before = after
    yield from conv("last_conv.final_expand_layer.conv.conv", 6 * before, before)
    yield from tracked("last_conv.final_expand_layer.bn", 6 * before)
    yield from conv("last_conv.feature_mix_layer.conv.conv", 1984, 6 * before)
    yield from linear("classifier.linear.linear", classes, 1984)


FILES = {
    "ofa_mobilenet_v3": ofa_mobilenet_v3,
    "ofa_mobilenet_v3_w12": lambda **more: ofa_mobilenet_v3(1.2, **more),
    "ofa_proxyless": ofa_proxyless,
    "ofa_resnet50d": ofa_resnet50d,
    "attentive_nas": attentive_nas,
}
KERNEL_TRANSFORMS = ("ofa_mobilenet_v3", "ofa_mobilenet_v3_w12", "ofa_proxyless")
