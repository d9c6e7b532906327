"""Counting layers by hand, and the rounding of channels against its definition."""

from __future__ import annotations

from fractions import Fraction

import pytest

from nas_kd.blocks import BasicStage, ConvStem, LinearHead, MBStage, kinds
from nas_kd.space import Cost, count_layers, make_divisible


def by_definition(value: Fraction | int, divisor: int) -> int:
    """Return the nearest multiple, ties up, at least the divisor; one more when over 10 % was lost."""
    multiples = range(divisor, int(value) + 2 * divisor + 1, divisor)
    nearest = min(multiples, key=lambda m: (abs(m - value), -m))
    return nearest if 10 * nearest >= 9 * value else nearest + divisor


@pytest.mark.parametrize("divisor", [8, 16])
def test_make_divisible_brute_force(divisor: int) -> None:
    before = 0
    for value in range(1, 4097):
        rounded = make_divisible(value, divisor)
        assert rounded == by_definition(value, divisor), value
        assert rounded % divisor == 0 and make_divisible(rounded, divisor) == rounded
        assert rounded >= before and 10 * rounded >= 9 * value
        before = rounded


def test_make_divisible_of_fractions() -> None:
    for quarter in range(4, 4 * 512):
        assert make_divisible(quarter / 4) == by_definition(Fraction(quarter, 4), 8), quarter


def test_basic_block_by_hand() -> None:
    layer = {"op": "basic", "in": 3, "mid": 5, "out": 7, "stride": 2}
    convs = 3 * 5 * 9 + 5 * 7 * 9 + 3 * 7  # conv1, conv2, projecting shortcut
    assert BasicStage.count(layer, 9) == (Cost(convs * 25, convs + 2 * (5 + 7 + 7)), 5)
    same = {"op": "basic", "in": 7, "mid": 5, "out": 7, "stride": 1}
    convs = 2 * 5 * 7 * 9
    assert BasicStage.count(same, 6) == (Cost(convs * 36, convs + 2 * (5 + 7)), 6)


def test_mbconv_by_hand() -> None:
    layer = {"op": "mbconv", "in": 8, "mid": 24, "out": 16, "stride": 2, "kernel": 5, "se": 8, "act": "silu"}
    macs = 8 * 24 * 49 + 24 * 25 * 16 + 2 * 24 * 8 + 24 * 16 * 16  # 7 x 7 in, 4 x 4 out
    params = 8 * 24 + 24 * 25 + 2 * 24 * 8 + 8 + 24 + 24 * 16 + 2 * (24 + 24 + 16)
    assert MBStage.count(layer, 7) == (Cost(macs, params), 4)
    plain = {**layer, "mid": 8, "se": 0}
    assert MBStage.count(plain, 7) == (Cost(8 * 25 * 16 + 8 * 16 * 16, 8 * 25 + 8 * 16 + 2 * (8 + 16)), 4)


def test_stem_and_head_by_hand() -> None:
    stem = {"op": "stem", "in": 3, "out": 8, "stride": 1, "act": "relu"}
    head = {"op": "head", "in": 8, "features": 0, "out": 10, "act": "relu"}
    mixed = {**head, "features": 20}
    first = Cost(3 * 8 * 9 * 36, 3 * 8 * 9 + 16)
    assert ConvStem.count(stem, 6) == (first, 6)
    assert LinearHead.count(head, 6) == (Cost(80, 90), 1)
    assert LinearHead.count(mixed, 6) == (Cost(8 * 20 * 36 + 200, 8 * 20 + 40 + 210), 1)
    assert count_layers([stem, head], 6, kinds()) == first + Cost(80, 90)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(KeyError, match="pool"):
        count_layers([{"op": "pool", "stride": 1}], 8, kinds())
