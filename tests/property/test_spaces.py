"""Random spaces and their archs: round trips, canonical forms, and costs that only grow."""

from __future__ import annotations

import json
from dataclasses import replace

from drawn import SMALL, archs_of, spaces
from hypothesis import assume, given
from hypothesis import strategies as st

from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import Arch, Candidate, ElasticSpace
from nas_kd.space.nni_codec import from_sample, to_sample

SHAPE = {"in_chans": 3, "num_classes": 7}


@given(spaces)
def test_a_small_space_is_as_large_as_it_says(space: ElasticSpace) -> None:
    assume(space.size <= SMALL)
    archs = list(space)
    assert len(archs) == len(set(archs)) == len({arch.key for arch in archs}) == space.size
    assert {space.smallest(), space.largest(), space.sample(0)} <= set(archs)
    assert space.decode(space.encode(archs)) == archs
    assert len({tuple(code) for code in space.encode(archs).tolist()}) == len(archs)


@given(st.data(), spaces)
def test_archs_travel_through_every_codec(data: st.DataObject, space: ElasticSpace) -> None:
    arch = data.draw(archs_of(space))
    space.validate(arch)
    there = Arch.from_dict(json.loads(json.dumps(arch.to_dict())))
    assert there == arch and hash(there) == hash(arch) and there.key == arch.key
    assert space.decode(space.encode([arch, arch])) == [arch, arch]
    assert from_sample(space, json.loads(json.dumps(to_sample(space, arch)))) == arch
    variables = SearchVariables(space)
    point = variables.encode(arch)
    assert variables.decode(point) == arch and variables.canonical(point) == point


@given(st.data(), spaces)
def test_variables_beyond_the_depth_change_nothing(data: st.DataObject, space: ElasticSpace) -> None:
    variables = SearchVariables(space)
    point = tuple(data.draw(st.integers(0, size - 1)) for size in variables.sizes)
    arch, canonical = variables.decode(point), variables.canonical(point)
    space.validate(arch)
    assert variables.decode(canonical) == arch and variables.encode(arch) == canonical
    assert variables.canonical(canonical) == canonical


@given(spaces, st.text(max_size=9))
def test_a_name_is_no_part_of_a_space(space: ElasticSpace, name: str) -> None:
    other = replace(space, name=name)
    assert other.hash == space.hash and other.sample(3) == space.sample(3)
    told = json.loads(json.dumps(space.describe()))
    assert json.dumps(told) == json.dumps(other.describe() | {"name": space.name})


@given(st.data(), spaces)
def test_costs_of_an_arch_are_those_of_its_code(data: st.DataObject, space: ElasticSpace) -> None:
    archs = data.draw(st.lists(archs_of(space), min_size=1, max_size=4))
    table = space.costs(space.encode(archs), **SHAPE)
    for arch, row in zip(archs, table.itertuples(index=False), strict=True):
        assert (row.macs, row.params) == space.cost(arch, **SHAPE)


def larger(space: ElasticSpace, arch: Arch, data: st.DataObject) -> Arch:
    """Enlarge one layer's setting, a depth, a resolution or the head; widths may trade a shortcut for themselves."""
    number = data.draw(st.integers(0, len(arch.stages) - 1))
    stage, old = space.stages[number], arch.stages[number]
    what = data.draw(st.sampled_from(["setting", "depth", "resolution", "head", "width"]))
    new = old
    if what == "setting":
        at = data.draw(st.integers(0, old.depth - 1))
        group = next(group for group in stage.groups() if all(layer in group for layer in old.layers))
        better = [layer for layer in group if all(a >= b for a, b in zip(layer, old.layers[at], strict=True))]
        new = Candidate(old.width, (*old.layers[:at], data.draw(st.sampled_from(better)), *old.layers[at + 1 :]))
    elif what == "depth":
        depth = data.draw(st.sampled_from([d for d in stage.depths if d >= old.depth]))
        new = Candidate(old.width, (*old.layers, *(old.layers[-1],) * (depth - old.depth)))
    elif what == "width" and number + 1 == len(arch.stages) and stage.stride == 2 and not stage.keeps_width:
        # at stride 2 the shortcut projects whatever the width, or (inverted residuals) is never there
        new = Candidate(data.draw(st.sampled_from([w for w in stage.widths if w >= old.width])), old.layers)
    changed = replace(arch, stages=(*arch.stages[:number], new, *arch.stages[number + 1 :]))
    if what == "resolution" and space.resolutions:
        sizes = [size for size in space.resolutions if size >= (arch.resolution or 0)]
        changed = replace(changed, resolution=data.draw(st.sampled_from(sizes)))
    if what == "head":
        heads = [head for head in space.head.choices() if all(a >= b for a, b in zip(head, arch.head, strict=True))]
        changed = replace(changed, head=data.draw(st.sampled_from(heads)))
    return changed


@given(st.data(), spaces)
def test_a_larger_choice_never_costs_less(data: st.DataObject, space: ElasticSpace) -> None:
    arch = data.draw(archs_of(space))
    other = larger(space, arch, data)
    space.validate(other)
    before, after = space.cost(arch, **SHAPE), space.cost(other, **SHAPE)
    assert after.macs >= before.macs and after.params >= before.params
    if sum(stage.depth for stage in other.stages) > sum(stage.depth for stage in arch.stages):
        assert after.macs > before.macs and after.params > before.params


@given(spaces, st.integers(1, 4), st.integers(1, 20))
def test_costs_grow_with_channels_and_classes(space: ElasticSpace, channels: int, classes: int) -> None:
    arch = space.largest()
    cost = space.cost(arch, in_chans=channels, num_classes=classes)
    more = [space.cost(arch, in_chans=channels + 1, num_classes=classes)]
    more.append(space.cost(arch, in_chans=channels, num_classes=classes + 1))
    assert all(one.macs > cost.macs and one.params > cost.params for one in more)
