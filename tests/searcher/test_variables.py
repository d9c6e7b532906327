"""Genes against the spaces themselves: every arch has one canonical point, and no point leaves the space."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from elastic_spaces import ELASTIC, ENDS, MOBILE, PLAIN, VIT

from nas_kd.blocks import BasicStage, ConvStem, LinearHead
from nas_kd.errors import SettingError
from nas_kd.searcher.variables import Genes
from nas_kd.space import ElasticSpace


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_points_and_archs_match_one_to_one(space: ElasticSpace) -> None:
    genes, archs = Genes(space), set()
    points = list(product(*map(range, genes.sizes)))
    for point in points[:: max(1, len(points) // 4000)]:
        arch = genes.decode(point)
        space.validate(arch)
        canonical = genes.canonical(point)
        assert genes.decode(canonical) == arch and genes.canonical(canonical) == canonical
        assert all(new in (old, 0) for new, old in zip(canonical, point, strict=True))
    for arch in space:
        assert genes.decode(genes.encode(arch)) == arch
        archs.add(genes.encode(arch))
    assert len(archs) == space.size
    assert {genes.canonical(point) for point in points} == archs


@pytest.mark.parametrize("space", ELASTIC, ids=lambda space: space.name)
def test_ends_are_the_smallest_and_the_largest(space: ElasticSpace) -> None:
    genes = Genes(space)
    assert genes.decode([0] * len(genes.sizes)) == space.smallest()
    assert genes.decode([size - 1 for size in genes.sizes]) == space.largest()


def test_genes_are_dimensions() -> None:
    names = [(gene.part, gene.kind, gene.layer) for gene in Genes(PLAIN).genes]
    first = [("stage 1", "width", None), ("stage 1", "depth", None)]
    assert names[:4] == [*first, ("stage 1", PLAIN.stages[0].fields[0], 0), ("stage 1", PLAIN.stages[0].fields[0], 1)]
    kinds = {(gene.part, gene.kind) for gene in Genes(ENDS).genes}
    assert {("resolution", "resolution"), ("stem", "width"), ("head", "features")} <= kinds
    # what all layers share is one gene of the stage, what each has is one a layer; what offers one value is none
    mobile = [(gene.part, gene.kind, gene.layer) for gene in Genes(MOBILE).genes]
    assert ("stage 1", "kernel", None) in mobile and ("stage 2", "se", None) in mobile
    assert [name for name in mobile if name[1] == "expand"] == [("stage 2", "expand", 0), ("stage 2", "expand", 1)]
    # a transformer keeps the stem's width
    assert not any(gene.kind == "width" for gene in Genes(VIT).genes if gene.part != "stem")


def test_absent_layers_are_no_other_arch() -> None:
    genes = Genes(PLAIN)
    shallow = list(genes.encode(PLAIN.smallest()))
    other = list(shallow)
    for at, gene in enumerate(genes.genes):
        if gene.layer:
            other[at] = len(gene.values) - 1
    assert other != shallow and genes.decode(other).key == genes.decode(shallow).key
    assert genes.canonical(other) == tuple(shallow)


def test_a_space_of_one_arch_has_one_dimension_of_one_value() -> None:
    stage = BasicStage(widths=(4,), depths=(2,), mids=(3,), stride=2)
    space = ElasticSpace("one", ConvStem(width=4), (stage,), LinearHead(), resolution=8)
    genes = Genes(space)
    assert space.size == 1 and genes.sizes == [1]
    assert genes.decode((0,)) == space.largest() and genes.encode(space.largest()) == genes.canonical((0,)) == (0,)


def test_choices_that_are_no_product_are_refused() -> None:
    class Odd(BasicStage):
        fields = ("mid", "more")

        def groups(self):  # type: ignore[no-untyped-def]
            return (((2, 0), (4, 0), (4, 1)),)

    space = ElasticSpace("odd", ConvStem(4), (Odd(widths=(4,), depths=(1,), mids=(2, 4)),), LinearHead())
    with pytest.raises(SettingError, match=r"stages\[0\]\.groups"):
        _ = Genes(space).genes


def test_random_points_of_a_large_space_keep_their_arch() -> None:
    from nas_kd.space import load_space

    space = load_space("attentive_nas")
    genes, rng = Genes(space), np.random.default_rng(0)
    for draw in rng.integers(0, genes.sizes, size=(200, len(genes.sizes))).tolist():
        arch = genes.decode(draw)
        space.validate(arch)
        assert genes.decode(genes.encode(arch)) == arch
    assert np.prod([len(gene.values) for gene in genes.genes if gene.layer is None], dtype=object) == space.size
