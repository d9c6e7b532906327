"""Zero-gamma: where a block has a shortcut, a new supernet begins as that shortcut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_spaces import BASIC, BOTTLENECK, MOBILE, POOLED

from nas_kd.space import ElasticSpace
from nas_kd.supernet import Supernet


@pytest.mark.parametrize("space", [BASIC, MOBILE, POOLED, BOTTLENECK], ids=lambda s: s.name)
def test_deeper_is_shallower_at_the_start(space: ElasticSpace) -> None:
    """To the bit, whatever the layers beyond the first are, and for no trained one."""
    net = Supernet(space, seed=1)
    x = torch.randn(4, 3, space.resolution, space.resolution)
    for arch in (space.largest(), *(space.sample(seed) for seed in range(8))):
        first = tuple(replace(c, layers=c.layers[:1]) for c in arch.stages)
        assert torch.equal(net(x, arch), net(x, replace(arch, stages=first)))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1
    deep = space.largest()
    first = tuple(replace(c, layers=c.layers[:1]) for c in deep.stages)
    assert not torch.allclose(net(x, deep), net(x, replace(deep, stages=first)))


@pytest.mark.parametrize("space", [POOLED, BOTTLENECK], ids=lambda s: s.name)
def test_inner_weights_do_not_matter_at_the_start(space: ElasticSpace) -> None:
    """The output depends on stem, shortcuts and head alone where every block has a shortcut."""
    net = Supernet(space, seed=1)
    x = torch.randn(4, 3, space.resolution, space.resolution)
    archs = [space.largest(), space.smallest(), space.sample(0)]
    before = [net(x, arch) for arch in archs]
    with torch.no_grad():
        for name, parameter in net.stages.named_parameters():
            if not any(kept in name for kept in ("shortcut", "bn3", "project_bn")):
                parameter.normal_()
    assert all(torch.equal(net(x, arch), out) for arch, out in zip(archs, before, strict=True))
