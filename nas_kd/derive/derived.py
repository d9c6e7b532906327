"""What a space is derived from: the teacher, and what is found of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from nas_kd.derive.chain import Between
from nas_kd.derive.units import Unit
from nas_kd.nn.norm import NormValues


@dataclass(frozen=True)
class Derived:
    """What a space was derived from.

    Args:
        network: the teacher's network, in evaluation mode; it stays as it is.
        units: its units.
        links: what is cut between them, and the order in which it is met.
        order: for each unit and group its parts by falling importance, then for each stream.
        norm: statistics of the network's batch norms.
        num_classes: of its logits.
        in_chans: channels of its images.
        mean: what its images are normalised by, None where the data's own will do.
        std: likewise.
    """

    network: nn.Module
    units: tuple[Unit, ...]
    links: Between
    order: list[list[Tensor]]
    norm: NormValues
    num_classes: int
    in_chans: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
