"""Archs as values, hashes that must stay, and what a description may not say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nas_kd
from nas_kd.blocks import (
    BasicStage,
    BottleneckStage,
    ConvStem,
    LinearHead,
    MBStage,
    MobileHead,
    NormHead,
    PatchStem,
    ResNetDStem,
    ViTStage,
)
from nas_kd.errors import SettingError
from nas_kd.space import Arch, Candidate, ElasticSpace

# A changed hash makes every finished run and saved arch foreign: change these only together with the spaces.
GOLDEN = {
    "attentive_nas": ("e2f9ae25fbe0", "279e4d792151", "68dc91b6f629"),
    "digits": ("4bca99d89d50", "1ed98082e679", "93b7d06f404e"),
    "dna": ("5884165fa500", "e7dad74d4d1d", "a14d0e423f92"),
    "mobilenet_cifar": ("fbe592668706", "397058af3588", "5ecae9466f01"),
    "ofa_mobilenet_v3": ("56c132235a82", "c2d242a21289", "24e0a65890c2"),
    "ofa_mobilenet_v3_w12": ("27fa1aea5fb1", "f6f8259c3f1b", "0addaf5f573f"),
    "ofa_proxyless": ("ca0cc78cddc7", "e1bdaf4383d6", "347d87d31e19"),
    "ofa_resnet50d": ("6eebfea7db37", "0af89f714389", "a40947f635e5"),
    "resnet_cifar": ("984e60c0b700", "cc726bb1adfa", "01381e368b60"),
    "vit": ("d6df482b83cb", "c93ad496d0d6", "af1686030750"),
    "vit_cifar": ("b5a59da18249", "65b1635fb1f7", "0dcdeb79a0dd"),
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


BASIC = BasicStage(widths=(8,), depths=(1,), mids=(8,), stride=2)
VIT = ViTStage(widths=(8,), depths=(1,), heads=(1,), head_dim=8)
WIDE_VIT = replace(VIT, widths=(16,))


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
        (lambda: MBStage(widths=(8,), depths=()), "depths"),
        (lambda: MBStage(widths=(8, 16.5), depths=(1,)), "widths"),
        (lambda: MBStage(widths=[8, 16], depths=(1,)), "widths"),
        (lambda: MBStage(widths=8, depths=(1,)), "widths"),
        (lambda: MBStage(widths="8", depths=(1,)), "widths"),
        (lambda: MBStage(widths=(8,), depths=(1,), expands=("3",)), "expands"),
        (lambda: ConvStem([8, 16]), "stem.width"),
        (lambda: MBStage(widths=(8,), depths=(1,), kernels=()), "kernels"),
        (lambda: MBStage(widths=(8,), depths=(1,), expands=()), "expands"),
        (lambda: BottleneckStage(widths=(8,), depths=(1,), expands=()), "expands"),
        (lambda: BottleneckStage(widths=(32, 48), depths=(1,), expands=(0.5,), group_width=16), "group_width"),
        (lambda: BottleneckStage(widths=(32,), depths=(1,), expands=(0.25, 0.5), group_width=-8), "group_width"),
        (lambda: ViTStage(widths=(8,), depths=(0,), heads=(1,)), "depths"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=()), "heads"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=(0, 1)), "heads"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=(1,), mlp_ratios=()), "mlp_ratios"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=(1,), mlp_ratios=(0.1,)), "mlp_ratios"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=(1,), head_dim=0), "head_dim"),
        (lambda: ViTStage(widths=(8,), depths=(1,), heads=(1,), stride=2), "stride"),
        (lambda: ConvStem(()), "stem.width"),
        (lambda: ConvStem((16, 8)), "stem.width"),
        (lambda: ConvStem(8, stride=4), "stem.stride"),
        (lambda: ResNetDStem(mid=()), "stem.mid"),
        (lambda: ResNetDStem(width=(8, 8)), "stem.width"),
        (lambda: ResNetDStem(residual=()), "stem.residual"),
        (lambda: PatchStem(8, patch=0), "stem.patch"),
        (lambda: PatchStem(8, grid=0), "stem.grid"),
        (lambda: LinearHead(()), "head.features"),
        (lambda: LinearHead((0, 8)), "head.features"),
        (lambda: MobileHead(()), "head.features"),
        (lambda: MobileHead(8, expand=0), "head.expand"),
        (lambda: MobileHead(8, channels=-1), "head.channels"),
        (lambda: ElasticSpace("empty", ConvStem(), (), LinearHead()), "stages"),
        (lambda: ElasticSpace("small", ConvStem(stride=2), (BASIC,), LinearHead(), resolution=3), "resolution"),
        (lambda: ElasticSpace("odd", PatchStem(8, patch=4), (VIT,), NormHead(), resolution=30), "resolution"),
        (lambda: ElasticSpace("none", ConvStem(), (BASIC,), LinearHead(), resolution=0), "resolution"),
        (
            lambda: ElasticSpace("other", ConvStem(), (BASIC,), LinearHead(), resolution=8, resolutions=(16, 32)),
            "resolution",
        ),
        (
            lambda: ElasticSpace("falls", ConvStem(), (BASIC,), LinearHead(), resolution=8, resolutions=(16, 8)),
            "resolutions",
        ),
        (
            lambda: ElasticSpace("one", ConvStem(2), (BASIC,), LinearHead(), resolution=8, resolutions=(1, 8)),
            "resolution",
        ),
        (lambda: ElasticSpace("widths", PatchStem((8, 16), patch=4), (VIT,), NormHead()), r"stages\[0\].widths"),
        (lambda: ElasticSpace("wider", PatchStem(8, patch=4), (VIT, WIDE_VIT), NormHead()), r"stages\[1\].widths"),
    ],
)
def test_impossible_descriptions_are_refused(make, field: str) -> None:
    with pytest.raises(SettingError, match=f"^{field}=.*expected "):
        make()


def test_group_width_is_checked_against_every_middle_width() -> None:
    with pytest.raises(SettingError, match=r"group_width=16: .*every middle width; they are 16, 24"):
        BottleneckStage(widths=(32, 48), depths=(1,), expands=(0.5,), group_width=16)
    BottleneckStage(widths=(32, 64), depths=(1,), expands=(0.5,), group_width=16)


def test_an_unusable_input_size_says_what_is_usable() -> None:
    space = nas_kd.load_space("vit")
    for size in (8, 60):
        with pytest.raises(
            SettingError, match=r"at least 16 and a multiple of the patch of 16 pixels.*data.resolution"
        ):
            space.cost(space.smallest(), resolution=size, num_classes=10)


def test_expand_one_keeps_the_width() -> None:
    stage = MBStage(widths=(8, 20), depths=(1,), kernels=(3,), expands=(1, 4), ses=(False,))
    (layer,) = stage.resolve(Candidate(20, ((3, 1, False),)), 12)
    assert (layer["mid"], layer["se"]) == (12, 0)
    (layer,) = stage.resolve(Candidate(20, ((3, 4, True),)), 12)
    assert (layer["mid"], layer["se"]) == (48, 16)  # 48 / 4 = 12 lies between 8 and 16: ties go up
