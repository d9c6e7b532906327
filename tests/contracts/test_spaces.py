"""What every space of search_spaces must keep as a set of values; a new space is tested by being there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from space_cases import CASES, CLASSES, PUBLISHED, fit, quick, some_archs

from nas_kd.errors import SettingError
from nas_kd.space import Arch, Candidate, ElasticSpace
from nas_kd.space.codes import extras
from nas_kd.space.stages import Stage


@pytest.fixture(scope="module", params=CASES)
def space(request: pytest.FixtureRequest) -> ElasticSpace:
    return CASES[request.param]


# ---- values ------------------------------------------------------------------------------------------


def test_json_round_trip(space: ElasticSpace) -> None:
    for arch in some_archs(space, 30):
        again = Arch.from_dict(json.loads(json.dumps(arch.to_dict())))
        assert again == arch and hash(again) == hash(arch) and again.key == arch.key
        assert again.to_dict() == arch.to_dict()
        assert len(arch.key) == 12 and set(arch.key) <= set("0123456789abcdef")


def counted_one_by_one(space: ElasticSpace) -> int:
    """Count the archs from the lists of candidates, width by width."""
    ways = Counter(space.stem.width_of(stem) for stem in space.stem.choices())
    for stage in space.stages:
        offered, after = Counter(candidate.width for candidate in stage.candidates()), Counter[int]()
        for (before, n), (width, m) in product(ways.items(), offered.items()):
            if before == width or not stage.keeps_width:
                after[width] += n * m
        ways = after
    return ways.total() * len(set(space.head.choices())) * max(1, len(set(space.resolutions)))


def thinned(space: ElasticSpace) -> ElasticSpace:
    """Leave few enough choices that the archs can be counted by walking through them."""
    stages = []
    for index, stage in enumerate(space.stages):
        cut: dict[str, Any] = {f.name: getattr(stage, f.name) for f in fields(stage)}
        cut = {name: value[:1] for name, value in cut.items() if isinstance(value, tuple)}
        cut["widths"] = stage.widths if stage.keeps_width else stage.widths[: 2 - index % 2]
        stages.append(replace(stage, **cut | {"depths": stage.depths[: 1 + index % 2]}))
    return replace(space, stages=tuple(stages))


def test_size_counts_distinct_archs(space: ElasticSpace) -> None:
    for stage in space.stages:
        candidates = stage.candidates()
        assert len(set(candidates)) == len(candidates) == stage.size
        assert {stage.largest(), stage.smallest()} <= set(candidates)
        assert all(stage.contains(candidate) for candidate in candidates)
    assert space.size == counted_one_by_one(space)
    for whole in (thinned(space), space):
        if whole.size <= 100_000:
            archs = list(whole)
            assert len(set(archs)) == len(archs) == whole.size
    assert thinned(space).size <= 100_000
    first = list(islice(space, 500))
    assert len(set(first)) == len(first) == min(500, space.size)
    for arch in first[::10]:
        space.validate(arch)


@pytest.mark.parametrize("name", PUBLISHED)
def test_distinct_choices_are_distinct_networks(name: str) -> None:
    """Then distinct archs are distinct networks: the widths between stages are part of the lists."""
    space = CASES[name]
    for index, stage in enumerate(space.stages):
        for width in space.in_widths(index):
            fitting = [c for c in stage.candidates() if c.width == width or not stage.keeps_width]
            networks = Counter(tuple(tuple(d.values()) for d in stage.resolve(c, width)) for c in fitting)
            assert len(networks) == len(fitting), networks.most_common(2)
    stems = {str(space.stem.resolve(setting, 3)) for setting in space.stem.choices()}
    if name != "ofa_resnet50d":  # its published middle widths round alike, and its published size counts both
        assert len(stems) == len(space.stem.choices())
    heads = {str(space.head.resolve(setting, 8, CLASSES)) for setting in space.head.choices()}
    assert len(heads) == len(space.head.choices())


def test_samples_are_uniform_in_every_dimension(space: ElasticSpace) -> None:
    archs = [space.sample(seed) for seed in range(2000)]
    for name, choices in extras(space).items():
        drawn = [getattr(arch, name) for arch in archs]
        assert set(drawn) == set(choices) and chisquare([drawn.count(c) for c in choices]).pvalue > 1e-4, name
    for index, stage in enumerate(space.stages):
        chosen = [arch.stages[index] for arch in archs]
        counts = {
            "width": ([c.width for c in chosen], stage.widths),
            "depth": ([c.depth for c in chosen], stage.depths),
        }
        offered = [sorted({layer[f] for g in stage.groups() for layer in g}) for f in range(len(stage.fields))]
        for position, (f, values) in product(range(stage.depths[-1]), enumerate(offered)):
            drawn = [c.layers[position][f] for c in chosen if c.depth > position]
            counts[f"layer {position} {stage.fields[f]}"] = (drawn, tuple(values))
        for what, (drawn, values) in counts.items():
            assert set(drawn) == set(values), (index, what)
            if len(values) > 1:
                assert chisquare([drawn.count(v) for v in values]).pvalue > 1e-4, (index, what)


def test_same_seed_same_arch_in_another_process() -> None:
    code = (
        f"import nas_kd\nfor name in {PUBLISHED!r}:\n s = nas_kd.load_space(name)\n"
        " print(s.hash, *(s.sample(i).key for i in range(20)), s.largest().key, s.smallest().key)"
    )
    env = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    theirs = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    for name, line in zip(PUBLISHED, theirs.stdout.splitlines(), strict=True):
        space = CASES[name]
        archs = [*(space.sample(i) for i in range(20)), space.largest(), space.smallest()]
        assert line.split() == [space.hash, *(arch.key for arch in archs)]


def test_settings_that_are_not_offered_are_refused(space: ElasticSpace) -> None:
    good = space.smallest()
    first = good.stages[0]
    wrong = [
        replace(first, width=first.width + 1000),
        replace(first, layers=first.layers * 100),
        replace(first, layers=()),
        replace(first, layers=(tuple(1001 for _ in first.layers[0]), *first.layers[1:])),
        replace(first, layers=((*first.layers[0], 1), *first.layers[1:])),
    ]
    space.validate(good)
    for candidate in wrong:
        with pytest.raises(SettingError, match=r"arch\.stages\[0\]"):
            space.validate(replace(good, stages=(candidate, *good.stages[1:])))
    with pytest.raises(SettingError, match="stages"):
        space.validate(replace(good, stages=good.stages[1:]))
    with pytest.raises(SettingError, match=r"arch\.stages\[0\]"):
        space.arch((wrong[0], *good.stages[1:]))
    for name in ("stem", "head"):
        for setting in ((1001,), (*getattr(good, name), 1), (-1,) * 3):
            with pytest.raises(SettingError, match=rf"arch\.{name}="):
                space.validate(replace(good, **{name: setting}))
    for resolution in (0, -1, 1001, None if space.resolutions else space.resolution):
        with pytest.raises(SettingError, match=r"arch\.resolution="):
            space.validate(replace(good, resolution=resolution))


def test_widths_that_do_not_go_together_are_refused(space: ElasticSpace) -> None:
    for index, stage in enumerate(space.stages):
        arch = space.smallest()
        other = replace(arch.stages[index], width=stage.widths[-1])
        stages = (*arch.stages[:index], other, *arch.stages[index + 1 :])
        if stage.keeps_width and len(stage.widths) > 1:
            with pytest.raises(SettingError, match=r"arch\.stages=.*one width"):
                space.validate(replace(arch, stages=stages))
        else:
            space.validate(replace(arch, stages=stages))


def test_describe_is_json_and_holds_the_hash(space: ElasticSpace) -> None:
    described = json.loads(json.dumps(space.describe()))
    assert (described["name"], described["hash"], described["size"]) == (space.name, space.hash, space.size)
    assert len(described["stages"]) == len(space.stages)
    assert described["resolutions"] == list(space.resolutions)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_space_has_the_name_of_its_module(name: str) -> None:
    assert CASES[name].name == name


def test_a_space_keeps_its_largest_and_smallest_inside(space: ElasticSpace) -> None:
    for arch in (space.largest(), space.smallest()):
        space.validate(arch)
        again = space.arch(arch.stages, stem=arch.stem, head=arch.head, resolution=arch.resolution)
        assert again == arch
    usual = space.arch(space.largest().stages)
    assert usual == replace(space.largest(), resolution=space.resolution if space.resolutions else None)


# ---- cost --------------------------------------------------------------------------------------------


def test_codes_and_vectorised_costs(space: ElasticSpace) -> None:
    archs = some_archs(space, 100)
    codes = space.encode(archs)
    columns = len(space.stages) + len(extras(space))
    assert codes.shape == (len(archs), columns) and codes.dtype.kind == "i"
    assert space.decode(codes) == archs
    assert space.encode([]).shape == (0, columns)
    sizes = [fit(space, 20), None] if space.resolutions else [fit(space, 20)]
    for resolution in sizes:
        shape = {"resolution": resolution, "in_chans": 1, "num_classes": CLASSES}
        frame = space.costs(codes, **shape)
        assert list(frame.columns) == ["macs", "params"]
        assert list(frame.itertuples(index=False, name=None)) == [tuple(space.cost(a, **shape)) for a in archs]


def test_codes_outside_the_choices_are_refused(space: ElasticSpace) -> None:
    code = space.encode([space.largest()])
    for column in range(code.shape[1]):
        for wrong in (-1, code[0, column] + 1):
            bad = code.copy()
            bad[0, column] = wrong
            for call in (space.decode, lambda codes: space.costs(codes, num_classes=CLASSES)):
                with pytest.raises(SettingError, match=rf"codes\[0, {column}\]={wrong}: "):
                    call(bad)
    for bad in (code[:, 1:], code[0], code + 0.5):
        with pytest.raises(SettingError, match="codes="):
            space.decode(bad)


def test_a_resolution_that_the_strides_cannot_take_is_refused(space: ElasticSpace) -> None:
    arch = space.smallest()
    patch = fit(space, space.stride + 1) - fit(space, space.stride)
    wrong = [0, -8, space.stride - 1, *([space.stride + 1] if patch > 1 else [])]
    calls = (
        lambda size: space.cost(arch, resolution=size, num_classes=CLASSES),
        lambda size: space.costs(space.encode([arch]), resolution=size, num_classes=CLASSES),
        lambda size: space.cost_tables(size, 3, CLASSES),
        lambda size: replace(space, resolution=size, resolutions=()),
    )
    for size, call in product(wrong, calls):
        with pytest.raises(SettingError, match=f"resolution={size}: expected at least {space.stride}"):
            call(size)
    assert space.cost(arch, resolution=fit(space, 1), num_classes=CLASSES).macs > 0


def larger(stage: Stage, candidate: Candidate, rng: np.random.Generator) -> list[Candidate]:
    """Return candidates that differ in one setting, which is larger."""
    deeper = [
        replace(candidate, layers=candidate.layers + (candidate.layers[-1],) * (depth - candidate.depth))
        for depth in stage.depths
        if depth > candidate.depth
    ]
    at = int(rng.integers(candidate.depth))
    now, richer = candidate.layers[at], []
    for layer in {layer for group in stage.groups() for layer in group}:
        if layer != now and all(new >= old for new, old in zip(layer, now, strict=True)):
            one = replace(candidate, layers=(*candidate.layers[:at], layer, *candidate.layers[at + 1 :]))
            changed = [one]
            if set(candidate.layers) == {now}:
                changed.append(replace(candidate, layers=(layer,) * candidate.depth))  # layers may share settings
            richer += [c for c in changed if stage.contains(c)][:1]
    return deeper + richer


def test_cost_never_falls_when_one_setting_rises(space: ElasticSpace) -> None:
    rng, compared = np.random.default_rng(0), 0
    for arch in some_archs(space, 5):
        cost = space.cost(arch, num_classes=CLASSES)
        for index, candidate in enumerate(arch.stages):
            for changed in larger(space.stages[index], candidate, rng):
                stages = (*arch.stages[:index], changed, *arch.stages[index + 1 :])
                more = space.cost(replace(arch, stages=stages), num_classes=CLASSES)
                assert more.macs >= cost.macs and more.params >= cost.params
                compared += 1
        for choices in (space.head.choices(), space.resolutions):
            name = "resolution" if choices is space.resolutions else "head"
            costs = [space.cost(replace(arch, **{name: choice}), num_classes=CLASSES) for choice in choices]
            assert costs == sorted(costs) and all(c.params == costs[0].params for c in costs if name != "head")
        # not widths: a wider stage may turn a projecting shortcut into an identity, which saves one convolution
    assert compared > len(space.stages)
    largest, smallest = (space.cost(a, num_classes=CLASSES) for a in (space.largest(), space.smallest()))
    for cost in (space.cost(space.sample(seed), num_classes=CLASSES) for seed in range(200)):
        assert smallest.macs <= cost.macs <= largest.macs and smallest.params <= cost.params <= largest.params


def test_stage_sizes_follow_the_strides(space: ElasticSpace) -> None:
    for resolution in (quick(space), fit(space, 3 * space.stride)):
        size, sizes = -(-resolution // space.stem.stride), []
        for stage in space.stages:
            size = (size + stage.stride - 1) // stage.stride
            sizes.append(size)
        assert space.stage_sizes(resolution) == sizes and sizes[-1] >= 1
