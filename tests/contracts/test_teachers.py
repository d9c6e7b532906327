"""Every timm classification model that runs at a size can teach every shipped space that takes that size.

A verdict is a step of blockwise training on real taps: the teacher's features of two images, scaled, the smallest
candidate of every stage between its adapters, a loss that is finite and reaches the stage. Weights are random.
"""

from __future__ import annotations

import gc
from collections import Counter
from functools import cache
from pathlib import Path as FilePath

import pytest
import timm
import torch

import nas_kd
from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.errors import SettingError
from nas_kd.space import ElasticSpace
from nas_kd.space.paths import Path, entries
from nas_kd.supernet import Supernet
from nas_kd.teacher import Tap, Teacher, load_teacher
from nas_kd.teacher.stored_features import feature_bytes
from nas_kd.train.stages import Blockwise

CLASSES = 4
# the slow test of every family has the like of repvgg, efficientnet and the plain ViT
HANDFUL = (
    "resnet18",
    "convnext_atto",
    "test_vit",
    "swin_tiny_patch4_window7_224",
    "mobilenetv4_conv_small",
    "mixer_s32_224",
)
# a small model of each family (timm's modules); a family that is not here is tried by its first model
SMALL = """
beit_base_patch16_224 eca_botnext26ts_256 repvgg_a0 cait_xxs24_224 coat_lite_tiny convit_tiny convmixer_768_32
convnext_atto cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny deepseek_vit_412m
deit_tiny_distilled_patch16_224 densenet121 dla46_c dpn48b edgenext_xx_small efficientformer_l1 efficientformerv2_s0
efficientnet_lite0 efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050 hardcorenas_a hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny
hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s
lowformer_b0 mambaout_femto coatnet_pico_rw_224 maxvit_rmlp_pico_rw_256 poolformer_s12 mixer_s32_224
mobilenetv3_small_100 mobilenetv4_conv_small mobilenetv5_300m mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_gap
nasnetalarge nest_tiny nextvit_small nf_resnet26 pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny
regnety_002 repghostnet_050 repvit_m0_9 res2net50_26w_4s resnest14d resnet18 resnetv2_18 rexnet_100 selecsls42
legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small vgg11
visformer_tiny vit_tiny_patch16_224 test_vit vit_tiny_r_s16_p8_224 vit_srelpos_small_patch16_224
samvit_base_patch16_224 vitamin_small_224 volo_d1_224 ese_vovnet19b_slim legacy_xception xception41
xcit_nano_12_p16_224
""".split()


def families() -> list[str]:
    """Return a model of every family that is installed."""
    known = {name for name in SMALL if timm.is_model(name)}
    names = sorted(known)
    for module in timm.list_modules():
        models = timm.list_models(module=module)
        if models and not known.intersection(models):
            names.append(models[0])
    return names


@cache
def supernet(space: str) -> Supernet:
    return nas_kd.Supernet(nas_kd.load_space(space), num_classes=CLASSES)


def teach(teacher: Teacher, space: str, size: int) -> list[Tap]:
    """Match a teacher and a space and take one step of blockwise training; raise where that cannot be done."""
    net = supernet(space)
    taps = teacher.match(net.space, size)
    sizes = net.space.stage_sizes(size)
    assert [tap.student_size for tap in taps] == sizes
    assert [tap.compared for tap in taps] == [min(tap.size, s) for tap, s in zip(taps, sizes, strict=True)]
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    out = teacher.forward_stages(x)
    assert out.logits.shape == (2, CLASSES)
    for tap, post in zip(taps, out.stages, strict=True):
        assert tuple(post.shape) == (2, tap.channels, tap.size, tap.size)
    model = Blockwise(net, taps)
    pairs = model.rescale(model.features(x, out))
    for index, (pair, tap) in enumerate(zip(pairs, taps, strict=True)):
        assert tuple(pair.targets.shape) == (2, tap.channels, tap.compared, tap.compared)
        entry = entries(net.space, index)[0]
        candidate = net.space.smallest().stages[index]
        loss = model.loss(index, pair, [Path(entry, candidate)])
        loss.backward()
        assert loss.isfinite(), f"{space}, stage {index + 1}: {loss}"
        reached = [p.grad for p in model.stages[index].parameters() if p.grad is not None]
        assert reached and all(grad.isfinite().all() for grad in reached)
    return taps


