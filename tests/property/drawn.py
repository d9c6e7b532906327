"""What hypothesis draws: spaces of all kinds, archs of them, rating tables and budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from nas_kd.blocks import (
    BasicStage,
    BottleneckStage,
    ConvStem,
    LinearHead,
    MBStage,
    MobileHead,
    NormHead,
    PatchStem,
    ViTStage,
)
from nas_kd.space import Arch, ElasticSpace

SMALL = 300  # archs that are walked through one by one


def rising(values: list[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """Draw a tuple of distinct rising values."""
    return st.sets(st.sampled_from(values), min_size=1, max_size=most).map(lambda found: tuple(sorted(found)))


def _common(stride: bool = True) -> dict[str, Any]:
    widths = {"widths": rising([4, 8, 12, 16, 24]), "depths": rising([1, 2, 3])}
    return widths | ({"stride": st.sampled_from([1, 2])} if stride else {})


basic = st.builds(BasicStage, mids=rising([2, 3, 4, 8, 16]), **_common())
bottleneck = st.builds(BottleneckStage, expands=rising([0.25, 0.5, 1.0]), **_common())
mobile = st.builds(
    MBStage,
    kernels=rising([3, 5, 7]),
    expands=rising([1, 1.5, 2, 3, 6]),
    ses=st.sampled_from([(False,), (True,), (False, True)]),
    uniform=st.booleans(),
    pooled=st.booleans(),
    **_common(),
)
vit = st.builds(
    ViTStage,
    heads=rising([1, 2, 3]),
    mlp_ratios=rising([1, 1.5, 2, 4]),
    head_dim=st.sampled_from([2, 4]),
    **_common(stride=False),
)
convolutional = st.builds(
    ElasticSpace,
    st.text(max_size=5),
    st.builds(ConvStem, rising([4, 8, 16]), stride=st.sampled_from([1, 2])),
    st.lists(st.one_of(basic, bottleneck, mobile), min_size=1, max_size=3).map(tuple),
    st.one_of(
        st.builds(LinearHead, st.one_of(st.just(0), rising([4, 8]))),
        st.builds(MobileHead, rising([8, 12]), expand=st.integers(1, 3), channels=st.sampled_from([0, 10])),
    ),
    resolution=st.just(16),
    resolutions=st.sampled_from([(), (16,), (16, 20, 24)]),
)


@st.composite
def transformers(draw: st.DrawFn) -> ElasticSpace:
    """Draw a space of one width throughout, which its stem chooses."""
    widths = draw(rising([4, 8, 12]))
    stages = draw(st.lists(vit, min_size=1, max_size=2))
    same = tuple(
        ViTStage(widths=widths, depths=s.depths, heads=s.heads, mlp_ratios=s.mlp_ratios, head_dim=s.head_dim)
        for s in stages
    )
    sizes = draw(st.sampled_from([(), (8, 16)]))
    return ElasticSpace("vit", PatchStem(widths, patch=4, grid=2), same, NormHead(), resolution=8, resolutions=sizes)


spaces = st.one_of(convolutional, convolutional, transformers())


def archs_of(space: ElasticSpace) -> st.SearchStrategy[Arch]:
    """Draw archs of a space, its ends among them."""
    ends = [space.smallest(), space.largest()]
    return st.one_of(st.sampled_from(ends), st.integers(0, 10**6).map(space.sample))


@st.composite
def tables(draw: st.DrawFn) -> list[pd.DataFrame]:
    """Draw up to three small rating tables, coupled by widths or not, with many ties."""
    coupled, found = draw(st.booleans()), []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 5))

        def column(low: int, high: int, count: int = count) -> list[int]:
            return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

        table = pd.DataFrame({"score": np.array(column(0, 12)) / 8, "macs": column(1, 9), "params": column(1, 9)})
        if coupled:
            table["in_width"], table["out_width"] = column(1, 2), column(1, 2)
        table.index = pd.Index(draw(st.permutations(range(10)))[:count])
        found.append(table)
    return found
