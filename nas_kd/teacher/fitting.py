"""Which tensors of a checkpoint are those of a network: found by what fits best, not by names that scripts use."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from nas_kd.teacher.checkpoint import Nest, averaged, unwrapped


@dataclass(frozen=True)
class Fit:
    """Tensors of a checkpoint, assigned to those of a network.

    Args:
        weights: name in the network to tensor, of any shape.
        fitting: how many of them have the network's shape.
        place: where they were found, such as ``state_dict: model.``; empty for the top of the file.
        others: name to tensor of the same mapping that the network has no place for, without the prefix.
        depth: of the mapping in the file.
    """

    weights: dict[str, Tensor]
    fitting: int
    place: str
    others: dict[str, Tensor]
    depth: int = 0

    @property
    def rank(self) -> tuple[int, int, bool, int, int]:
        """What decides between several: equal shapes, equal names, averaged weights, few others, the inner mapping."""
        return self.fitting, len(self.weights), averaged(self.place), -len(self.others), self.depth


def best_fit(own: Mapping[str, Tensor], nests: Iterable[Nest]) -> Fit:
    """Return the tensors of a checkpoint that fit a network best.

    Every mapping in the file is tried, with every prefix that its names have before the network's (``module.``,
    ``model.``, ``backbone.``). Where the names have a prefix, others that fit nothing else fill what it leaves open,
    such as mmpretrain's ``head.`` beside ``backbone.``. Of equal ones averaged weights are taken, else the first.

    Args:
        own: the network's state dict.
    """
    best = Fit({}, 0, "", {})
    for nest in nests:
        for fit in _fits(own, nest):
            if fit.rank > best.rank or not best.weights:
                best = fit
    return best


def _fits(own: Mapping[str, Tensor], nest: Nest) -> list[Fit]:
    """Return the best fit of a mapping for every prefix that fits as much as any."""
    names = {unwrapped(name): name for name in nest.tensors}
    home = _home(own)
    places: dict[str, dict[str, str]] = defaultdict(dict)  # prefix: name in the network to name in the file
    for name, stored in names.items():
        for prefix, rest in _cuts(name):
            for key in (rest, home + rest):
                if key in own:
                    places[prefix].setdefault(key, stored)
    counts = {prefix: _fitting(own, nest.tensors, found) for prefix, found in places.items()}
    most = max(((counts[prefix], len(found)) for prefix, found in places.items()), default=(0, 0))
    chosen = [prefix for prefix, found in places.items() if (counts[prefix], len(found)) == most]
    return [_fit(own, nest, places, prefix) for prefix in chosen]


def _fit(own: Mapping[str, Tensor], nest: Nest, places: Mapping[str, Mapping[str, str]], prefix: str) -> Fit:
    found = dict(places[prefix])
    used = set(found.values())
    prefixes = [prefix]
    split = prefix and not used & nest.deeper  # never from two mappings, which may be two networks
    order = sorted(places, key=lambda other: -len(places[other].keys() - found.keys()))
    for other in order if split else ():
        more = places[other]
        if not more.keys() & found.keys() and not (used | nest.deeper) & set(more.values()):
            found |= more
            used |= set(more.values())
            prefixes.append(other)
    others = {unwrapped(n).removeprefix(prefix): tensor for n, tensor in nest.tensors.items() if n not in used}
    place = ": ".join(part for part in (".".join(nest.path), " and ".join(p for p in prefixes if p)) if part)
    weights = {key: nest.tensors[name] for key, name in found.items()}
    return Fit(weights, _fitting(own, nest.tensors, found), place, others, len(nest.path))


def _fitting(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], found: Mapping[str, str]) -> int:
    return sum(shape_of(tensors[name]) == shape_of(own[key]) for key, name in found.items())


def shape_of(tensor: Tensor) -> tuple[int, ...] | None:
    """Return a tensor's shape; None of a nested one, which has none."""
    return None if tensor.is_nested else tuple(tensor.shape)


def _home(own: Mapping[str, Tensor]) -> str:
    """Return the prefix that all names of a network have, where it wraps another; weights may be saved without it."""
    firsts = {name.partition(".")[0] for name in own}
    return f"{firsts.pop()}." if len(firsts) == 1 else ""


def _cuts(name: str) -> Iterable[tuple[str, str]]:
    """Yield every prefix of dotted parts, with its dot, and the rest of a name."""
    yield "", name
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)


def larger(own: Mapping[str, Tensor], others: Iterable[str]) -> list[str]:
    """Return the left-over names that continue a numbered series of the network: a deeper network was saved.

    Anything else beside the weights (a loss's, another head's, counters of profilers) says nothing of the network.
    """
    series = {re.sub(r"\d+", "#", name) for name in own}
    return [name for name in others if re.sub(r"\d+", "#", name) in series]


def nearest_names(name: str, names: Sequence[str], count: int = 3) -> list[str]:
    """Return the names that are most like one: of equal last parts first, then of long common ends."""

    def likeness(other: str) -> tuple[int, int]:
        mine = name.split(".")[::-1]
        theirs = other.split(".")[::-1]
        ends = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
        )
        starts = sum(a == b for a, b in zip(mine[::-1], theirs[::-1], strict=False))
        return ends, starts

    return sorted(names, key=likeness, reverse=True)[:count]
