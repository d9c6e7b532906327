"""A student that is a teacher itself: cut, it is no longer what its list of layers says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas_kd.blocks import kinds
from nas_kd.errors import SettingError
from nas_kd.nn.static import StaticNet


class Plain(nn.Module):
    """A block of the library without what it gives beside its features, as blocks elsewhere are.

    Args:
        block: returns features after and before its last activation.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, I, H, W) to (B, O, H', W')."""
        x, _ = self.block(x)
        return x


class WholeNet(nn.Module):
    """The network of a list of layers, to be cut: it is rebuilt by the list, and then cut by a plan.

    Args:
        layers: of blocks of `nas_kd.blocks`, as in the ``arch.json`` of a student folder.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._take(StaticNet(layers, kinds()))

    def _take(self, network: StaticNet) -> None:
        self.stem = network.stem
        stages: Any = network.stages
        self.blocks = nn.Sequential(*(Plain(block) for stage in stages for block in stage.layers))
        self.head = network.head
        self.factory = (f"{__name__}:{type(self).__name__}", {"layers": network.layers_spec})

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to logits (B, C)."""
        logits, _ = self.head(self.blocks(self.stem(x)))
        return logits


def whole_of(network: nn.Module) -> nn.Module:
    """Return what students are cut from: of a network of layers, the same without its list; others as they are.

    Raises:
        SettingError: layers are of blocks that are not the library's, so that nothing rebuilds what is cut.
    """
    if not isinstance(network, StaticNet):
        return network
    known = kinds()
    for layer in network.layers_spec:
        if network.kinds[layer["op"]] is not known.get(layer["op"]):
            expected = f"a network of the library's blocks, to be cut; {layer['op']} is another"
            raise SettingError("teacher.model", layer["op"], expected, "name a factory: package.module:callable")
    whole = WholeNet(network.layers_spec)
    whole._take(network)
    return whole.train(network.training)
