"""Archs as values, the three spaces' published numbers, and what a description may not say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nas_kd
from nas_kd.errors import SettingError
from nas_kd.space import Arch, BasicStage, Candidate, ConvStem, ElasticSpace, LinearHead, MBStage

# A changed hash makes every finished run and saved arch foreign: change these only together with the spaces.
GOLDEN = {
    "digits": ("4bca99d89d50", "1ed98082e679", "93b7d06f404e"),
    "mobilenet_cifar": ("fbe592668706", "397058af3588", "5ecae9466f01"),
    "resnet_cifar": ("984e60c0b700", "cc726bb1adfa", "01381e368b60"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_hashes_and_keys_stay(name: str) -> None:
    space = nas_kd.load_space(name)
    assert (space.hash, space.largest().key, space.smallest().key) == GOLDEN[name]


def test_numbers_of_candidates() -> None:
    resnet, mobile = nas_kd.load_space("resnet_cifar"), nas_kd.load_space("mobilenet_cifar")
    # 3 widths x (4 + 16 + 64); 2 widths x 2 squeeze-excite x (9 + 81 + 729)
    assert [len(set(stage.candidates())) for stage in resnet.stages] == [252] * 3
    assert [len(set(stage.candidates())) for stage in mobile.stages] == [3276] * 5
    assert resnet.size == 252**3 == 16_003_008 and mobile.size == 3276**5
    digits = nas_kd.load_space("digits")
    assert digits.size == 46_656 == len(set(digits))


def test_largest_resnet_is_small_enough_for_two_cores() -> None:
    space = nas_kd.load_space("resnet_cifar")
    assert 10e6 < space.cost(space.largest(), num_classes=10).macs < 11.5e6


def test_equal_archs_have_equal_keys_whatever_type_their_numbers_have() -> None:
    space = nas_kd.load_space("mobilenet_cifar")
    arch = space.smallest()
    other = replace(
        arch,
        stages=tuple(Candidate(c.width, tuple((float(k), e, int(s)) for k, e, s in c.layers)) for c in arch.stages),
    )
    assert other == arch and hash(other) == hash(arch) and other.key == arch.key
    space.validate(other)


def test_arch_of_a_damaged_dictionary_is_refused() -> None:
    good = nas_kd.load_space("digits").largest().to_dict()
    stage = good["stages"][0]
    for bad in (
        {},
        [],
        {k: v for k, v in good.items() if k != "space"},
        good | {"stages": 3},
        good | {"stages": [{"width": 8}]},
        good | {"stages": [stage | {"width": "wide"}]},
        good | {"stages": [stage | {"layers": [4]}]},
    ):
        with pytest.raises(SettingError, match="arch"):
            Arch.from_dict(bad)  # type: ignore[arg-type]


def test_archs_sort_out_as_dictionary_keys_and_have_labels() -> None:
    space = nas_kd.load_space("digits")
    archs = [space.sample(seed) for seed in range(50)]
    assert len({arch.key for arch in archs}) == len(set(archs)) == len({arch.label for arch in archs})
    assert Candidate(16, ((8,), (12,))).label == "w16:8,12"
    assert Candidate(16, ((8,), (12,))).depth == 2


def test_hash_knows_the_choices_but_not_the_name() -> None:
    def space(name: str = "a", width: int = 16, mids: tuple[int, ...] = (4, 8), features: int = 0) -> ElasticSpace:
        stage = BasicStage(widths=(8, 16), depths=(1, 2), mids=mids)
        return ElasticSpace(name, ConvStem(width), (stage,), LinearHead(features))

    assert space().hash == space("b").hash
    assert len({space().hash, space(width=8).hash, space(mids=(4,)).hash, space(features=32).hash}) == 4


def test_costs_of_many_codes() -> None:
    space = nas_kd.load_space("resnet_cifar")
    codes = np.random.default_rng(0).integers(0, 252, (100_000, 3))
    frame = space.costs(codes, num_classes=10)
    assert len(frame) == len(codes) and frame.dtypes.eq("int64").all()
    for row in (0, 77, 99_999):
        (arch,) = space.decode(codes[row : row + 1])
        assert tuple(frame.iloc[row]) == space.cost(arch, num_classes=10)


def test_stride_and_resolution_of_the_stages() -> None:
    assert nas_kd.load_space("resnet_cifar").stage_sizes() == [16, 8, 4]
    assert nas_kd.load_space("mobilenet_cifar").stage_sizes(224) == [224, 112, 56, 56, 28]
    assert nas_kd.load_space("digits").stage_sizes(9) == [9, 5, 3]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: BasicStage(widths=(), depths=(1,), mids=(8,)), "widths"),
        (lambda: BasicStage(widths=(16, 8), depths=(1,), mids=(8,)), "widths"),
        (lambda: BasicStage(widths=(8, 8), depths=(1,), mids=(8,)), "widths"),
        (lambda: BasicStage(widths=(8,), depths=(0, 1), mids=(8,)), "depths"),
        (lambda: BasicStage(widths=(8,), depths=(1,), mids=(-4, 8)), "mids"),
        (lambda: BasicStage(widths=(8,), depths=(1,), mids=(8,), stride=3), "stride"),
        (lambda: MBStage(widths=(8,), depths=(1,), kernels=(3, 4)), "kernels"),
        (lambda: MBStage(widths=(8,), depths=(1,), expands=(6, 3)), "expands"),
        (lambda: MBStage(widths=(8,), depths=(1,), ses=()), "ses"),
        (lambda: ElasticSpace("empty", ConvStem(), ()), "stages"),
    ],
)
def test_impossible_descriptions_are_refused(make, field: str) -> None:
    with pytest.raises(SettingError, match=f"^{field}="):
        make()


def test_expand_one_keeps_the_width() -> None:
    stage = MBStage(widths=(8, 20), depths=(1,), kernels=(3,), expands=(1, 4), ses=(False,))
    (layer,) = stage.resolve(Candidate(20, ((3, 1, False),)), 12)
    assert (layer["mid"], layer["se"]) == (12, 0)
    (layer,) = stage.resolve(Candidate(20, ((3, 4, True),)), 12)
    assert (layer["mid"], layer["se"]) == (48, 16)  # 48 / 4 = 12 lies between 8 and 16: ties go up
