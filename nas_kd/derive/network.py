"""A teacher whose units can be narrowed or left out: all its cut versions in one set of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas_kd.derive.cut import Kept, Twin, cut
from nas_kd.derive.units import Unit
from nas_kd.nn.cutting import plan_of
from nas_kd.nn.norm import NormValues, Recorder

Choice = Kept | None  # of a unit: how many parts of each group stay; None leaves it out


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class CutNet(nn.Module):
    """A network and its units; what is cut is an argument, never a state.

    Whole units are the network's own modules, so that the uncut network gives its logits to the bit. A unit that is cut
    is called with the positions of its weights that stay, in their own order.

    Args:
        network: the teacher; it is copied.
        units: its units.
        order: for each unit and group its parts by falling importance.
    """

    def __init__(self, network: nn.Module, units: Sequence[Unit], order: Sequence[Sequence[Tensor]]) -> None:
        super().__init__()
        self.body = deepcopy(network).requires_grad_(True)
        self.units = tuple(units)
        self.order = order
        self._twins: dict[tuple[int, Kept], Twin] = {}
        self._momenta = {path: module.momentum for path, module in batch_norms(self.body).items()}
        for module in batch_norms(self.body).values():
            module.momentum = 1.0  # a batch leaves its own statistics behind, which `statistics` reads
            module._non_persistent_buffers_set.update(STATISTICS)  # they are no weights

    def twin(self, index: int, kept: Kept) -> Twin:
        """Return a unit's twin for a choice, made once."""
        key = (index, kept)
        if key not in self._twins:
            unit = self.units[index]
            self._twins[key] = cut(self.body.get_submodule(unit.path), unit, kept, self.order[index])
        return self._twins[key]

    def whole(self, index: int) -> Kept:
        """Return the choice that keeps all of a unit."""
        return tuple(group.channels for group in self.units[index].groups)

    def assembled(self, choices: Sequence[Choice]) -> tuple[nn.Module, dict[str, Tensor]]:
        """Put a cut network together.

        Args:
            choices: one a unit.

        Returns:
            The network's own class with twins in the place of its units, and the slices of the shared weights that the
            twins are called with, by their names in it.
        """
        changes: dict[str, nn.Module] = {}
        tensors: dict[str, Tensor] = {}
        for index, (unit, choice) in enumerate(zip(self.units, choices, strict=True)):
            if choice is None:
                changes[unit.path] = nn.Identity()
            elif choice != self.whole(index):
                twin = self.twin(index, choice)
                changes[unit.path] = twin.module
                for name, tensor in self.body.get_submodule(unit.path).named_parameters():
                    picked = twin.slices.get(name)
                    tensors[f"{unit.path}.{name}"] = tensor if picked is None else picked.of(tensor)
        return replaced(self.body, changes), tensors

    def forward(self, x: Tensor, choices: Sequence[Choice], norm: NormValues | None = None) -> Tensor:
        """Run a cut network.

        Args:
            x: (B, C, H, W) as the teacher takes them.
            choices: one a unit.
            norm: statistics of its batch norms by path; None takes the batch's (training mode).

        Returns:
            Logits (B, classes).
        """
        network, tensors = self.assembled(choices)
        network.train(self.training)
        return functional_call(network, tensors | statistics_of(norm), (x,))

    @torch.no_grad()
    def statistics(self, batches: Iterable[Tensor], choices: Sequence[Choice]) -> NormValues:
        """Measure the statistics of a cut network's batch norms, pooled exactly over batches."""
        network, tensors = self.assembled(choices)
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
                functional_call(network, tensors, (images,))
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


def batch_norms(network: nn.Module) -> dict[str, Any]:
    """Return the batch norms of a network that keep statistics, by path."""
    kinds = nn.modules.batchnorm._BatchNorm
    return {n: m for n, m in network.named_modules() if isinstance(m, kinds) and m.running_mean is not None}


def statistics_of(norm: NormValues | None) -> dict[str, Tensor]:
    """Write statistics as the buffers that batch norms read them from."""
    found: dict[str, Tensor] = {}
    for path, (mean, variance) in (norm or {}).items():
        found[f"{path}.running_mean"] = mean
        found[f"{path}.running_var"] = variance
    return found


def replaced(module: nn.Module, changes: Mapping[str, nn.Module]) -> nn.Module:
    """Return a module with others in the place of some of its parts; what is not above them is the same object.

    Args:
        module: not changed.
        changes: path to new part.
    """
    if not changes:
        return module
    if "" in changes:
        return changes[""]
    below: dict[str, dict[str, nn.Module]] = {}
    for path, part in changes.items():
        first, _, rest = path.partition(".")
        below.setdefault(first, {})[rest] = part
    found = copy(module)
    found._modules = dict(module._modules)
    for name, inner in below.items():
        child = module._modules[name]
        assert child is not None
        found._modules[name] = replaced(child, inner)
    return found
