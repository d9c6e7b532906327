"""The published spaces against published numbers, and against numbers that other people's code counted.

Golden numbers with six digits and more were counted by the released code of OFA (MIT) and of AttentiveNAS and
AlphaNet (run beside ours, none of it is here): forward hooks on their extracted networks, 1000 classes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nas_kd
from nas_kd.blocks import ViTStage
from nas_kd.space import Arch, ElasticSpace
from search_spaces import attentive_nas, ofa_mobilenet_v3, ofa_resnet50d, vit

CLASSES = 1000


def counted(space: ElasticSpace, arch: Arch, resolution: int) -> tuple[int, int]:
    """Count MACs and parameters of the built network by running it, on shapes alone."""
    with torch.device("meta"):
        net = space.build(arch, CLASSES).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, resolution, resolution))
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


def unused_shortcuts(space: ElasticSpace, arch: Arch) -> int:
    """Return the weights of the 1x1 convolutions that AttentiveNAS keeps beside identity shortcuts."""
    blocks = [layer for layer in space.layers(arch, CLASSES) if layer["op"] == "mbconv"]
    return sum(block["out"] ** 2 for block in blocks if block["in"] == block["out"])


# ---- how many ----------------------------------------------------------------------------------------


def per_layer(choices: int, *depths: int) -> int:
    """Count the candidates of a stage of one width whose layers choose on their own."""
    return sum(choices**depth for depth in depths)


SIZES = {
    # stem and head widths, resolutions; then widths x depths x kernels x expands of the stages
    "attentive_nas": 2
    * 2
    * 4
    * prod((2 * 2 * 2 * 1, 2 * 3 * 2 * 3, 2 * 4 * 2 * 3, 2 * 4 * 2 * 3))
    * prod((3 * 6 * 2 * 3, 4 * 6 * 2 * 1, 2 * 2 * 2 * 1)),
    "ofa_mobilenet_v3": per_layer(3 * 3, 2, 3, 4) ** 5,
    "ofa_mobilenet_v3_w12": per_layer(3 * 3, 2, 3, 4) ** 5,
    "ofa_proxyless": per_layer(3 * 3, 2, 3, 4) ** 5 * 9,
    "ofa_resnet50d": prod(per_layer(3, d, d + 1, d + 2) for d in (2, 2, 4, 2)) * 2 * 3**6,
    "dna": 36 * 1296**4 * 6,
    "vit": 3 * per_layer(2 * 2, 12, 13, 14),  # one width for all, as AutoFormer-T has it
    "vit_cifar": 3 * per_layer(2 * 2, 12, 13, 14),
}


@pytest.mark.parametrize("name", SIZES)
def test_cardinality(name: str) -> None:
    assert nas_kd.load_space(name).size == SIZES[name]


def test_cardinalities_as_printed() -> None:
    """The literal numbers, so that no formula above can be wrong together with the code."""
    printed = {
        "attentive_nas": 440_301_256_704,
        "ofa_mobilenet_v3": 7371**5,
        "ofa_proxyless": 7371**5 * 9,
        "ofa_resnet50d": 2_458_914_796_962,
        "vit": 1_056_964_608,
    }
    assert {name: nas_kd.load_space(name).size for name in printed} == printed


def test_a_small_copy_of_the_transformers_is_enumerated() -> None:
    stages = (
        ViTStage(widths=vit.WIDTHS, depths=(1,), heads=(3, 4), mlp_ratios=(3.5, 4)),
        ViTStage(widths=vit.WIDTHS, depths=(1, 2, 3), heads=(3, 4), mlp_ratios=(3.5, 4)),
    )
    small = replace(vit.SPACE, stages=stages)
    archs = list(small)
    assert len(set(archs)) == len(archs) == small.size == 3 * (4**2 + 4**3 + 4**4)
    per_width = Counter(arch.stem[0] for arch in archs)
    assert per_width == dict.fromkeys(vit.WIDTHS, 4**2 + 4**3 + 4**4)
    assert all({c.width for c in arch.stages} == {arch.stem[0]} for arch in archs)


def test_a_third_of_the_resnets_is_there_twice() -> None:
    """OFA's middle stem widths of 0.65 and 0.8 both round to 24 channels, and its number counts both."""
    stem = ofa_resnet50d.SPACE.stem
    networks = {str(stem.resolve(setting, 3)) for setting in stem.choices()}
    assert (len(stem.choices()), len(networks)) == (18, 12)


