"""Sorting of channels by importance, so that the first ones, which small subnets use, are the best."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas_kd.nn.basic import ElasticBasicBlock
from nas_kd.nn.bottleneck import ElasticBottleneck
from nas_kd.nn.heads import ElasticLinearHead, ElasticMobileHead
from nas_kd.nn.mbconv import ElasticMBConv
from nas_kd.nn.stems import ElasticResNetDStem
from nas_kd.nn.vit import ElasticViTLayer
from nas_kd.space import ElasticSpace, LinearHead, MobileHead, ResNetDStem, Stage
from nas_kd.supernet.supernet import Supernet


class Side(NamedTuple):
    """A dimension of a tensor that runs over the channels.

    Args:
        tensor: the parameter.
        dim: its dimension.
        unit: consecutive entries that belong to one channel.
    """

    tensor: Tensor
    dim: int
    unit: int = 1


class Channels(NamedTuple):
    """Channels between two layers, which may be reordered without changing the network.

    Args:
        reader: the weight that reads them; its magnitude is their importance.
        others: all other tensors that run over them.
        used: numbers of channels that subnets in use have; each is sorted among itself.
        fixed: the first so many stay where they are.
    """

    reader: Side
    others: tuple[Side, ...]
    used: tuple[int, ...]
    fixed: int = 0

    def importance(self) -> Tensor:
        """Return the L1 norm of what reads each channel, (C,)."""
        tensor, dim, unit = self.reader
        return tensor.detach().abs().transpose(0, dim).flatten(1).sum(1).unflatten(0, (-1, unit)).sum(1)

    def order(self) -> Tensor:
        """Return the numbers of the channels, (C,), by falling importance within what is nested already."""
        importance = self.importance()
        borders = sorted({self.fixed, *(n for n in self.used if n > self.fixed), len(importance)})
        parts = [torch.arange(self.fixed, device=importance.device)]
        for start, end in pairwise(borders):
            parts.append(importance[start:end].argsort(descending=True, stable=True) + start)
        return torch.cat(parts)


@torch.no_grad()
def sort_channels(net: Supernet, used: ElasticSpace | None = None) -> None:
    """Reorder the inner channels of every layer in place by the L1 norm of the weights that read them.

    Inner channels are those that one layer alone makes and reads: between the convolutions of a block, of
    squeeze-excite, of an MLP, attention heads, and those of stem and head. Widths of stages are not: the
    blocks of a stage add up their outputs. The optimiser's moments do not follow.

    Args:
        net: the supernet.
        used: the archs, as a restricted space, that are trained already: their networks stay what they were,
            because channels move only within the borders that their widths draw. None keeps the largest only.

    Source: OFA (Cai et al. 2020), section 3.3; as in its code a later sort keeps what is nested.
    """
    for channels in inner_channels(net, used):
        order = channels.order()
        for tensor, dim, unit in (channels.reader, *channels.others):
            chosen = (order[:, None] * unit + torch.arange(unit, device=order.device)).flatten()
            tensor.copy_(tensor.index_select(dim, chosen))


def inner_channels(net: Supernet, used: ElasticSpace | None = None) -> Iterator[Channels]:
    """Yield all channels that may be reordered; arguments as ``sort_channels``."""
    if isinstance(net.stem, ElasticResNetDStem):
        yield from _stem(net.stem, None if used is None else used.stem)  # type: ignore[arg-type]
    for index, stage in enumerate(net.stages):
        part = None if used is None else used.stages[index]
        for position, layer in enumerate(stage.layers):  # type: ignore[arg-type]
            widths: tuple[int, ...] = ()
            if used is not None:
                widths = used.in_widths(index) if position == 0 else used.stages[index].widths
            yield from _layer(layer, part, widths)
    if isinstance(net.head, ElasticLinearHead | ElasticMobileHead):
        last = () if used is None else used.stages[-1].widths
        yield from _head(net.head, None if used is None else used.head, last)  # type: ignore[arg-type]


def _sizes(stage: Stage | None, in_widths: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return what ``name`` resolves to in all layers of a stage in use."""
    if stage is None:
        return ()
    plans = [
        stage.resolve_layer(layer, in_width, width, 1)
        for group in stage.groups()
        for layer in group
        for in_width in in_widths
        for width in stage.widths
    ]
    return tuple(sorted({plan[name] for plan in plans}))


