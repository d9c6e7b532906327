"""Controls from an arch alone: its choices as numbers, and the depth of its last stage."""

from __future__ import annotations

import numpy as np

import nas_kd
from nas_kd.rate.scores import SCORES, Bench
from nas_kd.rate.scores.codes import choice_features
from nas_kd.runtime.device import Runtime
from nas_kd.space import Arch


def arch(*stages: tuple[int, list[int]]) -> Arch:
    own = [{"width": width, "layers": [[mid] for mid in mids]} for width, mids in stages]
    return Arch.from_dict({"space": nas_kd.load_space("resnet_cifar").hash, "resolution": None, "stages": own})


def test_widths_and_values_of_layers_with_0_where_there_is_none() -> None:
    archs = [
        arch((12, [4, 8]), (16, [32]), (48, [48])),
        arch((16, [4]), (16, [8]), (64, [48])),
        arch((12, [4, 16, 8]), (16, [32]), (48, [48])),
    ]
    features = choice_features(archs)
    # width 1, its second and third layers, the second stage's layer, width 3; what never differs is left out
    assert features.tolist() == [[12, 8, 0, 32, 48], [16, 0, 0, 8, 64], [12, 16, 8, 32, 48]]


def test_the_regression_finds_a_law_of_the_choices() -> None:
    space = nas_kd.load_space("resnet_cifar")
    archs = [space.sample(seed=seed) for seed in range(40)]
    features = choice_features(archs)
    law = features @ np.linspace(-1, 1, features.shape[1])
    known = {each.key: float(value) for each, value in zip(archs, law, strict=True)}
    bench = Bench(space, nas_kd.load_data("digits", subset=100), Runtime("cpu"), accuracies=known)
    predicted = SCORES["code_alone"].measure(bench, archs)
    # 30 archs for 13 columns or so, and the law is linear: only the ridge, at least 1e-4, is in the way
    assert np.corrcoef(predicted, law)[0, 1] > 0.99


def test_fewer_layers_in_the_last_stage() -> None:
    space = nas_kd.load_space("resnet_cifar")
    bench = Bench(space, nas_kd.load_data("digits", subset=100), Runtime("cpu"))
    given = [arch((12, [4, 8]), (16, [32]), (48, [48] * count)) for count in (1, 3)]
    score = SCORES["minus_last_depth"]
    assert score.measure(bench, given) == [1.0, 3.0] and not score.higher and score.kind == "size"


def test_units_of_a_teacher_that_are_left_out_count_as_0() -> None:
    data = nas_kd.load_data("digits", subset=100)
    teacher = nas_kd.load_teacher("cifar_resnet14", num_classes=10, in_chans=1)
    space = nas_kd.teacher_space(teacher.bind(data))
    features = choice_features([space.largest(), space.smallest()])
    assert (features[0] > features[1]).all() and (features[1] == 0).any()