@pytest.mark.parametrize("name", HANDFUL)
def test_a_timm_model_teaches_the_shipped_spaces(name: str) -> None:
    torch.manual_seed(0)
    for size, spaces in ((32, ("resnet_cifar", "mobilenet_cifar")), (64, ("ofa_mobilenet_v3", "vit"))):
        teacher = load_teacher(name, num_classes=CLASSES, resolution=size)
        for space in spaces:
            teach(teacher, space, size)


def test_a_small_convolutional_student_is_taught_at_the_size_of_large_patches() -> None:
    taps = teach(load_teacher("vit_tiny_patch16_224", num_classes=CLASSES, resolution=64), "ofa_mobilenet_v3", 64)
    assert [(tap.student_size, tap.size, tap.compared) for tap in taps] == [
        *((32, 4, 4), (16, 4, 4), (8, 4, 4)),
        *((4, 4, 4), (4, 4, 4), (2, 4, 2)),
    ]
    assert [tap.path for tap in taps] == [f"blocks.{i}" for i in (1, 3, 5, 7, 9, 11)]


def test_stages_are_rated_against_smaller_maps_live_and_stored(tmp_path: FilePath) -> None:
    stages = tuple(BasicStage(widths=(4, 8), depths=(1,), mids=(4,), stride=stride) for stride in (1, 2))
    net = nas_kd.Supernet(ElasticSpace("tiny", ConvStem(width=8), stages, LinearHead(), 32), num_classes=3)
    x = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = nas_kd.load_data((x, torch.arange(60) % 3), rate=12, select=9, views=2)
    torch.manual_seed(0)
    teacher = load_teacher("test_convnext", num_classes=3)
    settings = {"epochs": 1, "batch_size": 15, "calibration_images": 30}
    live = nas_kd.rate_blockwise(net, teacher, data, run=tmp_path / "live", **settings)
    assert [(tap.student_size, tap.size) for tap in teacher.taps or ()] == [(32, 8), (16, 8)]
    stored = nas_kd.rate_blockwise(net, teacher, data, run=tmp_path / "stored", cache_gb=1.0, **settings)
    files = list((tmp_path / "stored" / "teacher" / "features").rglob("*.npy"))
    features = sum(file.stat().st_size - 128 for file in files)
    assert features == feature_bytes(teacher.taps or (), len(data.train), 2)
    for one, other in zip(live, stored, strict=True):
        assert one["score"].notna().all() and (one["score"] > 0).all()
        assert (one["score"] - other["score"]).abs().max() < 0.02 * one["score"].mean()


def runs(name: str, size: int) -> bool:
    """Return whether timm's own network runs at a size, without any of our code."""
    fixed = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    try:
        with torch.no_grad():
            timm.create_model(name, num_classes=CLASSES, **fixed).eval()(torch.zeros(2, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, IndexError):
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_family_teaches_the_shipped_spaces() -> None:
    names = families()
    taught: Counter[str] = Counter()
    refused = []
    for name in names:
        for size, spaces in ((32, ("resnet_cifar",)), (224, ("ofa_mobilenet_v3", "vit"))):
            torch.manual_seed(0)
            teacher = load_teacher(name, num_classes=CLASSES, resolution=size)
            for space in spaces:
                try:
                    teach(teacher, space, size)
                    taught[space] += 1
                except SettingError as error:
                    refused.append((name, space, size, str(error)))
            del teacher
            gc.collect()
    for space, count in taught.items():
        print(f"{space}: {count} of {len(names)} families")
    for name, space, size, message in refused:
        print(f"{name} does not teach {space} at {size} px: {message}")
        assert not runs(name, size), f"{name} runs at {size} px and does not teach {space}: {message}"
    assert len(taught) == 3 and min(taught.values()) >= 0.93 * len(names)