def _made(*modules: nn.Module, unit: int = 1) -> tuple[Side, ...]:
    """Return weights and biases of layers and norms that make channels or carry them one by one."""
    tensors = (getattr(module, name) for module in modules for name in ("weight", "bias"))
    return tuple(Side(tensor, 0, unit) for tensor in tensors if tensor is not None)


def _read(module: nn.Module, unit: int = 1) -> Side:
    """Return the weight of a layer that reads channels."""
    return Side(module.weight, 1, unit)  # type: ignore[arg-type]


def _layer(layer: nn.Module, stage: Stage | None, in_widths: tuple[int, ...]) -> Iterator[Channels]:
    if isinstance(layer, ElasticBasicBlock):
        yield Channels(_read(layer.conv2), _made(layer.conv1, layer.bn1), _sizes(stage, in_widths, "mid"))
    elif isinstance(layer, ElasticBottleneck):
        yield from _bottleneck(layer, _sizes(stage, in_widths, "mid"))
    elif isinstance(layer, ElasticMBConv):
        yield from _mbconv(layer, stage, in_widths)
    elif isinstance(layer, ElasticViTLayer):
        unit = layer.stage.head_dim
        heads = _made(layer.qkv, unit=3 * unit)
        yield Channels(_read(layer.proj, unit), heads, _sizes(stage, in_widths, "heads"))
        yield Channels(_read(layer.fc2), _made(layer.fc1), _sizes(stage, in_widths, "hidden"))
    else:
        raise TypeError(f"the inner channels of {type(layer).__name__} are not known")


def _bottleneck(layer: ElasticBottleneck, used: tuple[int, ...]) -> Iterator[Channels]:
    unit = layer.stage.group_width
    if unit:  # a group stays together, on both sides of the grouped convolution
        made = _made(layer.conv1, layer.bn1, layer.conv2, layer.bn2, unit=unit)
        yield Channels(_read(layer.conv3, unit), made, tuple(n // unit for n in used))
    else:
        yield Channels(_read(layer.conv3), _made(layer.conv2, layer.bn2), used)
        yield Channels(_read(layer.conv2), _made(layer.conv1, layer.bn1), used)


def _mbconv(layer: ElasticMBConv, stage: Stage | None, in_widths: tuple[int, ...]) -> Iterator[Channels]:
    attended = hasattr(layer, "se_reduce")
    if attended:
        yield Channels(_read(layer.se_expand), _made(layer.se_reduce), _sizes(stage, in_widths, "se"))
    if not hasattr(layer, "expand"):
        return  # the depthwise convolution reads the layer's input
    made = _made(layer.expand, layer.expand_bn, layer.depthwise, layer.depthwise_bn)
    if attended:
        made = (*made, _read(layer.se_reduce), *_made(layer.se_expand))
    # an expand ratio of 1 has no expansion: those depthwise channels are the input's
    plain = stage is not None and any(choice[1] == 1 for group in stage.groups() for choice in group)
    fixed = max(in_widths) if plain else 0
    yield Channels(_read(layer.project), made, _sizes(stage, in_widths, "mid"), fixed)


def _stem(stem: ElasticResNetDStem, used: ResNetDStem | None) -> Iterator[Channels]:
    made = _made(stem.conv1, stem.bn1)
    if hasattr(stem, "conv2"):  # residual: its outputs are its inputs
        made = (*made, _read(stem.conv2), *_made(stem.conv2, stem.bn2))
    mids = () if used is None else tuple(int(used.named(choice)["mid"]) for choice in used.choices())
    yield Channels(_read(stem.conv3), made, mids)


def _head(
    head: ElasticLinearHead | ElasticMobileHead, used: LinearHead | MobileHead | None, in_widths: tuple[int, ...]
) -> Iterator[Channels]:
    plans = [] if used is None else [used.resolve(choice, w, 1) for choice in used.choices() for w in in_widths]
    features = tuple(plan["features"] for plan in plans)
    if isinstance(head, ElasticMobileHead):
        mids = tuple(plan["mid"] for plan in plans)
        yield Channels(_read(head.mix), _made(head.conv, head.bn), mids)
        yield Channels(_read(head.fc), _made(head.mix), features)
    elif hasattr(head, "conv"):
        yield Channels(_read(head.fc), _made(head.conv, head.bn), features)