def test_dna_has_the_prefix_tree_of_the_literature() -> None:
    stage = nas_kd.load_space("dna").stages[2]
    prefixes = {c.layers[:depth] for c in stage.candidates() for depth in range(1, 5)}
    assert (stage.size, len(prefixes), stage.size * 4) == (1296, 1554, 5184)


# ---- how large ---------------------------------------------------------------------------------------

# name of the arch, resolution, published MMACs (three digits where they were computed, none where printed),
# MACs, and parameters with the shortcuts that nobody uses
ATTENTIVE = [
    ("a0", 192, "203.390", 203_389_568, 9_064_648),
    ("a1", 224, "279", 279_238_816, 9_563_336),
    ("a2", 224, "317", 316_730_080, 11_306_560),
    ("a3", 224, "356.518", 356_518_400, 12_999_072),
    ("a4", 256, "444", 443_530_752, 11_997_928),
    ("a5", 256, "491", 490_520_064, None),
    ("a5_small", 256, "491", 491_481_088, 13_196_944),
    ("a5_base", 288, "594.786", 594_786_000, 12_602_440),
    ("a6", 288, "709.007", 709_007_232, 15_441_448),
    ("max", 288, "1939.336", 1_939_335_808, 23_934_704),
    ("max", 224, "1179.098", 1_179_097_728, 23_934_704),
    ("max", 192, "870.251", 870_251_008, 23_934_704),
    ("min", 288, "449.395", 449_394_848, 9_064_648),
    ("min", 192, "203.390", 203_389_568, 9_064_648),
]


def rounded(macs: int, published: str) -> str:
    digits = len(published.partition(".")[2])
    return f"{macs / 1e6:.{digits}f}"


@pytest.mark.parametrize(("name", "resolution", "published", "macs", "params"), ATTENTIVE)
def test_attentive_nas(name: str, resolution: int, published: str, macs: int, params: int | None) -> None:
    space = attentive_nas.SPACE
    arch = attentive_nas.ARCHS.get(name) or (space.largest() if name == "max" else space.smallest())
    if name in attentive_nas.ARCHS:
        assert arch.resolution == resolution and space.cost(arch, num_classes=CLASSES).macs == macs
    cost = space.cost(arch, resolution=resolution, num_classes=CLASSES)
    assert cost == counted(space, arch, resolution)
    assert cost.macs == macs and rounded(macs, published) == published
    if params is not None:
        assert cost.params + unused_shortcuts(space, arch) == params


def test_a0_is_the_smallest() -> None:
    assert attentive_nas.ARCHS["a0"] == attentive_nas.SPACE.smallest()


def test_parameters_of_attentive_nas_as_printed() -> None:
    """Both numbers: what networks use and we hold, and what the released code allocates."""
    space = attentive_nas.SPACE
    small, large = space.smallest(), space.largest()
    used = [space.cost(arch, num_classes=CLASSES).params for arch in (small, large)]
    assert used == [8_954_184, 23_404_080]
    allocated = [n + unused_shortcuts(space, arch) for n, arch in zip(used, (small, large), strict=True)]
    assert [f"{n / 1e6:.6f}" for n in allocated] == ["9.064648", "23.934704"]


def test_parameters_of_the_attentive_nas_supernet() -> None:
    """Ours has no shortcut convolution where every network has the identity."""
    space = attentive_nas.SPACE
    with torch.device("meta"):
        net = nas_kd.Supernet(space, CLASSES)
    have = sum(p.numel() for p in net.parameters())
    left_out, before = 0, space.stem.widths
    for stage in space.stages:
        first = before == stage.widths == stage.widths[:1]  # no choice changes the shape
        left_out += (stage.depths[-1] - 1 + first) * stage.widths[-1] ** 2
        before = stage.widths
    assert have + left_out == 23_934_704
    shortcuts = [p for key, p in net.named_parameters() if "shortcut" in key]
    assert len(shortcuts) == len(space.stages)
    assert len(list(net.parameters())) + sum(stage.depths[-1] - 1 for stage in space.stages) == 469


OFA = [
    ("ofa_mobilenet_v3", "max", 224, "566.171", 566_170_656, 7_664_760),
    ("ofa_mobilenet_v3", "min", 128, "41.476", None, 3_410_792),
    ("ofa_mobilenet_v3", "min", 224, "121.279", 121_278_672, 3_410_792),
    ("ofa_mobilenet_v3_w12", "max", 224, "843.101", 843_101_040, 10_701_632),
    ("ofa_mobilenet_v3_w12", "min", 160, "100.321", 100_320_888, 4_602_456),
    ("ofa_mobilenet_v3", "note8_22ms", 140, "67.197", 67_196_888, 4_304_592),
    ("ofa_mobilenet_v3", "note8_22ms", 140, "67", 67_196_888, 4_304_592),
]


