"""A network whose prunable parts and units have gates, and what the gates cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_kd.derive.calling import called_with
from nas_kd.derive.importance import readers
from nas_kd.derive.units import Unit
from nas_kd.nn.cutting import first_of, with_first
from nas_kd.space.arch import Candidate

if TYPE_CHECKING:
    from nas_kd.derive.supernet import TeacherSupernet


@dataclass(frozen=True)
class GateGroup:
    """The gates of one group of channels, or the one gate of a unit that may be left out.

    Args:
        unit: number of the unit.
        group: number of the group of channels in the unit; None is the unit itself.
        first: position of its first gate.
        count: number of its gates.
        cost: what each of its parts costs, as a share of the teacher's MACs or parameters; of a unit all of it.
    """

    unit: int
    group: int | None
    first: int
    count: int
    cost: float

    def of(self, gates: Tensor) -> Tensor:
        """Return its own gates (count,) of all (N,)."""
        return gates[self.first : self.first + self.count]


@dataclass(frozen=True)
class Gates:
    """Which gates there are.

    Args:
        groups: in the order of their positions.
    """

    groups: tuple[GateGroup, ...]

    @classmethod
    def of(cls, net: TeacherSupernet, cost: Mapping[str, int], column: str = "macs") -> Gates:
        """List the gates of a teacher's space: of all channels that it can cut, and all units that it may leave out.

        Args:
            net: its supernet, without streams.
            cost: keywords of ``space.cost``; with a ``resolution`` where the space chooses it too.
            column: ``macs`` or ``params``.
        """
        space: Any = net.space
        size = {name: value for name, value in cost.items() if name != "resolution" or not space.resolutions}
        whole = replace(space.largest(), resolution=cost["resolution"] if space.resolutions else None)
        total = float(getattr(space.cost(whole, **size), column))

        def saved(at: int, candidate: Candidate) -> float:
            stages = (*whole.stages[:at], candidate, *whole.stages[at + 1 :])
            return 1.0 - float(getattr(space.cost(replace(whole, stages=stages), **size), column)) / total

        found: list[GateGroup] = []
        first = 0
        for at, (link, stage) in enumerate(zip(net.links, space.stages, strict=True)):
            assert link.unit is not None  # a layer is a link only where a stream begins
            largest = whole.stages[at]
            cut = [number for number, kept in enumerate(stage.kept) if len(kept) > 1]
            (layer,) = largest.layers
            least = tuple(kept[0] for kept in stage.kept)
            alone = {n: saved(at, Candidate(largest.width, ((*layer[:n], least[n], *layer[n + 1 :]),))) for n in cut}
            # groups that meet in one layer both save it: together they cost what cutting both saves
            both = saved(at, Candidate(largest.width, (least,))) / sum(alone.values()) if cut else 1.0
            for number in cut:
                kept = stage.kept[number]
                each = both * alone[number] / (kept[-1] - kept[0])
                found.append(GateGroup(link.unit, number, first, kept[-1], each))
                first += kept[-1]
            if stage.depths[0] == 0:
                found.append(GateGroup(link.unit, None, first, 1, saved(at, Candidate(largest.width, ()))))
                first += 1
        return cls(tuple(found))

    @property
    def count(self) -> int:
        """Number of gates."""
        return sum(group.count for group in self.groups)

    def price(self, gates: Tensor) -> Tensor:
        """Return the L1 price of gates (N,), each weighted by what its part costs: a scalar.

        Source: Gu and Tresp 2020, the term of the gates' L1 norms.
        """
        return torch.stack([group.cost * group.of(gates).abs().sum() for group in self.groups]).sum()

    def unit(self, number: int, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return a unit's own gate, 1 where it has none, and what it costs when that is open, as a share.

        Args:
            number: of the unit.
            gates: (N,) sizes of the gates.
        """
        own = [group for group in self.groups if group.unit == number]
        parts = [group for group in own if group.group is not None]
        used = sum((group.cost * group.of(gates).sum() for group in parts), gates.new_zeros(()))
        for group in own:
            if group.group is None:
                rest = max(0.0, group.cost - sum(part.cost * part.count for part in parts))
                return group.of(gates)[0], used + rest
        return gates.new_ones(()), used

    def share(self, gates: Tensor) -> Tensor:
        """Return what is left of the teacher's cost, where a gate of 0.3 leaves 0.3 of its part: a scalar."""
        sizes = gates.abs().clamp(max=1.0)
        left = gates.new_ones(())
        whole = torch.ones_like(sizes)
        for number in dict.fromkeys(group.unit for group in self.groups):
            own, used = self.unit(number, sizes)
            left = left + own * used - self.unit(number, whole)[1]
        return left


