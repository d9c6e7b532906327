"""TG-SAGE's guidance: what student and teacher see alike between images, by the best-matching layer."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from toys import drawer

import nas_kd
from nas_kd.rate.scores import SCORES, Bench
from nas_kd.rate.scores.guidance import Guidance, layer_features, teacher_guidance
from nas_kd.rate.scores.similarity import dissimilarities, rdm_correlation
from nas_kd.space import Arch
from nas_kd.supernet import calibrate


def test_dissimilarities_are_one_minus_the_correlation_of_two_images() -> None:
    x = drawer(torch.Generator().manual_seed(0))(6, 3, 2, 2)
    table = 1 - np.corrcoef(x.flatten(1).numpy())
    assert dissimilarities(x).numpy() == pytest.approx(table[np.triu_indices(6, 1)])


def test_guidance_is_the_mean_of_the_best_match_of_each_teacher_layer() -> None:
    """By numpy's correlations; another order or number of student layers changes nothing."""
    draw = drawer(torch.Generator().manual_seed(0))
    teacher = [draw(10, 4) for _ in range(3)]
    student = [draw(10, 2, 3) for _ in range(4)]
    ours, theirs = ([dissimilarities(layer) for layer in layers] for layers in (student, teacher))
    table = np.array([[np.corrcoef(s.numpy(), t.numpy())[0, 1] for s in ours] for t in theirs])
    wanted = table.max(1).mean()
    assert teacher_guidance(ours, theirs) == pytest.approx(wanted)
    assert teacher_guidance(ours[::-1] + ours[:1], theirs) == pytest.approx(wanted)
    pairs = [[float(rdm_correlation(s, t)) for s in student] for t in teacher]
    assert np.mean([max(row) for row in pairs]) == pytest.approx(wanted)


def test_a_turned_and_scaled_copy_of_every_layer_is_guided_fully_and_a_dead_one_not_at_all() -> None:
    draw = drawer(torch.Generator().manual_seed(0))
    teacher = [draw(10, 4), draw(10, 6)]
    mean_free = [layer - layer.mean(1, keepdim=True) for layer in teacher]
    student = [3.0 * layer[:, torch.randperm(layer.shape[1])] for layer in mean_free[::-1]]
    theirs = [dissimilarities(layer) for layer in teacher]
    assert teacher_guidance([dissimilarities(layer) for layer in student], theirs) == pytest.approx(1.0)
    assert teacher_guidance([torch.ones(45, dtype=torch.float64)], theirs) == -1.0


def test_layers_are_those_of_the_subnet(bench: Bench) -> None:
    net = bench.need_net()
    arch = net.space.largest()
    norm = calibrate(net, [bench.rating_images], [arch])[0]
    found = layer_features(net, arch, norm, bench.rating_images)
    assert len(found) == sum(stage.depth for stage in arch.stages)
    net.eval()
    ends = net.forward_stages(bench.rating_images, arch, norm).pre
    last = np.cumsum([stage.depth for stage in arch.stages]) - 1
    assert all(torch.equal(found[at], end) for at, end in zip(last, ends, strict=True))


def test_of_the_teachers_own_space_the_whole_teacher_is_guided_fully(derived: Bench) -> None:
    net = derived.need_net()
    space = derived.space
    measured = Guidance(net, derived.need_teacher(), derived.data, derived.runtime, images=24, calibration_images=48)
    assert len(measured.teacher) == len(space.stages)
    whole = layer_features(net, space.largest(), space.norm, measured.x)  # type: ignore[attr-defined]
    assert teacher_guidance([dissimilarities(layer) for layer in whole], measured.teacher) == pytest.approx(1.0)
    small = measured(space.smallest())
    assert small < measured(space.largest()) <= 1.0


def test_parts_of_an_image_that_are_rows_of_their_own_stay_together() -> None:
    """MobileViT's blocks see four rows an image: a batch gives what its images give one by one."""
    torch.manual_seed(0)
    x = torch.randint(0, 256, (30, 3, 64, 64), dtype=torch.uint8)
    data = nas_kd.load_data((x, torch.arange(30) % 3), rate=0.3, select=0.2)
    teacher = nas_kd.load_teacher(timm.create_model("mobilevit_xxs", num_classes=3)).bind(data)
    space = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(space)
    images = next(iter(data.rate.clean(3))).x
    together = layer_features(net, space.largest(), space.norm, images)
    alone = [layer_features(net, space.largest(), space.norm, image[None]) for image in images]
    assert max(feature.ndim for feature in together) == 4
    for place, feature in enumerate(together):
        assert torch.allclose(feature, torch.cat([each[place] for each in alone]), atol=1e-4)


def test_both_parts_are_added(bench: Bench, archs: list[Arch]) -> None:
    tg, accuracy, both = (SCORES[name].measure(bench, archs) for name in ("tg", "supernet_accuracy", "p_tg"))
    assert both == pytest.approx(np.add(tg, accuracy))