@pytest.mark.parametrize(("name", "which", "resolution", "published", "macs", "params"), OFA)
def test_ofa(name: str, which: str, resolution: int, published: str, macs: int | None, params: int) -> None:
    space = nas_kd.load_space(name)
    ends = {"max": space.largest(), "min": space.smallest()}
    arch = ends.get(which) or ofa_mobilenet_v3.ARCHS[which]
    cost = space.cost(arch, resolution=resolution, num_classes=CLASSES)
    assert cost == counted(space, arch, resolution)
    assert rounded(cost.macs, published) == published and cost.params == params
    assert macs is None or cost.macs == macs


# name, seed of the arch, resolution, MACs, params
COUNTED_ELSEWHERE = [
    ("ofa_mobilenet_v3", 0, 128, 107_382_400, 5_784_104),
    ("ofa_mobilenet_v3", 1, 176, 172_617_824, 4_619_112),
    ("ofa_mobilenet_v3", 2, 224, 293_563_584, 4_867_920),
    ("ofa_mobilenet_v3_w12", 0, 128, 167_676_032, 8_030_728),
    ("ofa_mobilenet_v3_w12", 1, 176, 263_216_112, 6_361_624),
    ("ofa_mobilenet_v3_w12", 2, 224, 457_940_528, 6_718_944),
    ("ofa_proxyless", 0, 128, 201_131_776, 6_143_680),
    ("ofa_proxyless", 1, 176, 326_211_064, 4_876_912),
    ("ofa_proxyless", 2, 224, 581_739_328, 5_383_344),
    ("ofa_resnet50d", 0, 128, 905_617_984, 22_584_296),
    ("ofa_resnet50d", 1, 176, 1_748_879_552, 14_131_960),
    ("ofa_resnet50d", 2, 224, 3_052_656_000, 15_806_536),
    ("attentive_nas", 0, 192, 471_459_392, 17_484_152),
    ("attentive_nas", 1, 256, 685_988_608, 12_940_200),
    ("attentive_nas", 2, 192, 417_714_624, 13_110_816),
]


@pytest.mark.parametrize(("name", "seed", "resolution", "macs", "params"), COUNTED_ELSEWHERE)
def test_random_archs_cost_what_the_released_code_counts(
    name: str, seed: int, resolution: int, macs: int, params: int
) -> None:
    space = nas_kd.load_space(name)
    arch = space.sample(seed)
    cost = space.cost(arch, resolution=resolution, num_classes=CLASSES)
    more = unused_shortcuts(space, arch) if name == "attentive_nas" else 0
    assert (cost.macs, cost.params + more) == (macs, params)


def test_proxyless_and_resnet_at_their_ends() -> None:
    ends = {
        ("ofa_proxyless", 192): (738_741_248, 7_942_056),
        ("ofa_resnet50d", 224): (7_491_643_904, 48_105_992),
        ("ofa_proxyless", 140): (116_531_376, 3_718_832),
        ("ofa_resnet50d", 128): (315_079_552, 6_539_280),
    }
    for (name, resolution), cost in ends.items():
        space = nas_kd.load_space(name)
        arch = space.largest() if resolution >= 192 else space.smallest()
        assert space.cost(arch, resolution=resolution, num_classes=CLASSES) == cost


def timm_counted(name: str, **settings: Any) -> tuple[int, int]:
    # made with values, which some versions of timm read, and with attention as products, which all of torch count
    net: nn.Module = timm.create_model(name, **settings).eval().to("meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() // 2, sum(p.numel() for p in net.parameters())


def test_the_resnet_of_everyone_is_in_the_space() -> None:
    space, arch = ofa_resnet50d.SPACE, ofa_resnet50d.ARCHS["resnet50d"]
    assert arch.stem == (True, 32, 64)  # timm has the middle convolution too, without the shortcut around it
    assert space.cost(arch, num_classes=CLASSES) == timm_counted("resnet50d")


def test_the_tiny_transformer_of_everyone_is_in_the_space() -> None:
    space = vit.SPACE
    stages = [replace(stage.smallest(), layers=((3, 4),) * 3) for stage in space.stages]
    arch = space.arch(stages, stem=(192,))
    macs, params = space.cost(arch, num_classes=CLASSES)
    attention = 12 * 2 * 196**2 * 192  # queries with keys, and with values: no weights, so not counted
    theirs = timm_counted("vit_tiny_patch16_224", class_token=False, global_pool="avg")
    assert (macs + attention, params) == theirs
