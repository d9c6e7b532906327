"""A teacher whose units can be narrowed or left out: all its cut versions in one set of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas_kd.derive.calling import batch_norms, called_with, replaced, statistics_of
from nas_kd.derive.cut import Kept, Slice, Twin, cut
from nas_kd.derive.groups import OUT, Group
from nas_kd.derive.units import Unit
from nas_kd.nn.cutting import LeftOut, plan_of
from nas_kd.nn.norm import STATISTICS, NormValues, Recorder

Choice = Kept | None  # of a unit: how many parts of each group stay; None leaves it out
KEPT_ASSEMBLIES = 64
Passing = tuple[tuple[int, int], ...]  # number and kept parts of each cut stream that passes through a module


@dataclass(frozen=True)
class Assembly:
    """A cut network.

    Args:
        network: the teacher's class with twins in the place of units.
        parts: of each shared weight in it the name, the whole, and what of it is taken.
        modules: all modules by path.
    """

    network: nn.Module
    parts: Sequence[tuple[str, Tensor, Slice | None]]
    modules: Mapping[str, nn.Module]

    def tensors(self) -> dict[str, Tensor]:
        """Take the weights, by name."""
        return {name: tensor if picked is None else picked.of(tensor) for name, tensor, picked in self.parts}


class CutNet(nn.Module):
    """A network, its units and its streams; what is cut is an argument, never a state.

    Whole units are the network's own modules, so that the uncut network gives its logits to the bit. A unit that is cut
    is called with the positions of its weights that stay, in their own order; after `separate`, of a copy of them.

    Choices are one a unit, perhaps followed by one a stream: how many of its parts stay, as a tuple of one number.

    Args:
        network: the teacher; it is copied.
        units: its units.
        order: for each unit and group its parts by falling importance, then for each stream.
        streams: channels between units.
    """

    def __init__(
        self,
        network: nn.Module,
        units: Sequence[Unit],
        order: Sequence[Sequence[Tensor]],
        streams: Sequence[Group] = (),
    ) -> None:
        super().__init__()
        self.body = deepcopy(network).requires_grad_(True)
        self.separated = nn.ModuleDict()  # by the number of the unit, once its cuts have weights of their own
        self.units = tuple(units)
        self.streams = tuple(streams)
        self.order = order
        self._twins: dict[tuple[int, Kept, Passing], Twin] = {}
        self._layers: dict[tuple[str, Passing], Twin] = {}
        self._assemblies: dict[tuple[Choice, ...], Assembly] = {}
        paths = [unit.path for unit in units]
        # of each unit, and of each layer outside, the streams that pass through it
        self._passing: dict[str, tuple[int, ...]] = {}
        for number, stream in enumerate(streams):
            for layer in stream.layers:
                path = next((path for path in paths if layer == path or layer.startswith(f"{path}.")), layer)
                if number not in self._passing.setdefault(path, ()):
                    self._passing[path] += (number,)
        self._outside = [path for path in self._passing if path not in paths]
        self._momenta = {path: module.momentum for path, module in batch_norms(self.body).items()}
        for module in batch_norms(self.body).values():
            module.momentum = 1.0  # a batch leaves its own statistics behind, which `statistics` reads
            module._non_persistent_buffers_set.update(STATISTICS)  # they are no weights

    def twin(self, index: int, kept: Kept, passing: Passing = ()) -> Twin:
        """Return a unit's twin for a choice, made once.

        Args:
            index: number of the unit.
            kept: how many parts of each of its groups stay.
            passing: number and kept parts of each cut stream that passes through it.
        """
        key = (index, kept, passing)
        if key not in self._twins:
            unit = self.units[index]
            self._twins[key] = self._cut(unit, kept, passing, self.order[index])
        return self._twins[key]

    def _cut(self, unit: Unit, kept: Kept, passing: Passing, order: Sequence[Tensor]) -> Twin:
        groups = [_within(self.streams[number], unit.path) for number, _ in passing]
        ranks = [self.order[len(self.units) + number][0] for number, _ in passing]
        both = replace(unit, groups=(*unit.groups, *groups))
        counts = (*kept, *(count for _, count in passing))
        return cut(_alone(self.body.get_submodule(unit.path), unit), both, counts, (*order, *ranks))

    def whole(self, index: int) -> Kept:
        """Return the choice that keeps all of a unit, or of a stream after the last unit."""
        if index >= len(self.units):
            return (self.streams[index - len(self.units)].channels,)
        return tuple(group.channels for group in self.units[index].groups)

    def passing(self, path: str) -> tuple[int, ...]:
        """Return the numbers of the streams that pass through a unit, or a layer outside of units."""
        return self._passing.get(path, ())

    def first(self, index: int) -> int:
        """Return the number of the first unit that a unit, or a stream after the last unit, is part of."""
        if index < len(self.units):
            return index
        number = index - len(self.units)
        passed = [at for at, unit in enumerate(self.units) if number in self.passing(unit.path)]
        return min(passed, default=0)

    def separate(self) -> None:
        """Give the cuts of all units weights of their own, equal to the teacher's, so that these stay as they are."""
        for index, unit in enumerate(self.units):
            if unit.groups and str(index) not in self.separated:
                self.separated[str(index)] = deepcopy(self.body.get_submodule(unit.path))
        self._assemblies.clear()

    def _source(self, index: int, kept: Kept) -> nn.Module:
        """Return the module with the weights that a unit's choice takes."""
        own = kept != self.whole(index) and str(index) in self.separated
        return self.separated[str(index)] if own else self.body.get_submodule(self.units[index].path)

    def cut_tensors(self, index: int, kept: Kept, passing: Passing = ()) -> dict[str, Tensor]:
        """Return the weights that a unit's twin is called with: slices of those that all cuts of the unit share."""
        slices = self.twin(index, kept, passing).slices
        source = self._source(index, kept)
        return {name: slices[name].of(p) if name in slices else p for name, p in source.named_parameters()}

    def assembled(self, choices: Sequence[Choice]) -> tuple[nn.Module, dict[str, Tensor]]:
        """Put a cut network together.

        Args:
            choices: one a unit, then one a stream; without those of the streams they are whole.

        Returns:
            The network's own class with twins in the place of its units, and the slices of the shared weights that the
            twins are called with, by their names in it.
        """
        assembly = self._assembly(choices)
        return assembly.network, assembly.tensors()

    def _assembly(self, choices: Sequence[Choice]) -> Assembly:
        key = tuple(choices)
        if key not in self._assemblies:
            if len(self._assemblies) >= KEPT_ASSEMBLIES:
                self._assemblies.pop(next(iter(self._assemblies)))
            self._assemblies[key] = self._assemble(key)
        return self._assemblies[key]

    def _assemble(self, choices: tuple[Choice, ...]) -> Assembly:
        changes: dict[str, nn.Module] = {}
        parts: list[tuple[str, Tensor, Slice | None]] = []
        narrow: dict[int, int] = {}
        for number, choice in enumerate(choices[len(self.units) :]):
            assert choice is not None
            if choice[0] < self.streams[number].channels:
                narrow[number] = choice[0]

        def passing(path: str) -> Passing:
            return tuple((number, narrow[number]) for number in self.passing(path) if number in narrow)

        for index, (unit, choice) in enumerate(zip(self.units, choices, strict=False)):
            through = passing(unit.path)
            if choice is None:
                changes[unit.path] = LeftOut(unit.more)
            elif through or choice != self.whole(index):
                twin = self.twin(index, choice, through)
                changes[unit.path] = twin.module
                parts += self._parts(unit.path, self._source(index, choice), twin)
        for path in self._outside if narrow else ():
            if through := passing(path):
                if (path, through) not in self._layers:
                    self._layers[path, through] = self._cut(Unit(path, (), False, (), ()), (), through, ())
                twin = self._layers[path, through]
                if not _holds(self.body.get_submodule(path)):
                    changes[path] = twin.module
                parts += self._parts(path, self.body.get_submodule(path), twin)
        network = replaced(self.body, changes)
        return Assembly(network, parts, dict(network.named_modules()))

    def _parts(self, path: str, module: nn.Module, twin: Twin) -> list[tuple[str, Tensor, Slice | None]]:
        """List the shared weights of a twin: their names in the network, the whole ones, and what of them is taken."""
        if path in self._outside and _holds(module):
            return [(f"{path}.{n}".lstrip("."), getattr(module, n), picked) for n, picked in twin.slices.items()]
        return [(f"{path}.{n}", tensor, twin.slices.get(n)) for n, tensor in module.named_parameters()]

    def _apply(self, fn: Any, recurse: bool = True) -> CutNet:
        """Forget the twins when weights move: they are cut where these are."""
        for known in (self._twins, self._layers, self._assemblies):
            known.clear()
        return super()._apply(fn, recurse)

    def forward(self, x: Any, choices: Sequence[Choice], norm: NormValues | None = None) -> Tensor:
        """Run a cut network.

        Args:
            x: (B, C, H, W) as the teacher takes them, or texts.
            choices: one a unit.
            norm: statistics of its batch norms by path; None takes the batch's (training mode).

        Returns:
            Logits (B, classes).
        """
        assembly = self._assembly(choices)
        for module in assembly.modules.values():
            if module.training != self.training:
                module.training = self.training
        return called_with(assembly.network, assembly.tensors() | statistics_of(norm), x, assembly.modules)

    @torch.no_grad()
    def statistics(self, batches: Iterable[Any], choices: Sequence[Choice]) -> NormValues:
        """Measure the statistics of a cut network's batch norms, pooled exactly over batches."""
        network, tensors = self.assembled(choices)
        if not batch_norms(network):
            return {}
        recorder = Recorder()

        def record(name: str, module: Any, args: tuple[Tensor], _: Any) -> None:
            count = args[0].numel() // args[0].shape[1]
            recorder.add(name, module.running_mean.clone(), module.running_var.clone(), count)

        norms = batch_norms(network)
        handles = [module.register_forward_hook(partial(record, name)) for name, module in norms.items()]
        modes = {module: module.training for module in network.modules()}
        network.eval()
        for module in norms.values():
            module.train()
        try:
            for images in batches:
                called_with(network, tensors, images)
        finally:
            for handle in handles:
                handle.remove()
            for part, mode in modes.items():
                part.training = mode
        return recorder.values()

    @torch.no_grad()
    def extract(self, choices: Sequence[Choice], norm: NormValues | None = None) -> nn.Module:
        """Copy a cut network out: the teacher's own class with weights of its own."""
        network, tensors = self.assembled(choices)
        found = deepcopy(network)
        for name, tensor in tensors.items():
            path, _, own = name.rpartition(".")
            found.get_submodule(path)._parameters[own] = nn.Parameter(tensor.detach().clone())
        for name, module in batch_norms(found).items():
            module.momentum = self._momenta[name]
            module._non_persistent_buffers_set.difference_update(STATISTICS)
            module.reset_running_stats()
            if norm is not None:
                module.running_mean.copy_(norm[name][0])
                module.running_var.copy_(norm[name][1])
        found.cut_plan = plan_of(found, self.body)  # type: ignore[assignment]
        return found.train(self.training)


def _within(stream: Group, path: str) -> Group:
    """Return what of a stream is in a module."""
    slots = tuple(slot for slot in stream.slots if slot.layer == path or slot.layer.startswith(f"{path}."))
    return replace(stream, slots=slots)


def _holds(module: nn.Module) -> bool:
    """Tell whether a module is one around others, and no layer."""
    return not isinstance(module, tuple(OUT)) and next(module.children(), None) is not None


def _alone(module: nn.Module, unit: Unit) -> nn.Module:
    """Return a unit, or of a module around units, which has tensors of its own, those alone."""
    if unit.shape or not _holds(module):
        return module
    alone = nn.Module()
    alone._parameters.update(module._parameters)
    return alone