class GatedNet(nn.Module):
    """A teacher with a gate on each part that can be cut: what reads the part, or the unit around its input, is scaled.

    The norms keep the teacher's statistics, because statistics of a batch would undo what a gate scales; all weights
    can learn.

    Args:
        network: the teacher's; it is copied.
        units: its units.
        gates: which gates there are.
        speed: how far a gate moves for a step of its parameter, which optimisers step alike with the weights.
    """

    price: Tensor

    def __init__(self, network: nn.Module, units: Sequence[Unit], gates: Gates, speed: float = 1.0) -> None:
        super().__init__()
        self.body = deepcopy(network).requires_grad_(True).eval()
        self.units = tuple(units)
        self.plan = gates
        self.speed = speed
        self.closed = nn.Parameter(torch.zeros(gates.count))
        self.register_buffer("price", torch.zeros(()))
        self._scaled: list[tuple[GateGroup, str, Tensor]] = []
        for group in gates.groups:
            if group.group is not None:
                self._scaled += [(group, *each) for each in self._readers(group)]

    def _readers(self, own: GateGroup) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that read a group, and for each of their inputs the gate, or the last, which is none."""
        assert own.group is not None
        for slot in readers(self.body, self.units[own.unit].groups[own.group]):
            layer: Any = self.body.get_submodule(slot.layer)
            if getattr(layer, "groups", 1) > 1:
                continue  # a grouped convolution hands the channels on, and what reads these is scaled
            at = torch.full((layer.weight.shape[1],), own.count)
            for part, places in enumerate(slot.index):
                at[list(places)] = part
            yield slot.name, at

    def train(self, mode: bool = True) -> GatedNet:
        """Stay in evaluation mode: norms keep the teacher's statistics."""
        return super().train(False)

    @property
    def gates(self) -> Tensor:
        """The gates (N,), all 1 at first."""
        return 1.0 - self.speed * self.closed

    @torch.no_grad()
    def keep_within(self) -> None:
        """Bring the gates back between 0 and 1, which steps of an optimiser may leave."""
        self.closed.clamp_(0.0, 1.0 / self.speed)

    def tensors(self, gates: Tensor) -> dict[str, Tensor]:
        """Return the weights that read gated channels, scaled, by name.

        Args:
            gates: (N,).
        """
        found: dict[str, Tensor] = {}
        for group, name, at in self._scaled:
            weight = found[name] if name in found else self.body.get_parameter(name)
            scale = torch.cat([group.of(gates), gates.new_ones(1)])[at.to(gates.device)]
            found[name] = weight * scale.view(1, -1, *[1] * (weight.ndim - 2))
        return found

    def forward(self, x: Tensor, gates: Tensor | None = None) -> Tensor:
        """Run the gated network.

        Args:
            x: (B, C, H, W) as the teacher takes them.
            gates: (N,) in the place of its own.

        Returns:
            Logits (B, classes).
        """
        gates = self.gates if gates is None else gates
        with self._leaving_out(gates):
            return called_with(self.body, self.tensors(gates), x)

    @contextmanager
    def _leaving_out(self, gates: Tensor) -> Iterator[None]:
        """Run units between what they give, at a gate of 1, and their input, at 0, both to the bit."""
        inputs: dict[int, Tensor] = {}

        def keep(unit: int, module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[unit] = args[0].clone()  # the unit may change it in place

        def mix(unit: int, gate: Tensor, module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
            whole = first_of(out)
            mixed = torch.lerp(inputs.pop(unit), whole, gate.to(whole.dtype))
            return with_first(out, mixed)

        handles = []
        for group in self.plan.groups:
            if group.group is None:
                module = self.body.get_submodule(self.units[group.unit].path)
                handles.append(module.register_forward_pre_hook(partial(keep, group.unit)))
                handles.append(module.register_forward_hook(partial(mix, group.unit, group.of(gates)[0])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
