"""NNI samples travel both ways, checked by the installed NNI itself."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import pytest

from nas_kd.blocks import BasicStage, ConvStem, LinearHead, MBStage, NormHead, PatchStem, ViTStage
from nas_kd.errors import SettingError
from nas_kd.space import ElasticSpace, load_space
from nas_kd.space.nni_codec import choices, from_sample, to_nni, to_sample

SPACES = ["digits", "mobilenet_cifar", "attentive_nas", "ofa_mobilenet_v3", "ofa_resnet50d", "vit_cifar"]
TINY = ElasticSpace(
    "tiny",
    ConvStem(8),
    (
        BasicStage(widths=(8, 16), depths=(1, 2), mids=(4, 8)),
        MBStage(widths=(16,), depths=(1,), kernels=(3, 5), expands=(3,), stride=2),
    ),
    LinearHead(),
)
TIED = ElasticSpace(
    "tied",
    PatchStem((8, 12), patch=4, grid=2),
    (
        ViTStage(widths=(8, 12), depths=(1,), heads=(1, 2), mlp_ratios=(2,), head_dim=4),
        ViTStage(widths=(8, 12), depths=(1, 2), heads=(1, 2), mlp_ratios=(2,), head_dim=4),
    ),
    NormHead(),
    resolution=8,
    resolutions=(8, 12),
)


@pytest.fixture(scope="module")
def mutable():
    return pytest.importorskip("nni.mutable")


@pytest.mark.parametrize("name", SPACES)
def test_labels_and_values(mutable, name):
    space = load_space(name)
    simple = {k: v for k, v in to_nni(space).simplify().items() if isinstance(v, mutable.Categorical)}
    assert {label: tuple(v.values) for label, v in simple.items()} == choices(space)
    assert len(simple) == len(to_nni(space).simplify())  # no constraints, so NNI's own random() works
    uniform = name == "attentive_nas"
    assert ("stage_2." if uniform else "stage_2.layer_1.") + space.stages[1].fields[0] in simple
    assert ("stage_1.se" in simple) == (name == "mobilenet_cifar")
    assert ("stage_1.width" in simple) == (name != "vit_cifar")  # there all stages have the stem's
    ends = {
        "attentive_nas": {"stem.width", "head.features", "resolution"},
        "ofa_resnet50d": {"stem.residual", "stem.mid", "stem.width"},
        "vit_cifar": {"stem.width"},
    }
    assert {label for label in simple if not label.startswith("stage")} == ends.get(name, set())


@pytest.mark.parametrize("name", SPACES)
def test_archs_travel_there_and_back(mutable, name):
    space = load_space(name)
    described = to_nni(space)
    for seed in range(50):
        arch = space.sample(seed)
        sample = to_sample(space, arch)
        assert described.validate(sample) is None  # raises when NNI does not accept it
        frozen = described.freeze(sample)
        assert frozen["stage_2"]["depth"] == arch.stages[1].depth
        if "width" in frozen["stage_1"]:
            assert frozen["stage_1"]["width"] == arch.stages[0].width
        if name != "attentive_nas":
            assert frozen["stage_2"]["layer_1"][space.stages[1].fields[0]] == arch.stages[1].layers[0][0]
        assert from_sample(space, json.loads(json.dumps(sample))) == arch
    for arch in (space.largest(), space.smallest()):
        assert from_sample(space, to_sample(space, arch)) == arch


@pytest.mark.parametrize("name", SPACES)
def test_nni_draws_are_archs(mutable, name):
    space = load_space(name)
    for _ in range(20):
        sample = {}
        to_nni(space).random(sample)
        space.validate(from_sample(space, sample))


@pytest.mark.parametrize("space", [TINY, TIED], ids=lambda space: space.name)
def test_the_grid_of_nni_covers_the_space_exactly(mutable, space):
    samples = []
    described = to_nni(space)
    labels = choices(space)
    for values in product(*labels.values()):
        samples.append(dict(zip(labels, values, strict=True)))
        described.validate(samples[-1])
    assert len(list(described.grid())) == len(samples)
    assert {from_sample(space, sample) for sample in samples} == set(space)
    assert len(set(space)) == space.size < len(samples)  # samples that differ beyond the depth are one arch


def test_layers_beyond_the_depth_do_not_count():
    sample = to_sample(TINY, TINY.smallest())
    deep = sample | {"stage_1.layer_2.mid": 8}
    shallow = {label: v for label, v in sample.items() if label != "stage_1.layer_2.mid"}
    assert from_sample(TINY, deep) == from_sample(TINY, shallow) == TINY.smallest()


def test_bad_samples_are_refused():
    sample = to_sample(TINY, TINY.largest())
    with pytest.raises(SettingError, match="did you mean 'stage_1.width'"):
        from_sample(TINY, sample | {"stage_1.widht": 8})
    with pytest.raises(SettingError, match="stage_1.layer_2.mid is missing"):
        from_sample(TINY, {k: v for k, v in sample.items() if k != "stage_1.layer_2.mid"})
    with pytest.raises(SettingError, match=r"one of \[8, 16\]"):
        from_sample(TINY, sample | {"stage_1.width": 12})
    with pytest.raises(SettingError, match="arch.space"):
        to_sample(TINY, load_space("digits").smallest())


def test_layer_choices_that_are_no_product_are_refused():
    @dataclass(frozen=True, kw_only=True)
    class Odd(MBStage):
        fields: ClassVar[tuple[str, ...]] = ("kernel", "expand", "se")

        def groups(self):
            return (((3, 3, False), (5, 6, False)),)

    space = ElasticSpace("odd", ConvStem(8), (Odd(widths=(8,), depths=(1,)),), LinearHead())
    with pytest.raises(SettingError, match="product"):
        to_nni(space)


def test_without_nni_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nni", None)
    monkeypatch.setitem(sys.modules, "nni.mutable", None)
    with pytest.raises(SettingError, match=r"pip install 'nas_kd\[nni\]'"):
        to_nni(TINY)
    assert from_sample(TINY, to_sample(TINY, TINY.largest())) == TINY.largest()
