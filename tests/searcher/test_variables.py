"""SearchVariables against the spaces themselves: every arch has one canonical point, and no point leaves the space."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from elastic_spaces import ELASTIC, ENDS, MOBILE, PLAIN, VIT

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.errors import SettingError
from nas_kd.searcher.variables import SearchVariables
from nas_kd.space import ElasticSpace


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_points_and_archs_match_one_to_one(space: ElasticSpace) -> None:
    variables, archs = SearchVariables(space), set()
    points = list(product(*map(range, variables.sizes)))
    for point in points[:: max(1, len(points) // 4000)]:
        arch = variables.decode(point)
        space.validate(arch)
        canonical = variables.canonical(point)
        assert variables.decode(canonical) == arch and variables.canonical(canonical) == canonical
        assert all(new in (old, 0) for new, old in zip(canonical, point, strict=True))
    for arch in space:
        assert variables.decode(variables.encode(arch)) == arch
        archs.add(variables.encode(arch))
    assert len(archs) == space.size
    assert {variables.canonical(point) for point in points} == archs


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_ends_are_the_smallest_and_the_largest(space: ElasticSpace) -> None:
    variables = SearchVariables(space)
    assert variables.decode([0] * len(variables.sizes)) == space.smallest()
    assert variables.decode([size - 1 for size in variables.sizes]) == space.largest()


def test_variables_are_dimensions() -> None:
    names = [(variable.part, variable.kind, variable.layer) for variable in SearchVariables(PLAIN).variables]
    first = [("stage 1", "width", None), ("stage 1", "depth", None)]
    assert names[:4] == [*first, ("stage 1", PLAIN.stages[0].fields[0], 0), ("stage 1", PLAIN.stages[0].fields[0], 1)]
    kinds = {(variable.part, variable.kind) for variable in SearchVariables(ENDS).variables}
    assert {("resolution", "resolution"), ("stem", "width"), ("head", "features")} <= kinds
    # what all layers share is one variable of the stage, what each has is one a layer; what offers one value is none
    mobile = [(variable.part, variable.kind, variable.layer) for variable in SearchVariables(MOBILE).variables]
    assert ("stage 1", "kernel", None) in mobile and ("stage 2", "se", None) in mobile
    assert [name for name in mobile if name[1] == "expand"] == [("stage 2", "expand", 0), ("stage 2", "expand", 1)]
    # a transformer keeps the stem's width
    assert not any(variable.kind == "width" for variable in SearchVariables(VIT).variables if variable.part != "stem")


def test_absent_layers_are_no_other_arch() -> None:
    variables = SearchVariables(PLAIN)
    shallow = list(variables.encode(PLAIN.smallest()))
    other = list(shallow)
    for at, variable in enumerate(variables.variables):
        if variable.layer:
            other[at] = len(variable.values) - 1
    assert other != shallow and variables.decode(other).key == variables.decode(shallow).key
    assert variables.canonical(other) == tuple(shallow)


def test_a_space_of_one_arch_has_one_dimension_of_one_value() -> None:
    stage = BasicStage(widths=(4,), depths=(2,), mids=(3,), stride=2)
    space = ElasticSpace("one", ConvStem(width=4), (stage,), LinearHead(), resolution=8)
    variables = SearchVariables(space)
    assert space.size == 1 and variables.sizes == [1]
    assert variables.decode((0,)) == space.largest() and variables.encode(space.largest()) == variables.canonical(
        (0,)
    ) == (0,)


def test_choices_that_are_no_product_are_refused() -> None:
    class Odd(BasicStage):
        fields = ("mid", "more")

        def groups(self):  # type: ignore[no-untyped-def]
            return (((2, 0), (4, 0), (4, 1)),)

    space = ElasticSpace("odd", ConvStem(4), (Odd(widths=(4,), depths=(1,), mids=(2, 4)),), LinearHead())
    with pytest.raises(SettingError, match=r"stages\[0\]\.groups"):
        _ = SearchVariables(space).variables


def test_random_points_of_a_large_space_keep_their_arch() -> None:
    from nas_kd.space import load_space

    space = load_space("attentive_nas")
    variables, rng = SearchVariables(space), np.random.default_rng(0)
    for draw in rng.integers(0, variables.sizes, size=(200, len(variables.sizes))).tolist():
        arch = variables.decode(draw)
        space.validate(arch)
        assert variables.decode(variables.encode(arch)) == arch
    assert (
        np.prod([len(variable.values) for variable in variables.variables if variable.layer is None], dtype=object)
        == space.size
    )


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_every_variable_has_a_name_of_its_own(space: ElasticSpace) -> None:
    labels = SearchVariables(space).labels
    assert len({*labels}) == len(labels)
    assert all(re.fullmatch(r"(resolution|(stem|head|stage\d+)(\.layer\d+)?\.\w+)", label) for label in labels)


def test_names_are_those_that_people_read() -> None:
    assert SearchVariables(PLAIN).labels[:2] == ["stage1.width", "stage1.depth"]
    assert {"stage1.kernel", "stage2.layer1.expand", "stage2.layer2.expand"} <= {*SearchVariables(MOBILE).labels}
    assert {"resolution", "stem.width", "head.features"} <= {*SearchVariables(ENDS).labels}
