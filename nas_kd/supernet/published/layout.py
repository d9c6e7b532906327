"""How a published supernet names its tensors, and which of ours each of them is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# a supernet measures the statistics of norms anew for every arch
RUNNING = ("running_mean", "running_var", "num_batches_tracked")
MOBILE = {  # our layers of an inverted residual block to those of OFA's code, which others adapted
    "expand": "inverted_bottleneck.conv.conv",
    "expand_bn": "inverted_bottleneck.bn.bn",
    "depthwise": "depth_conv.conv.conv",
    "depthwise_bn": "depth_conv.bn.bn",
    "se_reduce": "depth_conv.se.fc.reduce",
    "se_expand": "depth_conv.se.fc.expand",
    "project": "point_linear.conv.conv",
    "project_bn": "point_linear.bn.bn",
}


@dataclass(frozen=True)
class Layout:
    """The names of one published supernet's tensors.

    Args:
        source: whose supernet, for messages.
        ends: layers of our stem and head to theirs.
        block: their name of a block, ``{}`` for its number over all stages.
        layers: layers of our blocks, or single tensors, to theirs.
        first: the same for the first block where it is another one; None where it is not.
        unused: endings of the names of tensors that our networks do without.
    """

    source: str
    ends: Mapping[str, str]
    block: str
    layers: Mapping[str, str]
    first: Mapping[str, str] | None = None
    unused: tuple[str, ...] = RUNNING

    def names(self, own: Iterable[str]) -> dict[str, str]:
        """Map names of our tensors to theirs; what they have no name for keeps its own."""
        own = list(own)
        blocks = dict.fromkeys(_block(name) for name in own if name.startswith("stages."))
        numbers = {block: number for number, block in enumerate(blocks)}
        return {name: self._name(name, numbers) for name in own}

    def _name(self, name: str, numbers: Mapping[str, int]) -> str:
        if not name.startswith("stages."):
            return _translated(name, self.ends) or name
        block = _block(name)
        number = numbers[block]
        layers = self.first if number == 0 and self.first is not None else self.layers
        inner = _translated(name.removeprefix(f"{block}."), layers)
        return self.block.format(number) + inner if inner else name


def _block(name: str) -> str:
    """Return ``stages.S.layers.L`` of a tensor's name."""
    return ".".join(name.split(".")[:4])


def _translated(name: str, layers: Mapping[str, str]) -> str | None:
    """Translate a tensor, named itself or by its layer."""
    if name in layers:
        return layers[name]
    layer, _, tensor = name.rpartition(".")
    return f"{layers[layer]}.{tensor}" if layer in layers else None
