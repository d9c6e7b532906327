"""Sorting of channels by importance, so that the first ones, which narrow subnets use, matter most."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nas_kd.nn.part import Channels, Plans
from nas_kd.space import ElasticSpace
from nas_kd.supernet.supernet import Supernet


@torch.no_grad()
def sort_channels(net: Supernet, used: ElasticSpace | None = None) -> None:
    """Reorder the inner channels of every layer in place by the L1 norm of the weights that read them.

    Inner channels are produced and read within one block: between its convolutions, in squeeze-excite, in an MLP,
    attention heads, and those of stem and head. The output channels of a stage are not, because its blocks add
    their outputs. The optimiser's moments are not reordered.

    Args:
        used: the restricted space of the archs that are already trained; their networks do not change, because
            channels move only between two of their widths. None keeps only the largest unchanged.

    Source: OFA (Cai et al. 2020), section 3.3; as in its code, a later sort keeps the nesting.
    """
    for channels in inner_channels(net, used):
        order = channels.order()
        for tensor, dim, unit in (channels.reader, *channels.others):
            chosen = (order[:, None] * unit + torch.arange(unit, device=order.device)).flatten()
            tensor.copy_(tensor.index_select(dim, chosen))


def inner_channels(net: Supernet, used: ElasticSpace | None = None) -> Iterator[Channels]:
    """Yield all channels that may be reordered; ``used`` as in `sort_channels`."""
    stem: Plans = []
    head: Plans = []
    if used is not None:
        stem = [used.stem.resolve(choice, net.in_chans) for choice in used.stem.choices()]
        widths = used.stages[-1].widths
        head = [used.head.resolve(choice, w, net.num_classes) for choice in used.head.choices() for w in widths]
    yield from net.stem.channels(stem)
    for index, stage in enumerate(net.stages):
        for position, layer in enumerate(stage.layers):  # type: ignore[arg-type]
            yield from layer.channels([] if used is None else _layers(used, index, position))
    yield from net.head.channels(head)


def _layers(used: ElasticSpace, index: int, position: int) -> Plans:
    """Resolve the choices of one layer of a stage."""
    stage = used.stages[index]
    return [
        stage.resolve_layer(layer, in_width, width, 1)
        for group in stage.groups()
        for layer in group
        for in_width in (used.in_widths(index) if position == 0 else stage.widths)
        for width in stage.widths
    ]
