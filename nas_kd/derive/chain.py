"""Channels between the units of a network, and the order in which units and layers meet them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas_kd.derive.groups import Group
from nas_kd.nn.widen import Widen

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
WRITERS = (*LAYERS, nn.Embedding)  # what streams begin at


@dataclass(frozen=True)
class Link:
    """A place in the chain of a network that a choice is made at: a unit, or a layer whose outputs are cut.

    Args:
        path: of the unit or the layer.
        unit: number of the unit, None for a layer.
        enter: number of the stream that comes in, or has ended since the last link; None where its channels stay.
        leave: number of the stream that goes out, likewise.
        outside: names of the parameters outside of units that are between this link and the one before, its own too.
    """

    path: str
    unit: int | None
    enter: int | None
    leave: int | None
    outside: tuple[str, ...]

    @property
    def opens(self) -> int | None:
        """The stream that begins here."""
        return self.leave if self.leave != self.enter else None


@dataclass(frozen=True)
class Between:
    """What is cut between units.

    Args:
        streams: groups of channels that run along the network: at no place two of them.
        links: units, and the layers that begin streams, in the order in which they run.
        outside: names of the parameters of a stream that come after the last link.
        last: number of the stream that they read, None where there is none.
        stays: paths of layers whose outputs cannot be cut.
    """

    streams: tuple[Group, ...]
    links: tuple[Link, ...]
    outside: tuple[str, ...] = ()
    last: int | None = None
    stays: tuple[str, ...] = ()


def between(network: nn.Module, groups: Sequence[Group], units: Sequence[str], order: Sequence[str]) -> Between:
    """Choose the streams of a network and put it in line.

    Args:
        network: the network.
        groups: channels that are inside no unit.
        units: paths of the units, and of blocks that are none because nothing in them is cut.
        order: paths of all modules as they run.

    Returns:
        Streams that never run side by side: of two that would, the one that begins first.
    """
    sites = _sites(network, units, order)
    place = {path: number for number, path in enumerate(sites)}

    def site_of(layer: str) -> int | None:
        inside = next((path for path in units if layer == path or layer.startswith(f"{path}.")), layer)
        return place.get(inside)  # None: of a module that is never called itself, such as the network

    spans: list[tuple[int, int, Group]] = []
    for group in groups:
        touched = [site for layer in group.layers if (site := site_of(layer)) is not None]
        if touched and min(touched) < max(touched) and any(slot.dim == 1 for slot in group.slots):
            spans.append((min(touched), max(touched), group))
    streams: list[Group] = []
    across: dict[int, int] = {}  # number of the stream between a site and the next
    begins: set[int] = set()
    for first, last, group in sorted(spans, key=lambda span: span[:2]):
        begun = sites[first] in units or isinstance(network.get_submodule(sites[first]), WRITERS)
        if begun and not any(site in across for site in range(first, last)):
            across.update(dict.fromkeys(range(first, last), len(streams)))
            begins.add(first)
            streams.append(group)
    return Between(tuple(streams), *_links(network, units, sites, across, begins, streams, site_of))


def _sites(network: nn.Module, units: Sequence[str], order: Sequence[str]) -> list[str]:
    """Return units, and modules outside of them that have tensors of their own, in the order in which they run."""
    sites = []
    for path in order:
        if path in units:
            sites.append(path)
        elif not any(path.startswith(f"{unit}.") for unit in units):
            module = network.get_submodule(path)
            if next(module.parameters(recurse=False), None) is not None or isinstance(module, Widen):
                sites.append(path)
    return sites


def _links(
    network: nn.Module,
    units: Sequence[str],
    sites: Sequence[str],
    across: Mapping[int, int],
    begins: set[int],
    streams: Sequence[Group],
    site_of: Any,
) -> tuple[tuple[Link, ...], tuple[str, ...], int | None]:
    """Return the links, and what comes after the last one."""
    touched = {slot.name for group in streams for slot in group.slots}
    loose: dict[
        int, list[str]
    ] = {}  # parameters of modules that are never called, by the site that begins their stream
    for stream in streams:
        for slot in stream.slots:
            if site_of(slot.layer) is None:
                first = min(site for layer in stream.layers if (site := site_of(layer)) is not None)
                loose.setdefault(first, []).append(slot.name)
    links: list[Link] = []
    pending: list[str] = []
    names = set(dict(network.named_parameters()))
    for site, path in enumerate(sites):
        pending += loose.get(site, [])
        if path not in units:
            own = [name for name, _ in network.get_submodule(path).named_parameters(path, recurse=False)]
            pending += [name for name in own if name in touched and name in names]
        if path in units or site in begins:
            enter = across.get(site - 1)
            if enter is None and links and pending:  # the last link's stream ended on the way: its readers count here
                enter = links[-1].leave
            unit = list(units).index(path) if path in units else None
            links.append(Link(path, unit, enter, across.get(site), tuple(pending)))
            pending = []
            end = site
    return tuple(links), tuple(pending), across.get(end) if links else None
