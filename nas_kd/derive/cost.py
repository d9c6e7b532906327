"""What the choices of a derived space cost, in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.groups import Group
from nas_kd.derive.stage import Costs
from nas_kd.errors import SettingError
from nas_kd.nn import inputs
from nas_kd.nn.unmeasured import any_values
from nas_kd.space.arch import Cost

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)  # whose MACs are counted


class Ledger:
    """MACs and parameters of any cut of a network, from the shapes of its weights and one pass a size.

    A layer's MACs are the numbers in its weight times the places that it is applied to, which no cut changes.

    Args:
        network: in evaluation mode.
        in_chans: channels of its images.
        sizes: heights of its images in pixels.

    Raises:
        SettingError: it does not take images of one of these sizes.
    """

    def __init__(self, network: nn.Module, in_chans: int, sizes: Iterable[int]) -> None:
        self.shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        self.grouped = {
            f"{path}.weight"
            for path, layer in network.named_modules()
            if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1
        }
        self.places = {size: places(network, in_chans, size) for size in sizes}

    def cost(self, names: Iterable[str], lost: Mapping[tuple[str, int], int]) -> Costs:
        """Count a part of the network.

        Args:
            names: its parameters.
            lost: how many positions of a dimension of a parameter are cut.

        Returns:
            Its cost at every size.
        """
        params = 0
        numbers: dict[str, int] = {}
        for name in names:
            left = prod(length - lost.get((name, dim), 0) for dim, length in enumerate(self.shapes[name]))
            params += left
            numbers[name] = left
        return tuple(
            (size, sum(times * numbers[name] for name, times in at.items() if name in numbers), params)
            for size, at in self.places.items()
        )

    def lost(
        self, groups: Sequence[Group], counts: Sequence[int], order: Sequence[Tensor]
    ) -> dict[tuple[str, int], int]:
        """Return how many positions of each dimension go where some parts of groups stay.

        Args:
            groups: channels that are cut together.
            counts: of each, how many parts stay.
            order: of each, its parts by falling importance.
        """
        found: dict[tuple[str, int], int] = {}
        for group, count, rank in zip(groups, counts, order, strict=True):
            gone = rank[count:].tolist()
            for slot in group.slots if gone else ():
                name = slot.name
                if name in self.shapes and not (slot.dim == 1 and name in self.grouped):
                    found[name, slot.dim] = found.get((name, slot.dim), 0) + sum(len(slot.index[part]) for part in gone)
        return found


def whole_cost(network: nn.Module, in_chans: int, size: int) -> Cost:
    """Count a network as the space of a teacher is counted.

    Args:
        network: in evaluation mode.
        in_chans: channels of its images.
        size: their height and width in pixels.

    Raises:
        SettingError: the network does not take images of this size.
    """
    with any_values(network):
        ledger = Ledger(network, in_chans, (size,))
    ((_, macs, params),) = ledger.cost(ledger.shapes, {})
    return Cost(macs, params)


def places(network: nn.Module, in_chans: int, size: int) -> dict[str, int]:
    """Return to how many places of an image a layer's weight is applied.

    Args:
        network: in evaluation mode.
        in_chans: channels of its images.
        size: their height and width in pixels.

    Returns:
        The number by the name of the weight.

    Raises:
        SettingError: the network does not take images of this size.
    """
    found: dict[str, int] = {}

    def note(name: str, module: Any, args: tuple[Any, ...], out: Tensor) -> None:
        channels = module.weight.shape[0]
        found[f"{name}.weight"] = found.get(f"{name}.weight", 0) + out.numel() // channels

    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LAYERS)]
    handles = [module.register_forward_hook(partial(note, name)) for name, module in layers]
    try:
        with torch.no_grad():
            network(inputs.example(network, in_chans, size))
    except Exception as error:  # whatever a foreign forward pass raises
        text = " ".join(str(error).split())[:200]
        expected = f"input sizes that {type(network).__name__} takes ({text})"
        raise SettingError("resolution", size, expected, "leave it out, or load the teacher for this size") from error
    finally:
        for handle in handles:
            handle.remove()
    return found
