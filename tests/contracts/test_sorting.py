"""What sorting the channels must keep, whatever the blocks: the largest, what is nested, and what is trained."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_spaces import FAMILIES, close, full_net, images, outputs

import nas_kd
from nas_kd.space import ElasticSpace
from nas_kd.supernet import sort_channels
from nas_kd.supernet.sorting import inner_channels
from nas_kd.train.shrinking import restricted, widened

TRANSFORMED = pytest.mark.parametrize("transform", [False, True])


@pytest.fixture(params=FAMILIES, ids=lambda space: space.name)
def space(request: pytest.FixtureRequest) -> ElasticSpace:
    return request.param


@TRANSFORMED
def test_the_largest_stays_what_it_was(space: ElasticSpace, transform: bool) -> None:
    net = full_net(space, kernel_transform=transform).double()
    archs = [space.largest(), space.smallest(), *(space.sample(seed) for seed in range(4))]
    before, weights = outputs(net, archs), {k: v.clone() for k, v in net.state_dict().items()}
    sort_channels(net)
    assert close(before, outputs(net, archs))[0]
    assert not close(before, outputs(net, archs))[1]  # or nothing moved
    for key, value in net.state_dict().items():  # channels moved: nothing was lost or made up
        assert torch.equal(value.flatten().sort().values, weights[key].flatten().sort().values), key
    norm = nas_kd.calibrate(net, [images(space)], archs[:1])[0]
    torch.testing.assert_close(net.eval()(images(space), archs[0], norm), net.extract(archs[0], norm)(images(space)))


def test_importance_falls(space: ElasticSpace) -> None:
    net = full_net(space)
    assert not all(c.importance().diff().le(0).all() for c in inner_channels(net))
    sort_channels(net)
    channels = list(inner_channels(net))
    assert channels and all(c.importance().diff().le(0).all() for c in channels)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    sort_channels(net)  # sorted is sorted
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@TRANSFORMED
def test_what_is_trained_already_stays_what_it_was(space: ElasticSpace, transform: bool) -> None:
    """Two inner widths are in use: a third is sorted, and no arch of the two notices."""
    net = full_net(space, kernel_transform=transform).double()
    used = restricted(space, kernels=None, depths=None, others=2)
    archs = [widened(used.sample(seed), used, space) for seed in range(12)]
    before = outputs(net, [*archs, space.smallest()])
    sort_channels(net, used)
    after = close(before, outputs(net, [*archs, space.smallest()]))
    assert all(after[:-1])
    assert after[-1] == (used.hash == space.hash)
    for channels in inner_channels(net, used):
        assert len(channels.used) > 0
        borders = sorted({0, channels.fixed, *channels.used})
        importance = channels.importance()
        for start, end in pairwise([b for b in borders if b >= channels.fixed]):
            assert importance[start:end].diff().le(0).all()
